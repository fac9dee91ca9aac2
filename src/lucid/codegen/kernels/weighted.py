"""The kernel that resizes by tables of weights: bicubic, antialiased, any linear filter.

A task is one line of the result: the lines of x that it is made of are added up, weighed, into
scratch, and then the columns of that line. Borders are in the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.maps import each_block
from lucid.codegen.kernels.resample import number_at
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.elements import gather
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    strides_of,
)
from lucid.codegen.language.values import F32, I32, I64, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target

TABLES = ("line_places", "line_weights", "column_places", "column_weights")


def scratch_bytes(line_taps: int, floats: int) -> int:
    """Scratch for the offsets of the lines that one is made of, and for that line."""
    return size_of(I64) * line_taps + size_of(F32) * floats


@dataclass(frozen=True)
class Weighted(KernelSpec):
    """y[i, j] = sum of line_weights[i, s] * column_weights[j, t] * x[line_places[i, s],
    column_places[j, t]] over s and t.

    x and y are channels last, and a line of x is cut into `runs` of `run` contiguous floats. With
    `planar` there is one channel, pixels are contiguous, and the tables of columns are transposed:
    vectors lie along the columns.
    """

    family: ClassVar[str] = "weighted"
    planar: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", *TABLES, "y") + strides_of("x") + strides_of("y")
        declared += ints("line_taps", "column_taps", "out_height", "out_width", "runs", "run")
        return declared if self.planar else declared + ints("channels")

    def extents(self, given: Given) -> dict[str, Extent]:
        images, found = given.tasks_over(given.out_height), dict[str, Extent]()
        channels = 1 if self.planar else given.channels
        sizes: list[int] = []
        out = (given.out_height, given.out_width)
        for name, count, own in zip(("line", "column"), out, given.x.shape[2:], strict=True):
            floats = count * getattr(given, f"{name}_taps")
            sizes.append(max(own, given.largest(f"{name}_places", floats) + 1))
            found |= {f"{name}_{table}": ((floats, 1),) for table in ("places", "weights")}
        if given.runs * given.run != sizes[1] * channels:
            raise ValueError(f"{given.runs} runs of {given.run} floats for {sizes[1]} pixels")
        found["x"] = given.map("x_", images, (sizes[0], sizes[1]), channels)
        return found | {"y": given.map("y_", images, out, channels)}

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        offsets = f.scratch
        scratch = offsets.words(f.line_taps).to(F32)
        with k.loop(f.first, f.last) as task:
            image, line = task.index // f.out_height, task.index % f.out_height
            weights = self._lines(f, line, offsets)
            source, y = f.x + image * f.x_image, f.y + (image * f.y_image + line * f.y_line)
            with k.loop(0, f.runs) as run:
                self._line(f, source + run.index * f.x_pixel, offsets, weights, scratch, run.index)
            if self.planar:
                self._columns(f, scratch, y)
            else:
                with k.loop(0, f.out_width) as column:
                    self._pixel(f, scratch, column.index, y + column.index * f.y_pixel)
        return f.finish()

    def _lines(self, f: Frame, line: Int, offsets: Pointer) -> Pointer:
        """Put the offsets of the lines that one is made of into scratch; their weights."""
        k, row = f.kernel, line * f.line_taps
        with k.loop(0, f.line_taps) as tap:
            place = number_at(k, f.line_places, row + tap.index)
            k.store_int(place * f.x_line, offsets.words(tap.index))
        weights: Pointer = f.line_weights + row
        return weights

    def _line(
        self, f: Frame, x: Pointer, offsets: Pointer, weights: Pointer, out: Pointer, run: Int
    ) -> None:
        """A run of the line that the columns are taken from."""
        k, start = f.kernel, run * f.run

        def block(c: Int, vectors: int, mask: Any) -> None:
            def place(tap: Int) -> tuple[Pointer, Vector]:
                line = x + (k.load_int(offsets.words(tap)) + c)
                return line, k.load(weights + tap, lanes=1)

            self._sum(k, f.line_taps, place, out + (start + c), vectors, mask)

        each_block(k, k.int(0), f.run, block)

    def _pixel(self, f: Frame, line: Pointer, column: Int, out: Pointer) -> None:
        k, row = f.kernel, column * f.column_taps

        def block(c: Int, vectors: int, mask: Any) -> None:
            def place(tap: Int) -> tuple[Pointer, Vector]:
                number = number_at(k, f.column_places, row + tap)
                weight = k.load(f.column_weights + (row + tap), lanes=1)
                return line + (number * f.channels + c), weight

            self._sum(k, f.column_taps, place, out + c, vectors, mask)

        each_block(k, k.int(0), f.channels, block)

    @staticmethod
    def _sum(
        k: Kernel,
        taps: Int,
        place: Callable[[Int], tuple[Pointer, Vector]],
        out: Pointer,
        vectors: int,
        mask: Any,
    ) -> None:
        """Write the weighed sum of what lies at the places of all taps."""
        totals = [k.zero()] * vectors
        with k.loop(0, taps, carry=totals, never_empty=True) as tap:
            source, weight = place(tap.index)
            share = k.splat(weight)
            tap.carry(
                [
                    k.fma(k.load(source + v * k.vector, mask=mask), share, total)
                    for v, total in enumerate(tap.carried)
                ]
            )
        for v, total in enumerate(tap.results):
            k.store(total, out + v * k.vector, mask)

    def _columns(self, f: Frame, line: Pointer, out: Pointer) -> None:
        """The columns of a line of one channel, a vector of them at a time."""
        k = f.kernel
        whole = ir.VectorType(I32, k.vector)

        def columns(column: Int, mask: Any) -> None:
            with k.loop(0, f.column_taps, carry=[k.zero()], never_empty=True) as tap:
                at = tap.index * f.out_width + column
                numbers = k.load(f.column_places + at, mask=mask)
                places = k.builder.fptosi(numbers.raw, whole)
                read = gather(k, line, places, mask)
                weights = k.load(f.column_weights + at, mask=mask)
                tap.carry([k.fma(read, weights, tap.carried[0])])
            k.store(tap.results[0], out + column, mask)

        k.each_vector(f.out_width, columns)
