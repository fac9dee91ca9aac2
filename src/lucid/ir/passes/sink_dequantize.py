"""sink-dequantize: what only moves numbers, or compares them, is applied to the integers.

A dequantize keeps the order of numbers, and does the same to each: so a reshape, a concatenation, a
max pool or a relu may as well come before it. It then stands before the layer that takes it in.
"""

from __future__ import annotations

from dataclasses import replace

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    AdaptiveMaxPool2d,
    Add,
    Concat,
    Constant,
    Dequantize,
    Max,
    Maximum,
    MaxPool2d,
    Min,
    Mul,
    Op,
    Pad,
    Permute,
    Relu,
    Reshape,
    Resize,
    Slice,
    Sum,
)
from lucid.ir.passes.quantised import dequantised, is_quantised
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.passes.selected import Selection

sink_dequantize = Pass(
    "sink-dequantize", "Move elements of quantised tensors, and compare them, as 8-bit integers"
)

MOVES = (Reshape, Permute, Slice)
MOST_PLACES = 4
EXTREMES = (Max, Min, AdaptiveMaxPool2d)


@rewrite(sink_dequantize, *MOVES, *EXTREMES, MaxPool2d, Resize)
def below(node: Node, graph: Rewriter) -> None:
    """op(dequantize(x)) == dequantize(op(x)), for an op that moves or compares elements

    A reshape, a permute, a slice, a maximum, a max pool, a resize to the nearest pixels.

    Fires where x is of 8 bits, with a scale and a zero point known for the whole tensor. Not where
    a window of a pool may lie in the padding, which is less than all integers.
    """
    (value,) = node.inputs
    if not is_quantised(value):
        return
    if isinstance(node.op, Resize) and not is_nearest(node.op):
        return
    if isinstance(node.op, MaxPool2d) and not _reaches_inside(node.op):
        graph.miss(node, "a window may lie in the padding, which no integer stands for")
        return
    _sink(node, node.op, [_integers(value)], value, graph)


@rewrite(sink_dequantize, Concat)
def below_concat(node: Node, graph: Rewriter) -> None:
    """concat(dequantize(x), dequantize(y)) == dequantize(concat(x, y)), of one scale

    Fires where all parts are of 8 bits, with one scale and one zero point known for all of them.
    """
    found = [dequantised(v) for v in node.inputs]
    if None not in found and len({step for _, step in filter(None, found)}) == 1:
        _sink(node, node.op, [_integers(v) for v in node.inputs], node.inputs[0], graph)


@rewrite(sink_dequantize, Pad)
def below_pad(node: Node, graph: Rewriter) -> None:
    """pad{0}(dequantize(x)) == dequantize(pad{zero_point}(x))

    And so with any other number that an integer stands for.

    Fires where x is of 8 bits, with a scale and a zero point known for the whole tensor.
    """
    op, (value,) = node.op, node.inputs
    found = dequantised(value)
    assert isinstance(op, Pad)
    if found is None:
        return
    source, step = found
    if op.mode != "constant":
        _sink(node, op, [_integers(value)], value, graph)
        return
    border = step.nearest(op.value)
    if step.number(border) != op.value:
        graph.miss(node, f"no integer stands for {op.value:g}, which it pads with", source)
        return
    _sink(node, replace(op, value=float(border)), [_integers(value)], value, graph)


@rewrite(sink_dequantize, Relu)
def below_relu(node: Node, graph: Rewriter) -> None:
    """relu(dequantize(x)) == dequantize(maximum(x, zero_point))

    Where the zero point is the least integer, nothing is below 0: relu(dequantize(x)) ==
    dequantize(x). Fires where x is of 8 bits, with a scale and a zero point known for the whole
    tensor.
    """
    (value,) = node.inputs
    found = dequantised(value)
    if found is None:
        return
    _, step = found
    if step.zero_point == step.bounds[0]:
        graph.replace(node, [value])
        return
    zero = graph.insert_before(node, Constant(step.zero_point, step.dtype), [])
    _sink(node, Maximum(), [_integers(value), zero], value, graph)


@rewrite(sink_dequantize, Sum)
def sum_of_places(node: Node, graph: Rewriter) -> None:
    """sum(dequantize(x)) == dequantize(x[0]) + dequantize(x[1]), along an axis of a few places

    As a split attention adds up its splits, and those times their weights. What x is computed of
    for that alone, by elementwise ops, is computed place by place.

    Fires where x is of 8 bits, with a scale and a zero point known for the whole tensor, or such a
    tensor times a smaller one for this sum alone, and the axis has at most four places and goes
    away.
    """
    op, (value,) = node.op, node.inputs
    assert isinstance(op, Sum)
    if not (is_quantised(value) or _is_weighed(value, graph)) or len(op.axes) != 1 or op.keepdims:
        return
    (axis,) = op.axes
    places = value.type.shape[axis]
    if not isinstance(places, int) or not 1 < places <= MOST_PLACES:
        graph.miss(node, f"{places} places along axis {axis} are not few", value.producer)
        return
    back = value.type.rank - axis
    parts = [Selection(node, graph, back, i).of(value, node) for i in range(places)]
    total = parts[0]
    for part in parts[1:-1]:
        total = graph.insert_before(node, Add(), [total, part])
    graph.substitute(node, Add(), [total, parts[-1]], fuses=[node])


def _is_weighed(value: Value, graph: Rewriter) -> bool:
    """Whether a value is a quantised tensor times a smaller one, and has one reader."""
    match value.producer:
        case Node(op=Mul(), inputs=inputs) if graph.only_user(value) is not None:
            whole = [v for v in inputs if v.type.shape == value.type.shape]
            return len(whole) == 1 and is_quantised(whole[0])
    return False


def is_nearest(op: Op) -> bool:
    """Whether an op resizes to pixels as they are."""
    return isinstance(op, Resize) and op.mode == "nearest"


def _reaches_inside(op: MaxPool2d) -> bool:
    """Whether each window has a pixel of the image: there is no padding as wide as a window, and
    none at all where taps lie apart and could step over the image."""
    if not any(op.padding):
        return True
    top, left, bottom, right = op.padding
    narrow = max(top, bottom) < op.kernel[0] and max(left, right) < op.kernel[1]
    return narrow and op.dilation == (1, 1)


def _integers(value: Value) -> Value:
    """What a dequantized value is made of."""
    assert value.producer is not None
    return value.producer.inputs[0]


def _sink(node: Node, op: Op, integers: list[Value], value: Value, graph: Rewriter) -> None:
    """Let `node` be the dequantize of `op`, applied to integers, with the scale of `value`."""
    dequantize = value.producer
    assert dequantize is not None
    assert isinstance(dequantize.op, Dequantize)
    moved = graph.insert_before(node, op, integers)
    graph.substitute(node, Dequantize(), [moved, *dequantize.inputs[1:]], fuses=[node])
