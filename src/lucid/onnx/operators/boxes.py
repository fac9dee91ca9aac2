"""Operators of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.errors import UnsupportedError
from lucid.ir.ops import NonMaxSuppression
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


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


@reads("lucid.PaddedNonMaxSuppression")
def read_padded_non_max_suppression(call: Call) -> list[Operand]:
    """NonMaxSuppression with rows of -1 behind those that are kept, and how many these are as a
    second result: what has a shape of its own before it runs. Operands and attribute as ONNX's."""
    boxes, scores = call.operand(0), call.operand(1)
    most = int(call.scalar(2)) if call.has(2) else 0
    share = call.scalar(3) if call.has(3) else 0.0
    least = call.scalar(4) if call.has(4) else None
    form = "centre" if call.integer("center_point_box", 0) else "corners"
    return call.apply_all(NonMaxSuppression(max(0, most), share, least, form), boxes, scores)
