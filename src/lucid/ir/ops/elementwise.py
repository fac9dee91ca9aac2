"""Ops that act on each element: what a kernel can inline into its epilogue.

Binary ops broadcast as NumPy does, rank-0 types (scalars) included. NaN passes through all
arithmetic and all activations, min and max included. Arithmetic of integers is exact and wraps
around; what is divided by 0 gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from lucid.errors import ShapeError
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import INTEGERS, NUMBERS, TensorType, broadcast


class Elementwise(Op):
    """Base of `Unary` and `Binary`, and of `Ternary` in comparison.py."""

    family = "elementwise"
    images_apart = True
    ulps: ClassVar[float] = 0
    """By how many units in the last place generated code may miss the exact result, for operands
    within `domain`. 0: what is right is exact."""
    domain: ClassVar[tuple[float, float]] = (-1e20, 1e20)
    """Operands at which `ulps` holds, from and to."""

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        """Ops of this class that take every path of its arithmetic among them, for tests."""
        return (cls(),)


class Unary(Elementwise):
    """y = f(x) for each element; the type stays."""

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        return x


class Binary(Elementwise):
    """y = f(a, b) for each element, with NumPy broadcasting; both of one dtype."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        self.require_taken(a=a, b=b)
        self.require(a.dtype == b.dtype, f"operands must have one dtype, got {a} and {b}")
        try:
            return a.with_shape(broadcast(a.shape, b.shape))
        except ShapeError as error:
            raise ShapeError(f"{self.name}: {error}") from None


@op("add")
class Add(Binary):
    """y = a + b."""

    onnx = "Add"
    takes = NUMBERS
    ulps = 1

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = a + b
        return y


@op("sub")
class Sub(Binary):
    """y = a - b."""

    onnx = "Sub"
    takes = NUMBERS
    ulps = 1

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = a - b
        return y


@op("mul")
class Mul(Binary):
    """y = a * b."""

    onnx, torch = "Mul", "mul"
    takes = NUMBERS
    ulps = 1

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = a * b
        return y


@op("div")
class Div(Binary):
    """y = a / b; of integers, rounded towards zero, and 0 where b is 0."""

    torch = "div"
    takes = NUMBERS
    ulps = 1

    def evaluate(self, a: Array, b: Array) -> Array:
        if a.dtype.kind in "iu":
            return quotient(a, b)
        with np.errstate(divide="ignore", invalid="ignore"):
            y: Array = a / b
        return y


