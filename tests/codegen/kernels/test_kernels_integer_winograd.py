"""Winograd's convolution of integers gives every bit of the reference, whatever the numbers."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from integer_layers import BODIES, EXTREMES, check_exact, dtype_and_zero, layer_graph

from lucid.codegen.kernels.packing import WinogradPairPanels, WinogradParts, most_parts
from lucid.codegen.kernels.winograd_panels import WHOLE_FILTERS, transform
from lucid.codegen.kernels.winograd_transforms import (
    ONES,
    RESULT_SCALES,
    WHOLE_INPUT,
    WHOLE_OUTPUT,
    exact_below,
    shift,
)
from lucid.errors import InputError
from lucid.ir import BATCH, TensorType, ops

SIZES = (2, 4)


# -- the transforms -------------------------------------------------------------------------------


def both_ways(transform: object, tile: np.ndarray) -> np.ndarray:
    """A transform of the lines and the columns of (side, side, ...)."""
    lines = np.stack(transform(list(tile)))  # type: ignore[operator]
    return np.stack(transform(list(lines.swapaxes(0, 1)))).swapaxes(0, 1)  # type: ignore[operator]


@pytest.mark.parametrize("m", SIZES)
def test_the_transforms_are_a_convolution(m: int) -> None:
    """Scaled as they say, and in 32-bit arithmetic that wraps around."""
    generator = np.random.default_rng(m)
    tile = generator.integers(-255, 256, (m + 2, m + 2, 50))
    filters = generator.integers(-255, 256, (50, 1, 3, 3))
    points = np.zeros((1, (m + 2) ** 2, 50), np.int16)
    transform(filters.reshape(50, 9).T[np.newaxis].astype(np.int16), m, points)
    points = points.astype(np.int64)
    products = both_ways(WHOLE_INPUT[m], tile) * points.reshape(m + 2, m + 2, 50)
    result = both_ways(WHOLE_OUTPUT[m], products.astype(np.int32))
    for i, j in np.ndindex(m, m):
        window, scale = tile[i : i + 3, j : j + 3], RESULT_SCALES[m][i] * RESULT_SCALES[m][j]
        exact = (window * filters[:, 0].transpose(1, 2, 0)).sum((0, 1))
        assert np.array_equal(result[i, j], (scale * exact).astype(np.int32))
        assert scale == 2 ** shift(m, i, j) * (9 if m == 4 else 1)


@pytest.mark.parametrize("m", SIZES)
def test_what_is_multiplied_has_sixteen_bits(m: int) -> None:
    """By the sums of the magnitudes of the transforms' coefficients: nine-bit numbers, both."""
    side = m + 2
    coefficients = np.stack(WHOLE_INPUT[m](list(np.eye(side, dtype=np.int64))))
    inputs, weights = (abs(c).sum(1).max() ** 2 for c in (coefficients, WHOLE_FILTERS[m]))
    assert max(inputs, weights) * 255 < 1 << 15
    assert 2 * inputs * weights * 255**2 < 1 << 31  # a pair
    ones = both_ways(WHOLE_INPUT[m], np.ones((side, side), np.int64))
    assert ones[1, 1] == ONES[m] == abs(ones).sum()


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("depth", [1, 2, 57, 300, 1001])
def test_parts_are_exact(m: int, depth: int) -> None:
    """The products of a part are less than what is exact, also of the largest numbers there are;
    together they are all channels."""
    generator = np.random.default_rng(depth)
    drawn = generator.integers(-127, 128, (3, depth, 3, 3)) * (
        generator.random((depth, 1, 1)) < 0.5
    )
    eight = drawn * 0 - 128, 255, np.int8
    for weights, largest, kind in (
        (drawn, 128, np.float64),
        eight,
        (drawn * 0 + 255, 255, np.int16),
    ):
        packing = WinogradParts(m, largest)
        packed = np.zeros(packing.elements(weights.shape), np.int64)
        packing.pack(weights.astype(kind), packed)
        count, ends = packed[0], packed[1 : 2 + packed[0]]
        assert 1 <= count <= most_parts(depth, m)
        assert (ends[0], ends[-1]) == (0, -(-depth // 2))
        assert (np.diff(ends) > 0).all()
        for begin, end in zip(ends[:-1] * 2, ends[1:] * 2, strict=True):
            sums = abs(weights[:, begin:end]).sum((1, 2, 3)) * largest
            assert sums.max() < exact_below(m)


@pytest.mark.parametrize("weight", [256, -256, -32768])
def test_weights_that_do_not_fit_are_refused(weight: int) -> None:
    packing, weights = WinogradPairPanels(4, 1, 16), np.full((1, 1, 3, 3), weight, np.int16)
    with pytest.raises(InputError, match="choose the kernel direct"):
        packing.pack(weights, np.zeros(packing.elements(weights.shape), np.int16))


# -- the kernel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("seed", range(6))
def test_generated_layers(seed: int, m: int) -> None:
    """Maps smaller and larger than tiles, dilated ones, groups, channels and columns with tails."""
    random = Random(seed)
    groups, spread = random.choice([1, 1, 2]), random.choice([(1, 1), (1, 1), (2, 3)])
    inner, outer = (random.choice([1, 3, 10, 16, 17, 40, 66]) for _ in range(2))
    padding = tuple(random.randint(0, 2) * d for d in spread * 2)
    size = [max(2 * d + 1, random.randint(1, 13)) for d in spread]
    dtype, zero = dtype_and_zero(random)
    groups = 1 if inner == outer == 1 else groups
    op = ops.IntegerConv2d((1, 1), padding, spread, groups, zero)
    x = TensorType(dtype, (BATCH, groups * inner, *size))
    fields = {"weights": random.choice(["i8", "i16"]), "bias": random.random() < 0.5}
    shape = (groups * outer, inner, 3, 3)
    graph = layer_graph(op, x, shape, random.choice(BODIES), **fields, seed=seed)
    check_exact(graph, random.choice([1, 3]), kernels={"*": f"winograd{m}x{m}"})


@pytest.mark.parametrize("numbers", EXTREMES[1:])
@pytest.mark.parametrize(
    ("dtype", "zero", "weights"),
    [("u8", 0, "i8"), ("u8", 128, "i16"), ("u8", 255, "i16"), ("i8", 127, "i8")],
)
def test_extreme_numbers(numbers: str, dtype: str, zero: int, weights: str) -> None:
    """Sums beyond what F(4x4) gives exactly at once: in several parts."""
    x, op = (
        TensorType(dtype, (BATCH, 300, 5, 6)),
        ops.IntegerConv2d((1, 1), (1,) * 4, (1, 1), 1, zero),
    )
    graph = layer_graph(op, x, (18, 300, 3, 3), "sums", weights=weights, numbers=numbers)
    check_exact(graph, 1, numbers, {"*": "winograd4x4"})


@pytest.mark.parametrize("columns", [16, 21])
@pytest.mark.parametrize("body", BODIES)
def test_bodies(body: str, columns: int) -> None:
    """After one part of the channels and after several, whole panels and parts of them."""
    x, op = TensorType("u8", (BATCH, 130, 6, 6)), ops.IntegerConv2d(padding=(1,) * 4, zero_point=9)
    numbers = "largest" if body in ("floats", "residual") else "random"
    graph = layer_graph(op, x, (columns, 130, 3, 3), body, numbers=numbers)
    check_exact(graph, 2, kernels={"*": "winograd4x4"})


def test_other_weights_have_other_parts() -> None:
    """Another checkpoint in the same program: sums are right where they need more parts."""
    x, op = TensorType("u8", (BATCH, 200, 4, 4)), ops.IntegerConv2d(padding=(1,) * 4)
    graph = layer_graph(op, x, (4, 200, 3, 3), "sums")
    check_exact(graph, 1, kernels={"*": "winograd4x4"})
    graph.payload["weight"] = np.full((4, 200, 3, 3), -128, np.int8)
    check_exact(graph, 1, "largest", {"*": "winograd4x4"})
