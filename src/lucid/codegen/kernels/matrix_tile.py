"""The microkernel by registers that hold matrices: 16 rows by one weight panel, of bfloat16.

    y[r, :] = body(bias + sum over k of x[r, k] * panel[k, :])

It takes the place of `Tile` on targets with tiles, for pairs of bfloat16, and for floats as the sum
of three bfloat16 parts each, rounded to the nearest: x = x0 + x1 + x2 exactly. Of the nine products
of parts the six largest are added up, apart by their order, so that small ones are not rounded
beside large ones:

    x w = x0 w0 + (x0 w1 + x1 w0) + (x0 w2 + x1 w1 + x2 w0)

The three products that are left out are 2^-23 of x w at most, and mostly far less. Where the sum of
x0 w0 is not finite the others are left out too: an infinity less itself, its second part, is NaN.
So infinities and NaN meet what they meet in float32, save that numbers from 3.39e38 on, which round
to an infinity, are taken for one. Of numbers below 1e-33 the smaller parts are denormals, which are
zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.microkernels import HEIGHTS, SIGNATURE, Tile, TileEmitter
from lucid.codegen.language import tiles
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.values import Int, Vector
from lucid.codegen.target import Target

BLOCK = tiles.COLUMNS
"""Pairs of one part that a step takes: rows and panels have whole blocks of them."""
PARTS = 3
"""Of a float, where it is multiplied as a sum."""
AT_ONCE = 2
"""Vectors whose sums of three orders are added up side by side. A product takes 16 cycles and its
sum 52 (Intel's Optimization Reference Manual, on AMX): of twelve, no more than three wait for one
another."""


def blocks_of(pairs: int) -> int:
    """How many pairs rows and panels of so many have."""
    return -(-pairs // BLOCK) * BLOCK


@dataclass(frozen=True)
class MatrixTile(KernelSpec):
    """`Tile` of 16 rows or fewer by `vectors` vectors, ending in `body`; all its functions are one.

    Sixteen rows are read, however many there are. Of `parts` 1, `depth` counts pairs, whole blocks
    of them, and panels are [pair][column][2]. Of 3 parts both are three times as long, each block
    followed by that of the next part: [block][part][pair of a block]. `raw`: it adds no bias. The
    thread has tiles configured.
    """

    family: ClassVar[str] = "matrix_tile"
    exports: ClassVar[tuple[str, ...]] = HEIGHTS
    rows: ClassVar[int] = tiles.ROWS

    vectors: int
    body: Body = PLAIN
    parts: int = 1
    raw: bool = False

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module(self.family)
        module.triple = target.triple
        tile = Tile(self.vectors, self.body, self.raw, "bf16", self.rows)
        kind = _MatrixEmitter if self.parts == 1 else _PartsEmitter
        emitter = kind(module, target, tile, self.family, self.rows)
        emitter.emit()
        _rename(emitter.k, HEIGHTS)
        return module


def _rename(whole: Kernel, names: Sequence[str]) -> None:
    """Let a function be found by these names, which go on to it."""
    whole.function.linkage = "internal"
    whole.function.attributes.add("noinline")
    for name in names:
        k = Kernel(whole.module, whole.target, name, SIGNATURE)
        k.builder.call(whole.function, k.function.args, tail=True)
        k.finish()


class _MatrixEmitter(TileEmitter):
    """Each vector has an accumulator; one tile is of the rows, those left of the panel by turns."""

    ROWS = 4
    PANEL = (5, 6, 7)

    def emit(self) -> None:
        k = self.k
        self.clamped = True
        self._prefetch_extras()
        self._add_products()
        self._store_put_by([k.first_lanes(self.columns - at) for at in self._places].__getitem__)
        k.finish()

    @property
    def _places(self) -> range:
        """Where each vector of the panel begins."""
        return range(0, self.width, self.k.vector)

    def _add_products(self) -> None:
        """Let the sums wait in memory."""
        k = self.k
        for v, at in enumerate(self._places):
            self._start(v, at)
        with k.loop(0, self.depth, BLOCK) as loop:
            self._prefetch(loop.index, BLOCK // self.arithmetic.unroll)
            tiles.load(k, self.ROWS, self.x + loop.index, self.x_row)
            for v, at in enumerate(self._places):
                panel = self.PANEL[v % len(self.PANEL)]
                tiles.load(k, panel, self.panel + (loop.index * self.width + at), self.width)
                tiles.multiply_bf16(k, v, self.ROWS, panel)
        for v, at in enumerate(self._places):
            tiles.store(k, v, self.sums + at, self.width)

    def _start(self, sums: int, at: int) -> None:
        """Let a tile begin with what is in each row of the sums."""
        if self.spec.raw:
            tiles.zero(self.k, sums)
        else:
            tiles.load(self.k, sums, self.bias + at, 0)

    def _prefetch_extras(self) -> None:
        k = self.k
        for i, extra in enumerate(self.spec.body.extras):
            if extra.kind == "tensor":
                with k.loop(0, self.rows) as row:
                    k.prefetch_lines([self._extra(i, row.index)], self.width)


class _PartsEmitter(_MatrixEmitter):
    """Each vector has three accumulators, by the order of products; two tiles are left, for the
    parts of the rows and of the panel by turns."""

    ROWS_PART, PANEL_PART = 6, 7

    def _add_products(self) -> None:
        k = self.k
        size = self.height * self.width
        room = k.stack(PARTS * size, self.sum)
        self.orders = [room + order * size for order in range(PARTS)]
        for first in range(0, self.spec.vectors, AT_ONCE):
            self._add_vectors(self._places[first : first + AT_ONCE], prefetch=first == 0)

    def _add_vectors(self, places: Sequence[int], prefetch: bool) -> None:
        """Of the vectors that begin here."""
        k = self.k
        sums = [[PARTS * v + order for order in range(PARTS)] for v in range(len(places))]
        for (lead, *others), at in zip(sums, places, strict=True):
            self._start(lead, at)
            for other in others:
                tiles.zero(k, other)
        with k.loop(0, self.depth, PARTS * BLOCK) as loop:
            if prefetch:
                self._prefetch(loop.index, PARTS * BLOCK // self.arithmetic.unroll)
            for i in range(PARTS):
                tiles.load(k, self.ROWS_PART, self.x + (loop.index + i * BLOCK), self.x_row)
                for j in range(PARTS - i):
                    row = (loop.index + j * BLOCK) * self.width
                    for of_vector, at in zip(sums, places, strict=True):
                        tiles.load(k, self.PANEL_PART, self.panel + (row + at), self.width)
                        tiles.multiply_bf16(k, of_vector[i + j], self.ROWS_PART, self.PANEL_PART)
        for of_vector, at in zip(sums, places, strict=True):
            for tile, order in zip(of_vector, self.orders, strict=True):
                tiles.store(k, tile, order + at, self.width)

    def _sums_put_by(self, number: Int) -> Vector:
        k, offset = self.k, number * self.width
        lead, first, second = (k.load(order + offset, self.width) for order in self.orders)
        finite = k.math("fabs", lead).compare("<", float("inf"))
        return k.pick(finite, lead + (first + second), lead)
