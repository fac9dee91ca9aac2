"""Kernels that take their result's elements from elsewhere: resizing, padding, gathering.

Maps are channels last; one task is one output line of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.maps import Pixel, each_block, result_arguments, result_extents
from lucid.codegen.kernels.transpose import transposed
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED, dtype, is_integer
from lucid.codegen.language.elements import VECTOR, Access, cast, load
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    floats,
    ints,
    places,
    reach,
    repeated,
    repeated_extents,
    share,
    strides_of,
)
from lucid.codegen.language.values import I64, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target


def number_at(k: Kernel, table: Pointer, index: Int) -> Int:
    """An integer of a table, which holds it as a float."""
    value = k.load(table + index, lanes=1)
    return Int(k.builder, k.builder.fptosi(value.raw, I64))


def copy_numbers(k: Kernel, source: Pointer, out: Pointer, count: Int) -> None:
    """Copy contiguous numbers, of any dtype."""

    def block(c: Int, vectors: int, mask: Any) -> None:
        for v in range(vectors):
            at = c + v * k.vector
            k.store(k.load(source + at, mask=mask), out + at, mask)

    def piece(c: Int, lanes: int, mask: Any) -> None:
        k.store(k.load(source + c, lanes, mask), out + c, mask)

    if size_of(source.element) == 1:
        k.each_piece(k.int(0), count, k.aligned, piece)
    else:
        each_block(k, k.int(0), count, block)


def fill_numbers(k: Kernel, value: Vector, out: Pointer, count: Int) -> None:
    """Write the same number to each of `count` places."""

    def piece(c: Int, lanes: int, mask: Any) -> None:
        k.store(k.splat(value, lanes), out + c, mask)

    if size_of(out.element) == 1:
        k.each_piece(k.int(0), count, k.aligned, piece)
    else:
        k.each_vector(count, lambda c, mask: piece(c, k.vector, mask))


# -- resizing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resize(KernelSpec):
    """y = body(x sampled at each line and column). `dtypes`: those of x and y.

    `lines` and `columns` are tables: for each line or column of the result the two neighbours in
    x, and then how much of the second it takes; just one neighbour unless `bilinear`.
    `planar`: y has the pixels of a line side by side, and no body; of floats only.
    8-bit integers are blended as the op's reference does it: first rows, then columns.
    """

    family: ClassVar[str] = "resize"
    bilinear: bool = False
    planar: bool = False
    body: Body = PLAIN
    dtypes: tuple[str, str] = (COMPUTED, COMPUTED)

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", dtype=self.dtypes[0]) + buffers("lines", "columns")
        declared += strides_of("x") + result_arguments(self.body, self.dtypes[1])
        planes = ints("y_channel") if self.planar else ()
        return declared + planes + ints("channels", "out_height", "out_width")

    def extents(self, given: Given) -> dict[str, Extent]:
        images, found = given.tasks_over(given.out_height), dict[str, Extent]()
        sizes: list[int] = []
        out = (given.out_height, given.out_width)
        for table, count, own in zip(("lines", "columns"), out, given.x.shape[2:], strict=True):
            places, floats = (2 * count, 3 * count) if self.bilinear else (count, count)
            sizes.append(max(own, given.largest(table, places) + 1))
            found[table] = ((floats, 1),)
        found["x"] = given.map("x_", images, (sizes[0], sizes[1]), given.channels)
        if not self.planar:
            return found | result_extents(given, self.body, images, out, given.channels)
        image, line, channel = given.y_image, given.y_line, given.y_channel
        column = Access().step(out[1], given.y_pixel)
        planes = ((images, image), (given.channels, channel), (out[0], line), (out[1], column))
        return found | {"y": planes}

    def emit(self, target: Target) -> ir.Module:
        return _ResizeEmitter(self, target).emit()


@dataclass(frozen=True)
class _Samples:
    """Floats to the neighbours along one axis, and the shares of them (None: all of the first)."""

    offsets: tuple[Int, ...]
    shares: tuple[Vector, Vector] | None


class _ResizeEmitter:
    def __init__(self, spec: Resize, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.whole = is_integer(spec.dtypes[0])

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            image, line = task.index // f.out_height, task.index % f.out_height
            rows = self._samples(f.lines, line, f.out_height, f.x_line)
            source = f.x + image * f.x_image
            if self.spec.planar:
                self._planes(source, rows, f.y + (image * f.y_image + line * f.y_line))
            else:
                with k.loop(0, f.out_width) as column:
                    place = image, line, column.index
                    pixel = Pixel.of(f, self.spec.body, *place, self.spec.dtypes[1])
                    if self.whole:
                        self._integers(source, rows, column.index, pixel)
                    else:
                        self._pixel(source, rows, column.index, pixel)
        return f.finish()

    def _samples(self, table: Pointer, index: Int, count: Int, step: Int) -> _Samples:
        k = self.kernel
        first = number_at(k, table, index) * step
        if not self.spec.bilinear:
            return _Samples((first,), None)
        second = number_at(k, table, index + count) * step
        share_of_second = k.load(table + (index + 2 * count), lanes=1)
        return _Samples((first, second), (1.0 - share_of_second, share_of_second))

    def _sampler(self, x: Pointer, rows: _Samples, column: Int) -> Callable[[Int, Any], Vector]:
        """How to read one vector of channels of a pixel of the result."""
        f, k = self.frame, self.kernel
        columns = self._samples(f.columns, column, f.out_width, f.x_pixel)
        places = [x + (r + c) for r in rows.offsets for c in columns.offsets]
        if rows.shares is None or columns.shares is None:
            return lambda c, mask: k.load(places[0] + c, mask=mask)
        shares = [k.splat(r * c) for r in rows.shares for c in columns.shares]

        def blend(c: Int, mask: Any) -> Vector:
            read = [k.load(p + c, mask=mask) for p in places]
            total = read[0] * shares[0]
            for value, weight in zip(read[1:], shares[1:], strict=True):
                total = k.fma(value, weight, total)
            return total

        return blend

    def _pixel(self, x: Pointer, rows: _Samples, column: Int, pixel: Pixel) -> None:
        f, k = self.frame, self.kernel
        sample = self._sampler(x, rows, column)

        def block(c: Int, vectors: int, mask: Any) -> None:
            for v in range(vectors):
                at = c + v * k.vector
                pixel.store(sample(at, mask), at, mask)

        each_block(k, k.int(0), f.channels, block)

    def _integers(self, x: Pointer, rows: _Samples, column: Int, pixel: Pixel) -> None:
        """A pixel of integers, in as few operations as their bits allow."""
        f, k = self.frame, self.kernel
        columns = self._samples(f.columns, column, f.out_width, f.x_pixel)
        access = Access(VECTOR, self.spec.dtypes[0])

        def piece(c: Int, lanes: int, mask: Any) -> None:
            def read(row: Int, column: Int) -> Vector:
                place = x + (row + column)
                value = load(k, access, place, c, k.int(1), lanes, mask)
                return cast(k, value, COMPUTED) if self.spec.bilinear else value

            def blended(shares: tuple[Vector, Vector] | None, values: list[Vector]) -> Vector:
                if shares is None:
                    return values[0]
                first, second = (k.splat(share, lanes) for share in shares)
                return values[0] * first + values[1] * second

            lines = [
                blended(rows.shares, [read(row, column) for row in rows.offsets])
                for column in columns.offsets
            ]
            pixel.store(blended(columns.shares, lines), c, mask)

        k.each_piece(k.int(0), f.channels, k.aligned, piece)

    def _planes(self, x: Pointer, rows: _Samples, out: Pointer) -> None:
        """A line, a square of pixels by channels at a time. Lanes beyond the last channel are
        written first, to the place of the last one, which is written then."""
        f, k = self.frame, self.kernel

        def square(column: Int, columns_mask: Any) -> None:
            samplers = [
                self._sampler(x, rows, (column + i).minimum(f.out_width - 1))
                for i in range(k.vector)
            ]

            def channels(c: Int, mask: Any) -> None:
                planes = transposed(k, [sample(c, mask) for sample in samplers])
                for i in reversed(range(k.vector)):
                    channel = (c + i).minimum(f.channels - 1)
                    k.store(planes[i], out + (channel * f.y_channel + column), columns_mask)

            k.each_vector(f.channels, channels)

        k.each_vector(f.out_width, square)


# -- padding --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pad(KernelSpec):
    """A map with a border: `mode` is `"constant"` (the argument `value`), `"reflect"`, `"edge"` or
    `"wrap"`.

    `runs`: into how many copies to cut what a line takes from x as it is, `run` floats each.
    """

    family: ClassVar[str] = "pad"
    streams: ClassVar[bool] = True
    mode: str = "constant"
    dtype: str = COMPUTED

    def arguments(self) -> tuple[Arg, ...]:
        sizes = ints("height", "width", "channels", "out_height", "out_width")
        declared = buffers("x", "y", dtype=self.dtype) + strides_of("x") + strides_of("y") + sizes
        declared += ints("top", "left", "runs", "run")
        value = floats("value") if self.dtype == COMPUTED else ints("value")
        return declared + (value if self.mode == "constant" else ())

    def extents(self, given: Given) -> dict[str, Extent]:
        images, channels = given.tasks_over(given.out_height), given.channels
        inside, outside = (given.height, given.width), (given.out_height, given.out_width)
        found = {
            "x": given.map("x_", images, inside, channels),
            "y": given.map("y_", images, outside, channels),
        }
        for pixel in (given.x_pixel, given.y_pixel):
            copied = reach(((given.runs, pixel), (given.run, 1)))
            if copied != reach(((given.width, pixel), (channels, 1))):
                raise ValueError(f"{given.runs} runs of {given.run} floats for a line")
        before = given.top, given.left
        for start, size, whole in zip(before, inside, outside, strict=True):
            if not 0 <= start <= whole - size:
                raise ValueError(f"{start} before {size} pixels among {whole}")
        return found

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            image, line = task.index // f.out_height, task.index % f.out_height
            out = f.y + (image * f.y_image + line * f.y_line)
            source = self._source(f, line - f.top, f.height)
            x = f.x + (image * f.x_image + source * f.x_line)
            if self.mode == "constant":
                k.either(
                    k.both(source >= 0, source < f.height),
                    lambda: self._line(f, x, out),
                    lambda: self._border(f, x, out, k.int(0), f.out_width),
                )
            else:
                self._line(f, x, out)
        return f.finish()

    def _source(self, f: Frame, place: Int, size: Int) -> Int:
        """Which line or column of x stands at a place, counted from x's first one."""
        if self.mode == "edge":
            return place.maximum(0).minimum(size - 1)
        if self.mode == "wrap":  # below 0 the remainder of what is not negative, from the other end
            below = size - 1 - (0 - place - 1).maximum(0) % size
            return f.kernel.select(place < 0, below, place.maximum(0) % size)
        if self.mode == "reflect":
            mirrored = size - 1 - place.maximum(0 - place)
            return size - 1 - mirrored.maximum(0 - mirrored)
        return place

    def _line(self, f: Frame, x: Pointer, out: Pointer) -> None:
        """A line of the result that has a line of x in the middle."""
        k = f.kernel
        self._border(f, x, out, k.int(0), f.left)
        with k.loop(0, f.runs) as loop:
            source, place = x + loop.index * f.x_pixel, out + (f.left + loop.index) * f.y_pixel
            copy_numbers(k, source, place, f.run)
        self._border(f, x, out, f.left + f.width, f.out_width)

    def _value(self, f: Frame) -> Vector:
        """The number of a constant border."""
        if self.dtype == COMPUTED:
            value: Vector = f.value
            return value
        element = dtype(self.dtype).element
        whole = f.value.raw
        return Vector(f.kernel.builder, f.kernel.builder.trunc(whole, element))

    def _border(self, f: Frame, x: Pointer, out: Pointer, first: Int, last: Int) -> None:
        """Columns `first` to `last` of the result, which are not in x."""
        k = f.kernel
        with k.loop(first, last) as column:
            place = out + column.index * f.y_pixel
            if self.mode == "constant":
                fill_numbers(k, self._value(f), place, f.channels)
            else:
                source = self._source(f, column.index - f.left, f.width)
                copy_numbers(k, x + source * f.x_pixel, place, f.channels)


