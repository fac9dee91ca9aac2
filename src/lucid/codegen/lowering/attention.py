"""Lowering of split attention: channel sums, two small products, a gate, and a deferred combine."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.codegen.kernels.body import Body
from lucid.codegen.kernels.loaders import Combine, Sums
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.lowering.arguments import geometry
from lucid.codegen.lowering.context import Deferred, Lowering, lowers
from lucid.codegen.lowering.epilogue import Epilogue
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.lowering.product import product
from lucid.codegen.lowering.reduction import Semantics, reduce, softmax
from lucid.codegen.program.lowered_ops import GatherSums, PartialSums
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Conv2d, Op, RadixCombine, RadixMean, RadixSoftmax, SplitAttention
from lucid.ir.types import TensorType


@lowers(SplitAttention)
def _split_attention(ctx: Lowering, node: Node) -> None:
    """Sums from the producer's epilogue (or a reduction), fc1 and fc2 over the images as rows, and
    the combination left to whoever reads it."""
    op = node.op
    assert isinstance(op, SplitAttention)
    x = ctx.rows_view(node.inputs[0])
    parameters = [v for v in node.inputs[1:] if isinstance(v, Parameter)]
    assert len(parameters) == 4, f"{node.origin}: the layers of a split attention are parameters"
    parts = op.parts()
    sums = ctx.sums.get(node.inputs[0]) or _channel_sums(ctx, x, node)
    mean = _mean_rows(op, x, sums, node.origin)
    hidden = _layer(ctx, node, parts.fc1, parameters[:2], parts.activation, mean, "fc1")
    activation = None if isinstance(parts.gate, RadixSoftmax) else parts.gate
    gate = _layer(ctx, node, parts.fc2, parameters[2:], activation, hidden, "fc2")
    if isinstance(parts.gate, RadixSoftmax):
        logits, gate = (
            gate,
            ctx.allocate(f"{node.output.name}.gate", gate.dtype, gate.shape, gate.strides),
        )
        _normalise(ctx, parts.gate, logits, gate, node.origin)
    ctx.deferred[node.output] = _combine(parts.combine, x, gate, node.origin)


def _channel_sums(ctx: Lowering, x: View, node: Node) -> View:
    """One sum for each image and channel, [image][1][channel]."""
    n, channels, *_ = x.shape
    shape, strides = (n, 1, channels), (channels, channels, 1)
    out = ctx.allocate(f"{node.output.name}.sums", COMPUTED, shape, strides)
    flat = out.over((n, channels), (channels, 1))
    meaning = Semantics.of(ctx, PartialSums(1), x, out, node.origin)
    reduce(ctx, x, flat, (2, 3), "sum", 1.0, meaning)
    return out


def _mean_rows(op: SplitAttention, x: View, sums: View, origin: str) -> Deferred:
    """The loader of fc1: each image's channel means, summed over the radix."""
    _, channels, height, width = x.shape
    scale = 1.0 / (height * width)
    arguments: dict[str, ArgumentValue] = {
        "x": sums,
        "parts": sums.shape[1],
        "channels": channels // op.radix,
        "scale": scale,
    }

    def build(region: Graph, read: Sequence[Value]) -> Value:
        return region.append(GatherSums(op.radix, scale), read).output

    return Deferred(Sums(op.radix), arguments, (sums,), build, origin)


def _layer(
    ctx: Lowering,
    node: Node,
    op: Conv2d,
    parameters: list[Parameter],
    activation: Op | None,
    rows: Deferred | View,
    name: str,
) -> View:
    """fc1 or fc2: a product with one row for each image."""
    weight, bias = parameters
    outputs, depth, *_ = ctx.shape(weight)
    n = ctx.shape(node.inputs[0])[0]
    shape = (n, outputs, 1, 1)
    strides = (outputs, 1, outputs, outputs)
    out = ctx.allocate(f"{node.output.name}.{name}", COMPUTED, shape, strides)
    steps = () if activation is None else ((activation, (0,)),)
    origin = f"{node.origin}.{name}" if node.origin else name
    result = Value(TensorType(COMPUTED, shape), f"{node.output.name}.{name}", node)
    layer = Layer(op, result, weight, bias, result, origin, Epilogue(Body((), steps)))
    product(ctx, layer, rows, out, count=n, depth=depth, groups=op.groups, algorithm="gate")
    return out


def _normalise(ctx: Lowering, op: RadixSoftmax, logits: View, out: View, origin: str) -> None:
    """Logits by (cardinality, radix) to weights by (radix, cardinality)."""
    n, channels, *_ = logits.shape
    inner = channels // (op.radix * op.cardinality)
    parts = (n, op.cardinality, op.radix, inner)
    image, from_image = out.strides[0], logits.strides[0]
    read = logits.over(parts, (from_image, op.radix * inner, inner, 1))
    write = out.over(parts, (image, inner, op.cardinality * inner, 1))
    softmax(ctx, read, write, 2, Semantics.of(ctx, op, logits, out, origin))


def _combine(combine: RadixCombine, x: View, gate: View, origin: str) -> Deferred:
    _, channels, height, width = x.shape
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        "gate": gate,
        "gate_image": gate.strides[0],
        "channels": channels // combine.radix,
    }

    def build(region: Graph, read: Sequence[Value]) -> Value:
        return region.append(combine, read).output

    loader = Combine(combine.radix, "folded" if combine.folded else "weights")
    return Deferred(loader, arguments, (x, gate), build, origin)


# -- the parts on their own, as IR text may have them ---------------------------------------------


@lowers(RadixMean)
def _radix_mean(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, RadixMean)
    x, out = ctx.rows_view(node.inputs[0]), ctx.result(node.output)
    n, channels, height, width = x.shape
    image, channel, line, pixel = x.strides
    inner = channels // op.radix
    shape = (n, op.radix, inner, height, width)
    split = x.over(shape, (image, channel * inner, channel, line, pixel))
    flat = out.over((n, inner), out.strides[:2])
    meaning = Semantics.of(ctx, op, x, out, node.origin)
    reduce(ctx, split, flat, (1, 3, 4), "sum", 1.0 / max(1, height * width), meaning)


@lowers(RadixSoftmax)
def _radix_softmax(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, RadixSoftmax)
    logits, out = ctx.rows_view(node.inputs[0]), ctx.result(node.output)
    _normalise(ctx, op, logits, out, node.origin)


@lowers(RadixCombine)
def _radix_combine(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, RadixCombine)
    x, gate = ctx.rows_view(node.inputs[0]), ctx.rows_view(node.inputs[1])
    ctx.deferred[node.output] = _combine(op, x, gate, node.origin)
