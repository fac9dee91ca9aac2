"""What register tiles compute with: floats, pairs of bfloat16 numbers, which are summed up in
float32, pairs of 16-bit integers, or four bytes, both of which are summed up in 32 bits.

A pair is one element of four bytes, as a float is, so rows, panels and tiles lie alike: element k
of a row holds its numbers 2k and 2k + 1, and so does that of each of the panel's columns. Of bytes
an element holds four. Sums of integers are exact, modulo 2^32, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from lucid.codegen.kernels.byte_products import GROUP
from lucid.codegen.language import bf16, pairs, quads
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import (
    F32,
    I8,
    I16,
    I32,
    Int,
    Integers,
    Pointer,
    Vector,
    constant,
    size_of,
)
from lucid.codegen.target import Target

EachRound = Callable[[Int], None]


@dataclass(frozen=True)
class Checks:
    """What decides whether the products of a group of bytes fit 16 bits: for each group, the
    largest of the rows' sums of squares (`peaks`) and how large that may be (`limits`)."""

    peaks: Pointer
    limits: Pointer


@dataclass(frozen=True)
class Operands:
    """What a tile multiplies: its rows and a panel of so many vectors. Called, it is a step."""

    k: Kernel
    arithmetic: Arithmetic
    rows: list[Pointer]
    panel: Pointer
    vectors: int
    checks: Checks | None = None

    def __call__(self, tile: list[Vector], at: Int, further: int) -> list[Vector]:
        """One step of k, so much further than `at`."""
        one = self.arithmetic.multiply_add
        return self.group(tile, at, [further], lambda k, x, w, total: one(k, x[0], w[0], total))

    def group(
        self, tile: list[Vector], at: Int, further: Sequence[int], add: AddProducts
    ) -> list[Vector]:
        """Several steps at once. The panel's vectors stay in registers, the rows' elements are
        broadcast: the other order spills."""
        k, vectors = self.k, self.vectors
        panel = [self.weights(at, f) for f in further]
        result = []
        for r, row in enumerate(self.rows):
            value = [self.arithmetic.broadcast(k, self._moved(row, at, f)) for f in further]
            result += [
                add(k, value, [weights[v] for weights in panel], tile[r * vectors + v])
                for v in range(vectors)
            ]
        return result

    def weights(self, at: Int, further: int) -> list[Vector]:
        """Of the panel's columns in one step."""
        k, width = self.k, self.vectors * self.k.vector
        place = self._moved(self.panel, at, further, width)
        return [
            self.arithmetic.load(k, place + v * k.vector, k.aligned) for v in range(self.vectors)
        ]

    def _moved(self, address: Pointer, at: Int, further: int, width: int = 1) -> Pointer:
        """Where a step begins, in steps of `width` elements."""
        if self.arithmetic.constant_steps:
            return address + at * width + further * width
        return address + (at + further) * width


AddProducts = Callable[[Kernel, Sequence[Vector], Sequence[Vector], Vector], Vector]
"""From the broadcast elements of some steps, their weights and a sum to the sum with their
products."""
Segment = Callable[[Int, Int], Operands]
"""From a segment's line and its place there to what is multiplied in it."""


@dataclass(frozen=True)
class Window:
    """Rows in `segments` (lines of them, and how many in each) of `depth` steps; `chain` and
    `short` as `accumulate_segments` and `accumulate_short` have them."""

    segments: tuple[Int, Int]
    depth: Int
    chain: Int
    short: int


class Arithmetic:
    """Base. `rows`: the dtype of rows. `number`: what rows and panels hold, `element`: what a step
    takes of each, four bytes. `sums`: the dtype of bias and sums. `unroll`: steps of a round."""

    rows: ClassVar[str]
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

    def checked(self, target: Target) -> bool:
        """Whether products are quick and exact where `Checks` say so, and slower elsewhere."""
        return False

    def tile_rows(self, target: Target, vectors: int) -> int:
        """Rows of the tallest tile over panels of so many vectors."""
        return target.tile_rows(vectors)

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
        self, depth: Int, tile: list[Vector], sums: Pointer, operands: Operands, each: EachRound
    ) -> list[Vector]:
        """The tile after all `depth` steps (at least one). `sums`: room for the tile."""
        raise NotImplementedError

    def over_window(
        self,
        k: Kernel,
        window: Window,
        tile: list[Vector],
        sums: Pointer,
        segment: Segment,
        each: EachRound,
    ) -> list[Vector]:
        """The tile after all steps of a window's segments."""
        raise NotImplementedError


class Floats(Arithmetic):
    """float32, in chains of multiply-adds."""

    rows = "f32"
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
        self, depth: Int, tile: list[Vector], sums: Pointer, operands: Operands, each: EachRound
    ) -> list[Vector]:
        return accumulate(operands.k, depth, tile, sums, operands, each)

    def over_window(
        self,
        k: Kernel,
        window: Window,
        tile: list[Vector],
        sums: Pointer,
        segment: Segment,
        each: EachRound,
    ) -> list[Vector]:
        if window.short:
            return accumulate_short(k, window.segments, window.short, tile, segment)
        segments, depth, chain = window.segments, window.depth, window.chain
        return accumulate_segments(k, segments, depth, chain, tile, sums, segment, each)


class Bf16Pairs(Floats):
    """Pairs of bfloat16 numbers, whose products are added up in chains of float32."""

    rows = "bf16"
    number: ClassVar[ir.Type] = I16
    element = I32

    def broadcast(self, k: Kernel, address: Pointer) -> Vector:
        pair = k.load(address, lanes=1, align=size_of(self.number)).raw
        return Vector(k.builder, k.every_lane(pair, k.vector))

    def multiply_add(self, k: Kernel, x: Vector, weights: Vector, total: Vector) -> Vector:
        return bf16.multiply_add(k, x, weights, total)


