"""Operators of running totals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import UnsupportedError
from lucid.ir.ops import CumProd, CumSum, Mul, Pad, Scan, Slice
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


@writes(CumSum)
def write_cum_sum(w: Writer, op: CumSum, operands: Sequence[Edge], kind: TensorType) -> str:
    axis = w.constant(np.int64(op.axis), "i64")
    sides = {"exclusive": int(op.exclusive), "reverse": int(op.reverse)}
    return w.emit("CumSum", operands[0], axis, **sides)


@writes(CumProd)
def write_cum_prod(w: Writer, op: CumProd, operands: Sequence[Edge], kind: TensorType) -> str:
    """Before opset 26 ONNX has no such operator: products of two, of four, ... neighbours."""
    (y,) = operands
    size = kind.shape[op.axis]
    if not isinstance(size, int):
        raise UnsupportedError("the running product of a batch")
    if op.exclusive:
        y = _shifted(w, op, y, 1)
    reach = 1
    while reach < size:
        y, reach = w.apply(Mul(), y, _shifted(w, op, y, reach)), 2 * reach
    return y.name


def _shifted(w: Writer, op: CumProd, x: Edge, count: int) -> Edge:
    """x moved so many places along the axis, away from where the product begins; ones follow."""
    size = x.type.shape[op.axis]
    assert isinstance(size, int)
    count = min(count, size)
    none = (0,) * x.type.rank
    side = tuple(count if i == op.axis else 0 for i in range(x.type.rank))
    before, after, start = (none, side, count) if op.reverse else (side, none, 0)
    padded = w.apply(Pad(before, after, 1.0), x)
    return w.apply(Slice(op.axis, start, start + size), padded)


@reads("CumSum", "CumProd")
def read_scan(call: Call) -> Operand:
    x = call.operand(0)
    axis = call.counted(call.integers(1)[0], x.type.rank)
    sides = bool(call.integer("exclusive", 0)), bool(call.integer("reverse", 0))
    op: Scan = (CumSum if call.kind == "CumSum" else CumProd)(axis, *sides)
    return call.apply(op, x)
