"""Products of 8-bit integers, compiled: exactly what the interpreter computes."""

from __future__ import annotations

from random import Random

import pytest
from integer_layers import BODIES, EXTREMES, check_exact, dtype_and_zero, layer_graph

from lucid.ir import BATCH, TensorType, ops


def drawn(random: Random) -> dict:
    """What a layer may have, besides its shape."""
    return {
        "body": random.choice(BODIES),
        "weights": random.choice(("i8", "i8", "i16")),
        "bias": random.random() < 0.7,
        "result": random.choice(("u8", "i8")),
        "numbers": random.choice(EXTREMES),
        "seed": random.randrange(1000),
    }


@pytest.mark.parametrize("seed", range(8))
def test_linear_layers(seed: int) -> None:
    random = Random(seed)
    dtype, zero = dtype_and_zero(random)
    leading = random.choice([(), (), (5,), (3, 2)])
    depth = random.choice([1, 2, 3, 7, 16, 33, 64, 75, 150])
    columns = random.choice([1, 3, 8, 9, 16, 17, 31, 40])
    x = TensorType(dtype, (BATCH, *leading, depth))
    graph = layer_graph(ops.IntegerLinear(zero), x, (columns, depth), **drawn(random))
    check_exact(graph, random.choice([1, 1, 2, 5, 17]), random.choice(EXTREMES))


@pytest.mark.parametrize("seed", range(8))
def test_pointwise_convolutions(seed: int) -> None:
    random = Random(100 + seed)
    dtype, zero = dtype_and_zero(random)
    groups = random.choice([1, 1, 2, 3])
    depth = random.choice([1, 3, 4, 15, 16, 32, 37])
    columns = random.choice([1, 5, 8, 15, 16, 24, 33])
    stride = random.choice([(1, 1), (1, 1), (2, 2), (2, 1)])
    size = random.choice([(1, 1), (3, 5), (6, 6), (7, 4)])
    x = TensorType(dtype, (BATCH, depth * groups, *size))
    op = ops.IntegerConv2d(stride, groups=groups, zero_point=zero)
    graph = layer_graph(op, x, (columns * groups, depth, 1, 1), **drawn(random))
    batch = random.choice([0, 1, 2, 3])
    check_exact(graph, batch, random.choice(EXTREMES), {"*": "pointwise"} if seed % 4 else None)


@pytest.mark.parametrize("seed", range(12))
def test_direct_convolutions(seed: int) -> None:
    """Strides, dilation, groups, padding of each side; few channels too, as of images."""
    random = Random(200 + seed)
    dtype, zero = dtype_and_zero(random)
    groups = random.choice([1, 1, 1, 2])
    depth = random.choice([1, 2, 3, 3, 4, 9, 16, 20])
    columns = random.choice([1, 7, 8, 16, 20, 33])
    kernel = random.choice([(3, 3), (3, 3), (1, 3), (5, 2), (7, 7), (1, 1)])
    dilation = random.choice([(1, 1), (1, 1), (2, 2), (1, 3), (5, 6)])
    reach = [(size - 1) * d + 1 for size, d in zip(kernel, dilation, strict=True)]
    padding = tuple(random.randint(0, reach[i % 2] - 1) for i in range(4))
    size = [random.randint(max(1, r - 1), max(12, r)) + 1 for r in reach]
    op = ops.IntegerConv2d(random.choice([(1, 1), (2, 2), (1, 2)]), padding, dilation, groups, zero)
    x = TensorType(dtype, (BATCH, depth * groups, *size))
    graph = layer_graph(op, x, (columns * groups, depth, *kernel), **drawn(random))
    batch = random.choice([0, 1, 2, 3])
    check_exact(graph, batch, random.choice(EXTREMES), {"*": "direct"})
