"""Layers whose products tiles of matrices do, rounded to bfloat16 or by parts, on a processor with
AMX or an emulated one: against the interpreter, bitwise the same with one thread and two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from amx_emulator import LEVEL, Tiles, as_a_machine_with_tiles
from harness import LIMIT, Run, assert_near, examples, set_apart
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import Builder, random_inputs
from test_kernels_bf16 import filled, normalised_rows, pooled_block, strided_rows
from test_kernels_convolution import layers

import lucid
from lucid.codegen.kernels.matrix_tile import MatrixTile
from lucid.codegen.kernels.packing import PartPanels
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.conv_shape import ConvShape, scheduled_layers
from lucid.codegen.scheduling.kernel_names import BF16_SUFFIX, BY_ROWS, PARTS_SUFFIX
from lucid.codegen.scheduling.schedule import Schedule, cheapest, possible_kernels, schedule
from lucid.codegen.target import LEVELS
from lucid.ir import Graph, Node, Value, interpret
from lucid.ir.ops import Add, Conv2d, Relu
from lucid.ir.ops.base import Array
from lucid.ir.passes import run_passes
from lucid.models import create_model

BOTH = pytest.mark.parametrize("numbers", [BF16_SUFFIX, PARTS_SUFFIX])
LIMITS = {BF16_SUFFIX: 1e-2, PARTS_SUFFIX: LIMIT}
"""The largest error relative to the largest output."""


@pytest.fixture(scope="module", autouse=True)
def tiles() -> Iterator[Tiles]:
    with as_a_machine_with_tiles() as found:
        yield found
    assert found.configured == 0


def kernels_of(node: Node, numbers: str) -> list[str]:
    """Those that tiles multiply for."""
    possible = possible_kernels(ConvShape.of(node, 1))
    return [kernel + numbers for kernel in BY_ROWS if kernel + numbers in possible]


def by_tiles(graph: Graph, numbers: str, batch: int, which: int = 0) -> Schedule:
    """A schedule by which tiles multiply wherever they can, in one layer at least; `which`: by
    which kernel of several."""
    found = {node.origin: kernels_of(node, numbers) for node in scheduled_layers(graph)}
    kernels = {origin: names[which] for origin, names in found.items() if names}
    assert kernels
    return schedule(graph, LEVEL, batch, "fast", kernels)


def check(
    graph: Graph, inputs: Sequence[Array], numbers: str, wanted: Sequence[Array], limit: float
) -> None:
    """By each kernel that there is for them."""
    fused, batch = run_passes(graph), len(inputs[0])
    for which in (0, -1):
        choices = by_tiles(fused, numbers, batch, which)
        alone, together = (lower(fused, choices, LEVEL, batch, threads=n) for n in (1, 2))
        assert any(isinstance(kernel, MatrixTile) for kernel in alone.kernels())
        set_apart(alone)
        results = Run(alone, LEVEL, skew=12).outputs(graph.payload, inputs)
        again = Run(together, LEVEL, threads=2).outputs(graph.payload, inputs)
        for value, other, exact in zip(results, again, wanted, strict=True):
            np.testing.assert_array_equal(value, other, err_msg="threads change it")
            assert_near(value, exact, limit)


@BOTH
@pytest.mark.parametrize("like", ["", "pointwise", "direct"])
@examples(0.15)
@given(st.data())
def test_sums_of_integers_are_exact(like: str, numbers: str, data: st.DataObject) -> None:
    graph = data.draw(layers(like))
    (node,) = scheduled_layers(graph)
    assume(kernels_of(node, numbers))
    inputs = filled(graph, data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99)))
    wanted = interpret(graph, inputs, dtype=np.float64)
    check(graph, inputs, numbers, wanted, 0.0)


@BOTH
@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize(("inner", "outer"), [(2, 1), (46, 17), (130, 70)])
def test_linear_layers(rank: int, inner: int, outer: int, numbers: str) -> None:
    build = Builder()
    x = build.input(*(3, 5, 2)[: rank - 2], inner)
    y = build.linear(x, outer, bias=True, origin="layer")
    build.graph.set_outputs([build.apply(Relu(), y)])
    inputs = filled(build.graph, 2, rank)
    check(build.graph, inputs, numbers, interpret(build.graph, inputs, dtype=np.float64), 0.0)


@BOTH
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_layers_with_a_residual(size: int, groups: int, numbers: str) -> None:
    build = Builder()
    x = build.input(68, 9, 7)
    padding = (size // 2,) * 4
    y = build.conv(x, 74, (size, size), bias=True, padding=padding, groups=groups)
    build.graph.set_outputs([build.apply(Relu(), build.apply(Add(), y, build.input(74, 9, 7)))])
    inputs = random_inputs(build.graph, 2)
    wanted = interpret(build.graph, inputs, dtype=np.float64)
    check(build.graph, inputs, numbers, wanted, LIMITS[numbers])


@pytest.mark.parametrize("groups", [1, 2])
def test_winograd(groups: int) -> None:
    """Where channels are whole blocks of pairs."""
    build = Builder()
    y = build.conv(build.input(64, 9, 7), 74, (3, 3), padding=(1,) * 4, groups=groups, origin="c")
    build.graph.set_outputs([y])
    inputs = random_inputs(build.graph, 2)
    (wanted,) = interpret(build.graph, inputs, dtype=np.float64)
    graph = run_passes(build.graph)
    choices = schedule(graph, LEVEL, 2, "fast", {"c": "winograd2x2_bf16"})
    programs = [lower(graph, choices, LEVEL, 2, threads=n) for n in (1, 2)]
    assert any(isinstance(kernel, MatrixTile) for kernel in programs[0].kernels())
    one, two = (
        Run(program, LEVEL, threads=n).outputs(graph.payload, inputs)[0]
        for n, program in enumerate(programs, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert_near(one, wanted, 1e-2)


@BOTH
@pytest.mark.parametrize("make", [pooled_block, normalised_rows, strided_rows])
def test_rows_that_loaders_make(make: Callable[[Builder], Value], numbers: str) -> None:
    build = Builder()
    y = make(build)
    build.graph.set_outputs([y, *build.graph.outputs])
    inputs = random_inputs(build.graph, 3)
    wanted = interpret(build.graph, inputs, dtype=np.float64)
    check(build.graph, inputs, numbers, wanted, LIMITS[numbers])


@BOTH
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stranger", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_where_it_is_read(
    size: int, stranger: float, numbers: str
) -> None:
    build = Builder()
    x = build.input(6, 7, 5)
    build.graph.set_outputs([build.conv(x, 9, (size, size), padding=(size // 2,) * 4)])
    inputs = filled(build.graph, 1, 0)
    inputs[0][0, 3, 2, 2] = stranger
    with np.errstate(invalid="ignore"):
        (wanted,) = interpret(build.graph, inputs, dtype=np.float64)
    graph = run_passes(build.graph)
    program = lower(graph, by_tiles(graph, numbers, 1), LEVEL, 1)
    (found,) = Run(program, LEVEL).outputs(graph.payload, inputs)
    np.testing.assert_array_equal(found, wanted)


def test_panels_of_parts_hold_the_weights() -> None:
    """Exactly, in the order of their pairs; what is not finite makes no other number so."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((37, 21, 3, 1)).astype(np.float32)
    weight[5, 7, 1] = np.inf
    packing = PartPanels(1, 32)
    out = np.zeros(packing.elements(weight.shape), np.float32)
    packing.pack(weight.astype(np.float64), out)
    blocks = out.reshape(2, 2, 3, 16, 32, 2)  # panel, block, part, pair, column, number
    with np.errstate(invalid="ignore"):
        sums = (blocks[:, :, 1] + blocks[:, :, 2]) + blocks[:, :, 0]
    rows = sums.transpose(0, 3, 1, 2, 4).reshape(64, 64)
    wanted = weight[..., 0].swapaxes(1, 2).reshape(37, 63)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(rows[:37, :63][finite], wanted[finite])
    assert not rows[37:].any()
    assert not rows[:37, 63:].any()


