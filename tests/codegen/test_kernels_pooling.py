"""Pooling kernels and loaders against the interpreter over generated shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder, random_inputs

from lucid.codegen.lowering import lower
from lucid.codegen.schedule import Schedule
from lucid.ir import Graph
from lucid.ir.ops import AvgPool2d, MaxPool2d

CHANNELS = [1, 3, 10, 40, 66, 130]


def windows(draw: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """Kernel, stride and padding (half the kernel at most), and an image they fit."""
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(2))
    fields = {
        "kernel": kernel,
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(2)),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel * 2),
        "ceil_mode": draw(st.booleans()),
    }
    height, width = (draw(st.integers(k, 12)) for k in kernel)
    return fields, (height, width)


@examples(0.4)
@given(st.data())
def test_max_pool(data: st.DataObject) -> None:
    fields, (height, width) = windows(data.draw)
    dilation = tuple(data.draw(st.integers(1, 2)) for _ in range(2))
    reach = [(k - 1) * d + 1 for k, d in zip(fields["kernel"], dilation, strict=True)]
    build = Builder()
    channels = data.draw(st.sampled_from(CHANNELS))
    x = build.input(channels, max(height, reach[0]), max(width, reach[1]))
    build.graph.set_outputs([build.apply(MaxPool2d(**fields, dilation=dilation), x)])
    check(build.graph, data.draw(st.integers(1, 3)), limit=0)


def average_pools(draw: Any) -> tuple[AvgPool2d, Builder, Any]:
    fields, size = windows(draw)
    op = AvgPool2d(
        **fields,
        count_include_pad=draw(st.booleans()),
        divisor=draw(st.sampled_from([None, None, 1, 5])),
    )
    build = Builder(seed=draw(st.integers(0, 99)))
    return op, build, build.input(draw(st.sampled_from(CHANNELS)), *size)


@examples(0.4)
@given(st.data())
def test_average_pool(data: st.DataObject) -> None:
    op, build, x = average_pools(data.draw)
    build.graph.set_outputs([build.apply(op, x)])
    check(build.graph, data.draw(st.integers(1, 3)))


@examples(0.4)
@given(st.data())
def test_average_pool_before_a_convolution(data: st.DataObject) -> None:
    """The pool becomes the loader of a 1x1 convolution, or a phase of its own."""
    op, build, x = average_pools(data.draw)
    out = data.draw(st.sampled_from([1, 20, 130]))
    build.graph.set_outputs([build.conv(build.apply(op, x), out, bias=True)])
    check(build.graph, data.draw(st.integers(1, 3)))


@examples(0.3)
@given(st.data())
def test_a_pool_read_twice(data: st.DataObject) -> None:
    op, build, x = average_pools(data.draw)
    y = build.apply(op, x)
    outputs = [build.conv(y, 8), build.conv(y, 5, (1, 1), stride=(2, 2)), y]
    build.graph.set_outputs(outputs[: data.draw(st.integers(2, 3))])
    check(build.graph, 2)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_values_that_are_not_numbers(kind: str, target: Any) -> None:
    """NaN wins over every number, as NumPy has it; infinities stay."""
    x = random_inputs(pool_of(kind), 1)[0]
    x[0, :, 2, 3], x[0, :, 5, 1], x[0, :, 0, 5] = np.nan, np.inf, -np.inf
    graph = pool_of(kind)
    program = lower(graph, Schedule({}), target, 1)
    (value,) = Run(program, target).outputs({}, [x])
    np.testing.assert_allclose(value, graph.nodes[0].op.evaluate(x), rtol=1e-6)
    assert np.isnan(value).any()


def pool_of(kind: str) -> Graph:
    build = Builder()
    op = MaxPool2d((2, 2), (1, 1)) if kind == "max" else AvgPool2d((2, 2), (1, 1))
    build.graph.set_outputs([build.apply(op, build.input(21, 7, 6))])
    return build.graph
