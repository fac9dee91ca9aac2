"""Products of floats rounded to bfloat16: exact where nothing is rounded, else those of NumPy's
rounded numbers, whatever lies beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from harness import LIMIT, TARGETS, ZEN4, Run, assert_near, examples, set_apart
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import Builder, random_inputs
from test_kernels_convolution import layers

from lucid.codegen.kernels.bf16_rows import Rounded
from lucid.codegen.kernels.direct import Direct
from lucid.codegen.kernels.loaders import Combine, Loader, Mapped, Patch
from lucid.codegen.kernels.product import Product
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.llvm import assembly
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.conv_shape import ConvShape, scheduled_layers
from lucid.codegen.scheduling.kernel_names import BF16_SUFFIX
from lucid.codegen.scheduling.schedule import (
    Choice,
    Schedule,
    allowed_kernels,
    cheapest,
    check_schedule,
    legal_kernels,
)
from lucid.codegen.scheduling.schedule import schedule as scheduled
from lucid.codegen.target import LEVELS, Target
from lucid.errors import UnknownNameError
from lucid.ir import Graph, Node, Value, interpret
from lucid.ir.ops import Add, AvgPool2d, Conv2d, MaxPool2d, Mul, Relu, Silu
from lucid.ir.ops.base import Array
from lucid.ir.passes import run_passes

BF16 = dtype("bf16")


def rounded_to_bf16(array: Array) -> Array:
    """The bfloat16 numbers next to these, as float32."""
    return BF16.decode(BF16.encode(array))


def rounding_kernels(node: Node, batch: int) -> list[str]:
    """Those that a layer may have."""
    return [k for k in legal_kernels(ConvShape.of(node, batch)) if k.endswith(BF16_SUFFIX)]


def all_rounding(graph: Graph, target: Target, batch: int, which: int = 0) -> Schedule:
    """A schedule by which all layers round that can, one at least; `which`: by which kernel of
    several."""
    layers = {n: rounding_kernels(n, batch) for n in scheduled_layers(graph)}
    forced = {node.origin: kernels[which] for node, kernels in layers.items() if kernels}
    assert forced
    return scheduled(graph, target, batch, "fast", forced)


def compiled(
    graph: Graph, inputs: Sequence[Array], target: Target, threads: int, which: int = 0
) -> list[Array]:
    """The outputs of a graph by `all_rounding`."""
    batch = len(inputs[0])
    program = lower(graph, all_rounding(graph, target, batch, which), target, batch, threads)
    if threads == 1:
        set_apart(program)
    return Run(program, target, threads, 12 * (threads == 1)).outputs(graph.payload, inputs)


def check(
    graph: Graph,
    inputs: Sequence[Array],
    wanted: Sequence[Array],
    limit: float = 0.0,
    which: Sequence[int] = (0, -1),
) -> None:
    """On every level, with one thread and two."""
    fused = run_passes(graph)
    for target, kernel in product(TARGETS, which):
        results, again = (compiled(fused, inputs, target, n, kernel) for n in (1, 2))
        for value, other, exact in zip(results, again, wanted, strict=True):
            np.testing.assert_array_equal(value, other, err_msg=f"{target.name}: threads")
            assert_near(value, exact, limit, target.name)


def filled(graph: Graph, batch: int, seed: int, largest: int = 7) -> list[Array]:
    """Inputs for a graph, which gets such weights: integers whose sums float32 holds."""
    random = np.random.default_rng(seed)

    def integers(shape: Any) -> Array:
        return random.integers(-largest, largest + 1, shape).astype(np.float32)

    graph.payload.update({name: integers(a.shape) for name, a in graph.payload.items()})
    return [integers(v.type.concrete(batch)) for v in graph.inputs]


@pytest.mark.parametrize("like", ["", "pointwise", "direct", "winograd"])
@examples(0.3)
@given(st.data())
def test_sums_of_integers_are_exact(like: str, data: st.DataObject) -> None:
    graph = data.draw(layers(like))
    (node,) = scheduled_layers(graph)
    assume(rounding_kernels(node, 1))
    inputs = filled(graph, data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99)))
    check(graph, inputs, interpret(graph, inputs, dtype=np.float64))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((7, 7), (2, 2)), ((3, 3), (1, 1)), ((1, 2), (2, 1))]
)
def test_stems(channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """Images of few channels, which lie plane by plane; pairs of two pixels' numbers."""
    build = Builder()
    padding = (kernel[0] // 2, kernel[1] // 2) * 2
    x = build.input(channels, 19, 23)
    build.graph.set_outputs([build.conv(x, 20, kernel, stride=stride, padding=padding)])
    inputs = filled(build.graph, 2, channels, 4)
    check(build.graph, inputs, interpret(build.graph, inputs, dtype=np.float64))


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize(("inner", "outer"), [(2, 1), (46, 17), (130, 70)])
def test_linear_layers(rank: int, inner: int, outer: int) -> None:
    build = Builder()
    x = build.input(*(3, 5, 2)[: rank - 2], inner)
    y = build.linear(x, outer, bias=True, origin="layer")
    build.graph.set_outputs([build.apply(Relu(), y)])
    inputs = filled(build.graph, 2, rank)
    check(build.graph, inputs, interpret(build.graph, inputs, dtype=np.float64))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_operands_are_rounded_to_the_nearest(kernel: int, scale: float) -> None:
    """Half of the inputs lie in the middle between two bfloat16 numbers."""
    random = np.random.default_rng(kernel)
    build = Builder()
    x = build.input(34, 6, 5)
    y = build.conv(x, 37, (kernel, kernel), bias=True, padding=(kernel // 2,) * 4)
    other = build.input(37, 6, 5)
    build.graph.set_outputs([build.apply(Silu(), build.apply(Add(), y, other))])
    image = (random.standard_normal((2, 34, 6, 5)) * scale).astype(np.float32)
    bits = image.view(np.uint32)
    bits[..., ::2] = bits[..., ::2] & 0xFFFF0000 | 0x8000
    inputs = [image, random.standard_normal((2, 37, 6, 5)).astype(np.float32)]
    weight = build.graph.nodes[0].inputs[1].name
    numbers = (build.graph.payload[weight] / scale).astype(np.float32)
    build.graph.payload[weight] = rounded_to_bf16(numbers)
    given = [rounded_to_bf16(image), inputs[1]]
    wanted = interpret(build.graph, given, dtype=np.float64)
    build.graph.payload[weight] = numbers
    check(build.graph, inputs, wanted, LIMIT, which=[0])  # Winograd rounds what it transforms


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stranger", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_where_it_is_read(kernel: int, stranger: float) -> None:
    build = Builder()
    x = build.input(6, 7, 5)
    build.graph.set_outputs([build.conv(x, 9, (kernel, kernel), padding=(kernel // 2,) * 4)])
    inputs = filled(build.graph, 1, 0)
    inputs[0][0, 3, 2, 2] = stranger
    (wanted,) = interpret(build.graph, inputs, dtype=np.float64)
    for target in TARGETS:
        (found,) = compiled(run_passes(build.graph), inputs, target, 1)
        np.testing.assert_array_equal(found, wanted, target.name)


def loaders_of(graph: Graph) -> set[type[Loader]]:
    """What makes the rows that products of a graph round, where it is a loader."""
    fused, target = run_passes(graph), Target.host()
    program = lower(fused, all_rounding(fused, target, 1), target, 1, 1)
    products = [c.kernel for c in program.calls() if isinstance(c.kernel, Product)]
    rounded = [p.loader for p in products if isinstance(p.loader, Rounded)]
    return {type(loader.inner) for loader in rounded if loader.inner is not None}


def pooled_block(build: Builder) -> Value:
    """A split attention whose combination is averaged before the last convolution."""
    y = build.split_attention(build.input(12, 8, 6), 2, 1, hidden=6)
    return build.conv(build.apply(AvgPool2d((2, 2), (2, 2)), y), 10, bias=True)


def normalised_rows(build: Builder) -> Value:
    x = build.apply(MaxPool2d((2, 2), (1, 1)), build.input(34, 9, 7))
    scale = build.apply(Mul(), x, build.weight("scale", 34, 1, 1))
    build.graph.set_outputs([x])
    return build.conv(build.apply(Relu(), scale), 33)


def strided_rows(build: Builder) -> Value:
    return build.conv(build.input(10, 9, 7), 33, stride=(2, 2), bias=True)


@pytest.mark.parametrize(
    ("make", "loader"),
    [(pooled_block, Combine), (normalised_rows, Mapped), (strided_rows, Patch)],
)
def test_rows_that_loaders_make(make: Callable[[Builder], Value], loader: type[Loader]) -> None:
    build = Builder()
    y = make(build)
    build.graph.set_outputs([y, *build.graph.outputs])
    assert loader in loaders_of(build.graph)
    inputs = random_inputs(build.graph, 3)
    check(build.graph, inputs, interpret(build.graph, inputs, dtype=np.float64), 1e-2)


# -- the choice -----------------------------------------------------------------------------------


def conv(channels: int, columns: int, side: int, kernel: int = 1, groups: int = 1) -> ConvShape:
    op = Conv2d(padding=(kernel // 2,) * 4, groups=groups)
    return ConvShape(1, channels, columns, side, side, (kernel, kernel), op, 4)


def test_it_is_for_the_precision_of_its_name() -> None:
    shape = conv(256, 64, 56)
    assert allowed_kernels(shape, "bf16") == legal_kernels(shape)
    for precision in ("fast", "strict"):
        assert not [k for k in allowed_kernels(shape, precision) if k.endswith(BF16_SUFFIX)]


@pytest.mark.parametrize(
    ("shape", "legal"),
    [
        (conv(64, 64, 8), True),
        (conv(64, 64, 8, 3), True),
        (conv(3, 64, 8, 3), True),
        (conv(64, 64, 8, 3, groups=64), False),
        (replace(conv(64, 64, 8), integer=True), False),
    ],
)
def test_which_layers_may_round(shape: ConvShape, legal: bool) -> None:
    assert any(k.endswith(BF16_SUFFIX) for k in legal_kernels(shape)) == legal


def test_products_round_where_that_is_faster() -> None:
    """With instructions for it where there is much to multiply; without only where weights are
    waited for."""
    many, single = conv(256, 256, 28), conv(4096, 4096, 1)
    with_, without = ZEN4, LEVELS["x86-64-v4"]
    assert cheapest(many, with_, "bf16") == "pointwise_bf16"
    assert cheapest(many, without, "bf16") == "pointwise"
    for target in (with_, without):
        assert cheapest(single, target, "bf16") == "pointwise_bf16"
        assert cheapest(many, target, "fast") == "pointwise"
    assert cheapest(conv(64, 64, 56, 3), with_, "bf16") == "winograd2x2_bf16"
    assert cheapest(conv(64, 64, 56, 3), without, "bf16") == "winograd4x4"


def test_linear_layers_of_any_rank_may_round() -> None:
    build = Builder()
    y = build.linear(build.input(3, 5, 34), 17)
    build.graph.set_outputs([y, build.linear(build.input(34), 17)])
    choices = scheduled(build.graph, ZEN4, 1, "bf16").choices
    assert [c.kernel for c in choices.values()] == ["pointwise_bf16"] * 2
    check_schedule(Schedule(choices), build.graph, 1)
    assert not scheduled(build.graph, ZEN4, 1).choices


def test_a_pattern_is_for_the_layers_that_can() -> None:
    """A head is no rows of images, which Strassen's products take; it may be without results."""
    build = Builder()
    y = build.linear(build.input(4, 64), 64, origin="enc.0")
    heads = [build.linear(build.input(8), n, origin="enc.head") for n in (3, 0)]
    build.graph.set_outputs([y, *heads])
    choices = scheduled(build.graph, ZEN4, 1, "fast", {"enc.*": "strassen"}).choices
    assert [c.kernel for c in choices.values()] == ["strassen"]
    with pytest.raises(UnknownNameError, match="pointwise_bf16"):
        scheduled(build.graph, ZEN4, 1, "fast", {"enc.*": "pointwise_wrong"})


def test_a_schedule_says_so() -> None:
    chosen = Schedule({"y": Choice("pointwise_bf16")})
    assert Schedule.from_json(chosen.to_json()) == chosen
    assert chosen.choices["y"].algorithm == "pointwise"
    assert chosen.choices["y"].rounds_to_bf16


# -- the code -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [Product(Rounded(), numbers="bf16"), Direct(numbers="bf16")])
def test_floats_are_rounded_by_instructions_that_are_there(spec: KernelSpec) -> None:
    for target in LEVELS.values():
        text = assembly(spec, target)
        assert ("vcvtneps2bf16" in text or "vcvtne2ps2bf16" in text) == target.bf16, target.name