@op("floor_div")
class FloorDiv(Binary):
    """y = the largest whole number not above a / b, and 0 where b is 0. Integers only."""

    takes = INTEGERS
    domain = (-100, 100)

    def evaluate(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.floor_divide(a, b)
        return y


@op("mod")
class Mod(Binary):
    """y = a - b * floor(a / b), which has b's sign; `truncated`, as in C, a - b * trunc(a / b),
    which has a's. Of integers 0 where b is 0, of floats NaN."""

    takes = NUMBERS
    ulps = 1

    truncated: bool = False

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        return cls(), cls(True)

    def evaluate(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.fmod(a, b) if self.truncated else np.mod(a, b)
        return y


@op("maximum")
class Maximum(Binary):
    """y = max(a, b); NaN where either is NaN."""

    torch = "maximum"
    takes = NUMBERS

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.maximum(a, b)
        return y


@op("minimum")
class Minimum(Binary):
    """y = min(a, b); NaN where either is NaN."""

    torch = "minimum"
    takes = NUMBERS

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.minimum(a, b)
        return y


@op("neg")
class Neg(Unary):
    """y = -x."""

    torch = "neg"
    takes = NUMBERS

    def evaluate(self, x: Array) -> Array:
        y: Array = np.negative(x)
        return y


@op("sign")
class Sign(Unary):
    """y = 1 where x > 0, -1 where x < 0, else x: zeros and NaN stay."""

    onnx, torch = "Sign", "sign"
    takes = NUMBERS

    def evaluate(self, x: Array) -> Array:
        y: Array = np.sign(x)
        return np.where(x == 0, x, y)


@op("abs")
class Abs(Unary):
    """y = |x|."""

    onnx, torch = "Abs", "abs"
    takes = NUMBERS
    never_negative = True

    def evaluate(self, x: Array) -> Array:
        with np.errstate(over="ignore"):  # the least integer has no absolute value
            y: Array = np.abs(x)
        return y


@op("sqrt")
class Sqrt(Unary):
    """y = sqrt(x)."""

    onnx, torch = "Sqrt", "sqrt"
    never_negative = True
    ulps, domain = 1, (0, 3e38)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = np.sqrt(x)
        return y


@op("rsqrt")
class Rsqrt(Unary):
    """y = 1 / sqrt(x)."""

    torch = "rsqrt"
    ulps, domain = 2, (1e-20, 3e38)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            y: Array = 1 / np.sqrt(x)
        return y


@op("exp")
class Exp(Unary):
    """y = e^x."""

    onnx, torch = "Exp", "exp"
    never_negative = True
    ulps, domain = 2, (-88, 89.5)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            y: Array = np.exp(x)
        return y


@op("erf")
class Erf(Unary):
    """y = erf(x), the error function."""

    onnx, torch = "Erf", "erf"
    ulps, domain = 2, (-5, 5)

    def evaluate(self, x: Array) -> Array:
        return erf(x)


@op("log")
class Log(Unary):
    """y = ln x: -inf at 0, NaN below."""

    onnx, torch = "Log", "log"
    ulps, domain = 2, (0, 3e38)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            y: Array = np.log(x)
        return y


@op("sin")
class Sin(Unary):
    """y = sin x, NaN for the infinities."""

    onnx, torch = "Sin", "sin"
    ulps, domain = 2, (-1.3e8, 1.3e8)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = np.sin(x)
        return y


@op("cos")
class Cos(Unary):
    """y = cos x, NaN for the infinities."""

    onnx, torch = "Cos", "cos"
    ulps, domain = 2, (-1.3e8, 1.3e8)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = np.cos(x)
        return y


@op("floor")
class Floor(Unary):
    """y = the largest whole number not above x; NaN, infinities and -0.0 stay."""

    onnx, torch = "Floor", "floor"

    def evaluate(self, x: Array) -> Array:
        y: Array = np.floor(x)
        return y


@op("ceil")
class Ceil(Unary):
    """y = the smallest whole number not below x; NaN and infinities stay, -0.5 gives -0.0."""

    onnx, torch = "Ceil", "ceil"

    def evaluate(self, x: Array) -> Array:
        y: Array = np.ceil(x)
        return y


@op("round")
class Round(Unary):
    """y = the nearest whole number, of two the even one, as PyTorch and ONNX round.

    NaN, infinities and the sign of zero stay: round(-0.4) is -0.0.
    """

    onnx, torch = "Round", "round"

    def evaluate(self, x: Array) -> Array:
        y: Array = np.rint(x)
        return y


@op("pow")
class Pow(Binary):
    """y = a ** b as C's pow: NaN for a negative base and a broken exponent, x ** 0 = 1 for all x,
    NaN too. Of integers the power wraps around; one with a negative exponent is rounded towards
    zero, and 0 where a is 0."""

    takes = NUMBERS
    ulps, domain = 1, (0, 1e4)

    def evaluate(self, a: Array, b: Array) -> Array:
        if a.dtype.kind in "iu":
            return integer_power(a, b)
        with np.errstate(all="ignore"):
            y: Array = np.power(a, b)
        return y


def quotient(a: Array, b: Array) -> Array:
    """The quotient of integers, rounded towards zero; 0 where b is 0."""
    with np.errstate(all="ignore"):
        floor = np.floor_divide(a, b)
        broken = (np.remainder(a, b) != 0) & ((a < 0) != (b < 0))
    return np.where(broken, floor + np.ones((), a.dtype), floor)


def integer_power(a: Array, b: Array) -> Array:
    """The power of integers, which wraps around; 1 / a, rounded towards zero, for what has a
    negative exponent."""
    with np.errstate(all="ignore"):
        y: Array = np.power(a, np.maximum(b, 0))
    odd = np.bitwise_and(b, 1) != 0
    units = np.where(a == 1, 1, np.where(a + 1 == 0, np.where(odd, -1, 1), 0)).astype(a.dtype)
    return np.where(b < 0, units, y)


_erf_of_objects = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function of each element."""
    return np.asarray(_erf_of_objects(x)).astype(x.dtype)
