"""canonicalise: rewrites equivalent forms to one, so that later passes need to match only that."""

from __future__ import annotations

import numpy as np

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    Add,
    AvgPool2d,
    BatchNorm,
    Binary,
    Clip,
    Concat,
    Constant,
    Conv2d,
    Div,
    Expand,
    Fusion,
    GroupNorm,
    LayerNorm,
    Linear,
    Max,
    Maximum,
    MaxPool2d,
    Mean,
    Min,
    Minimum,
    Mul,
    Op,
    Permute,
    Prod,
    Reshape,
    RmsNorm,
    Sigmoid,
    Silu,
    Slice,
    SplitAttention,
    Sub,
    Sum,
    SumSquares,
)
from lucid.ir.ops.constant import nested
from lucid.ir.passes.recipes import size
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite, rewrite_graph
from lucid.ir.recipe import Apply, Literal, Recipe, sources

canonicalise = Pass(
    "canonicalise",
    "Fold integer constants and ops over parameters, merge equal nodes, remove what does nothing",
)

SPATIAL = (2, 3)
MOST_ELEMENTS = 1 << 16  # of a folded constant: tables of a forward are small
MOST_OPS = 256  # in a recipe: recipes are trees, and sharing nodes could grow them exponentially


# -- the graph as a whole -------------------------------------------------------------------


@rewrite_graph(canonicalise)
def dead_code(graph: Rewriter) -> None:
    """op(x) == nothing, where nobody reads it

    Ops have no effects: always legal.
    """
    for node in reversed(list(graph.graph.nodes)):
        unread = not any(graph.graph.is_used(v) for v in node.outputs)
        if unread and node not in graph.erased:
            graph.erase(node)


@rewrite_graph(canonicalise)
def equal_nodes(graph: Rewriter) -> None:
    """(op(x), op(x)) == (y, y) with y = op(x)

    The later one of two nodes goes away.

    Attributes are compared as printed: 0.0 and -0.0 are equal numbers and different constants.
    Fusions are left alone; their bodies are compared by nobody yet.
    """
    known: dict[tuple[str, tuple[Value, ...]], Node] = {}
    for node in list(graph.graph.nodes):
        if node in graph.erased or isinstance(node.op, Fusion):
            continue
        first = known.setdefault((repr(node.op), tuple(node.inputs)), node)
        if first is not node:
            graph.replace(node, first.outputs)


# -- what is known at compile time ----------------------------------------------------------


@rewrite(canonicalise, Op)
def integers(node: Node, graph: Rewriter) -> None:
    """op(constant{v}, constant{w}, ...) == constant{op(v, w, ...)}

    Over int64 constants alone; never of a floating value, nor where the shape depends on the batch.
    """
    producers = [v.producer.op for v in node.inputs if v.producer]
    tables = [op for op in producers if isinstance(op, Constant) and op.dtype == "i64"]
    if not tables or len(tables) != len(node.inputs) or len(node.outputs) != 1:
        return
    kind = node.output.type
    if kind.dtype != "i64" or not all(isinstance(d, int) for d in kind.shape):
        return
    if not 0 < np.prod(kind.concrete(1)) <= MOST_ELEMENTS:
        return
    (result,) = node.op.results(*(op.evaluate() for op in tables))
    graph.substitute(node, Constant(nested(result), "i64"), [])


@rewrite(canonicalise, Op)
def into_recipe(node: Node, graph: Rewriter) -> None:
    """op(w, v, ...) == u with the recipe op(w, v, ...), for parameters

    As a weight standardisation is. Constants may be among the operands.

    The result becomes a parameter with a recipe, evaluated once when weights are packed. Not where
    the shape depends on the batch, nor where the recipe would be long. A scalar that is only
    expanded stays a constant, which others look for.
    """
    recipes = [_recipe(v) for v in node.inputs]
    known = [r for r in recipes if r is not None]
    if not recipes or len(known) < len(recipes) or len(node.outputs) != 1:
        return
    if isinstance(node.op, Expand) and isinstance(known[0], Literal):
        return
    first = next((v for v in node.inputs if isinstance(v, Parameter)), node.output)
    kind = node.output.type
    if isinstance(node.op, (Fusion, SplitAttention)) or not all(
        isinstance(d, int) for d in kind.shape
    ):
        return
    recipe = Apply(node.op, tuple(known))
    if recipe.type == kind and size(recipe, MOST_OPS) < MOST_OPS:
        named_after = next((s.name for s in sources(recipe)), first.name)
        graph.replace(node, [graph.parameter(f"{named_after}.folded", recipe)])


