"""Convolution as products over windows of a padded map, tap by tap, without a copy for each window.

A task copies the lines that its block of outputs meets into scratch once, with zeros around them;
then a window of any output begins somewhere in there, and goes on in even steps: the taps of a line
lie side by side where windows are not dilated, and lines evenly apart. The register tiles walk
these segments; where each row's window begins is in a table. A map without padding is walked where
it lies.

    y[pixel, :] = body(bias + sum over taps and channels of map[pixel, tap, channel] * weight)

Where much of the windows is padding, or the map is walked in spite of it (`sparse`), the rows of
the table are sorted by which taps meet the map (`live_taps.py`), and each part of it is
multiplied by the weights of its own taps alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import ARITHMETIC
from lucid.codegen.kernels.bf16_rows import round_numbers, round_planes
from lucid.codegen.kernels.body import Extra, tensors
from lucid.codegen.kernels.integer_rows import shift, shift_planes
from lucid.codegen.kernels.live_taps import Axis, AxisWindows, Piece, Pieces, list_words
from lucid.codegen.kernels.microkernels import WINDOW_TYPE
from lucid.codegen.kernels.product import (
    NEAR,
    Prefetch,
    RowGroups,
    panel_arguments,
    pick_tile,
    product_extents,
    set_extras,
    task_place,
    tile_arguments,
)
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    reach,
    share,
)
from lucid.codegen.language.partial import store_zeros
from lucid.codegen.language.values import I64, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target

TABLE_SLACK = 8
"""Entries after the table of places: a tile reads six, whatever its rows, and may ask for what the
next six say."""
SORTED_WORDS = 2
"""Of an entry in the table of sorted rows: where its window begins, and its result's number."""


def scratch_bytes(map_bytes: int, rows: int, sparse_taps: tuple[int, int] | None = None) -> int:
    """Scratch for the padded map, and the table of where each row's window begins; of windows with
    `sparse_taps` also for the numbers of sorted rows, and the pieces along both axes."""
    words = rows + TABLE_SLACK
    if sparse_taps is not None:
        words = SORTED_WORDS * (rows + TABLE_SLACK) + sum(map(list_words, sparse_taps))
    return map_bytes + size_of(I64) * words


@dataclass(frozen=True)
class _Part:
    """Rows of the table that are multiplied by the same taps: those of `images` images, of a piece
    of the lines and of the columns. `first`: the number of the first."""

    first: Int
    images: Int
    high: Piece
    wide: Piece

    @property
    def rows(self) -> Int:
        return self.images * self.high.outputs * self.wide.outputs

    @property
    def segments(self) -> Int:
        return self.high.taps * self.wide.taps


@dataclass(frozen=True)
class _Block:
    """The outputs of a task: so many images, lines and columns of them. `row`: the first one's
    number in the result; `top`, `left`: the pixel in which its window begins. `pieces`: those of
    both axes, where windows are sparse; `taps`: where they are not, the first line of taps that
    meets the map, and how many do."""

    images: Int
    lines: Int
    columns: Int
    row: Int
    top: Int
    left: Int
    pieces: tuple[Pieces, ...] = ()
    taps: tuple[Int, Int] | None = None

    @property
    def rows(self) -> Int:
        return self.images * self.lines * self.columns


