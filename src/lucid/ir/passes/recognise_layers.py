"""recognise-layers: layers that are written out in primitive ops become one op."""

from __future__ import annotations

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    Add,
    Constant,
    LayerNorm,
    Linear,
    MatMul,
    Mean,
    Mul,
    Op,
    Permute,
    RmsNorm,
    Rsqrt,
    Sub,
    Sum,
    SumSquares,
)
from lucid.ir.passes.recipes import apply, expand, ints, recipe_of, reshape
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Literal, Recipe
from lucid.ir.types import Dim

recognise_layers = Pass(
    "recognise-layers", "Recognise linears, norms and sums of squares that are written out"
)


@rewrite(recognise_layers, MatMul)
def into_linear(node: Node, graph: Rewriter) -> None:
    """matmul(x, w) == linear(x, permute(w)), for a parameter w

    A product with a matrix that is a parameter, from the right, is a linear.
    """
    x, matrix = node.inputs
    if isinstance(x, Parameter) or not isinstance(matrix, Parameter) or matrix.type.rank != 2:
        return
    turned = apply(Permute((1, 0)), matrix.recipe)
    graph.substitute(node, Linear(), [x, graph.parameter(f"{matrix.name}.turned", turned)])


@rewrite(recognise_layers, Sum)
def into_sum_of_squares(node: Node, graph: Rewriter) -> None:
    """sum(x * x) == sum_squares(x)

    Where nothing else reads the squares: they need not be stored.
    """
    op, squares = node.op, node.inputs[0].producer
    assert isinstance(op, Sum)
    if squares is None or squares.op != Mul() or squares.inputs[0] is not squares.inputs[1]:
        return
    x = squares.inputs[0]
    if graph.only_user(squares.output) is node and x.type.dtype in SumSquares.takes:
        graph.substitute(node, SumSquares(op.axes, op.keepdims), [x], fuses=[squares, node])


@rewrite(recognise_layers, Mul)
def into_norm(node: Node, graph: Rewriter) -> None:
    """x * rsqrt(mean(x * x) + eps) == rms_norm(x); of x - mean(x) it is layer_norm(x)

    Over the axes of the means.

    Fires where nothing in between is read elsewhere. The squares may be a product or a square; a
    quotient by a root has become a product by canonical rules.
    """
    for x, scale in (node.inputs, node.inputs[::-1]):
        found = _inverse_deviation(scale, x)
        if found is None:
            continue
        axes, eps, members = found
        if any(isinstance(x.type.shape[a], Dim) for a in axes):
            graph.miss(node, "its statistics are those of the batch, and a norm's of one image")
            continue
        centred = _centred(x, axes)
        members = [*([] if centred is None else centred[1]), *members, node]
        leak = _leak(members, node, graph)
        if leak is not None:
            graph.miss(node, f"%{leak.name}, which is part of the norm, is read elsewhere too")
            continue
        op: Op = RmsNorm(axes, eps) if centred is None else LayerNorm(axes, eps)
        operand = x if centred is None else centred[0]
        graph.substitute(node, op, [operand], fuses=graph.in_order(set(members)))
        return


def _inverse_deviation(value: Value, x: Value) -> tuple[tuple[int, ...], float, list[Node]] | None:
    """Axes, eps and nodes where `value` is rsqrt(mean(x^2) + eps)."""
    match value.producer:
        case Node(op=Rsqrt(), inputs=[Value(producer=Node(op=Add()) as sum)]) as root:
            mean, added = sum.inputs
        case _:
            return None
    average, constant = mean.producer, added.producer
    if average is None or constant is None or not isinstance(constant.op, Constant):
        return None
    op, eps, square = average.op, constant.op.value, average.inputs[0].producer
    if not isinstance(op, Mean) or not op.keepdims or isinstance(eps, tuple) or square is None:
        return None
    if square.op != Mul() or square.inputs != [x, x]:
        return None
    return op.axes, float(eps), [square, average, sum, root]


def _centred(value: Value, axes: tuple[int, ...]) -> tuple[Value, list[Node]] | None:
    """x, and the nodes, where `value` is x - mean(x)."""
    match value.producer:
        case Node(op=Sub(), inputs=[x, Value(producer=Node(op=op, inputs=[same]) as mean)]) as sub:
            if same is x and op == Mean(axes, keepdims=True):
                return x, [mean, sub]
    return None


def _leak(members: list[Node], last: Node, graph: Rewriter) -> Value | None:
    """What some node outside reads of these nodes, `last` apart."""
    inside = set(members)
    for node in graph.in_order(inside - {last}):
        outside = any(user not in inside for user in node.output.users)
        if outside or node.output in graph.graph.outputs:
            return node.output
    return None


@rewrite(recognise_layers, Mul)
def into_norm_weight(node: Node, graph: Rewriter) -> None:
    """layer_norm(x) * w == layer_norm(x, w); rms_norm(x) * w == rms_norm(x, w)

    For a parameter along the axes of the norm.
    """
    x, weight = node.inputs
    norm = _only_norm(x, node, graph)
    if norm is None or len(norm.inputs) > 1:
        return
    recipe = _along_axes(weight, norm, node)
    if recipe is not None:
        scale = graph.parameter(f"{weight.name}.reshaped", recipe)
        graph.substitute(node, norm.op, [norm.inputs[0], scale], fuses=[norm, node])


@rewrite(recognise_layers, Add)
def into_norm_bias(node: Node, graph: Rewriter) -> None:
    """layer_norm(x, w) + b == layer_norm(x, w, b)

    For a parameter along the axes of the norm.
    """
    x, bias = node.inputs
    norm = _only_norm(x, node, graph)
    if norm is None or not isinstance(norm.op, LayerNorm) or len(norm.inputs) > 2:
        return
    recipe = _along_axes(bias, norm, node)
    if recipe is None:
        return
    shift = graph.parameter(f"{bias.name}.reshaped", recipe)
    weights = norm.inputs[1:]
    if not weights:
        ones = expand(Literal(1.0), *ints(recipe.type.shape))
        weights = [graph.parameter(f"{bias.name}.ones", ones)]
    graph.substitute(node, norm.op, [norm.inputs[0], *weights, shift], fuses=[norm, node])


def _only_norm(value: Value, node: Node, graph: Rewriter) -> Node | None:
    """The layer norm or RMS norm that `node` alone reads."""
    norm = value.producer
    if norm is None or not isinstance(norm.op, LayerNorm | RmsNorm):
        return None
    return norm if graph.only_user(value) is node and value.type == node.output.type else None


def _along_axes(value: Value, norm: Node, node: Node) -> Recipe | None:
    """A parameter that lies along the norm's axes, shaped as the norm takes it."""
    op, rank = norm.op, node.output.type.rank
    assert isinstance(op, LayerNorm | RmsNorm)
    if not isinstance(value, Parameter) or list(op.axes) != sorted(op.axes):
        return None
    shape = ints((1,) * (rank - value.type.rank) + value.type.shape)
    wanted = tuple(node.output.type.shape[a] if a in op.axes else 1 for a in range(rank))
    if shape != wanted:
        return None
    return reshape(recipe_of(value), *(shape[a] for a in op.axes))
