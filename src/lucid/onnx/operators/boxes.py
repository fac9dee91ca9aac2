"""Operators of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.errors import UnsupportedError
from lucid.ir.ops import NonMaxSuppression
from lucid.ir.types import TensorType
from lucid.onnx.operator import Expansion
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

MOST_BOXES = 2**31 - 1
"""What exporters write for no limit, or more."""


@writes(NonMaxSuppression)
def write_non_max_suppression(
    w: Writer, op: NonMaxSuppression, operands: Sequence[Edge], kind: TensorType
) -> Sequence[str]:
    """What ONNX gives, the rows that are kept, with rows of -1 behind them. Boxes by their lower
    and upper sides are ones by two corners."""
    rows = kind.shape[0]
    if not isinstance(rows, int):
        raise UnsupportedError("the boxes of a batch of any size")
    limits = [w.integers(op.max_boxes), w.constant((op.iou_threshold,))]
    if op.score_threshold is not None:
        limits.append(w.constant((op.score_threshold,)))
    centre = int(op.form == "centre")
    kept = w.emit("NonMaxSuppression", *operands, *limits, center_point_box=centre)
    count = w.emit("Squeeze", w.emit("Shape", kept, start=0, end=1))
    rest = w.emit("Expand", w.integers(-1), w.integers(rows, 3))
    joined = w.emit("Concat", kept, rest, axis=0)
    return [w.emit("Slice", joined, w.integers(0), w.integers(rows), w.integers(0)), count]


@reads("NonMaxSuppression")
def read_non_max_suppression(call: Call) -> Expansion:
    """The padded form, which a graph computes, and a cut of its rows, which waits for the count."""
    _limits(call)
    call.operand(0), call.operand(1)
    expansion, proto = Expansion(), call.operator.proto
    opsets = {**call.operator.opsets, "lucid": 1}
    prefix = call.reader.fresh_prefix(call.operator)
    rows, count, first = (f"{prefix}{part}" for part in ("rows", "count", "first"))
    centre = call.integer("center_point_box", 0)
    padded = {"domain": "lucid", "name": proto.name, "center_point_box": centre}
    kind = "PaddedNonMaxSuppression"
    expansion.add(kind, proto.input, [rows, count], opsets, **padded)
    expansion.add("Constant", [], [first], opsets, value_ints=[0])
    expansion.add("Slice", [rows, first, count, first], proto.output, opsets, name=proto.name)
    return expansion


@reads("lucid.PaddedNonMaxSuppression")
def read_padded_non_max_suppression(call: Call) -> list[Operand]:
    """NonMaxSuppression with rows of -1 behind those that are kept, and how many these are as a
    second result: what has a shape of its own before it runs. Operands and attribute as ONNX's."""
    boxes, scores = call.operand(0), call.operand(1)
    most, share, least = _limits(call)
    form = "centre" if call.integer("center_point_box", 0) else "corners"
    return call.apply_all(NonMaxSuppression(most, share, least, form), boxes, scores)


def _limits(call: Call) -> tuple[int, float, float | None]:
    """How many boxes are kept of each class, what share of them may overlap, and the score that all
    exceed."""
    most = int(call.scalar(2)) if call.has(2) else 0
    share = call.scalar(3) if call.has(3) else 0.0
    least = call.scalar(4) if call.has(4) else None
    return min(max(0, most), MOST_BOXES), share, least
