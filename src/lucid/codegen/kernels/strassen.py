"""Strassen's product: seven products of half the size in place of eight, one level deep.

    V. Strassen, "Gaussian elimination is not optimal", Numerische Mathematik 13, 1969

Two rows of an image make a *pair*, and the channels of a row and the columns of a result two
halves each, so that a pair of rows by the weights is a product of matrices of 2 by 2:

    [a b]   [e f]   [m1 + m4 - m5 + m7        m3 + m5     ]
    [c d] * [g h] = [     m2 + m4        m1 - m2 + m3 + m6]

`StrassenRows` computes the seven left factors of every pair, V, [pair][factor][channel], which all
panels read; those of neighbouring pairs lie together, in one thread's cache. `Strassen` sums up the
right factors of a panel of each half of the columns while it multiplies the first rows by them, so
that weights take no more memory than those of a plain product.

Pairs are of one image, so that a batch changes no bit of an image's result. As with Winograd's,
what is infinite or NaN in one row may make NaNs of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.microkernels import HEIGHTS, TILE_TYPE, panel_vectors
from lucid.codegen.kernels.product import (
    Prefetch,
    RowGroups,
    panel_arguments,
    pick_tile,
    require_tiles,
)
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
from lucid.codegen.language.values import F32, I64, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target
from lucid.ir.ops.base import Array

Terms = tuple[tuple[int, int], ...]
"""A sum of quarters of a matrix, each with its sign. Quarters go by row of the matrix of 2 by 2."""

LEFT: tuple[Terms, ...] = (
    ((0, 1), (3, 1)),
    ((2, 1), (3, 1)),
    ((0, 1),),
    ((3, 1),),
    ((0, 1), (1, 1)),
    ((2, 1), (0, -1)),
    ((1, 1), (3, -1)),
)
"""The left factors, in quarters of the rows: of a pair's first row and of its second."""
RIGHT: tuple[Terms, ...] = (
    ((0, 1), (3, 1)),
    ((0, 1),),
    ((1, 1), (3, -1)),
    ((2, 1), (0, -1)),
    ((3, 1),),
    ((0, 1), (1, 1)),
    ((2, 1), (3, 1)),
)
"""The right factors, in quarters of the weights: of the first half of the channels to the first
half of the columns and to the second, then of the second half of the channels."""
RESULT: tuple[Terms, ...] = (
    ((0, 1), (3, 1), (4, -1), (6, 1)),
    ((2, 1), (4, 1)),
    ((1, 1), (3, 1)),
    ((0, 1), (1, -1), (2, 1), (5, 1)),
)
"""The quarters of the result, in products."""
FACTORS = len(LEFT)
KINDS = ("", "plus_", "minus_")
"""The tiles of a product: over a panel as it lies, and of the two that sum it up."""
SUMS = tuple(terms for terms in RIGHT if len(terms) > 1)
"""The right factors that are sums of quarters."""

SUMS_SHARE = 0.5
"""Share of L2 that the sums of a panel may take before it is made narrower: 1024 to 1536 channels
at 10x10 take 1.42 ms on two threads with four vectors and 1.34 with two, 1536 to 2048 2.67 and
2.59 (a Zen 4 with 1 MB, where sums take 0.6 and 0.9 of that, or half as much; other processors
were not measured)."""
NARROW = 2
"""Vectors of a panel made narrower: with one a tile waits for its own sums."""


def factor_vectors(depth: int, columns: int, target: Target) -> int:
    """Vectors of a panel of `columns`, a half of all, over `depth` channels, a half of all."""
    vectors = panel_vectors(columns, target, even=True)
    sums = size_of(F32) * len(SUMS) * depth * vectors * target.vector
    return vectors if sums <= SUMS_SHARE * target.l2 else min(vectors, NARROW)


def scratch_bytes(depth: int, tile_rows: int, panel: int) -> int:
    """Scratch of a task: the right factors of `depth` channels that are sums, and all products of a
    row group."""
    return size_of(F32) * panel * (len(SUMS) * depth + FACTORS * tile_rows)


N = TypeVar("N", Vector, Array)


def combined(terms: Terms, quarter: Callable[[int], N]) -> N:
    """A sum of quarters, from the left; the first one's sign is always plus."""
    (first, _), *rest = terms
    total = quarter(first)
    for number, sign in rest:
        total = total + quarter(number) if sign > 0 else total - quarter(number)
    return total


