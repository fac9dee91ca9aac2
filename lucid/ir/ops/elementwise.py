"""Ops that act on each element: what a kernel can inline into its epilogue.

Binary ops broadcast as NumPy does, rank-0 types (scalars) included. NaN passes through all of
them, min and max included.
"""

from __future__ import annotations

import math

import numpy as np

from lucid.errors import ShapeError
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import TensorType, broadcast


class Elementwise(Op):
    """Base of `Unary` and `Binary`."""


class Unary(Elementwise):
    """y = f(x) for each element; the type stays."""

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        return x


class Binary(Elementwise):
    """y = f(a, b) for each element, with NumPy broadcasting; both of one dtype."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        self.require(a.dtype == b.dtype, f"operands must have one dtype, got {a} and {b}")
        try:
            return a.with_shape(broadcast(a.shape, b.shape))
        except ShapeError as error:
            raise ShapeError(f"{self.name}: {error}") from None


@op("add")
class Add(Binary):
    """y = a + b."""

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = a + b
        return y


@op("sub")
class Sub(Binary):
    """y = a - b."""

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = a - b
        return y


@op("mul")
class Mul(Binary):
    """y = a * b."""

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = a * b
        return y


@op("div")
class Div(Binary):
    """y = a / b; f32 only."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        self.require_float(a=a, b=b)
        return super().infer(a, b)

    def evaluate(self, a: Array, b: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            y: Array = a / b
        return y


@op("maximum")
class Maximum(Binary):
    """y = max(a, b); NaN where either is NaN."""

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.maximum(a, b)
        return y


@op("minimum")
class Minimum(Binary):
    """y = min(a, b); NaN where either is NaN."""

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.minimum(a, b)
        return y


@op("neg")
class Neg(Unary):
    """y = -x."""

    def evaluate(self, x: Array) -> Array:
        return -x


@op("relu")
class Relu(Unary):
    """y = 0 where 0 > x, else x (so that NaN stays NaN)."""

    def evaluate(self, x: Array) -> Array:
        return np.where(x < 0, x.dtype.type(0), x)


@op("sigmoid")
class Sigmoid(Unary):
    """y = 1 / (1 + exp(-x))."""

    def evaluate(self, x: Array) -> Array:
        return _sigmoid(x)


@op("silu")
class Silu(Unary):
    """y = x / (1 + exp(-x))."""

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = x * _sigmoid(x)
        return y


@op("hardswish")
class Hardswish(Unary):
    """y = x * min(max(x + 3, 0), 6) / 6."""

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = x * np.clip(x + 3, 0, 6) / 6
        return y


@op("hardsigmoid")
class Hardsigmoid(Unary):
    """y = min(max(x + 3, 0), 6) / 6."""

    def evaluate(self, x: Array) -> Array:
        y: Array = np.clip(x + 3, 0, 6) / 6
        return y


@op("gelu")
class Gelu(Unary):
    """y = x * (1 + erf(x / sqrt 2)) / 2.

    With approximate="tanh": x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2.
    """

    approximate: str = "none"

    def infer(self, x: TensorType) -> TensorType:
        known = self.approximate in ("none", "tanh")
        self.require(known, f'approximate is "none" or "tanh", got {self.approximate!r}')
        return super().infer(x)

    def evaluate(self, x: Array) -> Array:
        if self.approximate == "tanh":
            with np.errstate(over="ignore"):  # of x^3: tanh(inf) is the right 1
                bend = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        else:
            bend = _erf(x * math.sqrt(0.5))
        with np.errstate(invalid="ignore"):
            y: Array = 0.5 * x * (1 + bend)
        return y


@op("tanh")
class Tanh(Unary):
    """y = tanh(x)."""

    def evaluate(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y


@op("exp")
class Exp(Unary):
    """y = e^x."""

    def evaluate(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            y: Array = np.exp(x)
        return y


@op("sqrt")
class Sqrt(Unary):
    """y = sqrt(x)."""

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = np.sqrt(x)
        return y


@op("rsqrt")
class Rsqrt(Unary):
    """y = 1 / sqrt(x)."""

    def evaluate(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            y: Array = 1 / np.sqrt(x)
        return y


@op("abs")
class Abs(Unary):
    """y = |x|."""

    def evaluate(self, x: Array) -> Array:
        y: Array = np.abs(x)
        return y


@op("erf")
class Erf(Unary):
    """y = erf(x), the error function."""

    def evaluate(self, x: Array) -> Array:
        return _erf(x)


@op("clip")
class Clip(Unary):
    """y = min(max(x, low), high); a bound of None is no bound. ReLU6 is Clip(0, 6)."""

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):  # so that Clip(0, 6) prints as Clip(0.0, 6.0) does
            bound = getattr(self, name)
            object.__setattr__(self, name, None if bound is None else float(bound))

    def infer(self, x: TensorType) -> TensorType:
        ordered = self.low is None or self.high is None or self.low <= self.high
        self.require(ordered, f"low must not exceed high, got {self.low} and {self.high}")
        return super().infer(x)

    def evaluate(self, x: Array) -> Array:
        y = x if self.low is None else np.maximum(x, x.dtype.type(self.low))
        return y if self.high is None else np.minimum(y, y.dtype.type(self.high))


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        y: Array = 1 / (1 + np.exp(-x))
    return y


_erf_of_objects = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Array) -> Array:
    return np.asarray(_erf_of_objects(x)).astype(x.dtype)
