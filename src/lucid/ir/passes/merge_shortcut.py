"""merge-shortcut: a convolution in the shortcut becomes part of the one it is added to."""

from __future__ import annotations

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Add, AvgPool2d, Concat, Conv2d, Fusion, Op
from lucid.ir.passes.recipes import add, apply, recipe_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Recipe

merge_shortcut = Pass(
    "merge-shortcut", "Compute a 1x1 shortcut convolution and the one it is added to as one"
)


@rewrite(merge_shortcut, Fusion)
def into_one_convolution(node: Node, graph: Rewriter) -> None:
    """conv2d(a, w) + conv2d(b, v) == conv2d(concat(a, b), concat(w, v)), of 1x1

    Where ResNet and ResNeSt change the resolution: relu(W a + V b) = relu([W V] [a; b]).

    The shortcut's result is then neither written nor read. Fires where both convolutions are 1x1
    without padding and groups, the first step of the fused body adds the shortcut's result, and
    nothing else reads that. A stride becomes a pool of 1x1 windows. Which of the two is called the
    shortcut does not matter: where that is computed last, it is the one that adds. Not where the
    weights are computed values.
    """
    op = node.op
    assert isinstance(op, Fusion)
    if not isinstance(op.anchor, Conv2d):
        return
    own = op.anchor_operands(len(node.inputs))
    position = _added_first(op.body)
    shortcut = node.inputs[own + position].producer if position is not None else None
    if position is None or shortcut is None or not isinstance(shortcut.op, Conv2d):
        return
    obstacle = _obstacle(node, op, shortcut, graph)
    if obstacle:
        graph.miss(node, obstacle, shortcut)
    else:
        _merge(node, op, shortcut, position, graph)


def _obstacle(node: Node, op: Fusion, shortcut: Node, graph: Rewriter) -> str:
    """Why the shortcut's convolution cannot become part of `node`; empty where it can."""
    name = f"the shortcut %{shortcut.output.name}"
    if not _is_plain(op.anchor):
        return "its own convolution has padding or groups"
    if not _is_plain(shortcut.op):
        return f"{name} has padding or groups"
    if graph.only_user(shortcut.output) is not node or node.inputs.count(shortcut.output) != 1:
        return f"{name} is read elsewhere too"
    weights = (node.inputs[1], shortcut.inputs[1])
    if not all(isinstance(w, Parameter) for w in weights):
        return "the weights are computed, not parameters"
    if any(w.type.shape[2:] != (1, 1) for w in weights):
        return "not both convolutions are 1x1"
    return ""


def _merge(node: Node, op: Fusion, shortcut: Node, position: int, graph: Rewriter) -> None:
    """Put one convolution over both inputs, side by side, in the place of the two."""
    own = op.anchor_operands(len(node.inputs))
    weights = (node.inputs[1], shortcut.inputs[1])
    extras = [v for v in node.inputs[own:] if v is not shortcut.output]
    sides = [
        _sampled(x, layer, node, graph)
        for x, layer in ((node.inputs[0], op.anchor), (shortcut.inputs[0], shortcut.op))
    ]
    both = graph.insert_before(node, Concat(1), sides, inherits=False)
    joined = apply(Concat(1), *(recipe_of(w) for w in weights))
    operands = [both, graph.parameter(f"{weights[0].name}.joined", joined)]
    bias = _bias(node.inputs[2:own], shortcut.inputs[2:])
    if bias is not None:
        operands.append(graph.parameter(f"{weights[0].name}.bias.joined", bias))
    merged = Fusion(Conv2d(), _without_first_add(op.body, position))
    graph.substitute(node, merged, [*operands, *extras], fuses=[node, shortcut])


def _is_plain(op: object) -> bool:
    return isinstance(op, Conv2d) and op.groups == 1 and not any(op.padding)


def _added_first(body: Graph) -> int | None:
    """The extra that the body's first step adds to the anchor's result, both read only there."""
    y, *extras = body.inputs
    first = body.nodes[0] if body.nodes else None
    if first is None or not isinstance(first.op, Add) or y.users != [first]:
        return None
    for position, extra in enumerate(extras):
        if set(first.inputs) == {y, extra} and extra.users == [first] and extra.type == y.type:
            return position
    return None


def _sampled(x: Value, layer: Op, node: Node, graph: Rewriter) -> Value:
    """What a convolution reads, at its stride."""
    assert isinstance(layer, Conv2d)
    if layer.stride == (1, 1):
        return x
    return graph.insert_before(node, AvgPool2d((1, 1), layer.stride), [x], inherits=False)


def _bias(first: list[Value], second: list[Value]) -> Recipe | None:
    recipes = [recipe_of(v) for v in (*first, *second)]
    if len(recipes) == 2:
        return add(*recipes)
    return recipes[0] if recipes else None


def _without_first_add(body: Graph, position: int) -> Graph:
    """The body without its first step and the extra which that added."""
    result = Graph("body")
    first = body.nodes[0]
    mapped: dict[Value, Value] = {}
    for i, value in enumerate(body.inputs):
        if i != position + 1:
            mapped[value] = result.add_input(value.type, value.name)
    mapped[first.output] = mapped[body.inputs[0]]
    for old in body.nodes[1:]:
        new = result.append(
            old.op, [mapped[v] for v in old.inputs], names=[v.name for v in old.outputs]
        )
        mapped.update(zip(old.outputs, new.outputs, strict=True))
    result.set_outputs([mapped[v] for v in body.outputs])
    return result
