"""Reductions, the place of the maximum and softmax against the interpreter, over every layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder, random_inputs
from test_kernels_elementwise import run, shapes

from lucid.codegen.lowering import lower
from lucid.codegen.lowering.reduction import cut
from lucid.codegen.program.program import View
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.errors import ShapeError
from lucid.ir import BATCH, Graph, Value, f32, interpret, ops
from lucid.ir.ops import ArgMax, Max, Mean, Min, Softmax, Sum, SumSquares

KINDS = [Sum, SumSquares, Mean, Max, Min]


def lying(draw: Any, build: Builder, shape: tuple[int, ...]) -> Value:
    """An input of shape (N, *shape) whose dimensions lie in some order."""
    order = draw(st.permutations(range(1, len(shape) + 1)))
    x = build.graph.add_input(f32(BATCH, *(shape[i - 1] for i in order)))
    back = (order.index(i) + 1 for i in range(1, len(order) + 1))
    return build.apply(ops.Permute((0, *back)), x)


@pytest.mark.parametrize("op", KINDS, ids=lambda op: op.__name__)
@examples(0.4)
@given(data=st.data())
def test_reductions(op: type, data: st.DataObject) -> None:
    build = Builder()
    shape = shapes(data.draw, high=5)
    axes = data.draw(st.sets(st.integers(1, len(shape)), min_size=1, max_size=3))
    x = lying(data.draw, build, shape)
    y = build.apply(op(tuple(sorted(axes)), keepdims=data.draw(st.booleans())), x)
    build.graph.set_outputs([y])
    check(build.graph, data.draw(st.integers(1, 3)), limit=1e-5)  # sums of a few values cancel


@pytest.mark.parametrize("op", KINDS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (1, 2, 3)])
def test_reductions_of_maps(op: type, axes: tuple[int, ...]) -> None:
    """Over maps that lie channels last, in place of the user's row-major arrays."""
    build = Builder()
    y = build.conv(build.input(3, 5, 4), 18, bias=True)
    build.graph.set_outputs([build.apply(op(axes, keepdims=True), y)])
    check(build.graph, 2)


@pytest.mark.parametrize("repeated", [1, 2, 3])
def test_reductions_of_what_is_repeated(repeated: int) -> None:
    """Expanded along one axis and reduced over that and others: all pairs of them."""
    build = Builder()
    thin = [1 if i == repeated else d for i, d in enumerate((BATCH, 3, 4, 9))]
    x = build.graph.add_input(f32(*thin))
    y = build.apply(ops.Expand((BATCH, 3, 4, 9)), x)
    pairs = [(repeated, i) for i in (1, 2, 3) if i != repeated]
    outputs = [build.apply(op(axes), y) for op in KINDS for axes in (*pairs, (1, 2, 3))]
    outputs += [build.apply(ops.LayerNorm(axes), y) for axes in pairs]
    outputs += [build.apply(ArgMax(repeated), y), build.apply(Softmax(repeated), y)]
    build.graph.set_outputs(outputs)
    check(build.graph, 2, limit=1e-5)


@pytest.mark.parametrize("op", KINDS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("shape", [(24, 48, 30), (5, 96, 35), (64, 49, 37)])
@pytest.mark.parametrize("last", [False, True], ids=["planar", "channels_last"])
def test_large_maps_in_parts(op: type, shape: tuple[int, int, int], last: bool) -> None:
    build = Builder()
    x = build.input(*shape)
    y = build.conv(x, shape[0]) if last else x
    outputs = [build.apply(op((2, 3), keepdims=k), y) for k in (False, True)]
    build.graph.set_outputs([*outputs, build.apply(op((1, 2, 3)), y)])
    check(build.graph, 2, limit=1e-5)


def test_reductions_of_nothing() -> None:
    """The sum of no numbers is 0 and their mean NaN; there is no largest one."""
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 3, 0, 2))
    build.graph.set_outputs([build.apply(op((2, 3)), x) for op in (Sum, SumSquares, Mean)])
    (target, *_) = TARGETS
    program = lower(build.graph, schedule(build.graph, target, 2), target, 2)
    total, squares, mean = Run(program, target).outputs({}, [np.zeros((2, 3, 0, 2), np.float32)])
    assert not total.any()
    assert not squares.any()
    assert np.isnan(mean).all()
    for op in (Max, Min):
        with pytest.raises(ShapeError, match=r"axes \[2\]"):
            build.apply(op((2, 3)), x)


def test_parts_depend_on_sizes_alone() -> None:
    """Not on the batch, nor on threads: both would change sums."""
    for n in (1, 2, 5):
        x = View("x", "f32", (n, 64, 112, 112), (64 * 112 * 112, 1, 64 * 112, 64))
        assert cut(x, (2, 3), 2, {0}) == 16
        assert cut(x, (0, 2, 3), 2, {0}) == 1
        small = View("x", "f32", (n, 1280, 7, 7), (1280 * 49, 1, 1280 * 7, 1280))
        assert cut(small, (2, 3), 2, {0}) == 1


