"""1x1 and depthwise convolutions in one kernel, against the interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from harness import check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.kernels.depthwise import Depthwise
from lucid.codegen.kernels.expand import ExpandDepthwise
from lucid.codegen.lowering import depthwise, lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.ir import Graph
from lucid.ir.ops import Add, Clip, Relu, Sigmoid, Silu, SplitAttention
from lucid.ir.passes import run_passes


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps too are expanded band by band, at all levels."""
    monkeypatch.setattr(depthwise, "EXPANDED_SHARE", 0.0)
    monkeypatch.setattr(depthwise, "REPEATED_CYCLES", 100.0)
    cut(monkeypatch, whole=False)


def cut(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """By some panels of all lines, or by bands."""
    monkeypatch.setattr(depthwise, "_fits_whole", lambda ctx, before: whole)


def families(graph: Graph) -> list[str]:
    target = Target.host()
    fused = run_passes(graph)
    program = lower(fused, schedule(fused, target, 1), target, 1, 2)
    return [call.kernel.family for call in program.calls()]


@examples(0.2)
@given(st.data())
def test_any_window(data: st.DataObject) -> None:
    """Sizes, strides, borders and tails of every kind, with a body after each layer."""
    draw: Any = data.draw
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, whole=draw(st.booleans()))
        patch.setattr(depthwise, "SLID_SHARE", draw(st.sampled_from([0.0, 0.1, 0.8])))
        _any_window(draw)


def _any_window(draw: Any) -> None:
    build = Builder(seed=draw(st.integers(0, 99)))
    taps = (draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 3, 5])))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    height, width = draw(st.integers(5, 21)), draw(st.integers(5, 19))
    channels = draw(st.sampled_from([5, 16, 40, 66, 130]))
    x = build.input(draw(st.sampled_from([3, 7, 24])), height, width)
    x = build.conv(x, draw(st.sampled_from([4, 17])), (1, 1), origin="before")
    x = build.apply(Clip(0, 6), build.conv(x, channels, (1, 1), bias=draw(st.booleans())))
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    y = build.conv(x, channels, taps, groups=channels, padding=padding, stride=stride)
    build.graph.set_outputs([build.apply(Silu(), y)])
    assert "expand_depthwise" in families(build.graph)
    check(build.graph, draw(st.sampled_from([1, 2, 3])))


@pytest.mark.parametrize("whole", [True, False])
def test_with_squeeze_and_excitation(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel sums what the gate is made of."""
    cut(monkeypatch, whole)
    build = Builder()
    x = build.conv(build.input(6, 18, 17), 8, (1, 1))
    x = build.apply(Relu(), build.conv(x, 40, (1, 1)))
    y = build.conv(x, 40, (3, 3), groups=40, padding=(1,) * 4)
    layers = [
        build.weight("fc1.weight", 4, 40, 1, 1),
        build.weight("fc1.bias", 4),
        build.weight("fc2.weight", 40, 4, 1, 1),
        build.weight("fc2.bias", 40),
    ]
    y = build.apply(SplitAttention(radix=1, gate="sigmoid"), build.apply(Silu(), y), *layers)
    build.graph.set_outputs([build.conv(y, 9, (1, 1))])
    kinds = families(build.graph)
    assert "expand_depthwise" in kinds
    assert "reduce" not in kinds
    check(build.graph, 2)


def test_what_is_read_twice_is_stored() -> None:
    build = Builder()
    x = build.conv(build.conv(build.input(6, 9, 8), 12, (1, 1)), 24, (1, 1))
    y = build.conv(x, 24, (3, 3), groups=24, padding=(1,) * 4)
    build.graph.set_outputs([build.apply(Add(), build.apply(Sigmoid(), y), x)])
    assert "expand_depthwise" not in families(build.graph)
    check(build.graph, 2)


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(
    ("size", "depth", "fits"), [(14, 64, True), (14, 640, False), (60, 8, False)]
)
def test_a_task_has_panels_of_small_maps(
    level: str, size: int, depth: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AVX2, where source and panel stay in L2; two threads have as many panels each."""
    monkeypatch.undo()
    target = replace(Target.named(level), l2=1 << 19)
    build = Builder()
    x = build.conv(build.conv(build.input(3, size, size), depth, (1, 1)), 384, (1, 1))
    y = build.conv(x, 384, (3, 3), groups=384, padding=(1,) * 4)
    build.graph.set_outputs([y])
    fused = run_passes(build.graph)
    program = lower(fused, schedule(fused, target, 1), target, 1, 2)
    expanded = [c for c in program.calls() if isinstance(c.kernel, ExpandDepthwise)]
    chunks = [c.arguments["chunks"] for c in expanded]
    assert (chunks == [12]) == (fits and level == "x86-64-v3")


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(("lines", "stays"), [(16, True), (80, False)])
@pytest.mark.parametrize("groups", [32, 8])
def test_maps_that_leave_l2_are_asked_for_ahead(
    level: str, lines: int, stays: bool, groups: int
) -> None:
    target = replace(Target.named(level), l2=1 << 18)
    build = Builder()
    x = build.conv(build.input(32, lines, 64), 32, (3, 3), groups=groups, padding=(1,) * 4)
    build.graph.set_outputs([x])
    fused = run_passes(build.graph)
    program = lower(fused, schedule(fused, target, 1), target, 1, 1)
    (kernel,) = [c.kernel for c in program.calls() if isinstance(c.kernel, Depthwise)]
    assert kernel.ahead == (target.asks_to_write and not stays)


def test_groups_that_ask_ahead_for_two_lines() -> None:
    build = Builder()
    x = build.input(32, 80, 70)
    options = {"padding": (1,) * 4, "stride": (2, 2), "groups": 8}
    build.graph.set_outputs([build.conv(x, 32, (3, 3), origin="conv", **options)])
    check(build.graph, 1, {"conv": "depthwise"})
