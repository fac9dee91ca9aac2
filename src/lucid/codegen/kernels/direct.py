"""Convolution as products over windows of a padded map, tap by tap, without a copy for each window.

A task copies the lines that its block of outputs meets into scratch once, with zeros around them;
then a window of any output begins somewhere in there, and goes on in even steps: the taps of a line
lie side by side where windows are not dilated, and lines evenly apart. The register tiles walk
these segments; where each row's window begins is in a table.

    y[pixel, :] = body(bias + sum over taps and channels of map[pixel, tap, channel] * weight)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import ARITHMETIC
from lucid.codegen.kernels.body import Extra
from lucid.codegen.kernels.integer_rows import shift, shift_planes
from lucid.codegen.kernels.microkernels import WINDOW_TYPE
from lucid.codegen.kernels.product import (
    NEAR,
    panel_arguments,
    pick_tile,
    prefetch_share,
    product_extents,
    row_group,
    set_extras,
    task_place,
)
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    codes,
    ints,
    share,
)
from lucid.codegen.language.partial import each_part
from lucid.codegen.language.values import I64, Int, Pointer, Vector, constant, size_of
from lucid.codegen.target import Target

TABLE_SLACK = 8
"""Entries after the table of places: a tile reads six, whatever its rows."""


def scratch_bytes(map_bytes: int, rows: int) -> int:
    """Scratch for the padded map, and the table of where each row's window begins."""
    return map_bytes + size_of(I64) * (rows + TABLE_SLACK)


@dataclass(frozen=True)
class Direct(KernelSpec):
    """`extras`, `numbers`: as in the tile. `planes`: channels of a planar map (NCHW), else 0. `x`,
    `result`: the dtypes of x and y. Integers lie in the padded map less their zero point."""

    family: ClassVar[str] = "direct"
    extras: tuple[Extra, ...] = ()
    planes: int = 0
    x: str = COMPUTED
    numbers: str = COMPUTED
    result: str = COMPUTED

    def arguments(self) -> tuple[Arg, ...]:
        return (
            buffers("x", dtype=self.x)
            + panel_arguments(self.extras, self.numbers, self.result)
            + codes("tile6", "tile5", "tile4")
            + ints("image", "line", "pixel", "plane", "height", "width", "out_height", "out_width")
            + ints("stride_h", "stride_w", "pad_top", "pad_left")
            + ints("met", "part_lines", "part_step")
            + ints("lines_h", "step_h", "lines_w", "step_w", "segment", "chain")
            + ints("padded_width", "map_numbers", "images", "block_images", "lines", "bands")
            + ints("zero_point", "y_row", "channels", "columns", "groups", "panel", "panels")
            + ints("blocks", "chunks", "block_stride", "chunk_stride", "prefetch")
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.blocks, given.chunks, given.groups)
        images = given.images_of(given.bands)
        size, channels = (given.height, given.width), given.groups * given.channels
        x = given.map("", images, size, channels)
        if self.planes:
            line = ((given.height, given.line), (given.width, 1))
            x = ((images, given.image), *line, (self.planes, given.plane))
        rows = images * given.lines_of(given.bands) * given.out_width
        depth = given.segment * given.lines_h * given.lines_w
        depth *= ARITHMETIC[self.numbers].numbers_of_element
        return {"x": x} | product_extents(given, self.extras, rows, depth)

    def emit(self, target: Target) -> ir.Module:
        floats = self.numbers == COMPUTED
        return (DirectEmitter if floats else _IntegerEmitter)(self, target).emit()


