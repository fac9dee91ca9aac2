"""sink-permutes: channels-last layers between two permutes become channels-first ones.

PyTorch's idiom for a layer norm and linears over the channels of an image is permute, layer norm,
linear, ..., permute. Every op here is logically (N, C, H, W), and every buffer channels last: so
the linear is a 1x1 convolution, and there is nothing to permute. Each rule moves a permute from an
op's operands to its result, until it meets the one that undoes it.
"""

from __future__ import annotations

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    Concat,
    Conv2d,
    Elementwise,
    LayerNorm,
    Linear,
    Max,
    Mean,
    Min,
    Op,
    Pad,
    Permute,
    Prod,
    Reshape,
    RmsNorm,
    Slice,
    Softmax,
    Sum,
    SumSquares,
)
from lucid.ir.passes.canonicalise import identity, plain_axes, plain_permute, plain_reshape
from lucid.ir.passes.recipes import apply, are_parameters, ints, recipe_of, reshape
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite

sink_permutes = Pass(
    "sink-permutes",
    "Turn layers over channels-last images between permutes into channels-first ones",
)

LAST = (0, 2, 3, 1)  # (N, C, H, W) as (N, H, W, C)
FIRST = (0, 3, 1, 2)  # and back

# What is left where two permutes meet is tidied up by rules that canonicalise has already.
rewrite(sink_permutes, Permute)(plain_permute)
rewrite(sink_permutes, Reshape)(plain_reshape)
rewrite(sink_permutes, Reshape, Permute)(identity)
rewrite(sink_permutes, Mean)(plain_axes)


# -- layers whose features are the last of four axes ----------------------------------------------


@rewrite(sink_permutes, Linear)
def linear_of_pixels(node: Node, graph: Rewriter) -> None:
    """linear(permute(x), w, b) == permute(conv2d(x, reshape(w), b)), of 1x1

    Pixels of (N, H, W, C), by parameters.
    """
    x, weight, *bias = node.inputs
    if x.type.rank != 4:
        return
    if not are_parameters(weight, *bias):
        graph.miss(node, "its weights are computed, not parameters")
        return
    recipe = reshape(recipe_of(weight), *ints(weight.type.shape), 1, 1)
    kernel = graph.parameter(f"{weight.name}.reshaped", recipe)
    _below(node, Conv2d(), [_channels_first(x, node, graph), kernel, *bias], graph)


@rewrite(sink_permutes, LayerNorm, RmsNorm)
def norm_of_pixels(node: Node, graph: Rewriter) -> None:
    """layer_norm{axes=(3,)}(permute(x)) == permute(layer_norm{axes=(1,)}(x))

    A norm over an axis of (N, H, W, C): over one of (N, C, H, W).

    Fires after a permute, or where the channels are normalised for a linear or a permute that comes
    next. Over several axes the weights would have to be permuted as well: not where it has any.
    """
    op, (x, *weights) = node.op, node.inputs
    assert isinstance(op, LayerNorm | RmsNorm)
    if x.type.rank != 4:
        return
    wanted = op.axes == (3,) and any(
        isinstance(user.op, Linear) or user.op == Permute(FIRST) for user in node.output.users
    )
    if _before(x) is None and not wanted:
        return
    if len(op.axes) > 1 and weights:
        graph.miss(node, f"its weights are over several axes, {op.axes}")
        return
    moved = type(op)(tuple(LAST[a] for a in op.axes), op.eps)
    _below(node, moved, [_channels_first(x, node, graph), *weights], graph)


# -- what a permute passes ------------------------------------------------------------------------


@rewrite(sink_permutes, Elementwise)
def past_elementwise(node: Node, graph: Rewriter) -> None:
    """op(permute(x), permute(y)) == permute(op(x, y)), for elementwise ops

    Elementwise ops over channels-last images are the same channels first.

    Fires where every operand is permuted so, or is channels first at no cost: a parameter, a
    scalar, one pixel an image, or a value that is read channels first already.
    """
    if all(_before(v) is None for v in node.inputs):
        return
    strangers = [v for v in node.inputs if not _is_free(v, node, graph)]
    if strangers:
        graph.miss(node, f"{strangers[0]!r} is not permuted as its other operand is")
        return
    _below(node, node.op, [_channels_first(v, node, graph) for v in node.inputs], graph)


