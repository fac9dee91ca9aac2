"""Transposition: squares in registers, and copies between two layouts in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    places,
    repeated,
    repeated_extents,
    share,
)
from lucid.codegen.language.values import I32, Int, Pointer, Vector
from lucid.codegen.target import Target

BYTES = 16
"""The side of a square of bytes: vectors of 128 bits, within which every x86 interleaves."""
STRIP = 4
"""Squares that are written side by side, so that each visit to a line of memory writes much."""


def transposed(k: Kernel, rows: list[Vector]) -> list[Vector]:
    """The columns of a square of vectors: in step s of log2(n), every second block of s x s
    numbers changes places with the one diagonal to it, one shuffle of two vectors each."""
    size = len(rows)
    step = 1
    while step < size:
        low = [j if not j & step else size + j - step for j in range(size)]
        high = [j + step if not j & step else size + j for j in range(size)]
        swapped = list(rows)
        for i in (i for i in range(size) if not i & step):
            swapped[i] = _shuffle(k, rows[i], rows[i + step], low)
            swapped[i + step] = _shuffle(k, rows[i], rows[i + step], high)
        rows = swapped
        step *= 2
    return rows


def interleaved(k: Kernel, rows: list[Vector]) -> list[Vector]:
    """The columns of a square of vectors of 128 bits: in each of log2(n) steps, the first half of
    the rows and the second are interleaved number by number, which is one instruction a vector."""
    half = len(rows) // 2
    low = [n for i in range(half) for n in (i, 2 * half + i)]
    high = [half + n for n in low]
    for _ in range(half.bit_length()):
        pairs = list(zip(rows[:half], rows[half:], strict=True))
        rows = [_shuffle(k, a, b, lanes) for a, b in pairs for lanes in (low, high)]
    return rows


def _shuffle(k: Kernel, a: Vector, b: Vector, lanes: list[int]) -> Vector:
    """Lanes of two vectors, those of the second counted on from the first's."""
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return Vector(k.builder, k.builder.shuffle_vector(a.raw, b.raw, mask))


@dataclass(frozen=True)
class Transpose(KernelSpec):
    """y = x, where x is contiguous along `rows` and y along `columns`.

    One task is one outer index by a share of the columns by a share of the rows.
    """

    family: ClassVar[str] = "transpose"
    streams: ClassVar[bool] = True
    dtype: str = COMPUTED

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", "y", dtype=self.dtype) + repeated("x", "y")
        return declared + ints("rows", "columns", "x_column", "y_row", "cuts", "parts")

    def extents(self, given: Given) -> dict[str, Extent]:
        number = given.tasks_over(given.cuts, given.parts)
        outer = repeated_extents(given, number, "x", "y")
        x, y = (1, given.x_column), (given.y_row, 1)
        counts = (given.rows, given.columns)
        return {
            o: (*outer[o], *zip(counts, steps, strict=True)) for o, steps in (("x", x), ("y", y))
        }

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            part, rest = task.index % f.parts, task.index // f.parts
            cut, rest = rest % f.cuts, rest // f.cuts
            x, y = places(f, rest, "x", "y")
            row, last_row = self._share(k, part, f.rows, f.parts)
            column, last = self._share(k, cut, f.columns, f.cuts)
            x, y = x + row, y + row * f.y_row
            step = STRIP * self.side(target)
            with k.loop(column, last, step) as strip:
                count = (last - strip.index).minimum(step)
                x_strip, y_strip = x + strip.index * f.x_column, y + strip.index
                if self._in_bytes():
                    self._strip_of_bytes(f, x_strip, y_strip, last_row - row, count)
                else:
                    self._strip(f, x_strip, y_strip, last_row - row, count)
        return f.finish()

    def _in_bytes(self) -> bool:
        return dtype(self.dtype).bytes == 1

    def side(self, target: Target) -> int:
        """Numbers along the side of a square."""
        return BYTES if self._in_bytes() else target.vector

    def _share(self, k: Kernel, part: Int, total: Int, parts: Int) -> tuple[Int, Int]:
        """A share of whole squares."""
        side = self.side(k.target)
        first, last = share(part, total.ceil_div(side), parts)
        return first * side, (last * side).minimum(total)

    def _strip(self, f: Frame, x: Pointer, y: Pointer, count: Int, columns: Int) -> None:
        """`count` rows of some columns. What a square has beyond the last column is read from that
        one and not written; what it has beyond the last row is first written to that one's place.
        """
        k = f.kernel

        def rows(row: Int, row_mask: Any) -> None:
            def square(column: Int, mask: Any) -> None:
                lines = [column + i for i in range(k.vector)]
                if mask is not None:
                    lines = [line.minimum(columns - 1) for line in lines]
                read = [k.load(x + (line * f.x_column + row), mask=row_mask) for line in lines]
                turned = transposed(k, read)
                for i in reversed(range(k.vector)):
                    place = row + i if row_mask is None else (row + i).minimum(count - 1)
                    k.store(turned[i], y + (place * f.y_row + column), mask)

            k.each_vector(columns, square)

        k.each_vector(count, rows)

    def _strip_of_bytes(self, f: Frame, x: Pointer, y: Pointer, count: Int, columns: Int) -> None:
        """The same of bytes, for which masks would be branches: what is no whole square goes one by
        one."""
        k = f.kernel
        high, wide = count // BYTES * BYTES, columns // BYTES * BYTES

        def singly(first: tuple[Int, Int], last: tuple[Int, Int]) -> None:
            with k.loop(first[0], last[0]) as row, k.loop(first[1], last[1]) as column:
                one = k.load(x + (column.index * f.x_column + row.index), 1)
                k.store(one, y + (row.index * f.y_row + column.index))

        with k.loop(0, high, BYTES) as row, k.loop(0, wide, BYTES) as column:
            lines = [x + ((column.index + i) * f.x_column + row.index) for i in range(BYTES)]
            turned = interleaved(k, [k.load(line, BYTES) for line in lines])
            for i, line in enumerate(turned):
                k.store(line, y + ((row.index + i) * f.y_row + column.index))
        nothing = k.int(0)
        singly((nothing, wide), (high, columns))
        singly((high, nothing), (count, columns))


