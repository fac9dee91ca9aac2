"""The kernel library of the process: object code loaded once, shared by all models.

A kernel is looked up by its specification; what is not loaded yet comes from the cache on disk or
is compiled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding

from lucid.codegen.kernels.base import KernelSpec
from lucid.codegen.llvm import compile_object, symbol, target_machine
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime.cache import ObjectCache
from lucid.runtime.planning import PLANNING

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

log = logging.getLogger("lucid.kernels")

_engines: list[Any] = []
"""Every engine, kept for the life of the process: kernels may be running, and where the garbage
collector finds an engine and its LLVM context together it may take the context first."""


class KernelLibrary:
    """Kernels of one target in executable memory. `emitted` counts those compiled, not loaded."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.emitted = 0
        self._addresses: dict[KernelSpec, dict[str, int]] = {}
        machine = target_machine(target)
        empty = binding.parse_assembly("", context=binding.create_context())
        empty.triple = target.triple
        empty.data_layout = str(machine.target_data)
        self._engine: Any = binding.create_mcjit_compiler(empty, machine)
        _engines.append(self._engine)

    def load(
        self,
        kernels: Sequence[KernelSpec],
        cache: ObjectCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Make sure that these kernels are in memory."""
        with PLANNING:
            missing = [k for k in dict.fromkeys(kernels) if k not in self._addresses]
            if not missing:
                return
            for done, kernel in enumerate(missing):
                if progress:
                    progress("kernels", done, len(missing))
                code = self._object_code(kernel, cache)
                self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
            self._engine.finalize_object()
            for kernel in missing:
                self._addresses[kernel] = {
                    export: self._engine.get_function_address(symbol(kernel, export))
                    for export in kernel.exports
                }
            if progress:
                progress("kernels", len(missing), len(missing))

    def _object_code(self, kernel: KernelSpec, cache: ObjectCache | None) -> bytes:
        code = cache.get(kernel, self.target) if cache else None
        if code is not None:
            log.debug("%s: from the cache, %d bytes", kernel, len(code))
            return code
        start = time.perf_counter()
        try:
            code = compile_object(kernel, self.target)
        except CompileError:
            raise
        except Exception as error:
            raise CompileError(
                f"kernel {kernel} cannot be emitted for {self.target.name}: "
                f"{type(error).__name__}: {error}"
            ) from error
        self.emitted += 1
        milliseconds = 1000 * (time.perf_counter() - start)
        log.debug("%s: compiled in %.0f ms, %d bytes", kernel, milliseconds, len(code))
        if cache:
            cache.put(kernel, self.target, code)
        return code

    def address(self, kernel: KernelSpec, export: str = "kernel") -> int:
        """Where an exported function of a loaded kernel lies."""
        return self._addresses[kernel][export]


_libraries: dict[str, KernelLibrary] = {}


def library(target: Target) -> KernelLibrary:
    """The process's library for a target."""
    with PLANNING:
        if target.name not in _libraries:  # caches are no part of what code is generated for
            _libraries[target.name] = KernelLibrary(target)
        return _libraries[target.name]
