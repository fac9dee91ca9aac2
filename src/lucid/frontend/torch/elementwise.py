"""PyTorch's elementwise operators. Truth values are 1.0 and 0.0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.ops import Op

ALIASES: dict[str, Callable[[], Op]] = {
    "relu6.default": lambda: ops.Clip(0, 6),
    "true_divide.Tensor": ops.Div,
}
"""Operators that are one op, beside those that an op names itself."""


def _alias(make: Callable[[], Op]) -> Callable[..., Value]:
    return lambda w, *operands: w.emit(make(), *operands)


for name, make in ALIASES.items():
    emits(name)(_alias(make))


# -- arithmetic ---------------------------------------------------------------------------------


@emits("add.Tensor", "add.Scalar")
def add(w: Writer, a: Any, b: Any, alpha: float) -> Value:
    return w.emit(ops.Add(), a, b if alpha == 1 else w.emit(ops.Mul(), b, alpha))


@emits("sub.Tensor", "sub.Scalar")
def sub(w: Writer, a: Any, b: Any, alpha: float) -> Value:
    return w.emit(ops.Sub(), a, b if alpha == 1 else w.emit(ops.Mul(), b, alpha))


@emits("rsub.Tensor", "rsub.Scalar")
def rsub(w: Writer, a: Any, b: Any, alpha: float) -> Value:
    return sub(w, b, a, alpha)


@emits("div.Tensor_mode", "div.Scalar_mode")
def div_mode(w: Writer, a: Any, b: Any, mode: str | None) -> Value:
    if w.integer is not None and mode is not None:
        return w.emit(ops.FloorDiv() if mode == "floor" else ops.Div(), a, b)
    quotient = w.emit(ops.Div(), a, b)
    if mode is None:
        return quotient
    return w.emit(ops.Floor(), quotient) if mode == "floor" else trunc(w, quotient)


@emits("floor_divide.default")
def floor_divide(w: Writer, a: Any, b: Any) -> Value:
    return div_mode(w, a, b, "floor")


@emits("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Mod(), a, b)


@emits("fmod.Tensor", "fmod.Scalar")
def fmod(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Mod(truncated=True), a, b)


@emits("addcmul.default")
def addcmul(w: Writer, x: Any, a: Any, b: Any, value: float) -> Value:
    return add(w, x, w.emit(ops.Mul(), a, b), value)


@emits("lerp.Scalar", "lerp.Tensor")
def lerp(w: Writer, a: Any, b: Any, weight: Any) -> Value:
    return w.emit(ops.Add(), a, w.emit(ops.Mul(), w.emit(ops.Sub(), b, a), weight))


@emits("reciprocal.default")
def reciprocal(w: Writer, x: Any) -> Value:
    return w.emit(ops.Div(), 1.0, x)


@emits("square.default")
def square(w: Writer, x: Any) -> Value:
    return w.emit(ops.Mul(), x, x)


@emits("pow.Tensor_Scalar")
def power(w: Writer, x: Any, exponent: float) -> Value:
    match exponent:
        case 1:
            return w.value(x)
        case 2:
            return square(w, x)
        case 3:
            return w.emit(ops.Mul(), square(w, x), x)
        case 0.5:
            return w.emit(ops.Sqrt(), x)
        case -0.5:
            return w.emit(ops.Rsqrt(), x)
        case -1:
            return reciprocal(w, x)
    return w.emit(ops.Pow(), x, exponent)


@emits("pow.Scalar", "pow.Tensor_Tensor")
def power_of(w: Writer, base: Any, x: Any) -> Value:
    return w.emit(ops.Pow(), base, x)


# -- rounding and logarithms --------------------------------------------------------------------


@emits("ceil.default")
def ceil(w: Writer, x: Any) -> Value:
    return whole(w, x) or w.chain(x, ops.Neg(), ops.Floor(), ops.Neg())


@emits("floor.default")
def floor(w: Writer, x: Any) -> Value:
    return whole(w, x) or w.emit(ops.Floor(), x)


@emits("round.default")
def round_(w: Writer, x: Any) -> Value:
    return whole(w, x) or w.emit(ops.Round(), x)


@emits("trunc.default", "fix.default")
def trunc(w: Writer, x: Any) -> Value:
    if w.integer is not None:
        return w.value(x)
    return w.emit(ops.Where(), w.emit(ops.Less(), x, 0.0), ceil(w, x), w.emit(ops.Floor(), x))


def whole(w: Writer, x: Any) -> Value | None:
    """x where it is an integer, which no rounding changes."""
    return None if w.integer is None else w.value(x)


@emits("sign.default", "sgn.default")
def sign(w: Writer, x: Any) -> Value:
    return w.emit(ops.Sub(), w.emit(ops.Less(), 0, x), w.emit(ops.Less(), x, 0))


@emits("exp2.default")
def exp2(w: Writer, x: Any) -> Value:
    return w.emit(ops.Pow(), 2.0, x)


@emits("expm1.default")
def expm1(w: Writer, x: Any) -> Value:
    """To the precision of numbers near 1, which the difference is of."""
    return w.emit(ops.Sub(), w.emit(ops.Exp(), x), 1.0)


@emits("log1p.default")
def log1p(w: Writer, x: Any) -> Value:
    """To the precision of numbers near 1, which the sum is."""
    return w.emit(ops.Log(), w.emit(ops.Add(), x, 1.0))


@emits("log2.default")
def log2(w: Writer, x: Any) -> Value:
    return w.emit(ops.Mul(), w.emit(ops.Log(), x), 1 / math.log(2))


@emits("log10.default")
def log10(w: Writer, x: Any) -> Value:
    return w.emit(ops.Mul(), w.emit(ops.Log(), x), 1 / math.log(10))


@emits("log_sigmoid_forward.default")
def log_sigmoid(w: Writer, x: Any) -> tuple[Value, None]:
    return w.chain(x, ops.Neg(), ops.Softplus(), ops.Neg()), None


# -- comparisons, and what depends on them ------------------------------------------------------


@emits("gt.Scalar", "gt.Tensor")
def greater(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Less(), b, a)


@emits("ge.Scalar", "ge.Tensor")
def greater_equal(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.LessEqual(), b, a)


@emits("ne.Scalar", "ne.Tensor")
def not_equal(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Not(), w.emit(ops.Equal(), a, b))


@emits("logical_and.default")
def logical_and(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Mul(), w.truth(a), w.truth(b))


@emits("logical_or.default")
def logical_or(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Maximum(), w.truth(a), w.truth(b))


@emits("logical_xor.default")
def logical_xor(w: Writer, a: Any, b: Any) -> Value:
    return not_equal(w, w.truth(a), w.truth(b))


@emits("isnan.default")
def is_nan(w: Writer, x: Any) -> Value:
    return not_equal(w, x, x)


@emits("isinf.default")
def is_infinite(w: Writer, x: Any) -> Value:
    return w.emit(ops.Equal(), w.emit(ops.Abs(), x), math.inf)


@emits("bitwise_not.default")
def bitwise_not(w: Writer, x: Any) -> Value:
    return w.emit(ops.Not() if w.integer is None else ops.BitwiseNot(), x)


@emits("bitwise_and.Tensor", "bitwise_and.Scalar", "bitwise_and.Scalar_Tensor")
@emits("__and__.Tensor", "__and__.Scalar")
def bitwise_and(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Mul() if w.integer is None else ops.BitwiseAnd(), a, b)


@emits("bitwise_or.Tensor", "bitwise_or.Scalar", "bitwise_or.Scalar_Tensor")
@emits("__or__.Tensor", "__or__.Scalar")
def bitwise_or(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.Maximum() if w.integer is None else ops.BitwiseOr(), a, b)


@emits("bitwise_xor.Tensor", "bitwise_xor.Scalar", "bitwise_xor.Scalar_Tensor")
@emits("__xor__.Tensor", "__xor__.Scalar")
def bitwise_xor(w: Writer, a: Any, b: Any) -> Value:
    return not_equal(w, a, b) if w.integer is None else w.emit(ops.BitwiseXor(), a, b)


@emits("bitwise_left_shift.Tensor", "bitwise_left_shift.Tensor_Scalar")
@emits("__lshift__.Tensor", "__lshift__.Scalar")
def left_shift(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.ShiftLeft(), a, b)


@emits("bitwise_right_shift.Tensor", "bitwise_right_shift.Tensor_Scalar")
@emits("__rshift__.Tensor", "__rshift__.Scalar")
def right_shift(w: Writer, a: Any, b: Any) -> Value:
    return w.emit(ops.ShiftRight(), a, b)


@emits("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def where(w: Writer, condition: Any, a: Any, b: Any) -> Value:
    return w.emit(ops.Where(), condition, a, b)


@emits("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(w: Writer, x: Any, mask: Any, value: Any) -> Value:
    return w.emit(ops.Where(), mask, value, x)


@emits("threshold.default")
def threshold(w: Writer, x: Any, bound: float, value: float) -> Value:
    return w.emit(ops.Where(), w.emit(ops.LessEqual(), x, bound), value, x)


# -- bounds and activations ---------------------------------------------------------------------


@emits("clamp.default", "clip.default", "hardtanh.default")
def clamp(w: Writer, x: Any, low: float | None, high: float | None) -> Value:
    if low is not None and high is not None and low > high:
        low = high  # torch's rule
    if w.integer is not None:
        return clamp_by(w, x, low, high)
    return w.emit(ops.Clip(low, high), x)


@emits("clamp.Tensor")
def clamp_by(w: Writer, x: Any, low: Any, high: Any) -> Value:
    above = x if low is None else w.emit(ops.Maximum(), x, low)
    return w.value(above) if high is None else w.emit(ops.Minimum(), above, high)


@emits("clamp_min.default", "clamp_min.Tensor")
def clamp_min(w: Writer, x: Any, low: Any) -> Value:
    return w.emit(ops.Maximum(), x, low)


@emits("clamp_max.default", "clamp_max.Tensor")
def clamp_max(w: Writer, x: Any, high: Any) -> Value:
    return w.emit(ops.Minimum(), x, high)


@emits("relu.default")
def relu(w: Writer, x: Any) -> Value:
    return w.emit(ops.Relu(), x) if w.integer is None else w.emit(ops.Maximum(), x, 0)


@emits("gelu.default")
def gelu(w: Writer, x: Any, approximate: str) -> Value:
    return w.emit(ops.Gelu(approximate), x)


@emits("leaky_relu.default")
def leaky_relu(w: Writer, x: Any, slope: float) -> Value:
    return w.emit(ops.LeakyRelu(float(slope)), x)


@emits("elu.default")
def elu(w: Writer, x: Any, alpha: float, scale: float, input_scale: float) -> Value:
    """scale * (x > 0 ? x : alpha * (exp(input_scale * x) - 1))."""
    if input_scale == 1:
        y = w.emit(ops.Elu(float(alpha)), x)
    elif math.isclose(alpha * input_scale, 1):  # CELU
        y = w.emit(ops.Mul(), w.emit(ops.Elu(1.0), w.emit(ops.Mul(), x, input_scale)), alpha)
    else:
        w.refuse(f"it is an ELU with alpha={alpha} and input_scale={input_scale}")
    return y if scale == 1 else w.emit(ops.Mul(), y, scale)


@emits("selu.default")
def selu(w: Writer, x: Any) -> Value:
    return elu(w, x, 1.6732632423543772, 1.0507009873554805, 1)


@emits("celu.default")
def celu(w: Writer, x: Any, alpha: float) -> Value:
    return elu(w, x, alpha, 1, 1 / alpha)


@emits("softplus.default")
def softplus(w: Writer, x: Any, beta: float, threshold: float) -> Value:
    """log(1 + exp(beta * x)) / beta, and x where beta * x lies above the threshold: from 20 on, the
    default, that is the same to float32's precision."""
    scaled = w.value(x) if beta == 1 else w.emit(ops.Mul(), x, beta)
    y = w.emit(ops.Softplus(), scaled)
    if beta != 1:
        y = w.emit(ops.Div(), y, beta)
    if threshold >= 20:
        return y
    return w.emit(ops.Where(), w.emit(ops.Less(), threshold, scaled), x, y)