@dataclass(frozen=True)
class Direct(KernelSpec):
    """`extras`, `numbers`: as in the tile. `planes`: channels of a planar map (NCHW), else 0. `x`,
    `result`: the dtypes of x and y. Integers lie in the padded map less their zero point, and for
    products of bfloat16 floats do rounded.
    `in_place`: whether x, of floats, is not copied: it has no padding, or none that is met.
    `sparse`: whether taps that meet padding are left out; a segment is then a tap."""

    family: ClassVar[str] = "direct"
    extras: tuple[Extra, ...] = ()
    planes: int = 0
    x: str = COMPUTED
    numbers: str = COMPUTED
    result: str = COMPUTED
    in_place: bool = False
    sparse: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        return (
            buffers("x", dtype=self.x)
            + panel_arguments(self.extras, self.numbers, self.result)
            + tile_arguments()
            + ints("image", "line", "pixel", "plane", "height", "width", "out_height", "out_width")
            + ints("stride_h", "stride_w", "pad_top", "pad_left")
            + ints("met", "part_lines", "part_step")
            + ints("lines_h", "step_h", "lines_w", "step_w", "segment", "chain")
            + ints("padded_width", "map_numbers", "images", "block_images", "lines", "bands")
            + ints("strip", "strips")
            + ints("zero_point", "y_row", "channels", "columns", "groups", "panel", "panels")
            + ints("blocks", "chunks", "block_stride", "chunk_stride", "prefetch")
            + (ints("dilation_h", "dilation_w") if self.sparse else ())
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.blocks, given.chunks, given.groups)
        images = given.images_of(given.bands * given.strips)
        lines, columns = given.lines_of(given.bands), given.columns_of(given.strips)
        x = given.map("", images, (given.height, given.width), given.groups * given.channels)
        if self.planes:
            rest = ((given.height, given.line), (given.width, 1))
            x = ((images, given.image), *rest, (self.planes, given.plane))
        if self.in_place and self.sparse:
            self._require_live(given)
        elif self.in_place and self._windows_reach(given, images, lines, columns) > reach(x):
            raise ValueError(f"windows of {given.lines_h} x {given.lines_w} segments leave the map")
        rows = images * lines * columns
        depth = given.segment * given.lines_h * given.lines_w
        depth *= ARITHMETIC[self.numbers].numbers_of_element
        return {"x": x} | product_extents(given, self.extras, rows, depth)

    def replaceable(self) -> tuple[str, ...]:
        return tensors(self.extras)

    @staticmethod
    def _require_live(given: Given) -> None:
        """Raises ValueError unless the taps lie as their dilation says, and every window has some
        in the map: all that is read."""
        h, w = (given.dilation_h * given.line, given.dilation_w * given.pixel)
        if (given.step_h, given.step_w) != (h, w) or given.segment != given.channels:
            raise ValueError(f"taps {given.step_h} and {given.step_w} apart, not {h} and {w}")
        axes = zip(
            (given.out_height, given.out_width),
            (given.stride_h, given.stride_w),
            (given.pad_top, given.pad_left),
            (given.dilation_h, given.dilation_w),
            (given.lines_h, given.lines_w),
            (given.height, given.width),
            strict=True,
        )
        if not all(AxisWindows(*axis).meet() for axis in axes):
            raise ValueError("windows without a tap in the map")

    @staticmethod
    def _windows_reach(given: Given, images: int, lines: int, columns: int) -> int:
        """How far in x the last window's last number lies."""
        pixels = ((lines, given.stride_h * given.line), (columns, given.stride_w * given.pixel))
        window = ((given.lines_h, given.step_h), (given.lines_w, given.step_w), (given.segment, 1))
        return reach(((images, given.image), *pixels, (given.groups, given.channels), *window))

    def emit(self, target: Target) -> ir.Module:
        return EMITTERS[self.numbers](self, target).emit()


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
        self.taps = f.lines_h * f.lines_w
        self.passed = self.kernel.stack(1, I64)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            number, group, chunk = task_place(f, task.index)
            image = number // (f.bands * f.strips) * f.block_images
            line, column = number // f.strips % f.bands * f.lines, number % f.strips * f.strip
            block = _Block(
                (f.images - image).minimum(f.block_images),
                (f.out_height - line).minimum(f.lines),
                (f.out_width - column).minimum(f.strip),
                (image * f.out_height + line) * f.out_width + column,
                line * f.stride_h - f.pad_top,
                column * f.stride_w - f.pad_left,
            )
            windows = self._map(image, block.images, group, block.top, block.left)
            block = self._places(block)
            segments = self._segments(block)
            with k.loop(*share(chunk, f.panels, f.chunks)) as panel:
                self._panel(windows, block, group, panel.index, segments)
        return f.finish()

    # -- the padded map -----------------------------------------------------------------------

    def _map(self, image: Int, images: Int, group: Int, top: Int, left: Int) -> Pointer:
        """Where windows lie that begin in line `top` and column `left` of so many images: in x, or
        in scratch, put there."""
        f, k = self.frame, self.kernel
        if self.spec.in_place:
            corner = image * f.image + top * f.line + left * f.pixel
            lie: Pointer = f.x + (corner + group * f.channels)
            return lie
        with k.loop(0, images) as each:
            out = self.map + each.index * f.met * self.line_numbers
            self._copy(image + each.index, group, top, left, out)
        self._end(self.map + images * f.met * self.line_numbers)
        return self.map

    def _end(self, place: Pointer) -> None:
        """What is written behind the last line of the map."""

    def _margins(self, left: Int) -> tuple[Int, Int, Int]:
        """Of a padded line that begins at column `left` of x: how many columns of zeros it begins
        with, the first column of x in it, and how many of x follow."""
        f = self.frame
        zeros, skipped = (0 - left).maximum(0).minimum(f.padded_width), left.maximum(0)
        return zeros, skipped, (f.padded_width - zeros).minimum(f.width - skipped).maximum(0)

    def _copy(self, image: Int, group: Int, top: Int, left: Int, out: Pointer) -> None:
        """The lines of an image that windows meet, from line `top` and column `left` on, with zeros
        where there are none: parts of `part_lines` lines that begin `part_step` lines apart."""
        f, k = self.frame, self.kernel
        zeros, skipped, columns = self._margins(left)
        begin, end = zeros * f.channels, (zeros + columns) * f.channels
        source = f.x + (image * f.image + skipped * f.pixel)
        if not self.spec.planes:
            source = source + group * f.channels
        with k.loop(0, f.met) as loop:
            inside, part = loop.index % f.part_lines, loop.index // f.part_lines
            line, to = top + part * f.part_step + inside, out + loop.index * self.line_numbers

            def fill(line: Int = line, to: Pointer = to) -> None:
                self._zero(to, k.int(0), begin)
                self._line(source + line * f.line, to + begin, columns)
                self._zero(to, end, self.line_numbers)

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

    def _steps(self) -> tuple[Int, Int, Int]:
        """From an image, line and pixel of what windows lie in to the next."""
        f = self.frame
        if self.spec.in_place:
            return f.image, f.line, f.pixel
        return f.met * self.line_numbers, self.line_numbers, f.channels

    def _places(self, block: _Block) -> _Block:
        """The table: where each row's window begins. What follows the last repeats it."""
        if self.spec.sparse:
            return self._sorted_places(block)
        f, k = self.frame, self.kernel
        image_step, line_step, pixel_step = self._steps()
        with k.loop(0, block.images) as image, k.loop(0, block.lines) as line:
            number = (image.index * block.lines + line.index) * block.columns
            start = image.index * image_step + line.index * f.stride_h * line_step
            with k.loop(0, block.columns) as column:
                place = start + column.index * f.stride_w * pixel_step
                k.store_int(place, self.table.words(number + column.index))
        last = k.load_int(self.table.words(block.rows - 1))
        for i in range(TABLE_SLACK):
            k.store_int(last, self.table.words(block.rows + i))
        return replace(block, taps=self._lines_of_taps(block.top))

    def _lines_of_taps(self, top: Int) -> tuple[Int, Int]:
        """The first line of taps that meets the map, for windows from line `top` on, and how many
        do; one at least: those of the first and last bands meet padding."""
        f = self.frame
        own = f.part_lines.minimum((f.lines - 1) * f.stride_h + 1)
        before = (0 - top - own + 1).maximum(0).ceil_div(f.part_step)
        end = (f.height - top).maximum(0).ceil_div(f.part_step).minimum(f.lines_h)
        first = before.minimum(f.lines_h - 1)
        return first, (end - first).maximum(1)

    def _sorted_places(self, block: _Block) -> _Block:
        """The table by live taps: where each row's window begins, and its number in the result."""
        f, k = self.frame, self.kernel
        image_step, line_step, pixel_step = self._steps()
        list_h = self.table.words((f.block_images * f.lines * f.strip + TABLE_SLACK) * SORTED_WORDS)
        h = Axis(block.lines, block.top, f.stride_h, f.dilation_h, f.lines_h, f.height)
        w = Axis(block.columns, block.left, f.stride_w, f.dilation_w, f.lines_w, f.width)
        lists = list_h, list_h.words(list_words(f.lines_h))
        pieces = [Pieces(k, axis, room) for axis, room in zip((h, w), lists, strict=True)]
        block = replace(block, pieces=tuple(pieces))
        with self._each_part(block) as part, k.loop(0, block.images) as image:
            high, wide = part.high, part.wide
            with k.loop(0, high.outputs) as line, k.loop(0, wide.outputs) as column:
                number = (image.index * high.outputs + line.index) * wide.outputs + column.index
                y, x = high.first + line.index, wide.first + column.index
                place = y * f.stride_h * line_step + x * f.stride_w * pixel_step
                result = block.row + (image.index * f.out_height + y) * f.out_width + x
                entry = self.table.words((part.first + number) * SORTED_WORDS)
                k.store_int(image.index * image_step + place, entry)
                k.store_int(result, entry.words(1))
        for i in range(TABLE_SLACK):
            k.store_int(0, self.table.words((block.rows + i) * SORTED_WORDS))
        return block

    # -- products -----------------------------------------------------------------------------

    @contextmanager
    def _each_part(self, block: _Block) -> Iterator[_Part]:
        """The rows of a block by their taps: all at once, or, sorted, piece by piece."""
        f, k = self.frame, self.kernel
        if not block.pieces:
            assert block.taps is not None
            zero = k.int(0)
            high = Piece(zero, block.lines, *block.taps)
            wide = Piece(zero, block.columns, zero, f.lines_w)
            yield _Part(zero, block.images, high, wide)
            return
        lines, columns = block.pieces
        with lines.each() as high, columns.each() as wide:
            before = high.first * block.columns + high.outputs * wide.first
            yield _Part(block.images * before, block.images, high, wide)

    def _row_groups(self, part: _Part) -> Int:
        return part.rows.ceil_div(self.frame.tile_rows)

    def _segments(self, block: _Block) -> Int:
        """How many segments all row groups of the block pass for a panel."""
        k = self.kernel
        k.store_int(0, self.passed)
        with self._each_part(block) as part:
            self._pass(part)
        return k.load_int(self.passed)

    def _pass(self, part: _Part) -> None:
        k = self.kernel
        segments = self._row_groups(part) * part.segments
        k.store_int(k.load_int(self.passed) + segments, self.passed)

    def _panel(
        self, windows: Pointer, block: _Block, group: Int, panel: Int, segments: Int
    ) -> None:
        """All row groups of the block times one weight panel; `segments`: that they pass."""
        k = self.kernel
        k.store_int(0, self.passed)
        with self._each_part(block) as part:
            self._products(windows, block, part, group, panel, segments)
            self._pass(part)

    def _products(
        self, windows: Pointer, block: _Block, part: _Part, group: Int, panel: Int, segments: Int
    ) -> None:
        """The row groups of a part times one weight panel, for its taps."""
        f, k, sparse = self.frame, self.kernel, self.spec.sparse
        column = group * f.columns + panel * f.panel
        packed = (group * f.panels + panel) * f.panel
        tap = f.segment * f.panel
        line = tap * f.lines_w
        weights = f.weights.to(self.arithmetic.element) + packed * f.segment * self.taps
        groups, passed = RowGroups.of(part.rows, f.tile_rows), k.load_int(self.passed)
        prefetch = self._prefetch(segments)
        once = segments <= self.taps
        distance = k.select(once, prefetch.size.minimum(NEAR), prefetch.size)
        with k.loop(0, groups.count) as loop:
            offset, rows = groups.place(k, loop.index)
            number = part.first + offset
            at = k.int(0) if sparse else block.row + number
            set_extras(f, self.spec.extras, self.extras, at, column, packed)
            ahead, lines = prefetch.share(k, passed + loop.index * part.segments)
            operands = [
                windows + (part.high.tap * f.step_h + part.wide.tap * f.step_w),
                weights + (part.high.tap * line + part.wide.tap * tap),
                f.y + at * f.y_row + column,
                f.segment,
                f.y_row,
                rows,
                f.columns - panel * f.panel,
                f.bias + packed,
                weights + (distance + ahead),
                lines,
                self.extras,
                self.table.words(number * (SORTED_WORDS if sparse else 1)),
                part.high.taps,
                f.step_h,
                part.wide.taps,
                f.step_w,
                line,
                f.chain,
            ]
            k.call(pick_tile(f, rows), WINDOW_TYPE, operands)

    def _prefetch(self, segments: Int) -> Prefetch:
        """How row groups bring the next panel into L2, all of which pass so many segments: a share
        is that of a segment."""
        f, unroll = self.frame, self.arithmetic.unroll
        line, taps = self.kernel.line(self.arithmetic.element), self.taps
        lines = (f.panel * unroll * f.prefetch * taps).ceil_div(segments.maximum(1) * line)
        return Prefetch(lines, f.segment // unroll * lines * line, f.segment * f.panel * taps)


class _HalfWordEmitter(DirectEmitter):
    """The padded map holds numbers of 16 bits."""

    def _zero(self, out: Pointer, begin: Int, end: Int) -> None:
        store_zeros(self.kernel, out + begin, end - begin)


class _Bf16Emitter(_HalfWordEmitter):
    """The padded map holds bfloat16. Where segments are of odd length, a weight of 0 meets what
    follows them: the next pixel, or behind the last a zero."""

    def _end(self, place: Pointer) -> None:
        store_zeros(self.kernel, place, self.kernel.int(1))

    def _copy_numbers(self, count: Int, source: Pointer, out: Pointer) -> None:
        round_numbers(self.kernel, source, out, count)

    def _interleave(
        self, sources: Sequence[Pointer], out: Pointer, columns: Int, exist: Sequence[Any] = ()
    ) -> None:
        round_planes(self.kernel, sources, out, columns)


class _IntegerEmitter(_HalfWordEmitter):
    """The padded map holds 8-bit integers less their zero point, in 16 bits."""

    def _copy_numbers(self, count: Int, source: Pointer, out: Pointer) -> None:
        shift(self.kernel, source, out, count, self.spec.x, self.frame.zero_point)

    def _interleave(
        self, sources: Sequence[Pointer], out: Pointer, columns: Int, exist: Sequence[Any] = ()
    ) -> None:
        shift_planes(self.kernel, sources, out, columns, self.spec.x, self.frame.zero_point)


EMITTERS: dict[str, type[DirectEmitter]] = {
    COMPUTED: DirectEmitter,
    "bf16": _Bf16Emitter,
    "i16": _IntegerEmitter,
}
"""By what is multiplied."""
