"""Convolutions and pools over lines and volumes against the interpreter over generated shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.conv_shape import ConvShape
from lucid.codegen.scheduling.schedule import legal_kernels, schedule
from lucid.codegen.target import LEVELS
from lucid.ir import Value, f32, ops
from lucid.ir.passes import run_passes
from lucid.ir.transposed import transposed_convolution
from lucid.ir.volumes import Windows, adaptive_pool, avg_pool, max_pool

TARGET = LEVELS["x86-64-v3"]
KINDS = {1: ops.Conv1d, 3: ops.Conv3d}


def sizes(draw: Any, axes: int) -> list[int]:
    return [draw(st.integers(1, 40 if axes == 1 else 8)) for _ in range(axes)]


def windows(draw: Any, size: list[int], widest: int = 3) -> Windows:
    """Windows of which at least one fits, none of them in the padding alone."""
    kernel = tuple(draw(st.integers(1, widest)) for _ in size)
    dilation = tuple(draw(st.sampled_from([1, 1, 2])) for _ in size)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    before = [draw(st.integers(0, (k - 1) // 2)) for k in kernel]
    after = [max(p, r - d - p) for p, r, d in zip(before, reach, size, strict=True)]
    stride = tuple(draw(st.integers(1, 3)) for _ in size)
    return Windows(kernel, stride, (*before, *after), dilation)


@pytest.mark.parametrize("axes", KINDS)
@examples(0.5)
@given(data=st.data())
def test_convolution(axes: int, data: st.DataObject) -> None:
    draw = data.draw
    groups, inner = draw(st.sampled_from([(1, 1), (1, 3), (1, 16), (2, 5), (4, 8), (9, 1), (3, 2)]))
    out = groups * draw(st.sampled_from([1, 2, inner, 17]))
    size = sizes(draw, axes)
    w = windows(draw, size, draw(st.sampled_from([1, 3])))
    build = Builder()
    x = build.input(groups * inner, *size)
    weight = build.weight("weight", out, inner, *w.kernel)
    bias = [build.weight("bias", out)] if draw(st.booleans()) else []
    op = KINDS[axes](w.stride, w.padding, w.dilation, groups)
    y = build.apply(op, x, weight, *bias, origin="conv")
    assert y.producer is not None
    kernel = draw(st.sampled_from(legal_kernels(ConvShape.of(y.producer, 1))))
    if draw(st.booleans()):
        other = build.input(*(d for d in y.type.shape[1:] if isinstance(d, int)))
        y = build.apply(ops.Add(), y, other)
    build.graph.set_outputs([build.apply(ops.Relu(), y)])
    check(build.graph, draw(st.integers(1, 3)), {"conv": kernel})


@pytest.mark.parametrize("kernel", ["direct", "winograd2x2", "winograd4x4"])
def test_what_volumes_are_multiplied_by(kernel: str) -> None:
    """Slices at both ends, several blocks of tiles, channels that fill no vector."""
    build = Builder()
    x = build.input(11, 5, 13, 21)
    weight = build.weight("weight", 20, 11, 3, 3, 3)
    op = ops.Conv3d((2, 1, 1), (2, 1, 1, 1, 1, 1), (2, 1, 1))
    build.graph.set_outputs([build.apply(op, x, weight, origin="conv")])
    check(build.graph, 2, {"conv": kernel})


@examples(0.3)
@given(data=st.data())
def test_lines_in_strips(data: st.DataObject) -> None:
    """Lines of several strips, with and without padding, where windows overlap and where not."""
    draw = data.draw
    groups, inner = draw(st.sampled_from([(1, 1), (1, 3), (1, 16), (2, 5), (3, 17)]))
    kernel, dilation = draw(st.integers(1, 10)), draw(st.sampled_from([1, 1, 2, 3]))
    stride = draw(st.integers(1, 5))
    padding = draw(st.sampled_from([(0, 0), (0, 0), (1, 1), (4, 0), (0, 7), (30, 30)]))
    build = Builder()
    x = build.input(groups * inner, draw(st.integers(40, 500)))
    weight = build.weight("weight", 17 * groups, inner, kernel)
    y = build.apply(ops.Conv1d((stride,), padding, (dilation,), groups), x, weight, origin="conv")
    build.graph.set_outputs([build.apply(ops.Relu(), y)])
    check(build.graph, draw(st.integers(1, 2)), {"conv": "direct"})


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(
    ("width", "channels", "out", "kernel", "stride"),
    [(3199, 512, 512, 3, 2), (799, 512, 512, 3, 2), (399, 512, 512, 3, 2), (16000, 1, 64, 10, 5)],
)
def test_every_thread_has_its_part_of_a_line(
    width: int, channels: int, out: int, kernel: int, stride: int, padding: int
) -> None:
    """As many tasks for one of two threads as for the other; few columns of a line are cut into
    chunks of panels. What has no padding is not copied."""
    build = Builder()
    x = build.input(channels, width)
    weight = build.weight("weight", out, channels, kernel)
    y = build.apply(ops.Conv1d((stride,), (padding,) * 2), x, weight, origin="conv")
    build.graph.set_outputs([y])
    program = lower(build.graph, schedule(build.graph, TARGET, 1), TARGET, 1, threads=2)
    (call,) = (call for call in program.calls() if call.kernel.family == "direct")
    assert call.tasks >= 2
    assert call.tasks % 2 == 0
    map_bytes = 4 * channels * width
    assert call.scratch < max(4096, map_bytes // 4) if padding == 0 else call.scratch


def families(y: Value, build: Builder) -> list[str]:
    build.graph.set_outputs([y])
    fused = run_passes(build.graph)
    program = lower(fused, schedule(fused, TARGET, 1), TARGET, 1)
    return [call.kernel.family for call in program.calls()]


def test_lines_and_volumes_are_fused_like_images() -> None:
    """A batch norm and an activation are part of the convolution, a pool and a convolution read
    and write views: what copies is the user's planar arrays alone."""
    for axes in KINDS:
        build = Builder()
        x = build.input(8, *(6,) * axes)
        weight = build.weight("weight", 8, 8, *(3,) * axes)
        norm = [build.weight(n, 8, positive=True) for n in ("scale", "shift", "mean", "var")]
        op = KINDS[axes](padding=(1,) * 2 * axes)
        y = build.apply(ops.BatchNorm(), build.apply(op, x, weight), *norm)
        y = build.apply(ops.Relu(), y)
        pooled = max_pool(build.apply, y, Windows((2,) * axes, (2,) * axes, (0,) * 6, (1,) * axes))
        y = build.apply(ops.Relu(), build.apply(op, pooled, weight))
        found = families(y, build)
        copies = [f for f in found if f in ("elementwise", "interleave", "transpose")]
        assert len(found) - len(copies) == (3 if axes == 1 else 4), found
        assert len(copies) == 2, found


