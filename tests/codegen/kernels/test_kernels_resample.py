"""Resizing, padding and gathering against the interpreter, over generated shapes."""

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
from lucid.errors import InputError
from lucid.ir import BATCH, Graph, Value, f32
from lucid.ir.ops import (
    Add,
    ArgMax,
    Concat,
    Constant,
    Fusion,
    Gather,
    Pad,
    Permute,
    Relu,
    Resize,
    Slice,
)
from lucid.ir.ops.resize import COORDINATES, MODES, ROUNDING
from lucid.runtime.weights import WeightStore

CHANNELS = [1, 3, 10, 21, 40, 66, 130]


def channels_last(build: Builder, x: Value) -> Value:
    """The same map as a kernel writes it; the user's arrays are planar."""
    return build.apply(Relu(), build.conv(x, 9)) if x.type.shape[1] == 3 else build.apply(Relu(), x)


def resize(draw: Any) -> Resize:
    mode = draw(st.sampled_from(MODES))
    return Resize(
        (draw(st.integers(1, 20)), draw(st.sampled_from([1, 2, 7, 16, 17, 35]))),
        mode,
        draw(st.sampled_from(COORDINATES)),
        draw(st.sampled_from(ROUNDING)),
        draw(st.sampled_from([None, None, (2.0, 1.3), (0.4, 3.0)])),
        draw(st.sampled_from([-0.75, -0.5])),
        mode != "nearest" and draw(st.booleans()),
        mode != "nearest" and draw(st.booleans()),
        draw(st.sampled_from([None, (0.1, -0.2, 0.9, 1.3)])),
    )


