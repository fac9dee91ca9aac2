"""Compiled models against the official implementations, and single layers under hard weights."""

from __future__ import annotations

import numpy as np
import pytest
from data import golden
from harness import TARGETS, Run
from strategies import Builder

import lucid
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.conv_shape import ConvShape, convolutions
from lucid.codegen.scheduling.schedule import allowed_kernels, schedule
from lucid.codegen.target import Target
from lucid.compiler import CompileOptions
from lucid.ir import Graph, interpret
from lucid.models import create_model

LIMIT = 1.5e-6
"""Of the largest logit. Direct float32 comes to 3e-7, F(4x4) everywhere to 4.3e-7."""

SAMPLE = (
    "resnest_14-seed1-1x97x129",
    "resnest_50_4s2x40d-seed1-2x75x75",
    "resnet_18-seed0-1x160x160",
)
QUICK = (*SAMPLE, "resnest_50-seed0-1x224x224")


def load(case: golden.Case) -> lucid.nn.Module:
    model = create_model(case.model)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(golden.weights(shapes, case.seed))
    return model


def error(case: golden.Case, target: Target, precision: str = "fast") -> float:
    """The largest difference of a compiled model's logits from the golden ones, relative to the
    largest."""
    shape = (case.batch, 3, case.height, case.width)
    options = CompileOptions(target=target.name)
    compiled = lucid.compile(load(case), shape, threads=2, precision=precision, options=options)
    logits = compiled(case.image())
    return float(np.abs(logits - case.logits).max() / np.abs(case.logits).max())


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=str(c), marks=[] if str(c) in QUICK else [pytest.mark.slow])
        for c in golden.cases()
    ],
)
def test_every_golden_case(case: golden.Case) -> None:
    assert error(case, TARGETS[-1]) <= LIMIT


@pytest.mark.parametrize("target", TARGETS[:-1], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=str(c)) for c in golden.cases() if str(c) in SAMPLE]
)
def test_other_levels(case: golden.Case, target: Target) -> None:
    assert error(case, target) <= LIMIT


@pytest.mark.parametrize("case", [c for c in golden.cases() if str(c) == SAMPLE[0]], ids=str)
def test_strict_precision(case: golden.Case) -> None:
    assert error(case, TARGETS[-1], "strict") <= LIMIT


# -- single layers --------------------------------------------------------------------------------


def layer(channels: int, kernel: int, side: int = 14) -> Graph:
    """A convolution from `channels` to as many, its weights Student t with 3 degrees of freedom."""
    build = Builder()
    pad = kernel // 2
    x = build.input(channels, side, side)
    build.graph.set_outputs(
        [build.conv(x, channels, (kernel, kernel), origin="conv", padding=(pad,) * 4)]
    )
    rng = np.random.default_rng(channels)
    shape = build.payload["conv.weight"].shape
    build.payload["conv.weight"] = rng.standard_t(3, shape).astype(np.float32)
    return build.graph


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def rounding_of_numpy(graph: Graph, x: np.ndarray, exact: np.ndarray) -> float:
    """The rms error of NumPy's float32 product for this convolution."""
    (weight,) = graph.payload.values()
    kernel = weight.shape[-1]
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    rows = np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(-1, weight[0].size)
    product = rows @ weight.reshape(len(weight), -1).T
    n, _, height, width = exact.shape
    return rms(product.reshape(n, height, width, -1).transpose(0, 3, 1, 2) - exact)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [64, 128, 256, 512])
def test_layers_under_heavy_tailed_weights(channels: int, kernel: int, target: Target) -> None:
    """Whatever kernel the precision allows: an rms error of at most 8 times that of NumPy's float32
    product (fast), or 4 times (strict)."""
    graph = layer(channels, kernel)
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((1, channels, 14, 14)), 0).astype(np.float32)
    (exact,) = interpret(graph, [x], dtype=np.float64)
    unit = rounding_of_numpy(graph, x, exact)
    (node,) = convolutions(graph)
    for name in allowed_kernels(ConvShape.of(node, 1), "fast"):
        forced = schedule(graph, target, 1, "fast", {"conv": name})
        (value,) = Run(lower(graph, forced, target, 1), target).outputs(graph.payload, [x])
        allowed = 8 if name == "winograd4x4" else 4  # which strict leaves out
        ratio = rms(value - exact) / unit
        assert ratio <= allowed, f"{name}: {ratio:.1f} times NumPy's error"
