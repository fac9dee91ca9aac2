"""Whether images of a batch stay apart, so that a batch can be run in slices."""

from __future__ import annotations

from math import prod

from lucid.ir import ops
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.types import Dim

APART = (
    ops.Elementwise,
    ops.Cast,
    ops.Constant,
    ops.Conv2d,
    ops.Linear,
    ops.BatchNorm,
    ops.LayerNorm,
    ops.RmsNorm,
    ops.GroupNorm,
    ops.LocalResponseNorm,
    ops.AvgPool2d,
    ops.MaxPool2d,
    ops.AdaptiveAvgPool2d,
    ops.AdaptiveMaxPool2d,
    ops.Resize,
    ops.Pad,
    ops.Slice,
    ops.Expand,
    ops.Permute,  # what follows is told by the axis that the batch is moved to
    ops.RadixMean,
    ops.RadixSoftmax,
    ops.RadixCombine,
    ops.SplitAttention,
    ops.SplitAttentionParts,
)
"""Ops that keep images apart wherever the batch lies: their shape rules refuse it on the axes that
they mix. Of an op that stands neither here nor in `_mixes`, the worst is assumed."""


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
    op = node.op.anchor if isinstance(node.op, ops.Fusion) else node.op
    if isinstance(op, APART):
        return False
    first = batch_axes(node.inputs[0])
    match op:
        case ops.Reduction():
            return bool(set(first) & set(op.axes))
        case ops.Softmax() | ops.ArgMax() | ops.Gather():
            return op.axis in first
        case ops.Concat():
            return any(op.axis in batch_axes(v) for v in node.inputs)
        case ops.MatMul():
            return node.inputs[0].type.rank - 1 in first  # it is summed over
        case ops.Reshape():
            return _moves_apart(node.inputs[0], node.output)
    return True


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
