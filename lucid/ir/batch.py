"""Whether images of a batch stay apart, so that a batch can be run in slices."""

from __future__ import annotations

from math import prod

from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import Concat, Permute, Reduction, Reshape, Softmax
from lucid.ir.types import Dim


def mixing_node(graph: Graph) -> Node | None:
    """The first node whose result for one image depends on the others, or that puts the results of
    one image apart; None where a batch may be run in slices."""
    return next((n for n in graph.nodes if _mixes(n)), None)


def batch_axes(value: Value) -> list[int]:
    """The axes of a value whose size depends on the batch."""
    return [i for i, d in enumerate(value.type.shape) if isinstance(d, Dim)]


def _mixes(node: Node) -> bool:
    if any(len(batch_axes(v)) > 1 for v in node.outputs):
        return True
    op, axes = node.op, {a for v in node.inputs for a in batch_axes(v)}
    match op:
        case Reduction():
            return bool(axes & set(op.axes))
        case Softmax() | Concat():
            return op.axis in axes
        case Reshape():
            return _moves_apart(node.inputs[0], node.output)
        case Permute():
            return False  # what follows is told by the axis it is moved to
    return False


def _moves_apart(x: Value, y: Value) -> bool:
    """Whether a reshape joins the batch with axes before it: the images' rows then interleave."""
    before, after = _batch_place(x), _batch_place(y)
    return before != after and (before[0] != 1 or after[0] != 1)


def _batch_place(value: Value) -> tuple[int, int]:
    """How many elements the axes before the batch have, and the batch's coefficient."""
    for axis in batch_axes(value):
        dim = value.type.shape[axis]
        assert isinstance(dim, Dim)
        return prod(d for d in value.type.shape[:axis] if isinstance(d, int)), dim.coefficient
    return 1, 0
