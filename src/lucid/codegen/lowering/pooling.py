"""Lowering of pooling: to a kernel, or for some averages to a loader that the consumer runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from lucid.codegen.kernels.body import Body
from lucid.codegen.kernels.loaders import Combine
from lucid.codegen.kernels.maps import BLOCK
from lucid.codegen.kernels.pool_indices import PoolIndices, for_axes
from lucid.codegen.kernels.pooling import Pool
from lucid.codegen.lowering.arguments import geometry, only_declared, window
from lucid.codegen.lowering.context import Deferred, Lowering, features_last, lowers
from lucid.codegen.lowering.fusion import lowers_fused
from lucid.codegen.lowering.maps import MapNode, pixels
from lucid.codegen.lowering.placement import left_to_readers
from lucid.codegen.lowering.strided import copy
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    IntegerSumPool2d,
    MaxPool2d,
    MaxPoolIndices,
    Op,
)

MOST_UNROLLED = 9
"""Taps of the largest window of a maximum whose code has no loop."""
MOST_COLUMNS = 4
"""Taps in a line of a window that is summed without a loop."""
ALGORITHMS = {"max": "max_pool", "sum": "sum_pool"}


@lowers(MaxPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, IntegerSumPool2d)
@lowers_fused(MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, IntegerSumPool2d)
def pool(ctx: Lowering, node: Node) -> None:
    """One `Pool` call, with what is fused to it."""
    made = MapNode(ctx, node)
    x, y = pixels(ctx, made.source), ctx.result(node.output)
    n, channels, height, width = y.shape
    kernel, own = _kernel(made.op, x, y, made.body)
    blocks = -(-channels // (BLOCK * ctx.target.vector))
    chunks = max(1, min(blocks, 4 * ctx.threads // max(1, n * height)))
    reads, region = made.meaning(ctx, x)
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **own,
        **made.operands(y),
        "channels": channels,
        "chunks": chunks,
    }
    ctx.call(
        kernel,
        n * height * chunks,
        only_declared(kernel, arguments),
        reads,
        [y],
        region,
        node.origin,
        algorithm=ALGORITHMS.get(kernel.kind, "average_pool"),
    )


@lowers(AvgPool2d)
def _average_pool(ctx: Lowering, node: Node) -> None:
    """A kernel of its own, or left to whoever reads it; a pool after a split attention's
    combination is one loader."""
    op, source = node.op, node.inputs[0]
    assert isinstance(op, AvgPool2d)
    base = _combination(ctx, source) if op.dilation == (1, 1) else None
    if base is None:
        if not _read_by_a_product(ctx, node.output) or _overlaps(op) or op.dilation != (1, 1):
            pool(ctx, node)
            return
        x = ctx.rows_view(source)
        arguments = geometry(x, (x.shape[2], x.shape[3]))
        base = Deferred(Combine(), arguments, (x,), lambda region, read: read[0], node.origin)
    ctx.deferred[node.output] = _pooled(op, base, ctx.shape(node.output), node.origin)


def _overlaps(op: AvgPool2d) -> bool:
    """Whether windows share pixels, which a loader would read again and again."""
    return any(s < k for s, k in zip(op.stride, op.kernel, strict=True))


def _combination(ctx: Lowering, source: Value) -> Deferred | None:
    """What makes the source, if it is a combination that nobody else reads and nobody has made."""
    base = ctx.deferred.get(source)
    if base is None or source in ctx.views or len(source.users) > 1:
        return None
    loader = base.loader
    return base if isinstance(loader, Combine) and loader.pool == "none" else None


def _read_by_a_product(ctx: Lowering, value: Value) -> bool:
    """Whether one 1x1 convolution alone reads the value, or joins it to another one's rows."""
    if len(value.users) != 1 or ctx.output_view(value) is not None:
        return False
    (user,) = value.users
    choice = ctx.schedule.choices.get(user.output.name)
    pointwise = choice is not None and choice.algorithm == "pointwise" and user.inputs[0] is value
    return pointwise or left_to_readers(user)


def _pooled(op: AvgPool2d, base: Deferred, shape: Sequence[int], origin: str) -> Deferred:
    """A loader's rows, pooled."""
    assert isinstance(base.loader, Combine)
    pool = divisor_kind(op)
    arguments: dict[str, ArgumentValue] = {
        **base.arguments,
        **window(op.kernel, op.stride, op.padding),
        "out_height": shape[2],
        "out_width": shape[3],
        **_divisor(op, pool),
    }

    def build(region: Graph, read: Sequence[Value]) -> Value:
        pooled = base.build(region, read)
        return region.append(op, [pooled]).output

    loader = Combine(base.loader.radix, base.loader.gate, pool)
    return Deferred(loader, arguments, base.reads, build, origin)


