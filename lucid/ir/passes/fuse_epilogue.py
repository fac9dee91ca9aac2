"""fuse-epilogue: elementwise ops join the convolution or linear whose result they change."""

from __future__ import annotations

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Add, Constant, Conv2d, Elementwise, Fusion, Linear, Op
from lucid.ir.passes.fold_batch_norm import bias_name
from lucid.ir.passes.recipes import add, are_parameters, expand, ints, recipe_of, reshape
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Recipe
from lucid.ir.types import TensorType

fuse_epilogue = Pass(
    "fuse-epilogue", "Fuse bias, residual add, scale and activation into convolutions and linears"
)


@rewrite(fuse_epilogue, Add)
def into_bias(node: Node, graph: Rewriter) -> None:
    """conv2d or linear + a parameter by channel: the parameter becomes the bias, or joins it.

    Fires where the addition alone reads the layer's result and nothing lies between them.
    """
    for y, other in (node.inputs, reversed(node.inputs)):
        layer = y.producer
        if layer is None or graph.only_user(y) is not node or y.type != node.output.type:
            continue
        if not isinstance(layer.op, (Conv2d, Linear)) or not are_parameters(*layer.inputs[2:]):
            continue
        shift = by_channel(other, y.type, layer.op)
        if shift is not None:
            bias = _bias(layer, other, shift, graph)
            graph.substitute(node, layer.op, [*layer.inputs[:2], bias], fuses=[layer, node])
            return


def _bias(layer: Node, other: Value, shift: Recipe, graph: Rewriter) -> Value:
    """The bias of `layer` with `other`, which is `shift` by channel, added."""
    weight, *biases = layer.inputs[1:]
    vector = reshape(shift, *ints(weight.type.shape[:1]))
    if biases:
        total = add(recipe_of(biases[0]), vector)
        return graph.parameter(f"{biases[0].name}.folded", total)
    if vector == recipe_of(other):
        return other
    return graph.parameter(f"{bias_name(weight)}.folded", vector)


@rewrite(fuse_epilogue, Elementwise)
def into_body(node: Node, graph: Rewriter) -> None:
    """An elementwise op that alone reads a conv2d, a linear or a fusion of one: into its body.

    Fires where the result keeps the type, and every other operand is one that an epilogue can
    read as it goes: a tensor of the same type (a residual), a parameter by channel, a tensor
    (N, C, 1, 1) after a convolution, or a scalar constant. Where two layers meet in one add, the
    later one takes it, so that the other's result is there by then; the fused node stands where
    the add stood, so that all its operands are defined before it. Not where the layer's result is
    read elsewhere too: it would have to be stored besides.
    """
    layers = [y for y in dict.fromkeys(node.inputs) if _anchor(y.producer) is not None]
    obstacles = {y: _obstacle(node, y, graph) for y in layers}
    candidates = [y for y, obstacle in obstacles.items() if not obstacle]
    if candidates:
        order = graph.graph.nodes
        latest = max(
            candidates,
            key=lambda y: order.index(y.producer) if len(candidates) > 1 and y.producer else 0,
        )
        _join(node, latest, graph)
        return
    for y, obstacle in obstacles.items():
        graph.miss(node, obstacle, y.producer)


def _obstacle(node: Node, y: Value, graph: Rewriter) -> str:
    """Why `node` cannot join the layer that makes `y`; empty where it can."""
    anchor = _anchor(y.producer)
    assert anchor is not None
    if graph.only_user(y) is not node:
        return f"%{y.name} is read elsewhere too"
    if y.type != node.output.type:
        return f"it makes {node.output.type} of %{y.name}, which is {y.type}"
    for v in node.inputs:
        if v is not y and _scalar(v) is None and not _reads_along(v, y.type, anchor):
            return f"an epilogue of {y.type} cannot read {v!r} beside it"
    return ""


def _anchor(node: Node | None) -> Op | None:
    """The conv2d or linear that a node is, or is a fusion of."""
    op = node.op if node is not None else None
    anchor = op.anchor if isinstance(op, Fusion) else op
    return anchor if isinstance(anchor, (Conv2d, Linear)) else None


def _scalar(value: Value) -> Op | None:
    """The constant of rank 0 that a value is, if it is one."""
    op = value.producer.op if value.producer is not None else None
    return op if isinstance(op, Constant) and value.type.shape == () else None


def _reads_along(value: Value, kind: TensorType, anchor: Op) -> bool:
    """Whether an epilogue of a result of type `kind` can read `value` beside it."""
    by_image = (
        isinstance(anchor, Conv2d)
        and not isinstance(value, Parameter)
        and value.type == kind.with_shape((*kind.shape[:2], 1, 1))
    )
    return value.type == kind or by_image or by_channel(value, kind, anchor) is not None


def by_channel(value: Value, kind: TensorType, anchor: Op) -> Recipe | None:
    """A parameter that depends on the channel at most, as (1, C, 1, 1), after a linear as (C)."""
    if not isinstance(value, Parameter) or value.type.rank > kind.rank:
        return None
    axis = 1 if isinstance(anchor, Conv2d) else kind.rank - 1
    shape = ints((1,) * (kind.rank - value.type.rank) + value.type.shape)
    if any(d != 1 for i, d in enumerate(shape) if i != axis):
        return None
    channels = kind.shape[axis]
    if shape[axis] not in (1, channels) or not isinstance(channels, int):
        return None
    full = (1, channels, 1, 1) if isinstance(anchor, Conv2d) else (channels,)
    if shape[axis] == channels:
        return reshape(value.recipe, *full)
    return expand(reshape(value.recipe), *full)


def _join(node: Node, y: Value, graph: Rewriter) -> None:
    """Put `node` at the end of the body of the layer that makes `y`."""
    layer, anchor = y.producer, _anchor(y.producer)
    assert layer is not None
    assert anchor is not None
    if isinstance(layer.op, Fusion):
        body = layer.op.body.clone()
        own = layer.op.anchor_operands(len(layer.inputs))
    else:
        body = Graph("body")
        body.set_outputs([body.add_input(y.type, "y")])
        own = len(layer.inputs)
    operands = list(layer.inputs)
    (result,) = body.outputs
    reads = [
        result if v is y else _read(v, y.type, anchor, operands, own, body, graph)
        for v in node.inputs
    ]
    body.set_outputs(body.append(node.op, reads).outputs)
    graph.substitute(node, Fusion(anchor, body), operands, fuses=[layer, node])


def _read(
    value: Value,
    kind: TensorType,
    anchor: Op,
    operands: list[Value],
    own: int,
    body: Graph,
    graph: Rewriter,
) -> Value:
    """What the body reads for an operand: a constant of its own, or an extra, added where new."""
    scalar = _scalar(value)
    if scalar is not None:
        return body.append(scalar, []).output
    recipe = by_channel(value, kind, anchor)
    if recipe is not None and recipe.type != value.type:
        value = graph.parameter(f"{value.name}.reshaped", recipe)
    for extra, known in zip(operands[own:], body.inputs[1:], strict=True):
        if extra is value:
            return known
    operands.append(value)
    return body.add_input(value.type, "e")
