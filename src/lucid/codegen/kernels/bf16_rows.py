"""Rows of floats as tiles take them for products of bfloat16: rounded, in pairs, or as the sums of
parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lucid.codegen.kernels.loaders import Loader
from lucid.codegen.kernels.matrix_tile import BLOCK, PARTS
from lucid.codegen.language.bf16 import rounded
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.halves import widened
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, buffers, ints
from lucid.codegen.language.partial import store_first, store_zeros
from lucid.codegen.language.values import F32, I16, Int, Pointer


@dataclass(frozen=True)
class Rounded(Loader):
    """The rows of another loader, or those that lie in memory, as bfloat16; zeros fill the last
    pair."""

    name: ClassVar[str] = "rounded"
    inner: Loader | None = None

    @property
    def spare_rows(self) -> int:
        """A row of floats takes as much as two of pairs: it lies behind the one being made."""
        return 2 if self.inner else 0

    def arguments(self) -> tuple[Arg, ...]:
        own = self.inner.arguments() if self.inner else buffers("x") + ints("x_row")
        return own + ints("row_numbers")

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        if self.held(given.depth) < given.row_numbers:
            raise ValueError(f"{given.row_numbers} numbers in {given.depth} pairs")
        numbers = given.groups * given.row_numbers
        if self.inner is not None:
            return self.inner.extents(given, rows, numbers)
        return {"x": ((rows, given.x_row), (numbers, 1))}

    def rows(
        self,
        frame: Frame,
        first: Int,
        count: Int,
        channel: Int,
        depth: Int,
        out: Pointer,
        step: Int,
    ) -> None:
        """`channel`, `depth` and `step` count pairs."""
        f, k = frame, frame.kernel
        begin = channel // depth * f.row_numbers
        with k.loop(0, count) as loop:
            row, to = first + loop.index, out + loop.index * step
            if self.inner is None:
                source = f.x + (row * f.x_row + begin)
            else:
                source = (to + step).to(F32)
                self.inner.row(f, row, begin, f.row_numbers, source)
            self.write(k, source, f.row_numbers, to.to(I16), depth)

    def held(self, depth: int) -> int:
        """How many numbers a row of so many pairs holds."""
        return depth * 2

    def write(self, k: Kernel, source: Pointer, count: Int, out: Pointer, depth: Int) -> None:
        """Write `count` floats as a row of `depth` pairs."""
        round_numbers(k, source, out, count)
        store_zeros(k, out + count, depth * 2 - count)


@dataclass(frozen=True)
class Parted(Rounded):
    """The same as three parts of bfloat16, whose sum each float is: [block][part][pair]."""

    name: ClassVar[str] = "parted"

    @property
    def spare_rows(self) -> int:
        """A row of floats takes no more than one of parts."""
        return 1 if self.inner else 0

    def held(self, depth: int) -> int:
        return depth // PARTS * 2

    def write(self, k: Kernel, source: Pointer, count: Int, out: Pointer, depth: Int) -> None:
        block = 2 * BLOCK
        with k.loop(0, depth * 2, PARTS * block) as loop:
            first = loop.index // PARTS
            for at in range(0, block, k.vector):
                number = first + at
                rest = k.load(source + number, mask=k.first_lanes(count - number))
                for part in range(PARTS):
                    bits = rounded(k, rest)
                    k.store(bits, out + (loop.index + (part * block + at)))
                    rest = rest - widened(k, bits.raw, "bf16")


def round_numbers(k: Kernel, source: Pointer, out: Pointer, count: Int) -> None:
    """Write `count` floats as bfloat16."""

    def part(at: Int, mask: Any) -> None:
        numbers = rounded(k, k.load(source + at, mask=mask))
        store_first(k, numbers.raw, out + at, None if mask is None else count - at)

    k.each_vector(count, part)


def round_planes(k: Kernel, planes: Sequence[Pointer], out: Pointer, count: Int) -> None:
    """The same of a line of a planar map, channels last: `count` pixels of every plane."""
    depth = len(planes)
    order = [plane * k.vector + pixel for pixel in range(k.vector) for plane in range(depth)]

    def part(at: Int, mask: Any) -> None:
        whole = k.joined([rounded(k, k.load(plane + at, mask=mask)) for plane in planes])
        left = None if mask is None else (count - at) * depth
        store_first(k, k.shuffle(whole, order).raw, out + at * depth, left)

    k.each_vector(count, part)