@dataclass(frozen=True)
class StrassenRows(KernelSpec):
    """The left factors of `images` of `rows` rows each, x_row numbers apart, 2 * `depth` channels
    wide. One task is an even share of all pairs; an image's last row may be paired with zeros."""

    family: ClassVar[str] = "strassen_rows"
    streams: ClassVar[bool] = True

    def arguments(self) -> tuple[Arg, ...]:
        return buffers("x", "v") + ints("x_row", "images", "rows", "pairs", "depth", "blocks")

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.blocks)
        require_pairs(given)
        rows = ((given.images, given.rows * given.x_row), (given.rows, given.x_row))
        factors = FACTORS * given.images * given.pairs * given.depth
        return {"x": (*rows, (2 * given.depth, 1)), "v": ((factors, 1),)}

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k, pairs = f.kernel, f.images * f.pairs
        with k.loop(f.first, f.last) as task, k.loop(*share(task.index, pairs, f.blocks)) as pair:
            image, number = pair.index // f.pairs, pair.index % f.pairs
            x = f.x + (image * f.rows + number * 2) * f.x_row
            out = f.v + pair.index * (f.depth * FACTORS)
            k.either(
                number * 2 + 1 < f.rows,
                lambda: self._pair(f, x, out, whole=True),
                lambda: self._pair(f, x, out, whole=False),
            )
        return f.finish()

    def _pair(self, f: Frame, x: Pointer, out: Pointer, whole: bool) -> None:
        k = f.kernel

        def factors(c: Int, mask: Any) -> None:
            first = [k.load(x + (f.depth * half + c), mask=mask) for half in (0, 1)]
            second = [
                k.load(x + (f.x_row + f.depth * half + c), mask=mask) if whole else k.zero()
                for half in (0, 1)
            ]
            quarters = [*first, *second]
            for number, terms in enumerate(LEFT):
                at = out + (f.depth * number + c)
                k.store(combined(terms, quarters.__getitem__), at, mask)

        k.each_vector(f.depth, factors)


