"""recognise-layers, group norms: exporters write them as the instance norm of reshaped images."""

from __future__ import annotations

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Add, GroupNorm, Mul, Op, Reshape
from lucid.ir.passes.recipes import add, expand, ints, mul, recipe_of, reshape
from lucid.ir.passes.recognise_layers import recognise_layers
from lucid.ir.passes.rewriter import Rewriter, rewrite
from lucid.ir.recipe import Recipe
from lucid.ir.types import Dim


@rewrite(recognise_layers, Reshape)
def into_group_norm(node: Node, graph: Rewriter) -> None:
    """reshape(group_norm{channels}(reshape(x))) == group_norm(x)

    (N, C, ...) reshaped to (N, groups, ...), normalised channel by channel there, and reshaped
    back: a group norm, whose groups are channels that lie one after the other.

    Fires where the groups divide the channels, and nothing else reads the norm.
    """
    norm = _only_norm(node.inputs[0], node, graph)
    source = norm.inputs[0].producer if norm else None
    if norm is None or source is None or not isinstance(source.op, Reshape):
        return
    x, groups = source.inputs[0], norm.inputs[1].type.shape[0]
    if x.type != node.output.type or x.type.rank < 2 or not _each_alone(norm.op, groups):
        return
    batch, channels, *_ = x.type.shape
    if not isinstance(groups, int) or not isinstance(channels, int) or channels % groups:
        return
    if norm.output.type.shape[:2] != (batch, groups):
        return
    affine = [
        graph.parameter(f"{v.name}.repeated", _repeated(recipe_of(v), groups, channels))
        for v in norm.inputs[1:]
    ]
    graph.substitute(node, norm.op, [x, *affine], fuses=[norm, node])


@rewrite(recognise_layers, Mul, Add)
def into_group_norm_weights(node: Node, graph: Rewriter) -> None:
    """group_norm(x, w, b) * s + t == group_norm(x, w * s, b * s + t), by channel

    group_norm times, or plus, a parameter of one value for each channel: in its weights.
    """
    norm, value = _only_norm(node.inputs[0], node, graph), node.inputs[1]
    if norm is None or norm.output.type != node.output.type:
        return
    recipe = _by_channel(value, node.output)
    if recipe is None:
        return
    x, weight, bias = norm.inputs
    shift = graph.parameter(f"{value.name}.bias", _joined(node.op, recipe_of(bias), recipe))
    if isinstance(node.op, Mul):
        weight = graph.parameter(f"{value.name}.weight", mul(recipe_of(weight), recipe))
    graph.substitute(node, norm.op, [x, weight, shift], fuses=[norm, node])


def _joined(op: Op, bias: Recipe, recipe: Recipe) -> Recipe:
    return mul(bias, recipe) if isinstance(op, Mul) else add(bias, recipe)


def _only_norm(value: Value, node: Node, graph: Rewriter) -> Node | None:
    """The group norm with parameters for weights that `node` alone reads."""
    norm = value.producer
    if norm is None or not isinstance(norm.op, GroupNorm) or graph.only_user(value) is not node:
        return None
    return norm if all(isinstance(v, Parameter) for v in norm.inputs[1:]) else None


def _each_alone(op: Op, channels: int | Dim) -> bool:
    """Whether each of the channels is a group of the group norm."""
    return isinstance(op, GroupNorm) and op.groups == channels


def _repeated(recipe: Recipe, groups: int, channels: int) -> Recipe:
    """A value for each group as one for each of its channels."""
    each = expand(reshape(recipe, groups, 1), groups, channels // groups)
    return reshape(each, channels)


def _by_channel(value: Value, like: Value) -> Recipe | None:
    """A parameter of one value for each channel of `like`, as a vector."""
    if not isinstance(value, Parameter) or value.type.rank > like.type.rank:
        return None
    shape = ints((1,) * (like.type.rank - value.type.rank) + value.type.shape)
    wanted = tuple(d if axis == 1 else 1 for axis, d in enumerate(like.type.shape))
    return reshape(recipe_of(value), shape[1]) if shape == wanted else None
