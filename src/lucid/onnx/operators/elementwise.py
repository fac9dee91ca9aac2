"""Arithmetic, comparisons and logic. Truth values are bool in ONNX, and 1.0 or 0.0 in graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError
from lucid.ir.ops import (
    Abs,
    Add,
    Cast,
    Constant,
    Div,
    Equal,
    Less,
    LessEqual,
    Maximum,
    Minimum,
    Mod,
    Mul,
    Neg,
    Not,
    Op,
    Pow,
    Rsqrt,
    ShiftLeft,
    ShiftRight,
    Where,
)
from lucid.ir.types import TensorType
from lucid.onnx.known import Known, known
from lucid.onnx.operators.integers import write_quotient
from lucid.onnx.table import reads, writes
from lucid.onnx.tensors import BFLOAT16, graph_dtype

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

FLOAT, BOOL = 1, 9
DTYPES = {
    "f32": FLOAT,
    "u8": 2,
    "i8": 3,
    "u16": 4,
    "i16": 5,
    "i32": 6,
    "i64": 7,
    "bool": BOOL,
    "f16": 10,
    "f64": 11,
    "u32": 12,
    "u64": 13,
    "bf16": 16,
}
"""ONNX's numbers of element types."""


# -- arithmetic ---------------------------------------------------------------------------------


