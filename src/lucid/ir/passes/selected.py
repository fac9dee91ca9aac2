"""One place along an axis of what is computed of quantised tensors, computed of their places."""

from __future__ import annotations

from dataclasses import dataclass

from lucid.ir.graph import Node, Value
from lucid.ir.ops import Dequantize, Elementwise, Op, Quantize, Reshape, Slice
from lucid.ir.passes.quantised import is_quantised, step_of
from lucid.ir.passes.rewriter import Rewriter


@dataclass(frozen=True)
class Selection:
    """The places `number` along an axis, which goes away; the axis counted from the last one, as
    1, so that it is the same for what broadcasts. New nodes stand before `place`."""

    place: Node
    graph: Rewriter
    back: int
    number: int

    def of(self, value: Value, reader: Node) -> Value:
        """The place of `value`: elementwise ops that `reader` alone reads, and each dequantize, are
        applied to the places of their operands."""
        axis = value.type.rank - self.back
        if axis < 0:
            return value
        node, shape = value.producer, value.type.shape
        alone = self.graph.only_user(value) is reader or is_quantised(value)
        if node is not None and alone and _is_elementwise(node):
            return self._insert(node.op, *(self.of(v, node) for v in node.inputs))
        if shape[axis] == 1:
            return self._insert(Reshape((*shape[:axis], *shape[axis + 1 :])), value)
        whole = _joined(value, axis)
        if whole is not None:
            length = shape[axis + 1]
            assert isinstance(length, int)
            cut = Slice(axis, self.number * length, (self.number + 1) * length)
            return self._insert(cut, whole)
        one = self._insert(Slice(axis, self.number, self.number + 1), value)
        return self._insert(Reshape((*shape[:axis], *shape[axis + 1 :])), one)

    def _insert(self, op: Op, *inputs: Value) -> Value:
        return self.graph.insert_before(self.place, op, inputs)


def _is_elementwise(node: Node) -> bool:
    """Whether a node does the same to each element, whatever its place."""
    scaled = isinstance(node.op, Quantize | Dequantize)
    return step_of(node) is not None if scaled else isinstance(node.op, Elementwise)


def _joined(value: Value, axis: int) -> Value | None:
    """The tensor in which an axis and the next one were one, if a reshape has split it."""
    match value.producer:
        case Node(op=Reshape(), inputs=[whole]):
            shape, rest = value.type.shape, axis + 2
            before, after = whole.type.shape[:axis], whole.type.shape[axis + 1 :]
            split = isinstance(shape[axis], int) and all(isinstance(d, int) for d in shape[axis:])
            return whole if split and (before, after) == (shape[:axis], shape[rest:]) else None
    return None
