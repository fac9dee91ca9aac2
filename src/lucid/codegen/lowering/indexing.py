"""Lowering of taking and putting by indices that the model computes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from lucid.codegen.kernels.indexing import PUT, TAKE, Put, Take
from lucid.codegen.lowering.context import Lowering, lowers, row_major
from lucid.codegen.lowering.reduction import spaced
from lucid.codegen.lowering.shapes import matrix
from lucid.codegen.lowering.strided import Grid, best_inner, copy
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir import ops
from lucid.ir.graph import Node
from lucid.ir.ops.base import Op

# -- taking ---------------------------------------------------------------------------------------


def take(
    ctx: Lowering,
    op: Op,
    x: View,
    indices: View,
    y: View,
    axes: Sequence[int],
    x_steps: Sequence[int],
    index_steps: Sequence[int],
    origin: str,
) -> None:
    """One `Take` call: y by indices along these `axes` of x. `x_steps`, `index_steps`: strides of x
    and of the indices over the axes of y. Where there are several axes the last one of the indices
    counts them."""
    walked = Grid.over(y.shape, [x_steps, index_steps, y.strides])
    walked = best_inner(walked, ctx.target.vector)
    kernel = Take(len(axes), spaced(walked, [x.dtype, indices.dtype, y.dtype]))
    arguments, tasks = walked.bind(ctx, TAKE, origin)
    lengths, steps = [x.shape[a] for a in axes], [x.strides[a] for a in axes]
    source = x.over((*y.shape, *lengths), (*x_steps, *steps))
    step = indices.strides[-1] if isinstance(op, ops.GatherND) else 0
    place = indices.over((*y.shape, len(axes)), (*index_steps, step))
    arguments |= {"x": source, "indices": place, "y": y, "index_step": step}
    arguments |= {f"length{j}": d for j, d in enumerate(lengths)}
    arguments |= {f"x_axis{j}": s for j, s in enumerate(steps)}
    region, inputs = ctx.region(origin, [x, indices])
    region.set_outputs([region.append(op, inputs).output])
    ctx.call(kernel, tasks, arguments, [x, indices], [y], region, origin, algorithm="take")


def gather_along(ctx: Lowering, node: Node) -> None:
    """y = x with an axis replaced by those of computed indices."""
    op, origin = node.op, node.origin
    assert isinstance(op, ops.Gather)
    x, indices = (ctx.view(v) for v in node.inputs)
    y, axis, count = ctx.result(node.output), op.axis, len(indices.shape)
    before, after = x.strides[:axis], x.strides[axis + 1 :]
    x_steps = (*before, *[0] * count, *after)
    index_steps = (*[0] * len(before), *indices.strides, *[0] * len(after))
    take(ctx, op, x, indices, y, [axis], x_steps, index_steps, origin)


def narrowed(view: View, shape: Sequence[int], axis: int) -> View:
    """As much of a view as `shape` says along all other axes."""
    sizes = (d if i == axis else n for i, (d, n) in enumerate(zip(view.shape, shape, strict=True)))
    return view.over(tuple(sizes), view.strides)


@lowers(ops.GatherElements)
def _gather_elements(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.GatherElements)
    x, indices = (ctx.view(v) for v in node.inputs)
    y = ctx.result(node.output, indices)
    x = narrowed(x, indices.shape, op.axis)
    x_steps = [0 if i == op.axis else s for i, s in enumerate(x.strides)]
    take(ctx, op, x, indices, y, [op.axis], x_steps, indices.strides, node.origin)


@lowers(ops.GatherND)
def _gather_nd(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.GatherND)
    x, indices = (ctx.view(v) for v in node.inputs)
    y, own, depth = ctx.result(node.output), op.batch_dims, indices.shape[-1]
    places = len(indices.shape) - 1 - own
    rest = x.strides[own + depth :]
    x_steps = (*x.strides[:own], *[0] * places, *rest)
    index_steps = (*indices.strides[:-1], *[0] * len(rest))
    axes = range(own, own + depth)
    take(ctx, op, x, indices, y, axes, x_steps, index_steps, node.origin)


# -- putting --------------------------------------------------------------------------------------


def put(
    ctx: Lowering,
    op: ops.Scatter,
    operands: Sequence[View],
    axes: Sequence[int],
    steps: Sequence[Sequence[int]],
    count: tuple[int, int, int],
    index_step: int,
    origin: str,
) -> None:
    """One `Put` call. `operands`: data, indices, updates and y. `steps`: their strides over the
    axes of data that are not in `axes`. `count`: how many are put to each place of these, and how
    far apart their indices and they lie."""
    data, indices, updates, y = operands
    kept = [i for i in range(len(data.shape)) if i not in axes]
    walked = Grid.over([data.shape[i] for i in kept], steps)
    walked = best_inner(walked, ctx.target.vector)
    accesses = spaced(walked, [v.dtype for v in operands])
    flat = prod(walked.sizes) == 1 and data.strides[axes[-1]] == y.strides[axes[-1]] == 1
    kernel = Put(len(axes), op.reduction, accesses, flat)
    arguments, tasks = walked.bind(ctx, PUT, origin)
    number, indices_count, updates_count = count
    bound: dict[str, ArgumentValue] = dict(zip(PUT, operands, strict=True))
    bound["indices"] = indices.over(
        (*(data.shape[i] for i in kept), number, len(axes)),
        (*steps[1], indices_count, index_step),
    )
    arguments |= bound | {"count": number, "index_step": index_step}
    arguments |= {"indices_count": indices_count, "updates_count": updates_count}
    for j, axis in enumerate(axes):
        arguments[f"length{j}"] = data.shape[axis]
        arguments |= {f"data_axis{j}": data.strides[axis], f"y_axis{j}": y.strides[axis]}
    reads = [data, indices, updates]
    region, inputs = ctx.region(origin, reads)
    region.set_outputs([region.append(op, inputs).output])
    ctx.call(kernel, tasks, arguments, reads, [y], region, origin, algorithm="put")


def _part(view: View, axis: int, start: int, stop: int) -> View:
    shape = tuple(stop - start if i == axis else d for i, d in enumerate(view.shape))
    return view.over(shape, view.strides, view.offset + start * view.strides[axis])


@lowers(ops.ScatterElements)
def _scatter_elements(ctx: Lowering, node: Node) -> None:
    """Along one axis; where the indices have fewer places along another, the rest is a copy."""
    op = node.op
    assert isinstance(op, ops.ScatterElements)
    axis = op.axis
    data, indices, updates = (ctx.view(v) for v in node.inputs)
    y = ctx.result(node.output, data)
    for i, (size, less) in enumerate(zip(data.shape, indices.shape, strict=True)):
        if i != axis and less < size:
            copy(ctx, _part(data, i, less, size), _part(y, i, less, size), node.origin)
            data, y = _part(data, i, 0, less), _part(y, i, 0, less)
    if 0 in indices.shape:
        copy(ctx, data, y, node.origin)
        return
    operands = (data, indices, updates, y)
    kept = [i for i in range(len(data.shape)) if i != axis]
    steps = [[v.strides[i] for i in kept] for v in operands]
    count = (indices.shape[axis], indices.strides[axis], updates.strides[axis])
    put(ctx, op, operands, [axis], steps, count, 0, node.origin)


@lowers(ops.ScatterND)
def _scatter_nd(ctx: Lowering, node: Node) -> None:
    """The places as one axis, in order; the slices behind them apart."""
    op = node.op
    assert isinstance(op, ops.ScatterND)
    data, depth = ctx.view(node.inputs[0]), ctx.shape(node.inputs[1])[-1]
    rest = data.shape[depth:]
    number = prod(ctx.shape(node.inputs[1])[:-1])
    y = ctx.result(node.output, data)
    if 0 in (number, *rest):
        copy(ctx, data, y, node.origin)
        return
    in_order = matrix(ctx, node.inputs[1], (number, depth), node.origin)
    slices = matrix(ctx, node.inputs[2], (number, prod(rest)), node.origin)
    strides = row_major((number, *rest))
    slices = slices.over((number, *rest), (slices.strides[0], *strides[1:]))
    steps = [data.strides[depth:], (0,) * len(rest), slices.strides[1:], y.strides[depth:]]
    count = (number, in_order.strides[0], slices.strides[0])
    shaped = (data, in_order, slices, y)
    flat = ops.ScatterND(op.reduction)
    put(ctx, flat, shaped, range(depth), steps, count, in_order.strides[1], node.origin)
