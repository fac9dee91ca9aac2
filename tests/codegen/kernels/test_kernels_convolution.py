"""Every convolution kernel, and linear layers, against the interpreter over generated shapes."""

from __future__ import annotations

from typing import Any

import pytest
from harness import TARGETS, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.scheduling.conv_shape import GROUPS, ConvShape, convolutions
from lucid.codegen.scheduling.schedule import legal_kernels
from lucid.ir import BATCH, Graph, Value, f32
from lucid.ir.ops import Add, Clip, Gelu, Hardswish, Linear, Mul, Op, Permute, Relu, Sigmoid, Silu
from lucid.ir.passes import run_passes

CHANNELS = [1, 3, 10, 16, 40, 66, 130]
"""Tails of every kind: below a vector, one over a panel, several panels."""


@st.composite
def layers(draw: Any, like: str = "") -> Graph:
    """One convolution, often with a bias, of any stride, dilation, grouping and padding."""
    build = Builder(seed=draw(st.integers(0, 999)))
    inner, outer = (draw(st.sampled_from(CHANNELS)) for _ in range(2))
    size = st.integers(1, 29 if like == "depthwise" else 13)
    if like == "depthwise":
        group = draw(st.sampled_from(GROUPS))
        groups = draw(st.sampled_from([2, 3, 5, 17]))
        out = group * groups
        channels = draw(st.sampled_from([groups, out]))
    else:
        alone = like and inner == outer == 1  # in groups that would be a depthwise convolution
        groups = 1 if alone else draw(st.sampled_from([1, 1, 2, 3]))
        channels, out = groups * inner, groups * outer
    if like == "pointwise":
        kernel, fields = (1, 1), {}
    elif like == "winograd":
        spread = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 1), (4, 5)]))
        padding = tuple(draw(st.integers(0, 2)) * d for d in spread * 2)
        kernel, fields = (3, 3), {"padding": padding, "dilation": spread}
    elif like == "direct":  # windows of which little meets the map
        spread = tuple(draw(st.integers(1, 7)) for _ in range(2))
        padding = tuple(draw(st.integers(d - 1, d + 1)) for d in spread * 2)
        stride = (draw(st.integers(1, 2)), 1)
        kernel, fields = (3, 3), {"padding": padding, "dilation": spread, "stride": stride}
    else:
        kernel = (draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 3, 3, 4, 7])))
        fields = {
            "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 2))),
            "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 3))),
            "padding": draw(st.sampled_from([(0,) * 4, None]))
            or tuple(draw(st.integers(0, 3)) for _ in range(4)),
        }
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, fields.get("dilation", (1, 1)), strict=True)]
    top, left, bottom, right = fields.get("padding", (0, 0, 0, 0))
    loses_taps = fields.get("dilation", (1, 1)) != (1, 1) and like == "winograd"
    least = reach if loses_taps else (reach[0] - top - bottom, reach[1] - left - right)
    height, width = max(draw(size), least[0]), max(draw(size), least[1])
    x = build.input(channels, height, width)
    y = build.conv(x, out, kernel, draw(st.booleans()), "conv", groups=groups, **fields)
    build.graph.set_outputs([y])
    return build.graph


def legal(graph: Graph) -> list[str]:
    (node,) = convolutions(graph)
    return legal_kernels(ConvShape.of(node, 1))


@pytest.mark.parametrize("like", ["", "pointwise", "direct", "winograd", "depthwise"])
@examples(0.2)
@given(st.data())
def test_every_legal_kernel(like: str, data: st.DataObject) -> None:
    graph = data.draw(layers(like))
    batch = data.draw(st.sampled_from([1, 2, 3]))
    names = legal(graph)
    assert like in "".join(names)
    for name in names:
        check(graph, batch, {"conv": name})


@pytest.mark.parametrize("kernel", ["pointwise", "direct", "winograd2x2", "winograd4x4"])
@pytest.mark.parametrize(("batch", "side"), [(1, 7), (1, 14), (2, 28), (3, 5)])
def test_the_maps_of_resnest(kernel: str, batch: int, side: int) -> None:
    """Sizes at which tile blocks span images, and images have several blocks."""
    build = Builder()
    x = build.input(64, side, side)
    size, pad = (1, 0) if kernel == "pointwise" else (3, 1)
    y = build.conv(x, 128, (size, size), origin="conv", padding=(pad,) * 4, groups=2)
    build.graph.set_outputs([build.apply(Relu(), y)])
    check(build.graph, batch, {"conv": kernel}, targets=TARGETS[-2:])


@pytest.mark.parametrize("kernel", ["winograd2x2", "winograd4x4"])
@pytest.mark.parametrize(("groups", "side", "spread"), [(2, 7, 1), (4, 14, 1), (6, 9, 2)])
def test_groups_in_pairs(kernel: str, groups: int, side: int, spread: int) -> None:
    """Groups of eight, two of which are one of Winograd's on some targets; tiles over borders."""
    build = Builder()
    x, spreads = build.input(8 * groups, side, side), (spread,) * 2
    options = {"padding": (spread,) * 4, "dilation": spreads, "groups": groups, "bias": True}
    y = build.conv(x, 8 * groups, (3, 3), origin="conv", **options)
    build.graph.set_outputs([build.apply(Relu(), build.apply(Add(), x, y))])
    assert kernel in legal(run_passes(build.graph))
    check(build.graph, 2, {"conv": kernel})


