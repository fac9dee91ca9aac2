"""Depthwise convolution of integers, and convolution in small groups, give every bit of the
reference."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from integer_layers import BODIES, EXTREMES, check_exact, dtype_and_zero, layer_graph

from lucid.codegen.kernels.packing import TapPairs
from lucid.ir import BATCH, TensorType, ops

FORCED = {"*": "depthwise"}


@pytest.mark.parametrize("seed", range(8))
def test_generated_layers(seed: int) -> None:
    """Windows of any size, stride, dilation and padding; groups of every size, channels with and
    without tails, and fewer than a vector."""
    random = Random(seed)
    group = random.choice([1, 1, 1, 2, 4, 8])
    inputs = random.choice([1, group])
    groups = random.choice([2, 3, 5, 11, 17])
    kernel = random.choice([1, 2, 3, 3, 5, 7]), random.choice([1, 3, 3, 4, 5, 7])
    dilation = random.choice([(1, 1), (1, 1), (2, 1), (1, 3)])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(random.randint(0, min(3, r - 1)) for r in reach * 2)
    stride = random.randint(1, 3), random.randint(1, 2)
    size = [max(r, random.randint(1, 19)) for r in reach]
    dtype, zero = dtype_and_zero(random)
    weights = random.choice(["i8", "i16"])
    x = TensorType(dtype, (BATCH, groups * inputs, *size))
    op = ops.IntegerConv2d(stride, padding, dilation, groups, zero)
    fields = {"weights": weights, "bias": random.random() < 0.5}
    shape = (groups * group, inputs, *kernel)
    graph = layer_graph(op, x, shape, random.choice(BODIES), **fields, seed=seed)
    check_exact(graph, random.choice([1, 3]), kernels=FORCED)


@pytest.mark.parametrize("numbers", EXTREMES[1:])
@pytest.mark.parametrize(("dtype", "zero"), [("u8", 0), ("u8", 128), ("u8", 255), ("i8", -128)])
def test_extreme_numbers(numbers: str, dtype: str, zero: int) -> None:
    """Sums that 16 bits do not hold, over borders of zero points."""
    x = TensorType(dtype, (BATCH, 20, 6, 7))
    op = ops.IntegerConv2d((1, 1), (2, 2, 2, 2), (1, 1), 20, zero)
    check_exact(layer_graph(op, x, (20, 1, 5, 5), "sums", numbers=numbers), 1, numbers, FORCED)


@pytest.mark.parametrize("channels", [3, 58])
@pytest.mark.parametrize("body", BODIES)
def test_bodies(body: str, channels: int) -> None:
    """Parts of vectors, and vectors that overlap, of every operand of a body."""
    x = TensorType("u8", (BATCH, channels, 9, 9))
    op = ops.IntegerConv2d((1, 1), (1, 1, 1, 1), (1, 1), channels, 5)
    result = "i8" if body == "bytes" else "u8"
    graph = layer_graph(op, x, (channels, 1, 3, 3), body, result=result)
    check_exact(graph, 2, kernels=FORCED)


def test_pairs_of_taps() -> None:
    """Groups of one pair neighbours on two lines, then on one; others neighbouring channels."""
    filters = np.arange(6.0).reshape(1, 1, 3, 2) + np.array([1, 10]).reshape(2, 1, 1, 1)
    packed = np.zeros(TapPairs().elements(filters.shape))
    TapPairs().pack(filters, packed)
    assert packed.reshape(3, 3, 2, 2).tolist() == [
        [[[1, 3], [10, 12]], [[2, 4], [11, 13]], [[1, 2], [10, 11]]],
        [[[3, 5], [12, 14]], [[4, 6], [13, 15]], [[3, 4], [12, 13]]],
        [[[5, 0], [14, 0]], [[6, 0], [15, 0]], [[5, 6], [14, 15]]],
    ]
    odd = np.arange(1.0, 4.0).reshape(1, 1, 1, 3)
    packed = np.zeros(TapPairs().elements(odd.shape))
    TapPairs().pack(odd, packed)
    assert packed.reshape(5, 2).tolist() == [[1, 0], [2, 0], [3, 0], [1, 2], [3, 0]]
    grouped = np.arange(8.0).reshape(2, 4, 1, 1)
    packed = np.zeros(8)
    TapPairs().pack(grouped, packed)
    assert packed.reshape(2, 2, 2).tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