# -- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnest_digits", "resnest_14"])
def test_networks(name: str, tiles: Tiles) -> None:
    """As the compiler chooses for this precision, with one thread and two."""
    model = create_model(name)
    size = (2, 1, 28, 28) if name == "resnest_digits" else (1, 3, 64, 64)
    image = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    one, two = (lucid.compile(model, size, threads=n, precision="bf16") for n in (1, 2))
    assert one.target.name == LEVEL.name
    before = tiles.executed
    value = one(image)
    assert before is None or tiles.executed > before + 100
    np.testing.assert_array_equal(value, two(image))
    exact = lucid.compile(model, size, threads=1, precision="strict")(image)
    assert_near(value, exact, 0.03)


# -- the choice -----------------------------------------------------------------------------------


def test_parts_are_chosen_by_nobody_before_they_are_measured() -> None:
    shape = ConvShape(1, 256, 256, 28, 28, (1, 1), Conv2d(), 4)
    assert "pointwise_parts" in possible_kernels(shape)
    for target in LEVELS.values():
        for precision in ("fast", "strict", "bf16"):
            assert not cheapest(shape, target, precision).endswith(PARTS_SUFFIX)
    measured = replace(LEVEL, costs=replace(LEVEL.costs, parts=2.5))
    assert cheapest(shape, measured, "strict") == "pointwise_parts"


def test_parts_are_floats_where_there_are_no_tiles() -> None:
    build = Builder()
    build.graph.set_outputs([build.conv(build.input(34, 5, 7), 40, (3, 3), origin="layer")])
    graph, target = run_passes(build.graph), LEVELS["x86-64-v4"]
    choices = schedule(graph, target, 1, "fast", {"layer": "direct_parts"})
    plain = schedule(graph, target, 1, "fast", {"layer": "direct"})
    assert Schedule.from_json(choices.to_json()) == choices
    kernels, wanted = (lower(graph, s, target, 1).kernels() for s in (choices, plain))
    assert kernels == wanted
