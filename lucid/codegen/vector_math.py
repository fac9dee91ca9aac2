"""Elementwise ops on vectors: what a fused body or an elementwise kernel is made of.

`lower(op)` finds the lowering registered for an op's class. Exponentials and the error function
are Chebyshev fits on the ranges named beside them, within 2 ulp of the exact value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from lucid.codegen.emit import Kernel
from lucid.codegen.values import Vector
from lucid.ir import ops
from lucid.ir.ops.base import Op

Lowering = Callable[[Kernel, Any, Sequence[Vector]], Vector]
LOWERINGS: dict[type[Op], Lowering] = {}


def lowers(op_class: type[Op]) -> Callable[[Lowering], Lowering]:
    """Register the decorated function as the lowering of an elementwise op."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS[op_class] = function
        return function

    return register


def lower(k: Kernel, op: Op, operands: Sequence[Vector]) -> Vector:
    """The op applied to vectors of equal lanes."""
    return LOWERINGS[type(op)](k, op, operands)


# -- arithmetic -----------------------------------------------------------------------------------


@lowers(ops.Add)
def _add(k: Kernel, op: ops.Add, x: Sequence[Vector]) -> Vector:
    return x[0] + x[1]


@lowers(ops.Sub)
def _sub(k: Kernel, op: ops.Sub, x: Sequence[Vector]) -> Vector:
    return x[0] - x[1]


@lowers(ops.Mul)
def _mul(k: Kernel, op: ops.Mul, x: Sequence[Vector]) -> Vector:
    return x[0] * x[1]


@lowers(ops.Div)
def _div(k: Kernel, op: ops.Div, x: Sequence[Vector]) -> Vector:
    return x[0] / x[1]


def maximum(k: Kernel, a: Vector, b: Vector) -> Vector:
    """The larger one; NaN where either is NaN, as NumPy has it."""
    larger = k.pick(a.compare(">", b), a, b)
    return k.pick(a.compare("ord", a), larger, a)


@lowers(ops.Maximum)
def _maximum(k: Kernel, op: ops.Maximum, x: Sequence[Vector]) -> Vector:
    return maximum(k, x[0], x[1])


@lowers(ops.Minimum)
def _minimum(k: Kernel, op: ops.Minimum, x: Sequence[Vector]) -> Vector:
    smaller = k.pick(x[0].compare("<", x[1]), x[0], x[1])
    return k.pick(x[0].compare("ord", x[0]), smaller, x[0])


@lowers(ops.Neg)
def _neg(k: Kernel, op: ops.Neg, x: Sequence[Vector]) -> Vector:
    return -x[0]


@lowers(ops.Abs)
def _abs(k: Kernel, op: ops.Abs, x: Sequence[Vector]) -> Vector:
    return k.math("fabs", x[0])


@lowers(ops.Sqrt)
def _sqrt(k: Kernel, op: ops.Sqrt, x: Sequence[Vector]) -> Vector:
    return k.math("sqrt", x[0])


@lowers(ops.Rsqrt)
def _rsqrt(k: Kernel, op: ops.Rsqrt, x: Sequence[Vector]) -> Vector:
    return 1.0 / k.math("sqrt", x[0])


# -- clipping -------------------------------------------------------------------------------------


def at_least(k: Kernel, x: Vector, low: float) -> Vector:
    """max(x, low) that keeps NaN, in one instruction."""
    bound = x.like(low)
    return k.pick(bound.compare(">", x), bound, x)


def at_most(k: Kernel, x: Vector, high: float) -> Vector:
    """min(x, high) that keeps NaN, in one instruction."""
    bound = x.like(high)
    return k.pick(bound.compare("<", x), bound, x)


@lowers(ops.Relu)
def _relu(k: Kernel, op: ops.Relu, x: Sequence[Vector]) -> Vector:
    return at_least(k, x[0], 0.0)


@lowers(ops.Clip)
def _clip(k: Kernel, op: ops.Clip, x: Sequence[Vector]) -> Vector:
    y = x[0]
    if op.low is not None:
        y = at_least(k, y, op.low)
    return y if op.high is None else at_most(k, y, op.high)


@lowers(ops.Hardsigmoid)
def _hardsigmoid(k: Kernel, op: ops.Hardsigmoid, x: Sequence[Vector]) -> Vector:
    return at_most(k, at_least(k, x[0] + 3.0, 0.0), 6.0) * (1 / 6)


@lowers(ops.Hardswish)
def _hardswish(k: Kernel, op: ops.Hardswish, x: Sequence[Vector]) -> Vector:
    return x[0] * _hardsigmoid(k, ops.Hardsigmoid(), x)


# -- exponentials ---------------------------------------------------------------------------------


def polynomial(k: Kernel, x: Vector, coefficients: Sequence[float]) -> Vector:
    """Horner's rule; `coefficients` from the constant term up."""
    result = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = k.fma(result, x, x.like(c))
    return result


