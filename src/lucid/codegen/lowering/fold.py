"""Lowering of the ways back from windows: sums of windows, places of maxima."""

from __future__ import annotations

from math import prod

from lucid.codegen.kernels.fold import Fold as FoldKernel
from lucid.codegen.kernels.fold import MaxUnpool
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.lowering.arguments import only_declared, window
from lucid.codegen.lowering.context import Lowering, lowers, row_major, same_places
from lucid.codegen.lowering.maps import region_of
from lucid.codegen.lowering.strided import copy
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Node, Value
from lucid.ir.ops import Fold, MaxUnpool2d


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