@writes(Neg)
def write_neg(w: Writer, op: Neg, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Neg", *operands)


@reads("Neg")
def read_neg(call: Call) -> Operand:
    return call.apply(Neg(), call.operand(0))


@writes(Div)
def write_div(w: Writer, op: Div, operands: Sequence[Edge], kind: TensorType) -> str:
    return (
        w.emit("Div", *operands) if kind.dtype == "f32" else write_quotient(w, operands, kind).name
    )


@reads("Div")
def read_div(call: Call) -> Operand:
    """Of whole numbers, what is behind the point is dropped."""
    return call.apply(Div(), call.operand(0), call.operand(1))


@writes(Maximum, Minimum)
def write_extreme(
    w: Writer, op: Maximum | Minimum, operands: Sequence[Edge], kind: TensorType
) -> str:
    return w.emit("Max" if isinstance(op, Maximum) else "Min", *operands)


@reads("Max", "Min", "Sum", "Mean")
def read_variadic(call: Call) -> Operand:
    """Any number of operands, one after the other."""
    op = {"Max": Maximum(), "Min": Minimum()}.get(call.kind, Add())
    operands = call.operands()
    if not operands:
        raise ModelFileError("has no operands")
    total = reduce(lambda a, b: call.apply(op, a, b), operands)
    return call.apply(Div(), total, float(len(operands))) if call.kind == "Mean" else total


@writes(Rsqrt)
def write_rsqrt(w: Writer, op: Rsqrt, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Reciprocal", w.emit("Sqrt", operands[0]))


@reads("Reciprocal")
def read_reciprocal(call: Call) -> Operand:
    return call.apply(Div(), 1.0, call.operand(0))


@writes(Pow)
def write_pow(w: Writer, op: Pow, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Pow", *operands)


@reads("Pow")
def read_pow(call: Call) -> Operand:
    """The exponent may be of another dtype than the base. A square is a product."""
    base, exponent = call.operand(0), call.operand(1)
    single = isinstance(exponent, Known) and exponent.array.size == 1
    if single and call.scalar(1) == 2 and exponent.type.rank <= base.type.rank:
        return call.apply(Mul(), base, base)
    if isinstance(base, Known) and base.type.dtype != "f32":
        return known(np.power(base.array, call.elements(1)).astype(base.array.dtype))
    if base.type.dtype == exponent.type.dtype:
        return call.apply(Pow(), base, exponent)
    floats = (_as_dtype(call, x, "f32") for x in (base, exponent))
    return _as_dtype(call, call.apply(Pow(), *floats), base.type.dtype)


@reads("Mod")
def read_mod(call: Call) -> Operand:
    """As in C with `fmod`, else with the sign of the divisor."""
    a, b = call.operand(0), call.operand(1)
    truncated = bool(call.integer("fmod", 0))
    if isinstance(a, Known) and isinstance(b, Known):
        return known((np.fmod if truncated else np.mod)(call.elements(0), call.elements(1)))
    return call.apply(Mod(truncated), a, b)


@reads("BitShift")
def read_bit_shift(call: Call) -> Operand:
    left = call.choice("direction", ("", "LEFT", "RIGHT")) == "LEFT"
    op = ShiftLeft() if left else ShiftRight()
    return call.apply(op, call.operand(0), call.operand(1))


@writes(Constant)
def write_constant(w: Writer, op: Constant, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.constant(op.value, op.dtype)


# -- dtypes -------------------------------------------------------------------------------------


@writes(Cast)
def write_cast(w: Writer, op: Cast, operands: Sequence[Edge], kind: TensorType) -> str:
    """Floats out of range are brought into range first: ONNX leaves open what becomes of them."""
    (x,) = operands
    if x.type.dtype == "f32" and op.dtype == "u8":
        numbers = w.emit("Where", w.emit("IsNaN", x), w.constant(0.0), x)
        x = w.edge(w.emit("Clip", numbers, w.constant(0.0), w.constant(255.0)), x.type)
    return w.emit("Cast", x, to=DTYPES[op.dtype])


@reads("Cast", "CastLike")
def read_cast(call: Call) -> Operand:
    """All floating types are f32 in graphs, and so is bool. Types of 8 bits, which the attributes
    that are ignored are about, are not read. Known numbers become such as a tensor of the file's
    type would hold."""
    x = call.operand(0)
    call.ignore("saturate", "round_mode")
    to = call.integer("to", 0)
    if call.kind == "CastLike":
        call.ignore(1)
        to = call.element(1)
    if to == BFLOAT16 and isinstance(x, Known) and not x.has_batch:
        return known(np.asarray(Cast("bf16").evaluate(x.array.astype(np.float32))))
    if to != BOOL:
        return _as_dtype(call, x, graph_dtype(to))
    if isinstance(x, Known):
        return known(np.asarray(x.array != 0, np.float32))
    return as_truth(call, x)


def as_truth(call: Call, x: Operand) -> Operand:
    """1 where x is not 0, else 0."""
    return call.apply(Not(), call.apply(Not(), _as_dtype(call, x, "f32")))


def _as_dtype(call: Call, x: Operand, dtype: str) -> Operand:
    if x.type.dtype == dtype or (isinstance(x, Known) and x.has_batch):
        return x
    return call.apply(Cast(dtype), x)


# -- truth values -------------------------------------------------------------------------------


@writes(Equal, Less, LessEqual)
def write_comparison(
    w: Writer, op: Equal | Less | LessEqual, operands: Sequence[Edge], kind: TensorType
) -> str:
    names: dict[type[Op], str] = {Equal: "Equal", Less: "Less", LessEqual: "LessOrEqual"}
    return w.emit("Cast", w.emit(names[type(op)], *operands), to=FLOAT)


@reads("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
def read_comparison(call: Call) -> Operand:
    """Greater is less with the operands swapped."""
    a, b = call.operand(0), call.operand(1)
    op = Equal() if call.kind == "Equal" else LessEqual() if "Or" in call.kind else Less()
    return call.apply(op, *((b, a) if "Greater" in call.kind else (a, b)))


@writes(Not)
def write_not(w: Writer, op: Not, operands: Sequence[Edge], kind: TensorType) -> str:
    """A comparison with 0, which tells NaN's truth as the op does."""
    return w.emit("Cast", w.emit("Equal", operands[0], w.constant(0.0)), to=FLOAT)


@reads("Not", "And", "Or", "Xor")
def read_logic(call: Call) -> Operand:
    """Of truth values, which are 1.0 or 0.0, Mul is "and" and Maximum "or"."""
    match call.kind:
        case "Not":
            return call.apply(Not(), call.operand(0))
        case "And":
            return call.apply(Mul(), call.operand(0), call.operand(1))
        case "Or":
            return call.apply(Maximum(), call.operand(0), call.operand(1))
    return call.apply(Not(), call.apply(Equal(), call.operand(0), call.operand(1)))


@reads("IsNaN", "IsInf")
def read_is_special(call: Call) -> Operand:
    x = call.operand(0)
    if call.kind == "IsNaN":
        return call.apply(Not(), call.apply(Equal(), x, x))
    below, above = call.integer("detect_negative", 1), call.integer("detect_positive", 1)
    if below and above:
        return call.apply(Equal(), call.apply(Abs(), x), math.inf)
    if not below and not above:
        return call.expand(known(np.zeros((), np.float32)), x.type.shape)
    return call.apply(Equal(), x, math.inf if above else -math.inf)


@writes(Where)
def write_where(w: Writer, op: Where, operands: Sequence[Edge], kind: TensorType) -> str:
    """Truth is what does not equal 0: NaN too, which a cast to bool leaves open."""
    condition, a, b = operands
    return w.emit("Where", w.emit("Equal", condition, w.constant(0.0)), b, a)


@reads("Where")
def read_where(call: Call) -> Operand:
    return call.apply(Where(), *(call.operand(i) for i in range(3)))
