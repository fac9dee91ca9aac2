"""Transposition: squares in registers, and a copy between two layouts in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED
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
            with k.loop(column, last, STRIP * k.vector) as strip:
                count = (last - strip.index).minimum(STRIP * k.vector)
                x_strip, y_strip = x + strip.index * f.x_column, y + strip.index
                self._strip(f, x_strip, y_strip, last_row - row, count)
        return f.finish()

    @staticmethod
    def _share(k: Kernel, part: Int, total: Int, parts: Int) -> tuple[Int, Int]:
        """A share of whole squares."""
        first, last = share(part, total.ceil_div(k.vector), parts)
        return first * k.vector, (last * k.vector).minimum(total)

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
