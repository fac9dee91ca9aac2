"""Products of bytes as they are: exactly what the interpreter computes, whatever a lane holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from harness import TARGETS, Run, set_apart
from integer_layers import BODIES, layer_graph

from lucid.codegen.kernels.byte_products import GROUP, GROUP_BYTES, LARGEST, limits
from lucid.codegen.kernels.integer_rows import Copied
from lucid.codegen.kernels.packing import ByteLimits, Channels, QuadPanels
from lucid.codegen.kernels.product import Product
from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.conv_shape import convolutions
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import LEVELS, Target
from lucid.ir import BATCH, Graph, TensorType, interpret, ops
from lucid.ir.ops.base import Array
from lucid.ir.recipe import evaluate

Fill = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""Numbers of this shape, of which the last axis is k."""


def half_normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """As what follows a relu: most groups fit, some do not."""
    return np.minimum(np.maximum(random.normal(0, 60, shape), 0), 255)


def one_lane(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Zeros, but for one lane of one group of one row."""
    x = np.zeros(shape)
    rows = x.reshape(-1, shape[-1])
    group = GROUP_BYTES * random.integers(shape[-1] // GROUP_BYTES)
    lane = [0, 1, 4, 5] if random.random() < 0.5 else [2, 3, 6, 7]
    rows[random.integers(len(rows)), group + np.array(lane)] = 255
    return x


ROWS: dict[str, Fill] = {
    "largest": lambda random, shape: np.full(shape, 255),
    "zeros": lambda random, shape: np.zeros(shape),
    "half-normal": half_normal,
    "uniform": lambda random, shape: random.integers(0, 256, shape),
    "one lane": one_lane,
    "first bytes": lambda random, shape: (
        255 * (np.arange(shape[-1]) % GROUP_BYTES < 4) + np.zeros(shape)
    ),
    "last bytes": lambda random, shape: (
        255 * (np.arange(shape[-1]) % GROUP_BYTES >= 4) + np.zeros(shape)
    ),
    "128": lambda random, shape: np.full(shape, 128),
}
WEIGHTS: dict[str, Fill] = {
    "largest": lambda random, shape: np.full(shape, 127),
    "least": lambda random, shape: np.full(shape, -128),
    "alternating": lambda random, shape: 127 - 254 * (np.arange(shape[-1]) % 2) + np.zeros(shape),
    "normal": lambda random, shape: random.normal(0, 40, shape).clip(-127, 127),
    "64": lambda random, shape: np.full(shape, 64),
    "-64": lambda random, shape: np.full(shape, -64),
}


MULTIPLIES_BYTES = [target for target in TARGETS if target.byte_products]


def check(op: ops.IntegerProduct, shape: tuple[int, ...], columns: int) -> None:
    """One layer, of an image of each kind of rows, times each kind of weights. `shape`: of x,
    channels first."""
    image = isinstance(op, ops.IntegerConv2d)
    groups = op.groups if isinstance(op, ops.IntegerConv2d) else 1
    weight = (columns, shape[0] // groups, *((1, 1) if image else ()))
    seed = sum(shape) + columns
    kind, body = TensorType("u8", (BATCH, *shape)), BODIES[seed % len(BODIES)]
    graph = layer_graph(op, kind, weight, body, seed=seed)
    programs = [(t, n, program_of(graph, t, n)) for t in MULTIPLIES_BYTES for n in (1, 2)]
    random = np.random.default_rng(seed)
    x = np.stack([np.rint(rows(random, (*shape[1:], shape[0]))) for rows in ROWS.values()])
    inputs = [np.ascontiguousarray(np.moveaxis(x, -1, 1).astype(np.uint8))]
    inputs += [
        random.integers(0, 256, v.type.concrete(len(ROWS))).astype(np.uint8)
        for v in graph.inputs[1:]
    ]
    for name, weights in WEIGHTS.items():
        drawn = weights(random, (*weight[:1], *weight[2:], weight[1]))
        graph.payload["weight"] = np.moveaxis(np.rint(drawn), -1, 1).astype(np.int8)
        (wanted,) = interpret(graph, inputs)
        for target, threads, program in programs:
            run = Run(program, target, threads, 13 * (threads == 1))
            (found,) = run.outputs(graph.payload, inputs)
            where = f"weights {name}, {target.name}, {threads} threads"
            np.testing.assert_array_equal(found, wanted, err_msg=where)


def program_of(graph: Graph, target: Target, threads: int) -> Program:
    forced = {"*": "pointwise"} if convolutions(graph) else None
    choices = schedule(graph, target, len(ROWS), "fast", forced)
    program = lower(graph, choices, target, len(ROWS), threads)
    assert products_of(program)[-1].has_limits
    if threads == 1:
        set_apart(program)
    return program


def products_of(program: Program) -> list[Product]:
    return [call.kernel for call in program.calls() if isinstance(call.kernel, Product)]


@pytest.mark.parametrize(
    ("shape", "columns"),
    [((8, 1, 1), 1), ((16, 3, 2), 17), ((24, 5, 5), 16), ((72, 2, 2), 40), ((136, 1, 3), 9)],
)
def test_pointwise_convolutions(shape: tuple[int, ...], columns: int) -> None:
    check(ops.IntegerConv2d(), shape, columns)


def test_groups() -> None:
    check(ops.IntegerConv2d(groups=3), (48, 3, 2), 27)


def test_every_few_pixels() -> None:
    """Which are copied."""
    check(ops.IntegerConv2d((2, 2)), (40, 4, 5), 18)


@pytest.mark.parametrize(
    ("channels", "loader"), [(20, None), (19, Copied("u8"))], ids=["as they lie", "copied"]
)
def test_channels_of_a_wider_map(channels: int, loader: Copied | None) -> None:
    """Rows of whole elements are read where they lie, at any address; others are copied."""
    random = np.random.default_rng(channels)
    first = TensorType("u8", (BATCH, 5, 3, 2))
    graph = layer_graph(ops.IntegerConv2d(), first, (channels, 5, 1, 1))
    own = graph.append(ops.Slice(1, 3, 19, 1), graph.outputs).output
    graph.payload["second"] = random.integers(-128, 128, (17, 16, 1, 1)).astype(np.int8)
    weight = graph.add_source("second", TensorType("i8", (17, 16, 1, 1)))
    graph.set_outputs([graph.append(ops.IntegerConv2d(), [own, weight]).output])
    x = random.integers(0, 256, (len(ROWS), 5, 3, 2)).astype(np.uint8)
    for target in MULTIPLIES_BYTES:
        for threads in (1, 2):
            program = program_of(graph, target, threads)
            assert products_of(program)[-1].loader == loader
            (found,) = Run(program, target, threads, 13).outputs(graph.payload, [x])
            np.testing.assert_array_equal(found, interpret(graph, [x])[0])


@pytest.mark.parametrize(("depth", "columns"), [(8, 3), (32, 16), (104, 33)])
def test_linear_layers(depth: int, columns: int) -> None:
    check(ops.IntegerLinear(), (depth,), columns)


@pytest.mark.parametrize(
    ("op", "kind", "depth", "weights"),
    [
        (ops.IntegerLinear(), "u8", 12, "i8"),  # reads beyond a row
        (ops.IntegerLinear(3), "u8", 16, "i8"),
        (ops.IntegerLinear(), "i8", 16, "i8"),
        (ops.IntegerLinear(), "u8", 16, "i16"),
    ],
)
def test_others_are_multiplied_as_16_bit_integers(
    op: ops.IntegerLinear, kind: str, depth: int, weights: str
) -> None:
    graph = layer_graph(op, TensorType(kind, (BATCH, depth)), (5, depth), weights=weights)
    target = LEVELS["x86-64-v3"]
    program = lower(graph, schedule(graph, target, 1), target, 1)
    assert [c.kernel.numbers for c in program.calls()] == ["i16"]


@pytest.mark.parametrize("name", ["x86-64-v4-vnni", "aarch64-dotprod"])
def test_zero_point_and_offset_are_in_the_bias(name: str) -> None:
    target, kind = LEVELS[name], TensorType("u8", (BATCH, 16))
    graph = layer_graph(ops.IntegerLinear(3), kind, (5, 16), "sums")
    program = lower(graph, schedule(graph, target, 1), target, 1)
    assert [c.kernel.numbers for c in program.calls()] == ["i8"]
    (packed,) = (p for p in program.weights.values() if isinstance(p.packing, Channels))
    bias = np.zeros(packed.elements, np.int32)
    assert packed.recipe is not None
    packed.pack(evaluate(packed.recipe, graph.payload.__getitem__), bias)
    sums = graph.payload["weight"].astype(np.int32).sum(1)
    wanted = graph.payload["bias"] + (target.byte_offset - 3) * sums
    np.testing.assert_array_equal(bias[:5], wanted)


# -- the bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 16, 127])
def test_limits_are_the_largest_that_cannot_overflow(bound: int) -> None:
    """By either sign of a lane's weights: |x|^2 |w|^2 is at most LARGEST^2, and of a larger |x|^2
    it is not."""
    random = np.random.default_rng(bound)
    weights = random.integers(-bound, bound + 1, (3, 10, 8, 4))
    found = limits(weights.astype(np.float64))
    assert found.shape == (3, 5)
    for panel, group in np.ndindex(found.shape):
        lanes = weights[panel, group * GROUP : (group + 1) * GROUP].reshape(GROUP, 8, 2, 2)
        squares = max(
            int((np.where(sign * lanes > 0, lanes, 0) ** 2).sum((0, 3)).max()) for sign in (1, -1)
        )
        limit = int(found[panel, group])
        assert limit * squares <= LARGEST**2 < (limit + 1) * squares


def test_nothing_within_the_limit_overflows() -> None:
    """The worst x there is for some weights, as long as the bound lets it be."""
    random = np.random.default_rng(5)
    for _ in range(2000):
        w = random.integers(-128, 128, 4) // random.choice([1, 1, 3])
        weights = np.zeros((1, GROUP, 1, 4))
        weights[0, :, 0, :2] = w.reshape(2, 2)
        limit = limits(weights)[0, 0]
        for sign in (1, -1):
            part = np.maximum(sign * w, 0)
            if part.any():
                x = np.minimum(part * np.sqrt(limit / (part**2).sum()), 255).astype(int)
                assert (x**2).sum() <= limit
                assert (x * part).sum() <= LARGEST


def test_limits_lie_as_panels_do() -> None:
    weights = np.zeros((20, 16, 1, 1))
    weights[17, 11] = 100
    packing = ByteLimits(2, 8)
    out = np.zeros(packing.elements(weights.shape), np.int32)
    packing.pack(weights, out)
    panels = QuadPanels(2, 8)
    packed = np.zeros(panels.elements(weights.shape), np.int8)
    panels.pack(weights, packed)
    held = packed.reshape(4, 2, -1).any(2)  # by panel and group
    assert held.sum() == 1
    assert (out.reshape(4, 2)[held] == LARGEST**2 // 100**2).all()
    assert (out.reshape(4, 2)[~held] == LARGEST**2).all()
