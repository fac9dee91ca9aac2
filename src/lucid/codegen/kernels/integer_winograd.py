"""Winograd convolution of 8-bit integers, exact: products of 16-bit pairs, sums modulo 2^32.

As that of floats, with the transforms on integers of `winograd_transforms.py`: V holds pairs of
channels, M sums of 32 bits. A result is exact only while it is less than 2^25 (F(4x4); 2^29 of
F(2x2)), which depends on the weights. So whoever packs them says into which parts the channels are
split (`WinogradParts`): each part's results are certain to be less, and are added up. Few layers
have more than one part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import ARITHMETIC, Arithmetic
from lucid.codegen.kernels.packing import most_parts
from lucid.codegen.kernels.winograd import Place, Winograd, WinogradEmitter, skewed
from lucid.codegen.kernels.winograd_transforms import (
    INVERSE_OF_9,
    ONES,
    WHOLE_INPUT,
    WHOLE_OUTPUT,
    shift,
)
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.elements import elements, numbers
from lucid.codegen.language.integer_math import bits
from lucid.codegen.language.kernel import Arg, Extent, Given, buffers, ints
from lucid.codegen.language.partial import each_part, load_first, store_first
from lucid.codegen.language.values import I16, I32, Int, Integers, Pointer, Vector
from lucid.codegen.target import Target


def scratch_bytes(m: int, tiles: int, channels: int, panel: int, vector: int) -> int:
    """Scratch a task needs: V, M, the results of earlier parts and one padded input patch."""
    points = (m + 2) ** 2
    padded = -(-channels // (2 * vector)) * vector
    elements = points * (skewed(tiles * padded) + skewed(tiles * panel)) + m * m * tiles * panel
    return 4 * elements + 2 * points * padded


@dataclass(frozen=True)
class IntegerWinograd(Winograd):
    """`Winograd` of integers. `x`, `y`: their dtypes; `vectors`: of a panel."""

    family: ClassVar[str] = "integer_winograd"
    x: str = "u8"
    y: str = "u8"
    vectors: int = 2

    def dtype_of(self, operand: str) -> str:
        own = {"x": self.x, "y": self.y, "weights": "i16", "bias": "i32"}
        return own.get(operand) or super().dtype_of(operand)

    def arguments(self) -> tuple[Arg, ...]:
        return super().arguments() + buffers("parts", dtype="i64") + ints("zero_point")

    def extents(self, given: Given) -> dict[str, Extent]:
        """Raises ValueError for panels of another width, too."""
        if given.panel % self.vectors:
            raise ValueError(f"panels of {given.panel} columns in {self.vectors} vectors")
        packed = given.groups * given.panels * given.panel * (self.m + 2) ** 2
        weights: Extent = ((packed * 2 * -(-given.depth // 2), 1),)
        parts: Extent = ((2 + most_parts(given.depth, self.m), 1),)
        return super().extents(given) | {"weights": weights, "parts": parts}

    def emit(self, target: Target) -> ir.Module:
        return _Emitter(self, target).emit()


class _Emitter(WinogradEmitter):
    arithmetic: ClassVar[Arithmetic] = ARITHMETIC["i16"]
    spec: IntegerWinograd

    def __init__(self, spec: IntegerWinograd, target: Target) -> None:
        super().__init__(spec, target)
        f, k = self.frame, self.kernel
        self.lanes = 2 * self.vector
        """Channels that are transformed together."""
        self.patch_pixel = self.padded * self.arithmetic.numbers_of_element
        self.width = spec.vectors * self.vector
        self.results_of_tile = self.m * self.m * self.width
        self.values = k.stack(self.results_of_tile, I32)
        self.earlier = self.rest.to(I32)
        self.patch = (self.earlier + f.block_tiles * self.results_of_tile).to(f.x.element)

    # -- input ------------------------------------------------------------------------------

    def _clear(self) -> None:
        """There is a patch instead of a pixel of zeros."""

    def _rows(self, place: Place, phase: Pointer, channels: Int) -> tuple[list[Pointer], Int]:
        """The lines of a tile's input, and the step from one of its pixels to the next: in the map,
        or in a copy with a border around it."""
        f, k = self.frame, self.kernel
        height, width = self._phase_size(place, f.height, f.width)
        top, left = place.line - f.pad_top, place.column - f.pad_left
        interior = k.both(top >= 0, left >= 0, top + self.a <= height, left + self.a <= width)
        interior = k.both(interior, channels >= self.lanes)
        with k.when(k.builder.not_(interior)):
            self._fill_patch(phase, top, left, height, width, channels)
        corner = phase + (top * self.x.line_step + left * self.x.pixel_step)
        source = k.choose(interior, corner, self.patch)
        line_step = k.select(interior, self.x.line_step, self.patch_pixel * self.a)
        pixel_step = k.select(interior, self.x.pixel_step, self.patch_pixel)
        return [source + line_step * i for i in range(self.a)], pixel_step

    def _fill_patch(
        self, phase: Pointer, top: Int, left: Int, height: Int, width: Int, channels: Int
    ) -> None:
        """A tile that reaches over the border of its phase, copied with zero points around it."""
        k = self.kernel
        with k.loop(0, self.a) as i, k.loop(0, self.a) as j:
            y, x = top + i.index, left + j.index
            inside = k.both(y >= 0, y < height, x >= 0, x < width)
            source = phase + (y * self.x.line_step + x * self.x.pixel_step)
            out = self.patch + (i.index * self.a + j.index) * self.patch_pixel
            k.either(
                inside,
                lambda: self.copy_pixel(source, out, channels),
                lambda: self.blank_pixel(out),
            )

    def copy_pixel(self, source: Pointer, out: Pointer, channels: Int) -> None:
        k = self.kernel

        def part(at: Int, lanes: int) -> None:
            k.store(k.load(source + at, lanes), out + at)

        each_part(k, channels, self.lanes, part)

    def blank_pixel(self, out: Pointer) -> None:
        k = self.kernel
        zero = k.builder.trunc(self.frame.zero_point.raw, out.element)
        nothing = Vector(k.builder, k.every_lane(zero, self.lanes))
        with k.loop(0, self.patch_pixel, self.lanes, never_empty=True) as loop:
            k.store(nothing, out + loop.index)

    def _transform(
        self, place: Place, phase: Pointer, out: Pointer, channels: Int, anywhere: bool = False
    ) -> None:
        """The last vector begins early enough to be whole, and is transformed again."""
        k = self.kernel
        rows, pixel_step = self._rows(place, phase, channels)
        last = (channels - self.lanes).maximum(0)
        with k.loop(0, channels, self.lanes, never_empty=True) as loop:
            c = loop.index.minimum(last)
            columns = (
                [self._channels(row + (pixel_step * j + c)) for row in rows] for j in range(self.a)
            )
            self._transform_columns(columns, out.to(I16) + c)

    def _transform_columns(self, columns: Any, out: Pointer) -> None:
        """B^T d B of a tile's columns, given one after the other."""
        k, a, transform = self.kernel, self.a, WHOLE_INPUT[self.m]
        room = self.between.to(I16)
        for j, column in enumerate(columns):
            for i, value in enumerate(transform(column)):
                k.store(value, room + (i * a + j) * self.lanes, align=self.bytes)
        for i in range(a):
            kept = [
                k.load(room + (i * a + j) * self.lanes, self.lanes, align=self.bytes)
                for j in range(a)
            ]
            for j, value in enumerate(transform([Integers(k.builder, v.raw, True) for v in kept])):
                if (i, j) == (1, 1):
                    value = value - self._zero_points()
                k.store(value, out + self.v_point * (2 * (i * a + j)))

    def _zero_points(self) -> Integers:
        """What a tile of zero points has at the one point where that is not 0: to take it off there
        is to take them off everywhere."""
        k = self.kernel
        total = k.builder.trunc((self.frame.zero_point * ONES[self.m]).raw, I16)
        return Integers(k.builder, k.every_lane(total, self.lanes), True)

    def _channels(self, at: Pointer) -> Integers:
        """A vector of a pixel's channels in 16 bits."""
        k = self.kernel
        widen = k.builder.sext if dtype(self.spec.x).kind == "signed" else k.builder.zext
        raw = widen(k.load(at, self.lanes).raw, ir.VectorType(I16, self.lanes))
        return Integers(k.builder, raw, True)

    # -- products and output ----------------------------------------------------------------

    def _panel(self, tiles: tuple[Int, Int], piece: Int, group: Int, panel: Int) -> None:
        """Part by part of the channels."""
        f, k, (first, last) = self.frame, self.kernel, tiles
        with k.loop(0, k.load_int(f.parts), never_empty=True) as part:
            begin, end = (k.load_int(f.parts + (part.index + i)) for i in (1, 2))
            self._multiply(last - first, group, panel, begin, end - begin)
            ended = end.equals(self.depth)
            with k.loop(first, last) as tile:
                slot = tile.index - first
                self._sum(slot, part.index)

                def finish(tile: Int = tile.index) -> None:
                    self._finish_tile(self._place(tile), group, panel)

                def put_by(slot: Int = slot) -> None:
                    self._each_result(slot, lambda value, earlier: k.store(k.load(value), earlier))

                k.either(ended, finish, put_by)

    def _sum(self, slot: Int, part: Int) -> None:
        """A tile's sums over the channels so far."""
        k = self.kernel
        with k.loop(0, self.width, self.vector, never_empty=True) as v:
            self._inverse_of(self.products + (slot * self.width + v.index), self.values + v.index)

        def add(value: Pointer, earlier: Pointer) -> None:
            one, other = (Integers(k.builder, k.load(p).raw, True) for p in (value, earlier))
            k.store(one + other, value)

        with k.when(part > 0):
            self._each_result(slot, add)

    def _each_result(self, slot: Int, body: Any) -> None:
        """`body(place, place in earlier parts)` for each vector of a tile's results."""
        k, earlier = self.kernel, self.earlier + slot * self.results_of_tile
        with k.loop(0, self.results_of_tile, self.vector, never_empty=True) as loop:
            body(self.values + loop.index, earlier + loop.index)

    def _inverse_of(self, products: Pointer, out: Pointer) -> None:
        """A^T M A for one vector of channels, scaled back."""
        k, a, transform = self.kernel, self.a, WHOLE_OUTPUT[self.m]
        for j in range(a):
            column = [self._integers(products + self.m_point * (i * a + j)) for i in range(a)]
            for i, value in enumerate(transform(column)):
                self._keep(self.after, i * a + j, value)
        for i in range(self.m):
            row = [self._integers(self.after + (i * a + j) * self.vector) for j in range(a)]
            for j, value in enumerate(transform(row)):
                if self.m == 4:
                    value = value * INVERSE_OF_9
                scaled = bits(k, "ashr", value, value.like(shift(self.m, i, j)))
                k.store(scaled, out + (i * self.m + j) * self.width, align=self.bytes)

    def _integers(self, at: Pointer) -> Integers:
        return Integers(self.kernel.builder, self.kernel.load(at, align=self.bytes).raw, True)

    def _finish_tile(self, place: Place, group: Int, panel: Int) -> None:
        """Bias, body and store, pixel by pixel."""
        f, k, body = self.frame, self.kernel, self.spec.body
        channel = panel * f.panel
        packed = group * f.panels * f.panel + channel
        size = self._phase_size(place, f.out_height, f.out_width)
        lines, columns = (
            (s - at).minimum(self.m) for s, at in zip(size, (place.line, place.column), strict=True)
        )
        corners = {
            name: self._phase(m, place, group * f.columns + channel)
            + (place.line * m.line_step + place.column * m.pixel_step)
            for name, m in self.results.items()
        }
        by_channel = {
            f"extra{e}": numbers(
                k, k.load(getattr(f, f"extra{e}") + packed, self.width).raw, x.dtype
            )
            for e, x in enumerate(body.extras)
            if x.kind == "channel"
        }
        bias = Integers(k.builder, k.load(f.bias + packed, self.width).raw, True)

        def pixels(some: Int | None) -> None:
            with k.loop(0, lines) as i, k.loop(0, columns) as j:
                at = {
                    name: corners[name] + (m.line_step * i.index + m.pixel_step * j.index)
                    for name, m in self.results.items()
                }
                extras = [
                    by_channel[name]
                    if name in by_channel
                    else self._number(at[name], x.dtype, some)
                    for name, x in ((f"extra{e}", x) for e, x in enumerate(body.extras))
                ]
                value = k.load(self.values + (i.index * self.m + j.index) * self.width, self.width)
                total = Integers(k.builder, value.raw, True) + bias
                result = elements(k, body.emit(k, total, extras), self.spec.y)
                store_first(k, result, at["y"], some)

        left = f.columns - channel
        k.either(left >= self.width, lambda: pixels(None), lambda: pixels(left))

    def _number(self, at: Pointer, name: str, some: Int | None) -> Vector:
        return numbers(self.kernel, load_first(self.kernel, at, self.width, some), name)
