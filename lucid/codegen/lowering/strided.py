"""Lowering to the strided kernels: elementwise ops and chains, copies, reductions, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lucid.codegen.body import PLAIN, Body
from lucid.codegen.kernels.strided import OUTER, REDUCED, Elementwise, Reduce, Softmax
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.epilogue import append_body, to_body
from lucid.codegen.program import ArgumentValue, View
from lucid.errors import UnsupportedError
from lucid.ir import ops
from lucid.ir.graph import Graph, Node, Value

LEAST_WORK = 1024
"""Floats a task should at least touch: below, claiming it costs more than doing it."""


def broadcast(view: View, shape: Sequence[int]) -> View:
    """The view read as an array of a broadcast shape: stride 0 where it is repeated."""
    missing = len(shape) - len(view.shape)
    sizes = (1,) * missing + view.shape
    strides = (0,) * missing + view.strides
    spread = tuple(0 if s == 1 else t for s, t in zip(sizes, strides, strict=True))
    return View(view.buffer, tuple(shape), spread, view.offset)


def merged(
    shape: Sequence[int], strides: Sequence[Sequence[int]], leader: int
) -> tuple[list[int], list[list[int]]]:
    """Fewer dimensions for the same elements, outermost first by the `leader` operand's strides:
    those of size 1 dropped, neighbours joined where every operand steps evenly over both."""
    order = sorted(
        (i for i, d in enumerate(shape) if d != 1), key=lambda i: -abs(strides[leader][i])
    )
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


def grid(
    ctx: Lowering, names: Sequence[str], sizes: list[int], steps: list[list[int]], origin: str
) -> tuple[dict[str, ArgumentValue], int]:
    """The grid arguments of a strided kernel, and its number of tasks."""
    *outer, inner = sizes
    if len(outer) > OUTER:
        raise UnsupportedError(
            f"{origin or 'the model'}: an array of {len(sizes)} dimensions that cannot be merged;"
            f" the strided kernels take {OUTER + 1}"
        )
    wanted = max(1, ctx.pieces(prod(sizes), LEAST_WORK) // max(1, prod(outer)))
    pieces = max(1, min(wanted, inner // LEAST_WORK))
    padding = OUTER - len(outer)
    arguments: dict[str, ArgumentValue] = {
        f"size{i}": d for i, d in enumerate([1] * padding + outer)
    }
    arguments |= {"inner": inner, "pieces": pieces}
    for name, step in zip(names, steps, strict=True):
        arguments |= {f"{name}_stride{i}": s for i, s in enumerate([0] * padding + step[:-1])}
        arguments[f"{name}_inner"] = step[-1]
    return arguments, prod(outer) * pieces


def elementwise(
    ctx: Lowering, body: Body, operands: Sequence[View], out: View, region: Graph, origin: str
) -> None:
    """out = body(operands), each broadcast to the shape of `out`."""
    read = [broadcast(v, out.shape) for v in operands]
    names = ["x", *(f"extra{i}" for i in range(len(read) - 1)), "y"]
    sizes, steps = merged(out.shape, [*(v.strides for v in read), out.strides], len(read))
    scalar = steps[-1][-1] != 1 or any(s[-1] not in (0, 1) for s in steps)
    kinds = tuple("constant" if s[-1] == 0 and not scalar else "vector" for s in steps[:-1])
    arguments, tasks = grid(ctx, names, sizes, steps, origin)
    bound: dict[str, ArgumentValue] = dict(zip(names, [*read, out], strict=True))
    kernel = Elementwise(body, kinds, scalar)
    ctx.call(kernel, tasks, bound | arguments, operands, [out], region, origin, algorithm="strided")


def copy(ctx: Lowering, source: View, out: View, origin: str) -> None:
    """out = source, whatever the strides."""
    region, inputs = ctx.region(origin, [source])
    region.set_outputs(inputs)
    elementwise(ctx, PLAIN, [source], out, region, origin)


def apply_body(
    ctx: Lowering, body: Graph, operands: Sequence[Value], result: Value, origin: str
) -> None:
    """A body graph as a kernel of its own."""
    steps = to_body(body, ["operand"] * (len(operands) - 1))
    _apply(ctx, steps, operands, result, origin)


def _apply(
    ctx: Lowering, body: Body, operands: Sequence[Value], result: Value, origin: str
) -> None:
    views = [ctx.view(v) for v in operands]
    out = ctx.result(result)
    region, inputs = ctx.region(origin, views)
    region.set_outputs([append_body(region, body, inputs[0], inputs[1:])])
    elementwise(ctx, body, views, out, region, origin)


@lowers(*(o for o in vars(ops).values() if isinstance(o, type) and issubclass(o, ops.Elementwise)))
def _elementwise(ctx: Lowering, node: Node) -> None:
    operands = list(range(len(node.inputs)))
    body = Body(("operand",) * (len(operands) - 1), ((node.op, tuple(operands)),))
    _apply(ctx, body, node.inputs, node.output, node.origin)


@lowers(ops.Sum, ops.Mean, ops.Max)
def _reduction(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.Sum | ops.Mean | ops.Max)
    x, out = ctx.view(node.inputs[0]), ctx.result(node.output)
    count = prod(x.shape[i] for i in op.axes)
    scale = 1.0 / max(1, count) if isinstance(op, ops.Mean) else 1.0
    kind = "max" if isinstance(op, ops.Max) else "sum"
    reduce(ctx, x, out, op.axes, kind, scale, Semantics.of(ctx, op, x, out, node.origin))


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


def reduce(
    ctx: Lowering,
    x: View,
    out: View,
    axes: Sequence[int],
    kind: str,
    scale: float,
    meaning: Semantics,
) -> None:
    """out = scale * (sum or max of x over `axes`), which `out` keeps as size 1 or drops."""
    origin = meaning.origin
    kept = [i for i in range(len(x.shape)) if i not in axes]
    places = kept if len(out.shape) == len(x.shape) else range(len(kept))
    sizes, (x_steps, y_steps) = merged(
        [x.shape[i] for i in kept],
        [[x.strides[i] for i in kept], [out.strides[i] for i in places]],
        1,
    )
    reduced = [x.shape[i] for i in axes]  # not merged: the kernel sums line by line
    r_steps = [x.strides[i] for i in axes]
    if len(reduced) > REDUCED:
        reduced, (r_steps,) = merged(reduced, [r_steps], 0)
    if len(reduced) > REDUCED:
        raise UnsupportedError(f"{origin}: a reduction over {len(reduced)} separate dimensions")
    scalar = x_steps[-1] != 1 or y_steps[-1] != 1
    arguments, tasks = grid(ctx, ("x", "y"), sizes, [x_steps, y_steps], origin)
    padding = REDUCED - len(reduced)
    arguments |= {f"reduced{i}": d for i, d in enumerate([1] * padding + reduced)}
    arguments |= {f"x_reduced{i}": s for i, s in enumerate([0] * padding + r_steps)}
    arguments["scale"] = scale
    ctx.call(
        Reduce(kind, scalar),
        tasks,
        {"x": x, "y": out, **arguments},
        meaning.reads,
        meaning.writes,
        meaning.region,
        origin,
        algorithm="reduce",
    )


@lowers(ops.Softmax)
def _softmax(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.Softmax)
    x, out = ctx.view(node.inputs[0]), ctx.result(node.output)
    softmax(ctx, x, out, op.axis, Semantics.of(ctx, op, x, out, node.origin))


def softmax(ctx: Lowering, x: View, out: View, axis: int, meaning: Semantics) -> None:
    """out = softmax of x along `axis`; both views have the same shape."""
    kept = [i for i in range(len(x.shape)) if i != axis]
    sizes, (x_steps, y_steps) = merged(
        [x.shape[i] for i in kept],
        [[x.strides[i] for i in kept], [out.strides[i] for i in kept]],
        1,
    )
    scalar = x_steps[-1] != 1 or y_steps[-1] != 1
    arguments, tasks = grid(ctx, ("x", "y"), sizes, [x_steps, y_steps], meaning.origin)
    arguments |= {"length": x.shape[axis], "x_axis": x.strides[axis], "y_axis": out.strides[axis]}
    ctx.call(
        Softmax(scalar),
        tasks,
        {"x": x, "y": out, **arguments},
        meaning.reads,
        meaning.writes,
        meaning.region,
        meaning.origin,
        algorithm="softmax",
    )