def require_pairs(given: Given) -> None:
    """Raises ValueError unless the pairs of an image are its rows."""
    if given.pairs != -(-given.rows // 2):
        raise ValueError(f"{given.pairs} pairs of {given.rows} rows")


@dataclass(frozen=True)
class Strassen(KernelSpec):
    """The products of the left factors `v`, and `body` of their sums. `weights`, `bias` and extra
    channels are packed as for two groups, the halves of the columns; `columns` and `panels` are
    those of a half. A task is a block of all pairs by a chunk of the panels."""

    family: ClassVar[str] = "strassen"
    body: Body = PLAIN

    def arguments(self) -> tuple[Arg, ...]:
        return (
            buffers("v")
            + panel_arguments(self.body.extras, COMPUTED, COMPUTED)
            + codes(*(kind + height for kind in KINDS for height in HEIGHTS))
            + ints("tile_rows")
            + ints("y_row", "images", "rows", "pairs", "depth", "columns")
            + ints("panel", "panels", "blocks", "chunks", "prefetch")
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.blocks, given.chunks)
        require_pairs(given)
        require_tiles(given)
        count = given.images * given.pairs
        packed = 2 * given.panels * given.panel
        columns = min(given.columns, given.panels * given.panel)
        found: dict[str, Extent] = {
            "v": ((FACTORS * count * given.depth, 1),),
            "weights": ((packed * 2 * given.depth, 1),),
            "bias": ((packed, 1),),
        }

        def rows(step: int) -> Extent:
            halves = ((2, given.columns), (columns, 1))
            return ((given.images, given.rows * step), (given.rows, step), *halves)

        found["y"] = rows(given.y_row)
        for i, extra in enumerate(self.body.extras):
            tensor = extra.kind == "tensor"
            step = getattr(given, f"extra{i}_row")
            found[f"extra{i}"] = rows(step) if tensor else ((packed, 1),)
        return found

    def emit(self, target: Target) -> ir.Module:
        return _StrassenEmitter(self, target).emit()


class _StrassenEmitter:
    def __init__(self, spec: Strassen, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel: Kernel = self.frame.kernel
        f = self.frame
        self.quarter = f.depth * f.panel
        """Numbers of a panel that belong to a half of the channels."""
        self.sums = f.scratch.to(F32)
        self.products = self.sums + self.quarter * len(SUMS)
        self.product = f.tile_rows * f.panel
        self.extras = self.kernel.stack(2, I64)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            block, chunk = task.index // f.chunks, task.index % f.chunks
            pairs = share(block, f.images * f.pairs, f.blocks)
            with k.loop(*share(chunk, f.panels, f.chunks)) as panel:
                self._multiply(pairs, panel.index)
        return f.finish()

    # -- products ---------------------------------------------------------------------------

    def _multiply(self, pairs: tuple[Int, Int], panel: Int) -> None:
        """For each row group its seven products, then its results."""
        f, k = self.frame, self.kernel
        groups = RowGroups.of(pairs[1] - pairs[0], f.tile_rows)
        prefetch = Prefetch.of(f, groups.count, f.depth)
        with k.loop(0, groups.count) as loop:
            offset, count = groups.place(k, loop.index)
            first, fresh = pairs[0] + offset, loop.index.equals(0)
            self._prefetch_rows(first, count, panel)
            ahead = prefetch.share(k, loop.index)
            for number in range(FACTORS):
                tile, weights = self._right(number, count, panel, fresh)
                self._tile(tile, number, (first, count), weights, panel, ahead)
            with k.loop(0, count) as slot:
                self._finish(first + slot.index, slot.index, panel)

    def _right(self, number: int, count: Int, panel: Int, fresh: Any) -> tuple[Pointer, Pointer]:
        """The tile of a product and its right factor. A factor that is a sum is made by the first
        row group."""
        f, k, terms = self.frame, self.kernel, RIGHT[number]
        tile, quarters = pick_tile(f, count), [self._quarter(q, panel) for q, _ in terms]
        if len(terms) == 1:
            return tile, quarters[0]
        place = self.sums + self.quarter * SUMS.index(terms)
        k.store_pointer(quarters[1], self.extras.words(0))
        k.store_pointer(place, self.extras.words(1))
        summing = pick_tile(f, count, "plus_" if terms[1][1] > 0 else "minus_")
        return k.choose(fresh, summing, tile), k.choose(fresh, quarters[0], place)

    def _tile(
        self,
        tile: Pointer,
        number: int,
        group: tuple[Int, Int],
        weights: Pointer,
        panel: Int,
        ahead: tuple[Int, Int],
    ) -> None:
        """A row group's part of a product; `group`: its first pair, and how many it has. With the
        first four products, the quarters of the next panels are brought into L2."""
        f, k, (first, count), (place, lines) = self.frame, self.kernel, group, ahead
        arguments = [
            f.v + (first * FACTORS + number) * f.depth,
            weights,
            self.products + self.product * number,
            f.depth,
            f.depth * FACTORS,
            f.panel,
            count,
            f.panel,
            f.bias,
            self._quarter(number % 4, panel + 1) + place,
            lines if number < 4 else k.int(0),
            self.extras,
        ]
        k.call(tile, TILE_TYPE, arguments)

    def _quarter(self, number: int, panel: Int) -> Pointer:
        """A half of the channels to a panel of a half of the columns."""
        f = self.frame
        channels, columns = divmod(number, 2)
        packed = (f.panels * columns + panel) * 2 + channels
        place: Pointer = f.weights + packed * self.quarter
        return place

    # -- results ----------------------------------------------------------------------------

    def _prefetch_rows(self, first: Int, count: Int, panel: Int) -> None:
        """Ask for what the pairs of a row group will read and write besides, while they are
        multiplied: their rows are far apart, so that no hardware prefetcher knows them."""
        f, k = self.frame, self.kernel
        results = ("y",) if k.target.asks_to_write else ()
        with k.loop(first, first + count) as pair:
            upper, whole = self._rows(pair.index)
            lower = upper + k.select(whole, 1, 0)
            for name in (*results, *self.spec.body.tensors()):
                start, step = getattr(f, name), getattr(f, f"{name}_row")
                places = [
                    start + (row * step + panel * f.panel + f.columns * half)
                    for row in (upper, lower)
                    for half in (0, 1)
                ]
                k.prefetch_lines(places, f.panel, write=name == "y")

    def _rows(self, pair: Int) -> tuple[Int, Any]:
        """The first row of a pair, and whether there is a second one."""
        f = self.frame
        image, number = pair // f.pairs, pair % f.pairs
        return image * f.rows + number * 2, number * 2 + 1 < f.rows

    def _finish(self, pair: Int, slot: Int, panel: Int) -> None:
        """Both rows of a pair, a panel of each half of the columns."""
        f, k = self.frame, self.kernel
        row, whole = self._rows(pair)
        with k.loop(0, f.panel, k.vector) as v:
            column = panel * f.panel + v.index
            at = self.products + (slot * f.panel + v.index)
            products = [k.load(at + self.product * n, align=k.aligned) for n in range(FACTORS)]
            results = [combined(terms, products.__getitem__) for terms in RESULT]
            left = f.columns - column

            def store(mask: Any) -> None:
                self._store(row, column, results[:2], mask)
                with k.when(whole):
                    self._store(row + 1, column, results[2:], mask)

            k.either(left >= k.vector, lambda: store(None), lambda: store(k.first_lanes(left)))

    def _store(self, row: Int, column: Int, results: list[Vector], mask: Any) -> None:
        """Bias, body and store, for a vector of each half of the columns."""
        f, k, body = self.frame, self.kernel, self.spec.body
        for half, value in enumerate(results):
            packed = column + f.panels * f.panel * half
            place = column + f.columns * half
            extras = []
            for i, extra in enumerate(body.extras):
                step = getattr(f, f"extra{i}_row")
                inside = packed if extra.kind == "channel" else row * step + place
                extras.append(k.load(getattr(f, f"extra{i}") + inside, mask=mask))
            result = body.emit(k, value + k.load(f.bias + packed, align=k.aligned), extras)
            k.store(result, f.y + (row * f.y_row + place), mask)