# -- gathering ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gather(KernelSpec):
    """y[..., j, ...] = x[..., indices[j], ...].

    Four dimensions and one of rows lie outside the gathered one, and inside it `inner` contiguous
    floats, or one if `single`. One task is one outer index by a share of the rows and indices.
    """

    family: ClassVar[str] = "gather"
    single: bool = False
    dtype: str = COMPUTED

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x", "y", dtype=self.dtype) + buffers("indices") + repeated("x", "y")
        declared += ints("x_row", "x_axis", "y_row", "y_axis")
        inner = () if self.single else ints("inner")
        return declared + ints("rows", "count", "cuts", "parts") + inner

    def extents(self, given: Given) -> dict[str, Extent]:
        found = repeated_extents(given, given.tasks_over(given.cuts, given.parts), "x", "y")
        inner = 1 if self.single else given.inner
        size = given.largest("indices", given.count) + 1
        found["x"] += ((given.rows, given.x_row), (size, given.x_axis), (inner, 1))
        found["y"] += ((given.rows, given.y_row), (given.count, given.y_axis), (inner, 1))
        return found | {"indices": ((given.count, 1),)}

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            part, rest = task.index % f.parts, task.index // f.parts
            cut, rest = rest % f.cuts, rest // f.cuts
            x, y = places(f, rest, "x", "y")
            with (
                k.loop(*share(cut, f.rows, f.cuts)) as row,
                k.loop(*share(part, f.count, f.parts)) as loop,
            ):
                number = number_at(k, f.indices, loop.index)
                source = x + (row.index * f.x_row + number * f.x_axis)
                out = y + (row.index * f.y_row + loop.index * f.y_axis)
                if self.single:
                    k.store(k.load(source, lanes=1), out)
                else:
                    copy_numbers(k, source, out, f.inner)
        return f.finish()
