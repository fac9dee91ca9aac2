"""The kernel that resizes boxes of maps: RoiAlign.

The mean over the samples of a bin is a sum over lines and columns of pixels: each has one weight on
its axis, whatever samples it comes from. Both lists are made for a box before its pixels are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.maps import each_block
from lucid.codegen.language import transcendentals
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    floats,
    ints,
    strides_of,
)
from lucid.codegen.language.values import F32, I64, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target
from lucid.ir.ops.sampling import MOST_SAMPLES


def scratch_bytes(bins: tuple[int, int], size: tuple[int, int]) -> int:
    """Scratch for the lists of both axes, and for the weights of one bin."""
    lists = sum(
        b * (size_of(I64) + s * (size_of(I64) + size_of(F32)))
        for b, s in zip(bins, size, strict=True)
    )
    return lists + size_of(F32) * max(size) + 2 * size_of(I64)


@dataclass(frozen=True)
class RoiAlign(KernelSpec):
    """y[k] = the mean (or the largest product, if `largest`) of the samples of each bin of box k.

    Maps are channels last. One task is one box.
    """

    family: ClassVar[str] = "roi_align"
    half_pixel: bool = False
    largest: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", "boxes", "y") + strides_of("x") + strides_of("y")
        declared += ints("box", "coordinate", "images", "height", "width", "channels")
        return declared + ints("out_height", "out_width", "samples") + floats("scale")

    def extents(self, given: Given) -> dict[str, Extent]:
        inside, out = (given.height, given.width), (given.out_height, given.out_width)
        return {
            "x": given.map("x_", given.images, inside, given.channels),
            "y": given.map("y_", given.tasks, out, given.channels),
            "boxes": ((given.tasks, given.box), (5, given.coordinate)),
        }

    def emit(self, target: Target) -> ir.Module:
        return _Emitter(self, target).emit()


@dataclass(frozen=True)
class _Side:
    """Samples along one axis of a box: from `start` on, bins of `each` pixels of `count` samples.
    `size`: of the axis, as a float."""

    start: Vector
    each: Vector
    count: Int
    size: Vector


@dataclass(frozen=True)
class _List:
    """Elements to the pixels that each of the bins is made of, and their weights, with room for
    `size` of them; how many there are."""

    offsets: Pointer
    weights: Pointer
    counts: Pointer
    bins: Int
    size: Int

    def count(self, k: Kernel, index: Int) -> Int:
        return k.load_int(self.counts.words(index))

    def entry(self, k: Kernel, index: Int, number: Int) -> tuple[Int, Vector]:
        at = index * self.size + number
        return k.load_int(self.offsets.words(at)), k.load(self.weights + at, lanes=1)


class _Emitter:
    def __init__(self, spec: RoiAlign, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        rows, rest = self._list(f.scratch, f.out_height, f.height)
        columns, rest = self._list(rest, f.out_width, f.width)
        dense = rest.to(F32)
        with k.loop(f.first, f.last) as task:
            box, y = f.boxes + task.index * f.box, f.y + task.index * f.y_image
            number = k.load(box, lanes=1)
            known = k.both(number.compare(">", -1.0), number.compare("<", k.as_float(f.images)))
            image = self._whole(k.pick(known, number, number.like(0.0)))
            x = f.x + image * f.x_image
            side_rows = self._side(box, 2, f.out_height, f.height)
            side_columns = self._side(box, 1, f.out_width, f.width)
            if not self.spec.largest:
                self._fill(side_rows, rows, dense, f.x_line, known)
                self._fill(side_columns, columns, dense, f.x_pixel, known)
            with k.loop(0, f.out_height) as i, k.loop(0, f.out_width) as j:
                out = y + (i.index * f.y_line + j.index * f.y_pixel)
                if self.spec.largest:
                    self._largest(x, side_rows, side_columns, i.index, j.index, out, known)
                else:
                    self._mean(x, rows, columns, i.index, j.index, out)
        return f.finish()

    def _whole(self, x: Vector) -> Int:
        return Int(self.kernel.builder, self.kernel.builder.fptosi(x.raw, I64))

    def _list(self, scratch: Pointer, bins: Int, size: Int) -> tuple[_List, Pointer]:
        """A list in scratch, and what is left of it."""
        counts = scratch
        offsets = counts.words(bins)
        weights = offsets.words(bins * size).to(F32)
        return _List(offsets, weights, counts, bins, size), weights.bytes(
            bins * size * size_of(F32)
        )

    # -- samples ----------------------------------------------------------------------------

    def _side(self, box: Pointer, number: int, bins: Int, size: Int) -> _Side:
        """Along the axis whose ends are coordinates `number` and `number + 2` of a box."""
        f, k = self.frame, self.kernel
        ends = [k.load(box + (f.coordinate * n), lanes=1) * f.scale for n in (number, number + 2)]
        if self.spec.half_pixel:
            ends = [end - 0.5 for end in ends]
        start, length = ends[0], ends[1] - ends[0]
        if not self.spec.half_pixel:
            length = k.pick(length.compare(">", 1.0), length, length.like(1.0))
        each = length / k.as_float(bins)
        wanted = -transcendentals.floor(k, -each)
        wanted = k.pick(wanted.compare(">", 0.0), wanted, wanted.like(0.0))
        most = float(MOST_SAMPLES)
        wanted = k.pick(wanted.compare("<", most), wanted, wanted.like(most))
        count = k.select(f.samples > 0, f.samples, self._whole(wanted))
        return _Side(start, each, count, k.as_float(size))

    def _sample(self, side: _Side, index: Int, number: Int) -> tuple[Int, Int, Vector, Any]:
        """The two neighbours of a sample, the share of the second, and whether it is near."""
        k = self.kernel
        step = k.as_float(index) + (k.as_float(number) + 0.5) / k.as_float(side.count)
        source = side.start + step * side.each
        near = k.both(source.compare(">=", -1.0), source.compare("<=", side.size))
        last = side.size - 1.0
        source = k.pick(source.compare(">", 0.0), source, source.like(0.0))
        source = k.pick(source.compare("<", last), source, last)
        left = transcendentals.floor(k, source)
        place = self._whole(left)
        return place, (place + 1).minimum(self._whole(last)), source - left, near

    # -- means ------------------------------------------------------------------------------

    def _fill(self, side: _Side, found: _List, dense: Pointer, step: Int, known: Any) -> None:
        """The list of each bin: weights are added up by pixel, and those that are not 0 kept."""
        k = self.kernel
        count = k.select(known, side.count, 0)
        each = 1.0 / k.as_float(side.count)
        with k.loop(0, found.bins) as index:
            k.each_vector(found.size, lambda c, mask: k.store(k.zero(), dense + c, mask))
            bounds = k.stack(3, I64)
            k.store_int(found.size, bounds)
            k.store_int(0, bounds + 1)
            with k.loop(0, count) as number:
                left, right, share, near = self._sample(side, index.index, number.index)
                with k.when(near):
                    for place, weight in ((left, 1.0 - share), (right, share)):
                        at = dense + place
                        k.store(k.load(at, lanes=1) + weight * each, at)
                    k.store_int(k.load_int(bounds).minimum(left), bounds)
                    k.store_int(k.load_int(bounds + 1).maximum(right + 1), bounds + 1)
            k.store_int(0, bounds + 2)
            with k.loop(k.load_int(bounds), k.load_int(bounds + 1)) as pixel:
                weight = k.load(dense + pixel.index, lanes=1)
                with k.when(weight.compare("!=", 0.0)):
                    kept = k.load_int(bounds + 2)
                    entry = index.index * found.size + kept
                    k.store_int(pixel.index * step, found.offsets.words(entry))
                    k.store(weight, found.weights + entry)
                    k.store_int(kept + 1, bounds + 2)
            k.store_int(k.load_int(bounds + 2), found.counts.words(index.index))

    def _mean(self, x: Pointer, rows: _List, columns: _List, i: Int, j: Int, out: Pointer) -> None:
        f, k = self.frame, self.kernel
        high, wide = rows.count(k, i), columns.count(k, j)

        def block(c: Int, vectors: int, mask: Any) -> None:
            with k.loop(0, high, carry=[k.zero()] * vectors) as row:
                line, first = rows.entry(k, i, row.index)
                with k.loop(0, wide, carry=row.carried) as column:
                    pixel, second = columns.entry(k, j, column.index)
                    share, source = k.splat(first * second), x + (line + pixel + c)
                    column.carry(
                        [
                            k.fma(k.load(source + v * k.vector, mask=mask), share, total)
                            for v, total in enumerate(column.carried)
                        ]
                    )
                row.carry(column.results)
            for v, total in enumerate(row.results):
                k.store(total, out + (c + v * k.vector), mask)

        each_block(k, k.int(0), f.channels, block)

    # -- the largest ------------------------------------------------------------------------

    def _largest(
        self,
        x: Pointer,
        rows: _Side,
        columns: _Side,
        i: Int,
        j: Int,
        out: Pointer,
        known: Any,
    ) -> None:
        f, k = self.frame, self.kernel
        any_sample = k.both(known, rows.count > 0, columns.count > 0)
        high = k.select(any_sample, rows.count, 0)
        start = k.splat(k.pick(any_sample, self._number(float("-inf")), self._number(0.0)))

        def block(c: Int, vectors: int, mask: Any) -> None:
            with k.loop(0, high, carry=[start] * vectors) as row:
                lines = self._weighed(rows, i, row.index, f.x_line)
                with k.loop(0, columns.count, carry=row.carried) as column:
                    pixels = self._weighed(columns, j, column.index, f.x_pixel)
                    totals = list(column.carried)
                    for line, first in lines:
                        for pixel, second in pixels:
                            source, share = x + (line + pixel + c), k.splat(first * second)
                            for v in range(vectors):
                                read = k.load(source + v * k.vector, mask=mask) * share
                                larger = read.compare(">", totals[v])
                                totals[v] = k.pick(larger, read, totals[v])
                    column.carry(totals)
                row.carry(column.results)
            for v, total in enumerate(row.results):
                k.store(total, out + (c + v * k.vector), mask)

        each_block(k, k.int(0), f.channels, block)

    def _weighed(self, side: _Side, index: Int, number: Int, step: Int) -> list[tuple[Int, Vector]]:
        """The neighbours of a sample on one axis, of weight 0 where it is not near."""
        left, right, share, near = self._sample(side, index, number)
        pairs: list[tuple[Int, Vector]] = [(left, 1.0 - share), (right, share)]
        nothing = self._number(0.0)
        return [(place * step, self.kernel.pick(near, w, nothing)) for place, w in pairs]

    def _number(self, value: float) -> Vector:
        return self.kernel.splat_constant(value, lanes=1)
