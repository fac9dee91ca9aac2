"""Chooses the lowering of convolution and linear layers, alone or with a fused body."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.lowering.arguments import extra_of
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.depthwise import depthwise, expands
from lucid.codegen.lowering.direct import direct
from lucid.codegen.lowering.epilogue import Epilogue, to_body
from lucid.codegen.lowering.fusion import lowers_fused, parts
from lucid.codegen.lowering.layer import POINTWISE, Layer
from lucid.codegen.lowering.matrices import by_matrices
from lucid.codegen.lowering.planes import in_plane
from lucid.codegen.lowering.product import linear, pointwise
from lucid.codegen.lowering.strassen import strassen
from lucid.codegen.lowering.strided import apply_body
from lucid.codegen.lowering.winograd import winograd
from lucid.codegen.scheduling.schedule import Choice
from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Conv2d, Convolution, IntegerConv2d, IntegerLinear, Linear, Op


@lowers(Convolution, Linear, IntegerConv2d, IntegerLinear)
def _plain(ctx: Lowering, node: Node) -> None:
    _lower(ctx, _layer(ctx, node.op, node.inputs, node.output, node.origin))


@lowers_fused(Convolution, Linear, IntegerConv2d, IntegerLinear)
def _fused(ctx: Lowering, node: Node) -> None:
    """Anchor and body in one kernel; a body that reads what no epilogue can runs on its own."""
    op, own, extras = parts(node)
    rank = node.output.type.rank
    last = isinstance(op.anchor, Linear | IntegerLinear)  # where the features lie
    found = [extra_of(ctx, e, node.output, rank - 1 if last else 1) for e in extras]
    layer = _layer(ctx, op.anchor, own, node.output, node.origin)
    readable = [e for e in found if e is not None and (e.dtype == COMPUTED or layer.is_integer)]
    if last and rank == 4:  # tensors of this rank lie as maps do
        readable = [e for e in readable if e.kind == "channel"]
    written = node.output.type.dtype == COMPUTED or layer.is_integer
    if len(readable) == len(extras) and written:
        body = to_body(op.body, readable)
        layer.epilogue = Epilogue(body, tuple(extras))
        _lower(ctx, layer)
        return
    (kind,) = op.anchor.result_types(*(v.type for v in own))
    layer.result = Value(kind, f"{node.output.name}.anchor", node)
    _lower(ctx, layer, ctx.schedule.choices.get(node.output.name))
    apply_body(ctx, op.body, [layer.result, *extras], node.output, node.origin)


def _layer(ctx: Lowering, op: Op, operands: Sequence[Value], result: Value, origin: str) -> Layer:
    weight, *rest = operands[1:]
    bias = rest[0] if rest else None
    assert isinstance(weight, Parameter), f"{origin}: the weight must be a parameter"
    assert bias is None or isinstance(bias, Parameter), f"{origin}: the bias must be a parameter"
    return Layer(op, operands[0], weight, bias, result, origin)


def _lower(ctx: Lowering, layer: Layer, choice: Choice | None = None) -> None:
    if isinstance(layer.op, Linear | IntegerLinear):
        layer.choice = choice or ctx.schedule.choices.get(layer.result.name, POINTWISE)
        layer.choice = layer.choice.on(ctx.target)
        (strassen if layer.choice.kernel == "strassen" else linear)(ctx, layer)
        return
    layer.choice = (choice or ctx.schedule.choices[layer.result.name]).on(ctx.target)
    if not isinstance(layer.op, Conv2d | IntegerConv2d):
        layer = in_plane(ctx, layer)
    kernel = layer.choice.algorithm
    if kernel == "strassen":
        strassen(ctx, layer)
        return
    windows = ctx.shape(layer.weight)[2:] != (1, 1) or layer.slices is not None
    windows = windows and not by_matrices(ctx.target, layer)  # which take rows alone
    if kernel == "depthwise":
        depthwise(ctx, layer)
    elif kernel.startswith("winograd"):
        winograd(ctx, layer)
    elif windows or (layer.is_integer and kernel == "direct"):
        direct(ctx, layer)
    elif layer.choice.kernel != "pointwise" or not expands(ctx, layer):
        pointwise(ctx, layer)
