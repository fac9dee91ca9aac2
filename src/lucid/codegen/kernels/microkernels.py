"""The microkernel: a register tile of a matrix product, six rows by one weight panel.

    y[r, :] = body(bias + sum over k of x[r, k] * panel[k, :])

Every convolution, Winograd's products and linear layers run through these tiles, so each output is
the same ascending chains of multiply-adds, whatever tile it falls into. Strides are arguments.
What the numbers are, floats, pairs of bfloat16 or of 16-bit integers, or four bytes,
`arithmetic.py` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import ARITHMETIC, Checks, Operands, Window
from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.language.builder import Kernel, Signature, function_type
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.elements import numbers
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.partial import load_first, store_first
from lucid.codegen.language.values import F32, I32, I64, Int, Pointer, PointerTo, Vector
from lucid.codegen.target import Target

HEIGHTS = ("tallest", "lower", "lowest")
"""The functions of a tile: of all its rows, of one less, and of two less or fewer than that."""
STEP = 0.85
"""What a step of k costs besides its multiply-adds, in those of one vector: a tile one vector wide
waits for its loads and its own sums. 196 rows of 480 take 21, 30, 40 and 52 us a panel of one to
four vectors."""


SEGMENT_LINES = 2
"""Cache lines of a segment of the next rows that are asked for: what is longer is a stream, which
the processor knows by then."""
LEAST_ROWS, MOST_VECTORS = 4, 4
"""Rows of a tile below which its panel is too wide, and vectors of the widest of all."""


def panel_vectors(columns: int, target: Target, numbers: str = COMPUTED, even: bool = False) -> int:
    """Vectors of a panel: the widest of six rows, unless narrower ones waste less on the tail or,
    of floats, wider ones do, whose tiles have less rows: groups of 24 channels (RegNet), 3x3 at
    14x14, take 0.7 of the time with three vectors of AVX2. Where two are as good, panels are even
    in number, as many for one of two threads as for the other; so they are where that is wanted
    (`even`), if they are several."""
    widest, six = target.panel_vectors, target.tile_rows(target.panel_vectors)

    def cost(vectors: int) -> tuple[float, int]:
        panels = -(-columns // (vectors * target.vector))
        panels += panels % 2 if even and panels > 1 else 0
        step = STEP * six / target.tile_rows(vectors)
        return round(panels * (vectors + step), 6), panels % 2

    most = MOST_VECTORS if numbers == COMPUTED else widest
    wider = (v for v in range(widest + 1, most + 1) if target.tile_rows(v) >= LEAST_ROWS)
    return min(chain(range(widest, 0, -1), wider), key=cost)


HALVED = (COMPUTED, "bf16")
"""What tiles of half vectors multiply."""
HALVING = 0.95
"""Share of the lanes of whole vectors from which on halves are not worth twice the instructions."""


def tile_target(columns: int, target: Target, numbers: str = COMPUTED) -> Target:
    """The target with the vectors that tiles over so many columns have: of halves, where these
    leave less of the last one empty, and the processor does whole ones in halves anyway. RegNetX,
    in groups of 24, takes 17.3 ms so and 17.8 with whole ones (two threads of a Zen 4)."""
    if numbers not in HALVED or target.tiles:
        return target
    half = target.halved()
    whole, halves = (-(-columns // t.vector) * t.vector for t in (target, half))
    return half if target.half_units and halves < HALVING * whole else target


# Elements are what `Arithmetic.element` says: floats, or integers which take as many bytes.
SIGNATURE = [
    ("x", PointerTo(F32)),  # the first row
    ("panel", PointerTo(F32)),  # weights, [depth][panel width]
    ("y", PointerTo(F32)),  # the first row of the result
    ("depth", I64),
    ("x_row", I64),  # elements from one row to the next
    ("y_row", I64),
    ("rows", I64),  # read by the shortest tile only, which also does fewer
    ("columns", I64),  # how many of the panel's columns the result has
    ("bias", PointerTo(F32)),  # as wide as the panel
    ("next", PointerTo(F32)),  # the part of the next panel to bring into L2 meanwhile
    ("lines", I64),  # cache lines of it to ask for each round of steps
    # for each extra operand of the body: address, row stride; then, of bytes, two of `Checks`
    ("extras", PointerTo(I64)),
]
TILE_TYPE = function_type(SIGNATURE)


WINDOW_SIGNATURE = [
    *((name, kind) for name, kind in SIGNATURE if name != "x_row"),
    ("places", PointerTo(I64)),  # for each row, how many numbers from x its window begins
    ("lines_h", I64),  # the window's segments, of `depth` elements each: lines of them,
    ("step_h", I64),  # how many numbers apart,
    ("lines_w", I64),  # and how many side by side
    ("step_w", I64),
    ("panel_line", I64),  # elements of the panel from one line of segments to the next
    ("chain", I64),  # segments that are added up in one chain
]
WINDOW_TYPE = function_type(WINDOW_SIGNATURE)


@dataclass(frozen=True)
class Tile(KernelSpec):
    """Register tiles of `rows`, one less and two less (or fewer) by `vectors` vectors, ending in
    `body`.

    With six rows no problem of four rows or more has a tail of one to three rows. `raw` tiles
    add no bias, have no body, and store whole aligned panels: Winograd's products. `half`: whether
    vectors are half as wide as the target's. `numbers`: the
    dtype of panels, and of rows what `ARITHMETIC` has with it. `summed`: the panel is the one given
    "plus" or "minus" the one at the first word of extras, and is written to where the second says.
    """

    family: ClassVar[str] = "tile"
    exports: ClassVar[tuple[str, ...]] = HEIGHTS

    vectors: int
    body: Body = PLAIN
    raw: bool = False
    numbers: str = COMPUTED
    rows: int = 6
    summed: str = ""
    half: bool = False

    def emit(self, target: Target) -> ir.Module:
        target = target.halved() if self.half else target
        module = ir.Module("tile")
        module.triple = target.triple
        for less, name in enumerate(HEIGHTS):
            TileEmitter(module, target, self, name, self.rows - less).emit()
        return module


@dataclass(frozen=True)
class WindowTile(KernelSpec):
    """`Tile` for rows that are windows of a padded map, made of segments that lie apart: each row
    begins at a place of its own, and goes on from segment to segment as all others do.

    `short`: the steps of a segment where they are few, so that they are unrolled, and all of them
    are one chain; else 0. `sorted`: rows come in any order; beside each one's place is its number.
    `ahead`: whether to ask for the windows of the next rows meanwhile. `half`: as of `Tile`.
    """

    family: ClassVar[str] = "window_tile"
    exports: ClassVar[tuple[str, ...]] = HEIGHTS

    vectors: int
    body: Body = PLAIN
    short: int = 0
    numbers: str = COMPUTED
    sorted: bool = False
    rows: int = 6
    ahead: bool = False
    half: bool = False

    def emit(self, target: Target) -> ir.Module:
        target = target.halved() if self.half else target
        module = ir.Module("window_tile")
        module.triple = target.triple
        kind = _SortedTileEmitter if self.sorted else _WindowTileEmitter
        tile = Tile(self.vectors, self.body, numbers=self.numbers)
        for less, name in enumerate(HEIGHTS):
            kind(module, target, tile, name, self.rows - less, self.short, self.ahead).emit()
        return module


@dataclass(frozen=True, kw_only=True)
class _Summed(Operands):
    """A panel that is the sum of two, or their difference: written down as it is multiplied, so
    that it costs next to nothing beside the multiply-adds."""

    other: Pointer
    out: Pointer
    sign: str

    def weights(self, at: Int, further: int) -> list[Vector]:
        k, width = self.k, self.vectors * self.k.vector
        found = super().weights(at, further)
        other, out = (self._moved(p, at, further, width) for p in (self.other, self.out))
        for v, value in enumerate(found):
            more = k.load(other + v * k.vector, align=k.aligned)
            found[v] = value + more if self.sign == "plus" else value - more
            k.store(found[v], out + v * k.vector, align=k.aligned)
        return found


class TileEmitter:
    """One tile function: rows x vectors accumulators over a loop on k, then the epilogue."""

    signature: ClassVar[Signature] = SIGNATURE

    def __init__(self, module: ir.Module, target: Target, spec: Tile, name: str, rows: int) -> None:
        self.k = Kernel(module, target, name, self.signature)
        self.k.no_alias("panel")
        self.spec = spec
        self.height = rows
        self.clamped = name == HEIGHTS[-1]
        self.align = self.k.aligned
        self.width = spec.vectors * target.vector
        self.arithmetic = ARITHMETIC[spec.numbers]
        self.sum = dtype(self.arithmetic.sums).element
        self.sums = self.k.stack(rows * self.width, self.sum)
        for name, _ in self.signature:
            setattr(self, name, self.k.args[name])
        for name in ("x", "panel", "next"):
            setattr(self, name, self.k.args[name].to(self.arithmetic.element))
        self.bias = self.k.args["bias"].to(self.sum)

    x: Pointer
    panel: Pointer
    y: Pointer
    depth: Int
    x_row: Int
    y_row: Int
    rows: Int
    columns: Int
    bias: Pointer
    next: Pointer
    lines: Int
    extras: Pointer

    def emit(self) -> None:
        k, arithmetic = self.k, self.arithmetic
        start = [
            arithmetic.zero(k)
            if self.spec.raw
            else arithmetic.load(k, self.bias + v * k.vector, self.align)
            for v in range(self.spec.vectors)
        ]
        tile = [vector for _ in range(self.height) for vector in start]
        self._prefetch_extras()
        if self.k.target.asks_to_write and self._of_floats and not self.spec.raw:
            self._prefetch_result()
        self._epilogue(self._products(tile))
        k.finish()

    def _products(self, tile: list[Vector]) -> list[Vector]:
        """The tile with all products added."""
        rows = [self.x + self._row(r) * self.x_row for r in range(self.height)]
        operands = self._operands(rows, self.panel)
        return self.arithmetic.over_row(self.depth, tile, self.sums, operands, self._prefetch)

    def _operands(self, rows: list[Pointer], panel: Pointer) -> Operands:
        checks, sign = None, self.spec.summed
        if sign:
            other, out = (self.k.load_pointer(self.extras.words(i), F32) for i in (0, 1))
            own = (self.k, self.arithmetic, rows, panel, self.spec.vectors, checks)
            return _Summed(*own, other=other, out=out, sign=sign)
        if self.arithmetic.checked(self.k.target):
            words = 2 * len(self.spec.body.extras)
            places = (self.k.load_pointer(self.extras.words(words + i), I32) for i in (0, 1))
            checks = Checks(*places)
        return Operands(self.k, self.arithmetic, rows, panel, self.spec.vectors, checks)

    def _row(self, r: int | Int) -> Int:
        """The row's number; rows beyond the last repeat it."""
        if not self.clamped or isinstance(r, Int) or r == 0:
            return self.k.int(r)
        return (self.rows - 1).minimum(r)

    def _prefetch(self, step: Int, rounds: int = 1) -> None:
        """Ask for `lines` lines of the next panel each round, spread evenly over the steps of this
        one: what belongs to the rounds from `step` on."""
        k = self.k
        line = k.line(self.next.element)
        base = self.next + step * self.lines * (line // self.arithmetic.unroll)
        with k.loop(0, self.lines * rounds) as loop:
            k.prefetch(base + loop.index * line)

    def _prefetch_extras(self) -> None:
        """Ask for the extra tensors while the products are computed: their rows are far apart, so
        no hardware prefetcher knows them. Worth 10% of layers whose residual left L2."""
        k = self.k
        for i, extra in enumerate(self.spec.body.extras):
            for r in range(self.height if extra.kind == "tensor" else 0):
                place = self._extra(i, self._row(r))
                for at in range(0, self.width, k.line(place.element)):
                    k.prefetch(place + at, near=True)

    def _prefetch_result(self) -> None:
        """Ask for the lines of the result as ones that will be written."""
        rows = [self.y + self._row(r) * self.y_row for r in range(self.height)]
        self.k.prefetch_lines(rows, self.width, write=True)

    def _extra(self, i: int, row: Int) -> Pointer:
        """Where a row of an extra operand begins."""
        k, element = self.k, dtype(self.spec.body.extras[i].dtype).element
        stride = k.load_int(self.extras.words(2 * i + 1))
        return k.load_pointer(self.extras.words(2 * i), element) + row * stride

    # -- the epilogue -------------------------------------------------------------------------

    @property
    def _of_floats(self) -> bool:
        """Whether sums, and what is made of them, are floats."""
        return self.arithmetic.sums == COMPUTED

    def _epilogue(self, tile: list[Vector]) -> None:
        k = self.k
        if self.spec.raw:
            self._store_vectors(tile, lambda v: None, self.align)
            return
        if not self._of_floats:
            whole = self.columns >= self.width
            k.either(whole, lambda: self._store_rows(tile), lambda: self._store_parts(tile))
            return
        masks = [k.first_lanes(self.columns - v * k.vector) for v in range(self.spec.vectors)]
        store = self._store_in_loop if self.spec.body.looped else self._store_vectors
        if k.target.masked:
            store(tile, masks.__getitem__)
            return
        k.either(
            self.columns >= self.width,
            lambda: store(tile, lambda v: None),
            lambda: store(tile, masks.__getitem__),
        )

    def _store_vectors(self, tile: list[Vector], mask: Any, align: int | None = None) -> None:
        """Results vector by vector, as wide as the sums."""
        k, vectors, body = self.k, self.spec.vectors, self.spec.body
        y = self.y.to(self.sum)
        for r, row in self._stored_rows():
            extras = [self._extra(i, row) for i in range(len(body.extras))]
            for v in range(vectors):
                at = v * k.vector
                read = [k.load(e + at, mask=mask(v)) for e in extras]
                result = body.emit(k, tile[r * vectors + v], read)
                k.store(result, y + row * self.y_row + at, mask=mask(v), align=align)

    def _store_in_loop(self, tile: list[Vector], mask: Any) -> None:
        """The same row by row, the tile put by: beside a tile in registers each vector would load
        the body's constants again. 1x1, 96 to 384 channels at 56x56 with GELU: 6% less."""
        self._put_by(tile)
        self._store_put_by(mask)

    def _store_put_by(self, mask: Any) -> None:
        k, body, y = self.k, self.spec.body, self.y.to(self.sum)
        places = [(v * k.vector, mask(v)) for v in range(self.spec.vectors)]
        with self._rows_put_by() as (row, sums):
            extras = [self._extra(i, row) for i in range(len(body.extras))]
            read = [k.joined([k.load(e + at, mask=m) for at, m in places]) for e in extras]
            results = k.parted(body.emit(k, sums, read), len(places))
            for (at, m), result in zip(places, results, strict=True):
                k.store(result, y + row * self.y_row + at, mask=m)

    def _stored_rows(self) -> Iterator[tuple[int, Int]]:
        """The tile's rows and their numbers; what is done for one is left out where it repeats the
        last: y may lie in an extra operand's place, which is not to be read again."""
        for r in range(self.height):
            if self.clamped and r:
                with self.k.when(self.rows > r):
                    yield r, self._row(r)
            else:
                yield r, self._row(r)

    def _store_rows(self, tile: list[Vector]) -> None:
        """Results of any dtype, a row of the panel at once: what is narrower than the sums fills
        vectors so."""
        k, vectors = self.k, self.spec.vectors
        for r, row in self._stored_rows():
            sums = k.joined(tile[r * vectors : (r + 1) * vectors])
            self._store_row(row, sums, None)

    def _store_parts(self, tile: list[Vector]) -> None:
        """The same where the result has fewer columns than the panel: rare, so that rows share
        their code."""
        self._put_by(tile)
        with self._rows_put_by() as (row, sums):
            self._store_row(row, sums, self.columns)

    def _put_by(self, tile: list[Vector]) -> None:
        """Let the tile's sums wait in memory."""
        for i, value in enumerate(tile):
            self.k.store(value, self.sums + i * self.k.vector, align=self.align)

    @contextmanager
    def _rows_put_by(self) -> Iterator[tuple[Int, Vector]]:
        """A loop over the rows of a tile that waits in memory, each its number and sums."""
        k = self.k
        with k.loop(0, self.rows.minimum(self.height) if self.clamped else self.height) as loop:
            yield self._row(loop.index), self._sums_put_by(loop.index)

    def _sums_put_by(self, number: Int) -> Vector:
        """The sums of one row of a tile that waits in memory."""
        raw = self.k.load(self.sums + number * self.width, self.width).raw
        return numbers(self.k, raw, self.arithmetic.sums)

    def _store_row(self, row: Int, sums: Vector, columns: Int | None) -> None:
        k, body = self.k, self.spec.body
        read = []
        for i, extra in enumerate(body.extras):
            some = columns if extra.kind == "tensor" else None  # else there are whole panels
            raw = load_first(k, self._extra(i, row), self.width, some)
            read.append(numbers(k, raw, extra.dtype))
        result = body.emit(k, sums, read)
        y = self.y.to(result.raw.type.element)
        store_first(k, result.raw, y + row * self.y_row, columns)


class _WindowTileEmitter(TileEmitter):
    signature: ClassVar[Signature] = WINDOW_SIGNATURE

    places: Pointer
    lines_h: Int
    step_h: Int
    lines_w: Int
    step_w: Int
    panel_line: Int
    chain: Int

    def __init__(
        self,
        module: ir.Module,
        target: Target,
        spec: Tile,
        name: str,
        rows: int,
        short: int,
        ahead: bool,
    ) -> None:
        super().__init__(module, target, spec, name, rows)
        self.short = short
        self.ahead = ahead

    def _products(self, tile: list[Vector]) -> list[Vector]:
        k, first = self.k, self.x.to(self.arithmetic.number)
        rows = [first + self._place(r) for r in range(self.height)]
        ahead = range(self.height, 2 * self.height) if self.ahead and not self.clamped else ()
        following = [first + self._place(r) for r in ahead]

        def segment(h: Int, w: Int) -> Operands:
            moved = h * self.step_h + w * self.step_w
            here = [(row + moved).to(self.x.element) for row in rows]
            for row in following:
                for line in range(SEGMENT_LINES):
                    k.prefetch(row + (moved + line * k.line(first.element)), near=True)
            panel = self.panel + (h * self.panel_line + w * (self.depth * self.width))
            return self._operands(here, panel)

        window = Window((self.lines_h, self.lines_w), self.depth, self.chain, self.short)
        return self.arithmetic.over_window(k, window, tile, self.sums, segment, self._prefetch)

    def _place(self, r: int) -> Int:
        """Where a row's window begins; entries after the last repeat it."""
        return self.k.load_int(self.places.words(r))


class _SortedTileEmitter(_WindowTileEmitter):
    """Entries of the table are a place and the row's number."""

    def _place(self, r: int) -> Int:
        return self.k.load_int(self._entry(r))

    def _row(self, r: int | Int) -> Int:
        return self.k.load_int(self._entry(r).words(1))

    def _entry(self, r: int | Int) -> Pointer:
        number = super()._row(r) if isinstance(r, int) else r
        return self.places.words(number * 2)
