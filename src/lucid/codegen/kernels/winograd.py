"""Winograd convolution, 3x3 with stride 1: transform, (m + 2)^2 products, transform back.

A task is one block of output tiles of one group by one chunk of weight panels. Everything between
the transforms stays in the thread's scratch: V, the transformed input, [point][tile][channel], and
M, one panel's products, [point][tile][column]. Blocks are sized so that both stay in L2
(`schedule.tile_block`), and the weights are read in the order they lie in: panel by panel, point by
point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar, TypeVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import FLOATS, Arithmetic
from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.microkernels import TILE_TYPE
from lucid.codegen.kernels.product import (
    Prefetch,
    RowGroups,
    pick_tile,
    require_tiles,
    task_place,
    tile_arguments,
)
from lucid.codegen.kernels.winograd_transforms import INPUT, OUTPUT
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.kernel import (
    MAP,
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    share,
    strides_of,
)
from lucid.codegen.language.values import F32, I64, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target


def scratch_bytes(m: int, tiles: int, channels: int, panel: int, vector: int) -> int:
    """Scratch a task needs: V, M and a pixel of zeros."""
    points = (m + 2) ** 2
    padded = -(-channels // vector) * vector
    return size_of(F32) * (points * (skewed(tiles * padded) + skewed(tiles * panel)) + padded)


Size = TypeVar("Size", int, Int)


def skewed(floats: Size) -> Size:
    """A stride one cache line off: the points of one tile would else fall into one cache set."""
    return floats + 16


@dataclass(frozen=True)
class Winograd(KernelSpec):
    """F(m x m, 3x3). `body` and `sums` (partial channel sums of the result, one row for each block
    of an image) are part of the output transform.

    `dilated`: pixels whose taps meet, one in `dilation_h` lines and `dilation_w` columns, make a
    phase, a smaller map under a plain window; `phase_tiles` tiles cover the largest of them.
    """

    family: ClassVar[str] = "winograd"
    m: int
    body: Body = PLAIN
    sums: bool = False
    dilated: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        extras = tuple(f"extra{i}" for i in range(len(self.body.extras)))
        operands = ("x", "weights", "bias", "y", *(["sums"] if self.sums else []), *extras)
        return (
            sum((buffers(name, dtype=self.dtype_of(name)) for name in operands), ())
            + tile_arguments()
            + ints("image", "line", "pixel", "height", "width", "pad_top", "pad_left")
            + sum(map(strides_of, ("y", *self.body.tensors())), ints("out_height", "out_width"))
            + ints("images", "groups", "depth", "columns", "panel", "panels")
            + ints("tiles_w", "tiles", "block_tiles", "image_blocks", "block_images")
            + ints("blocks", "chunks", "block_stride", "chunk_stride", "prefetch")
            + (ints("dilation_h", "dilation_w", "phase_tiles") if self.dilated else ())
        )

    def replaceable(self) -> tuple[str, ...]:
        return self.body.tensors()

    def dtype_of(self, operand: str) -> str:
        """The dtype of a buffer."""
        extras = {f"extra{i}": extra.dtype for i, extra in enumerate(self.body.extras)}
        return extras.get(operand, COMPUTED)

    def extents(self, given: Given) -> dict[str, Extent]:
        require_tiles(given)
        given.require_tasks(given.blocks, given.chunks, given.groups)
        images = given.images_of(given.image_blocks)
        self._require_tiles(given, images)
        packed = given.groups * given.panels * given.panel
        columns = min(given.columns, given.panels * given.panel)
        points = (self.m + 2) ** 2
        found: dict[str, Extent] = {
            "x": given.map("", images, (given.height, given.width), given.groups * given.depth),
            "weights": ((packed * points * given.depth, 1),),
            "bias": ((packed, 1),),
        }
        found |= {f"extra{i}": ((packed, 1),) for i in range(len(self.body.extras))}
        for name in ("y", *self.body.tensors()):
            image, line, pixel, _ = given.map(
                f"{name}_", images, (given.out_height, given.out_width), 1
            )
            found[name] = (image, line, pixel, (given.groups, given.columns), (columns, 1))
        if self.sums:
            parts = images * given.image_blocks * given.groups
            found["sums"] = ((parts, given.columns), (columns, 1))
        return found

    def _require_tiles(self, given: Given, images: int) -> None:
        """Raises ValueError unless the tiles cover the result, and a block has room for its own."""
        dilation = (given.dilation_h, given.dilation_w) if self.dilated else (1, 1)
        size = (given.out_height, given.out_width)
        phase = [-(-s // d) for s, d in zip(size, dilation, strict=True)]
        lines, columns = (-(-s // self.m) for s in phase)
        if (given.tiles_w, given.tiles) != (columns, lines * columns * prod(dilation)):
            raise ValueError(f"{given.tiles} tiles, {given.tiles_w} in a line, of {size} pixels")
        block = -(-given.tiles // given.image_blocks) * min(given.block_images, images)
        if given.block_tiles != block:
            raise ValueError(f"room for {given.block_tiles} of the {block} tiles of a block")
        if self.dilated and given.phase_tiles != lines * columns:
            raise ValueError(f"{given.phase_tiles} of {lines * columns} tiles of a phase")

    def emit(self, target: Target) -> ir.Module:
        return WinogradEmitter(self, target).emit()


@dataclass(frozen=True)
class Place:
    """Where a tile's output corner lies: its image, the first pixel of its phase, and the line and
    column that it has in its phase."""

    image: Int
    top: Int | int
    left: Int | int
    line: Int
    column: Int


@dataclass(frozen=True)
class _Map:
    """A map as it lies, and the steps from a line or a pixel of a phase to its next."""

    base: Pointer
    image: Int
    line: Int
    pixel: Int
    line_step: Int
    pixel_step: Int


class WinogradEmitter:
    """Names: a = m + 2, the side of an input tile; a point is one of the a * a products."""

    arithmetic: ClassVar[Arithmetic] = FLOATS

    def __init__(self, spec: Winograd, target: Target) -> None:
        self.spec = spec
        self.m, self.a = spec.m, spec.m + 2
        self.points = self.a * self.a
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.vector = target.vector
        self.bytes = self.kernel.aligned
        f, element = self.frame, self.arithmetic.element
        total = dtype(self.arithmetic.sums).element
        self.depth = f.depth.ceil_div(self.arithmetic.numbers_of_element)
        self.weights = f.weights.to(element)
        self.padded = self.depth.ceil_div(self.vector) * self.vector
        self.v_point = skewed(f.block_tiles * self.padded)
        self.m_point = skewed(f.block_tiles * f.panel)
        self.v = f.scratch.to(element)
        self.products = (self.v + self.v_point * self.points).to(total)
        self.rest = self.products + self.m_point * self.points
        self.zeros = self.rest.to(f.x.element)
        self.pixels = self.kernel.stack(self.points, I64)
        self.between = self.kernel.stack(self.points * self.vector, total)
        self.after = self.kernel.stack(self.m * self.a * self.vector, total)
        self.x = self._map("x", "")
        self.results = {name: self._map(name, f"{name}_") for name in ("y", *spec.body.tensors())}

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        self._clear()
        with k.loop(f.first, f.last) as task:
            block, group, chunk = task_place(f, task.index)
            first, last, piece = self._tiles(block)
            with k.loop(first, last) as tile:
                self._input(tile.index, tile.index - first, group)
            with k.loop(*share(chunk, f.panels, f.chunks)) as panel:
                self._panel((first, last), piece, group, panel.index)
        return f.finish()

    def _clear(self) -> None:
        """Set the pixel of zeros."""
        k, channels = self.kernel, self.padded * self.arithmetic.numbers_of_element
        with k.loop(0, channels, self.vector, never_empty=True) as c:
            k.store(k.zero(), self.zeros + c.index)

    def _panel(self, tiles: tuple[Int, Int], piece: Int, group: Int, panel: Int) -> None:
        """A panel's results for a block of tiles."""
        k, (first, last) = self.kernel, tiles
        self._multiply(last - first, group, panel, k.int(0), self.depth)
        with k.loop(first, last) as tile:
            self._output(tile.index, tile.index - first, piece, group, panel)

    def _tiles(self, block: Int) -> tuple[Int, Int, Int]:
        """First and last tile (counted over all images) of a block, and its number in its image.

        Either an image has several blocks, or a block has several whole images: what is summed
        together never depends on the batch.
        """
        f = self.frame
        image, piece = block // f.image_blocks * f.block_images, block % f.image_blocks
        first = image * f.tiles + piece * f.tiles // f.image_blocks
        last = image * f.tiles + (piece + 1) * f.tiles * f.block_images // f.image_blocks
        return first, last.minimum(f.images * f.tiles), piece

    def _place(self, tile: Int) -> Place:
        f = self.frame
        image, inside = tile // f.tiles, tile % f.tiles
        top: Int | int = 0
        left: Int | int = 0
        if self.spec.dilated:
            phase, inside = inside // f.phase_tiles, inside % f.phase_tiles
            top, left = phase // f.dilation_w, phase % f.dilation_w
        line, column = inside // f.tiles_w * self.m, inside % f.tiles_w * self.m
        return Place(image, top, left, line, column)

    def _map(self, name: str, prefix: str) -> _Map:
        """A map by name; its strides are arguments that begin by `prefix`."""
        f = self.frame
        image, line, pixel = (getattr(f, f"{prefix}{axis}") for axis in MAP)
        steps = (line, pixel)
        if self.spec.dilated:
            steps = (line * f.dilation_h, pixel * f.dilation_w)
        return _Map(getattr(f, name), image, line, pixel, *steps)

    def _phase(self, m: _Map, place: Place, channel: Int) -> Pointer:
        """The first pixel of a tile's phase in a map."""
        offset = place.image * m.image + channel
        if self.spec.dilated:
            offset = offset + m.line * place.top + m.pixel * place.left
        return m.base + offset

    def _phase_size(self, place: Place, height: Int, width: Int) -> tuple[Int, Int]:
        """How many lines and columns of a map belong to a tile's phase."""
        if not self.spec.dilated:
            return height, width
        f = self.frame
        return (
            (height - place.top).ceil_div(f.dilation_h),
            (width - place.left).ceil_div(f.dilation_w),
        )

    # -- input ------------------------------------------------------------------------------

    def _input(self, tile: Int, slot: Int, group: Int) -> None:
        """V[:, slot, :] = B^T d B for one tile's channels."""
        f, place = self.frame, self._place(tile)
        phase = self._phase(self.x, place, group * f.depth)
        self._transform(place, phase, self.v + slot * self.padded, f.depth)

    def _transform(
        self, place: Place, phase: Pointer, out: Pointer, channels: Int, anywhere: bool = False
    ) -> None:
        """B^T d B for so many channels of one tile, from the first pixel of its phase. `anywhere`:
        `out` may be unaligned, and other channels may lie behind these."""
        f, k = self.frame, self.kernel
        height, width = self._phase_size(place, f.height, f.width)
        top, left = place.line - f.pad_top, place.column - f.pad_left
        corner = phase + (top * self.x.line_step + left * self.x.pixel_step)

        def inside() -> None:
            lines = [corner + self.x.line_step * i for i in range(self.a)]
            self._both_ways(lambda i, j: lines[i] + self.x.pixel_step * j, out, channels, anywhere)

        def across() -> None:
            self._find_pixels(corner, (0 - top, height - top), (0 - left, width - left))
            self._both_ways(
                lambda i, j: k.load_pointer(self._pixel(i, j), phase.element),
                out,
                channels,
                anywhere,
            )

        whole = k.both(top >= 0, left >= 0, top + self.a <= height, left + self.a <= width)
        k.either(whole, inside, across)

    def _both_ways(
        self, pixel: Callable[[int, Int], Pointer], out: Pointer, channels: Int, anywhere: bool
    ) -> None:
        """`_transform` of a tile whose pixels lie there.

        The passes over columns and lines are loops: LLVM would keep the values between them in
        registers, of which there are too few, and spill them beside what is stored here anyway.
        """
        k = self.kernel

        def transform(c: Int, mask: Any) -> None:
            with k.loop(0, self.a, never_empty=True) as column:
                d = [k.load(pixel(i, column.index) + c, mask=mask) for i in range(self.a)]
                for i, value in enumerate(INPUT[self.m](k, d)):
                    self._keep(self.between, column.index + i * self.a, value)
            with k.loop(0, self.a, never_empty=True) as line:
                d = [self._kept(self.between, line.index * self.a + j) for j in range(self.a)]
                row = out + self.v_point * self.a * line.index
                for j, value in enumerate(INPUT[self.m](k, d)):
                    place = self._point(row + self.v_point * j, c)
                    self._store_point(value, place, mask, anywhere)

        k.each_vector(channels, transform)

    def _point(self, row: Pointer, channel: Int) -> Pointer:
        """Where a channel lies in a row of V."""
        return row + channel

    def _store_point(self, value: Vector, place: Pointer, mask: Any, anywhere: bool) -> None:
        """Write a vector of V; `anywhere`: as in `_transform`."""
        if anywhere:
            self.kernel.store(value, place, mask)
        else:
            self.kernel.store(value, place, align=self.bytes)

    def _find_pixels(
        self, corner: Pointer, lines: tuple[Int, Int], columns: tuple[Int, Int]
    ) -> None:
        """Write down where the pixels are of a tile that reaches over the border of its phase, of
        which these lines and columns exist: zeros stand for the others."""
        k = self.kernel
        exist = [k.both(columns[0] <= j, columns[1] > j) for j in range(self.a)]
        with k.loop(0, self.a, never_empty=True) as i:
            line = corner + self.x.line_step * i.index
            below = k.both(lines[0] <= i.index, lines[1] > i.index)
            for j in range(self.a):
                here = k.both(exist[j], below)
                pixel = k.choose(here, line + self.x.pixel_step * j, self.zeros)
                k.store_pointer(pixel, self._pixel(i.index, j))

    def _pixel(self, i: int | Int, j: int | Int) -> Pointer:
        """Where `_find_pixels` writes down a pixel's place."""
        return self.pixels.words(j + i * self.a)

    def _keep(self, room: Pointer, slot: int | Int, value: Vector) -> None:
        self.kernel.store(value, room + slot * self.vector, align=self.bytes)

    def _kept(self, room: Pointer, slot: int | Int) -> Vector:
        return self.kernel.load(room + slot * self.vector, align=self.bytes)

    # -- products ---------------------------------------------------------------------------

    def _multiply(self, count: Int, group: Int, panel: Int, begin: Int, depth: Int) -> None:
        """M[point] = V[point] times the panel's weights of that point, over `depth` elements from
        `begin` on."""
        f, k = self.frame, self.kernel
        groups = RowGroups.of(count, f.tile_rows)
        prefetch = Prefetch.of(f, groups.count, depth, self.arithmetic)
        size = self.depth * f.panel
        packed = self.weights + (group * f.panels + panel) * self.points * size + begin * f.panel
        with k.loop(0, self.points) as point:
            weights = packed + point.index * size
            v = self.v + point.index * self.v_point + begin
            products = self.products + point.index * self.m_point
            with k.loop(0, groups.count) as loop:
                offset, rows = groups.place(k, loop.index)
                ahead, lines = prefetch.share(k, loop.index)
                arguments: list[Any] = [
                    v + offset * self.padded,
                    weights,
                    products + offset * f.panel,
                    depth,
                    self.padded,
                    f.panel,
                    rows,
                    f.panel,
                    f.bias,
                    weights + size + ahead,
                    lines,
                    f.scratch,
                ]
                k.call(pick_tile(f, rows), TILE_TYPE, arguments)

    # -- output -----------------------------------------------------------------------------

    def _output(self, tile: Int, slot: Int, piece: Int, group: Int, panel: Int) -> None:
        """y = body(A^T M A + bias) for one tile and one panel of channels."""
        f, k = self.frame, self.kernel
        place = self._place(tile)
        height, width = self._phase_size(place, f.out_height, f.out_width)
        lines, columns = (height - place.line).minimum(self.m), width - place.column
        corners = {
            name: self._phase(m, place, group * f.columns)
            + (place.line * m.line_step + place.column * m.pixel_step)
            for name, m in self.results.items()
        }
        if k.target.asks_to_write:
            self._prefetch(corners["y"] + panel * f.panel, lines)
        first = None
        if self.spec.sums:
            first = (tile % f.tiles).equals(piece * f.tiles // f.image_blocks)
        with k.loop(0, f.panel, self.vector) as v:
            channel = panel * f.panel + v.index
            left = f.columns - channel
            self._columns(self.products + (slot * f.panel + v.index))

            def store(mask: Any, channel: Int = channel) -> None:
                for total in self._lines((lines, columns), corners, group, channel, mask):
                    self._add_sums(total, place.image, piece, group, channel, first, mask)

            some = k.first_lanes(left)
            if k.target.masked:
                store(some)
            else:
                k.either(left >= self.vector, lambda: store(None), lambda: store(some))

    def _prefetch(self, corner: Pointer, lines: Int) -> None:
        """Ask for what a panel writes of these lines of a tile, as what will be written."""
        k, y = self.kernel, self.results["y"]
        with k.loop(0, lines, never_empty=True) as i:
            line = corner + y.line_step * i.index
            pixels = [line + y.pixel_step * j for j in range(self.m)]
            k.prefetch_lines(pixels, self.frame.panel, write=True)

    def _columns(self, products: Pointer) -> None:
        """A^T M for one vector of channels, column by column."""
        k = self.kernel
        with k.loop(0, self.a, never_empty=True) as j:
            at = products + self.m_point * j.index
            column = [
                k.load(at + self.m_point * (i * self.a), align=self.bytes) for i in range(self.a)
            ]
            for i, value in enumerate(OUTPUT[self.m](k, column)):
                self._keep(self.after, j.index + i * self.a, value)

    def _lines(
        self,
        size: tuple[Int, Int],
        corners: dict[str, Pointer],
        group: Int,
        channel: Int,
        mask: Any,
    ) -> list[Vector]:
        """(A^T M) A line by line, with bias, body and store, of a tile of which so many lines and
        columns exist; the sum of what was stored, pixel by pixel, where that is wanted."""
        k, bias = self.kernel, self._bias(group, channel)
        with k.loop(0, size[0], carry=self._no_sums()) as line:
            row = [self._kept(self.after, line.index * self.a + j) for j in range(self.a)]
            total = line.carried
            for j, value in enumerate(OUTPUT[self.m](k, row)):

                def stored(j: int, value: Vector, total: list[Vector]) -> list[Vector]:
                    places = self._places(corners, line.index, j)
                    result = self._finish(value, places, group, channel, mask)
                    return [before + result for before in total]

                total = k.merge(
                    size[1] > j, partial(stored, j, value + bias, total), partial(list, total)
                )
            line.carry(total)
        return line.results

    def _no_sums(self) -> list[Vector]:
        return [self.kernel.zero()] if self.spec.sums else []

    def _bias(self, group: Int, channel: Int) -> Vector:
        f, k = self.frame, self.kernel
        return k.load(f.bias + (group * f.panels * f.panel + channel), align=self.bytes)

    def _places(
        self, corners: dict[str, Pointer], i: int | Int, j: int | Int
    ) -> dict[str, Pointer]:
        """A pixel of a tile in the result and in what is shaped like it."""
        maps = self.results
        return {
            n: at + (maps[n].line_step * i + maps[n].pixel_step * j) for n, at in corners.items()
        }

    def _finish(
        self, value: Vector, places: dict[str, Pointer], group: Int, channel: Int, mask: Any
    ) -> Vector:
        """Body and store of one pixel."""
        f, k, body = self.frame, self.kernel, self.spec.body
        packed = group * f.panels * f.panel + channel
        extras = []
        for e, extra in enumerate(body.extras):
            name = f"extra{e}"
            by_channel = extra.kind == "channel"
            at = getattr(f, name) + packed if by_channel else places[name] + channel
            extras.append(k.load(at, mask=mask))
        result = body.emit(k, value, extras)
        k.store(result, places["y"] + channel, mask)
        return result

    def _add_sums(
        self, total: Vector, image: Int, piece: Int, group: Int, channel: Int, first: Any, mask: Any
    ) -> None:
        """Add to the partial sums of this block; its first tile starts them."""
        f, k = self.frame, self.kernel
        row = (image * f.image_blocks + piece) * f.groups + group
        at = f.sums + (row * f.columns + channel)
        before = k.load(at, mask=mask)
        k.store(k.pick(first, k.zero(), before) + total, at, mask)
