"""Attention in bfloat16: products of computed matrices, and softmax of short rows, rounded.

Graphs compute bfloat16 in f32 and round outputs, which is nearer to the exact result than bfloat16
itself, and leaves layers fused. Results of attention are compared with those of implementations
that round what each operator gives, such as the reference of the package onnx; with one rounding at
the end 50 of 192 elements of its first test were a step (2**-8) off. So here

- operands and results of products are rounded, as hardware for bfloat16 has it: terms are added up
  in f32. Products with weights, layers, stay in f32;
- softmax of a row of up to `SHORT` elements rounds the differences, the powers, each partial sum,
  and the quotients. That of a longer one stays in f32: partial sums in bfloat16 lose what is small
  beside them (1000 ones add up to 256), so that the reference is far off there itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lucid.ir.graph import Value
from lucid.ir.ops import Add, Cast, Div, Exp, Max, Slice, Sub

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand

BFLOAT16 = "bf16"
SHORT = 8
"""Elements of a row whose partial sums are rounded: seven roundings are at most 1.4% off."""


def rounded(call: Call, x: Operand) -> Operand:
    """A computed value rounded to bfloat16; weights and inputs have been."""
    if call.is_weight(x) or _is_rounded(x):
        return x
    return call.apply(Cast("f32"), call.apply(Cast(BFLOAT16), x))


def is_short(x: Operand, axis: int) -> bool:
    """Whether the softmax along an axis is rounded."""
    size = x.type.shape[axis]
    return isinstance(size, int) and 0 < size <= SHORT


def softmax(call: Call, x: Operand, axis: int) -> Operand:
    """Softmax along a short axis."""
    x = rounded(call, x)
    shifted = rounded(call, call.apply(Sub(), x, call.apply(Max((axis,), keepdims=True), x)))
    powers = rounded(call, call.apply(Exp(), shifted))
    (size,) = call.integer_dims(x.type.shape[axis])
    total, *rest = (call.apply(Slice(axis, i, i + 1), powers) for i in range(size))
    for term in rest:
        total = rounded(call, call.apply(Add(), total, term))
    return rounded(call, call.apply(Div(), powers, total))


def _is_rounded(x: Operand) -> bool:
    producer = x.producer if isinstance(x, Value) else None
    if producer is None or not isinstance(producer.op, Cast):
        return False
    return producer.inputs[0].type.dtype == BFLOAT16