@pytest.mark.parametrize(("outer", "kernel", "stride"), [(24, 3, 2), (32, 5, 1), (7, 2, 3)])
@pytest.mark.parametrize("side", [7, 14])
def test_windows_of_narrow_groups(outer: int, kernel: int, stride: int, side: int) -> None:
    """Where the map lies on targets of few registers, copied on others."""
    build = Builder()
    x = build.input(3 * 24, side, side)
    options = {"padding": (kernel // 2,) * 4, "stride": (stride,) * 2, "groups": 3, "bias": True}
    y = build.conv(x, 3 * outer, (kernel, kernel), origin="conv", **options)
    build.graph.set_outputs([build.apply(Relu(), y)])
    check(build.graph, 3, {"conv": "direct"})


# -- fused bodies ---------------------------------------------------------------------------------

ACTIVATIONS: list[Op] = [Relu(), Silu(), Hardswish(), Gelu(), Sigmoid(), Clip(0, 6)]
KINDS = ["pointwise", "strassen", "direct", "winograd2x2", "winograd4x4", "depthwise", "linear"]


def anchor(build: Builder, kind: str, channels: int) -> tuple[Value, Value]:
    """A layer of this kind from `channels` to as many, and its input; for a linear one both have
    rank 2."""
    if kind == "linear":
        x = build.apply(Linear(), *_flat(build, channels))
        return x, build.linear(x, channels, origin="layer")
    x = build.input(channels, 6, 5)
    flat = kind in ("pointwise", "strassen")
    size, padding = ((1, 1), (0,) * 4) if flat else ((3, 3), (1,) * 4)
    groups = channels if kind == "depthwise" else 1
    options = {"padding": padding, "groups": groups, "bias": True}
    return x, build.conv(x, channels, size, origin="layer", **options)


def _flat(build: Builder, channels: int) -> tuple[Value, Value]:
    x = build.graph.add_input(f32(BATCH, 9))
    return x, build.weight("before.weight", channels, 9)


def run_fused(build: Builder, kind: str, y: Value) -> None:
    """The graph is one kernel for the layer (linear ones have another before), and right."""
    build.graph.set_outputs([y])
    forced = {} if kind == "linear" else {"layer": kind}
    fused = check(build.graph, 2, forced)
    assert len(fused.nodes) == (2 if kind == "linear" else 1), "the body did not fuse"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda op: op.name)
def test_activations(kind: str, activation: Op) -> None:
    build = Builder()
    _, y = anchor(build, kind, 10)
    run_fused(build, kind, build.apply(activation, y))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", ["add, relu", "relu, add", "scale, gelu, add", "add, add, silu"])
def test_extra_operands(kind: str, body: str) -> None:
    """Residuals before and after an activation, and weights by channel, over panels with tails."""
    build = Builder()
    x, y = anchor(build, kind, 66)
    shape = (66,) if kind == "linear" else (66, 1, 1)
    for step in body.split(", "):
        if step == "add":
            y = build.apply(Add(), x, y)
        elif step == "scale":
            y = build.apply(Mul(), y, build.weight("scale", *shape, positive=True))
        else:
            y = build.apply({"relu": Relu(), "gelu": Gelu(), "silu": Silu()}[step], y)
    run_fused(build, kind, y)


@examples(0.3)
@given(st.data())
def test_linear(data: st.DataObject) -> None:
    """Rows of any number, and ranks above two."""
    build = Builder()
    leading = data.draw(st.sampled_from([(), (1,), (7,), (2, 3)]))
    depth, out = (data.draw(st.sampled_from(CHANNELS)) for _ in range(2))
    x = build.graph.add_input(f32(BATCH, *leading, depth))
    build.graph.set_outputs([build.linear(x, out, bias=data.draw(st.booleans()))])
    check(build.graph, data.draw(st.integers(1, 9)))


@pytest.mark.parametrize("depth", [255, 256, 257, 260, 511, 512, 513, 1100])
def test_long_sums(depth: int) -> None:
    """Products around the length at which a chain of multiply-adds is put by."""
    build = Builder()
    x = build.input(depth, 3, 3)
    build.graph.set_outputs([build.conv(x, 20, bias=True, origin="conv")])
    check(build.graph, 1, {"conv": "pointwise"})


@pytest.mark.parametrize("body", ["", "relu", "add", "scale", "last"])
@pytest.mark.parametrize("permuted", [False, True])
def test_linear_over_the_last_axis_of_a_map(body: str, permuted: bool) -> None:
    """Rank 4, where every other kernel has the channels last: before and after a convolution."""
    build = Builder()
    x = build.apply(Relu(), build.conv(build.input(3, 4, 9), 5, bias=True))
    if permuted:
        x = build.apply(Permute((0, 2, 3, 1)), x)
    *_, leading, _, features = x.type.concrete(1)
    y = build.linear(x, features, origin="fc")
    if body == "relu":
        y = build.apply(Relu(), y)
    elif body == "add":
        y = build.apply(Add(), y, x)
    elif body:
        shape = (leading, 1, 1) if body == "scale" else (features,)
        y = build.apply(Mul(), y, build.weight("scale", *shape, positive=True))
    build.graph.set_outputs([build.conv(y, 6, origin="conv"), y])
    check(build.graph, 2)
