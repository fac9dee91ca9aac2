"""Sigmoid and tanh as ONNX Runtime computes them, to the last bit (of 4 million numbers each, where
the machine has FMA).

A tensor that is quantised when the model runs, as a whole, makes steps of single bits: where an
element lies between two integers, the last bit decides on the integer, and where it is the largest,
on all of them. So whoever compares results of such files needs the same bits before. Both functions
are the quotients of polynomials that the library Eigen has, by multiplications and additions that
are rounded once (FMA).

Source: https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/mlas/lib
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lucid.ir.ops import Array, Sigmoid, Tanh
from lucid.onnx.elements import FLOAT
from lucid.onnx.operator import Operator

LOGISTIC = (
    (4.37031e-11, 1.1562732e-07, 6.085749e-05, 0.008513771, 0.24828795),
    (6.1024737e-13, 5.7610214e-09, 6.291068e-06, 0.0017019882, 0.11681765, 0.9931519),
)
"""Coefficients in x**2 of the numerator, which is multiplied by x, and of the denominator; from the
highest. The quotient is 0.5 less than the sigmoid."""
LARGEST_LOGISTIC = 18.0

TANH = (
    (
        -2.7607684e-16,
        2.000188e-13,
        -8.604672e-11,
        5.1222973e-08,
        1.48572235e-05,
        0.00063726195,
        0.0048935246,
    ),
    (1.1982584e-06, 0.00011853471, 0.0022684347, 0.004893525),
)
LARGEST_TANH = 9.0


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), of f32."""
    quotient = _quotient(x, *LOGISTIC, LARGEST_LOGISTIC)
    return np.clip(quotient + np.float32(0.5), np.float32(0), np.float32(1))


def tanh(x: Array) -> Array:
    """tanh x, of f32."""
    return _quotient(x, *TANH, LARGEST_TANH)


class RationalSigmoid(Sigmoid):
    """The activation of a cell."""

    def evaluate(self, x: Array) -> Array:
        return logistic(x)


class RationalTanh(Tanh):
    """The activation of a cell."""

    def evaluate(self, x: Array) -> Array:
        return tanh(x)


def _quotient(
    x: Array, numerator: Sequence[float], denominator: Sequence[float], largest: float
) -> Array:
    x = np.clip(x, np.float32(-largest), np.float32(largest))
    square = x * x
    y: Array = _polynomial(square, numerator) * x / _polynomial(square, denominator)
    return y


def _polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """By Horner's rule. Products of f32 are exact in f64, so that each step rounds once, but for
    the few sums that f64 rounds to a tie."""
    first, *rest = map(np.float32, coefficients)
    wide, y = x.astype(np.float64), np.full_like(x, first)
    for coefficient in rest:
        y = (y.astype(np.float64) * wide + np.float64(coefficient)).astype(np.float32)
    return y


# -- the operator ---------------------------------------------------------------------------------

QUANTISES = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})
"""Operators that quantise a tensor as a whole when the model runs."""


def wants_last_bit(operator: Operator, element: int, operators: Sequence[Operator]) -> bool:
    """Whether an operator, of an operand of this element type, is a Sigmoid of f32 in a program
    that quantises when it runs."""
    if operator.kind != "Sigmoid" or element != FLOAT:
        return False
    return any(other.proto.op_type in QUANTISES for other in operators)


def is_rational(operator: Operator, values: Mapping[str, Any]) -> bool:
    """Whether `evaluate` is for an operator and its operands."""
    return operator.kind == "Sigmoid" and all(v.dtype == np.float32 for v in values.values())


def evaluate(operator: Operator, values: Mapping[str, Any]) -> list[Array]:
    """The result of a Sigmoid of f32."""
    return [logistic(values[operator.proto.input[0]])]