@pytest.mark.parametrize("op", [Sum((2, 3)), Mean((1, 2, 3)), Max((3,)), Softmax(1), Softmax(3)])
def test_a_batch_in_parts(op: Any) -> None:
    """Bit by bit the same as image by image, on one thread and on two."""
    build = Builder()
    x = build.conv(build.input(3, 40, 41), 40, bias=True)
    build.graph.set_outputs([build.apply(op, x)])
    target, inputs = TARGETS[-1], random_inputs(build.graph, 3)
    choices = schedule(build.graph, target, 3)

    def outputs(arrays: list[np.ndarray], threads: int) -> np.ndarray:
        program = lower(build.graph, choices, target, len(arrays[0]), threads)
        return Run(program, target, threads).outputs(build.graph.payload, arrays)[0]

    parts = [outputs([a[i : i + 1] for a in inputs], 1) for i in range(3)]
    np.testing.assert_array_equal(outputs(inputs, 2), np.concatenate(parts))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", [Max, Min], ids=lambda op: op.__name__)
@pytest.mark.parametrize("axis", [1, 2])
def test_nan_wins(axis: int, op: type, target: Target) -> None:
    graph = Graph("nan", {})
    graph.set_outputs([graph.append(op((axis,)), [graph.add_input(f32(BATCH, 37, 41))]).output])
    x = np.random.default_rng(0).standard_normal((2, 37, 41)).astype(np.float32)
    x[0, 3, 5] = x[1, 36, 40] = np.nan
    x[1, :, 2] = -np.inf
    program = lower(graph, schedule(graph, target, 2), target, 2)
    (value,) = Run(program, target).outputs({}, [x])
    np.testing.assert_array_equal(value, op((axis,)).evaluate(x))


# -- the place of the maximum ---------------------------------------------------------------------


@examples(0.5)
@given(st.data())
def test_arg_max(data: st.DataObject) -> None:
    """Of few different numbers, so that maxima are often equal; any axis, any layout."""
    build = Builder()
    shape = shapes(data.draw, high=4)
    x = lying(data.draw, build, shape)
    axis = data.draw(st.integers(1, len(shape)))
    build.graph.set_outputs([build.apply(ArgMax(axis, data.draw(st.booleans())), x)])
    batch = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    (value,) = build.graph.inputs
    array = rng.integers(-3, 3, value.type.concrete(batch)).astype(np.float32)
    array[rng.random(array.shape) < 0.02] = np.nan
    array[rng.random(array.shape) < 0.3] = -np.inf
    (wanted,) = interpret(build.graph, [array])
    for target in TARGETS:
        program = lower(build.graph, schedule(build.graph, target, batch), target, batch, 2)
        (found,) = Run(program, target, 2, skew=3).outputs({}, [array])
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_classes_of_pixels(target: Target) -> None:
    """As a segmentation ends: over channels, and on through casts and reshapes."""
    build = Builder()
    scores = build.conv(build.input(4, 9, 7), 21)
    classes = build.apply(ArgMax(1), scores)
    flat = build.apply(ops.Reshape((BATCH, 63)), classes)
    build.graph.set_outputs([classes, build.apply(ops.Cast("u8"), flat)])
    run(build.graph, random_inputs(build.graph, 2), target)


# -- softmax --------------------------------------------------------------------------------------


@examples(0.5)
@given(st.data())
def test_softmax(data: st.DataObject) -> None:
    build = Builder()
    shape = shapes(data.draw)
    x = lying(data.draw, build, shape)
    if len(shape) == 3 and data.draw(st.booleans()):
        x = build.conv(x, 9, bias=True)
    build.graph.set_outputs([build.apply(Softmax(data.draw(st.integers(1, len(shape)))), x)])
    check(build.graph, data.draw(st.integers(1, 3)))


@pytest.mark.parametrize("length", [1, 15, 16, 49, 64, 65, 127, 196, 1000])
def test_softmax_of_rows(length: int) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 2, 3, length))
    build.graph.set_outputs([build.apply(Softmax(3), x)])
    check(build.graph, 2)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_of_extremes(axis: int, target: Target) -> None:
    """Large differences, infinities and NaN; a row of nothing but -inf is NaN, as in NumPy."""
    x = np.random.default_rng(0).standard_normal((1, 33, 35)).astype(np.float32) * 50
    x[0, 4, 4] = 1e30
    x[0, 5, ::2] = -np.inf
    x[0, 6, :] = -np.inf
    x[0, 7, 7] = np.nan
    x[0, 8, 8] = np.inf
    graph = Graph("softmax", {})
    graph.set_outputs([graph.append(Softmax(axis), [graph.add_input(f32(BATCH, 33, 35))]).output])
    program = lower(graph, schedule(graph, target, 1), target, 1)
    (value,) = Run(program, target).outputs({}, [x])
    with np.errstate(invalid="ignore"):
        wanted = Softmax(axis).evaluate(x.astype(np.float64))
    np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-9)
