"""Code for aarch64, run under qemu-user where that is installed, against the interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from data import golden
from emulated import EMULATOR, PROCESSORS, TARGET, emulate, turns
from graph_builder import attention_block
from harness import assert_near
from integer_layers import inputs_of, layer_graph
from strategies import ACTIVATIONS, Builder, random_inputs

from lucid import trace
from lucid.codegen.kernels import admission_tables as native
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, TensorType, f32, interpret, ops
from lucid.ir.ops import (
    Abs,
    AdaptiveAvgPool2d,
    Add,
    ArgMax,
    AvgPool2d,
    Cast,
    Constant,
    Cos,
    Exp,
    Floor,
    Gather,
    Gelu,
    GroupNorm,
    LayerNorm,
    Less,
    LocalResponseNorm,
    Log,
    MatMul,
    Max,
    MaxPool2d,
    Mul,
    Pad,
    Permute,
    Pow,
    Relu,
    Reshape,
    Resize,
    RmsNorm,
    Round,
    Sin,
    Softmax,
    Sum,
    Where,
)
from lucid.ir.passes import run_passes
from lucid.models import create_model

pytestmark = pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed")


def check_emulated(
    graph: Graph, folder: Path, batch: int = 2, kernels: Mapping[str, str] | None = None
) -> None:
    inputs = random_inputs(graph, batch)
    wanted = interpret(graph, inputs, dtype=np.float64)
    fused = run_passes(graph)
    choices = schedule(fused, TARGET, batch, "fast", kernels)
    program = lower(fused, choices, TARGET, batch)
    values = emulate(program, graph.payload, inputs, folder)
    for value, exact in zip(values, wanted, strict=True):
        assert_near(value, exact, 4e-6)


@pytest.mark.parametrize("kernel", ["direct", "winograd2x2", "winograd4x4"])
def test_split_attention(kernel: str, tmp_path: Path) -> None:
    check_emulated(attention_block(2, 1, 24, "last"), tmp_path, 2, {"conv2": kernel})


def test_two_threads(tmp_path: Path) -> None:
    graph = attention_block(2, 1, 24, "last")
    inputs = random_inputs(graph, 2)
    fused = run_passes(graph)
    choices = schedule(fused, TARGET, 2, "fast", {"conv2": "direct"})
    results = [
        emulate(lower(fused, choices, TARGET, 2, n), graph.payload, inputs, tmp_path, n)
        for n in (1, 2)
    ]
    for alone, together in zip(*results, strict=True):
        np.testing.assert_array_equal(alone, together)


def test_callers_take_turns(tmp_path: Path) -> None:
    """Two threads of which one may run at a time: what one wrote the next one reads."""
    number, gate = turns(tmp_path, 2000)
    assert number == 4000
    left = (native.GATE_HELD, native.GATE_RUNNING, native.GATE_BESIDE, native.GATE_WAITING)
    assert [gate[word] for word in (*left, native.GATE_MUTEX)] == [0, 0, 0, 0, native.FREE]


@pytest.mark.parametrize("kernel", ["direct", "winograd2x2", "winograd4x4", "depthwise"])
def test_convolutions(kernel: str, tmp_path: Path) -> None:
    build = Builder()
    x = build.input(22, 7, 9)
    groups = 22 if kernel == "depthwise" else 2
    options = {"padding": (1, 0, 2, 1), "groups": groups, "bias": True}
    y = build.conv(x, 22, (3, 3), origin="conv", **options)
    scale = build.weight("scale", 22, 1, 1, positive=True)
    build.graph.set_outputs([build.apply(Gelu(), build.apply(Mul(), y, scale))])
    check_emulated(build.graph, tmp_path, 2, {"conv": kernel})


def test_a_residual_and_a_long_sum(tmp_path: Path) -> None:
    build = Builder()
    x = build.input(600, 3, 3)
    y = build.conv(build.conv(x, 600, origin="a"), 600, origin="b")
    build.graph.set_outputs([build.apply(Relu(), build.apply(Add(), y, x))])
    check_emulated(build.graph, tmp_path, 1)


def test_pools_reductions_and_softmax(tmp_path: Path) -> None:
    build = Builder()
    x = build.input(21, 8, 7)
    average = AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1), ceil_mode=True)
    outputs = [
        build.apply(MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), x),
        build.conv(build.apply(average, x), 5),
        build.apply(Sum((2, 3)), x),
        build.apply(Max((1,)), x),
        build.apply(Softmax(1), x),
        build.apply(Softmax(3), x),
    ]
    build.graph.set_outputs(outputs)
    check_emulated(build.graph, tmp_path)


def test_products_of_computed_matrices_and_resampling(tmp_path: Path) -> None:
    build = Builder()
    x = build.apply(Relu(), build.input(21, 6, 7))
    rows = build.apply(Reshape((BATCH, 3, 7, 42)), x)
    square = build.apply(MatMul(), rows, build.apply(Permute((0, 1, 3, 2)), rows))
    places = build.apply(Constant((4, 0, 1, -1), "i64"))
    outputs = [
        square,
        build.apply(MatMul(), square, rows),
        build.apply(Resize((9, 13), "bilinear"), x),
        build.apply(Resize((3, 14), "nearest"), x),
        build.conv(build.apply(Pad((0, 0, 1, 2), (0, 0, 2, 0), mode="reflect"), x), 5),
        build.apply(Gather(2), x, places),
        build.apply(AdaptiveAvgPool2d((4, 5)), x),
    ]
    build.graph.set_outputs(outputs)
    check_emulated(build.graph, tmp_path)


def test_norms_and_the_place_of_the_maximum(tmp_path: Path) -> None:
    build = Builder()
    x = build.conv(build.input(5, 6, 7), 22, bias=True)
    weights = build.weight("weight", 22, positive=True), build.weight("bias", 22)
    scores = build.apply(ArgMax(1), x)
    outputs = [
        build.apply(LayerNorm((1,)), x, *weights),
        build.apply(LayerNorm((2, 3)), x),
        build.apply(GroupNorm(1), x, *weights),
        build.apply(GroupNorm(11), x, *weights),
        build.apply(RmsNorm((1,)), x, weights[0]),
        build.apply(LocalResponseNorm(5, 0.1), x),
        build.apply(Cast("f32"), scores),
        build.apply(Cast("f32"), build.apply(ArgMax(3), x)),
    ]
    build.graph.set_outputs(outputs)
    check_emulated(build.graph, tmp_path)


def test_what_is_no_activation(tmp_path: Path) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 5, 37))
    y = build.apply(Permute((0, 2, 1)), build.graph.add_input(f32(BATCH, 37, 5)))
    size = build.apply(Add(), build.apply(Abs(), x), build.apply(Constant(0.1)))
    outputs = [build.apply(op, size) for op in (Log(), Exp(), Floor(), Round(), Sin(), Cos())]
    outputs += [build.apply(Pow(), size, y), build.apply(Where(), build.apply(Less(), x, y), x, y)]
    outputs.append(build.apply(Cast("f32"), build.apply(Cast("u8"), size)))
    build.graph.set_outputs(outputs)
    check_emulated(build.graph, tmp_path, 3)


def test_activations(tmp_path: Path) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 37))
    build.graph.set_outputs([build.apply(op, x) for op in ACTIVATIONS])
    check_emulated(build.graph, tmp_path, 3)


Layers = list[tuple[ops.IntegerProduct, str, tuple[int, ...], tuple[int, ...]]]
LAYERS: dict[str, Layers] = {
    "aarch64": [
        (ops.IntegerConv2d(zero_point=7), "i8", (56, 3, 3), (14, 56, 1, 1)),
        (ops.IntegerConv2d((2, 2), (1, 1, 1, 1), zero_point=9), "i8", (5, 6, 5), (14, 5, 3, 3)),
        (ops.IntegerConv2d((1, 1), (1, 1, 1, 1), (1, 1), 8, 3), "i8", (8, 6, 5), (8, 1, 3, 3)),
        (ops.IntegerLinear(), "i16", (16,), (13, 16)),
    ],
    "aarch64-dotprod": [
        (ops.IntegerConv2d(), "i8", (40, 5, 3), (46, 40, 1, 1)),
        (ops.IntegerConv2d(zero_point=7), "i8", (56, 3, 3), (15, 56, 1, 1)),
        (ops.IntegerConv2d((2, 2), zero_point=255), "i8", (24, 4, 5), (31, 24, 1, 1)),
        (ops.IntegerConv2d(groups=3), "i8", (48, 3, 2), (42, 16, 1, 1)),
        (ops.IntegerLinear(zero_point=200), "i8", (104,), (30, 104)),
        (ops.IntegerConv2d(zero_point=3), "i8", (21, 3, 3), (14, 21, 1, 1)),
    ],
}
"""Layers of u8 by level: the dtype of weights, and the shapes of an image and of the weights. With
dotprod all but the last are products of bytes, and the others are as they are without."""


@pytest.mark.parametrize("level", PROCESSORS)
def test_sums_of_integers(level: str, tmp_path: Path) -> None:
    """Exactly what the interpreter computes, of the largest sums too."""
    random, target = np.random.default_rng(0), Target.named(level)
    graph, inputs, outputs = Graph("layers", {}), [], []
    for number, (op, kind, image, weight) in enumerate(LAYERS[level]):
        names = [f"{name}{number}" for name in ("x", "weight", "bias")]
        x = graph.add_input(TensorType("u8", (BATCH, *image)), names[0])
        inputs.append(random.integers(0, 256, (4, *image)).astype(np.uint8))
        inputs[-1][1:3] = [np.zeros(image), np.full(image, 255)]
        drawn = random.integers(-128, 128, weight)
        drawn[:2] = np.array([-128, 127]).reshape(2, *(1 for _ in weight[1:]))
        graph.payload[names[1]] = drawn.astype(f"int{kind[1:]}")
        graph.payload[names[2]] = random.integers(-(2**31), 2**31, weight[:1]).astype(np.int32)
        own = graph.add_source(names[1], TensorType(kind, weight))
        bias = graph.add_source(names[2], TensorType("i32", weight[:1]))
        outputs.append(graph.append(op, [x, own, bias][: 2 + number % 2]).output)
    graph.set_outputs(outputs)
    program = lower(graph, schedule(graph, target, 4), target, 4)
    numbers = Counter(getattr(call.kernel, "numbers", "none") for call in program.calls())
    assert numbers["i8"] == (len(LAYERS[level]) - 1 if target.dot else 0)
    found = emulate(program, graph.payload, inputs, tmp_path, target=target)
    for value, exact in zip(found, interpret(graph, inputs), strict=True):
        np.testing.assert_array_equal(value, exact)


@pytest.mark.parametrize("level", ["aarch64-dotprod"])
def test_bytes_from_sums(level: str, tmp_path: Path) -> None:
    target, kind = Target.named(level), TensorType("u8", (BATCH, 24, 3, 3))
    graph = layer_graph(ops.IntegerConv2d(zero_point=7), kind, (14, 24, 1, 1), "residual")
    inputs = inputs_of(graph, 2, "random")
    program = lower(graph, schedule(graph, target, 2), target, 2)
    found = emulate(program, graph.payload, inputs, tmp_path, target=target)
    np.testing.assert_array_equal(found[0], interpret(graph, inputs)[0])


def test_a_golden_case(tmp_path: Path) -> None:
    (case,) = (c for c in golden.cases() if str(c) == "resnest_14-seed1-1x97x129")
    model = create_model(case.model)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(golden.weights(shapes, case.seed))
    graph = run_passes(trace(model, (case.batch, 3, case.height, case.width)))
    program = lower(graph, schedule(graph, TARGET, case.batch), TARGET, case.batch)
    (logits,) = emulate(program, graph.payload, [case.image()], tmp_path)
    error = np.abs(logits - case.logits).max() / np.abs(case.logits).max()
    assert error <= 1.5e-6