def test_a_concatenation_of_volumes_is_written_in_place() -> None:
    build = Builder()
    x = build.input(8, 4, 5, 6)
    weights = [build.weight(f"weight{i}", 8, 8, 1, 3, 3) for i in range(2)]
    op = ops.Conv3d(padding=(0, 1, 1, 0, 1, 1))
    parts = [build.apply(ops.Relu(), build.apply(op, x, w)) for w in weights]
    joined = build.apply(ops.Concat(1), *parts)
    last = build.weight("last", 8, 16, 3, 3, 3)
    found = families(build.apply(ops.Conv3d(), joined, last), build)
    assert len([f for f in found if f in ("elementwise", "interleave", "transpose")]) == 2, found


@examples(0.4)
@given(data=st.data())
def test_pools(data: st.DataObject) -> None:
    draw = data.draw
    axes = draw(st.sampled_from([1, 3]))
    size = sizes(draw, axes)
    w, ceil_mode = windows(draw, size), draw(st.booleans())
    build = Builder()
    x = build.input(draw(st.sampled_from([1, 3, 8, 21])), *size)
    outputs = [
        max_pool(build.apply, x, w, ceil_mode),
        avg_pool(
            build.apply, x, w, ceil_mode, draw(st.booleans()), draw(st.sampled_from([None, 3]))
        ),
        adaptive_pool(build.apply, x, [draw(st.integers(1, 5)) for _ in size], draw(st.booleans())),
    ]
    build.graph.set_outputs(outputs)
    check(build.graph, draw(st.integers(1, 3)))


@examples(0.4)
@given(data=st.data())
def test_where_maxima_lie(data: st.DataObject) -> None:
    draw = data.draw
    size = sizes(draw, draw(st.integers(1, 3)))
    w = windows(draw, size)
    build = Builder()
    x = build.input(draw(st.sampled_from([1, 3, 8, 21])), *size)
    whole, columns, ceil_mode = (draw(st.booleans()) for _ in range(3))
    op = ops.MaxPoolIndices(w.kernel, w.stride, w.padding, w.dilation, ceil_mode, whole, columns)
    build.graph.set_outputs([build.apply(op, x)])
    check(build.graph, draw(st.integers(1, 3)), limit=0)


def test_maxima_are_found_where_the_pool_finds_them() -> None:
    """The last NaN of a window, or the first of equal numbers."""
    x = np.array([[[[1, 3, 3, np.nan, 2, np.nan], [3, 0, 1, 1, np.nan, 5]]]])
    op = ops.MaxPoolIndices((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
    assert op.evaluate(x).tolist() == [[[[1, 3, 10]]]]
    by_column = ops.MaxPoolIndices((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), column_major=True)
    assert by_column.evaluate(x).tolist() == [[[[2, 6, 9]]]]
    whole = ops.MaxPoolIndices((1, 2), (1, 2), (0, 0, 0, 0), (1, 1), whole=True)
    two = np.zeros((2, 3, 1, 2))
    assert whole.evaluate(two).reshape(-1).tolist() == [0, 2, 4, 6, 8, 10]
    (kind,) = whole.result_types(f32(2, 3, 1, 2))
    assert not whole.keeps_images_apart([f32(2, 3, 1, 2)], kind)


@examples(0.3)
@given(data=st.data())
def test_transposed_convolution(data: st.DataObject) -> None:
    draw = data.draw
    axes = draw(st.sampled_from([1, 3]))
    groups = draw(st.sampled_from([1, 1, 2]))
    size = [draw(st.integers(1, 4)) for _ in range(axes)]
    taps = [draw(st.integers(1, 3)) for _ in size]
    stride = taps if draw(st.booleans()) else [draw(st.integers(1, 3)) for _ in size]
    build = Builder()
    x = build.input(4 * groups, *size)
    weight = build.weight("weight", 4 * groups, 3, *taps)
    bias = build.weight("bias", 3 * groups)
    cut = [(0, 0)] * axes
    y = transposed_convolution(build.apply, x, weight, bias, stride, cut, [1] * axes, groups)
    build.graph.set_outputs([y])
    check(build.graph, draw(st.integers(1, 2)))
