"""Elementwise ops on vectors, for fused bodies and elementwise kernels.

`lower(op)` finds the lowering registered for an op's class; what is no arithmetic is computed in
`lucid/codegen/language/transcendentals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lucid.codegen.language import integer_math
from lucid.codegen.language import transcendentals as t
from lucid.codegen.language import trigonometry as tri
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.elements import cast
from lucid.codegen.language.remainders import remainder, with_sign_of
from lucid.codegen.language.saturation import saturated
from lucid.codegen.language.transcendentals import at_least, at_most
from lucid.codegen.language.values import Integers, Vector
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
    """The op applied to vectors of equal lanes, of floats or of integers."""
    whole = integer_math.LOWERINGS.get(type(op))
    integers = [x for x in operands if isinstance(x, Integers)]
    if whole is not None and len(integers) == len(operands):
        return whole(k, op, integers)
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
    return larger if isinstance(a, Integers) else k.pick(a.compare("ord", a), larger, a)


@lowers(ops.Maximum)
def _maximum(k: Kernel, op: ops.Maximum, x: Sequence[Vector]) -> Vector:
    return maximum(k, x[0], x[1])


def minimum(k: Kernel, a: Vector, b: Vector) -> Vector:
    """The smaller one; NaN where either is NaN, as NumPy has it."""
    smaller = k.pick(a.compare("<", b), a, b)
    return smaller if isinstance(a, Integers) else k.pick(a.compare("ord", a), smaller, a)


@lowers(ops.Minimum)
def _minimum(k: Kernel, op: ops.Minimum, x: Sequence[Vector]) -> Vector:
    return minimum(k, x[0], x[1])


@lowers(ops.Neg)
def _neg(k: Kernel, op: ops.Neg, x: Sequence[Vector]) -> Vector:
    return -x[0]


@lowers(ops.Abs)
def _abs(k: Kernel, op: ops.Abs, x: Sequence[Vector]) -> Vector:
    return k.math("fabs", x[0])


@lowers(ops.Sign)
def _sign(k: Kernel, op: ops.Sign, x: Sequence[Vector]) -> Vector:
    apart = x[0].compare("!=", 0.0)  # neither 0 nor NaN
    return k.pick(apart, k.math("copysign", x[0].like(1.0), x[0]), x[0])


@lowers(ops.Mod)
def _mod(k: Kernel, op: ops.Mod, x: Sequence[Vector]) -> Vector:
    rest = remainder(k, x[0], x[1])
    return rest if op.truncated else with_sign_of(k, rest, x[1])


@lowers(ops.Sqrt)
def _sqrt(k: Kernel, op: ops.Sqrt, x: Sequence[Vector]) -> Vector:
    return k.math("sqrt", x[0])


@lowers(ops.Rsqrt)
def _rsqrt(k: Kernel, op: ops.Rsqrt, x: Sequence[Vector]) -> Vector:
    return 1.0 / k.math("sqrt", x[0])


# -- comparisons and choice -----------------------------------------------------------------------


def truth(k: Kernel, x: Vector, condition: Any) -> Vector:
    """1 where the condition holds, else 0; with as many lanes as `x`."""
    return k.pick(condition, k.splat_constant(1.0, x.lanes), k.splat_constant(0.0, x.lanes))


@lowers(ops.Equal)
def _equal(k: Kernel, op: ops.Equal, x: Sequence[Vector]) -> Vector:
    return truth(k, x[0], x[0].compare("==", x[1]))


@lowers(ops.Less)
def _less(k: Kernel, op: ops.Less, x: Sequence[Vector]) -> Vector:
    return truth(k, x[0], x[0].compare("<", x[1]))


@lowers(ops.LessEqual)
def _less_equal(k: Kernel, op: ops.LessEqual, x: Sequence[Vector]) -> Vector:
    return truth(k, x[0], x[0].compare("<=", x[1]))


@lowers(ops.Not)
def _not(k: Kernel, op: ops.Not, x: Sequence[Vector]) -> Vector:
    return truth(k, x[0], x[0].compare("==", 0.0))


@lowers(ops.Where)
def _where(k: Kernel, op: ops.Where, x: Sequence[Vector]) -> Vector:
    return k.pick(x[0].compare("==", 0.0), x[2], x[1])  # NaN is not 0


# -- clipping -------------------------------------------------------------------------------------


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


@lowers(ops.LeakyRelu)
def _leaky_relu(k: Kernel, op: ops.LeakyRelu, x: Sequence[Vector]) -> Vector:
    return k.pick(x[0].compare(">", 0.0), x[0], x[0] * op.slope)


@lowers(ops.Prelu)
def _prelu(k: Kernel, op: ops.Prelu, x: Sequence[Vector]) -> Vector:
    return k.pick(x[0].compare(">", 0.0), x[0], x[0] * x[1])


# -- rounding -------------------------------------------------------------------------------------


@lowers(ops.Floor)
def _floor(k: Kernel, op: ops.Floor, x: Sequence[Vector]) -> Vector:
    return t.floor(k, x[0])


@lowers(ops.Ceil)
def _ceil(k: Kernel, op: ops.Ceil, x: Sequence[Vector]) -> Vector:
    return -t.floor(k, -x[0])


@lowers(ops.Round)
def _round(k: Kernel, op: ops.Round, x: Sequence[Vector]) -> Vector:
    return t.rounded(k, x[0])


@lowers(ops.Cast)
def _cast(k: Kernel, op: ops.Cast, x: Sequence[Vector]) -> Vector:
    return cast(k, x[0], op.dtype)


@lowers(ops.Saturate)
def _saturate(k: Kernel, op: ops.Saturate, x: Sequence[Vector]) -> Vector:
    return saturated(k, x[0], op.dtype, op.zero_point)


# -- transcendentals ------------------------------------------------------------------------------


@lowers(ops.Exp)
def _exp(k: Kernel, op: ops.Exp, x: Sequence[Vector]) -> Vector:
    return t.exp(k, x[0])


@lowers(ops.Log)
def _log(k: Kernel, op: ops.Log, x: Sequence[Vector]) -> Vector:
    return t.log(k, x[0])


@lowers(ops.Pow)
def _pow(k: Kernel, op: ops.Pow, x: Sequence[Vector]) -> Vector:
    return t.power(k, x[0], x[1])


@lowers(ops.Sin)
def _sin(k: Kernel, op: ops.Sin, x: Sequence[Vector]) -> Vector:
    return t.sine(k, x[0])


@lowers(ops.Cos)
def _cos(k: Kernel, op: ops.Cos, x: Sequence[Vector]) -> Vector:
    return t.sine(k, x[0], quarters=1)


@lowers(ops.Tan)
def _tan(k: Kernel, op: ops.Tan, x: Sequence[Vector]) -> Vector:
    return tri.tangent(k, x[0])


@lowers(ops.Asin)
def _asin(k: Kernel, op: ops.Asin, x: Sequence[Vector]) -> Vector:
    return tri.arc_sine(k, x[0])


@lowers(ops.Acos)
def _acos(k: Kernel, op: ops.Acos, x: Sequence[Vector]) -> Vector:
    return tri.arc_cosine(k, x[0])


@lowers(ops.Atan)
def _atan(k: Kernel, op: ops.Atan, x: Sequence[Vector]) -> Vector:
    return tri.arc_tangent(k, x[0])


@lowers(ops.Sinh)
def _sinh(k: Kernel, op: ops.Sinh, x: Sequence[Vector]) -> Vector:
    return tri.hyperbolic_sine(k, x[0])


@lowers(ops.Cosh)
def _cosh(k: Kernel, op: ops.Cosh, x: Sequence[Vector]) -> Vector:
    return tri.hyperbolic_cosine(k, x[0])


@lowers(ops.Asinh)
def _asinh(k: Kernel, op: ops.Asinh, x: Sequence[Vector]) -> Vector:
    return tri.area_sine(k, x[0])


@lowers(ops.Acosh)
def _acosh(k: Kernel, op: ops.Acosh, x: Sequence[Vector]) -> Vector:
    return tri.area_cosine(k, x[0])


@lowers(ops.Atanh)
def _atanh(k: Kernel, op: ops.Atanh, x: Sequence[Vector]) -> Vector:
    return tri.area_tangent(k, x[0])


@lowers(ops.Erf)
def _erf(k: Kernel, op: ops.Erf, x: Sequence[Vector]) -> Vector:
    return t.erf(k, x[0])


@lowers(ops.Tanh)
def _tanh(k: Kernel, op: ops.Tanh, x: Sequence[Vector]) -> Vector:
    return t.tanh(k, x[0])


@lowers(ops.Sigmoid)
def _sigmoid(k: Kernel, op: ops.Sigmoid, x: Sequence[Vector]) -> Vector:
    return t.sigmoid(k, x[0])


@lowers(ops.Silu)
def _silu(k: Kernel, op: ops.Silu, x: Sequence[Vector]) -> Vector:
    return x[0] * t.sigmoid(k, x[0])


@lowers(ops.Softplus)
def _softplus(k: Kernel, op: ops.Softplus, x: Sequence[Vector]) -> Vector:
    return t.softplus(k, x[0])


@lowers(ops.Softsign)
def _softsign(k: Kernel, op: ops.Softsign, x: Sequence[Vector]) -> Vector:
    return x[0] / (k.math("fabs", x[0]) + 1.0)


@lowers(ops.Mish)
def _mish(k: Kernel, op: ops.Mish, x: Sequence[Vector]) -> Vector:
    return t.mish(k, x[0])


@lowers(ops.Elu)
def _elu(k: Kernel, op: ops.Elu, x: Sequence[Vector]) -> Vector:
    return k.pick(x[0].compare(">", 0.0), x[0], t.expm1_below(k, x[0]) * op.alpha)


@lowers(ops.Gelu)
def _gelu(k: Kernel, op: ops.Gelu, x: Sequence[Vector]) -> Vector:
    if op.approximate == "tanh":  # (1 + tanh u) / 2 is the sigmoid of 2u
        inner = k.fma(x[0] * x[0] * x[0], x[0].like(0.044715), x[0])
        return x[0] * t.sigmoid(k, inner * (2 * math.sqrt(2 / math.pi)))
    return t.gelu(k, x[0])
