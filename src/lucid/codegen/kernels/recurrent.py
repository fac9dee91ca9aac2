"""Recurrent layers: all steps of a sequence, given the products of the input.

A step adds the products of the last state and the recurrent weights, and applies the gates:

    sums[r, c] = sum over k of h[r, k] * weights[c, k]          h = gates(products of x + sums, ...)

One task is a block of at most `ROWS` sequences in one direction, whose states stay in scratch from
step to step. The product is a thin one, which reads the weights once a step for all rows of the
block: its tiles have one row by several panels, or up to six rows by one, so that there are always
accumulators enough to hide the latency of a multiply-add. Every sum is one ascending chain, as in
all other products, whatever tile it falls into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.accumulation import accumulate
from lucid.codegen.language.builder import Kernel, function_type
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    share,
)
from lucid.codegen.language.transcendentals import at_least, at_most
from lucid.codegen.language.values import F32, I64, Int, Pointer, PointerTo, Vector, size_of
from lucid.codegen.language.vector_math import lower
from lucid.codegen.target import Target
from lucid.ir.ops import Gru, Lstm
from lucid.ir.ops import Recurrent as Op

ROWS = 6
"""Sequences of a block, at most: as many as the register tile has rows."""
TILES = ((1, 4), (2, 2), (3, 2), (ROWS, 1))
"""Rows and panels of the tiles; the last one also does fewer rows. They differ so that each has 8
to 12 sums on AVX2: fewer would wait for each other's multiply-adds."""

SIGNATURE = [
    ("h", PointerTo(F32)),  # the first row of the state
    ("weights", PointerTo(F32)),  # the first panel, [depth][panel width]
    ("sums", PointerTo(F32)),  # the first row's sums at the panel's columns
    ("depth", I64),
    ("sums_row", I64),  # floats from one row of sums to the next
    ("rows", I64),  # read by the tallest tile only
    ("panels", I64),  # how many there are from here on
]
TILE_TYPE = function_type(SIGNATURE)

Tiles = Callable[[int, int], None]


def cuts(cell: Op) -> tuple[int, ...]:
    """The gates whose products are computed together: those of a GRU that resets the state itself
    come before its candidate."""
    return (2, 1) if isinstance(cell, Gru) and not cell.linear_before_reset else (cell.gates,)


@dataclass(frozen=True)
class Recurrent(KernelSpec):
    """`cell`: the op; its direction is an argument (`first_backward` is 1 where direction 0 is).

    `ends`: whether sequences have lengths of their own. `peephole`: whether gates see the cell.
    """

    family: ClassVar[str] = "recurrent"
    cell: Op
    ends: bool = False
    peephole: bool = False

    @property
    def kept(self) -> tuple[str, ...]:
        """What is kept from step to step."""
        return ("hidden", "cell")[: self.cell.states]

    @property
    def packed(self) -> tuple[str, ...]:
        """The weights of each cut."""
        return tuple(f"weights{i}" for i in range(len(cuts(self.cell))))

    def arguments(self) -> tuple[Arg, ...]:
        states = [f"{kind}{name}" for name in self.kept for kind in ("", "last_")]
        declared = buffers("products", "y", *states, *self.packed)
        if self.cell.adds_late:
            declared += buffers("late")
        if self.peephole:
            declared += buffers("peephole")
        if self.ends:
            declared += buffers("ends", dtype="i64") + ints("ends_row")
        declared += ints("products_row", "products_step", "y_row", "y_step")
        for name in states:
            declared += ints(f"{name}_row", f"{name}_direction", f"{name}_unit")
        panels = ints(*(f"{name}_panels" for name in self.packed))
        sizes = ints("rows", "steps", "size", "directions", "blocks", "first_backward", "panel")
        return declared + panels + sizes

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.directions, given.blocks)
        if given.blocks * ROWS < given.rows:
            raise ValueError(f"{given.blocks} blocks of {given.rows} rows")
        if given.directions + given.first_backward > 2:
            raise ValueError(f"{given.directions} directions after {given.first_backward}")
        sequences = given.rows, given.steps
        width = given.directions * given.size
        found: dict[str, Extent] = {}
        for name, columns in (("products", self.cell.gates * width), ("y", width)):
            strides = getattr(given, f"{name}_row"), getattr(given, f"{name}_step")
            found[name] = (*zip(sequences, strides, strict=True), (columns, 1))
        for name in (f"{kind}{name}" for name in self.kept for kind in ("", "last_")):
            counts = given.rows, given.directions, given.size
            steps = (getattr(given, f"{name}_{axis}") for axis in ("row", "direction", "unit"))
            found[name] = tuple(zip(counts, steps, strict=True))
        for name, gates in zip(self.packed, cuts(self.cell), strict=True):
            panels = getattr(given, f"{name}_panels")
            if not (panels - 1) * given.panel < gates * given.size <= panels * given.panel:
                raise ValueError(f"{panels} panels of {gates} gates of {given.size}")
            found[name] = ((given.directions * panels * given.panel * given.size, 1),)
        if self.cell.adds_late:
            found["late"] = ((width, 1),)
        if self.peephole:
            found["peephole"] = ((3 * width, 1),)
        if self.ends:
            found["ends"] = ((given.rows, given.ends_row),)
        return found

    def emit(self, target: Target) -> ir.Module:
        return _RecurrentEmitter(self, target).emit()


