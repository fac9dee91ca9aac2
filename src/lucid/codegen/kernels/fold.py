"""Kernels for the ways back from windows: their sums, and zeros between maxima."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
)
from lucid.codegen.language.values import Int, Pointer
from lucid.codegen.target import Target


@dataclass(frozen=True)
class Fold(KernelSpec):
    """Windows added up where they lie. `dense`: windows are one pixel apart along a line.

    x: [image][channel][tap][window], y: [image][channel][pixel], without gaps. One task is a line
    of one channel of y.
    """

    family: ClassVar[str] = "fold"
    dense: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", "y") + ints("channels", "height", "width", "rows", "columns")
        declared += ints("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left")
        return declared + ints("dilation_h", "dilation_w")

    def extents(self, given: Given) -> dict[str, Extent]:
        images = given.tasks_over(given.channels, given.height)
        taps = given.kernel_h * given.kernel_w
        planes = images * given.channels
        return {
            "x": ((planes * taps * given.rows * given.columns, 1),),
            "y": ((planes * given.height * given.width, 1),),
        }

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            plane, line = task.index // f.height, task.index % f.height
            out = f.y + task.index * f.width
            k.each_vector(f.width, lambda c, mask: k.store(k.zero(), out + c, mask))
            with k.loop(0, f.kernel_h) as tap_row:
                below = line + f.pad_top - tap_row.index * f.dilation_h
                with k.when(below >= 0):
                    row = below // f.stride_h
                    with (
                        k.when(k.both((below % f.stride_h).equals(0), row < f.rows)),
                        k.loop(0, f.kernel_w) as tap_column,
                    ):
                        tap = tap_row.index * f.kernel_w + tap_column.index
                        number = (plane * (f.kernel_h * f.kernel_w) + tap) * f.rows + row
                        start = tap_column.index * f.dilation_w - f.pad_left
                        self._add(f, f.x + number * f.columns, out, start)
        return f.finish()

    def _add(self, f: Frame, x: Pointer, out: Pointer, start: Int) -> None:
        """One tap of a line of windows, the first of which has it at the pixel `start`."""
        k, step = f.kernel, f.stride_w
        first = (0 - start).maximum(0).ceil_div(step)
        last = (f.width - start).maximum(0).ceil_div(step).minimum(f.columns)
        if not self.dense:
            with k.loop(first, last) as window:
                at = out + (start + window.index * step)
                k.store(k.load(at, lanes=1) + k.load(x + window.index, lanes=1), at)
            return

        def add(c: Int, mask: Any) -> None:
            at = out + (start + first + c)
            k.store(k.load(at, mask=mask) + k.load(x + (first + c), mask=mask), at, mask)

        k.each_vector((last - first).maximum(0), add)


@dataclass(frozen=True)
class MaxUnpool(KernelSpec):
    """Planes of `pixels` zeros, but for `count` numbers of x where the indices say. No gaps.

    One task is a plane.
    """

    family: ClassVar[str] = "max_unpool"

    def arguments(self) -> tuple[Arg, ...]:
        return (
            buffers("x") + buffers("indices", dtype="i64") + buffers("y") + ints("count", "pixels")
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        read, written = given.tasks * given.count, given.tasks * given.pixels
        return {"x": ((read, 1),), "indices": ((read, 1),), "y": ((written, 1),)}

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            out, first = f.y + task.index * f.pixels, task.index * f.count
            k.each_vector(f.pixels, lambda c, mask: k.store(k.zero(), out + c, mask))
            with k.loop(first, first + f.count) as number:
                place = k.load_int(f.indices + number.index)
                with k.when(k.both(place >= 0, place < f.pixels)):
                    k.store(k.load(f.x + number.index, lanes=1), out + place)
        return f.finish()
