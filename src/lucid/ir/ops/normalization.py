"""Normalisation: with statistics known beforehand, or with those of the image itself.

A NaN or an infinity among the elements that share their statistics makes all of them NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import TensorType


@op("batch_norm")
class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, by channel.

    x: (N, C, ...), weight, bias, mean and var: (C) -> as x.
    """

    images_apart = True

    eps: float = 1e-5

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        bias: TensorType,
        mean: TensorType,
        var: TensorType,
    ) -> TensorType:
        _require_by_channel(self, x, weight=weight, bias=bias, mean=mean, var=var)
        return x

    def evaluate(self, x: Array, weight: Array, bias: Array, mean: Array, var: Array) -> Array:
        channel = (-1,) + (1,) * (x.ndim - 2)
        scale = weight / np.sqrt(var + self.eps)
        y: Array = (x - mean.reshape(channel)) * scale.reshape(channel) + bias.reshape(channel)
        return y


@op("layer_norm")
class LayerNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and (biased) var taken over `axes`.

    x: any shape; weight and bias: x's dimensions at `axes`, in that order -> as x. Any axes: the
    last ones are PyTorch's layer norm, (1,) the channels-first one of ConvNeXt. Ba et al.,
    arXiv:1607.06450.
    """

    images_apart = True

    axes: tuple[int, ...]
    eps: float = 1e-5

    def infer(
        self, x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None
    ) -> TensorType:
        _require_over_axes(self, self.axes, x, weight=weight, bias=bias)
        return x

    def evaluate(self, x: Array, weight: Array | None = None, bias: Array | None = None) -> Array:
        y = _standardised(x, self.axes, self.eps)
        if weight is not None:
            y = y * _along(weight, self.axes, x.ndim)
        return y if bias is None else y + _along(bias, self.axes, x.ndim)


@op("rms_norm")
class RmsNorm(Op):
    """y = x / sqrt(mean(x^2 over `axes`) + eps) * weight.

    x: any shape; weight: x's dimensions at `axes`, in that order -> as x. Zhang and Sennrich,
    arXiv:1910.07467.
    """

    images_apart = True

    axes: tuple[int, ...]
    eps: float = 1e-5

    def infer(self, x: TensorType, weight: TensorType | None = None) -> TensorType:
        _require_over_axes(self, self.axes, x, weight=weight)
        return x

    def evaluate(self, x: Array, weight: Array | None = None) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            y: Array = x / np.sqrt(np.mean(x * x, axis=self.axes, keepdims=True) + self.eps)
        return y if weight is None else y * _along(weight, self.axes, x.ndim)


@op("group_norm")
class GroupNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias: mean and (biased) var of an image's group
    of C/groups channels, weight and bias by channel.

    x: (N, C, ...), weight and bias: (C) -> as x. One group each channel is instance norm. Wu and
    He, arXiv:1803.08494.
    """

    images_apart = True

    groups: int
    eps: float = 1e-5

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType) -> TensorType:
        _require_by_channel(self, x, weight=weight, bias=bias)
        channels, *_ = self.integers(*x.shape[1:])
        self.require(
            self.groups > 0 and channels % self.groups == 0,
            f"{channels} channels cannot be split into {self.groups} groups",
        )
        return x

    def evaluate(self, x: Array, weight: Array, bias: Array) -> Array:
        channels = x.shape[1]
        grouped = x.reshape(len(x), self.groups, channels // self.groups, *x.shape[2:])
        y = _standardised(grouped, tuple(range(2, grouped.ndim)), self.eps).reshape(x.shape)
        return y * _along(weight, (1,), x.ndim) + _along(bias, (1,), x.ndim)


@op("local_response_norm")
class LocalResponseNorm(Op):
    """y[n,c] = x[n,c] / (k + alpha / size * sum of x[n,d]^2 over the window of c) ** beta.

    The window is the channels d from c - size // 2 to c + (size - 1) // 2 that exist; the divisor
    is `size` at the borders too (torch.nn.functional.local_response_norm). ONNX's LRN has the even
    sizes the other way round: (size - 1) // 2 before. x: (N, C, ...) -> as x. Krizhevsky et al.,
    2012.
    """

    images_apart = True

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        self.require(x.rank >= 2, f"x must be (N, C, ...), got {x}")
        self.require(self.size > 0, f"size must be positive, got {self.size}")
        self.integers(x.shape[1])
        return x

    def evaluate(self, x: Array) -> Array:
        channels, before = x.shape[1], self.size // 2
        with np.errstate(all="ignore"):
            squares = x * x
            total = np.zeros_like(x)
            for offset in range(-before, self.size - before):
                first, last = max(0, -offset), min(channels, channels - offset)
                if first < last:
                    total[:, first:last] += squares[:, first + offset : last + offset]
            y: Array = x / (total * (self.alpha / self.size) + self.k) ** self.beta
        return y


def _require_by_channel(op: Op, x: TensorType, **operands: TensorType) -> None:
    """Check x: (N, C, ...) and operands of one value for each channel. Raises ShapeError."""
    op.require_float(x=x)
    op.require(x.rank >= 2, f"x must be (N, C, ...), got {x}")
    wanted = TensorType("f32", (x.shape[1],))
    for name, kind in operands.items():
        op.require(kind == wanted, f"{name} must be {wanted} for x: {x}, got {kind}")


def _require_over_axes(
    op: Op, axes: Sequence[int], x: TensorType, **operands: TensorType | None
) -> None:
    """Check the axes, and operands of x's dimensions at them. Raises ShapeError."""
    op.require_float(x=x)
    legal = len(set(axes)) == len(axes) > 0 and all(0 <= a < x.rank for a in axes)
    op.require(legal, f"axes must be distinct and within 0..{x.rank - 1}, got {tuple(axes)}")
    wanted = TensorType("f32", op.integers(*(x.shape[a] for a in axes)))
    for name, kind in operands.items():
        fits = kind is None or kind == wanted
        op.require(fits, f"{name} must be {wanted} for the axes {axes} of x: {x}, got {kind}")


def _standardised(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """x with mean 0 and variance 1 (but for eps) over `axes`."""
    with np.errstate(over="ignore", invalid="ignore"):
        centred = x - np.mean(x, axis=axes, keepdims=True)
        variance = np.mean(centred * centred, axis=axes, keepdims=True)
        y: Array = centred / np.sqrt(variance + eps)
    return y


def _along(values: Array, axes: Sequence[int], rank: int) -> Array:
    """Values for each element of `axes` (in that order), to broadcast with an array of `rank`."""
    ascending = np.transpose(values, np.argsort(axes))
    absent = [a for a in range(rank) if a not in axes]
    return np.expand_dims(ascending, absent)
