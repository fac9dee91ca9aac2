"""Kernels for the ways back from windows: sums of windows, and places of maxima."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.maps import each_block
from lucid.codegen.language.builder import Kernel
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
from lucid.codegen.language.values import I32, I64, Int, Pointer, Vector, constant
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


@dataclass(frozen=True)
class MaxPoolIndices(KernelSpec):
    """The pixel of the largest number of each window: `line_step` and `pixel_step` count them, and
    `plane_step` those of the planes before. Maps are channels last; one task is a line.
    """

    family: ClassVar[str] = "max_pool_indices"

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x") + buffers("y", dtype="i64") + strides_of("x") + strides_of("y")
        declared += ints("channels", "height", "width", "out_height", "out_width")
        declared += ints("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left")
        return declared + ints("dilation_h", "dilation_w", "line_step", "pixel_step", "plane_step")

    def extents(self, given: Given) -> dict[str, Extent]:
        images = given.tasks_over(given.out_height)
        inside, out = (given.height, given.width), (given.out_height, given.out_width)
        return {
            "x": given.map("x_", images, inside, given.channels),
            "y": given.map("y_", images, out, given.channels),
        }

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            image, line = task.index // f.out_height, task.index % f.out_height
            with k.loop(0, f.out_width) as column:
                out = f.y + (image * f.y_image + line * f.y_line + column.index * f.y_pixel)
                top = line * f.stride_h - f.pad_top
                left = column.index * f.stride_w - f.pad_left
                self._pixel(f, f.x + image * f.x_image, out, image, top, left)
        return f.finish()

    def _pixel(self, f: Frame, x: Pointer, out: Pointer, image: Int, top: Int, left: Int) -> None:
        k = f.kernel
        rows = _inside(top, f.dilation_h, f.kernel_h, f.height)
        columns = _inside(left, f.dilation_w, f.kernel_w, f.width)
        whole, wide = (ir.VectorType(kind, k.vector) for kind in (I32, I64))

        def block(c: Int, vectors: int, mask: Any) -> None:
            none = Vector(k.builder, constant(whole, -1))
            largest = k.splat_constant(float("-inf"))
            start = [*[largest] * vectors, *[none] * vectors]
            with k.loop(*rows, carry=start) as row:
                i = top + row.index * f.dilation_h
                with k.loop(*columns, carry=row.carried) as column:
                    j = left + column.index * f.dilation_w
                    number = _every(k, i * f.line_step + j * f.pixel_step, I32)
                    best, places = column.carried[:vectors], column.carried[vectors:]
                    for v in range(vectors):
                        at = x + (i * f.x_line + j * f.x_pixel + c + v * k.vector)
                        read = k.load(at, mask=mask)
                        better = self._better(k, read, best[v], places[v])
                        best[v] = k.pick(better, read, best[v])
                        chosen = k.builder.select(better, number, places[v].raw)
                        places[v] = Vector(k.builder, chosen)
                    column.carry([*best, *places])
                row.carry(column.results)
            for v in range(vectors):
                channel = c + v * k.vector
                first = _every(k, (image * f.channels + channel) * f.plane_step, I64)
                steps = ir.Constant(wide, list(range(k.vector)))
                planes = k.builder.mul(steps, _every(k, f.plane_step, I64))
                place = k.builder.sext(row.results[vectors + v].raw, wide)
                place = k.builder.add(place, k.builder.add(first, planes))
                k.store(Vector(k.builder, place), out + channel, mask)

        each_block(k, k.int(0), f.channels, block)

    @staticmethod
    def _better(k: Kernel, read: Vector, best: Vector, place: Vector) -> Any:
        """Whether a number is larger than the best one, the first of all, or the first NaN."""
        larger = read.compare(">", best)
        first = k.builder.icmp_signed("<", place.raw, constant(place.raw.type, 0))
        strange = k.builder.fcmp_unordered("uno", read.raw, read.raw)
        plain = k.builder.fcmp_ordered("ord", best.raw, best.raw)
        return k.either_of(larger, first, k.both(strange, plain))


def _inside(start: Int, gap: Int, taps: Int, size: Int) -> tuple[Int, Int]:
    """The first tap of a window that lies on an axis, and the one after the last."""
    first = (0 - start).maximum(0).ceil_div(gap)
    return first, (size - start).maximum(0).ceil_div(gap).minimum(taps)


def _every(k: Kernel, number: Int, element: ir.IntType) -> Any:
    """An integer in every lane."""
    kind = ir.VectorType(element, k.vector)
    narrow = number.raw if element == I64 else k.builder.trunc(number.raw, element)
    undefined = ir.Constant(kind, ir.Undefined)
    first = k.builder.insert_element(undefined, narrow, ir.Constant(I32, 0))
    lanes = ir.Constant(ir.VectorType(I32, k.vector), [0] * k.vector)
    return k.builder.shuffle_vector(first, undefined, lanes)
