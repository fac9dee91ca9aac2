"""Lowering of reductions, of arg max, and of softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lucid.codegen.kernels.reduction import REDUCED, ArgMax, Reduce, Softmax
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.elements import EVERY, STRIDED, Access
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.lowering.context import Lowering, dense_like, lowers
from lucid.codegen.lowering.strided import Grid, best_inner, outermost_first
from lucid.codegen.program.program import ArgumentValue, View
from lucid.errors import UnsupportedError
from lucid.ir import ops
from lucid.ir.graph import Graph, Node
from lucid.ir.types import Dim

LINES = 64
"""Numbers side by side that one task of a reduction takes with little loss."""
LEAST_TASK = 1 << 13
"""Numbers that a task should at least reduce."""
LEAST_PART = 1 << 14
"""Numbers that a part of a reduction should have: below, putting parts together costs more."""
MOST_PARTS = 16


@dataclass(frozen=True)
class Semantics:
    """What a call computes: its region, and the logical views that the region reads and writes."""

    region: Graph
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    origin: str

    @staticmethod
    def of(ctx: Lowering, op: ops.Op, x: View, out: View, origin: str) -> Semantics:
        """One op of one operand."""
        region, inputs = ctx.region(origin, [x])
        region.set_outputs([region.append(op, inputs).output])
        return Semantics(region, (x,), (out,), origin)


def is_along(x: View, axes: Sequence[int]) -> bool:
    """Whether the contiguous dimension of a view is among the axes. (One of size 1 is none, so
    that this is the same for every batch.)"""
    return any(x.strides[a] == 1 and x.shape[a] > 1 for a in axes)


def reduce(
    ctx: Lowering,
    x: View,
    out: View,
    axes: Sequence[int],
    kind: str,
    scale: float,
    meaning: Semantics,
    centre: View | None = None,
) -> None:
    """out = scale * (sum, sum of squares, product, max or min of x, or of x - centre, over `axes`),
    which `out` and `centre` keep as size 1 or drop."""
    along = is_along(x, axes)
    kept = [i for i in range(len(x.shape)) if i not in axes]
    operands = [x, *([centre] if centre is not None else []), out]
    walked = Grid.over([x.shape[i] for i in kept], [_kept(v, x, kept) for v in operands], 0)
    if not along:
        walked = best_inner(walked, ctx.target.vector)
    reduced, r_steps = _reduced(x, axes, along, meaning.origin)
    dtypes = [v.dtype for v in operands]
    accesses = tuple(Access(STRIDED, d) for d in dtypes) if along else spaced(walked, dtypes)
    kernel = Reduce(kind, accesses, along, centre is not None)
    arguments, _ = walked.bind(ctx, kernel.names, meaning.origin)
    cuts, tasks = _cuts(ctx, walked, along, prod(reduced))
    arguments |= cuts
    arguments |= {f"reduced{i}": d for i, d in enumerate(reduced)}
    arguments |= {f"x_reduced{i}": s for i, s in enumerate(r_steps)}
    arguments["scale"] = scale
    bound: dict[str, ArgumentValue] = dict(zip(kernel.names, operands, strict=True))
    _call(ctx, kernel, tasks, bound | arguments, meaning, "reduce")


def _call(
    ctx: Lowering,
    kernel: KernelSpec,
    tasks: int,
    arguments: dict[str, ArgumentValue],
    meaning: Semantics,
    algorithm: str,
) -> None:
    ctx.call(
        kernel,
        tasks,
        arguments,
        meaning.reads,
        meaning.writes,
        meaning.region,
        meaning.origin,
        algorithm=algorithm,
    )


def _kept(view: View, x: View, kept: Sequence[int]) -> list[int]:
    """A view's strides over the dimensions of x that are kept."""
    places = kept if len(view.shape) == len(x.shape) else range(len(kept))
    return [view.strides[i] for i in places]


def spaced(walked: Grid, dtypes: Sequence[str]) -> tuple[Access, ...]:
    """The accesses of operands that are never sorted out in registers."""
    found = walked.accesses(dtypes)
    return tuple(Access(STRIDED, a.dtype) if a.kind == EVERY else a for a in found)


