"""Fusions in the making: an anchor, its operands, and a body that grows by one op after another."""

from __future__ import annotations

from collections.abc import Mapping

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import (
    Cast,
    Constant,
    Convolution,
    Elementwise,
    Fusion,
    IntegerConv2d,
    IntegerLinear,
    Linear,
    Op,
)
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.passes.recipes import expand, ints, reshape
from lucid.ir.passes.rewriter import Rewriter
from lucid.ir.recipe import Recipe
from lucid.ir.types import TensorType

LAYERS = (Convolution, Linear, IntegerConv2d, IntegerLinear)


class Region:
    """The region of one node, to which others are added. Makes no change to the graph by itself,
    but for parameters in the shape that an epilogue reads.

    `result`: what the body returns, so far.
    """

    def __init__(self, node: Node, graph: Rewriter) -> None:
        self.graph = graph
        self.anchor, own = anchor_of(node), _own_operands(node)
        self.kind = anchored(node)
        self.operands = list(node.inputs[:own])
        self.body = Graph("body")
        self.result = self.body.add_input(self.kind, "y")
        self._extras: dict[Value, Value] = {}

    @staticmethod
    def of(node: Node, graph: Rewriter) -> Region:
        """The region that a node is: a fusion with its whole body, or an op alone."""
        region = Region(node, graph)
        if isinstance(node.op, Fusion):
            region.result = region.take_in(node.op.body, region.result, _extras(node), {})
        return region

    def append(self, node: Node, given: Mapping[Value, Value]) -> Value:
        """What an elementwise node, or a fusion of one, computes. `given`: what the body has for
        values of the graph; other operands become extras or constants."""
        if not isinstance(node.op, Fusion):
            return self.body.append(node.op, [self._read(v, given) for v in node.inputs]).output
        own = _own_operands(node)
        start = self.body.append(anchor_of(node), [self._read(v, given) for v in node.inputs[:own]])
        return self.take_in(node.op.body, start.output, _extras(node), given)

    def take_in(
        self, other: Graph, result: Value, extras: list[Value], given: Mapping[Value, Value]
    ) -> Value:
        """The steps of another body, after `result`, with its extras' values of the graph."""
        reads = [self._read(v, given) for v in extras]
        mapped = dict(zip(other.inputs, [result, *reads], strict=True))
        for node in other.nodes:
            new = self.body.append(node.op, [mapped[v] for v in node.inputs])
            mapped[node.output] = new.output
        return mapped[other.outputs[0]]

    def fusion(self, result: Value) -> tuple[Fusion, list[Value]]:
        """The op with a body that returns `result`, and its operands."""
        self.body.set_outputs([result])
        return Fusion(self.anchor, self.body), self.operands

    def _read(self, value: Value, given: Mapping[Value, Value]) -> Value:
        """What the body reads for a value of the graph."""
        if value in given:
            return given[value]
        scalar = scalar_of(value)
        if scalar is not None:
            return self.body.append(scalar, []).output
        recipe = by_channel(value, self.kind, self.anchor)
        if recipe is not None and recipe.type != value.type:
            value = self.graph.parameter(f"{value.name}.reshaped", recipe)
        if value not in self._extras:
            self.operands.append(value)
            self._extras[value] = self.body.add_input(value.type, "e")
        return self._extras[value]


def anchor_of(node: Node) -> Op:
    """The op that a node is, or is a fusion of."""
    return node.op.anchor if isinstance(node.op, Fusion) else node.op


def anchored(node: Node) -> TensorType:
    """The type of what a node's anchor makes, which a body may turn into another dtype."""
    return node.op.body.inputs[0].type if isinstance(node.op, Fusion) else node.output.type


def is_elementwise(node: Node) -> bool:
    """Whether a node computes each element by itself: an elementwise op, or a fusion of those. So
    is one that begins with a cast of quantised numbers; other casts are layers that others join."""
    anchor = anchor_of(node)
    quantised = isinstance(anchor, Cast) and node.inputs[0].type.dtype in (*EIGHT_BITS, "i32")
    return isinstance(anchor, Elementwise) or (quantised and anchored(node).dtype == "f32")


def _own_operands(node: Node) -> int:
    count = len(node.inputs)
    return node.op.anchor_operands(count) if isinstance(node.op, Fusion) else count


def _extras(node: Node) -> list[Value]:
    return node.inputs[_own_operands(node) :]


def scalar_of(value: Value) -> Op | None:
    """The constant of rank 0 that a value is, if it is one."""
    op = value.producer.op if value.producer is not None else None
    return op if isinstance(op, Constant) and value.type.shape == () else None


def by_channel(value: Value, kind: TensorType, anchor: Op) -> Recipe | None:
    """A parameter that depends on the channel at most, as (1, C, 1, 1) after a convolution of
    images, as (C) after a linear; None for what is none, and after any other op."""
    if not isinstance(value, Parameter) or value.type.rank > kind.rank:
        return None
    if not isinstance(anchor, LAYERS):
        return None
    of_images = isinstance(anchor, Convolution | IntegerConv2d)
    axis = 1 if of_images else kind.rank - 1
    shape = ints((1,) * (kind.rank - value.type.rank) + value.type.shape)
    if any(d != 1 for i, d in enumerate(shape) if i != axis):
        return None
    channels = kind.shape[axis]
    if shape[axis] not in (1, channels) or not isinstance(channels, int):
        return None
    full: tuple[int, ...] = (channels,)
    if of_images:
        full = (1, channels, *(1,) * (kind.rank - 2))
    if shape[axis] == channels:
        return reshape(value.recipe, *full)
    return expand(reshape(value.recipe), *full)
