"""Sampling at computed places and the ways back from windows, against the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import Schedule
from lucid.errors import ShapeError
from lucid.ir import BATCH, TensorType, Value, f32, interpret
from lucid.ir.ops import (
    Constant,
    DeformColumns,
    Expand,
    Fold,
    GridSample,
    MaxPool2d,
    MaxPoolIndices,
    MaxUnpool2d,
    Op,
    Relu,
    RoiAlign,
)
from lucid.ir.ops.sampling import MOST_PIXELS

CHANNELS = [1, 3, 10, 40, 66]
LIMIT = 2e-5
"""Of coordinates in float32 about ten pixels away: 1e-6 of a pixel, between numbers 4 apart."""


def image(build: Builder, draw: Any, channels: int) -> Value:
    """A planar map, or one that a kernel has written."""
    x = build.input(channels, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    return build.apply(Relu(), build.conv(x, channels)) if draw(st.booleans()) else x


@examples(0.5)
@given(st.data())
def test_grid_sample(data: st.DataObject) -> None:
    build, draw = Builder(), data.draw
    op = GridSample(
        draw(st.sampled_from(["bilinear", "bicubic"])),
        draw(st.sampled_from(["zeros", "border", "reflection"])),
        draw(st.booleans()),
    )
    x = image(build, draw, draw(st.sampled_from(CHANNELS)))
    out = (draw(st.integers(1, 4)), draw(st.sampled_from([1, 5, 8, 17])))
    grid = build.graph.add_input(f32(BATCH, *out, 2))
    y = build.apply(op, x, grid)
    build.graph.set_outputs([build.conv(y, 5) if draw(st.booleans()) else y])
    check(build.graph, draw(st.sampled_from([0, 1, 3])), limit=LIMIT)


@examples(0.3)
@given(st.data())
def test_grid_sample_of_volumes(data: st.DataObject) -> None:
    build, draw = Builder(), data.draw
    padding = draw(st.sampled_from(["zeros", "border", "reflection"]))
    shape = [draw(st.integers(1, 5)) for _ in range(3)]
    x = build.graph.add_input(f32(BATCH, draw(st.sampled_from([1, 2, 9])), *shape))
    grid = build.graph.add_input(f32(BATCH, 2, 3, draw(st.sampled_from([1, 9])), 3))
    build.graph.set_outputs([build.apply(GridSample("bilinear", padding), x, grid)])
    check(build.graph, draw(st.sampled_from([1, 2])), limit=LIMIT)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("channels", [1, 20])
def test_grids_of_no_numbers(mode: str, padding: str, channels: int) -> None:
    """NaN, infinities and huge coordinates read inside of x, and give what the reference does."""
    build = Builder()
    x, grid = build.input(channels, 3, 4), build.graph.add_input(f32(BATCH, 1, 9, 2))
    op = GridSample(mode, padding)
    build.graph.set_outputs([build.apply(op, x, grid)])
    pixels = np.random.default_rng(0).standard_normal((1, channels, 3, 4)).astype(np.float32)
    wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, 0.1, -7.5, 1.0], np.float32)
    places = np.stack([wild, wild[::-1]], -1).reshape(1, 1, 9, 2)
    for target in TARGETS:
        program = lower(build.graph, Schedule({}), target, 1)
        (value,) = Run(program, target).outputs({}, [pixels, places])
        assert np.isfinite(value).all()
        if padding != "reflection":  # whose turns are none of float32's from some size on
            np.testing.assert_allclose(value, op.evaluate(pixels, places), atol=1e-5)


@examples(0.5)
@given(st.data())
def test_deform_columns(data: st.DataObject) -> None:
    """And the product that makes a convolution of them."""
    build, draw = Builder(), data.draw
    groups, parts = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 4), (3, 2)]))
    channels = groups * parts * draw(st.sampled_from([1, 4, 9]))
    x = image(build, draw, channels)
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    op = DeformColumns(kernel, stride, (2, 2, 2, 2), (1, 2), groups)
    height, width = (d for d in x.type.shape[2:] if isinstance(d, int))
    rows = (height + 4 - kernel[0]) // stride[0] + 1
    columns = (width + 4 - 2 * (kernel[1] - 1) - 1) // stride[1] + 1
    if columns < 1:
        return
    taps = kernel[0] * kernel[1]
    offset = build.graph.add_input(f32(BATCH, 2 * taps * parts, rows, columns))
    if draw(st.booleans()):
        offset = build.conv(build.input(3, rows, columns), 2 * taps * parts)
    mask = [build.input(taps * parts, rows, columns)] if draw(st.booleans()) else []
    y = build.apply(op, x, offset, *mask)
    outputs = [y, build.conv(y, groups * 5, groups=groups)] if draw(st.booleans()) else [y]
    build.graph.set_outputs(outputs)
    check(build.graph, draw(st.sampled_from([0, 1, 2])), limit=LIMIT)


@examples(0.5)
@given(st.data())
def test_roi_align(data: st.DataObject) -> None:
    """Boxes about the maps, of no pixels, and of no image."""
    build, draw = Builder(), data.draw
    x = image(build, draw, draw(st.sampled_from(CHANNELS)))
    corner = st.floats(-3, 12, width=32)
    box = st.tuples(st.sampled_from([0.0, 1.0, 2.0, -1.0]), corner, corner, corner, corner)
    boxes = build.apply(Constant(tuple(draw(st.lists(box, min_size=1, max_size=4)))))
    op = RoiAlign(
        (draw(st.integers(1, 4)), draw(st.integers(1, 3))),
        0.4375,
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(st.sampled_from(["avg", "max"])),
    )
    build.graph.set_outputs([build.apply(op, x, boxes)])
    check(build.graph, draw(st.sampled_from([1, 2])), limit=LIMIT)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_boxes_of_no_numbers(mode: str) -> None:
    """They, and huge ones, read inside of x, and end."""
    build = Builder()
    x, boxes = build.input(9, 5, 6), build.graph.add_input(f32(6, 5))
    build.graph.set_outputs([build.apply(RoiAlign((2, 2), mode=mode), x, boxes)])
    pixels = np.ones((1, 9, 5, 6), np.float32)
    wild = np.zeros((6, 5), np.float32)
    wild[:, 3:] = 4
    wild[0, 1], wild[1, 4], wild[2, 2], wild[3, 3], wild[4, 0] = np.nan, np.inf, -np.inf, 1e30, 7
    wild[5, 0] = np.nan
    for target in TARGETS:
        program = lower(build.graph, Schedule({}), target, 1)
        (value,) = Run(program, target).outputs({}, [pixels, wild])
        assert np.isfinite(value).all()
        assert not value[4:].any()


@examples(0.4)
@given(st.data())
def test_fold(data: st.DataObject) -> None:
    build, draw = Builder(), data.draw
    pairs = [(draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(3)]
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    size = (draw(st.integers(7, 9)), draw(st.sampled_from([7, 12, 20])))
    op = Fold(size, pairs[0], pairs[1], (pads[0], pads[1], pads[2], pads[3]), pairs[2])
    rows, columns = op.windows()
    channels = draw(st.sampled_from([1, 3])) * pairs[0][0] * pairs[0][1]
    x = build.graph.add_input(f32(BATCH, channels, rows * columns))
    y = build.apply(op, x)
    build.graph.set_outputs([build.conv(y, 5) if draw(st.booleans()) else y])
    check(build.graph, draw(st.sampled_from([0, 1, 2])))


@examples(0.4)
@given(st.data())
def test_maxima_and_back(data: st.DataObject) -> None:
    build, draw = Builder(), data.draw
    x = build.input(draw(st.sampled_from(CHANNELS)), draw(st.integers(4, 9)), 7)
    pool = MaxPool2d((2, 2), (2, 2), dilation=(1, draw(st.integers(1, 2))))
    whole = draw(st.booleans())
    indices = build.apply(MaxPoolIndices(**vars(pool), whole=whole), x)
    height, width = (d for d in x.type.shape[2:] if isinstance(d, int))
    y = build.apply(MaxUnpool2d((height, width), whole), build.apply(pool, x), indices)
    build.graph.set_outputs([indices, build.conv(y, 4) if draw(st.booleans()) else y])
    check(build.graph, draw(st.sampled_from([0, 1, 3])))


@pytest.mark.parametrize("whole", [False, True])
def test_windows_between_the_elements(whole: bool) -> None:
    """A dilated window may have all its taps in the padding: the last element of x counts."""
    build = Builder()
    op = MaxPoolIndices((3, 1), (1, 1), (3, 0, 1, 0), (2, 2), ceil_mode=True, whole=whole)
    x = build.input(2, 1, 3)
    build.graph.set_outputs([build.apply(op, x)])
    check(build.graph, 2)
    (found,) = interpret(build.graph, [np.zeros((1, 2, 1, 3), np.float32)])
    np.testing.assert_array_equal(found[0, 0], [[0, 1, 2]])


def test_maxima_far_from_where_their_windows_begin() -> None:
    """Further than floats count: of NaNs the last one is the largest."""
    far = (1 << 24) + 1
    build = Builder()
    x = build.graph.add_input(f32(1, 1, 1, 1))
    x = build.apply(Expand((1, 1, 1, far + 1)), x)
    y = build.apply(MaxPoolIndices((1, 2), (1, 1), (0, 0, 0, 0), (1, far)), x)
    build.graph.set_outputs([y])
    target = TARGETS[-1]
    program = lower(build.graph, Schedule({}), target, 1, 1)
    (found,) = Run(program, target, 1).outputs({}, [np.full((1, 1, 1, 1), np.nan, np.float32)])
    assert found.item() == far


@pytest.mark.parametrize(
    ("op", "operand"),
    [
        (GridSample(), (1, 2, 2, 2)),
        (RoiAlign((1, 1)), (2, 5)),
        (DeformColumns((1, 1)), (1, 2, 1, MOST_PIXELS + 1)),
    ],
)
def test_maps_longer_than_coordinates_count_are_refused(op: Op, operand: tuple[int, ...]) -> None:
    """Rounded, the last place of such an axis would lie behind it."""
    with pytest.raises(ShapeError, match="coordinates are float32"):
        op.result_types(f32(1, 1, 1, MOST_PIXELS + 1), f32(*operand))


def test_indices_outside_are_dropped() -> None:
    """They come from the user, and write nothing beside the result."""
    build = Builder()
    x = build.input(1, 2, 2)
    indices = build.graph.add_input(TensorType("i64", (BATCH, 1, 2, 2)))
    op = MaxUnpool2d((2, 3))
    build.graph.set_outputs([build.apply(op, x, indices)])
    numbers = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2)
    places = np.array([-1, 5, 2**40, 6], np.int64).reshape(1, 1, 2, 2)
    for target in TARGETS:
        program = lower(build.graph, Schedule({}), target, 1)
        (value,) = Run(program, target, skew=16).outputs({}, [numbers, places])
        np.testing.assert_array_equal(value, op.evaluate(numbers, places))
        assert value.ravel().tolist() == [0, 0, 0, 0, 0, 2]
