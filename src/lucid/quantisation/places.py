"""Where a graph of floats is cut into integers: which layers multiply them, and which values are
held in 8 bits.

A layer wants its operand as integers. From there integers reach back through what only moves
elements about, and through pools, to what makes them. Elementwise ops become part of the layer
before them, so that values between the two stay floats: of `relu(conv(x) + y)` the result and y are
integers, the convolution's own result is not, and nothing is rounded twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.lineage import stems_from
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Concat,
    Constant,
    Conv2d,
    Elementwise,
    Linear,
    MaxPool2d,
    Mean,
    Pad,
    Permute,
    Reshape,
    Resize,
    Slice,
    Sum,
)

PRODUCTS = (Conv2d, Linear)
"""The layers that there are products of integers for."""
MOVES = (Reshape, Permute, Slice, MaxPool2d, AdaptiveMaxPool2d)
"""Ops whose results are elements of their operand."""
POOLS = (AvgPool2d, AdaptiveAvgPool2d, Mean, Resize)
"""Ops that weigh the elements of one operand."""
INLINED = (Elementwise, Sum)
"""Ops that are computed in floats where their operands are made, or their results are read."""


@dataclass(frozen=True)
class Places:
    """`layers`: the nodes whose products are of integers. `values`: what is held in 8 bits, in
    order, each with the value whose scale it shares (itself mostly)."""

    layers: list[Node]
    values: dict[Value, Value] = field(default_factory=dict)

    def sharing(self, leader: Value) -> list[Value]:
        """The values of one scale, whose elements are not all those of another one of them."""
        group = [v for v, its in self.values.items() if its is leader]
        return [v for v in group if not (_is_moved(v) and _operand(v) in self.values)]


def layers_of(graph: Graph) -> list[Node]:
    """The nodes whose products could be of integers, in order: of floats with parameters."""

    def known(node: Node) -> bool:
        return all(isinstance(v, Parameter) for v in node.inputs[1:])

    return [n for n in graph.nodes if isinstance(n.op, PRODUCTS) and known(n)]


def is_ignored(node: Node, patterns: Iterable[str]) -> bool:
    """Whether a node is of a module that one of the patterns means."""
    return any(stems_from(node, pattern) for pattern in patterns)


def places(graph: Graph, layers: Sequence[Node]) -> Places:
    """Where the graph holds integers so that these layers multiply them."""
    wanted = _Wanted(graph)
    for layer in layers:
        wanted.want(layer.inputs[0])
    wanted.follow()
    held = [v for v in graph.values() if v in wanted.found]
    return Places(list(layers), _sharing(graph, held))


class _Wanted:
    """The values that are found to be wanted as integers, and what follows from that."""

    def __init__(self, graph: Graph) -> None:
        self.found: dict[Value, None] = {}
        self._graph = graph
        self._order = {node: number for number, node in enumerate(graph.nodes)}
        self._left: list[Value] = []

    def want(self, value: Value) -> None:
        fixed = isinstance(value, Parameter) or (
            value.producer is not None and isinstance(value.producer.op, Constant)
        )
        if not fixed and value.type.dtype == "f32" and value not in self.found:
            self.found[value] = None
            self._left.append(value)

    def follow(self) -> None:
        """Want all that follows from what is wanted."""
        while self._left:
            value = self._left.pop()
            node = value.producer
            if node is None:
                continue
            if _moves(node):
                self.want(node.inputs[0])
            elif isinstance(node.op, POOLS):
                self._pooled(node)
            elif isinstance(node.op, Concat):
                for part in node.inputs:
                    self.want(part)
            elif isinstance(node.op, INLINED):
                self._chain(node)

    def _pooled(self, node: Node) -> None:
        """A sum that a mean alone reads is part of it: the attention over splits reads all splits
        once."""
        x = node.inputs[0]
        maker = x.producer
        summed = maker is not None and isinstance(maker.op, Sum) and self._graph.has_one_user(x)
        if maker is not None and summed and isinstance(node.op, Mean):
            self._chain(maker)
        else:
            self.want(x)

    def _chain(self, last: Node) -> None:
        """Want what goes into the elementwise ops that end in a node. One layer's result among it
        stays a float, as they are computed where it is made: the last one's, when all the others'
        are there."""
        layers: list[Node] = []
        left = [last]
        while left:
            node = left.pop()
            for value in node.inputs:
                maker = value.producer
                if isinstance(value, Parameter) or _is_smaller(value, node.output):
                    continue
                if maker is None or not self._graph.has_one_user(value):
                    self.want(value)
                elif isinstance(maker.op, INLINED):
                    left.append(maker)
                elif isinstance(maker.op, PRODUCTS):
                    layers.append(maker)
                elif _moves(maker) or isinstance(maker.op, (*POOLS, Concat)):
                    self.want(value)
        for layer in sorted(layers, key=self._order.__getitem__)[:-1]:
            self.want(layer.output)


def _is_smaller(value: Value, beside: Value) -> bool:
    """Whether a value is broadcast to another: a gate by channel, which stays a float."""
    return prod(value.type.concrete(1)) < prod(beside.type.concrete(1))


def _moves(node: Node) -> bool:
    """Whether every element of a node's result is one of its operand, or 0."""
    match node.op:
        case Pad() as pad:
            return pad.mode != "constant" or pad.value == 0
        case Resize() as resize:
            return resize.mode == "nearest" and resize.roi is None
    return isinstance(node.op, MOVES)


def _is_moved(value: Value) -> bool:
    return value.producer is not None and _moves(value.producer)


def _operand(value: Value) -> Value:
    assert value.producer is not None
    return value.producer.inputs[0]


def _sharing(graph: Graph, held: Sequence[Value]) -> dict[Value, Value]:
    """The value whose scale each shares.

    What is moved has the scale of what it was. The parts of a concatenation have the scale of the
    whole where nothing else reads them, so that they are written in their place.
    """
    leaders = {value: value for value in held}

    def leader(value: Value) -> Value:
        while leaders[value] is not value:
            value = leaders[value]
        return value

    for value in held:
        node = value.producer
        if node is None:
            continue
        if _moves(node) and node.inputs[0] in leaders:
            leaders[leader(value)] = leader(node.inputs[0])
        elif isinstance(node.op, Concat):
            for part in node.inputs:
                if part in leaders and _is_private(graph, part):
                    leaders[leader(part)] = leader(value)
    return {value: leader(value) for value in held}


def _is_private(graph: Graph, part: Value) -> bool:
    """Whether a part of a concatenation, and what it was before it was moved, is read once."""
    while graph.has_one_user(part):
        if part.producer is None or not _moves(part.producer):
            return part.producer is not None
        part = part.producer.inputs[0]
    return False
