"""From a kernel's module to object code and assembly: the only user of LLVM's optimiser."""

from __future__ import annotations

import functools
from typing import Any

import llvmlite
from llvmlite import binding
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
    return f"{export}_{kernel.key().replace('-', '_')}"


def optimised(kernel: KernelSpec, target: Target) -> tuple[Any, Any]:
    """The kernel's parsed and optimised module, and its machine.

    Loops are neither unrolled nor vectorised: kernels are written as they are to run, and code
    that LLVM changes its mind about is not tested code.
    """
    machine = target_machine(target)
    text = str(kernel.emit(target))
    for export in kernel.exports:
        text = text.replace(f'@"{export}"', f'@"{symbol(kernel, export)}"')
    context = binding.create_context()
    try:
        module = binding.parse_assembly(text, context=context)
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as problem:
        raise CompileError(f"kernel {kernel} is not legal LLVM IR: {problem}") from problem
    options = binding.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    options.loop_interleaving = False
    passes = binding.create_pass_builder(machine, options)
    manager = passes.getModulePassManager()
    try:
        manager.run(module, passes)
    finally:
        _free(manager)
    return module, machine


def _free(manager: Any) -> None:
    """Free a pass manager. llvmlite itself does not (0.50 at least): the order of its class's
    bases hides the method that would, and 90 kB would stay for each kernel."""
    if type(manager)._dispose is ObjectRef._dispose:
        NewPassManager._dispose(manager)
    manager.close()


def compile_object(kernel: KernelSpec, target: Target) -> bytes:
    """The kernel's object code."""
    module, machine = optimised(kernel, target)
    return bytes(machine.emit_object(module))


def assembly(kernel: KernelSpec, target: Target) -> str:
    """The kernel's assembly, as the object has it."""
    module, machine = optimised(kernel, target)
    return str(machine.emit_assembly(module))


def ir_text(kernel: KernelSpec, target: Target) -> str:
    """The kernel's optimised LLVM IR."""
    module, _ = optimised(kernel, target)
    return str(module)