@examples(0.5)
@given(st.data())
def test_resize(data: st.DataObject) -> None:
    """Into the user's planar array, and into a map that others read."""
    build, op = Builder(), resize(data.draw)
    channels = data.draw(st.sampled_from(CHANNELS))
    x = build.input(channels, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
    x = channels_last(build, x) if data.draw(st.booleans()) else x
    y = build.apply(op, x)
    if data.draw(st.booleans()):
        y = build.conv(y, 5)
    build.graph.set_outputs([y])
    check(build.graph, data.draw(st.sampled_from([0, 1, 3])))


@examples(0.3)
@given(st.data())
def test_resize_with_a_body_into_a_slice(data: st.DataObject) -> None:
    """relu(resize(x) + other), which is concatenated, as in HRNet and DeepLab."""
    build, op = Builder(), resize(data.draw)
    channels = data.draw(st.sampled_from([3, 21, 70]))
    x = build.input(channels, 5, 6)
    other = build.graph.add_input(f32(BATCH, channels, *op.size))
    body = Graph("body")
    y, extra = (body.add_input(other.type) for _ in range(2))
    total = body.append(Add(), [y, extra]).output
    body.set_outputs([body.append(Relu(), [total]).output])
    y = build.apply(Fusion(op, body), x, other)
    joined = build.apply(Concat(1), build.apply(Relu(), other), y, y)
    build.graph.set_outputs([joined, build.conv(joined, 4)])
    check(build.graph, data.draw(st.integers(1, 2)))


def pads(draw: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Before, after and mode, for an array of this shape beside the batch."""
    mode = draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    most = [d - 1 if mode == "reflect" else 3 for d in shape]
    before, after = ((0, *(draw(st.integers(0, min(3, m))) for m in most)) for _ in range(2))
    return before, after, mode


@examples(0.5)
@given(st.data())
def test_pad_maps(data: st.DataObject) -> None:
    """A border of height and width, of planar images and of maps; sometimes channels too."""
    build, draw = Builder(), data.draw
    channels = draw(st.sampled_from(CHANNELS))
    shape = (channels, draw(st.integers(1, 7)), draw(st.integers(1, 18)))
    before, after, mode = pads(draw, shape)
    if draw(st.booleans()):
        before, after = (0, 0, *before[2:]), (0, 0, *after[2:])
    x = build.input(*shape)
    x = channels_last(build, x) if draw(st.booleans()) else x
    if channels > 4 and draw(st.booleans()):
        x = build.apply(Slice(1, 1, x.type.shape[1] - 1), x)
        fits = min(before[1], 1), min(after[1], 1)
        before, after = (0, fits[0], *before[2:]), (0, fits[1], *after[2:])
    value = draw(st.sampled_from([0.0, -1.5]))
    y = build.apply(Pad(before, after, value, mode), x)
    build.graph.set_outputs([build.conv(y, 5, (1, 1)) if draw(st.booleans()) else y])
    check(build.graph, draw(st.sampled_from([0, 1, 3])))


@examples(0.3)
@given(st.data())
def test_pad_any_axes(data: st.DataObject) -> None:
    build, draw = Builder(), data.draw
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.sampled_from([1, 2, 5, 19])) for _ in range(rank))
    before, after, mode = pads(draw, shape)
    x = build.graph.add_input(f32(BATCH, *shape))
    build.graph.set_outputs([build.apply(Pad(before, after, 2.5, mode), x)])
    check(build.graph, draw(st.sampled_from([0, 1, 2])))


def test_pad_with_minus_infinity() -> None:
    """As before a max pool; borders that are no numbers are written as they are."""
    build = Builder()
    op = Pad((0, 0, 1, 2), (0, 0, 1, 0), float("-inf"))
    build.graph.set_outputs([build.apply(op, build.input(20, 3, 3))])
    (x,) = random_inputs(build.graph, 2)
    for target in TARGETS:
        program = lower(build.graph, Schedule({}), target, 2)
        (value,) = Run(program, target).outputs({}, [x])
        np.testing.assert_array_equal(value, op.evaluate(x))


@examples(0.5)
@given(st.data())
def test_gather(data: st.DataObject) -> None:
    """By constants of any rank, on any axis, from arrays that lie anyhow."""
    build, draw = Builder(), data.draw
    shape = (
        BATCH,
        *(draw(st.sampled_from([1, 2, 5, 19, 40])) for _ in range(draw(st.integers(1, 4)))),
    )
    x = build.graph.add_input(f32(*shape))
    order = (0, *draw(st.permutations(range(1, len(shape)))))
    x = build.apply(Permute(order), x) if draw(st.booleans()) else x
    axis = draw(st.integers(1, len(shape) - 1))
    size = x.type.shape[axis]
    count = draw(st.sampled_from([(), (1,), (3,), (2, 2), (17,)]))
    numbers = draw(st.lists(st.integers(-size, size - 1), min_size=17, max_size=17))
    chosen = np.array(numbers)[: int(np.prod(count))].reshape(count)
    indices = build.apply(Constant(nested(chosen), "i64"))
    build.graph.set_outputs([build.apply(Gather(axis), x, indices)])
    check(build.graph, draw(st.sampled_from([0, 1, 2])))


def nested(array: np.ndarray) -> Any:
    """An array as nested tuples."""
    return tuple(map(nested, array)) if array.ndim else int(array)


def test_evenly_spaced_indices_are_a_view() -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 9, 4))
    taken = build.apply(Gather(1), x, build.apply(Constant((1, 4, 7), "i64")))
    build.graph.set_outputs([build.apply(Relu(), taken)])
    program = lower(build.graph, Schedule({}), TARGETS[0], 2)
    assert [call.kernel.family for call in program.calls()] == ["elementwise"]
    check(build.graph, 2)


def test_indices_outside_the_axis() -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 9))
    indices = build.apply(Constant((3, 9, 1), "i64"))
    build.graph.set_outputs([build.apply(Gather(1), x, indices)])
    program = lower(build.graph, Schedule({}), TARGETS[0], 2)
    with pytest.raises(InputError, match=r"index 9 is outside -9\.\.8"):
        WeightStore({}).ensure(program.weights.values())


def test_indices_that_the_model_computes() -> None:
    build = Builder()
    x, scores = (build.graph.add_input(f32(*shape)) for shape in ((BATCH, 9), (5, 9)))
    build.graph.set_outputs([build.apply(Gather(1), x, build.apply(ArgMax(1), scores))])
    check(build.graph, 2)