class Pairs(Arithmetic):
    """Pairs of 16-bit integers."""

    rows = "i16"
    number: ClassVar[ir.Type] = I16
    element = I32
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
        self, depth: Int, tile: list[Vector], sums: Pointer, operands: Operands, each: EachRound
    ) -> list[Vector]:
        k = operands.k
        return steps(k, tile, k.int(0), depth, operands, each, self.unroll)

    def over_window(
        self,
        k: Kernel,
        window: Window,
        tile: list[Vector],
        sums: Pointer,
        segment: Segment,
        each: EachRound,
    ) -> list[Vector]:
        if window.short:
            return accumulate_short(k, window.segments, window.short, tile, _held(k, segment))
        wide, depth = window.segments[1], window.depth

        def after(before: Int) -> EachRound:
            return lambda index: each(before + index)

        def products(h: Int, w: Int, tile: list[Vector]) -> list[Vector]:
            before = (h * wide + w) * depth
            return steps(k, tile, k.int(0), depth, segment(h, w), after(before), self.unroll)

        return over_segments(k, window.segments, tile, products)

    @staticmethod
    def _integers(k: Kernel, raw: Any) -> Integers:
        return Integers(k.builder, raw, signed=True)


class Bytes(Pairs):
    """Four unsigned bytes of a row, less the target's offset, times four signed ones of a panel.

    Without an instruction that adds their products up in 32 bits, groups of two steps are added up
    in 16 where that is certain to be exact (`byte_products.py`), and else as pairs.
    """

    rows = "u8"
    number = I8

    def checked(self, target: Target) -> bool:
        return target.byte_products and not target.dot

    def tile_rows(self, target: Target, vectors: int) -> int:
        """Those of floats; where `_by_lane` holds a vector of each row as well, less: there are
        registers for these, the panel's vectors and the offset."""
        rows = target.tile_rows(vectors)
        if target.is_x86:
            return rows
        return min(rows, (target.registers - vectors - 1) // (vectors + 1))

    def broadcast(self, k: Kernel, address: Pointer) -> Vector:
        every = k.every_lane(k.load(address, lanes=1, align=1).raw, k.vector)
        return quads.less_offset(k, self._integers(k, every))

    def multiply_add(self, k: Kernel, x: Vector, weights: Vector, total: Vector) -> Vector:
        assert isinstance(total, Integers)
        return quads.multiply_add(k, x, weights, total)

    def over_row(
        self, depth: Int, tile: list[Vector], sums: Pointer, operands: Operands, each: EachRound
    ) -> list[Vector]:
        k = operands.k
        if operands.checks is not None:
            with k.loop(0, depth, GROUP, carry=tile) as loop:
                each(loop.index)
                loop.carry(self._checked(loop.carried, loop.index, operands, operands.checks))
            return loop.results
        if k.target.is_x86:
            return super().over_row(depth, tile, sums, operands, each)
        whole = depth // k.vector * k.vector
        with k.loop(0, whole, k.vector, carry=tile) as loop:
            for further in range(0, k.vector, self.unroll):
                each(loop.index + further)
            loop.carry(self._by_lane(loop.carried, loop.index, operands))
        with k.loop(whole, depth, carry=loop.results) as rest:
            rest.carry(operands(rest.carried, rest.index, 0))
        return rest.results

    def _by_lane(self, tile: list[Vector], at: Int, operands: Operands) -> list[Vector]:
        """The tile after as many steps as a vector has lanes: each row's are loaded at once, and
        Arm's instructions multiply by one lane of a vector."""
        k, tile = operands.k, list(tile)
        rows = [self._integers(k, k.load(row + at, align=1).raw) for row in operands.rows]
        rows = [quads.less_offset(k, row) for row in rows]
        for lane in range(k.vector):
            x = [k.shuffle(row, [lane] * k.vector) for row in rows]
            for v, weights in enumerate(operands.weights(at, lane)):
                for i in range(v, len(tile), operands.vectors):
                    tile[i] = self.multiply_add(k, x[i // operands.vectors], weights, tile[i])
        return tile

    @staticmethod
    def _checked(tile: list[Vector], at: Int, operands: Operands, checks: Checks) -> list[Vector]:
        """The tile after the group of steps from `at` on."""
        k = operands.k
        number = at // GROUP
        peak, limit = (k.load(p + number, lanes=1).raw for p in (checks.peaks, checks.limits))

        def together() -> list[Vector]:
            return operands.group(tile, at, range(GROUP), _add_products)

        def apart() -> list[Vector]:
            found = tile
            for step in range(GROUP):
                found = operands(found, at, step)
            return found

        fits = k.builder.icmp_signed("<=", peak, limit)
        return k.merge(fits, together, apart, likely=True)


def _add_products(
    k: Kernel, x: Sequence[Vector], weights: Sequence[Vector], total: Vector
) -> Vector:
    assert isinstance(total, Integers)
    return quads.add_products(k, x, weights, total)


def _held(k: Kernel, segment: Segment) -> Callable[[Int, Int], Step]:
    """The same steps, the sums of each made before the next one's: LLVM would add up the products
    of all of them first, and spill. Windows of 7x7x3, 224x224 with stride 2 to 64 channels, take
    2.0 ms so, and 2.5 in rounds of two steps."""

    def held(h: Int, w: Int) -> Step:
        operands = segment(h, w)
        return lambda tile, at, further: [k.frozen(v) for v in operands(tile, at, further)]

    return held


FLOATS = Floats()
ARITHMETIC: dict[str, Arithmetic] = {
    "f32": FLOATS,
    "bf16": Bf16Pairs(),
    "i16": Pairs(),
    "i8": Bytes(),
}
"""By the dtype of panels."""