@rewrite(sink_permutes, Sum, SumSquares, Prod, Mean, Max, Min)
def past_reduction(node: Node, graph: Rewriter) -> None:
    """sum{axes}(permute{p}(x)) == permute(sum{p[axes]}(x)), and so of all reductions

    A sum, mean or maximum over axes of a channels-last image: over those of the image.
    """
    op, x = node.op, _before(node.inputs[0])
    assert isinstance(op, Sum | SumSquares | Prod | Mean | Max | Min)
    if x is None:
        return
    axes = tuple(sorted(LAST[a] for a in op.axes))
    moved = type(op)(axes, op.keepdims)
    if op.keepdims:
        _below(node, moved, [x], graph)
        return
    left = [a for a in range(4) if a not in axes]
    order = tuple(left.index(LAST[a]) for a in range(4) if a not in op.axes)
    if order == tuple(range(len(order))):
        graph.substitute(node, moved, [x])
    else:
        reduced = graph.insert_before(node, moved, [x])
        graph.substitute(node, Permute(order), [reduced])


@rewrite(sink_permutes, Softmax, Slice, Pad, Concat)
def past_axes(node: Node, graph: Rewriter) -> None:
    """softmax{axis}(permute{p}(x)) == permute{p}(softmax{p[axis]}(x)), and so of others

    A softmax, slice, padding or concatenation along axes of channels-last images.
    """
    operands = [x for x in map(_before, node.inputs) if x is not None]
    if operands and len(operands) == len(node.inputs):
        _below(node, _moved(node.op), operands, graph)


def _moved(op: Op) -> Op:
    """The op along the axes of (N, C, H, W) that it has along those of (N, H, W, C)."""
    match op:
        case Softmax(axis=axis):
            return Softmax(LAST[axis])
        case Slice(axis=axis, start=start, stop=stop, step=step):
            return Slice(LAST[axis], start, stop, step)
        case Concat(axis=axis):
            return Concat(LAST[axis])
        case Pad(before=before, after=after, value=value, mode=mode):
            before, after = (tuple(side[a] for a in FIRST) for side in (before, after))
            return Pad(before, after, value, mode)
    raise AssertionError(f"{op.name} has no axes to move")


# -- channels first -------------------------------------------------------------------------------


def _before(value: Value) -> Value | None:
    """The (N, C, H, W) value of which this is the channels-last permutation; None for a number an
    image, which is no order's."""
    node = value.producer
    if node is None or value.type.rank != 4 or value.type.shape[1:] == (1, 1, 1):
        return None
    if node.op == Permute(LAST):
        return node.inputs[0]
    (n, height, width, channels), (x, *_) = value.type.shape, [*node.inputs, value]
    one_pixel = height == width == 1 and x.type.shape == (n, channels, 1, 1)
    return x if isinstance(node.op, Reshape) and one_pixel else None


def _is_free(value: Value, node: Node, graph: Rewriter) -> bool:
    """Whether `value`, an operand of `node` as (N, H, W, C), is had channels first at no cost."""
    if isinstance(value, Parameter) or value.type.shape == () or _before(value) is not None:
        return True
    one_pixel = value.type.rank == 4 and value.type.shape[1:3] == (1, 1)
    return one_pixel or _known(value, node, graph) is not None


def _known(value: Value, node: Node, graph: Rewriter) -> Value | None:
    """What permutes `value` channels first already, before `node`."""
    order = graph.graph.nodes
    for user in value.users:
        if user.op == Permute(FIRST) and order.index(user) < order.index(node):
            return user.output
    return None


def _channels_first(value: Value, node: Node, graph: Rewriter) -> Value:
    """`value`, an operand of `node` that broadcasts to (N, H, W, C), as (N, C, H, W)."""
    if isinstance(value, Parameter) and value.type.shape != ():
        return _permuted_parameter(value, graph)
    x = _before(value) or _known(value, node, graph)
    if x is not None or value.type.shape == ():
        return value if x is None else x
    return graph.insert_before(node, Permute(FIRST), [value], inherits=False)


def _permuted_parameter(value: Parameter, graph: Rewriter) -> Value:
    """A parameter that broadcasts to (N, H, W, C) as one that broadcasts to (N, C, H, W)."""
    one, height, width, channels = ints((1,) * (4 - value.type.rank) + value.type.shape)
    full = reshape(value.recipe, one, height, width, channels)
    if height == width == 1:
        recipe = reshape(value.recipe, one, channels, 1, 1)
    else:
        recipe = apply(Permute(FIRST), full)
    return graph.parameter(f"{value.name}.permuted", recipe)


def _below(node: Node, op: Op, operands: list[Value], graph: Rewriter) -> None:
    """Put `op` over channels-first operands in the place of `node`, and the permute below it."""
    moved = graph.insert_before(node, op, operands)
    graph.substitute(node, Permute(LAST), [moved])
