"""Normalisation with statistics known beforehand."""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import TensorType


@op("batch_norm")
class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, by channel.

    x: (N, C, ...), weight, bias, mean and var: (C) -> as x.
    """

    eps: float = 1e-5

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        bias: TensorType,
        mean: TensorType,
        var: TensorType,
    ) -> TensorType:
        self.require_float(x=x)
        self.require(x.rank >= 2, f"x must be (N, C, ...), got {x}")
        wanted = TensorType("f32", (x.shape[1],))
        for name, kind in {"weight": weight, "bias": bias, "mean": mean, "var": var}.items():
            self.require(kind == wanted, f"{name} must be {wanted} for x: {x}, got {kind}")
        return x

    def evaluate(self, x: Array, weight: Array, bias: Array, mean: Array, var: Array) -> Array:
        channel = (-1,) + (1,) * (x.ndim - 2)
        scale = weight / np.sqrt(var + self.eps)
        y: Array = (x - mean.reshape(channel)) * scale.reshape(channel) + bias.reshape(channel)
        return y
