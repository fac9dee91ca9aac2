"""Lowering to the strided kernels: elementwise ops, chains of them, and copies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from lucid.codegen.kernels.body import OPERAND, PLAIN, Body
from lucid.codegen.kernels.strided import Elementwise, operand_names
from lucid.codegen.kernels.transpose import STRIP, Interleave, Transpose
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.elements import EVERY, MOST_APART, STRIDED, Access
from lucid.codegen.language.kernel import OUTER
from lucid.codegen.lowering.context import SMALL, Lowering, dense_like, lowers, row_major
from lucid.codegen.lowering.epilogue import append_body, to_body
from lucid.codegen.lowering.mapped import left_to_product, with_gates
from lucid.codegen.program.program import ArgumentValue, View
from lucid.errors import UnsupportedError
from lucid.ir import ops
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.recipe import Apply
from lucid.ir.types import is_float

LEAST_WORK = 1024
"""Numbers a task should at least touch: below, claiming it costs more than doing it."""


def broadcast(view: View, shape: Sequence[int]) -> View:
    """The view read as an array of a broadcast shape: stride 0 where it is repeated."""
    missing = len(shape) - len(view.shape)
    sizes = (1,) * missing + view.shape
    strides = (0,) * missing + view.strides
    spread = tuple(0 if s == 1 else t for s, t in zip(sizes, strides, strict=True))
    return view.over(shape, spread)


# -- grids ----------------------------------------------------------------------------------------


def outermost_first(dimensions: Iterable[int], strides: Sequence[int]) -> list[int]:
    """Dimensions by how far apart a view's elements lie along them; those of stride 0 come first,
    so that the last one is the one along which the view is contiguous, if there is one."""
    return sorted(dimensions, key=lambda i: -abs(strides[i]) if strides[i] else -math.inf)


def merged(
    shape: Sequence[int], strides: Sequence[Sequence[int]], leader: int
) -> tuple[list[int], list[list[int]]]:
    """Fewer dimensions for the same elements, outermost first by the `leader` operand's strides
    (those over which it repeats itself before all others): those of size 1 dropped, neighbours
    joined where every operand steps evenly over both."""
    order = outermost_first([i for i, d in enumerate(shape) if d != 1], strides[leader])
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for i in order:
        if sizes and all(s[-1] == t[i] * shape[i] for s, t in zip(steps, strides, strict=True)):
            sizes[-1] *= shape[i]
            for s, t in zip(steps, strides, strict=True):
                s[-1] = t[i]
            continue
        sizes.append(shape[i])
        for s, t in zip(steps, strides, strict=True):
            s.append(t[i])
    if not sizes:
        return [1], [[1] for _ in strides]
    return sizes, steps


@dataclass(frozen=True)
class Grid:
    """Dimensions that operands are walked over, outermost first, and each operand's strides."""

    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]

    @staticmethod
    def over(shape: Sequence[int], strides: Sequence[Sequence[int]], leader: int = -1) -> Grid:
        """As `merged` joins them."""
        sizes, steps = merged(shape, strides, leader)
        return Grid(tuple(sizes), tuple(map(tuple, steps)))

    def with_inner(self, dimension: int) -> Grid:
        """The same with this dimension innermost."""
        order = [i for i in range(len(self.sizes)) if i != dimension] + [dimension]
        steps = tuple(tuple(step[i] for i in order) for step in self.steps)
        return Grid(tuple(self.sizes[i] for i in order), steps)

    def accesses(self, dtypes: Sequence[str]) -> tuple[Access, ...]:
        """How the operands lie along the inner dimension; the result, the last one, is never
        written by every n-th number."""
        found = [Access.along(s[-1], d) for s, d in zip(self.steps, dtypes, strict=True)]
        if found[-1].kind == EVERY:
            found[-1] = Access(STRIDED, dtypes[-1])
        return tuple(found)

    def outer(
        self, dimensions: Sequence[int], names: Sequence[str], origin: str
    ) -> dict[str, ArgumentValue]:
        """The arguments of a kernel that is repeated over these dimensions. Raises
        UnsupportedError where they are more than four."""
        missing = OUTER - len(dimensions)
        if missing < 0:
            raise UnsupportedError(
                f"{origin or 'the model'}: an array of {len(self.sizes)} dimensions that cannot be"
                f" merged; its kernel takes {OUTER + len(self.sizes) - len(dimensions)}"
            )
        sizes = [1] * missing + [self.sizes[i] for i in dimensions]
        arguments: dict[str, ArgumentValue] = {f"size{i}": d for i, d in enumerate(sizes)}
        for name, step in zip(names, self.steps, strict=True):
            own = [0] * missing + [step[i] for i in dimensions]
            arguments |= {f"{name}_stride{i}": s for i, s in enumerate(own)}
        return arguments

    def bind(
        self, ctx: Lowering, names: Sequence[str], origin: str, whole: bool = False
    ) -> tuple[dict[str, ArgumentValue], int]:
        """The arguments of a kernel with this grid, and its number of tasks. `whole`: the inner
        dimension is not cut. Raises UnsupportedError where there are more than six dimensions."""
        (*outer, rows), inner = (1, *self.sizes)[:-1], self.sizes[-1]
        outer = outer[1:] if len(self.sizes) > 1 else outer
        arguments = self.outer(range(len(outer)), names, origin)
        count = prod(outer)
        wanted = -(-ctx.pieces(prod(self.sizes), LEAST_WORK) // max(1, count))
        cuts = max(1, min(rows, wanted))
        pieces = 1 if whole else max(1, min(-(-wanted // cuts), inner // LEAST_WORK))
        arguments |= {"rows": rows, "inner": inner, "parts": cuts, "pieces": pieces}
        for name, step in zip(names, self.steps, strict=True):
            row, along = (0, *step)[-2:]
            arguments |= {f"{name}_row": row, f"{name}_inner": along}
        return arguments, count * cuts * pieces


ROW_COST = 10
"""What beginning a row costs, in vectors."""


def best_inner(grid: Grid, vector: int) -> Grid:
    """The grid with the dimension inside along which it is walked the fastest: one that is long,
    and along which operands are contiguous rather than gathered."""

    def cost(dimension: int) -> float:
        size = grid.sizes[dimension]
        spacing = [s[dimension] for s in grid.steps]
        one_vector = sum(1.0 if s in (0, 1) else vector for s in spacing)
        scattered = 0.5 * vector if spacing[-1] != 1 else 0.0
        vectors = -(-size // vector)
        return (ROW_COST + vectors * (one_vector + scattered)) / max(1, size)

    last = len(grid.sizes) - 1
    return grid.with_inner(min(range(last, -1, -1), key=cost))


# -- elementwise ----------------------------------------------------------------------------------


def elementwise(
    ctx: Lowering, body: Body, operands: Sequence[View], out: View, region: Graph, origin: str
) -> None:
    """out = body(operands), each broadcast to the shape of `out`."""
    read = [broadcast(v, out.shape) for v in operands]
    names = operand_names(len(read))
    grid = Grid.over(out.shape, [v.strides for v in (*read, out)])
    grid = best_inner(grid, ctx.target.vector)
    dtypes = [v.dtype for v in (*operands, out)]
    kernel = Elementwise(body, grid.accesses(dtypes))
    arguments, tasks = grid.bind(ctx, names, origin)
    bound: dict[str, ArgumentValue] = dict(zip(names, [*read, out], strict=True))
    ctx.call(kernel, tasks, bound | arguments, operands, [out], region, origin, algorithm="strided")


def copy(ctx: Lowering, source: View, out: View, origin: str) -> None:
    """out = source, whatever the strides; where more dimensions are left than a kernel takes, as of
    pixels that become blocks in a part of a map, one call for each index of the shortest."""
    grid = Grid.over(out.shape, [source.strides, out.strides])
    if len(grid.sizes) > OUTER + 2:
        axis = min((d, i) for i, d in enumerate(out.shape) if d > 1)[1]
        for index in range(out.shape[axis]):
            copy(ctx, _at(source, axis, index), _at(out, axis, index), origin)
        return
    region, inputs = ctx.region(origin, [source])
    region.set_outputs(inputs)
    turned = transpose(ctx, source, out, region, origin)
    if not turned and not interleave(ctx, source, out, region, origin):
        elementwise(ctx, PLAIN, [source], out, region, origin)


def _at(view: View, axis: int, index: int) -> View:
    """What a view holds at one index of an axis, which is 1 long then."""
    shape = tuple(1 if i == axis else d for i, d in enumerate(view.shape))
    return view.over(shape, view.strides, view.offset + index * view.strides[axis])


LEAST_TURNED = 8
"""Numbers along the two dimensions that a copy exchanges, at least, to turn them in squares."""


def crossing(source: View, out: View) -> tuple[Grid, int, int] | None:
    """The dimensions of a copy that reads along one of them and writes along another, and which
    these are; None where it is no such copy."""
    read = broadcast(source, out.shape)
    grid = Grid.over(out.shape, [read.strides, out.strides])
    rows, columns = ([i for i, s in enumerate(steps) if s == 1] for steps in grid.steps)
    plain = source.dtype == out.dtype and rows != columns
    if not plain or not len(rows) == len(columns) == 1 or len(grid.sizes) > OUTER + 2:
        return None
    return grid, rows[0], columns[0]


def turning(source: View, out: View) -> tuple[Grid, int, int] | None:
    """As `crossing`, where both are long enough for squares."""
    found = crossing(source, out)
    if found is None or min(found[0].sizes[i] for i in found[1:]) < LEAST_TURNED:
        return None
    return found


def transpose(ctx: Lowering, source: View, out: View, region: Graph, origin: str) -> bool:
    """A copy between two orders, square by square; False, and nothing done, where it is none."""
    found = turning(source, out)
    if found is None:
        return False
    grid, row, column = found
    outer = [i for i in range(len(grid.sizes)) if i not in (row, column)]
    arguments = grid.outer(outer, ("x", "y"), origin)
    count = prod(grid.sizes[i] for i in outer)
    kernel = Transpose(out.dtype)
    side = kernel.side(ctx.target)
    high, wide = (-(-grid.sizes[i] // side) for i in (row, column))
    wanted = -(-ctx.pieces(prod(out.shape), LEAST_WORK) // max(1, count))
    cuts = max(1, min(wanted, -(-wide // STRIP)))
    parts = max(1, min(-(-wanted // cuts), high))
    arguments |= {"x": source, "y": out, "rows": grid.sizes[row], "columns": grid.sizes[column]}
    arguments |= {"x_column": grid.steps[0][column], "y_row": grid.steps[1][row]}
    arguments |= {"cuts": cuts, "parts": parts}
    tasks = count * cuts * parts
    ctx.call(kernel, tasks, arguments, [source], [out], region, origin, algorithm="strided")
    return True


def interleave(ctx: Lowering, source: View, out: View, region: Graph, origin: str) -> bool:
    """A copy of a few planes to pixels, or of groups of channels that are shuffled; False, and
    nothing done, where it is none."""
    found = crossing(source, out)
    if found is None:
        return False
    grid, row, column = found
    rows, columns = grid.sizes[row], grid.sizes[column]
    if columns > MOST_APART or grid.steps[1][row] != columns or rows < LEAST_TURNED:
        return False
    outer = [i for i in range(len(grid.sizes)) if i not in (row, column)]
    arguments = grid.outer(outer, ("x", "y"), origin)
    count = prod(grid.sizes[i] for i in outer)
    wanted = -(-ctx.pieces(prod(out.shape), LEAST_WORK) // max(1, count))
    parts = max(1, min(wanted, rows // LEAST_WORK))
    arguments |= {"x": source, "y": out, "rows": rows, "parts": parts}
    arguments |= {"x_column": grid.steps[0][column]}
    kernel, tasks = Interleave(columns, out.dtype), count * parts
    ctx.call(kernel, tasks, arguments, [source], [out], region, origin, algorithm="strided")
    return True


def in_order(ctx: Lowering, view: View, out: View, origin: str) -> View:
    """An operand, or where walking it with the result would gather it number by number, a copy that
    lies like the result: that reads and writes whole lines."""
    place = View("", view.dtype, out.shape, dense_like(out))
    small = prod(out.shape) < SMALL
    if small or view.shape != out.shape or turning(view, place) is None:
        return view
    turned = ctx.allocate(f"{view.buffer}.turned", view.dtype, place.shape, place.strides)
    copy(ctx, view, turned, origin)
    return turned


def parameter_in_order(ctx: Lowering, parameter: Parameter, view: View, out: View) -> View:
    """A parameter packed as the result lies, if it has more than one dimension of its own."""
    real = [i for i, d in enumerate(view.shape) if d > 1]
    strides = out.strides[len(out.shape) - len(view.shape) :]
    if len(real) < 2:
        return view
    order = sorted(range(len(view.shape)), key=lambda i: -abs(strides[i]))
    if [i for i in order if i in real] == real:
        return view
    recipe = Apply(ops.Permute(tuple(order)), (parameter.recipe,))
    shape = tuple(view.shape[i] for i in order)
    packed = ctx.packed(recipe, shape, f"{parameter.name}.turned")
    steps = dict(zip(order, row_major(shape), strict=True))
    return packed.over(view.shape, tuple(steps[i] for i in range(len(order))))


def like_largest(ctx: Lowering, views: Mapping[Value, View], result: Value) -> View | None:
    """How the result of an elementwise op should lie: as its first operand of the same shape that
    the model computes, or that a parameter gives where there is no other."""
    shape = ctx.shape(result)
    same = [(v, view) for v, view in views.items() if view.shape == shape]
    computed = [view for v, view in same if not isinstance(v, Parameter)]
    return next(iter([*computed, *(view for _, view in same)]), None)


def inlined(body: Graph, graph: Graph, operands: Sequence[Value]) -> Value:
    """The nodes of a body appended to another graph; `operands` stand for its inputs."""
    values = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        copied = graph.append(node.op, [values[v] for v in node.inputs], origin=node.origin)
        values.update(zip(node.outputs, copied.outputs, strict=True))
    return values[body.outputs[0]]


def apply_body(
    ctx: Lowering,
    body: Graph,
    operands: Sequence[Value],
    result: Value,
    origin: str,
    anchor: ops.Op | None = None,
    own: int = 1,
) -> None:
    """A graph of elementwise ops as a kernel of its own: over the operands, or over what an
    `anchor`, elementwise as well, makes of the first `own` of them and over the others."""
    chain = Graph("chain")
    inputs = {v: chain.add_input(v.type, "a") for v in dict.fromkeys(operands)}
    read = [inputs[v] for v in operands]
    if anchor is not None:
        read = [*chain.append(anchor, read[:own]).outputs, *read[own:]]
    chain.set_outputs([inlined(body, chain, read)])
    _run(ctx, chain, list(inputs), result, origin)


def _run(
    ctx: Lowering, chain: Graph, operands: Sequence[Value], result: Value, origin: str
) -> None:
    """A graph of elementwise ops over different values, as one kernel."""
    for node in chain.nodes:
        kinds = [v.type for v in (*node.inputs, node.output)]
        # What a cast reads and writes is converted as it is loaded and stored.
        strange = [k for k in kinds if is_float(k.dtype) and k.dtype != COMPUTED]
        if strange and not isinstance(node.op, ops.Cast):
            raise UnsupportedError(
                f"{origin or 'the model'}: {node.op.name} gives {kinds[-1]} from"
                f" {', '.join(map(str, kinds[:-1]))}; kernels compute with {COMPUTED}"
            )
    body = to_body(chain, [OPERAND] * (len(operands) - 1))
    if left_to_product(ctx, body, operands, result):
        return
    body, views = with_gates(ctx, body, operands)
    lie = dict(zip(operands, views, strict=False))
    out = ctx.result(result, like_largest(ctx, lie, result))
    for i, value in enumerate(operands):
        if isinstance(value, Parameter):
            views[i] = parameter_in_order(ctx, value, views[i], out)
    views = [in_order(ctx, v, out, origin) for v in views]
    region, inputs = ctx.region(origin, views)
    region.set_outputs([append_body(region, body, inputs[0], inputs[1:])])
    elementwise(ctx, body, views, out, region, origin)


@lowers(ops.Elementwise, ops.Cast)
def _elementwise(ctx: Lowering, node: Node) -> None:
    body = Graph("body")
    body.set_outputs([body.add_input(node.output.type, "y")])
    apply_body(ctx, body, node.inputs, node.output, node.origin, node.op, len(node.inputs))