@rewrite(canonicalise, Conv2d, Linear, BatchNorm, LayerNorm, GroupNorm, RmsNorm)
def constant_weights(node: Node, graph: Rewriter) -> None:
    """conv2d(x, constant) == conv2d(x, @parameter), and so for every layer with weights

    By constants of the forward, such as a blur by a kernel written out."""
    x, *weights = node.inputs
    recipes = [None if isinstance(v, Parameter) else _recipe(v) for v in weights]
    if any(recipes):
        made = [
            v if recipe is None else graph.parameter(v.name, recipe)
            for v, recipe in zip(weights, recipes, strict=True)
        ]
        graph.substitute(node, node.op, [x, *made])


def _recipe(value: Value) -> Recipe | None:
    """How a value known at compile time is made, else None."""
    match value:
        case Parameter():
            return value.recipe
        case Value(producer=Node(op=Constant(value=float() | int() as number, dtype="f32"))):
            return Literal(float(number))
        case Value(producer=Node(op=Constant() as table)):
            return Apply(table)
        case Value(producer=Node(op=Expand() as spread, inputs=[scalar])):
            recipe = _recipe(scalar)
            is_static = all(isinstance(d, int) for d in value.type.shape)
            return Apply(spread, (recipe,)) if isinstance(recipe, Literal) and is_static else None
    return None


# -- what does nothing ----------------------------------------------------------------------


@rewrite(canonicalise, Reshape, Permute, Expand, Slice, Concat, Clip, MaxPool2d, AvgPool2d)
def identity(node: Node, graph: Rewriter) -> None:
    """op(x) == x

    Where an op gives its operand back, as ResNeSt's 1x1 shortcut pool in stage 1 does.
    """
    if node.inputs[0].type == node.output.type and _keeps(node.op, len(node.inputs)):
        graph.replace(node, [node.inputs[0]])


def _keeps(op: Op, operands: int) -> bool:
    """Whether an op whose result has its operand's type changes no element."""
    match op:
        case Permute(axes=axes):
            return axes == tuple(range(len(axes)))
        case MaxPool2d(kernel=kernel, padding=padding) | AvgPool2d(kernel=kernel, padding=padding):
            divides = isinstance(op, AvgPool2d) and op.divisor not in (None, 1)
            return kernel == (1, 1) and op.stride == (1, 1) and not any(padding) and not divides
        case Clip(low=low, high=high):
            return low is None and high is None
        case Concat():
            return operands == 1
    return True  # a reshape, a broadcast or a slice to the type it comes from


@rewrite(canonicalise, Add, Sub, Mul, Div)
def neutral_constant(node: Node, graph: Rewriter) -> None:
    """x + 0 == 0 + x == x - 0 == x * 1 == 1 * x == x / 1 == x

    0 + x is how Python's `sum` begins.

    Where x is -0.0, x + 0 would be 0.0: that difference is given up.
    """
    neutral = 0 if isinstance(node.op, (Add, Sub)) else 1
    turns = (0, 1) if isinstance(node.op, (Add, Mul)) else (0,)
    for turn in turns:
        x, other = node.inputs[turn], node.inputs[1 - turn]
        match other.producer:
            case Node(op=Constant(value=value)) if value == neutral and x.type == node.output.type:
                graph.replace(node, [x])
                return


@rewrite(canonicalise, Sum, Prod, Mean, Max, Min)
def over_ones(node: Node, graph: Rewriter) -> None:
    """sum(x) == mean(x) == max(x) == min(x) == reshape(x), over axes of size 1

    A sum, mean or extreme over axes of size 1 is a reshape.

    The mean over height and width stays even where both are 1, so that a network has the same
    graph, and with it the same packed weights, at every image size.
    """
    op, kind = node.op, node.inputs[0].type
    assert isinstance(op, (Sum, Prod, Mean, Max, Min))
    if isinstance(op, Mean) and op.axes == SPATIAL and kind.rank == 4:
        return
    if all(kind.shape[a] == 1 for a in op.axes):
        graph.substitute(node, Reshape(node.output.type.shape), node.inputs)


# -- normal forms ---------------------------------------------------------------------------