def _reduced(x: View, axes: Sequence[int], along: bool, origin: str) -> tuple[list[int], list[int]]:
    """Sizes and strides of the reduced dimensions, the innermost last; not merged where there are
    few enough, because the kernel sums line by line."""
    order = outermost_first([a for a in axes if x.shape[a] != 1], x.strides)
    sizes, steps = [x.shape[a] for a in order], [x.strides[a] for a in order]
    if len(sizes) > REDUCED or along:
        merged = Grid.over(sizes, [steps], 0)
        sizes, steps = list(merged.sizes), list(merged.steps[0])
    if len(sizes) > REDUCED:
        raise UnsupportedError(
            f"{origin or 'the model'}: a reduction over {len(sizes)} separate dimensions; the"
            f" kernels take {REDUCED}"
        )
    padding = REDUCED - len(sizes)
    return [1] * padding + sizes, [0] * padding + steps


def _cuts(
    ctx: Lowering, walked: Grid, along: bool, reduced: int
) -> tuple[dict[str, ArgumentValue], int]:
    """Into how many parts to cut rows and inner dimension of what is kept, and how many tasks that
    makes: by what there is to reduce, not by the few floats to write."""
    (*outer, rows), inner = (1, *walked.sizes)[:-1], walked.sizes[-1]
    count = prod(outer)
    wanted = -(-ctx.pieces(prod(walked.sizes) * reduced, LEAST_TASK) // max(1, count))
    parts = max(1, min(rows, wanted))
    pieces = max(1, min(-(-wanted // parts), inner if along else inner // LINES))
    return {"parts": parts, "pieces": pieces}, count * parts * pieces


# -- sums and extremes ----------------------------------------------------------------------------

Reduced = ops.Sum | ops.SumSquares | ops.Prod | ops.Mean | ops.Max | ops.Min
KINDS: dict[type[ops.Op], str] = {
    ops.Sum: "sum",
    ops.SumSquares: "squares",
    ops.Prod: "product",
    ops.Mean: "sum",
    ops.Max: "max",
    ops.Min: "min",
}


@lowers(*KINDS)
def _reduction(ctx: Lowering, node: Node) -> None:
    """In two phases where few results leave tasks too large: parts of the first reduced dimension,
    then the parts."""
    op = node.op
    assert isinstance(op, Reduced)
    x, out = ctx.view(node.inputs[0]), ctx.result(node.output)
    batch = {i for i, d in enumerate(node.inputs[0].type.shape) if isinstance(d, Dim)}
    axes = sorted(op.axes, key=lambda a: -abs(x.strides[a]))
    first = next((a for a in axes if x.shape[a] > 1), None)
    parts = 1 if first is None else cut(x, op.axes, first, batch)
    if first is None or parts == 1:
        _reduce(ctx, op, x, out, node.origin)
        return
    split = x.over(
        (*x.shape[:first], parts, x.shape[first] // parts, *x.shape[first + 1 :]),
        (*x.strides[:first], x.strides[first] * (x.shape[first] // parts), *x.strides[first:]),
    )
    inner = tuple(a + 1 if a >= first else a for a in op.axes)
    shape = tuple(1 if a in inner else d for a, d in enumerate(split.shape))
    like = View("", split.dtype, shape, split.strides)
    partial = ctx.allocate(f"{node.output.name}.parts", x.dtype, shape, dense_like(like))
    over_parts = tuple(sorted({first, *inner}))
    region, inputs = ctx.region(node.origin, [x])
    whole = region.append(ops.Reshape(split.shape), inputs).output
    region.set_outputs([region.append(type(op)(inner, True), [whole]).output])
    _reduce(ctx, type(op)(inner, True), split, partial, node.origin, region, x)
    region, inputs = ctx.region(node.origin, [partial])
    together = ops.Sum if isinstance(op, ops.SumSquares) else type(op)
    total = region.append(together(over_parts, False), inputs).output
    region.set_outputs([total])
    kept = out.over(*_without(out, op, len(x.shape)))
    meaning = Semantics(region, (partial,), (out,), node.origin)
    scale = 1.0 / parts if isinstance(op, ops.Mean) else 1.0
    reduce(ctx, partial, kept, over_parts, KINDS[together], scale, meaning)


def _without(out: View, op: Reduced, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of a result without the dimensions that were reduced."""
    kept = [i for i in range(len(out.shape)) if len(out.shape) < rank or i not in op.axes]
    return tuple(out.shape[i] for i in kept), tuple(out.strides[i] for i in kept)


def _reduce(
    ctx: Lowering,
    op: Reduced,
    x: View,
    out: View,
    origin: str,
    region: Graph | None = None,
    source: View | None = None,
) -> None:
    """One phase of a reduction; `region` computes it from `source`, of which x is another shape."""
    count = prod(x.shape[i] for i in op.axes)
    mean = 1.0 / count if count else math.nan
    scale = mean if isinstance(op, ops.Mean) else 1.0
    if region is None or source is None:
        meaning = Semantics.of(ctx, op, x, out, origin)
    else:
        meaning = Semantics(region, (source,), (out,), origin)
    reduce(ctx, x, out, op.axes, KINDS[type(op)], scale, meaning)


def cut(x: View, axes: Sequence[int], first: int, batch: set[int]) -> int:
    """Into how many equal parts to cut the first reduced dimension. By sizes alone, the batch and
    the threads apart, so that they change no sum."""
    if batch & set(axes):
        return 1
    reduced = prod(x.shape[a] for a in axes)
    width = prod(d for i, d in enumerate(x.shape) if i not in axes and i not in batch)
    tasks = width if is_along(x, axes) else max(1, width // LINES)
    wanted = min(MOST_PARTS, reduced * width // LEAST_PART) // tasks
    size = x.shape[first]
    divisors = [d for d in range(2, min(size, 4 * wanted) + 1) if size % d == 0]
    return min(divisors, key=lambda d: abs(d - wanted), default=1) if wanted > 1 else 1


# -- along one axis -------------------------------------------------------------------------------


@lowers(ops.ArgMax, ops.ArgMin)
def _arg_max(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.ArgMax | ops.ArgMin)
    x, out = ctx.view(node.inputs[0]), ctx.result(node.output)
    along = is_along(x, (op.axis,))
    kept = [i for i in range(len(x.shape)) if i != op.axis]
    strides = [_kept(v, x, kept) for v in (x, out)]
    walked = Grid.over([x.shape[i] for i in kept], strides, 0)
    if not along:
        walked = best_inner(walked, ctx.target.vector)
    dtypes = [x.dtype, out.dtype]
    accesses = tuple(Access(STRIDED, d) for d in dtypes) if along else spaced(walked, dtypes)
    kernel = ArgMax(accesses, along, isinstance(op, ops.ArgMin), op.last)
    arguments, tasks = walked.bind(ctx, ("x", "y"), node.origin)
    arguments |= {"x": x, "y": out, "length": x.shape[op.axis], "x_axis": x.strides[op.axis]}
    meaning = Semantics.of(ctx, op, x, out, node.origin)
    _call(ctx, kernel, tasks, arguments, meaning, "arg_max")


@lowers(ops.Softmax)
def _softmax(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.Softmax)
    x = ctx.view(node.inputs[0])
    out = ctx.result(node.output, x)
    softmax(ctx, x, out, op.axis, Semantics.of(ctx, op, x, out, node.origin))


def softmax(ctx: Lowering, x: View, out: View, axis: int, meaning: Semantics) -> None:
    """out = softmax of x along `axis`; both views have the same shape."""
    kept = [i for i in range(len(x.shape)) if i != axis]
    arguments: dict[str, ArgumentValue] = {"x": x, "y": out}
    if x.strides[axis] == out.strides[axis] == 1 or x.shape[axis] == 1:
        shape, strides = (
            [x.shape[i] for i in kept],
            [[v.strides[i] for i in kept] for v in (x, out)],
        )
        rows = Grid.over(shape, strides)
        walked = Grid((*rows.sizes, x.shape[axis]), tuple((*s, 1) for s in rows.steps))
        kernel = Softmax(along=True)
        own, tasks = walked.bind(ctx, ("x", "y"), meaning.origin, whole=True)
    else:
        strides = [[v.strides[i] for i in kept] for v in (x, out)]
        walked = best_inner(Grid.over([x.shape[i] for i in kept], strides), ctx.target.vector)
        kernel = Softmax(spaced(walked, [COMPUTED] * 2))
        own, tasks = walked.bind(ctx, ("x", "y"), meaning.origin)
        arguments |= {"length": x.shape[axis]}
        arguments |= {"x_axis": x.strides[axis], "y_axis": out.strides[axis]}
    _call(ctx, kernel, tasks, arguments | own, meaning, "softmax")
