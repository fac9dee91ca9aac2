"""Lowering of the ways back from windows: sums of windows, places of maxima."""

from __future__ import annotations

from math import prod

from lucid.codegen.kernels.fold import Fold as FoldKernel
from lucid.codegen.kernels.fold import MaxPoolIndices, MaxUnpool
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.lowering.arguments import only_declared, window
from lucid.codegen.lowering.context import Lowering, lowers, row_major, same_places
from lucid.codegen.lowering.maps import map_strides, pixels, region_of
from lucid.codegen.lowering.strided import copy
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Node, Value
from lucid.ir.ops import Fold, MaxPool2dIndices, MaxUnpool2d


def _dense(ctx: Lowering, value: Value, origin: str) -> View:
    """Where a value lies row by row, without gaps; copied if need be."""
    view = ctx.view(value)
    if same_places(view.shape, view.strides, row_major(view.shape)):
        return view
    rows = ctx.allocate(f"{value.name}.rows", view.dtype, view.shape, row_major(view.shape))
    copy(ctx, view, rows, origin)
    return rows


def _densely(
    ctx: Lowering,
    node: Node,
    kernel: KernelSpec,
    tasks: int,
    arguments: dict[str, ArgumentValue],
    reads: list[View],
) -> None:
    """A call that writes its result row by row; a slice of a concatenation is a copy of that."""
    shape, kind = ctx.shape(node.output), node.output.type.dtype
    out = ctx.result(node.output, View("", kind, shape, row_major(shape)))
    y = out
    if not same_places(shape, out.strides, row_major(shape)):
        y = ctx.allocate(f"{node.output.name}.rows", kind, shape, row_major(shape))
    region = region_of(ctx, node.op, reads, node.origin)
    bound = only_declared(kernel, arguments | {"y": y})
    name = kernel.family
    ctx.call(kernel, tasks, bound, reads, [y], region, node.origin, algorithm=name)
    if y is not out:
        copy(ctx, y, out, node.origin)


@lowers(Fold)
def _fold(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, Fold)
    x = _dense(ctx, node.inputs[0], node.origin)
    n, channels, height, width = ctx.shape(node.output)
    rows, columns = op.windows()
    arguments: dict[str, ArgumentValue] = {
        **window(op.kernel, op.stride, op.padding),
        "x": x,
        "channels": channels,
        "height": height,
        "width": width,
        "rows": rows,
        "columns": columns,
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
    }
    kernel = FoldKernel(dense=op.stride[1] == 1)
    _densely(ctx, node, kernel, n * channels * height, arguments, [x])


@lowers(MaxUnpool2d)
def _max_unpool(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, MaxUnpool2d)
    x, indices = (_dense(ctx, v, node.origin) for v in node.inputs)
    planes = 1 if op.whole else prod(x.shape[:2])
    arguments: dict[str, ArgumentValue] = {
        "x": x,
        "indices": indices,
        "count": prod(x.shape) // max(1, planes),
        "pixels": prod(ctx.shape(node.output)) // max(1, planes),
    }
    _densely(ctx, node, MaxUnpool(), planes, arguments, [x, indices])


@lowers(MaxPool2dIndices)
def _max_pool_indices(ctx: Lowering, node: Node) -> None:
    """One call beside that of the maxima."""
    op = node.op
    assert isinstance(op, MaxPool2dIndices)
    x, y = pixels(ctx, node.inputs[0]), ctx.result(node.output)
    n, channels, height, width = x.shape
    arguments: dict[str, ArgumentValue] = {
        **window(op.kernel, op.stride, op.padding),
        **map_strides("x", x),
        **map_strides("y", y),
        "channels": channels,
        "height": height,
        "width": width,
        "out_height": y.shape[2],
        "out_width": y.shape[3],
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "line_step": 1 if op.by_column else width,
        "pixel_step": height if op.by_column else 1,
        "plane_step": height * width if op.whole else 0,
    }
    kernel = MaxPoolIndices()
    ctx.call(
        kernel,
        n * y.shape[2],
        only_declared(kernel, arguments),
        [x],
        [y],
        region_of(ctx, op, [x], node.origin),
        node.origin,
        algorithm=kernel.family,
    )
