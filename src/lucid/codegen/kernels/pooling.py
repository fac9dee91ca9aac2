"""Pooling: the largest or the mean value of each window, or its sum, channels last.

One task is one output line of one image, or a chunk of its channels where there are few lines.
Channels are the vector dimension, several vectors at once. (An average pool before a 1x1
convolution is the `Combine` loader instead, which the product runs.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.loaders import IMAGE, WINDOW
from lucid.codegen.kernels.maps import Pixel, each_block, result_arguments, result_extents
from lucid.codegen.kernels.reduction import total_of_none
from lucid.codegen.language.dtypes import COMPUTED, is_integer
from lucid.codegen.language.elements import VECTOR, Access, cast, load, splat_number
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    floats,
    ints,
    share,
)
from lucid.codegen.language.values import I32, Int, Pointer, Vector
from lucid.codegen.language.vector_math import maximum
from lucid.codegen.target import Target


@dataclass(frozen=True)
class Pool(KernelSpec):
    """y = body(pool(x), extras).

    `kind`: `"max"` (NaN where the window holds one), `"sum"` (of 8-bit integers less a zero point,
    in 32 bits), or the divisor of an average: `"fixed"` (the factor is an argument), `"inside"`
    (pixels inside the map) or `"padded"` (those inside the padded map, for windows that hang over
    its end). `dtypes`: those of x and y.
    `taps`: the kernel's height and width where its code is unrolled, 0 for a loop. Unrolled windows
    are not dilated, and those of a maximum hold a pixel of the map each.
    `adaptive`: windows that divide the map evenly, in place of a kernel and a stride.
    """

    family: ClassVar[str] = "pool"
    streams: ClassVar[bool] = True
    kind: str
    taps: tuple[int, int] = (0, 0)
    adaptive: bool = False
    body: Body = PLAIN
    dtypes: tuple[str, str] = (COMPUTED, COMPUTED)

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", dtype=self.dtypes[0]) + result_arguments(self.body, self.dtypes[1])
        declared += IMAGE + ints("channels", "chunks")
        if not self.adaptive:
            declared += WINDOW + ints("dilation_h", "dilation_w")
        if self.kind == "padded":
            declared += ints("pad_bottom", "pad_right")
        if self.kind == "sum":
            declared += ints("zero_point")
        return declared + (floats("scale") if self.kind == "fixed" else ())

    def extents(self, given: Given) -> dict[str, Extent]:
        images = given.tasks_over(given.out_height, given.chunks)
        beyond = max(0, self.taps[1] - given.kernel_w) if self.taps[1] else 0
        size, out = (given.height, given.width + beyond), (given.out_height, given.out_width)
        found = result_extents(given, self.body, images, out, given.channels)
        return found | {"x": given.map("", images, size, given.channels)}

    def emit(self, target: Target) -> ir.Module:
        return _PoolEmitter(self, target).emit()


@dataclass(frozen=True)
class _Span:
    """What a window covers along one axis: `count` pixels from `first` on, `step` apart. The window
    itself begins at `start`, which may be outside the map."""

    start: Int
    first: Int
    count: Int
    step: Int

    def place(self, number: Int) -> Int:
        return self.first + number * self.step


Fold = Callable[[Int, int, int, Any], list[Vector]]
"""From a channel, a number of vectors, their lanes and a mask to those vectors of the result."""
Finish = Callable[[Vector], Vector]
Segment = tuple[Int, Int, Callable[[_Span], Fold]]


class _PoolEmitter:
    def __init__(self, spec: Pool, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.largest = spec.kind == "max"
        self.dtype = spec.dtypes[0]
        self.whole = is_integer(self.dtype)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            chunk, rest = task.index % f.chunks, task.index // f.chunks
            image, line = rest // f.out_height, rest % f.out_height
            first, last = share(chunk, f.channels.ceil_div(self._wide), f.chunks)
            channels = first * self._wide, (last * self._wide).minimum(f.channels)
            self._line(image, line, channels)
        return f.finish()

    @property
    def _wide(self) -> int:
        """Channels that are worked on at once."""
        wide: int = self.kernel.aligned if self.whole else self.kernel.vector
        return wide

    def _line(self, image: Int, line: Int, channels: tuple[Int, Int]) -> None:
        """One output line: every pixel of it, by the fastest code that its window allows."""
        f, k = self.frame, self.kernel
        rows = self._span(line, "h", f.height, f.out_height)
        for start, stop, fold in self._segments(f.x + image * f.image, rows):
            with k.loop(start, stop) as column:
                span = self._span(column.index, "w", f.width, f.out_width)
                place = image, line, column.index
                pixel = Pixel.of(f, self.spec.body, *place, self.spec.dtypes[1])
                self._pixel(pixel, fold(span), self._finish(rows, span), channels)

    def _pixel(self, pixel: Pixel, fold: Fold, finish: Finish, channels: tuple[Int, Int]) -> None:
        """One pixel of the result from its window."""
        k = self.kernel

        def block(c: Int, vectors: int, mask: Any) -> None:
            for v, total in enumerate(fold(c, vectors, k.vector, mask)):
                pixel.store(finish(total), c + v * k.vector, mask)

        def piece(c: Int, lanes: int, mask: Any) -> None:
            (total,) = fold(c, 1, lanes, mask)
            pixel.store(finish(total), c, mask)

        if self.whole:
            k.each_piece(*channels, self._wide, piece)
        else:
            each_block(k, *channels, block)

    def _finish(self, rows: _Span, columns: _Span) -> Finish:
        """What becomes of the total of a window: a mean, or a sum without its zero points."""
        f, k = self.frame, self.kernel
        if self.spec.kind == "sum":
            count = rows.count.maximum(0) * columns.count.maximum(0)
            zeros = k.builder.trunc((count * f.zero_point).raw, I32)
            return lambda total: total - total.of(k.every_lane(zeros, total.lanes))
        scale = self._scale(rows, columns)
        return lambda total: total if scale is None else total * k.splat(scale, total.lanes)

    def _segments(self, x: Pointer, rows: _Span) -> list[Segment]:
        """Output columns from where to where, and how to fold the windows there."""
        f = self.frame
        nothing, everything = f.kernel.int(0), f.out_width

        def looped(span: _Span) -> Fold:
            return self._looped(x, rows, span)

        if not self.spec.taps[1]:
            return [(nothing, everything, looped)]
        if self.largest:
            lines = [
                x + (rows.start + t).maximum(0).minimum(f.height - 1) * f.line
                for t in range(self.spec.taps[0])
            ]
            return [(nothing, everything, lambda span: self._clamped(lines, span))]
        begin, end = self._interior()
        return [
            (nothing, begin, looped),
            (begin, end, lambda span: self._unrolled(x, rows, span)),
            (end, everything, looped),
        ]

    def _interior(self) -> tuple[Int, Int]:
        """The output columns whose windows lie inside the map from its left to its right end."""
        f, k = self.frame, self.kernel
        begin = f.pad_left.ceil_div(f.stride_w).minimum(f.out_width)
        room = f.width + f.pad_left - f.kernel_w
        end = k.select(room >= 0, room.maximum(0) // f.stride_w + 1, 0)
        return begin, end.maximum(begin).minimum(f.out_width)

    def _span(self, index: Int, axis: str, size: Int, count: Int) -> _Span:
        """The window of output line or column `index`."""
        f, k = self.frame, self.kernel
        if self.spec.adaptive:
            first, stop = index * size // count, ((index + 1) * size).ceil_div(count)
            return _Span(first, first, stop - first, k.int(1))
        kernel, stride = getattr(f, f"kernel_{axis}"), getattr(f, f"stride_{axis}")
        start = index * stride - (f.pad_top if axis == "h" else f.pad_left)
        if self.spec.taps[1]:
            first = start.maximum(0)
            return _Span(start, first, (start + kernel).minimum(size) - first, k.int(1))
        dilation = getattr(f, f"dilation_{axis}")
        before = (0 - start).maximum(0).ceil_div(dilation)
        behind = (size - start).maximum(0).ceil_div(dilation).minimum(kernel)
        return _Span(start, start + before * dilation, behind - before, dilation)

    def _scale(self, rows: _Span, columns: _Span) -> Vector | None:
        """What the sum of a window is multiplied by."""
        f, k = self.frame, self.kernel
        if self.largest:
            return None
        if self.spec.kind == "fixed":
            scale: Vector = f.scale
            return scale
        if self.spec.kind == "inside":
            count = rows.count * columns.count
        else:
            bottom = (f.height + f.pad_bottom - rows.start).ceil_div(f.dilation_h)
            right = (f.width + f.pad_right - columns.start).ceil_div(f.dilation_w)
            count = bottom.minimum(f.kernel_h) * right.minimum(f.kernel_w)
        bounded = count.maximum(1)  # a window wholly in the padding has the sum 0 and keeps it
        return k.splat_constant(1.0, 1) / k.as_float(bounded)

    # -- windows ----------------------------------------------------------------------------

    def _looped(self, x: Pointer, rows: _Span, columns: _Span) -> Fold:
        """Any window. Each of its lines is folded by itself, which keeps sums' chains short."""
        f, k = self.frame, self.kernel

        def fold(c: Int, vectors: int, lanes: int, mask: Any) -> list[Vector]:
            initial = [self._none(lanes)] * vectors
            with k.loop(0, rows.count, carry=initial) as h:
                line = x + (rows.place(h.index) * f.line + c)
                with k.loop(0, columns.count, carry=initial) as w:
                    at = line + columns.place(w.index) * f.pixel
                    read = [self._read(at + v * lanes, lanes, mask) for v in range(vectors)]
                    w.carry(self._joined(w.carried, read))
                h.carry(self._joined(h.carried, w.results))
            return h.results

        return fold

    def _none(self, lanes: int) -> Vector:
        """The total of no pixels."""
        if self.spec.kind == "sum":
            return splat_number(self.kernel, 0, "i32", lanes)
        kind = "max" if self.largest else "sum"
        return splat_number(self.kernel, total_of_none(kind, self.dtype), self.dtype, lanes)

    def _read(self, at: Pointer, lanes: int, mask: Any) -> Vector:
        """Channels of a pixel as they are added up or compared."""
        k = self.kernel
        value = load(k, Access(VECTOR, self.dtype), at, k.int(0), k.int(1), lanes, mask)
        return cast(k, value, "i32") if self.spec.kind == "sum" else value

    def _joined(self, totals: Sequence[Vector], values: Sequence[Vector]) -> list[Vector]:
        k = self.kernel
        pairs = zip(totals, values, strict=True)
        return [maximum(k, a, b) if self.largest else a + b for a, b in pairs]

    def _unrolled(self, x: Pointer, rows: _Span, columns: _Span) -> Fold:
        """Sums of windows that lie inside the map from left to right."""
        f, k = self.frame, self.kernel
        taps = [columns.start * f.pixel + t * f.pixel for t in range(self.spec.taps[1])]

        def fold(c: Int, vectors: int, lanes: int, mask: Any) -> list[Vector]:
            with k.loop(0, rows.count, carry=[self._none(lanes)] * vectors) as h:
                line = x + (rows.place(h.index) * f.line + c)
                totals = []
                for v, total in enumerate(h.carried):
                    first, *others = [self._read(line + t + v * lanes, lanes, mask) for t in taps]
                    for other in others:
                        first = first + other
                    totals.append(total + first)
                h.carry(totals)
            return h.results

        return fold

    def _clamped(self, lines: list[Pointer], columns: _Span) -> Fold:
        """The largest of a window, whose taps outside the map read the nearest one inside again."""
        f = self.frame
        taps = [
            (columns.start + t).maximum(0).minimum(f.width - 1) * f.pixel
            for t in range(self.spec.taps[1])
        ]
        largest = self._largest_integer if self.whole else self._largest_float

        def fold(c: Int, vectors: int, lanes: int, mask: Any) -> list[Vector]:
            places = [
                [line + t + (c + v * lanes) for line in lines for t in taps] for v in range(vectors)
            ]
            return [largest([self._read(p, lanes, mask) for p in window]) for window in places]

        return fold

    def _largest_integer(self, values: list[Vector]) -> Vector:
        return reduce(partial(maximum, self.kernel), values)

    def _largest_float(self, values: list[Vector]) -> Vector:
        """NaNs are looked for two at a time: a comparison for each would take as long again."""
        k = self.kernel
        result, strange = values[0], None
        for a, b in zip(values[::2], (values[1:] + values[-1:])[::2], strict=True):
            unordered = k.builder.fcmp_unordered("uno", a.raw, b.raw)
            strange = unordered if strange is None else k.builder.or_(strange, unordered)
        for value in values[1:]:
            result = k.pick(result.compare(">", value), result, value)
        return k.pick(strange, k.splat_constant(float("nan")), result)
