"""Activations: elementwise ops that networks put between their layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lucid.ir.ops.base import Array, op
from lucid.ir.ops.elementwise import Binary, Elementwise, Unary, erf
from lucid.ir.types import TensorType


class Activation(Unary):
    """Base of those that have no numbers as attributes: in whatever arithmetic an exporter writes
    one out, `recognise-functions` finds it."""


@op("relu")
class Relu(Activation):
    """y = 0 where 0 > x, else x (so that NaN stays NaN)."""

    onnx, torch = "Relu", "relu"
    never_negative = True

    def evaluate(self, x: Array) -> Array:
        return np.where(x < 0, x.dtype.type(0), x)


@op("sigmoid")
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x))."""

    onnx, torch = "Sigmoid", "sigmoid"
    never_negative = True
    ulps, domain = 3, (-87, 87)

    def evaluate(self, x: Array) -> Array:
        return _sigmoid(x)


@op("silu")
class Silu(Activation):
    """y = x / (1 + exp(-x))."""

    torch = "silu"
    ulps, domain = 3.5, (-60, 80)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = x * _sigmoid(x)
        return y


@op("hardswish")
class Hardswish(Activation):
    """y = x * min(max(x + 3, 0), 6) / 6."""

    onnx, torch = "HardSwish", "hardswish"
    ulps, domain = 3, (0, 100)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = x * np.clip(x + 3, 0, 6) / 6
        return y


@op("hardsigmoid")
class Hardsigmoid(Activation):
    """y = min(max(x + 3, 0), 6) / 6."""

    torch = "hardsigmoid"
    never_negative = True
    ulps, domain = 3, (0, 100)

    def evaluate(self, x: Array) -> Array:
        y: Array = np.clip(x + 3, 0, 6) / 6
        return y


@op("gelu")
class Gelu(Activation):
    """y = x * (1 + erf(x / sqrt 2)) / 2.

    With approximate="tanh": x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2.
    """

    ulps, domain = 4, (0, 30)  # below, 1 + erf(x) and 1 + tanh(u) cancel

    approximate: str = "none"

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        return cls(), cls("tanh")

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
class Tanh(Activation):
    """y = tanh(x)."""

    onnx, torch = "Tanh", "tanh"
    ulps, domain = 3, (-12, 12)

    def evaluate(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y


@op("clip")
class Clip(Unary):
    """y = min(max(x, low), high); a bound of None is no bound. ReLU6 is Clip(0, 6)."""

    ulps = 1  # bounds are rounded

    low: float | None = None
    high: float | None = None

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        return cls(0, 6), cls(-1), cls(None, 0.5), cls(-1.5, -0.5), cls()

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

    ulps = 1

    slope: float = 0.01

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        return cls(), cls(0.2), cls(1.5), cls(0.0)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):  # -inf * 0
            return np.where(x > 0, x, x * x.dtype.type(self.slope))


@op("prelu")
class Prelu(Binary):
    """y = x where x > 0, else slope * x, with NumPy broadcasting: a slope by channel of
    x: (N, C, H, W) is (C, 1, 1). f32 only. He et al., arXiv:1502.01852."""

    ulps = 1

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        self.require_float(x=x, slope=slope)
        return super().infer(x, slope)

    def evaluate(self, x: Array, slope: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.where(x > 0, x, slope * x)


@op("elu")
class Elu(Unary):
    """y = x where x > 0, else alpha * (exp(x) - 1) (NaN stays NaN). arXiv:1511.07289."""

    ulps, domain = 3.5, (-30, 30)

    alpha: float = 1.0

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        return cls(), cls(0.3)

    def evaluate(self, x: Array) -> Array:
        below = np.expm1(np.minimum(x, 0)) * x.dtype.type(self.alpha)
        return np.where(x > 0, x, below)


@op("softplus")
class Softplus(Activation):
    """y = ln(1 + exp(x)). PyTorch's gives x itself above its threshold of 20, where it differs by
    less than 2.1e-9."""

    onnx = "Softplus"
    never_negative = True
    ulps, domain = 3, (-60, 90)

    def evaluate(self, x: Array) -> Array:
        return _softplus(x)


@op("softsign")
class Softsign(Activation):
    """y = x / (1 + |x|); NaN at the infinities, as in PyTorch."""

    onnx = "Softsign"
    ulps = 2

    def evaluate(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            y: Array = x / (1 + np.abs(x))
        return y


@op("mish")
class Mish(Activation):
    """y = x * tanh(ln(1 + exp(x))); NaN at -inf, as in PyTorch. Misra, arXiv:1908.08681."""

    onnx, torch = "Mish", "mish"
    ulps, domain = 5, (-60, 90)

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
