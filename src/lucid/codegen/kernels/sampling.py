"""Kernels that sample maps at places that the model computes: grids, and deformed windows.

Coordinates are computed for a vector of pixels at once: on each axis the neighbours' places and
weights, of which the corners of a sample are put together. Where channels lie side by side, the
addresses and weights of all corners are then read pixel by pixel, and vectors run along the
channels; planar maps are gathered, and vectors run along the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.maps import each_block
from lucid.codegen.language import transcendentals
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.elements import EVERY, STRIDED, Access, gather, load
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
from lucid.ir.ops.sampling import CUBIC, MARGIN

AXES = ("column", "row", "depth")
"""The spatial axes, the last one first, as the last axis of a grid has them."""


PAIRS, APART = Access(EVERY, apart=2), Access(STRIDED)


@dataclass(frozen=True)
class Neighbour:
    """One neighbour on one axis of a vector of samples: the elements from the start of the axis to
    it (64-bit integers), its weight, and where it is there (None: everywhere)."""

    offset: Any
    weight: Vector
    inside: Any


@dataclass(frozen=True)
class Corner:
    """The product of one neighbour on each axis."""

    offset: Any
    weight: Vector
    inside: Any


def corners(k: Kernel, axes: Sequence[Sequence[Neighbour]]) -> list[Corner]:
    """All corners of a vector of samples."""
    found = []
    for chosen in product(*axes):
        offset, weight, inside = chosen[0].offset, chosen[0].weight, chosen[0].inside
        for n in chosen[1:]:
            offset, weight = k.builder.add(offset, n.offset), weight * n.weight
            inside = n.inside if inside is None else k.both(inside, n.inside)
        found.append(Corner(offset, weight, inside))
    return found


class Axis:
    """An axis of a map that is sampled: `size` pixels, `stride` elements apart."""

    def __init__(self, k: Kernel, size: Int, stride: Int) -> None:
        self.k = k
        self.size = k.splat(k.as_float(size))
        self.stride = k.every_lane(stride.raw, k.vector)

    def linear(self, source: Vector, everywhere: bool = False) -> list[Neighbour]:
        """The two neighbours of each coordinate, 0 beyond the border; `everywhere`: it is known to
        lie in the map."""
        last = self.size - 1.0
        if not everywhere:
            source = self.within(source, source.like(-float(MARGIN)), last + float(MARGIN))
        left = transcendentals.floor(self.k, source)
        share, right = source - left, left + 1.0
        if everywhere:
            right = self.k.pick(right.compare("<", last), right, last)
        places = ((left, 1.0 - share), (right, share))
        return [self.neighbour(place, weight, everywhere) for place, weight in places]

    def neighbour(self, place: Vector, weight: Vector, everywhere: bool = False) -> Neighbour:
        """One at a whole place; `everywhere`: it is known to lie in the map."""
        k, last, inside = self.k, self.size - 1.0, None
        if not everywhere:
            inside = k.both(place.compare(">=", 0.0), place.compare("<=", last))
            place = self.within(place, place.like(0.0), last)
        whole = k.builder.fptosi(place.raw, ir.VectorType(I32, k.vector))
        wide = k.builder.sext(whole, ir.VectorType(I64, k.vector))
        return Neighbour(k.builder.mul(wide, self.stride), weight, inside)

    def within(self, x: Vector, low: Vector, high: Vector) -> Vector:
        """Clipped to a range; NaN is its lower end."""
        above = self.k.pick(x.compare(">", low), x, low)
        return self.k.pick(above.compare("<", high), above, high)


class Stored:
    """Addresses and weights of the corners of a vector of samples, on the stack."""

    def __init__(self, k: Kernel, count: int) -> None:
        self.k, self.count = k, count
        self.addresses = k.stack(count * k.vector, I64)
        self.weights = k.stack(count * k.vector)

    def put(self, x: Pointer, found: Sequence[Corner], nothing: Pointer | None) -> None:
        """`nothing`: zeros, for corners that are not there."""
        k = self.k
        kind = ir.VectorType(I64, k.vector)
        size = constant(kind, 4)
        for i, corner in enumerate(found):
            base = k.every_lane(k.builder.ptrtoint(x.raw, I64), k.vector)
            address = k.builder.add(base, k.builder.mul(corner.offset, size))
            if corner.inside is not None:
                assert nothing is not None, "corners that are not there read zeros"
                beyond = k.every_lane(k.builder.ptrtoint(nothing.raw, I64), k.vector)
                address = k.builder.select(corner.inside, address, beyond)
            place = self.addresses + i * k.vector
            k.builder.store(address, place.raw, align=8)
            k.store(corner.weight, self.weights + i * k.vector)

    def sample(
        self, pixel: Int, first: Int, last: Int, write: Callable[[Vector, Int, Any], None]
    ) -> None:
        """`write(sample, channel, mask)` for the channels from `first` on of one pixel."""
        k = self.k
        places = [
            k.load_pointer(self.addresses + (pixel + i * k.vector), k.zero().raw.type.element)
            for i in range(self.count)
        ]
        weights = [self.weights + (pixel + i * k.vector) for i in range(self.count)]

        def block(c: Int, vectors: int, mask: Any) -> None:
            totals = [k.zero()] * vectors
            for place, weight in zip(places, weights, strict=True):
                share = k.splat(k.load(weight, lanes=1))
                for v in range(vectors):
                    read = k.load(place + (c + v * k.vector), mask=mask)
                    totals[v] = k.fma(read, share, totals[v])
            for v, total in enumerate(totals):
                write(total, c + v * k.vector, mask)

        each_block(k, first, last, block)


def each_pixels(k: Kernel, count: Int, spare: bool, body: Callable[[Int, Int, Any], None]) -> None:
    """`body(first, pixels, mask)` for vectors of pixels of a line. `spare`: the last ones always
    have a mask, since loads without one read on to the next pixel."""
    whole = (count - (1 if spare else 0)).maximum(0) // k.vector * k.vector
    with k.loop(0, whole, k.vector) as loop:
        body(loop.index, k.int(k.vector), None)
    with k.when(whole < count):
        body(whole, count - whole, k.first_lanes(count - whole))


# -- grids ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GridSample(KernelSpec):
    """y = x sampled at a grid of so many `axes`; mode, padding and corners are those of the op.

    `planar`: the pixels of a line of y are contiguous, and x is gathered; else the channels of both
    are. `grid`: how the pixels of a line of the grid lie. One task is a line of the result.
    """

    family: ClassVar[str] = "grid_sample"
    mode: str = "bilinear"
    padding: str = "zeros"
    align_corners: bool = False
    axes: int = 2
    planar: bool = False
    grid: Access = PAIRS

    def arguments(self) -> tuple[Arg, ...]:
        names = AXES[: self.axes]
        declared = buffers("x", "grid", "y") + (buffers("nothing") if self._needs_zeros else ())
        for operand in ("x", "grid", "y"):
            declared += ints(f"{operand}_image", *(f"{operand}_{axis}" for axis in names))
        declared += ints(*(f"{axis}s" for axis in names), *(f"out_{axis}s" for axis in names))
        declared += ints("channels", "grid_coordinate")
        return declared + (ints("x_channel", "y_channel") if self.planar else ())

    @property
    def _needs_zeros(self) -> bool:
        return self.padding == "zeros" and not self.planar

    def extents(self, given: Given) -> dict[str, Extent]:
        names = AXES[: self.axes]
        lines = [getattr(given, f"out_{axis}s") for axis in names[1:]]
        images = given.tasks_over(*lines)
        inside = [getattr(given, f"{axis}s") for axis in names]
        outside = [getattr(given, f"out_{axis}s") for axis in names]
        found: dict[str, Extent] = {}
        for operand, sizes in (("x", inside), ("grid", outside), ("y", outside)):
            steps = [getattr(given, f"{operand}_{axis}") for axis in names]
            image = getattr(given, f"{operand}_image")
            found[operand] = ((images, image), *zip(sizes, steps, strict=True))
        found["grid"] += ((self.axes, given.grid_coordinate),)
        for operand in ("x", "y"):
            step = getattr(given, f"{operand}_channel") if self.planar else 1
            found[operand] += ((given.channels, step),)
        self.grid.step(given.out_columns, given.grid_column)
        return found | ({"nothing": ((given.channels, 1),)} if self._needs_zeros else {})

    def emit(self, target: Target) -> ir.Module:
        return _GridEmitter(self, target).emit()


class _GridEmitter:
    def __init__(self, spec: GridSample, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        names = AXES[: spec.axes]
        f = self.frame
        self.axes = [Axis(self.kernel, getattr(f, f"{a}s"), getattr(f, f"x_{a}")) for a in names]
        taps = {"bilinear": 2, "nearest": 1, "bicubic": 4}[spec.mode]
        self.stored = None if spec.planar else Stored(self.kernel, taps**spec.axes)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            rest, at = task.index, {"grid": f.grid, "y": f.y}
            for axis in AXES[1 : self.spec.axes]:
                size = getattr(f, f"out_{axis}s")
                index, rest = rest % size, rest // size
                for operand in at:
                    at[operand] = at[operand] + index * getattr(f, f"{operand}_{axis}")
            grid, y = (at[o] + rest * getattr(f, f"{o}_image") for o in ("grid", "y"))
            self._line(f.x + rest * f.x_image, grid, y)
        return f.finish()

    def _line(self, x: Pointer, grid: Pointer, y: Pointer) -> None:
        f, k, spec = self.frame, self.kernel, self.spec

        def pixels(first: Int, count: Int, mask: Any) -> None:
            found = corners(k, [self._neighbours(grid, a, first, mask) for a in range(spec.axes)])
            if self.stored is None:
                self._planes(x, y + first, found, mask)
                return
            self.stored.put(x, found, f.nothing if spec.padding == "zeros" else None)
            with k.loop(0, count) as pixel:
                out = y + (first + pixel.index) * f.y_column
                self.stored.sample(
                    pixel.index,
                    k.int(0),
                    f.channels,
                    lambda value, c, rest: k.store(value, out + c, rest),
                )

        each_pixels(k, f.out_columns, spec.grid.kind == EVERY, pixels)

    def _planes(self, x: Pointer, y: Pointer, found: Sequence[Corner], mask: Any) -> None:
        """A vector of pixels of every plane."""
        f, k = self.frame, self.kernel
        with k.loop(0, f.channels) as channel:
            plane, total = x + channel.index * f.x_channel, k.zero()
            for corner in found:
                there = [m for m in (mask, corner.inside) if m is not None]
                read = gather(k, plane, corner.offset, k.both(*there) if there else None)
                total = k.fma(read, corner.weight, total)
            k.store(total, y + channel.index * f.y_channel, mask)

    def _neighbours(self, grid: Pointer, number: int, first: Int, mask: Any) -> list[Neighbour]:
        """On one axis, of the pixels from `first` on."""
        f, k, spec, axis = self.frame, self.kernel, self.spec, self.axes[number]
        place = grid + number * f.grid_coordinate
        given = load(k, spec.grid, place, first, f.grid_column, k.vector, mask)
        source = self._source(given, axis)
        if spec.mode == "bicubic":
            return self._cubic(axis, source)
        source = self._moved_inside(axis, source)
        if spec.mode == "bilinear":
            return axis.linear(source, spec.padding != "zeros")
        margin = float(MARGIN)
        source = axis.within(source, source.like(-margin), axis.size - 1.0 + margin)
        place = transcendentals.rounded(k, source)
        return [axis.neighbour(place, source.like(1.0), spec.padding != "zeros")]

    def _source(self, coordinate: Vector, axis: Axis) -> Vector:
        if self.spec.align_corners:
            return (coordinate + 1.0) * ((axis.size - 1.0) * 0.5)
        return ((coordinate + 1.0) * axis.size - 1.0) * 0.5

    def _cubic(self, axis: Axis, source: Vector) -> list[Neighbour]:
        k, margin = self.kernel, float(MARGIN)
        if self.spec.padding == "reflection":
            finite = k.math("fabs", source).compare("<", float("inf"))
            source = k.pick(finite, source, source.like(-margin))
        else:
            source = axis.within(source, source.like(-margin), axis.size - 1.0 + margin)
        left = transcendentals.floor(k, source)
        t = source - left
        weights = (_far(t + 1.0), _close(t), _close(1.0 - t), _far(2.0 - t))
        return [
            axis.neighbour(
                self._moved_inside(axis, left + float(i - 1)), w, self.spec.padding != "zeros"
            )
            for i, w in enumerate(weights)
        ]

    def _moved_inside(self, axis: Axis, source: Vector) -> Vector:
        if self.spec.padding == "zeros":
            return source
        if self.spec.padding == "reflection":
            source = self._mirrored(axis, source)
        return axis.within(source, source.like(0.0), axis.size - 1.0)

    def _mirrored(self, axis: Axis, source: Vector) -> Vector:
        k = self.kernel
        low = 0.0 if self.spec.align_corners else -0.5
        span = axis.size - (1.0 + 2 * low)
        distance = k.math("fabs", source - low)
        turns = transcendentals.floor(k, distance / span)
        rest = distance - turns * span
        odd = turns - transcendentals.floor(k, turns * 0.5) * 2.0
        mirrored = k.pick(odd.compare("==", 0.0), rest, span - rest) + low
        return k.pick(span.compare(">", 0.0), mirrored, source.like(0.0))


def _close(x: Vector) -> Vector:
    """The cubic's weight of what lies x away, at most 1."""
    return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1.0


