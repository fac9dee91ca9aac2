"""Object code of kernels, for this machine or another: from the cache, or compiled side by side."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.os_threads import mapped
from lucid.runtime.planning import PLANNING
from lucid.runtime.processors import available_processors

if TYPE_CHECKING:  # code that is there is loaded without what generates it
    from lucid.codegen.language.kernel import KernelSpec

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

EACH = 4
"""Kernels for each processor that are compiled between two reports of progress."""

log = logging.getLogger("lucid.kernels")


class Objects(Protocol):
    """Where object code is kept: the cache on disk, or what else can tell."""

    def get(self, kernel: KernelSpec, target: Target) -> bytes | None:
        """The kernel's object code, which has been checked; None where there is none."""

    def put(self, kernel: KernelSpec, target: Target, code: bytes) -> None:
        """Keep what had to be compiled."""


class KernelCompiler:
    """Compiles kernels for one target. `emitted` counts those compiled, not found in a cache."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.emitted = 0

    def object_codes(
        self,
        kernels: Sequence[KernelSpec],
        cache: Objects | None = None,
        progress: Progress | None = None,
    ) -> dict[KernelSpec, bytes]:
        """Of all these kernels, in their order: from the cache, and what is not there compiled.
        Others may plan between parts. Raises CompileError for a kernel that cannot be."""
        tell = progress or (lambda *state: None)
        with PLANNING:
            codes = self._cached(kernels, cache)
        tell("kernels", len(codes), len(kernels))
        missing = [kernel for kernel in kernels if kernel not in codes]
        if not missing:
            return codes
        threads = available_processors()
        for some in _in_parts(missing, threads * EACH):
            with PLANNING:
                for kernel, code in zip(some, self._compiled(some, threads), strict=True):
                    codes[kernel] = code
                    if cache:
                        cache.put(kernel, self.target, code)
            tell("kernels", len(codes), len(kernels))
        return {kernel: codes[kernel] for kernel in kernels}

    def _cached(
        self, kernels: Sequence[KernelSpec], cache: Objects | None
    ) -> dict[KernelSpec, bytes]:
        codes: dict[KernelSpec, bytes] = {}
        for kernel in kernels:
            code = cache.get(kernel, self.target) if cache else None
            if code is not None:
                log.debug("%s: from the cache, %d bytes", kernel, len(code))
                codes[kernel] = code
        return codes

    def _compiled(self, kernels: Sequence[KernelSpec], threads: int) -> list[bytes]:
        """Object code of kernels, compiled side by side, from beginning to end on other threads: an
        interrupt, which Python raises on the main one alone, may come between what LLVM has freed
        and llvmlite's note of it, which then frees it once more. Nothing else is done on this one
        meanwhile: a progress callback could fork."""
        made = list(mapped(self._compile, kernels, threads))
        for kernel, (code, seconds) in zip(kernels, made, strict=True):
            log.debug("%s: compiled in %.0f ms, %d bytes", kernel, 1000 * seconds, len(code))
        self.emitted += len(made)
        return [code for code, _ in made]

    def _compile(self, kernel: KernelSpec) -> tuple[bytes, float]:
        """A kernel's object code, and the seconds that it took."""
        from lucid.codegen.language.llvm import compile_object

        start = time.perf_counter()
        try:
            return compile_object(kernel, self.target), time.perf_counter() - start
        except CompileError:
            raise
        except Exception as error:
            raise CompileError(
                f"kernel {kernel} cannot be emitted for {self.target.name}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _in_parts(kernels: Sequence[KernelSpec], size: int) -> Iterator[Sequence[KernelSpec]]:
    for first in range(0, len(kernels), size):
        yield kernels[first : first + size]
