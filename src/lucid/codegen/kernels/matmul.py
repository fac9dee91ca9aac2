"""Products of two computed matrices, any number of them: the attention of a transformer block.

    y[n, i, j] = body(sum over k of a[n, i, k] * b[n, k, j])

One task is one pair of matrices, or a block of a's rows by a chunk of b's columns where there are
few pairs. b is packed panel by panel into scratch, from any strides; a is read where it lies, one
number at a time, so any strides do there too. The register tile is the one of all products, with
widths from one vector to the widest panel, since the columns here are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.accumulation import accumulate
from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.kernels.product import RowGroups
from lucid.codegen.kernels.transpose import transposed
from lucid.codegen.language.builder import Kernel, function_type
from lucid.codegen.language.elements import STRIDED, VECTOR, Access
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    places,
    repeated,
    repeated_extents,
    share,
)
from lucid.codegen.language.values import F32, I64, Int, Pointer, PointerTo, Vector, size_of
from lucid.codegen.target import Target

HEIGHTS = (6, 5)
"""Rows of the tiles. The shorter one also does fewer: its last row is then computed again."""

SIGNATURE = [
    ("a", PointerTo(F32)),  # the first row
    ("panel", PointerTo(F32)),  # b's columns, [depth][panel width]
    ("y", PointerTo(F32)),  # the first row of the result
    ("depth", I64),
    ("a_row", I64),  # floats from one row to the next
    ("a_step", I64),  # floats from one number of a row to the next
    ("y_row", I64),
    ("rows", I64),  # read by the shorter tile only
    ("columns", I64),  # how many of the panel's columns the result has
    ("extras", PointerTo(I64)),  # for each extra operand of the body: address, row stride
]
TILE_TYPE = function_type(SIGNATURE)


@dataclass(frozen=True)
class MatMul(KernelSpec):
    """`side_by_side`: along which of its axes b is contiguous, `"columns"`, `"depth"` or `"none"`.

    The body's extras are `"vector"` (contiguous along the columns) or `"constant"` along them; each
    has strides of its own over the rows and the matrices.
    """

    family: ClassVar[str] = "matmul"
    side_by_side: str = "columns"
    body: Body = PLAIN

    @property
    def operands(self) -> tuple[str, ...]:
        return ("a", "b", "y", *(f"extra{i}" for i in range(len(self.body.extras))))

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers(*self.operands) + repeated(*self.operands)
        rows = ints(*(f"{o}_row" for o in self.operands if o != "b"))
        steps = ints("a_step", "b_step", "b_column")
        sizes = ints("rows", "depth", "columns", "panels", "blocks", "chunks")
        return declared + rows + steps + sizes

    def extents(self, given: Given) -> dict[str, Extent]:
        number = given.tasks_over(given.blocks, given.chunks)
        found = repeated_extents(given, number, *self.operands)
        rows, depth, columns = given.rows, given.depth, given.columns
        step, column = (
            Access(VECTOR if self.side_by_side == axis else STRIDED).step(count, stride)
            for axis, count, stride in (
                ("depth", depth, given.b_step),
                ("columns", columns, given.b_column),
            )
        )
        found["a"] += ((rows, given.a_row), (depth, given.a_step))
        found["b"] += ((depth, step), (columns, column))
        found["y"] += ((rows, given.y_row), (columns, 1))
        for i, extra in enumerate(self.body.extras):
            row = getattr(given, f"extra{i}_row")
            found[f"extra{i}"] += ((rows, row), (columns, 1 if extra.kind == "vector" else 0))
        return found

    def emit(self, target: Target) -> ir.Module:
        return _MatMulEmitter(self, target).emit()


def scratch_bytes(depth: int, target: Target) -> int:
    """Scratch that a task needs for one panel, whose depth is filled up to whole vectors."""
    padded = -(-depth // target.vector) * target.vector
    return size_of(F32) * padded * target.panel_vectors * target.vector


class _MatMulEmitter:
    def __init__(self, spec: MatMul, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.extras = self.kernel.stack(2 * max(1, len(spec.body.extras)), I64)
        widths = range(1, target.panel_vectors + 1)
        self.tiles = {
            (v, h): _TileEmitter(self.frame.module, target, spec.body, v, h).emit()
            for v in widths
            for h in HEIGHTS
        }

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            block, rest = task.index % f.blocks, task.index // f.blocks
            chunk, number = rest % f.chunks, rest // f.chunks
            operands = self.spec.operands
            at = dict(zip(operands, places(f, number, *operands), strict=True))
            rows = share(block, f.rows, f.blocks)
            with k.loop(*share(chunk, f.panels, f.chunks)) as panel:
                self._panel(at, rows, panel.index)
        return f.finish()

    def _panel(self, at: dict[str, Pointer], rows: tuple[Int, Int], panel: Int) -> None:
        """A block of rows times one panel: the vectors of columns are shared evenly, so that no
        panel is a narrow rest."""
        f, k = self.frame, self.kernel
        first, last = share(panel, f.columns.ceil_div(k.vector), f.panels)
        column, vectors = first * k.vector, last - first
        columns = (f.columns - column).minimum(vectors * k.vector)
        self._pack(at["b"] + column * f.b_column, vectors, columns)
        start, stop = rows
        groups = RowGroups.of(stop - start, HEIGHTS[0])
        with k.loop(0, groups.count) as loop:
            offset, height = groups.place(k, loop.index)
            row = start + offset
            if k.target.asks_to_write:
                ahead = row + 2 * HEIGHTS[0]
                self._prefetch(at, (ahead, stop.minimum(ahead + HEIGHTS[0])), column, columns)
            for i, extra in enumerate(self.spec.body.extras):
                stride = getattr(f, f"extra{i}_row")
                place = at[f"extra{i}"] + row * stride
                place = place + column if extra.kind == "vector" else place
                k.store_pointer(place, self.extras.words(2 * i))
                k.store_int(stride, self.extras.words(2 * i + 1))
            arguments = [
                at["a"] + row * f.a_row,
                f.scratch.to(F32),
                at["y"] + (row * f.y_row + column),
                f.depth,
                f.a_row,
                f.a_step,
                f.y_row,
                height,
                columns,
                self.extras,
            ]
            self._call(vectors, height, arguments)

    def _prefetch(
        self, at: dict[str, Pointer], rows: tuple[Int, Int], column: Int, columns: Int
    ) -> None:
        """Ask for what these rows, those of the row group after the next one, read beside the
        product, and write: one of few steps of k is done before it comes."""
        f, k = self.frame, self.kernel
        extras = enumerate(self.spec.body.extras)
        names = ["y", *(f"extra{i}" for i, extra in extras if extra.kind == "vector")]
        with k.loop(*rows) as row:
            for name in names:
                place = at[name] + (row.index * getattr(f, f"{name}_row") + column)
                k.prefetch_lines([place], columns, write=name == "y")

    def _call(self, vectors: Int, height: Int, arguments: list[Any], width: int = 1) -> None:
        """Call the tile of this width and height."""
        k, (tall, short) = self.kernel, HEIGHTS

        def this_width() -> None:
            k.either(
                height.equals(tall),
                lambda: k.call(self.tiles[width, tall], TILE_TYPE, arguments),
                lambda: k.call(self.tiles[width, short], TILE_TYPE, arguments),
            )

        if width == k.target.panel_vectors:
            this_width()
            return
        k.either(
            vectors.equals(width),
            this_width,
            lambda: self._call(vectors, height, arguments, width + 1),
        )

    # -- packing ----------------------------------------------------------------------------

    def _pack(self, b: Pointer, vectors: Int, columns: Int) -> None:
        """`columns` columns of b from its place on, as a panel in scratch."""
        k = self.kernel
        pack = {"columns": self._copied, "depth": self._turned, "none": self._picked}
        with k.loop(0, vectors) as v:
            column = v.index * k.vector
            out = self.frame.scratch.to(F32) + column
            left = (columns - column).minimum(k.vector)
            source = b + column * self.frame.b_column
            pack[self.spec.side_by_side](source, out, vectors * k.vector, left)

    def _copied(self, b: Pointer, out: Pointer, width: Int, left: Int) -> None:
        f, k = self.frame, self.kernel

        def copy(mask: Any) -> None:
            with k.loop(0, f.depth) as step:
                value = k.load(b + step.index * f.b_step, mask=mask)
                k.store(value, out + step.index * width, align=k.aligned)

        k.either(left >= k.vector, lambda: copy(None), lambda: copy(k.first_lanes(left)))

    def _turned(self, b: Pointer, out: Pointer, width: Int, left: Int) -> None:
        """Squares of numbers, turned round; columns that b lacks repeat its last one."""
        f, k = self.frame, self.kernel
        columns = [b + (left - 1).minimum(i) * f.b_column for i in range(k.vector)]

        def turn(step: Int, mask: Any) -> None:
            square = transposed(k, [k.load(c + step, mask=mask) for c in columns])
            for i, value in enumerate(square):
                k.store(value, out + (step + i) * width, align=k.aligned)

        k.each_vector(f.depth, turn)

    def _picked(self, b: Pointer, out: Pointer, width: Int, left: Int) -> None:
        f, k = self.frame, self.kernel
        with k.loop(0, f.depth) as step, k.loop(0, left) as column:
            value = k.load(b + (step.index * f.b_step + column.index * f.b_column), lanes=1)
            k.store(value, out + (step.index * width + column.index))


class _TileEmitter:
    """One tile function: rows x vectors accumulators over a loop on k, then the body."""

    def __init__(
        self, module: ir.Module, target: Target, body: Body, vectors: int, height: int
    ) -> None:
        self.k = Kernel(module, target, f"tile{vectors}x{height}", SIGNATURE)
        self.k.function.linkage = "internal"
        self.k.function.attributes.add("noinline")
        self.k.no_alias("panel")
        self.body, self.vectors, self.height = body, vectors, height
        self.sums = self.k.stack(height * vectors * target.vector)
        for name, _ in SIGNATURE:
            setattr(self, name, self.k.args[name])

    a: Pointer
    panel: Pointer
    y: Pointer
    depth: Int
    a_row: Int
    a_step: Int
    y_row: Int
    rows: Int
    columns: Int
    extras: Pointer

    def emit(self) -> ir.Function:
        k = self.k
        rows = [self.a + self._row(r) * self.a_row for r in range(self.height)]
        width = self.vectors * k.vector

        def step(tile: list[Vector], first: Int, further: int) -> list[Vector]:
            at = first + further
            place = self.panel + at * width
            b = [k.load(place + v * k.vector, align=k.aligned) for v in range(self.vectors)]
            result = []
            for r, row in enumerate(rows):
                value = k.splat(k.load(row + at * self.a_step, lanes=1))
                pairs = zip(b, tile[r * self.vectors :], strict=False)
                result += [k.fma(value, weight, total) for weight, total in pairs]
            return result

        start = [k.zero()] * (self.height * self.vectors)
        self._epilogue(accumulate(k, self.depth, start, self.sums, step))
        k.finish()
        return k.function

    def _row(self, r: int) -> Int:
        if self.height == HEIGHTS[0] or r == 0:
            return self.k.int(r)
        return (self.rows - 1).minimum(r)

    def _epilogue(self, tile: list[Vector]) -> None:
        """Vectors wholly inside the result are stored as they are, the last one by a mask."""
        k = self.k

        def store(mask: Any) -> None:
            for r in range(self.height):
                for v in range(self.vectors):
                    last = v == self.vectors - 1
                    self._store(tile[r * self.vectors + v], r, v, mask if last else None)

        mask = k.first_lanes(self.columns - (self.vectors - 1) * k.vector)
        if k.target.masked:
            store(mask)
            return
        whole = self.columns >= self.vectors * k.vector
        k.either(whole, lambda: store(None), lambda: store(mask))

    def _store(self, value: Vector, r: int, v: int, mask: Any) -> None:
        k, row, at = self.k, self._row(r), v * self.k.vector
        read = []
        for i, extra in enumerate(self.body.extras):
            stride = k.load_int(self.extras.words(2 * i + 1))
            place = k.load_pointer(self.extras.words(2 * i), F32) + row * stride
            if extra.kind == "vector":
                read.append(k.load(place + at, mask=mask))
            else:
                read.append(k.splat(k.load(place, lanes=1)))
        k.store(self.body.emit(k, value, read), self.y + (row * self.y_row + at), mask=mask)
