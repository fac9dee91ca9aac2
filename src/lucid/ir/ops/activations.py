"""Activations: elementwise ops that networks put between their layers."""

from __future__ import annotations

import math

import numpy as np

from lucid.ir.ops.base import Array, op
from lucid.ir.ops.elementwise import Binary, Unary, erf
from lucid.ir.types import TensorType


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
            bend = erf(x * math.sqrt(0.5))
        with np.errstate(invalid="ignore"):
            y: Array = 0.5 * x * (1 + bend)
        return y


@op("tanh")
class Tanh(Unary):
    """y = tanh(x)."""

    def evaluate(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y


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


@op("leaky_relu")
class LeakyRelu(Unary):
    """y = x where x > 0, else slope * x (NaN stays NaN). Maas et al., 2013."""

    slope: float = 0.01

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):  # -inf * 0
            return np.where(x > 0, x, x * x.dtype.type(self.slope))


@op("prelu")
class Prelu(Binary):
    """y = x where x > 0, else slope * x, with NumPy broadcasting: a slope by channel of
    x: (N, C, H, W) is (C, 1, 1). f32 only. He et al., arXiv:1502.01852."""

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        self.require_float(x=x, slope=slope)
        return super().infer(x, slope)

    def evaluate(self, x: Array, slope: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.where(x > 0, x, slope * x)


@op("elu")
class Elu(Unary):
    """y = x where x > 0, else alpha * (exp(x) - 1) (NaN stays NaN). arXiv:1511.07289."""

    alpha: float = 1.0

    def evaluate(self, x: Array) -> Array:
        below = np.expm1(np.minimum(x, 0)) * x.dtype.type(self.alpha)
        return np.where(x > 0, x, below)


@op("softplus")
class Softplus(Unary):
    """y = ln(1 + exp(x)). PyTorch's gives x itself above its threshold of 20, where it differs by
    less than 2.1e-9."""

    def evaluate(self, x: Array) -> Array:
        return _softplus(x)


@op("mish")
class Mish(Unary):
    """y = x * tanh(ln(1 + exp(x))); NaN at -inf, as in PyTorch. Misra, arXiv:1908.08681."""

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = x * np.tanh(_softplus(x))
        return y


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        y: Array = 1 / (1 + np.exp(-x))
    return y


def _softplus(x: Array) -> Array:
    y: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return y