@dataclass(frozen=True)
class Interleave(KernelSpec):
    """y = x, of few columns: x is contiguous along rows, and y has `columns` numbers for each row,
    side by side, as the pixels of images have.

    One task is one outer index by a share of the rows.
    """

    family: ClassVar[str] = "interleave"
    streams: ClassVar[bool] = True
    columns: int
    dtype: str = COMPUTED

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", "y", dtype=self.dtype) + repeated("x", "y")
        return declared + ints("rows", "x_column", "parts")

    def extents(self, given: Given) -> dict[str, Extent]:
        found = repeated_extents(given, given.tasks_over(given.parts), "x", "y")
        found["x"] += ((given.rows, 1), (self.columns, given.x_column))
        found["y"] += ((given.rows, self.columns), (self.columns, 1))
        return found

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k, lanes = f.kernel, BYTES if dtype(self.dtype).bytes == 1 else target.vector
        with k.loop(f.first, f.last) as task:
            part, rest = task.index % f.parts, task.index // f.parts
            x, y = places(f, rest, "x", "y")
            self._some(f, x, y, *share(part, f.rows, f.parts), lanes)
        return f.finish()

    def _some(self, f: Frame, x: Pointer, y: Pointer, first: Int, last: Int, lanes: int) -> None:
        """Rows `first` to `last`: the last vector of them ends there, and does some again."""
        k = f.kernel

        def vectors() -> None:
            with k.loop(first, last, lanes) as loop:
                self._rows(f, x, y, loop.index.minimum(last - lanes), lanes)

        def singly() -> None:
            with k.loop(first, last) as loop:
                self._rows(f, x, y, loop.index, 1)

        k.either(last - first >= lanes, vectors, singly)

    def _rows(self, f: Frame, x: Pointer, y: Pointer, row: Int, lanes: int) -> None:
        """`lanes` rows from `row` on."""
        k, out = f.kernel, y + row * self.columns
        read = [k.load(x + (row + i * f.x_column), lanes) for i in range(self.columns)]
        if lanes == 1:
            for i, one in enumerate(read):
                k.store(one, out + i)
            return
        pairs = read + read[-1:] * (len(read) % 2)
        while len(pairs) > 1:
            wide = list(range(2 * pairs[0].lanes))
            pairs = [_shuffle(k, a, b, wide) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
        order = [i * lanes + row for row in range(lanes) for i in range(self.columns)]
        k.store(k.shuffle(pairs[0], order), out)
