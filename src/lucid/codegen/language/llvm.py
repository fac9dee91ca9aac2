"""From a kernel's module to object code and assembly: the only user of LLVM's optimiser."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import llvmlite
from llvmlite import binding
from llvmlite.binding import ffi
from llvmlite.binding.ffi import ObjectRef
from llvmlite.binding.newpassmanagers import NewPassManager

from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.target import Target
from lucid.errors import CompileError


@functools.cache
def _initialise() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def versions() -> str:
    """What generated code depends on besides specification and target."""
    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, binding.llvm_version_info))}"


def target_machine(target: Target) -> Any:
    """LLVM's machine for a target: position-independent code of the small model."""
    _initialise()
    return binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )


def symbol(kernel: KernelSpec, export: str) -> str:
    """The name of an exported function in object code, unique over all kernels."""
    return kernel.called().symbol(export)


class Compilation:
    """A kernel on its way to object code: its parsed module, and what LLVM needs to compile it.
    `seconds`: how long that has taken so far.

    Loops are neither unrolled nor vectorised: kernels are written as they are to run, and code
    that LLVM changes its mind about is not tested code. Raises CompileError where the kernel's
    module is not legal.
    """

    def __init__(self, kernel: KernelSpec, target: Target) -> None:
        self.kernel = kernel
        self.machine = target_machine(target)
        self.module = _parsed(kernel, target, self.machine)
        options = binding.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = False
        options.slp_vectorization = False
        options.loop_unrolling = False
        options.loop_interleaving = False
        self._passes = binding.create_pass_builder(self.machine, options)
        self._manager = self._passes.getModulePassManager()
        self._problem = ffi.OutputString()
        self._buffer: Any = None

    def optimise(self) -> None:
        """Run the passes. Takes no lock, so that kernels are compiled side by side: each has a
        context and a machine of its own, which is all that LLVM asks for."""
        _unlocked(ffi.lib.LLVMPY_RunNewModulePassManager)(self._manager, self.module, self._passes)

    def run(self) -> None:
        """All the work that there is, in native code: passes, then instructions. No lock either."""
        self.optimise()
        emit = _unlocked(ffi.lib.LLVMPY_TargetMachineEmitToMemory)
        self._buffer = emit(self.machine, self.module, 1, self._problem)

    def code(self) -> bytes:
        """The object code that `run` has made. Raises CompileError where LLVM has refused."""
        if not self._buffer:
            raise CompileError(f"kernel {self.kernel}: LLVM refuses it: {self._problem}")
        start = ffi.lib.LLVMPY_GetBufferStart(self._buffer)
        return ctypes.string_at(start, ffi.lib.LLVMPY_GetBufferSize(self._buffer))

    def close(self) -> None:
        """Free what LLVM holds, now and not some time later: llvmlite's pass managers stay for ever
        (0.50 at least), since the order of their bases hides the method that would free them, and
        that is 90 kB for each kernel."""
        if self._buffer:
            ffi.lib.LLVMPY_DisposeMemoryBuffer(self._buffer)
            self._buffer = None
        self._problem.close()
        if type(self._manager)._dispose is ObjectRef._dispose:
            NewPassManager._dispose(self._manager)
        self._manager.close()

    def __enter__(self) -> Compilation:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _parsed(kernel: KernelSpec, target: Target, machine: Any) -> Any:
    """The kernel's module, in a context of its own."""
    text = str(kernel.emit(target))
    for export in kernel.exports:
        text = text.replace(f'@"{export}"', f'@"{symbol(kernel, export)}"')
    try:
        module = binding.parse_assembly(text, context=binding.create_context())
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as problem:
        raise CompileError(f"kernel {kernel} is not legal LLVM IR: {problem}") from problem
    return module


def _unlocked(function: Any) -> Any:
    """A function of llvmlite's without the one lock that it takes for every call; the function
    itself where llvmlite has changed, and then kernels wait for each other."""
    return getattr(function, "_cfn", function)


def compile_object(kernel: KernelSpec, target: Target) -> bytes:
    """The kernel's object code."""
    with Compilation(kernel, target) as work:
        work.run()
        return work.code()


def assembly(kernel: KernelSpec, target: Target) -> str:
    """The kernel's assembly, as the object has it."""
    with Compilation(kernel, target) as work:
        work.optimise()
        return str(work.machine.emit_assembly(work.module))


def ir_text(kernel: KernelSpec, target: Target) -> str:
    """The kernel's optimised LLVM IR."""
    with Compilation(kernel, target) as work:
        work.optimise()
        return str(work.module)