EXP_REMAINDER = (0.5, 0.16666576266, 0.041666463017, 0.0083633484319, 0.0013933902374)
"""(exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2."""


def exp(k: Kernel, x: Vector) -> Vector:
    """exp(x) = 2^n exp(r): n by the rounding trick, r in two parts, 2^n as two factors.

    Two factors, because n = 128 and the numbers below 2^-126 are no single power of two.
    """
    b, magic = k.builder, 12582912.0  # 1.5 * 2^23: adding it rounds to the nearest integer
    bounded = at_least(k, at_most(k, x, 89.0), -104.0)
    shifted = k.fma(bounded, x.like(1 / math.log(2)), x.like(magic))
    n = shifted - magic
    r = k.fma(n, x.like(-0.693359375), bounded)
    r = k.fma(n, x.like(2.12194440e-4), r)
    p = k.fma(polynomial(k, r, EXP_REMAINDER), r * r, r) + 1.0

    def integers(value: int) -> Any:
        kind = ir.IntType(32)
        if x.lanes == 1:
            return ir.Constant(kind, value)
        return ir.Constant(ir.VectorType(kind, x.lanes), [value] * x.lanes)

    kind = ir.IntType(32) if x.lanes == 1 else ir.VectorType(ir.IntType(32), x.lanes)
    whole = b.sub(b.bitcast(shifted.raw, kind), integers(0x4B400000))
    half = b.ashr(whole, integers(1))
    for part in (half, b.sub(whole, half)):
        scale = b.shl(b.add(part, integers(127)), integers(23))
        p = p * Vector(k, b.bitcast(scale, x.raw.type))
    return p


@lowers(ops.Exp)
def _exp(k: Kernel, op: ops.Exp, x: Sequence[Vector]) -> Vector:
    return exp(k, x[0])


def sigmoid(k: Kernel, x: Vector) -> Vector:
    return 1.0 / (exp(k, -x) + 1.0)


@lowers(ops.Sigmoid)
def _sigmoid(k: Kernel, op: ops.Sigmoid, x: Sequence[Vector]) -> Vector:
    return sigmoid(k, x[0])


@lowers(ops.Silu)
def _silu(k: Kernel, op: ops.Silu, x: Sequence[Vector]) -> Vector:
    return x[0] * sigmoid(k, x[0])


TANH_SMALL = (-0.33333328366, 0.13332617287, -0.053828053176, 0.020891090855, -0.0059462366626)
"""(tanh(x) / x - 1) / x^2 in x^2, for |x| <= 0.64."""


def tanh(k: Kernel, x: Vector) -> Vector:
    square = x * x
    small = k.fma(x * square, polynomial(k, square, TANH_SMALL), x)
    large = 1.0 - 2.0 / (exp(k, x + x) + 1.0)
    return k.pick(k.math("fabs", x).compare(">", 0.64), large, small)


@lowers(ops.Tanh)
def _tanh(k: Kernel, op: ops.Tanh, x: Sequence[Vector]) -> Vector:
    return tanh(k, x[0])


ERF_SMALL = (
    0.128379151225,
    -0.376124888659,
    0.11281734705,
    -0.0267631560564,
    0.00498753180727,
    -0.00059597415384,
)
"""erf(x) / x - 1 in x^2, for |x| <= 0.93."""
ERFC_LOGARITHM = (
    0.000300268788123,
    -1.13015508652,
    -0.63195621967,
    -0.109960801899,
    0.0263551212847,
    -0.00473695062101,
    0.000592092750594,
    -4.5512773795e-05,
    1.61024036061e-06,
)
"""log(1 - erf(x)) for 0.9 <= x <= 4; above 4, erf(x) is 1 in float32."""


def erf(k: Kernel, x: Vector) -> Vector:
    square, size = x * x, k.math("fabs", x)
    small = k.fma(x, polynomial(k, square, ERF_SMALL), x)
    tail = 1.0 - exp(k, polynomial(k, at_most(k, size, 4.0), ERFC_LOGARITHM))
    return k.pick(size.compare(">", 0.92), k.math("copysign", tail, x), small)


@lowers(ops.Erf)
def _erf(k: Kernel, op: ops.Erf, x: Sequence[Vector]) -> Vector:
    return erf(k, x[0])


@lowers(ops.Gelu)
def _gelu(k: Kernel, op: ops.Gelu, x: Sequence[Vector]) -> Vector:
    half = x[0] * 0.5
    if op.approximate == "tanh":
        inner = k.fma(x[0] * x[0] * x[0], x[0].like(0.044715), x[0])
        return k.fma(half, tanh(k, inner * math.sqrt(2 / math.pi)), half)
    return k.fma(half, erf(k, x[0] * math.sqrt(0.5)), half)