def _far(x: Vector) -> Vector:
    """The same from 1 to 2."""
    return ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC


# -- deformed windows -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DeformColumns(KernelSpec):
    """The columns of a deformable convolution, multiplied by a mask if `masked`.

    Maps are channels last; `access`: how the pixels of a line of offsets and mask lie. One task is
    a line of the result. `run` channels share offsets and lie side by side in it.
    """

    family: ClassVar[str] = "deform_columns"
    masked: bool = False
    access: Access = APART

    def arguments(self) -> tuple[Arg, ...]:
        operands = ("offset", "mask") if self.masked else ("offset",)
        declared = buffers("x", "nothing", "y", *operands) + strides_of("x") + strides_of("y")
        for operand in operands:
            declared += strides_of(operand) + ints(f"{operand}_channel")
        declared += ints("height", "width", "channels", "out_height", "out_width")
        declared += ints("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left")
        return declared + ints("dilation_h", "dilation_w", "groups", "parts", "run")

    def extents(self, given: Given) -> dict[str, Extent]:
        images, taps = given.tasks_over(given.out_height), given.kernel_h * given.kernel_w
        out = (given.out_height, given.out_width)
        for count in (given.groups, given.parts):
            if given.channels % (count * given.run):
                raise ValueError(f"runs of {given.run} of {given.channels} channels in {count}")
        count = taps * given.parts
        found = {
            "x": given.map("x_", images, (given.height, given.width), given.channels),
            "y": given.map("y_", images, out, taps * given.channels),
            "offset": given.map("offset_", images, out, 2 * count, given.offset_channel),
            "nothing": ((given.channels, 1),),
        }
        self.access.step(given.out_width, given.offset_pixel)
        if self.masked:
            self.access.step(given.out_width, given.mask_pixel)
            found["mask"] = given.map("mask_", images, out, count, given.mask_channel)
        return found

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        axes = (Axis(k, f.height, f.x_line), Axis(k, f.width, f.x_pixel))
        stored = Stored(k, 4)
        with k.loop(f.first, f.last) as task:
            image, line = task.index // f.out_height, task.index % f.out_height
            x = f.x + image * f.x_image
            y = f.y + (image * f.y_image + line * f.y_line)
            offset = f.offset + (image * f.offset_image + line * f.offset_line)
            mask = f.mask + (image * f.mask_image + line * f.mask_line) if self.masked else None

            def pixels(first: Int, count: Int, rest: Any) -> None:
                taps = f.kernel_h * f.kernel_w
                with k.loop(0, f.parts) as part, k.loop(0, taps) as tap:
                    number = part.index * taps + tap.index
                    tap_row, tap_column = tap.index // f.kernel_w, tap.index % f.kernel_w
                    row = line * f.stride_h - f.pad_top + tap_row * f.dilation_h
                    column = tap_column * f.dilation_w - f.pad_left
                    moves = [
                        self._read(f, "offset", offset, number * 2 + axis, first, rest)
                        for axis in (0, 1)
                    ]
                    rows = k.splat(k.as_float(row)) + moves[0]
                    columns = self._columns(f, first, column) + moves[1]
                    found = corners(k, [axes[0].linear(rows), axes[1].linear(columns)])
                    if mask is not None:
                        factor = self._read(f, "mask", mask, number, first, rest)
                        found = [Corner(c.offset, c.weight * factor, c.inside) for c in found]
                    stored.put(x, found, f.nothing)
                    with k.loop(0, count) as pixel:
                        out = y + (first + pixel.index) * f.y_pixel
                        self._runs(f, stored, pixel.index, part.index, tap.index, out)

            each_pixels(k, f.out_width, self.access.kind == EVERY, pixels)
        return f.finish()

    def _read(
        self, f: Frame, name: str, line: Pointer, channel: Int, first: Int, mask: Any
    ) -> Vector:
        """One channel of offsets or mask of the pixels from `first` on."""
        place = line + channel * getattr(f, f"{name}_channel")
        stride = getattr(f, f"{name}_pixel")
        return load(f.kernel, self.access, place, first, stride, f.kernel.vector, mask)

    def _columns(self, f: Frame, first: Int, column: Int) -> Vector:
        """Where a tap of the windows of the pixels from `first` on lies, unmoved."""
        k = f.kernel
        steps = ir.Constant(k.vector_type(), [float(i) for i in range(k.vector)])
        apart = k.splat(k.as_float(f.stride_w))
        return k.fma(
            Vector(k.builder, steps), apart, k.splat(k.as_float(first * f.stride_w + column))
        )

    def _runs(
        self, f: Frame, stored: Stored, pixel: Int, part: Int, tap: Int, out: Pointer
    ) -> None:
        """The channels that share offsets, in pieces that lie side by side in the result."""
        k = f.kernel
        inner, shared = f.channels // f.groups, f.channels // f.parts
        with k.loop(0, shared // f.run) as loop:
            first = part * shared + loop.index * f.run
            group = first // inner
            moved = (group * f.kernel_h * f.kernel_w + tap) * inner - group * inner
            stored.sample(
                pixel,
                first,
                first + f.run,
                lambda value, c, mask: k.store(value, out + (moved + c), mask),
            )