@rewrite(canonicalise, Reshape)
def plain_reshape(node: Node, graph: Rewriter) -> None:
    """reshape(reshape(x)) == reshape(x)

    And a reshape names all its dimensions (no -1).
    """
    x, shape = node.inputs[0], node.output.type.shape
    if x.producer is not None and isinstance(x.producer.op, Reshape):
        x = x.producer.inputs[0]
    if node.op != Reshape(shape) or x is not node.inputs[0]:
        graph.substitute(node, Reshape(shape), [x])


@rewrite(canonicalise, Permute)
def plain_permute(node: Node, graph: Rewriter) -> None:
    """permute{p}(permute{q}(x)) == permute{q[p]}(x)

    One that moves only axes of size 1 is a reshape.
    """
    x, op = node.inputs[0], node.op
    assert isinstance(op, Permute)
    moved = [a for a in op.axes if x.type.shape[a] != 1]
    if moved == sorted(moved):
        graph.substitute(node, Reshape(node.output.type.shape), [x])
    elif x.producer is not None and isinstance(inner := x.producer.op, Permute):
        axes = tuple(inner.axes[a] for a in op.axes)
        graph.substitute(node, Permute(axes), x.producer.inputs)


@rewrite(canonicalise, Sum, SumSquares, Prod, Mean, Max, Min)
def plain_axes(node: Node, graph: Rewriter) -> None:
    """sum{axes=(3,2)}(x) == sum{axes=(2,3)}(x), and so of all reductions

    A mean over height and width keeps them, as 1, and then reshapes.
    """
    op, x = node.op, node.inputs[0]
    assert isinstance(op, (Sum, SumSquares, Prod, Mean, Max, Min))
    axes = tuple(sorted(op.axes))
    if isinstance(op, Mean) and axes == SPATIAL and x.type.rank == 4 and not op.keepdims:
        mean = graph.insert_before(node, Mean(SPATIAL, keepdims=True), [x])
        graph.substitute(node, Reshape(node.output.type.shape), [mean])
    elif axes != op.axes:
        graph.substitute(node, type(op)(axes, op.keepdims), [x])


@rewrite(canonicalise, AvgPool2d)
def global_pool(node: Node, graph: Rewriter) -> None:
    """avg_pool2d{kernel=(h,w)}(x) == mean{axes=(2,3)}(x), for images of h x w

    An average pool whose one window is the whole image is the mean over height and width.
    """
    op, x = node.op, node.inputs[0]
    assert isinstance(op, AvgPool2d)
    height, width = x.type.shape[2:]
    if op.kernel != (height, width) or node.output.type.shape[2:] != (1, 1) or any(op.padding):
        return
    if op.divisor in (None, op.kernel[0] * op.kernel[1]):
        graph.substitute(node, Mean(SPATIAL, keepdims=True), [x])


@rewrite(canonicalise, Add, Mul, Maximum, Minimum)
def known_operand_last(node: Node, graph: Rewriter) -> None:
    """add(w, x) == add(x, w), for a parameter or constant w

    And so of all ops whose operands commute.
    """
    a, b = node.inputs
    if _recipe(a) is not None and _recipe(b) is None:
        graph.substitute(node, node.op, [b, a])


@rewrite(canonicalise, Binary)
def broadcast_by_itself(node: Node, graph: Rewriter) -> None:
    """op(expand(x), y) == op(x, y)

    Where broadcasting makes the same of x.
    """
    operands = [_unexpanded(v) for v in node.inputs]
    for i, (given, plain) in enumerate(zip(node.inputs, operands, strict=True)):
        inputs = [plain if i == j else v for j, v in enumerate(node.inputs)]
        if plain is not given and node.op.result_types(*(v.type for v in inputs)) == (
            node.output.type,
        ):
            graph.substitute(node, node.op, inputs)
            return


def _unexpanded(value: Value) -> Value:
    node = value.producer
    return node.inputs[0] if node is not None and isinstance(node.op, Expand) else value


@rewrite(canonicalise, Mul)
def swish(node: Node, graph: Rewriter) -> None:
    """x * sigmoid(x) == silu(x)

    Where nothing else reads the sigmoid.
    """
    for x, gate in (node.inputs, reversed(node.inputs)):
        match gate.producer:
            case Node(op=Sigmoid(), inputs=[same]) if same is x and graph.only_user(gate) is node:
                graph.substitute(node, Silu(), [x], fuses=[gate.producer, node])
                return
