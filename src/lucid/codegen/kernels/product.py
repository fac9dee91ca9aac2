"""The matrix product: 1x1 convolution, linear layers, and every other convolution over its taps.

    y[r, g*columns + c] = body(bias + sum over k of x[r, g, k] * weights[g, c, k])

One task is one block of rows by one chunk of a group's weight panels. Where there are many rows a
task has all panels, and its rows stay in L2; where the weights are the larger side the panels are
split, so that each is read from memory once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import ARITHMETIC, FLOATS, Arithmetic
from lucid.codegen.kernels.body import Extra, tensors
from lucid.codegen.kernels.byte_products import GROUP, store_peaks
from lucid.codegen.kernels.loaders import Loader
from lucid.codegen.kernels.microkernels import HEIGHTS, TILE_TYPE
from lucid.codegen.language.builder import Kernel
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
from lucid.codegen.language.values import F32, I32, I64, Int, Pointer, size_of
from lucid.codegen.target import Target

ROW_SLACK = 8
"""Elements between the rows a loader writes: room for its last store to run over, and rows of a
power of two elements fall into different cache sets."""
LINE_SLACK = 16
"""The same for rows of bfloat16: tiles of matrices read whole cache lines of each."""
NEAR = 8192
"""Floats ahead to prefetch where each panel is passed once: a whole panel ahead would leave L2
before it is used. One row times 9216 x 4096 weights moves 48 GB/s so, and 24 GB/s a panel ahead."""

ROW_LINES = 2
"""Cache lines of the next rows that a tile asks for in each round of steps, where the first panel
passes them: six rows of four floats a round are one and a half."""


def row_slack(numbers: str) -> int:
    """Elements between the rows that a loader writes for products of these numbers."""
    return LINE_SLACK if numbers == "bf16" else ROW_SLACK


def scratch_bytes(depth: int, rows: int, numbers: str) -> int:
    """Scratch for the rows that a loader writes, of so many elements."""
    return size_of(F32) * (depth + row_slack(numbers)) * rows


def byte_rows(target: Target) -> int:
    """Rows of the tiles of bytes."""
    return target.tile_rows(target.panel_vectors)


def peaks_bytes(depth: int, rows: int, target: Target) -> int:
    """Scratch for the peaks of a block of rows of bytes, of so many elements."""
    return size_of(I32) * -(-rows // byte_rows(target)) * (depth // GROUP)


@dataclass(frozen=True)
class Product(KernelSpec):
    """`loader`: what makes the rows of x, or None where they lie in memory, `x_row` numbers apart,
    whole elements.

    `extras`: as in the tile's body, tensors (as y) or channels (packed like a bias). `numbers`: as
    in the tile, of whose elements `depth` counts. `result`: the dtype of y.
    """

    family: ClassVar[str] = "product"
    loader: Loader | None = None
    extras: tuple[Extra, ...] = ()
    numbers: str = COMPUTED
    result: str = COMPUTED

    def arguments(self) -> tuple[Arg, ...]:
        kind = ARITHMETIC[self.numbers].rows
        rows = self.loader.arguments() if self.loader else buffers("x", dtype=kind) + ints("x_row")
        return (
            rows
            + panel_arguments(self.extras, self.numbers, self.result)
            + (buffers("limits", dtype="i32") if self.has_limits else ())
            + tile_arguments()
            + ints("y_row", "rows", "depth", "columns", "groups", "panel", "panels")
            + ints("blocks", "chunks", "block_stride", "chunk_stride", "prefetch")
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.blocks, given.chunks, given.groups)
        rows, numbers = given.rows, given.depth * ARITHMETIC[self.numbers].numbers_of_element
        x_row = getattr(given, "x_row", 0)
        loaded: dict[str, Extent] = {"x": ((rows, x_row), (given.groups * numbers, 1))}
        if self.loader is not None:
            loaded = self.loader.extents(given, rows, given.groups * given.depth)
        if self.has_limits:
            if given.depth % GROUP:
                raise ValueError(f"{given.depth} steps in groups of {GROUP}")
            panels = given.groups * given.panels
            loaded["limits"] = ((panels * (given.depth // GROUP), 1),)
        return loaded | product_extents(given, self.extras, rows, numbers)

    def replaceable(self) -> tuple[str, ...]:
        return tensors(self.extras)

    @property
    def has_limits(self) -> bool:
        """Whether its weights come with limits, which targets with `dot` do not read."""
        return self.numbers == "i8"

    def emit(self, target: Target) -> ir.Module:
        return _ProductEmitter(self, target).emit()


def tile_arguments() -> tuple[Arg, ...]:
    """The declared functions of a tile, and the rows of the tallest."""
    return codes(*HEIGHTS) + ints("tile_rows")


def require_tiles(given: Given) -> None:
    """Raises ValueError unless the tallest tile has as many rows as the call says."""
    if given.tallest.kernel.rows != given.tile_rows:
        raise ValueError(f"{given.tallest.kernel} has no {given.tile_rows} rows")


def panel_arguments(extras: Sequence[Extra], numbers: str, result: str) -> tuple[Arg, ...]:
    """The declared weights, bias, result and extra operands of a product by panels."""
    declared = buffers("weights", dtype=numbers) + buffers("bias", dtype=ARITHMETIC[numbers].sums)
    declared += buffers("y", dtype=result)
    for i, extra in enumerate(extras):
        declared += buffers(f"extra{i}", dtype=extra.dtype) + ints(f"extra{i}_row")
    return declared


def product_extents(
    given: Given, extras: Sequence[Extra], rows: int, depth: int
) -> dict[str, Extent]:
    """What a product by panels reaches in its weights and bias, its result of so many rows, and the
    extra operands; `depth`: numbers that a result is summed of."""
    require_tiles(given)
    packed = given.groups * given.panels * given.panel
    columns = min(given.columns, given.panels * given.panel)
    channels = ((given.groups, given.columns), (columns, 1))
    found: dict[str, Extent] = {"weights": ((packed * depth, 1),), "bias": ((packed, 1),)}
    found["y"] = ((rows, given.y_row), *channels)
    for i, extra in enumerate(extras):
        name = f"extra{i}"
        tensor = ((rows, getattr(given, f"{name}_row")), *channels)
        found[name] = tensor if extra.kind == "tensor" else ((packed, 1),)
    return found


class _ProductEmitter:
    def __init__(self, spec: Product, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.extras = self.kernel.stack(2 * (1 + len(spec.extras)), I64)
        self.arithmetic = ARITHMETIC[spec.numbers]
        self.slack = row_slack(spec.numbers)
        self.weights = self.frame.weights.to(self.arithmetic.element)
        self.checked = self.arithmetic.checked(target)
        self.asks = target.asks_to_write and spec.loader is None and spec.numbers == COMPUTED

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            block, group, chunk = task_place(f, task.index)
            start, stop = share(block, f.rows, f.blocks)
            x, x_row = self._rows(start, stop - start, group)
            if self.checked:
                self._peaks(x, x_row, stop - start)
            begin, end = share(chunk, f.panels, f.chunks)
            with k.loop(begin, end) as panel:
                fresh = panel.index.equals(begin)
                self._panel(x, x_row, start, stop - start, group, panel.index, fresh)
        return f.finish()

    def _rows(self, start: Int, count: Int, group: Int) -> tuple[Pointer, Int]:
        """The block's rows: where they lie, or in scratch, put there by the loader."""
        f = self.frame
        if self.spec.loader is None:
            numbers = self.arithmetic.numbers_of_element
            place = f.x + (start * f.x_row + group * f.depth * numbers)
            return place.to(self.arithmetic.element), f.x_row // numbers
        rows, step = f.scratch.to(self.arithmetic.element), f.depth + self.slack
        self.spec.loader.rows(f, start, count, group * f.depth, f.depth, rows, step)
        return rows, step

    def _peaks_place(self, rows: Int) -> Pointer:
        """Where the peaks of a block of so many rows begin: behind what a loader wrote."""
        own = rows * (self.frame.depth + self.slack) if self.spec.loader else 0
        return self.frame.scratch.to(I32) + own

    def _peaks(self, x: Pointer, x_row: Int, count: Int) -> None:
        """The peaks of all row groups of the block."""
        f, k = self.frame, self.kernel
        groups = RowGroups.of(count, f.tile_rows)
        places, depth = self._peaks_place(count), f.depth * self.arithmetic.numbers_of_element
        with k.loop(0, groups.count) as loop:
            offset, rows = groups.place(k, loop.index)
            number = [(rows - 1).minimum(r) for r in range(byte_rows(k.target))]
            group = [(x + (offset + n) * x_row).to(self.arithmetic.number) for n in number]
            store_peaks(k, group, depth, places + loop.index * (f.depth // GROUP))

    def _panel(
        self,
        x: Pointer,
        x_row: Int,
        start: Int,
        count: Int,
        group: Int,
        panel: Int,
        fresh: Any,
    ) -> None:
        """All row groups of the block times one weight panel; `fresh`: whether it is the first that
        passes them."""
        f, k = self.frame, self.kernel
        column = group * f.columns + panel * f.panel
        packed = (group * f.panels + panel) * f.panel
        weights = self.weights + packed * f.depth
        groups = RowGroups.of(count, f.tile_rows)
        prefetch = Prefetch.of(f, groups.count, f.depth, self.arithmetic)
        distance = k.select(groups.count.equals(1), prefetch.size.minimum(NEAR), prefetch.size)
        with k.loop(0, groups.count) as loop:
            offset, rows = groups.place(k, loop.index)
            row = start + offset
            set_extras(f, self.spec.extras, self.extras, row, column, packed)
            if self.checked:
                self._set_checks(loop.index, count, group * f.panels + panel)
            ahead, lines = prefetch.share(k, loop.index)
            following = weights + (distance + ahead)
            if self.asks:
                rows_next = k.both(fresh, f.prefetch.equals(0), x_row.equals(f.depth))
                following = k.choose(rows_next, x + (offset + rows) * x_row, following)
                lines = k.select(rows_next, ROW_LINES, lines)
            k.call(
                pick_tile(f, rows),
                TILE_TYPE,
                [
                    x + offset * x_row,
                    weights,
                    f.y + row * f.y_row + column,
                    f.depth,
                    x_row,
                    f.y_row,
                    rows,
                    f.columns - panel * f.panel,
                    f.bias + packed,
                    following,
                    lines,
                    self.extras,
                ],
            )

    def _set_checks(self, row_group: Int, count: Int, panel: Int) -> None:
        """What the tile compares: `Checks`, behind the extra operands."""
        f, k, words = self.frame, self.kernel, 2 * len(self.spec.extras)
        groups = f.depth // GROUP
        peaks = self._peaks_place(count) + row_group * groups
        k.store_pointer(peaks, self.extras.words(words))
        k.store_pointer(f.limits + panel * groups, self.extras.words(words + 1))


def set_extras(
    frame: Frame, extras: Sequence[Extra], room: Pointer, row: Int, column: Int, packed: Int
) -> None:
    """Address and row stride of each extra operand, for the tile to read."""
    f, k = frame, frame.kernel
    for i, extra in enumerate(extras):
        stride = getattr(f, f"extra{i}_row")
        at = packed if extra.kind == "channel" else row * stride + column
        k.store_pointer(getattr(f, f"extra{i}") + at, room.words(2 * i))
        k.store_int(stride, room.words(2 * i + 1))


def task_place(frame: Frame, task: Int) -> tuple[Int, Int, Int]:
    """Block, group and chunk of panels of a task; the strides say which of them runs outside."""
    f = frame
    block = task // f.block_stride % f.blocks
    part = task // f.chunk_stride % (f.groups * f.chunks)
    return block, part // f.chunks, part % f.chunks


@dataclass(frozen=True)
class RowGroups:
    """Rows in `count` groups of at most a tile's, whose heights differ by one at most, so that 49
    rows are four groups of 6 and five of 5, and no short tail is left.

    They are divided before the loops over them: of a tile of few steps, divisions would take a
    tenth of the time.
    """

    count: Int
    base: Int
    longer: Int

    @staticmethod
    def of(rows: Int, tile_rows: int | Int) -> RowGroups:
        """As few groups as tiles of so many rows allow."""
        count = rows.ceil_div(tile_rows)
        some = count.maximum(1)  # nothing divides by the groups of no rows
        return RowGroups(count, rows // some, rows % some)

    def place(self, k: Kernel, index: Int) -> tuple[Int, Int]:
        """Offset and height of a group."""
        height = self.base + k.select(index < self.longer, 1, 0)
        return index * self.base + index.minimum(self.longer), height


@dataclass(frozen=True)
class Prefetch:
    """How the groups of rows that are multiplied by a panel bring the next one into L2: each asks
    for `lines` cache lines a round of steps, `step` elements in all; together they ask for all of
    its `size` elements once."""

    lines: Int
    step: Int
    size: Int

    @staticmethod
    def of(frame: Frame, groups: Int, depth: Int, arithmetic: Arithmetic = FLOATS) -> Prefetch:
        """Of panels of `depth` elements of each column, by so many row groups, one at least."""
        f, unroll = frame, arithmetic.unroll
        line = f.kernel.line(arithmetic.element)
        lines = (f.panel * unroll * f.prefetch).ceil_div(groups.maximum(1) * line)
        return Prefetch(lines, depth // unroll * lines * line, depth * f.panel)

    def share(self, k: Kernel, index: Int) -> tuple[Int, Int]:
        """Where in the next panel a row group's share begins, and its lines a round."""
        ahead = index * self.step
        return ahead, k.select(ahead >= self.size, 0, self.lines)


def pick_tile(frame: Frame, rows: Int, kind: str = "") -> Pointer:
    """The tile function for a row group of this height; `kind`: how the arguments that name those
    of a kind begin."""
    k = frame.kernel
    tallest, lower, lowest = (getattr(frame, kind + height) for height in HEIGHTS)
    shorter = k.choose(rows.equals(frame.tile_rows - 1), lower, lowest)
    return k.choose(rows.equals(frame.tile_rows), tallest, shorter)
