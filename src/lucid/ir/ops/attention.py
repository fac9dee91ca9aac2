"""Split attention and its parts, which the code generator schedules separately.

x: (N, radix*C, H, W) holds `radix` splits of C channels one after the other (radix-major). The
logits come out of fc2 cardinality by cardinality, radix within: (N, cardinality, radix, C/card).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucid.ir.ops.activations import Hardsigmoid, Relu, Sigmoid
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.convolution import Conv2d
from lucid.ir.ops.elementwise import Unary
from lucid.ir.ops.reduction import softmax
from lucid.ir.types import TensorType


def _split(op: Op, x: TensorType, radix: int, per: int = 1) -> int:
    """The channels C of x: (N, radix*C, H, W), where `per` must divide C. Raises ShapeError."""
    op.require_float(x=x)
    op.require(x.rank == 4, f"x must be (N, radix*C, H, W), got {x}")
    op.require(radix > 0 and per > 0, "radix and cardinality must be positive")
    (channels,) = op.integers(x.shape[1])
    what = f"radix {radix}" + (f" times cardinality {per}" if per > 1 else "")
    op.require(channels % (radix * per) == 0, f"the channels of {x} are no multiple of {what}")
    return channels // radix


@op("radix_mean")
class RadixMean(Op):
    """y[n,c] = sum over r of mean over h, w of x[n, r*C + c, h, w].

    x: (N, radix*C, H, W) -> (N, C, 1, 1).
    """

    images_apart = True

    radix: int

    def infer(self, x: TensorType) -> TensorType:
        return x.with_shape((x.shape[0], _split(self, x, self.radix), 1, 1))

    def evaluate(self, x: Array) -> Array:
        n, channels, h, w = x.shape
        splits = x.reshape(n, self.radix, channels // self.radix, h, w)
        y: Array = np.mean(np.sum(splits, axis=1), axis=(2, 3), keepdims=True)
        return y


@op("radix_softmax")
class RadixSoftmax(Op):
    """Softmax over the radix: from logits as fc2 gives them to weights in the order of x.

    logits: (N, cardinality * radix * C/cardinality, 1, 1), cardinality-major
    -> (N, radix * C, 1, 1), radix-major.
    """

    images_apart = True

    radix: int
    cardinality: int = 1

    def infer(self, logits: TensorType) -> TensorType:
        _split(self, logits, self.radix, self.cardinality)
        self.require(logits.shape[2:] == (1, 1), f"logits must be (N, radix*C, 1, 1): {logits}")
        return logits

    def evaluate(self, logits: Array) -> Array:
        n, channels = logits.shape[:2]
        inner = channels // (self.cardinality * self.radix)
        by_radix = logits.reshape(n, self.cardinality, self.radix, inner).transpose(0, 2, 1, 3)
        return softmax(by_radix, axis=1).reshape(logits.shape)


@op("radix_combine")
class RadixCombine(Op):
    """y = sum over r of x_r * gate_r. Folded (radix 2): y = x_1 + gate * (x_0 - x_1).

    x: (N, radix*C, H, W), gate: (N, radix*C, 1, 1), folded (N, C, 1, 1) -> (N, C, H, W).
    """

    images_apart = True

    radix: int
    folded: bool = False

    def infer(self, x: TensorType, gate: TensorType) -> TensorType:
        channels = _split(self, x, self.radix)
        self.require(self.radix == 2 or not self.folded, "only radix 2 can be folded")
        gates = channels if self.folded else channels * self.radix
        wanted = x.with_shape((x.shape[0], gates, 1, 1))
        self.require(gate == wanted, f"gate must be {wanted} for x: {x}, got {gate}")
        return x.with_shape((x.shape[0], channels, *x.shape[2:]))

    def evaluate(self, x: Array, gate: Array) -> Array:
        channels = x.shape[1] // self.radix
        splits = [x[:, r * channels : (r + 1) * channels] for r in range(self.radix)]
        if self.folded:
            y: Array = splits[1] + gate * (splits[0] - splits[1])
            return y
        weights = [gate[:, r * channels : (r + 1) * channels] for r in range(self.radix)]
        y = splits[0] * weights[0]
        for split, weight in zip(splits[1:], weights[1:], strict=True):
            y += split * weight
        return y


class SplitAttentionParts(NamedTuple):
    """The ops a split attention is made of, in order; each reads the result of the one before."""

    mean: RadixMean
    fc1: Conv2d
    activation: Op
    fc2: Conv2d
    gate: Op
    combine: RadixCombine


@op("split_attention")
class SplitAttention(Op):
    """y = combine(x, gate(fc2(activation(fc1(radix_mean(x)))))).

    x: (N, radix*C, H, W), fc1.weight: (inter, C/cardinality, 1, 1), fc1.bias: (inter), fc2.weight:
    (radix*C, inter/cardinality, 1, 1), fc2.bias: (radix*C) -> (N, C, H, W). Both fc have
    `cardinality` groups. The gate is "softmax" over the radix (`RadixSoftmax`), or for radix 1, a
    squeeze-and-excitation block, "sigmoid" or "hardsigmoid".

    `folded` (softmax, radix 2): fc2 holds the differences of its rows for split 0 and for split 1,
    C of them in the order of the output channels, and y = x_1 + sigmoid(z) * (x_0 - x_1).
    """

    images_apart = True

    radix: int
    cardinality: int = 1
    activation: Op = Relu()
    gate: str = "softmax"
    folded: bool = False

    def parts(self) -> SplitAttentionParts:
        """The ops this is made of."""
        gates: dict[str, Op] = {
            "softmax": RadixSoftmax(self.radix, self.cardinality),
            "sigmoid": Sigmoid(),
            "hardsigmoid": Hardsigmoid(),
        }
        return SplitAttentionParts(
            mean=RadixMean(self.radix),
            fc1=Conv2d(groups=self.cardinality),
            activation=self.activation,
            fc2=Conv2d(groups=self.cardinality),
            gate=Sigmoid() if self.folded else gates[self.gate],
            combine=RadixCombine(self.radix, self.folded),
        )

    def infer(
        self,
        x: TensorType,
        fc1_weight: TensorType,
        fc1_bias: TensorType,
        fc2_weight: TensorType,
        fc2_bias: TensorType,
    ) -> TensorType:
        _split(self, x, self.radix, self.cardinality)
        gates = ("softmax",) if self.radix > 1 else ("sigmoid", "hardsigmoid")
        self.require(self.gate in gates, f"the gate at radix {self.radix} is one of {gates}")
        self.require(self.radix == 2 or not self.folded, "only radix 2 can be folded")
        self.require(isinstance(self.activation, Unary), "the activation must be a unary op")
        parts = self.parts()
        hidden = parts.fc1.infer(parts.mean.infer(x), fc1_weight, fc1_bias)
        (hidden,) = parts.activation.result_types(hidden)
        (gate,) = parts.gate.result_types(parts.fc2.infer(hidden, fc2_weight, fc2_bias))
        return parts.combine.infer(x, gate)

    def evaluate(
        self,
        x: Array,
        fc1_weight: Array,
        fc1_bias: Array,
        fc2_weight: Array,
        fc2_bias: Array,
    ) -> Array:
        parts = self.parts()
        hidden = parts.fc1.evaluate(parts.mean.evaluate(x), fc1_weight, fc1_bias)
        (hidden,) = parts.activation.results(hidden)
        (gate,) = parts.gate.results(parts.fc2.evaluate(hidden, fc2_weight, fc2_bias))
        return parts.combine.evaluate(x, gate)
