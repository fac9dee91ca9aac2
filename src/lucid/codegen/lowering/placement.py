"""Placement of concatenated values: side by side in one buffer, where their producers write them.

A map's channels are the innermost dimension, so a map may lie in a slice of a wider one's channels:
its pixels are further apart, which every kernel takes. A concatenation then costs nothing. Where an
earlier concatenation is a part of a later one, as in a DenseNet, all share the last one's buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import (
    AvgPool2d,
    Concat,
    Conv2d,
    Convolution,
    Fusion,
    Op,
    RadixCombine,
    SplitAttention,
)


@dataclass(frozen=True)
class Place:
    """A slice of the channels of `root`, a concatenation, from channel `first` on."""

    root: Value
    first: int


def placements(graph: Graph) -> Mapping[Value, Place]:
    """The place of every concatenation along channels, and of what it joins.

    It is a wish: what does not come to lie there, such as a view of something else, is copied. The
    last concatenations come first: they have the widest buffers.
    """
    places: dict[Value, Place] = {}
    for node in reversed(list(graph.nodes)):
        if not along_channels(node) or left_to_readers(node):
            continue
        joined = node.output
        starts = _starts(node)
        if joined not in places:
            places[joined] = _common(node, starts, places) or Place(joined, 0)
        place = places[joined]
        for value, start in zip(node.inputs, starts, strict=True):
            if value.producer is not None and value not in places:
                places[value] = Place(place.root, place.first + start)
    return places


def along_channels(node: Node) -> bool:
    """Whether a node joins maps channel by channel."""
    op = node.op
    if not isinstance(op, Concat) or op.axis != 1:
        return False
    return node.output.type.rank == 4 or any(map(_is_map, node.inputs))


def _is_map(value: Value) -> bool:
    """Whether a convolution makes the value, whose axis 1 so holds channels."""
    op = value.producer.op if value.producer is not None else None
    return isinstance(op.anchor if isinstance(op, Fusion) else op, Convolution)


def left_to_readers(node: Node) -> bool:
    """Whether a concatenation is rather made row by row by the products that read it: of two
    values, one of which they make as they go (a combination, or a pool before a shortcut)."""
    if not along_channels(node) or len(node.inputs) != 2:
        return False
    if not all(is_pointwise(u) for u in node.output.users):
        return False
    made = [v.producer.op for v in node.inputs if v.producer is not None]
    return any(isinstance(op, SplitAttention | RadixCombine | AvgPool2d) for op in made)


def is_pointwise(node: Node) -> bool:
    """Whether a node is a 1x1 convolution of all channels, whatever follows it."""
    op: Op = node.op.anchor if isinstance(node.op, Fusion) else node.op
    weight = node.inputs[1].type.shape if len(node.inputs) > 1 else ()
    return isinstance(op, Conv2d) and op.groups == 1 and weight[2:] == (1, 1)


def _starts(node: Node) -> list[int]:
    """The first channel of each operand in the result."""
    starts, total = [], 0
    for value in node.inputs:
        starts.append(total)
        channels = value.type.shape[1]
        assert isinstance(channels, int), "channels do not depend on the batch"
        total += channels
    return starts


def _common(node: Node, starts: list[int], places: Mapping[Value, Place]) -> Place | None:
    """The place that a concatenation already has if all it joins lies side by side elsewhere."""
    first = places.get(node.inputs[0])
    if first is None:
        return None
    for value, start in zip(node.inputs, starts, strict=True):
        if places.get(value) != Place(first.root, first.first + start):
            return None
    return first
