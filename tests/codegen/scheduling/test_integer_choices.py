"""Which kernels convolutions of integers may have, and get."""

from __future__ import annotations

import pytest
from integer_layers import layer_graph

from lucid.codegen.scheduling.candidates import candidates
from lucid.codegen.scheduling.conv_shape import ConvShape, convolutions
from lucid.codegen.scheduling.schedule import allowed_kernels, legal_kernels, schedule
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, TensorType, ops

TARGET = Target.named("x86-64-v3")
WINDOW = ["direct", "winograd2x2", "winograd4x4"]


def graph_of(
    channels: int, side: int, kernel: int, groups: int = 1, stride: int = 1, padding: int = -1
) -> Graph:
    padding = kernel // 2 if padding < 0 else padding
    op = ops.IntegerConv2d((stride, stride), (padding,) * 4, groups=groups, zero_point=3)
    x = TensorType("u8", (BATCH, channels, side, side))
    return layer_graph(op, x, (channels, channels // groups, kernel, kernel))


def shape_of(graph: Graph) -> ConvShape:
    (node,) = convolutions(graph)
    return ConvShape.of(node, 1)


@pytest.mark.parametrize(
    ("fields", "legal"),
    [
        ({"kernel": 3}, WINDOW),
        ({"kernel": 3, "stride": 2}, ["direct"]),
        ({"kernel": 3, "groups": 2}, WINDOW),
        ({"kernel": 3, "groups": 8}, ["depthwise", "direct"]),
        ({"kernel": 5, "groups": 64, "stride": 2}, ["depthwise", "direct"]),
        ({"kernel": 1}, ["pointwise", "direct"]),
        ({"kernel": 1, "stride": 2}, ["pointwise", "direct"]),
        ({"kernel": 1, "padding": 1}, ["direct"]),
    ],
)
def test_legal_kernels(fields: dict[str, int], legal: list[str]) -> None:
    shape = shape_of(graph_of(64, 14, **fields))
    assert legal_kernels(shape) == legal
    assert allowed_kernels(shape, "strict") == legal  # sums are exact, whatever the kernel


@pytest.mark.parametrize(("channels", "side"), [(64, 56), (128, 28), (256, 14)])
def test_winograd_is_the_fastest_on_large_maps(channels: int, side: int) -> None:
    (choice,) = schedule(graph_of(channels, side, 3), TARGET, 1).choices.values()
    assert choice.kernel == "winograd4x4"
    assert choice.tiles > 0


def test_where_weights_are_streamed_fewer_points_are_faster() -> None:
    """36 points of 512 x 512 channels are 19 MB, 16 are 8."""
    (choice,) = schedule(graph_of(512, 7, 3), TARGET, 1).choices.values()
    assert choice.kernel == "winograd2x2"


def test_the_tuner_tries_winograd() -> None:
    shape = shape_of(graph_of(64, 28, 3))
    every = candidates(shape, TARGET, legal_kernels(shape))
    assert {c.kernel for c in every} == set(WINDOW)
    assert every[0].kernel == "winograd4x4"
