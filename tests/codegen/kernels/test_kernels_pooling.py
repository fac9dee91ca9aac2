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
from lucid.codegen.scheduling.schedule import Schedule
from lucid.ir import BATCH, Graph, Op, Value, f32
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Constant,
    Fusion,
    Maximum,
    MaxPool2d,
    Mul,
    Relu,
    Slice,
    Sub,
)

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


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (1, 3), (5, 2)])
def test_max_pool_whose_windows_miss_the_map(kernel: tuple[int, int]) -> None:
    """Windows wholly in the padding give -inf."""
    build = Builder()
    x = build.input(20, 3, 4)
    op = MaxPool2d(kernel, (1, 1), (kernel[0], 0, kernel[0] + 1, 2))
    y = build.apply(op, x)
    build.graph.set_outputs([build.apply(Maximum(), y, build.apply(Constant(-9.0)))])
    check(build.graph, 2, limit=0)


@examples(0.4)
@given(st.data())
def test_adaptive_pools(data: st.DataObject) -> None:
    """Fewer windows than pixels, more, and as many."""
    op = data.draw(st.sampled_from([AdaptiveAvgPool2d, AdaptiveMaxPool2d]))
    size = tuple(data.draw(st.sampled_from([1, 2, 3, 6, 7, 13])) for _ in range(2))
    height, width = (data.draw(st.sampled_from([1, 5, 7, 12, 13])) for _ in range(2))
    build = Builder()
    x = build.input(data.draw(st.sampled_from([*CHANNELS, 300])), height, width)
    build.graph.set_outputs([build.apply(op(size), x)])
    check(build.graph, data.draw(st.sampled_from([0, 1, 3])))


@examples(0.4)
@given(st.data())
def test_pools_with_a_body(data: st.DataObject) -> None:
    """pool(x) - x as in PoolFormer, a factor for each channel, and an activation."""
    build = Builder(seed=data.draw(st.integers(0, 99)))
    channels = data.draw(st.sampled_from(CHANNELS))
    x = build.input(channels, 5, 6)
    op = data.draw(
        st.sampled_from(
            [
                AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1), count_include_pad=False),
                AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1)),
                MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)),
                AdaptiveAvgPool2d((5, 6)),
            ]
        )
    )
    scale = build.weight("scale", *data.draw(st.sampled_from([(channels, 1, 1), (1, 5, 1), (1,)])))
    gate = build.graph.add_input(f32(BATCH, channels, 1, 1))
    table = build.weight("table", channels, 5, 6)
    other = data.draw(st.sampled_from([x, build.apply(Relu(), x), gate, table]))
    fusion = body_of(op, x, other, scale)
    build.graph.set_outputs([build.apply(fusion, x, other, scale, origin="pool")])
    check(build.graph, data.draw(st.integers(1, 3)))


def body_of(anchor: Op, x: Value, *extras: Value) -> Fusion:
    """relu(scale * (pool - other))."""
    body = Graph("body")
    (kind,) = anchor.result_types(x.type)
    y, other, scale = (body.add_input(t) for t in (kind, *(e.type for e in extras)))
    difference = body.append(Sub(), [y, other]).output
    scaled = body.append(Mul(), [difference, scale]).output
    body.set_outputs([body.append(Relu(), [scaled]).output])
    return Fusion(anchor, body)


def test_a_pool_of_channels_in_the_middle() -> None:
    """A slice of a map's channels is read where it lies."""
    build = Builder()
    x = build.apply(Relu(), build.input(40, 6, 7))
    part = build.apply(Slice(1, 7, 29), x)
    pools = [
        MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)),
        AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1)),
        AdaptiveMaxPool2d((2, 5)),
    ]
    build.graph.set_outputs([build.apply(op, part) for op in pools])
    check(build.graph, 3)


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
@pytest.mark.parametrize("kind", ["max", "max3", "max_dilated", "avg"])
def test_values_that_are_not_numbers(kind: str, target: Any) -> None:
    """NaN wins over every number, as NumPy has it; infinities stay."""
    x = random_inputs(pool_of(kind), 1)[0]
    x[0, :, 2, 3], x[0, :, 5, 1], x[0, :, 0, 5] = np.nan, np.inf, -np.inf
    graph = pool_of(kind)
    program = lower(graph, Schedule({}), target, 1)
    (value,) = Run(program, target).outputs({}, [x])
    np.testing.assert_allclose(value, graph.nodes[0].op.evaluate(x), atol=1e-6)
    assert np.isnan(value).any()


def pool_of(kind: str) -> Graph:
    build = Builder()
    op = {
        "max": MaxPool2d((2, 2), (1, 1)),
        "max3": MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)),
        "max_dilated": MaxPool2d((2, 2), (1, 1), dilation=(2, 2)),
        "avg": AvgPool2d((2, 2), (1, 1)),
    }[kind]
    build.graph.set_outputs([build.apply(op, build.input(71, 7, 6))])
    return build.graph
