"""Lowering of pooling: max pooling is a kernel, average pooling a loader that its reader runs."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.codegen.kernels.loaders import Combine
from lucid.codegen.kernels.windows import MaxPool
from lucid.codegen.lowering.context import Deferred, Lowering, lowers
from lucid.codegen.lowering.layer import geometry, result_strides, window
from lucid.codegen.program import ArgumentValue
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import AvgPool2d, MaxPool2d


@lowers(MaxPool2d)
def _max_pool(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, MaxPool2d)
    x, y = ctx.rows_view(node.inputs[0]), ctx.result(node.output)
    n, channels, height, width = y.shape
    region, inputs = ctx.region(node.origin, [x])
    region.set_outputs([region.append(op, inputs).output])
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **window(op.kernel, op.stride, op.padding),
        "y": y,
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "channels": channels,
        **result_strides(y),
    }
    ctx.call(MaxPool(), n * height, arguments, [x], [y], region, node.origin, algorithm="max_pool")


@lowers(AvgPool2d)
def _average_pool(ctx: Lowering, node: Node) -> None:
    """Left to whoever reads it; pooled after a split attention's combination it is one loader."""
    op = node.op
    assert isinstance(op, AvgPool2d)
    source = node.inputs[0]
    before = ctx.deferred.get(source)
    combined = (
        before is not None
        and source not in ctx.views
        and len(source.users) == 1
        and isinstance(before.loader, Combine)
        and before.loader.pool == "none"
    )
    _, _, height, width = ctx.shape(node.output)
    pool = divisor_kind(op)
    if combined and before is not None:
        assert isinstance(before.loader, Combine)
        loader = Combine(before.loader.radix, before.loader.gate, pool)
        base = before
    else:
        x = ctx.rows_view(source)
        loader = Combine(1, "none", pool)
        base = Deferred(
            Combine(), geometry(x, (height, width)), (x,), lambda region, read: read[0], node.origin
        )
    arguments: dict[str, ArgumentValue] = {
        **base.arguments,
        **window(op.kernel, op.stride, op.padding),
        "out_height": height,
        "out_width": width,
    }
    if pool == "fixed":
        arguments["scale"] = 1.0 / (op.divisor or op.kernel[0] * op.kernel[1])
    elif pool == "padded":
        arguments |= {"pad_bottom": op.padding[2], "pad_right": op.padding[3]}

    def build(region: Graph, read: Sequence[Value]) -> Value:
        pooled = base.build(region, read)
        return region.append(op, [pooled]).output

    ctx.deferred[node.output] = Deferred(loader, arguments, base.reads, build, node.origin)


def divisor_kind(op: AvgPool2d) -> str:
    """How windows are averaged, from the op alone: other image sizes need the same kernel."""
    if op.divisor is not None:
        return "fixed"
    if op.count_include_pad or not any(op.padding):
        if not op.ceil_mode:
            return "fixed"
        return "padded" if op.count_include_pad else "inside"
    return "inside"
