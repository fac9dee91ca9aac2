"""Graphs written by hand in tests: building blocks, and the payload of their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from lucid.ir import BATCH, Graph, Op, Value, f32
from lucid.ir.ops import (
    Add,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Linear,
    Mean,
    Mul,
    Permute,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Sum,
)


class Builder:
    """A graph that grows by building blocks, and the payload of its weights.

    Every block takes and returns (N, C, H, W) values unless it says otherwise. `origin` names the
    block's nodes and weights (`block3.conv`); left out, blocks are numbered.
    """

    def __init__(self, seed: int = 0, name: str = "random") -> None:
        self.rng = np.random.default_rng(seed)
        self.payload: dict[str, np.ndarray] = {}
        self.graph = Graph(name, self.payload)
        self.blocks = 0

    def input(self, channels: int, *size: int) -> Value:
        return self.graph.add_input(f32(BATCH, channels, *size))

    def next_origin(self, kind: str) -> str:
        """`block4.conv`: a module path that no other block has."""
        self.blocks += 1
        return f"block{self.blocks}.{kind}"

    def apply(self, op: Op, *operands: Value, origin: str = "") -> Value:
        """One node of one result."""
        return self.graph.append(op, operands, origin=origin).output

    def weight(self, name: str, *shape: int, positive: bool = False) -> Value:
        """A new source, normal with variance 1/fan-in, or uniform in 0.5 .. 1.5."""
        array = self.rng.uniform(0.5, 1.5, shape)
        if not positive:
            fan_in = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 4
            array = self.rng.standard_normal(shape) / np.sqrt(fan_in)
        self.payload[name] = array.astype(np.float32)
        return self.graph.add_source(name, f32(*shape))

    # -- building blocks --------------------------------------------------------------------

    def conv(
        self,
        x: Value,
        out: int,
        kernel: tuple[int, int] = (1, 1),
        bias: bool = False,
        origin: str = "",
        **fields: Any,
    ) -> Value:
        """A convolution with new weights; `fields` are those of Conv2d."""
        origin = origin or self.next_origin("conv")
        op = Conv2d(**fields)
        operands = [x, self.weight(f"{origin}.weight", out, sizes(x)[1] // op.groups, *kernel)]
        operands += [self.weight(f"{origin}.bias", out)] if bias else []
        return self.apply(op, *operands, origin=origin)

    def batch_norm(self, x: Value, origin: str = "") -> Value:
        """A batch norm whose weights, biases and statistics are all away from 0 and 1."""
        origin = origin or self.next_origin("bn")
        channels = sizes(x)[1]
        weights = [
            self.weight(f"{origin}.weight", channels, positive=True),
            self.weight(f"{origin}.bias", channels),
            self.weight(f"{origin}.running_mean", channels),
            self.weight(f"{origin}.running_var", channels, positive=True),
        ]
        return self.apply(BatchNorm(), x, *weights, origin=origin)

    def linear(self, x: Value, out: int, bias: bool = True, origin: str = "") -> Value:
        """(..., in) -> (..., out)."""
        origin = origin or self.next_origin("fc")
        operands = [x, self.weight(f"{origin}.weight", out, sizes(x)[-1])]
        operands += [self.weight(f"{origin}.bias", out)] if bias else []
        return self.apply(Linear(), *operands, origin=origin)

    def squeeze_excitation(self, x: Value, hidden: int, gate: Op, origin: str = "") -> Value:
        """x * gate(fc2(relu(fc1(mean x))))."""
        origin = origin or self.next_origin("se")
        mean = self.apply(Mean((2, 3), keepdims=True), x, origin=origin)
        y = self.conv(mean, hidden, bias=True, origin=f"{origin}.fc1")
        y = self.apply(Relu(), y, origin=f"{origin}.relu")
        y = self.conv(y, sizes(x)[1], bias=True, origin=f"{origin}.fc2")
        return self.apply(Mul(), x, self.apply(gate, y, origin=origin), origin=origin)

    def split_attention(
        self,
        x: Value,
        radix: int,
        cardinality: int = 1,
        hidden: int = 4,
        by_slices: bool = True,
        origin: str = "",
    ) -> Value:
        """ResNeSt's split attention after its 3x3 convolution, in primitive ops.

        (N, radix*C, H, W) -> (N, C, H, W). The splits are taken apart by slices, as in the
        official code, or by one reshape to five axes and sums over the second.
        """
        origin = origin or self.next_origin("splat")
        _, channels, height, width = sizes(x)
        inner = channels // radix

        def at(op: Op, *operands: Value) -> Value:
            return self.apply(op, *operands, origin=origin)

        def parts(value: Value) -> list[Value]:
            return [at(Slice(1, r * inner, (r + 1) * inner), value) for r in range(radix)]

        def total(values: list[Value]) -> Value:
            result = values[0]
            for value in values[1:]:
                result = at(Add(), result, value)
            return result

        by_slices = by_slices or radix == 1
        splits = parts(x) if by_slices and radix > 1 else [x]
        five = x if by_slices else at(Reshape((BATCH, radix, inner, height, width)), x)
        gap = at(Mean((2, 3), keepdims=True), total(splits) if by_slices else at(Sum((1,)), five))
        y = self.conv(gap, hidden, bias=True, groups=cardinality, origin=f"{origin}.fc1")
        y = self.batch_norm(y, origin=f"{origin}.bn1")
        y = self.apply(Relu(), y, origin=f"{origin}.relu")
        y = self.conv(y, channels, bias=True, groups=cardinality, origin=f"{origin}.fc2")
        if radix == 1:
            return at(Mul(), x, at(Sigmoid(), y))
        y = at(Reshape((BATCH, cardinality, radix, inner // cardinality)), y)
        y = at(Softmax(1), at(Permute((0, 2, 1, 3)), y))
        if by_slices:
            gates = parts(at(Reshape((BATCH, channels, 1, 1)), y))
            return total([at(Mul(), s, g) for s, g in zip(splits, gates, strict=True)])
        return at(Sum((1,)), at(Mul(), five, at(Reshape((BATCH, radix, inner, 1, 1)), y)))

    def head(self, x: Value, classes: int, origin: str = "") -> Value:
        """Global average, then a linear layer: (N, C, H, W) -> (N, classes)."""
        origin = origin or self.next_origin("head")
        return self.linear(self.apply(Mean((2, 3)), x, origin=origin), classes, origin=origin)


def sizes(value: Value) -> tuple[int, ...]:
    """The shape of a value with the batch as 1."""
    return value.type.concrete(1)


def attention_block(radix: int, cardinality: int, inner: int, avd: str, side: int = 9) -> Graph:
    """conv2, split attention and conv3 of a ResNeSt block; `avd`: where its pool stands."""
    build = Builder(seed=radix)
    channels = inner * cardinality
    x = build.input(12, side, side - 1)
    pool = AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1))
    if avd == "first":
        x = build.apply(pool, x)
    y = build.conv(
        x, channels * radix, (3, 3), padding=(1,) * 4, groups=cardinality, origin="conv2"
    )
    y = build.apply(Relu(), build.batch_norm(y, "bn2"))
    y = build.split_attention(y, radix, cardinality, hidden=8 * cardinality, origin="splat")
    if avd == "last":
        y = build.apply(pool, y)
    build.graph.set_outputs([build.conv(y, 40, bias=True, origin="conv3")])
    return build.graph
