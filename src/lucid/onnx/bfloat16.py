"""Attention in bfloat16: products of computed matrices, and softmax, rounded as ONNX's types say.

Graphs compute bfloat16 in f32 and round outputs, which is nearer to the exact result than bfloat16
itself, and leaves layers fused. Results of attention are compared with those of implementations
that round what each operator gives, such as the reference of the package onnx; with one rounding at
the end up to a third of the elements are one step (2**-8) off. So here

- operands and results of products are rounded, as hardware for bfloat16 has it: terms are added up
  in f32. Products with weights, layers, stay in f32;
- softmax rounds the differences, the powers, each partial sum, and the quotients. A row of more
  than `SHORT` elements is added up in f32 and rounded once: partial sums in bfloat16 lose what is
  small beside them (1000 ones add up to 256), so that the reference is far off there itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lucid.ir.graph import Value
from lucid.ir.ops import Add, Cast, Div, Exp, Max, Slice, Sub, Sum

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


def softmax(call: Call, x: Operand, axis: int) -> Operand:
    """Softmax along an axis."""
    x = rounded(call, x)
    shifted = rounded(call, call.apply(Sub(), x, call.apply(Max((axis,), keepdims=True), x)))
    powers = rounded(call, call.apply(Exp(), shifted))
    return rounded(call, call.apply(Div(), powers, _total(call, powers, axis)))


def _total(call: Call, x: Operand, axis: int) -> Operand:
    size = x.type.shape[axis]
    if not isinstance(size, int) or size > SHORT:
        return rounded(call, call.apply(Sum((axis,), keepdims=True), x))
    total, *rest = (call.apply(Slice(axis, i, i + 1), x) for i in range(size))
    for term in rest:
        total = rounded(call, call.apply(Add(), total, term))
    return total


def _is_rounded(x: Operand) -> bool:
    producer = x.producer if isinstance(x, Value) else None
    if producer is None or not isinstance(producer.op, Cast):
        return False
    return producer.inputs[0].type.dtype == BFLOAT16