@emits("prelu.default")
def prelu(w: Writer, x: Any, weight: Any) -> Value:
    """One slope for each channel, or one for all."""
    slope = w.value(weight)
    channels = (1,) * max(0, len(w.shape) - 2)
    return w.emit(ops.Prelu(), x, w.reshape(slope, (*slope.type.shape, *channels)))


@emits("_prelu_kernel.default")
def prelu_kernel(w: Writer, x: Any, slope: Any) -> Value:
    return w.emit(ops.Prelu(), x, slope)


# -- what is nothing here -----------------------------------------------------------------------


@emits("alias.default", "clone.default", "contiguous.default", "detach.default", "lift.default")
@emits("lift_fresh.default", "lift_fresh_copy.default", "positive.default", "real.default")
@emits("resolve_conj.default", "resolve_neg.default")
def same(w: Writer, x: Any, *options: Any) -> Value:
    return w.value(x)


@emits("dropout.default", "alpha_dropout.default")
@emits("feature_dropout.default", "feature_alpha_dropout.default")
def dropout(w: Writer, x: Any, probability: float, train: bool | None) -> Value:
    if train and probability:
        w.refuse("it drops elements at random, in evaluation mode too (training=True)")
    return w.value(x)


@emits("native_dropout.default")
def native_dropout(w: Writer, x: Any, probability: float, train: bool | None) -> tuple[Value, None]:
    return dropout(w, x, probability, train), None


@emits(
    "_to_copy.default", "to.dtype", "to.dtype_layout", "to.device", "to.other", "type_as.default"
)
def cast(w: Writer, x: Any, *options: Any) -> Value:
    """Truth values and all floating dtypes are f32; what becomes an integer loses its fraction."""
    return w.truth(x) if w.kind == "bool" else w.alike(x)
