"""Taps that only meet the padding."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Builder

from lucid.ir import interpret
from lucid.ir.ops import Conv2d
from lucid.ir.passes import RewriteLog, run_passes


@pytest.mark.parametrize(
    ("dilation", "padding", "size", "left"),
    [
        ((9, 9), (9, 9, 9, 9), (7, 8), (1, 1)),  # the middle tap alone
        ((4, 9), (4, 9, 4, 9), (7, 8), (3, 1)),  # along one axis
        ((3, 3), (3, 3, 3, 3), (7, 8), (3, 3)),  # none
        ((8, 1), (9, 1, 8, 1), (7, 8), (1, 3)),  # the lines about the middle one
    ],
)
def test_taps_beyond_the_map(
    dilation: tuple[int, int],
    padding: tuple[int, int, int, int],
    size: tuple[int, int],
    left: tuple[int, int],
) -> None:
    build = Builder()
    x = build.input(3, *size)
    y = build.conv(x, 4, (3, 3), padding=padding, dilation=dilation, bias=True)
    build.graph.set_outputs([y])
    trimmed = run_passes(build.graph, ["trim-taps"])
    (node,) = trimmed.nodes
    assert isinstance(node.op, Conv2d)
    assert node.inputs[1].type.shape[2:] == left
    images = np.random.default_rng(0).standard_normal((2, 3, *size))
    for a, b in zip(
        interpret(build.graph, [images], dtype=np.float64),
        interpret(trimmed, [images], dtype=np.float64),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_plain_windows_stay_whole() -> None:
    """Whatever the size of the image, the packed weights are the same."""
    build = Builder()
    x = build.input(3, 1, 1)
    build.graph.set_outputs([build.conv(x, 4, (3, 3), padding=(1,) * 4)])
    log = RewriteLog(["trim-taps"])
    run_passes(build.graph, ["trim-taps"], log=log.firings)
    assert not log.firings
