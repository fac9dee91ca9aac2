"""fuse-epilogue: elementwise ops join the op whose result they change."""

from __future__ import annotations

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Add,
    AvgPool2d,
    Cast,
    Conv2d,
    Convolution,
    Elementwise,
    Fusion,
    GroupNorm,
    IntegerConv2d,
    IntegerLinear,
    IntegerMatMul,
    IntegerSumPool2d,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool2d,
    Resize,
    RmsNorm,
)
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.ops.shape import broadcast_to
from lucid.ir.passes.fold_batch_norm import bias_name
from lucid.ir.passes.recipes import add, are_parameters, ints, recipe_of, reshape
from lucid.ir.passes.regions import Region, anchor_of, by_channel, is_elementwise, scalar_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Recipe
from lucid.ir.types import FLOATS, NUMBERS, TensorType

fuse_epilogue = Pass(
    "fuse-epilogue", "Fuse elementwise ops with each other and into the layer before them"
)

PRODUCTS = (Convolution, Linear)
INTEGER_PRODUCTS = (IntegerConv2d, IntegerLinear)
INTEGER_SUMS = (*INTEGER_PRODUCTS, IntegerMatMul, IntegerSumPool2d)
KERNELS = (
    MatMul,
    IntegerMatMul,
    IntegerSumPool2d,
    LayerNorm,
    GroupNorm,
    RmsNorm,
    Resize,
    MaxPool2d,
    AvgPool2d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
)
MOST_EXTRAS = 8  # each is a pointer that the kernel's loop moves
MOST_STEPS = 48


@rewrite(fuse_epilogue, Add)
def into_bias(node: Node, graph: Rewriter) -> None:
    """conv2d(x, w, b) + t == conv2d(x, w, b + t), for a parameter t by channel

    Without a bias, t becomes it. A linear likewise.

    Fires where the addition alone reads the layer's result and nothing lies between them.
    """
    for y, other in (node.inputs, reversed(node.inputs)):
        layer = y.producer
        if layer is None or graph.only_user(y) is not node or y.type != node.output.type:
            continue
        if not isinstance(layer.op, PRODUCTS) or not are_parameters(*layer.inputs[2:]):
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


@rewrite(fuse_epilogue, Cast)
def own_casts(node: Node, graph: Rewriter) -> None:
    """(op(cast(x)), op(cast(x))) == (op(y), op(z)), with y = cast(x) and z = cast(x), of 8 bits

    Each elementwise op that reads the cast gets one of its own, which joins its kernel: 8 bits are
    read twice sooner than floats are written.
    """
    (x,), y = node.inputs, node.output
    readers = [n for n in y.users if is_elementwise(n)]
    if x.type.dtype not in EIGHT_BITS or y.type.dtype != "f32" or len(y.users) < 2:
        return
    for reader in readers:
        own = graph.insert_before(reader, node.op, [x])
        graph.substitute(reader, reader.op, [own if v is y else v for v in reader.inputs])


@rewrite(fuse_epilogue, Elementwise, Cast, Fusion)
def into_body(node: Node, graph: Rewriter) -> None:
    """op(anchor(x), y) == fusion{anchor, body}(x, y) with body = op

    Of a fusion, the op joins the body.

    The other op is a conv2d, a linear, a pool, a norm, a resize, a product, a cast to a number, an
    elementwise op, or a fusion of one. Fires where the result keeps the type, and every other
    operand is one that the body can read as it goes. After a conv2d or a linear that is a tensor of
    the same type (a residual), a parameter by channel, a tensor (N, C, 1, 1) after a convolution,
    or a scalar constant; elsewhere anything that broadcasts. Where two layers meet in one add, a
    conv2d or linear takes it, and of two the later one, so that the other's result is there by
    then; the fused node stands where the add stood, so that all its operands are defined before it.
    Not where the layer's result is read elsewhere too: it would have to be stored besides.
    """
    if not is_elementwise(node):
        return
    layers = [y for y in dict.fromkeys(node.inputs) if _rank(y.producer) is not None]
    obstacles = {y: _obstacle(node, y, graph) for y in layers}
    candidates = [y for y, obstacle in obstacles.items() if not obstacle]
    if candidates:
        order = graph.graph.nodes if len(candidates) > 1 else []
        best = max(
            candidates,
            key=lambda y: (
                _rank(y.producer),
                order.index(y.producer) if y.producer in order else 0,
            ),
        )
        _join(node, best, graph)
        return
    for y, obstacle in obstacles.items():
        if isinstance(_producer(y).op, (*PRODUCTS, *INTEGER_PRODUCTS, Fusion)):
            graph.miss(node, obstacle, y.producer)


@rewrite(fuse_epilogue, Fusion)
def extra_into_body(node: Node, graph: Rewriter) -> None:
    """fusion{anchor, body}(x, op(y)) == fusion{anchor, body after op}(x, y)

    What a fusion alone reads besides, and elementwise ops make, is computed in its body.

    As in add(conv(x), mul(y, scale)), where the add has joined the convolution. Fires under the
    conditions of `into_body`.
    """
    op = node.op
    assert isinstance(op, Fusion)
    own = op.anchor_operands(len(node.inputs))
    for value in node.inputs[own:]:
        maker = value.producer
        if maker is None or not is_elementwise(maker) or value in node.inputs[:own]:
            continue
        if graph.only_user(value) is not node or not _is_alike(maker, node):
            continue
        if not all(_reads(v, node) for v in maker.inputs) or not _is_small(node, maker):
            continue
        region = Region(node, graph)
        inlined = region.append(maker, {})
        given = {value: inlined}
        result = region.take_in(op.body, region.result, node.inputs[own:], given)
        graph.substitute(node, *region.fusion(result), fuses=[node, maker])
        return


