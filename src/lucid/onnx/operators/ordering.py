"""Operators of order along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError
from lucid.ir.ops import TopK
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


@writes(TopK)
def write_top_k(w: Writer, op: TopK, operands: Sequence[Edge], kind: TensorType) -> Sequence[str]:
    (x,) = operands
    return w.emit_all("TopK", 2, x, w.integers(op.k), axis=op.axis, largest=int(op.largest))


@reads("TopK")
def read_top_k(call: Call) -> list[Operand]:
    """k was an attribute before opset 10. Where the results may come in any order, they are sorted
    all the same."""
    x, axis = call.operand(0), call.axis(-1)
    k = call.integer("k", -1) if call.opset < 10 else int(call.scalar(1))
    if k < 0:
        raise ModelFileError(f"has the k {k}")
    call.ignore("sorted")
    return call.apply_all(TopK(axis, k, bool(call.integer("largest", 1))), x)
