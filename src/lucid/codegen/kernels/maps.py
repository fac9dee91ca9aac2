"""Shared by kernels that write maps pixel by pixel: blocks of channels, and bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lucid.codegen.kernels.body import Body
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.elements import VECTOR, Access, load, store
from lucid.codegen.language.kernel import MAP, Arg, Extent, Frame, Given, buffers, strides_of
from lucid.codegen.language.values import Int, Pointer, Vector

BLOCK = 4
"""Vectors of channels that share one computation of addresses."""


def each_block(k: Kernel, first: Int, last: Int, body: Callable[[Int, int, Any], None]) -> None:
    """`body(channel, vectors, mask)` for blocks of vectors, single ones, and what is left."""
    vectors = (last - first) // k.vector
    wide = first + vectors // BLOCK * (BLOCK * k.vector)
    whole = first + vectors * k.vector
    with k.loop(first, wide, BLOCK * k.vector) as loop:
        body(loop.index, BLOCK, None)
    with k.loop(wide, whole, k.vector) as loop:
        body(loop.index, 1, None)
    with k.when(whole < last):
        body(whole, 1, k.first_lanes(last - whole))


def extra_names(body: Body) -> tuple[str, ...]:
    return tuple(f"extra{i}" for i in range(len(body.extras)))


def result_arguments(body: Body, dtype: str = COMPUTED) -> tuple[Arg, ...]:
    """The declared result, of a dtype, and extra operands of a body: `"vector"` ones have their
    channels side by side, `"constant"` ones the same number for all channels."""
    names = ("y", *extra_names(body))
    dtypes = (dtype, *(extra.dtype for extra in body.extras))
    declared = [buffers(n, dtype=d) for n, d in zip(names, dtypes, strict=True)]
    return sum((*declared, *(strides_of(n) for n in names)), ())


def result_extents(
    given: Given, body: Body, images: int, size: tuple[int, int], channels: int
) -> dict[str, Extent]:
    """What a map kernel reaches in its result and in the body's extra operands."""
    steps = {"y": 1} | {
        name: 1 if extra.kind == "vector" else 0
        for name, extra in zip(extra_names(body), body.extras, strict=True)
    }
    return {o: given.map(f"{o}_", images, size, channels, step) for o, step in steps.items()}


@dataclass(frozen=True)
class Pixel:
    """One pixel of the result, which is of a dtype, and of the body's extra operands."""

    kernel: Kernel
    body: Body
    dtype: str
    out: Pointer
    extras: tuple[Pointer, ...]

    @staticmethod
    def of(
        frame: Frame, body: Body, image: Int, line: Int, column: Int, dtype: str = COMPUTED
    ) -> Pixel:
        def place(name: str) -> Pointer:
            base: Pointer = getattr(frame, name)
            for index, step in zip((image, line, column), MAP, strict=True):
                base = base + index * getattr(frame, f"{name}_{step}")
            return base

        extras = tuple(map(place, extra_names(body)))
        return Pixel(frame.kernel, body, dtype, place("y"), extras)

    def apply(self, value: Vector, c: Int, mask: Any) -> Vector:
        """The body's result for channels from `c` on."""
        k = self.kernel
        read = [
            load(k, Access(extra.kind, extra.dtype), e, c, k.int(1), value.lanes, mask)
            for e, extra in zip(self.extras, self.body.extras, strict=True)
        ]
        return self.body.emit(k, value, read)

    def store(self, value: Vector, c: Int, mask: Any) -> None:
        result = self.apply(value, c, mask)
        store(
            self.kernel, result, Access(VECTOR, self.dtype), self.out, c, self.kernel.int(1), mask
        )
