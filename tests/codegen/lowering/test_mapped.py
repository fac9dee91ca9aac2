"""Elementwise ops that a product or a chain takes along, against the interpreter."""

from __future__ import annotations

import pytest
from harness import check
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.ir import Graph, Value
from lucid.ir.ops import Add, Concat, MaxPool2d, Mul, Relu, Silu, SplitAttention
from lucid.ir.passes import run_passes


def algorithms(graph: Graph) -> list[str]:
    """How each call that computes something does so; copies of inputs and outputs left out."""
    target = Target.host()
    fused = run_passes(graph)
    program = lower(fused, schedule(fused, target, 1), target, 1, 2)
    return [call.algorithm for call in program.calls() if call.region.nodes]


def affine(build: Builder, x: Value) -> Value:
    """Scale and shift by channel, and a ReLU."""
    channels = x.type.shape[1]
    assert isinstance(channels, int)
    scale, shift = (build.weight(n, channels, 1, 1) for n in ("scale", "shift"))
    return build.apply(Relu(), build.apply(Add(), build.apply(Mul(), x, scale), shift))


@pytest.mark.parametrize("channels", [5, 40, 130])
def test_an_affine_before_a_pointwise_convolution(channels: int) -> None:
    build = Builder()
    x = build.input(channels, 9, 7)
    pooled = build.apply(MaxPool2d((2, 2), (1, 1)), x)
    build.graph.set_outputs([build.conv(affine(build, pooled), 33, (1, 1)), pooled])
    assert "strided" not in algorithms(build.graph)
    check(build.graph, 3)


def test_an_affine_of_a_concatenation() -> None:
    """As in a DenseNet: rows of a slice, further apart than they are long."""
    build = Builder()
    x = build.input(6, 8, 8)
    parts = [build.conv(x, 10, (1, 1)), build.conv(x, 7, (3, 3), padding=(1,) * 4)]
    first = build.apply(Concat(1), *parts)
    more = build.conv(affine(build, first), 9, (1, 1))
    build.graph.set_outputs([build.conv(build.apply(Concat(1), first, more), 4, (1, 1))])
    check(build.graph, 2)


@pytest.mark.parametrize("turned", [False, True])
def test_a_gate_joins_the_residual(turned: bool) -> None:
    """relu(x * gate + shortcut) is one pass over memory."""
    build = Builder()
    x = build.conv(build.input(6, 7, 6), 40, (1, 1))
    layers = [
        build.weight("fc1.weight", 4, 40, 1, 1),
        build.weight("fc1.bias", 4),
        build.weight("fc2.weight", 40, 4, 1, 1),
        build.weight("fc2.bias", 40),
    ]
    y = build.apply(SplitAttention(radix=1, gate="sigmoid"), build.apply(Silu(), x), *layers)
    pair = (x, y) if turned else (y, x)
    build.graph.set_outputs([build.apply(Relu(), build.apply(Add(), *pair))])
    assert "stage" not in algorithms(build.graph)
    check(build.graph, 3)
