"""What register tiles compute with: floats, or pairs of 16-bit integers summed up in 32 bits.

A pair is one element of four bytes, as a float is, so rows, panels and tiles lie alike: element k
of a row holds its numbers 2k and 2k + 1, and so does that of each of the panel's columns. Sums of
integers are exact, modulo 2^32, in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.accumulation import (
    UNROLL,
    Step,
    accumulate,
    accumulate_segments,
    accumulate_short,
    over_segments,
    steps,
)
from lucid.codegen.language import pairs
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import (
    F32,
    I16,
    I32,
    Int,
    Integers,
    Pointer,
    Vector,
    constant,
    size_of,
)

Segment = Callable[[Int, Int], Step]
"""From a segment's line and its place there to its step."""
EachRound = Callable[[Int], None]


@dataclass(frozen=True)
class Window:
    """Rows in `segments` (lines of them, and how many in each) of `depth` steps; `chain` and
    `short` as `accumulate_segments` and `accumulate_short` have them."""

    segments: tuple[Int, Int]
    depth: Int
    chain: Int
    short: int


class Arithmetic:
    """Base. `number`: what rows and panels hold, `element`: what a step takes of each, four bytes.
    `sums`: the dtype of bias and sums. `unroll`: steps of a round."""

    number: ClassVar[ir.Type]
    element: ClassVar[ir.Type]
    sums: ClassVar[str]
    unroll: ClassVar[int]
    constant_steps: ClassVar[bool]
    """Whether the steps of a round differ by constants in their addresses: 4 to 6% of products of
    pairs with AVX2; of floats, tiles of aarch64 spill so."""

    @property
    def numbers_of_element(self) -> int:
        """How many numbers a step takes."""
        return size_of(self.element) // size_of(self.number)

    def zero(self, k: Kernel) -> Vector:
        raise NotImplementedError

    def load(self, k: Kernel, address: Pointer, align: int) -> Vector:
        """A vector of a panel, or of the numbers that sums begin with."""
        raise NotImplementedError

    def broadcast(self, k: Kernel, address: Pointer) -> Vector:
        """One element of a row, in every lane."""
        raise NotImplementedError

    def multiply_add(self, k: Kernel, x: Vector, weights: Vector, total: Vector) -> Vector:
        raise NotImplementedError

    def over_row(
        self, k: Kernel, depth: Int, tile: list[Vector], sums: Pointer, step: Step, each: EachRound
    ) -> list[Vector]:
        """The tile after all `depth` steps (at least one). `sums`: room for the tile."""
        raise NotImplementedError

    def over_window(
        self,
        k: Kernel,
        window: Window,
        tile: list[Vector],
        sums: Pointer,
        step: Segment,
        each: EachRound,
    ) -> list[Vector]:
        """The tile after all steps of a window's segments."""
        raise NotImplementedError


class Floats(Arithmetic):
    """float32, in chains of multiply-adds."""

    number = element = F32
    sums = "f32"
    unroll = UNROLL
    constant_steps = False

    def zero(self, k: Kernel) -> Vector:
        return k.zero()

    def load(self, k: Kernel, address: Pointer, align: int) -> Vector:
        return k.load(address, align=align)

    def broadcast(self, k: Kernel, address: Pointer) -> Vector:
        return k.splat(k.load(address, lanes=1))

    def multiply_add(self, k: Kernel, x: Vector, weights: Vector, total: Vector) -> Vector:
        return k.fma(x, weights, total)

    def over_row(
        self, k: Kernel, depth: Int, tile: list[Vector], sums: Pointer, step: Step, each: EachRound
    ) -> list[Vector]:
        return accumulate(k, depth, tile, sums, step, each)

    def over_window(
        self,
        k: Kernel,
        window: Window,
        tile: list[Vector],
        sums: Pointer,
        step: Segment,
        each: EachRound,
    ) -> list[Vector]:
        if window.short:
            return accumulate_short(k, window.segments, window.short, tile, step)
        segments, depth, chain = window.segments, window.depth, window.chain
        return accumulate_segments(k, segments, depth, chain, tile, sums, step, each)


class Pairs(Arithmetic):
    """Pairs of 16-bit integers."""

    number, element = I16, I32
    sums = "i32"
    constant_steps = True
    unroll = 2
    """LLVM adds up the products of all steps of a round first: with four it spills."""

    def zero(self, k: Kernel) -> Vector:
        return self._integers(k, constant(k.vector_type(None, I32), 0))

    def load(self, k: Kernel, address: Pointer, align: int) -> Vector:
        return self._integers(k, k.load(address, align=align).raw)

    def broadcast(self, k: Kernel, address: Pointer) -> Vector:
        return self._integers(k, k.every_lane(k.load(address, lanes=1).raw, k.vector))

    def multiply_add(self, k: Kernel, x: Vector, weights: Vector, total: Vector) -> Vector:
        assert isinstance(total, Integers)
        return pairs.multiply_add(k, x, weights, total)

    def over_row(
        self, k: Kernel, depth: Int, tile: list[Vector], sums: Pointer, step: Step, each: EachRound
    ) -> list[Vector]:
        return steps(k, tile, k.int(0), depth, step, each, self.unroll)

    def over_window(
        self,
        k: Kernel,
        window: Window,
        tile: list[Vector],
        sums: Pointer,
        step: Segment,
        each: EachRound,
    ) -> list[Vector]:
        if window.short:
            return accumulate_short(k, window.segments, window.short, tile, _held(k, step))
        wide, depth = window.segments[1], window.depth

        def after(before: Int) -> EachRound:
            return lambda index: each(before + index)

        def segment(h: Int, w: Int, tile: list[Vector]) -> list[Vector]:
            before = (h * wide + w) * depth
            return steps(k, tile, k.int(0), depth, step(h, w), after(before), self.unroll)

        return over_segments(k, window.segments, tile, segment)

    @staticmethod
    def _integers(k: Kernel, raw: Any) -> Integers:
        return Integers(k.builder, raw, signed=True)


def _held(k: Kernel, segment: Segment) -> Segment:
    """The same steps, the sums of each made before the next one's: LLVM would add up the products
    of all of them first, and spill. Windows of 7x7x3, 224x224 with stride 2 to 64 channels, take
    2.0 ms so, and 2.5 in rounds of two steps."""

    def held(h: Int, w: Int) -> Step:
        step = segment(h, w)
        return lambda tile, at, further: [k.frozen(v) for v in step(tile, at, further)]

    return held


FLOATS = Floats()
ARITHMETIC: dict[str, Arithmetic] = {"f32": FLOATS, "i16": Pairs()}
"""By the dtype of rows and panels."""
