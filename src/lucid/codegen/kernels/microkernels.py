"""The microkernel: a register tile of a matrix product, six rows by one weight panel.

    y[r, :] = body(bias + sum over k of x[r, k] * panel[k, :])

Every convolution, Winograd's products and linear layers run through these tiles, so each output is
the same ascending chains of multiply-adds, whatever tile it falls into. Strides are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.language.builder import Kernel, Signature, function_type
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.values import F32, I64, Int, Pointer, PointerTo, Vector
from lucid.codegen.target import Target

CHAIN = 256
"""Steps of k that are added up in one chain of multiply-adds. The rounding error of a chain grows
with the root of its length: whole chains of 4608 steps cost ResNeSt-50's logits 1.5e-6, chains of
256, whose sums are added in turn, a third of that; putting a tile by costs 1% of its chain."""
UNROLL = 4
"""Steps of k in the loop body: constant offsets, the loop's own cost spread over 4 x 24 FMAs."""

STEP = 0.85
"""What a step of k costs besides its multiply-adds, in those of one vector: a tile one vector wide
waits for its loads and its own sums. 196 rows of 480 take 21, 30, 40 and 52 us a panel of one to
four vectors."""


def panel_vectors(columns: int, target: Target) -> int:
    """Vectors of a panel: the widest, unless narrower ones waste less on the tail."""

    def cost(vectors: int) -> float:
        return -(-columns // (vectors * target.vector)) * (vectors + STEP)

    return min(range(target.panel_vectors, 0, -1), key=cost)


SIGNATURE = [
    ("x", PointerTo(F32)),  # the first row
    ("panel", PointerTo(F32)),  # weights, [depth][panel width]
    ("y", PointerTo(F32)),  # the first row of the result
    ("depth", I64),
    ("x_row", I64),  # floats from one row to the next
    ("y_row", I64),
    ("rows", I64),  # read by the shortest tile only, which also does fewer
    ("columns", I64),  # how many of the panel's columns the result has
    ("bias", PointerTo(F32)),  # as wide as the panel
    ("next", PointerTo(F32)),  # the part of the next panel to bring into L2 meanwhile
    ("lines", I64),  # cache lines of it to ask for each UNROLL steps
    ("extras", PointerTo(I64)),  # for each extra operand of the body: address, row stride
]
TILE_TYPE = function_type(SIGNATURE)


WINDOW_SIGNATURE = [
    *((name, kind) for name, kind in SIGNATURE if name != "x_row"),
    ("places", PointerTo(I64)),  # for each row, how many floats from x its window begins
    ("lines_h", I64),  # the window's segments, of `depth` floats each: lines of them,
    ("step_h", I64),  # how many floats apart,
    ("lines_w", I64),  # and how many side by side
    ("step_w", I64),
    ("chain", I64),  # segments that are added up in one chain
]
WINDOW_TYPE = function_type(WINDOW_SIGNATURE)


Step = Callable[[list[Vector], Int], list[Vector]]
"""From a tile and a step of k to the tile with that step's products added."""


def steps(
    k: Kernel,
    tile: list[Vector],
    start: Int,
    stop: Int,
    step: Step,
    each_round: Callable[[Int], None],
) -> list[Vector]:
    """The tile after steps `start` to `stop`, UNROLL of them in a round."""
    whole = start + (stop - start) // UNROLL * UNROLL
    with k.loop(start, whole, UNROLL, carry=tile) as loop:
        each_round(loop.index)
        tile = loop.carried
        for u in range(UNROLL):
            tile = step(tile, loop.index + u)
        loop.carry(tile)
    with k.loop(whole, stop, carry=loop.results) as rest:
        rest.carry(step(rest.carried, rest.index))
    return rest.results


def put_by(k: Kernel, tile: list[Vector], sums: Pointer, first: Any) -> list[Vector]:
    """Add the tile to the sums of earlier chains (there are none the `first` time), and begin a new
    chain at zero."""
    align = k.aligned
    for i, value in enumerate(tile):
        place = sums + i * k.vector
        before = k.load(place, align=align)
        k.store(k.pick(first, k.zero(), before) + value, place, align=align)
    return [k.zero() for _ in tile]


def total(k: Kernel, tile: list[Vector], sums: Pointer) -> list[Vector]:
    """The last chain's tile plus the sums of those before it."""
    align = k.aligned
    return [k.load(sums + i * k.vector, align=align) + v for i, v in enumerate(tile)]


def accumulate(
    k: Kernel,
    depth: Int,
    tile: list[Vector],
    sums: Pointer,
    step: Step,
    each_round: Callable[[Int], None] = lambda index: None,
) -> list[Vector]:
    """The tile after all `depth` steps (at least one), added up in chains of CHAIN of them.

    `sums`: room for the tile, where the sums of earlier chains wait. `each_round`: what to do
    before each UNROLL steps.
    """
    with k.loop(0, depth, CHAIN, carry=tile, never_empty=True) as chain:
        stop = (chain.index + CHAIN).minimum(depth)
        tile = steps(k, chain.carried, chain.index, stop, step, each_round)

        def finished() -> list[Vector]:
            return k.merge(depth > CHAIN, lambda: total(k, tile, sums), lambda: tile)

        def going_on() -> list[Vector]:
            return put_by(k, tile, sums, chain.index.equals(0))

        chain.carry(k.merge(stop.equals(depth), finished, going_on))
    return chain.results


def accumulate_segments(
    k: Kernel,
    segments: tuple[Int, Int],
    depth: Int,
    chain: Int,
    tile: list[Vector],
    sums: Pointer,
    step: Callable[[Int, Int], Step],
    each_round: Callable[[Int], None],
) -> list[Vector]:
    """`accumulate` over a window of `segments` (lines of them, and how many in each) of `depth`
    steps: `step(h, w)` is the step of one of them. `chain` segments are one chain, or each CHAIN
    steps of a longer one."""
    (high, wide), count = segments, segments[0] * segments[1]

    def after(before: Int) -> Callable[[Int], None]:
        return lambda index: each_round(before + index)

    def put_by_where(tile: list[Vector], condition: Any, first: Any) -> list[Vector]:
        return k.merge(condition, lambda: put_by(k, tile, sums, first), lambda: tile)

    with k.loop(0, high, carry=tile, never_empty=True) as lines:
        with k.loop(0, wide, carry=lines.carried, never_empty=True) as line:
            number = lines.index * wide + line.index
            before = number * depth
            one = step(lines.index, line.index)
            with k.loop(0, depth, CHAIN, carry=line.carried, never_empty=True) as part:
                stop = (part.index + CHAIN).minimum(depth)
                ended = stop.equals(depth)
                full = k.either_of(stop < depth, ((number + 1) % chain).equals(0))
                going_on = k.both(full, k.negated(k.both(ended, (number + 1).equals(count))))
                first = k.both(number < chain, part.index.equals(0))
                tile = steps(k, part.carried, part.index, stop, one, after(before))
                part.carry(put_by_where(tile, going_on, first))
            line.carry(part.results)
        lines.carry(line.results)
    several = k.either_of(depth > CHAIN, count > chain)
    return k.merge(several, lambda: total(k, lines.results, sums), lambda: lines.results)


SHORT = 32
"""Steps up to which a segment is unrolled: windows of 3x3x3, 224x224 with stride 2 to 32 channels,
take 0.17 ms so, and 0.22 in loops of nine steps."""


def accumulate_short(
    k: Kernel,
    segments: tuple[Int, Int],
    depth: int,
    tile: list[Vector],
    step: Callable[[Int, Int], Step],
) -> list[Vector]:
    """`accumulate_segments` where all segments, `depth` steps each, are one chain."""
    with k.loop(0, segments[0], carry=tile, never_empty=True) as lines:
        with k.loop(0, segments[1], carry=lines.carried, never_empty=True) as line:
            one, tile = step(lines.index, line.index), line.carried
            for number in range(depth):
                tile = one(tile, k.int(number))
            line.carry(tile)
        lines.carry(line.results)
    return lines.results


@dataclass(frozen=True)
class Tile(KernelSpec):
    """Register tiles of 6, 5 and 4 (or fewer) rows by `vectors` vectors, ending in `body`.

    With three heights no problem of four rows or more has a tail of one to three rows. `raw` tiles
    add no bias, have no body, and store whole aligned panels: Winograd's products.
    """

    family: ClassVar[str] = "tile"
    exports: ClassVar[tuple[str, ...]] = ("tile6", "tile5", "tile4")

    vectors: int
    body: Body = PLAIN
    raw: bool = False

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module("tile")
        module.triple = target.triple
        for rows in (6, 5, 4):
            _TileEmitter(module, target, self, rows).emit()
        return module


@dataclass(frozen=True)
class WindowTile(KernelSpec):
    """`Tile` for rows that are windows of a padded map, made of segments that lie apart: each row
    begins at a place of its own, and goes on from segment to segment as all others do.

    `short`: the steps of a segment where they are few, so that they are unrolled, and all of them
    are one chain; else 0.
    """

    family: ClassVar[str] = "window_tile"
    exports: ClassVar[tuple[str, ...]] = Tile.exports

    vectors: int
    body: Body = PLAIN
    short: int = 0

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module("window_tile")
        module.triple = target.triple
        for rows in (6, 5, 4):
            tile = Tile(self.vectors, self.body)
            _WindowTileEmitter(module, target, tile, rows, self.short).emit()
        return module


class _TileEmitter:
    """One tile function: rows x vectors accumulators over a loop on k, then the epilogue."""

    signature: ClassVar[Signature] = SIGNATURE

    def __init__(self, module: ir.Module, target: Target, spec: Tile, rows: int) -> None:
        self.k = Kernel(module, target, f"tile{rows}", self.signature)
        self.k.no_alias("panel")
        self.spec = spec
        self.height = rows
        self.clamped = rows == 4
        self.align = self.k.aligned
        self.sums = self.k.stack(rows * spec.vectors * target.vector)
        for name, _ in self.signature:
            setattr(self, name, self.k.args[name])

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
        k = self.k
        start = [
            k.zero() if self.spec.raw else k.load(self.bias + v * k.vector, align=self.align)
            for v in range(self.spec.vectors)
        ]
        tile = [vector for _ in range(self.height) for vector in start]
        self._prefetch_extras()
        self._epilogue(self._products(tile))
        k.finish()

    def _products(self, tile: list[Vector]) -> list[Vector]:
        """The tile with all products added."""
        rows = [self.x + self._row(r) * self.x_row for r in range(self.height)]

        def step(tile: list[Vector], at: Int) -> list[Vector]:
            return self._step(tile, rows, self.panel, at)

        return accumulate(self.k, self.depth, tile, self.sums, step, self._prefetch)

    def _row(self, r: int) -> Int:
        """The row's number; rows beyond the last repeat it, and store the same values again."""
        if not self.clamped or r == 0:
            return self.k.int(r)
        return (self.rows - 1).minimum(r)

    def _prefetch(self, step: Int) -> None:
        """Ask for `lines` lines of the next panel, spread evenly over the steps of this one."""
        k = self.k
        line = k.line(self.next.element)
        base = self.next + step * self.lines * (line // UNROLL)
        with k.loop(0, self.lines) as loop:
            k.prefetch(base + loop.index * line)

    def _prefetch_extras(self) -> None:
        """Ask for the extra tensors while the products are computed: their rows are far apart, so
        no hardware prefetcher knows them. Worth 10% of layers whose residual left L2. (Asking for
        the places of the result as well takes 5% back.)"""
        k, line = self.k, self.k.line(F32)
        for i, kind in enumerate(self.spec.body.extras):
            for r in range(self.height if kind == "tensor" else 0):
                place = self._extra(i, self._row(r))
                for at in range(0, self.spec.vectors * k.vector, line):
                    k.prefetch(place + at, near=True)

    def _extra(self, i: int, row: Int) -> Pointer:
        """Where a row of an extra operand begins."""
        k = self.k
        stride = k.load_int(self.extras.words(2 * i + 1))
        return k.load_pointer(self.extras.words(2 * i), F32) + row * stride

    def _step(
        self, tile: list[Vector], rows: list[Pointer], panel: Pointer, step: Int
    ) -> list[Vector]:
        """One step of k. The panel's vectors stay in registers, the rows' floats are broadcast:
        the other order spills."""
        k, vectors = self.k, self.spec.vectors
        at = panel + step * (vectors * k.vector)
        weights = [k.load(at + v * k.vector, align=self.align) for v in range(vectors)]
        result = []
        for r, row in enumerate(rows):
            value = k.splat(k.load(row + step, lanes=1))
            result += [k.fma(value, weights[v], tile[r * vectors + v]) for v in range(vectors)]
        return result

    def _epilogue(self, tile: list[Vector]) -> None:
        k = self.k
        if self.spec.raw:
            self._store_rows(tile, lambda v: None, self.align)
            return
        masks = [k.first_lanes(self.columns - v * k.vector) for v in range(self.spec.vectors)]
        if k.target.masked:
            self._store_rows(tile, masks.__getitem__)
            return
        k.either(
            self.columns >= self.spec.vectors * k.vector,
            lambda: self._store_rows(tile, lambda v: None),
            lambda: self._store_rows(tile, masks.__getitem__),
        )

    def _store_rows(self, tile: list[Vector], mask: Any, align: int | None = None) -> None:
        k, vectors, body = self.k, self.spec.vectors, self.spec.body
        for r in range(self.height):
            row = self._row(r)
            extras = [self._extra(i, row) for i in range(len(body.extras))]
            for v in range(vectors):
                at = v * k.vector
                read = [k.load(e + at, mask=mask(v)) for e in extras]
                result = body.emit(k, tile[r * vectors + v], read)
                k.store(result, self.y + row * self.y_row + at, mask=mask(v), align=align)


class _WindowTileEmitter(_TileEmitter):
    signature: ClassVar[Signature] = WINDOW_SIGNATURE

    places: Pointer
    lines_h: Int
    step_h: Int
    lines_w: Int
    step_w: Int
    chain: Int

    def __init__(
        self, module: ir.Module, target: Target, spec: Tile, rows: int, short: int
    ) -> None:
        super().__init__(module, target, spec, rows)
        self.short = short

    def _products(self, tile: list[Vector]) -> list[Vector]:
        k, width = self.k, self.spec.vectors * self.k.vector
        rows = [self.x + k.load_int(self.places.words(r)) for r in range(self.height)]

        def step(h: Int, w: Int) -> Step:
            moved = h * self.step_h + w * self.step_w
            here = [row + moved for row in rows]
            panel = self.panel + (h * self.lines_w + w) * (self.depth * width)
            return lambda tile, at: self._step(tile, here, panel, at)

        window = (self.lines_h, self.lines_w)
        if self.short:
            return accumulate_short(k, window, self.short, tile, step)
        return accumulate_segments(
            k, window, self.depth, self.chain, tile, self.sums, step, self._prefetch
        )