def _producer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


def _rank(node: Node | None) -> int | None:
    """How much a node's kernel gains from ops that join it; None for no anchor at all."""
    if node is None:
        return None
    anchor = anchor_of(node)
    if isinstance(anchor, (*PRODUCTS, *INTEGER_PRODUCTS)):
        return 2
    if isinstance(anchor, KERNELS):
        return 1
    is_chain = isinstance(anchor, Elementwise | Cast) and node.output.type.dtype in NUMBERS
    return 0 if is_chain else None


def _obstacle(node: Node, y: Value, graph: Rewriter) -> str:
    """Why `node` and the op that makes `y` cannot be one; empty where they can."""
    if graph.only_user(y) is not node:
        return f"%{y.name} is read elsewhere too"
    if y.type != node.output.type and not _may_become(y, node):
        return f"it makes {node.output.type} of %{y.name}, which is {y.type}"
    if isinstance(anchor_of(_producer(y)), INTEGER_SUMS) and _is_of_integers(node):
        return "it computes integers, and epilogues floats"
    stranger = next((v for v in node.inputs if v is not y and not _reads(v, _producer(y))), None)
    if stranger is not None:
        return f"an epilogue of {y.type} cannot read {stranger!r} beside it"
    return "" if _is_small(_producer(y), node) else "the body would be too long"


def _may_become(y: Value, node: Node) -> bool:
    """Whether a body may turn what it has into another dtype: sums of integers into floats, and
    floats into 8 bits."""
    anchor, result = anchor_of(_producer(y)), node.output.type
    if y.type.shape != result.shape:
        return False
    if result.dtype in EIGHT_BITS:
        return isinstance(anchor, (*INTEGER_SUMS, Resize, Elementwise, Cast))
    if isinstance(anchor, Elementwise | Cast):
        return y.type.dtype in EIGHT_BITS and isinstance(anchor_of(node), Cast)
    return isinstance(anchor, INTEGER_SUMS) and (y.type.dtype, result.dtype) == ("i32", "f32")


def _is_of_integers(node: Node) -> bool:
    """Whether a node, or a step of its body, computes with integers."""
    steps = [(node.op, node.inputs)]
    if isinstance(node.op, Fusion):
        own = node.op.anchor_operands(len(node.inputs))
        steps = [(node.op.anchor, node.inputs[:own])]
        steps += [(step.op, step.inputs) for step in node.op.body.nodes]
    return any(
        isinstance(op, Elementwise) and any(v.type.dtype != "f32" for v in operands)
        for op, operands in steps
    )


def _is_alike(maker: Node, node: Node) -> bool:
    """Whether the body of a fusion may as well compute an extra operand: one of the type of its
    result, or of what that was before it became integers of 8 bits. An integer of 8 bits may be
    cast for several elements."""
    value, result = maker.output.type, node.output.type
    if isinstance(maker.op, Cast) and isinstance(anchor_of(node), Elementwise | Cast):
        return True
    before = TensorType("f32", result.shape)
    return value == result or (result.dtype in EIGHT_BITS and value == before)


def _reads(value: Value, node: Node) -> bool:
    """Whether the body of a fusion that starts from `node` can read `value` beside its result."""
    kind, anchor = node.output.type, anchor_of(node)
    if scalar_of(value) is not None or value.type == kind:
        return True
    if isinstance(anchor, INTEGER_SUMS) and value.type.shape == kind.shape:
        return value.type.dtype in ("f32", *EIGHT_BITS)
    if not isinstance(anchor, (*PRODUCTS, *INTEGER_PRODUCTS)):
        takes = NUMBERS if isinstance(anchor, Elementwise | Cast) else FLOATS
        return value.type.dtype in takes and broadcast_to(value.type.shape, kind.shape)
    by_image = (
        isinstance(anchor, Conv2d | IntegerConv2d)
        and not isinstance(value, Parameter)
        and value.type == TensorType("f32", (*kind.shape[:2], 1, 1))
    )
    return by_image or by_channel(value, kind, anchor) is not None


def _is_small(first: Node, second: Node) -> bool:
    """Whether two regions are not too large for one."""
    steps = [len(n.op.body.nodes) if isinstance(n.op, Fusion) else 1 for n in (first, second)]
    extras = [
        len(n.op.body.inputs) - 1 if isinstance(n.op, Fusion) else len(n.inputs) - 1
        for n in (first, second)
    ]
    return sum(steps) <= MOST_STEPS and sum(extras) <= MOST_EXTRAS


def _join(node: Node, y: Value, graph: Rewriter) -> None:
    """Put `node` at the end of the body of the op that makes `y`."""
    layer = _producer(y)
    region = Region.of(layer, graph)
    result = region.append(node, {y: region.result})
    graph.substitute(node, *region.fusion(result), fuses=[layer, node])