def divisor_kind(op: AvgPool2d) -> str:
    """How windows are averaged, from the op alone: other image sizes need the same kernel."""
    if op.divisor is not None:
        return "fixed"
    if op.count_include_pad or not any(op.padding):
        if not op.ceil_mode:
            return "fixed"
        return "padded" if op.count_include_pad else "inside"
    return "inside"


def _divisor(op: AvgPool2d, kind: str) -> dict[str, ArgumentValue]:
    """The arguments that a divisor needs."""
    if kind == "fixed":
        return {"scale": 1.0 / (op.divisor or op.kernel[0] * op.kernel[1])}
    return {"pad_bottom": op.padding[2], "pad_right": op.padding[3]} if kind == "padded" else {}


# -- where the maxima lie ------------------------------------------------------------------------


@lowers(MaxPoolIndices)
def _max_pool_indices(ctx: Lowering, node: Node) -> None:
    """One `PoolIndices` call over three axes; those that are missing have one element."""
    op, source = node.op, node.inputs[0]
    assert isinstance(op, MaxPoolIndices)
    x = ctx.view(source)
    if x.shape[1] > 1 and x.strides[1] != 1:
        rows = ctx.allocate(f"{source.name}.rows", x.dtype, x.shape, features_last(x.shape))
        copy(ctx, x, rows, node.origin)
        x = rows
    y = ctx.result(node.output, strides=features_last(ctx.shape(node.output)))
    n, channels, *sizes = x.shape
    axes, size = len(sizes), prod(sizes)
    missing = 3 - axes
    inner = [prod(sizes[:i] if op.column_major else sizes[i + 1 :]) for i in range(axes)]
    numbers = {
        "size": (sizes, 1),
        "out": (y.shape[2:], 1),
        "kernel": (op.kernel, 1),
        "stride": (op.stride, 1),
        "pad": (op.padding[:axes], 0),
        "dilation": (op.dilation, 1),
        "count": (inner, 0),
        "x": (x.strides[2:], 1),
        "y": (y.strides[2:], 1),
    }
    arguments: dict[str, ArgumentValue] = {
        "x": x,
        "y": y,
        "channels": channels,
        "x_n": x.strides[0],
        "y_n": y.strides[0],
        "count_n": channels * size * op.whole,
        "count_c": size * op.whole,
    }
    for name, (given, default) in numbers.items():
        values = [default] * missing + list(given)
        arguments |= dict(zip(for_axes(name), values, strict=True))
    region, inputs = ctx.region(node.origin, [x])
    region.set_outputs([region.append(op, inputs, origin=node.origin).output])
    tasks = n * prod(y.shape[2:-1])
    kernel = PoolIndices()
    ctx.call(kernel, tasks, arguments, [x], [y], region, node.origin, algorithm="max_pool_indices")


# -- the kernel -----------------------------------------------------------------------------------


def _kernel(op: Op, x: View, y: View, body: Body) -> tuple[Pool, dict[str, ArgumentValue]]:
    """The kernel for a pool, and the arguments that its windows need."""
    dtypes = (x.dtype, y.dtype)
    if isinstance(op, AdaptiveAvgPool2d | AdaptiveMaxPool2d):
        kind = "max" if isinstance(op, AdaptiveMaxPool2d) else "inside"
        return Pool(kind, adaptive=True, body=body, dtypes=dtypes), {}
    assert isinstance(op, MaxPool2d | AvgPool2d | IntegerSumPool2d)
    arguments = window(op.kernel, op.stride, op.padding)
    arguments |= {"dilation_h": op.dilation[0], "dilation_w": op.dilation[1]}
    if isinstance(op, MaxPool2d):
        small = op.kernel[0] * op.kernel[1] <= MOST_UNROLLED
        taps = op.kernel if small and _all_inside(op, x, y) else (0, 0)
        return Pool("max", taps, body=body, dtypes=dtypes), arguments
    side_by_side = op.dilation == (1, 1) and op.kernel[1] <= MOST_COLUMNS
    taps = (0, op.kernel[1]) if side_by_side else (0, 0)
    if isinstance(op, IntegerSumPool2d):
        arguments["zero_point"] = op.zero_point
        return Pool("sum", taps, body=body, dtypes=dtypes), arguments
    kind = divisor_kind(op)
    return Pool(kind, taps, body=body, dtypes=dtypes), arguments | _divisor(op, kind)


def _all_inside(op: MaxPool2d, x: View, y: View) -> bool:
    """Whether the windows are not dilated, and each holds a pixel of the map."""
    ends = zip(op.kernel, op.stride, op.padding[:2], x.shape[2:], y.shape[2:], strict=True)
    return op.dilation == (1, 1) and all(
        pad < kernel and (count - 1) * stride - pad < size
        for kernel, stride, pad, size, count in ends
    )