def scratch_bytes(cell: Op, size: int, columns: int) -> int:
    """Scratch of a task: sums of so many columns, the states, and what a GRU resets."""
    return size_of(F32) * ROWS * (columns + (cell.states + 2) * size)


class _RecurrentEmitter:
    def __init__(self, spec: Recurrent, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.tiles = {
            rows: _TileEmitter(self.frame.module, target, rows, panels).emit()
            for rows, panels in TILES
        }
        f = self.frame
        self.columns = f.weights0_panels * f.panel
        for name in spec.packed[1:]:
            self.columns = self.columns.maximum(getattr(f, f"{name}_panels") * f.panel)
        self.sums = f.scratch.to(F32)
        self.states = [self._room(i) for i in range(spec.cell.states)]
        self.update, self.reset = (self._room(spec.cell.states + i) for i in range(2))

    def _room(self, number: int) -> Pointer:
        """Room for a vector of each row behind the sums."""
        f = self.frame
        place: Pointer = self.sums + (self.columns * ROWS + f.size * (ROWS * number))
        return place

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            direction, block = task.index // f.blocks, task.index % f.blocks
            first, stop = share(block, f.rows, f.blocks)
            count = stop - first
            self._copy_states(direction, first, count, "")
            backward = (direction + f.first_backward).equals(1)
            with k.loop(0, f.steps) as loop:
                step = k.select(backward, f.steps - 1 - loop.index, loop.index)
                self._step(direction, first, count, step)
            self._copy_states(direction, first, count, "last_")
        return f.finish()

    def _copy_states(self, direction: Int, first: Int, count: Int, kind: str) -> None:
        """The states from where they are given to scratch, or the last ones to the results."""
        f, k = self.frame, self.kernel
        for name, room in zip(self.spec.kept, self.states, strict=True):
            row, along, unit = (
                getattr(f, f"{kind}{name}_{axis}") for axis in ("row", "direction", "unit")
            )
            base = getattr(f, f"{kind}{name}") + (first * row + direction * along)
            with k.loop(0, count) as r, k.loop(0, f.size) as j:
                outside = base + (r.index * row + j.index * unit)
                inside = room + (r.index * f.size + j.index)
                source, place = (inside, outside) if kind else (outside, inside)
                k.store(k.load(source, lanes=1), place)

    def _step(self, direction: Int, first: Int, count: Int, step: Int) -> None:
        """All gates of all rows, and the states after them."""
        f, k = self.frame, self.kernel
        ends = f.ends + first * f.ends_row if self.spec.ends else None
        base = f.products + (first * f.products_row + step * f.products_step)
        products = base + direction * f.size * self.spec.cell.gates
        y = f.y + (first * f.y_row + step * f.y_step + direction * f.size)

        def row(r: Int, cut: int) -> None:
            out, nothing = y + r * f.y_row, k.zero()
            places = products + r * f.products_row, self.sums + r * self.columns, out

            def gates() -> None:
                self._gates(direction, r, *places, cut)

            def ended() -> None:
                k.each_vector(f.size, lambda j, mask: k.store(nothing, out + j, mask))

            if ends is None:
                gates()
            else:
                k.either(step < k.load_int(ends + r * f.ends_row), gates, ended)

        source = self.states[0]
        for cut, name in enumerate(self.spec.packed):
            self._product(source, getattr(f, name), getattr(f, f"{name}_panels"), direction, count)
            with k.loop(0, count) as loop:
                row(loop.index, cut)
            source = self.reset

    # -- products ---------------------------------------------------------------------------

    def _product(
        self, h: Pointer, weights: Pointer, panels: Int, direction: Int, count: Int
    ) -> None:
        f, k = self.frame, self.kernel
        each = f.panel * f.size
        weights = weights + direction * panels * each

        def tiles(rows: int, wide: int) -> None:
            with k.loop(0, panels, wide) as loop:
                arguments = [
                    h,
                    weights + loop.index * each,
                    self.sums + loop.index * f.panel,
                    f.size,
                    self.columns,
                    count,
                    panels - loop.index,
                ]
                k.call(self.tiles[rows], TILE_TYPE, arguments)

        self._fitting(count, TILES, tiles)

    def _fitting(self, count: Int, choices: Sequence[tuple[int, int]], tiles: Tiles) -> None:
        """The tile of so many rows; the last one does what no other does."""
        (rows, wide), *others = choices
        if not others:
            tiles(rows, wide)
            return
        self.kernel.either(
            count.equals(rows),
            lambda: tiles(rows, wide),
            lambda: self._fitting(count, others, tiles),
        )

    # -- gates ------------------------------------------------------------------------------

    def _gates(
        self, direction: Int, r: Int, products: Pointer, sums: Pointer, y: Pointer, cut: int
    ) -> None:
        """One row's states after the last cut. `products` and `sums`: of the row's gates."""
        f, k, cell = self.frame, self.kernel, self.spec.cell
        states = [room + r * f.size for room in self.states]
        update, reset = self.update + r * f.size, self.reset + r * f.size

        def units(j: Int, mask: Any) -> None:
            def read(base: Pointer, gate: int = 0) -> Vector:
                return k.load(base + (f.size * gate + j), mask=mask)

            def total(gate: int, among: int | None = None) -> Vector:
                """A gate's sum, number `among` of those that were computed with it."""
                return read(products, gate) + read(sums, gate if among is None else among)

            h = read(states[0])
            if isinstance(cell, Lstm):
                peephole = f.peephole + direction * f.size * 3 if self.spec.peephole else None
                new = self._lstm(total, read, peephole, read(states[1]))
            elif not isinstance(cell, Gru):
                new = [self._activated(0, total(0))]
            elif cut == 0 and not cell.linear_before_reset:
                k.store(self._activated(0, total(0)), update + j, mask)
                k.store(self._activated(0, total(1)) * h, reset + j, mask)
                return
            else:
                if cell.linear_before_reset:
                    inner = read(sums, 2) + read(f.late + direction * f.size)
                    z = self._activated(0, total(0))
                    n = k.fma(self._activated(0, total(1)), inner, read(products, 2))
                else:
                    z, n = read(update), total(2, among=0)
                new = [k.fma(z, h, (1.0 - z) * self._activated(1, n))]
            for value, state in zip(new, states, strict=True):
                k.store(value, state + j, mask)
            k.store(new[0], y + j, mask)

        k.each_vector(f.size, units)

    def _lstm(self, total: Any, read: Any, peephole: Pointer | None, c: Vector) -> list[Vector]:
        """The new h and c."""
        k, cell = self.kernel, self.spec.cell
        assert isinstance(cell, Lstm)

        def gate(number: int, c: Vector) -> Vector:
            x = total(number)
            if peephole is not None:
                x = k.fma(read(peephole, number), c, x)
            return self._activated(0, x)

        i = gate(0, c)
        forget = 1.0 - i if cell.input_forget else gate(2, c)
        c = k.fma(forget, c, i * self._activated(1, total(3)))
        return [gate(1, c) * lower(k, cell.activations[2], [c]), c]

    def _activated(self, which: int, x: Vector) -> Vector:
        k, cell = self.kernel, self.spec.cell
        if cell.clip is not None:
            x = at_most(k, at_least(k, x, -cell.clip), cell.clip)
        return lower(k, cell.activations[which], [x])


class _TileEmitter:
    """One tile function: raw sums of rows by panels, accumulated over the depth."""

    def __init__(self, module: ir.Module, target: Target, rows: int, panels: int) -> None:
        self.k = Kernel(module, target, f"tile{rows}", SIGNATURE)
        self.k.function.linkage = "internal"
        self.k.function.attributes.add("noinline")
        self.k.no_alias("weights")
        self.height, self.wide, self.vectors = rows, panels, target.panel_vectors
        self.parked = self.k.stack(rows * panels * self.vectors * target.vector)
        for name, _ in SIGNATURE:
            setattr(self, name, self.k.args[name])

    h: Pointer
    weights: Pointer
    sums: Pointer
    depth: Int
    sums_row: Int
    rows: Int
    panels: Int

    def emit(self) -> ir.Function:
        k, vectors = self.k, self.vectors
        width = vectors * k.vector
        each = self.depth * width
        rows = [self._row(r) for r in range(self.height)]
        panels = [(self.panels - 1).minimum(p) if p else k.int(0) for p in range(self.wide)]
        states = [self.h + r * self.depth for r in rows]
        weights = [self.weights + p * each for p in panels]

        def step(tile: list[Vector], first: Int, further: int) -> list[Vector]:
            at = first + further
            state = [k.splat(k.load(h + at, lanes=1)) for h in states]
            result = []
            for p, panel in enumerate(weights):
                for v in range(vectors):
                    place = panel + (at * width + v * k.vector)
                    weight = k.load(place, align=k.aligned)
                    for r in range(self.height):
                        before = tile[(p * vectors + v) * self.height + r]
                        result.append(k.fma(state[r], weight, before))
            return result

        start = [k.zero()] * (self.height * self.wide * vectors)
        tile = iter(accumulate(k, self.depth, start, self.parked, step))
        for p in panels:
            for v in range(vectors):
                for r in rows:
                    place = self.sums + (r * self.sums_row + (p * width + v * k.vector))
                    k.store(next(tile), place, align=k.aligned)
        k.finish()
        return k.function

    def _row(self, r: int) -> Int:
        """The row's number; rows and panels beyond the last repeat it."""
        if self.height < ROWS or r == 0:
            return self.k.int(r)
        return (self.rows - 1).minimum(r)
