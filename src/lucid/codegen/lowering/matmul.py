"""Lowering of products of two computed values."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from lucid.codegen.kernels.body import PLAIN, Body, Extra
from lucid.codegen.kernels.matmul import MatMul, scratch_bytes
from lucid.codegen.lowering.context import Lowering, channels_last, lowers, row_major
from lucid.codegen.lowering.epilogue import append_body, to_body
from lucid.codegen.lowering.fusion import apart, lowers_fused, parts
from lucid.codegen.lowering.shapes import reshaped
from lucid.codegen.lowering.strided import Grid, broadcast
from lucid.codegen.program.program import View
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import MatMul as MatMulOp
from lucid.ir.ops import Permute, Reshape

LEAST_WORK = 1 << 18
"""Operations of a task, at least, where there are tasks enough: a few microseconds."""
LEAST_ROWS = 24
"""Rows of a block, at least: each block packs b anew."""


@lowers(MatMulOp)
def _plain(ctx: Lowering, node: Node) -> None:
    a, b = node.inputs
    _matmul(ctx, node, a, b)


@lowers_fused(MatMulOp)
def _fused(ctx: Lowering, node: Node) -> None:
    """Product and body in one kernel, where the body's operands are contiguous along the result's
    contiguous axis or repeat themselves there; else the body is a kernel of its own."""
    op, (a, b), extras = parts(node)
    shape = ctx.shape(node.output)
    axis = -2 if _turned(shape, _strides(ctx, node.output, shape)) else -1
    steps = [broadcast(ctx.view(e), shape).strides[axis] for e in extras]
    if any(s not in (0, 1) for s in steps):
        apart(ctx, node, (a, b), extras)
        return
    body = to_body(op.body, [Extra("constant" if s == 0 else "vector") for s in steps])
    _matmul(ctx, node, a, b, body, extras)


def _matmul(
    ctx: Lowering,
    node: Node,
    a: Value,
    b: Value,
    body: Body = PLAIN,
    extras: Sequence[Value] = (),
) -> None:
    """One `MatMul` call. Where the result is to be contiguous along its rows' axis, the kernel
    computes the transposed product from the transposed operands."""
    shape = ctx.shape(node.output)
    y = _result(ctx, node.output, shape)
    reads = [ctx.view(v) for v in (a, b, *extras)]
    region, inputs = ctx.region(node.origin, reads)
    product = region.append(MatMulOp(), inputs[:2], origin=node.origin).output
    region.set_outputs([append_body(region, body, product, inputs[2:])])
    left, right = (_spread(v, shape[:-2]) for v in reads[:2])
    others = [broadcast(v, shape) for v in reads[2:]]
    views = [left, right, y, *others]
    if _turned(shape, y.strides):
        left, right, *rest = (_transposed(v) for v in views)
        views = [right, left, *rest]
    _call(ctx, body, views, reads, y, region, node.origin)


def _call(
    ctx: Lowering,
    body: Body,
    views: list[View],
    reads: list[View],
    out: View,
    region: Graph,
    origin: str,
) -> None:
    """The call for a, b, y and the extra operands, all spread over the same matrices."""
    a, b, y, *_ = views
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    kernel = MatMul(_side_by_side(b), body)
    grid = Grid.over(y.shape[:-2], [v.strides[:-2] for v in views], leader=2)
    count, panel = prod(grid.sizes), ctx.target.panel_vectors * ctx.target.vector
    panels = -(-columns // panel)
    work = 2 * count * rows * depth * columns
    blocks, chunks = _cut(ctx, count, rows, panels, work)
    arguments = grid.outer(range(len(grid.sizes)), kernel.operands, origin)
    arguments |= dict(zip(kernel.operands, views, strict=True))
    arguments |= {
        f"{name}_row": view.strides[-2] for name, view in zip(kernel.operands, views, strict=True)
    }
    arguments |= {"a_step": a.strides[-1], "b_step": arguments.pop("b_row")}
    arguments |= {"b_column": b.strides[-1], "rows": rows, "depth": depth, "columns": columns}
    arguments |= {"panels": panels, "blocks": blocks, "chunks": chunks}
    ctx.call(
        kernel,
        count * blocks * chunks,
        arguments,
        reads,
        [out],
        region,
        origin,
        algorithm="matmul",
        scratch=scratch_bytes(depth, ctx.target),
        work=work,
    )


def _cut(ctx: Lowering, count: int, rows: int, panels: int, work: int) -> tuple[int, int]:
    """Blocks of rows and chunks of panels: as many as give each thread a few tasks. Panels come
    first, since each block packs its panels anew."""
    wanted = min(4 * ctx.threads, work // LEAST_WORK)
    if ctx.threads == 1 or count == 0 or count >= wanted:
        return 1, 1
    chunks = min(panels, -(-wanted // count))
    return max(1, min(rows // LEAST_ROWS, -(-wanted // (count * chunks)))), chunks


def _side_by_side(b: View) -> str:
    """Along which axis b is contiguous."""
    (depth, columns), (step, column) = b.shape[-2:], b.strides[-2:]
    if column == 1 or columns == 1:
        return "columns"
    return "depth" if step == 1 or depth == 1 else "none"


def _spread(view: View, matrices: Sequence[int]) -> View:
    """The view with the matrices' dimensions broadcast to these."""
    spread = broadcast(view, (*matrices, *view.shape[-2:]))
    strides = (*spread.strides[:-2], *view.strides[-2:])
    return view.over(spread.shape, strides)


def _transposed(view: View) -> View:
    def turn(numbers: tuple[int, ...]) -> tuple[int, ...]:
        return (*numbers[:-2], numbers[-1], numbers[-2])

    return view.over(turn(view.shape), turn(view.strides))


def _turned(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the result is contiguous along its rows' axis and not along its columns'."""
    return strides[-1] != 1 and shape[-1] > 1


def _result(ctx: Lowering, value: Value, shape: tuple[int, ...]) -> View:
    """Where the result goes; a slice of a concatenation's channels has no contiguous axis."""
    strides = _strides(ctx, value, shape)
    if value not in ctx.placements:
        return ctx.result(value, like=View("", value.type.dtype, shape, strides))
    ctx.views[value] = ctx.allocate(value.name, value.type.dtype, shape, strides)
    return ctx.views[value]


def _strides(ctx: Lowering, value: Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How the result is to lie: row-major or, where it is only permuted and reshaped, so that this
    is no copy: the heads of an attention are put side by side, in a map channels last."""
    plain, axes, last = row_major(shape), tuple(range(len(shape))), value
    (user,) = value.users if len(value.users) == 1 else (None,)
    if user is not None and isinstance(user.op, Permute):
        axes, last = user.op.axes, user.output
    (user,) = last.users if len(last.users) == 1 else (None,)
    if user is None or not isinstance(user.op, Reshape) or 0 in shape:
        return plain
    final = ctx.shape(user.output)
    before = reshaped(
        View("", value.type.dtype, final, channels_last(final)), [shape[a] for a in axes]
    )
    if before is None:
        return plain
    strides = tuple(before.strides[axes.index(i)] for i in range(len(shape)))
    return strides if 1 in strides[-2:] else plain
