"""The kernel library of the process: object code in memory, shared by all models that hold it.

A kernel is looked up by its specification; what is not in memory comes from the cache on disk or is
compiled. Who loads kernels gets a `Code`, and holds it for as long as any of them may run.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lucid.codegen.language.names import KernelName
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime.code_memory import CodeMemory
from lucid.runtime.kernel_compiler import KernelCompiler
from lucid.runtime.object_code import Bytes, ObjectCode
from lucid.runtime.planning import PLANNING

if TYPE_CHECKING:  # code that is there is loaded without what generates it
    from lucid.codegen.language.kernel import KernelSpec
    from lucid.runtime.kernel_compiler import Objects, Progress

KERNEL_TYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)
"""Of a kernel that is called by itself: arguments, buffers, first and last task, scratch."""

KEPT = 512
"""Kernels that stay in memory though nobody holds them: the same model compiled again finds them.
What was loaded longest ago goes first; a kernel takes some 10 kB."""


class _Batch:
    """Kernels that were loaded together, in one piece of memory: freed when nobody holds it."""

    def __init__(self, objects: Mapping[KernelName, Bytes]) -> None:
        self._memory = CodeMemory([_parsed(*item) for item in objects.items()])
        self.addresses: dict[KernelName, dict[str, int]] = {
            kernel: {e: self._memory.address(n, kernel.symbol(e)) for e in kernel.exports}
            for n, kernel in enumerate(objects)
        }


def _parsed(kernel: KernelName, code: Bytes) -> ObjectCode:
    try:
        return ObjectCode(code)
    except CompileError as problem:
        raise CompileError(f"kernel {kernel.text}: {problem}") from problem


class Code:
    """Some kernels in executable memory, which stay there as long as this object."""

    def __init__(self, batches: Mapping[KernelName, _Batch]) -> None:
        self._batches = batches

    def address(self, kernel: KernelSpec | KernelName, export: str = "kernel") -> int:
        """Where an exported function of one of the kernels lies."""
        name = kernel if isinstance(kernel, KernelName) else kernel.called()
        return self._batches[name].addresses[name][export]


class KernelLibrary:
    """Kernels of one target in executable memory.

    Raises CompileError for a target that this machine does not run: nothing may enter its code.
    """

    def __init__(self, target: Target) -> None:
        if not target.runs_here():
            raise CompileError(
                f"code for {target.name} cannot be loaded: this machine runs {Target.host().name}"
            )
        self.target = target
        self._compiler = KernelCompiler(target)
        self._known: weakref.WeakValueDictionary[KernelName, _Batch] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[_Batch, None] = OrderedDict()

    @property
    def emitted(self) -> int:
        """Kernels that were compiled, not loaded."""
        return self._compiler.emitted

    def load(
        self,
        kernels: Sequence[KernelSpec],
        cache: Objects | None = None,
        progress: Progress | None = None,
    ) -> Code:
        """These kernels in memory, for as long as the result is held."""
        with PLANNING:
            wanted = {kernel.called(): kernel for kernel in kernels}
            held = self._held(wanted)  # until the others are there
            missing = [kernel for name, kernel in wanted.items() if name not in held]
            objects = self._compiler.object_codes(missing, cache, progress)
            return self.take(wanted, {k.called(): code for k, code in objects.items()})

    def take(self, kernels: Iterable[KernelName], objects: Mapping[KernelName, Bytes]) -> Code:
        """These kernels in memory; those that are not there yet from their objects. Raises
        CompileError for what is no object code."""
        with PLANNING:
            found = self._held(kernels)
            missing = {k: objects[k] for k in kernels if k not in found}
            if missing:
                batch = _Batch(missing)
                for kernel in missing:
                    found[kernel] = self._known[kernel] = batch
            self._keep(found.values())
            return Code(found)

    def own(self, name: KernelName, make: Callable[[], KernelSpec]) -> Code:
        """A kernel of the runtime's own: what a model has brought, or else made."""
        with PLANNING:
            found = self._held([name])
            return Code(found) if found else self.load([make()])

    def _held(self, kernels: Iterable[KernelName]) -> dict[KernelName, _Batch]:
        """Those of these kernels that are in memory."""
        return {k: batch for k in kernels if (batch := self._known.get(k)) is not None}

    def _keep(self, batches: Any) -> None:
        """Hold what was used last, up to `KEPT` kernels."""
        for batch in batches:
            self._recent[batch] = None
            self._recent.move_to_end(batch)
        count = sum(len(batch.addresses) for batch in self._recent)
        while count > KEPT:
            oldest, _ = self._recent.popitem(last=False)
            count -= len(oldest.addresses)
            del oldest


_libraries: dict[str, KernelLibrary] = {}


def library(target: Target) -> KernelLibrary:
    """The process's library for a target."""
    with PLANNING:
        if target.name not in _libraries:  # caches are no part of what code is generated for
            _libraries[target.name] = KernelLibrary(target)
        return _libraries[target.name]
