"""Winograd convolution, 3x3 with stride 1: transform, (m + 2)^2 products, transform back.

A task is one block of output tiles of one group by one chunk of weight panels. Everything between
the transforms stays in the thread's scratch: V, the transformed input, [point][tile][channel], and
M, one panel's products, [point][tile][column]. Blocks are sized so that both stay in L2
(`schedule.TILE_BLOCK`), and the weights are read in the order they lie in: panel by panel, point by
point.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, TypeVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import FLOATS, Arithmetic
from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.microkernels import TILE_TYPE
from lucid.codegen.kernels.product import (
    pick_tile,
    prefetch_share,
    require_tiles,
    row_group,
    task_place,
    tile_arguments,
)
from lucid.codegen.kernels.winograd_transforms import INPUT, OUTPUT
from lucid.codegen.language.dtypes import COMPUTED
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
from lucid.codegen.language.values import F32, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target


def scratch_bytes(m: int, tiles: int, channels: int, panel: int, vector: int) -> int:
    """Scratch a task needs: V, M and one padded input patch."""
    points = (m + 2) ** 2
    padded = -(-channels // vector) * vector
    return size_of(F32) * points * (skewed(tiles * padded) + skewed(tiles * panel) + padded)


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
        self.depth = f.depth.ceil_div(self.arithmetic.numbers_of_element)
        self.weights = f.weights.to(element)
        self.padded = self.depth.ceil_div(self.vector) * self.vector
        self.v_point = skewed(f.block_tiles * self.padded)
        self.m_point = skewed(f.block_tiles * f.panel)
        self.v = f.scratch.to(element)
        self.products = self.v + self.v_point * self.points
        self.patch = (self.products + self.m_point * self.points).to(f.x.element)
        self.patch_pixel = self.padded * self.arithmetic.numbers_of_element
        self.between = self.kernel.stack(self.points * self.vector, element)
        self.after = self.kernel.stack(self.m * self.a * self.vector, element)
        self.x = self._map("x", "")
        self.results = {name: self._map(name, f"{name}_") for name in ("y", *spec.body.tensors())}

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            block, group, chunk = task_place(f, task.index)
            first, last, piece = self._tiles(block)
            with k.loop(first, last) as tile:
                self._input(tile.index, tile.index - first, group)
            with k.loop(*share(chunk, f.panels, f.chunks)) as panel:
                self._panel((first, last), piece, group, panel.index)
        return f.finish()

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
        k = self.kernel
        rows, pixel_step = self._rows(place, phase, channels)

        def transform(c: Int, mask: Any) -> None:
            for j in range(self.a):
                d = [k.load(row + (pixel_step * j + c), mask=mask) for row in rows]
                for i, value in enumerate(INPUT[self.m](k, d)):
                    self._keep(self.between, i * self.a + j, value)
            for i in range(self.a):
                d = [self._kept(self.between, i * self.a + j) for j in range(self.a)]
                for j, value in enumerate(INPUT[self.m](k, d)):
                    at = out + (self.v_point * (i * self.a + j) + c)
                    if anywhere:
                        k.store(value, at, mask)
                    else:
                        k.store(value, at, align=self.bytes)

        k.each_vector(channels, transform)

    def _rows(self, place: Place, phase: Pointer, channels: Int) -> tuple[list[Pointer], Int]:
        """The lines of a tile's input, and the step from one of its pixels to the next: in the map,
        or in a copy with a border around it."""
        f, k = self.frame, self.kernel
        height, width = self._phase_size(place, f.height, f.width)
        top, left = place.line - f.pad_top, place.column - f.pad_left
        interior = k.both(top >= 0, left >= 0, top + self.a <= height, left + self.a <= width)
        interior = k.both(interior, self.reads_in_place(channels))
        with k.when(k.builder.not_(interior)):
            self._fill_patch(phase, top, left, height, width, channels)
        corner = phase + (top * self.x.line_step + left * self.x.pixel_step)
        source = k.choose(interior, corner, self.patch)
        line_step = k.select(interior, self.x.line_step, self.patch_pixel * self.a)
        pixel_step = k.select(interior, self.x.pixel_step, self.patch_pixel)
        return [source + line_step * i for i in range(self.a)], pixel_step

    def reads_in_place(self, channels: Int) -> Any:
        """Whether so many channels can be read where they are, inside the map."""
        return self.kernel.int(0).equals(0)

    def _fill_patch(
        self, phase: Pointer, top: Int, left: Int, height: Int, width: Int, channels: Int
    ) -> None:
        """A tile that reaches over the border of its phase, copied with nothing around it."""
        k = self.kernel
        with k.loop(0, self.a) as i, k.loop(0, self.a) as j:
            y, x = top + i.index, left + j.index
            inside = k.both(y >= 0, y < height, x >= 0, x < width)
            source = phase + (y * self.x.line_step + x * self.x.pixel_step)
            out = self.patch + (i.index * self.a + j.index) * self.patch_pixel
            k.either(
                inside,
                lambda: self.copy_pixel(source, out, channels),
                lambda: self.blank_pixel(out, channels),
            )

    def copy_pixel(self, source: Pointer, out: Pointer, channels: Int) -> None:
        k = self.kernel
        k.each_vector(channels, lambda c, m: k.store(k.load(source + c, mask=m), out + c, m))

    def blank_pixel(self, out: Pointer, channels: Int) -> None:
        k = self.kernel
        k.each_vector(channels, lambda c, m: k.store(k.zero(), out + c, m))

    def _keep(self, room: Pointer, slot: int, value: Vector) -> None:
        self.kernel.store(value, room + slot * self.vector, align=self.bytes)

    def _kept(self, room: Pointer, slot: int) -> Vector:
        return self.kernel.load(room + slot * self.vector, align=self.bytes)

    # -- products ---------------------------------------------------------------------------

    def _multiply(self, count: Int, group: Int, panel: Int, begin: Int, depth: Int) -> None:
        """M[point] = V[point] times the panel's weights of that point, over `depth` elements from
        `begin` on."""
        f, k = self.frame, self.kernel
        groups = count.ceil_div(f.tile_rows)
        size = self.depth * f.panel
        packed = self.weights + (group * f.panels + panel) * self.points * size + begin * f.panel
        with k.loop(0, self.points) as point:
            weights = packed + point.index * size
            v = self.v + point.index * self.v_point + begin
            products = self.products + point.index * self.m_point
            with k.loop(0, groups) as loop:
                offset, rows = row_group(k, loop.index, count, groups)
                ahead, lines = prefetch_share(f, loop.index, groups, depth, self.arithmetic)
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
        height, width = height - place.line, width - place.column
        inner = k.both(height >= self.m, width >= self.m)
        corners = {
            name: self._phase(m, place, group * f.columns)
            + (place.line * m.line_step + place.column * m.pixel_step)
            for name, m in self.results.items()
        }
        with k.loop(0, f.panel, self.vector) as v:
            channel = panel * f.panel + v.index
            left = f.columns - channel
            values = self._inverse(self.products + (slot * f.panel + v.index))
            first = (tile % f.tiles).equals(piece * f.tiles // f.image_blocks)

            def finish(full: bool) -> None:
                masks = [
                    None if full else self._mask(left, height, width, i, j)
                    for i in range(self.m)
                    for j in range(self.m)
                ]
                total = self._store(values, masks, corners, group, channel)
                if self.spec.sums:
                    mask = None if full else k.first_lanes(left)
                    self._add_sums(total, place.image, piece, group, channel, first, mask)

            whole = k.both(inner, left >= self.vector)
            k.either(whole, lambda: finish(True), lambda: finish(False))

    def _inverse(self, products: Pointer) -> list[Vector]:
        """A^T M A for one vector of channels: m * m vectors."""
        k = self.kernel
        for j in range(self.a):
            column = [
                k.load(products + self.m_point * (i * self.a + j), align=self.bytes)
                for i in range(self.a)
            ]
            for i, value in enumerate(OUTPUT[self.m](k, column)):
                self._keep(self.after, i * self.a + j, value)
        values = []
        for i in range(self.m):
            row = [self._kept(self.after, i * self.a + j) for j in range(self.a)]
            values += OUTPUT[self.m](k, row)
        return values

    def _mask(self, channels: Int, height: Int, width: Int, i: int, j: int) -> Any:
        """Which lanes of output (i, j) exist."""
        k = self.kernel
        exists = k.both(height > i, width > j)
        return k.first_lanes(k.select(exists, channels, 0))

    def _store(
        self,
        values: list[Vector],
        masks: list[Any],
        corners: dict[str, Pointer],
        group: Int,
        channel: Int,
    ) -> Vector:
        """Bias, body and store; gives the sum of what was stored, output by output."""
        f, k, body = self.frame, self.kernel, self.spec.body
        packed = group * f.panels * f.panel + channel
        bias = k.load(f.bias + packed, align=self.bytes)
        total = k.zero()

        def place(name: str, i: int, j: int) -> Pointer:
            m = self.results[name]
            return corners[name] + (m.line_step * i + m.pixel_step * j + channel)

        for position, (value, mask) in enumerate(zip(values, masks, strict=True)):
            i, j = divmod(position, self.m)
            extras = []
            for e, extra in enumerate(body.extras):
                name = f"extra{e}"
                at = getattr(f, name) + packed if extra.kind == "channel" else place(name, i, j)
                extras.append(k.load(at, mask=mask))
            result = body.emit(k, value + bias, extras)
            k.store(result, place("y", i, j), mask)
            total = total + (result if mask is None else k.pick(mask, result, k.zero()))
        return total

    def _add_sums(
        self, total: Vector, image: Int, piece: Int, group: Int, channel: Int, first: Any, mask: Any
    ) -> None:
        """Add to the partial sums of this block; its first tile starts them."""
        f, k = self.frame, self.kernel
        row = (image * f.image_blocks + piece) * f.groups + group
        at = f.sums + (row * f.columns + channel)
        before = k.load(at, mask=mask)
        k.store(k.pick(first, k.zero(), before) + total, at, mask)