class DirectEmitter:
    """Writes the code of a `Direct`, or of a kernel that fills the padded map in another way."""

    def __init__(self, spec: Direct, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.extras = self.kernel.stack(2 * max(1, len(spec.extras)), I64)
        self.arithmetic = ARITHMETIC[spec.numbers]
        f = self.frame
        self.line_numbers = f.padded_width * f.channels
        self.map = f.scratch.to(self.arithmetic.number)
        self.table = (self.map + f.map_numbers).to(I64)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            block, group, chunk = task_place(f, task.index)
            band, image = block % f.bands, block // f.bands * f.block_images
            images = (f.images - image).minimum(f.block_images)
            first = band * f.lines
            lines = (f.out_height - first).minimum(f.lines)
            with k.loop(0, images) as each:
                out = self.map + each.index * f.met * self.line_numbers
                self._copy(image + each.index, group, first * f.stride_h - f.pad_top, out)
            self._places(images, lines)
            taps = self._lines_of_taps(first * f.stride_h - f.pad_top)
            row = (image * f.out_height + first) * f.out_width
            count = images * lines * f.out_width
            with k.loop(*share(chunk, f.panels, f.chunks)) as panel:
                self._panel(row, count, group, panel.index, taps)
        return f.finish()

    def _lines_of_taps(self, top: Int) -> tuple[Int, Int]:
        """The first line of taps that meets the map, for windows from line `top` on, and how many
        do; one at least. Windows dilated as far as the map is high have few."""
        f = self.frame
        own = f.part_lines.minimum((f.lines - 1) * f.stride_h + 1)
        before = (0 - top - own + 1).maximum(0).ceil_div(f.part_step)
        end = (f.height - top).maximum(0).ceil_div(f.part_step).minimum(f.lines_h)
        first = before.minimum(f.lines_h - 1)
        return first, (end - first).maximum(1)

    # -- the padded map -----------------------------------------------------------------------

    def _copy(self, image: Int, group: Int, top: Int, out: Pointer) -> None:
        """The lines of an image that windows meet, from line `top` on, with zeros where there are
        none: parts of `part_lines` lines that begin `part_step` lines apart."""
        f, k = self.frame, self.kernel
        columns = (f.padded_width - f.pad_left).minimum(f.width).maximum(0)
        left = f.pad_left.minimum(f.padded_width) * f.channels
        right = left + columns * f.channels
        source = f.x + image * f.image
        if not self.spec.planes:
            source = source + group * f.channels
        with k.loop(0, f.met) as loop:
            inside, part = loop.index % f.part_lines, loop.index // f.part_lines
            line, to = top + part * f.part_step + inside, out + loop.index * self.line_numbers

            def fill(line: Int = line, to: Pointer = to) -> None:
                self._zero(to, k.int(0), left)
                self._line(source + line * f.line, to + left, columns)
                self._zero(to, right, self.line_numbers)

            def blank(to: Pointer = to) -> None:
                self._zero(to, k.int(0), self.line_numbers)

            k.either(k.both(line >= 0, line < f.height), fill, blank)

    def _zero(self, out: Pointer, begin: Int, end: Int) -> None:
        k = self.kernel
        k.each_vector(end - begin, lambda c, mask: k.store(k.zero(), out + (begin + c), mask))

    def _copy_numbers(self, count: Int, source: Pointer, out: Pointer) -> None:
        k = self.kernel
        k.each_vector(count, lambda c, m: k.store(k.load(source + c, mask=m), out + c, m))

    def _line(self, source: Pointer, out: Pointer, columns: Int) -> None:
        """The columns of one line, channels last."""
        f, k = self.frame, self.kernel
        if self.spec.planes:
            planes = [source + p * f.plane for p in range(self.spec.planes)]
            self._interleave(planes, out, columns)
            return

        def apart() -> None:
            with k.loop(0, columns) as pixel:
                at, to = source + pixel.index * f.pixel, out + pixel.index * f.channels
                self._copy_numbers(f.channels, at, to)

        dense = f.pixel.equals(f.channels)
        k.either(dense, lambda: self._copy_numbers(columns * f.channels, source, out), apart)

    def _interleave(
        self, sources: Sequence[Pointer], out: Pointer, columns: Int, exist: Sequence[Any] = ()
    ) -> None:
        """A line of a planar map: a vector of pixels of every plane, spread and blended. `exist`:
        whether there is such a plane at all; zeros stand for those that are not there."""
        k, planes = self.kernel, len(sources)

        def read(plane: int, at: Int, mask: Any) -> Vector:
            if exist:
                mask = k.first_lanes(k.select(exist[plane], columns - at, 0))
            return k.load(sources[plane] + at, mask=mask)

        def pixels(at: Int, mask: Any) -> None:
            loaded = [read(plane, at, mask) for plane in range(planes)]
            left = (columns - at) * planes
            for part in range(planes):
                places = [part * k.vector + lane for lane in range(k.vector)]
                mixed = None
                for p, value in enumerate(loaded):
                    spread = k.shuffle(value, [place // planes for place in places])
                    own = k.constant_mask([place % planes == p for place in places])
                    mixed = spread if mixed is None else k.pick(own, spread, mixed)
                assert mixed is not None
                some = None if mask is None else k.first_lanes(left - part * k.vector)
                k.store(mixed, out + (at * planes + part * k.vector), some)

        k.each_vector(columns, pixels)

    # -- rows ---------------------------------------------------------------------------------

    def _places(self, images: Int, lines: Int) -> None:
        """The table: where each row's window begins. What follows the last repeats it."""
        f, k = self.frame, self.kernel
        with k.loop(0, images) as image, k.loop(0, lines) as line:
            number = (image.index * lines + line.index) * f.out_width
            start = (image.index * f.met + line.index * f.stride_h) * self.line_numbers
            with k.loop(0, f.out_width) as column:
                place = start + column.index * f.stride_w * f.channels
                k.store_int(place, self.table.words(number + column.index))
        count = images * lines * f.out_width
        last = k.load_int(self.table.words(count - 1))
        for i in range(TABLE_SLACK):
            k.store_int(last, self.table.words(count + i))

    def _panel(self, row: Int, count: Int, group: Int, panel: Int, taps: tuple[Int, Int]) -> None:
        """All row groups of the block times one weight panel, for these lines of taps."""
        f, k = self.frame, self.kernel
        column = group * f.columns + panel * f.panel
        packed = (group * f.panels + panel) * f.panel
        size = f.segment * f.lines_h * f.lines_w * f.panel
        line = f.segment * f.lines_w
        weights = f.weights.to(self.arithmetic.element) + packed * line * f.lines_h
        weights = weights + taps[0] * line * f.panel
        groups = count.ceil_div(f.kernel.target.tile_rows)
        distance = k.select(groups.equals(1), size.minimum(NEAR), size)
        with k.loop(0, groups) as loop:
            offset, rows = row_group(k, loop.index, count, groups)
            at = row + offset
            set_extras(f, self.spec.extras, self.extras, at, column, packed)
            ahead, lines = prefetch_share(f, loop.index, groups, size // f.panel, self.arithmetic)
            operands = [
                self.map + taps[0] * f.step_h,
                weights,
                f.y + at * f.y_row + column,
                f.segment,
                f.y_row,
                rows,
                f.columns - panel * f.panel,
                f.bias + packed,
                weights + (distance + ahead),
                lines,
                self.extras,
                self.table.words(offset),
                taps[1],
                f.step_h,
                f.lines_w,
                f.step_w,
                f.chain,
            ]
            k.call(pick_tile(f, rows), WINDOW_TYPE, operands)


class _IntegerEmitter(DirectEmitter):
    """The padded map holds 8-bit integers less their zero point, in 16 bits."""

    def _zero(self, out: Pointer, begin: Int, end: Int) -> None:
        k = self.kernel

        def part(at: Int, lanes: int) -> None:
            zero = constant(k.vector_type(lanes, out.element), 0)
            k.store(Vector(k.builder, zero), out + (begin + at))

        each_part(k, end - begin, 2 * k.vector, part)

    def _copy_numbers(self, count: Int, source: Pointer, out: Pointer) -> None:
        shift(self.kernel, source, out, count, self.spec.x, self.frame.zero_point)

    def _interleave(
        self, sources: Sequence[Pointer], out: Pointer, columns: Int, exist: Sequence[Any] = ()
    ) -> None:
        shift_planes(self.kernel, sources, out, columns, self.spec.x, self.frame.zero_point)
