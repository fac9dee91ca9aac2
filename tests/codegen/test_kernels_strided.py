"""Strided kernels against the interpreter: elementwise ops, reductions, softmax, moved elements."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from harness import check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS, Builder

from lucid.ir import BATCH, Dim, Value, f32
from lucid.ir.ops import (
    Add,
    Concat,
    Constant,
    Div,
    Exp,
    Expand,
    Max,
    Maximum,
    Mean,
    Minimum,
    Mul,
    Op,
    Permute,
    Relu,
    Reshape,
    Rsqrt,
    Slice,
    Softmax,
    Sqrt,
    Sub,
    Sum,
)

SIZES = [1, 2, 3, 5, 10, 17, 40]


def shapes(draw: Any, low: int = 1, high: int = 4) -> tuple[int, ...]:
    """Dimensions after the batch, at most a few thousand floats."""
    shape = draw(st.lists(st.sampled_from(SIZES), min_size=low, max_size=high))
    while prod(shape) > 4000:
        shape[int(np.argmax(shape))] = 3
    return tuple(shape)


def positive(build: Builder, x: Value) -> Value:
    """x * x + 0.5, so that roots and quotients are tame."""
    half = build.apply(Constant(0.5))
    return build.apply(Add(), build.apply(Mul(), x, x), half)


@pytest.mark.parametrize("op", ACTIVATIONS, ids=lambda op: f"{op}")
def test_unary(op: Op) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 37))
    build.graph.set_outputs([build.apply(op, x)])
    check(build.graph, 3)


@pytest.mark.parametrize("op", [Exp(), Sqrt(), Rsqrt()], ids=lambda op: op.name)
def test_unary_over_positive_numbers(op: Op) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 37))
    build.graph.set_outputs([build.apply(op, positive(build, x))])
    check(build.graph, 3)


@examples(0.4)
@given(st.data())
def test_binary_with_broadcasting(data: st.DataObject) -> None:
    """Operands of any rank, each dimension whole or repeated, or a scalar constant."""
    build = Builder()
    shape = shapes(data.draw)
    op = data.draw(st.sampled_from([Add(), Sub(), Mul(), Div(), Maximum(), Minimum()]))
    thin = tuple(data.draw(st.sampled_from([1, d])) for d in shape)
    thin = thin[data.draw(st.integers(0, len(thin) - 1)) :]
    x = build.graph.add_input(f32(BATCH, *shape))
    if data.draw(st.booleans()):
        y = build.weight("w", *thin, positive=True)
    elif len(thin) == len(shape):
        y = positive(build, build.graph.add_input(f32(BATCH, *thin)))
    else:
        y = build.apply(Constant(1.25))
    build.graph.set_outputs([build.apply(op, *((x, y) if data.draw(st.booleans()) else (y, x)))])
    if op == Div() and build.graph.outputs[0].producer.inputs[1] is x:
        build.graph.set_outputs([build.apply(Div(), y, positive(build, x))])
    check(build.graph, data.draw(st.integers(1, 3)))


@pytest.mark.parametrize("op", [Sum, Mean, Max], ids=lambda op: op.__name__)
@examples(0.3)
@given(data=st.data())
def test_reductions(op: type, data: st.DataObject) -> None:
    build = Builder()
    shape = shapes(data.draw)
    axes = data.draw(st.sets(st.integers(1, len(shape)), min_size=1, max_size=3))
    x = build.graph.add_input(f32(BATCH, *shape))
    y = build.apply(op(tuple(sorted(axes)), keepdims=data.draw(st.booleans())), x)
    build.graph.set_outputs([y])
    check(build.graph, data.draw(st.integers(1, 3)), limit=1e-5)  # sums of a few values cancel


@pytest.mark.parametrize("op", [Sum, Mean, Max], ids=lambda op: op.__name__)
@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (1, 2, 3)])
def test_reductions_of_maps(op: type, axes: tuple[int, ...]) -> None:
    """Over maps that lie channels last, in place of the user's row-major arrays."""
    build = Builder()
    y = build.conv(build.input(3, 5, 4), 18, bias=True)
    build.graph.set_outputs([build.apply(op(axes, keepdims=True), y)])
    check(build.graph, 2)


@examples(0.4)
@given(st.data())
def test_softmax(data: st.DataObject) -> None:
    build = Builder()
    shape = shapes(data.draw)
    x = build.graph.add_input(f32(BATCH, *shape))
    if len(shape) == 3 and data.draw(st.booleans()):
        x = build.conv(x, 9, bias=True)
    build.graph.set_outputs([build.apply(Softmax(data.draw(st.integers(1, len(shape)))), x)])
    check(build.graph, data.draw(st.integers(1, 3)))


# -- moving elements ------------------------------------------------------------------------------


def reshape(draw: Any, build: Builder, x: Value) -> Value:
    """Split or join some dimensions."""
    shape = list(x.type.shape)
    if Dim(1, "N") != shape[0]:
        return x  # the batch was permuted inwards: joining it would not be a legal reshape
    place = draw(st.integers(1, len(shape) - 1))
    divisors = [d for d in range(1, shape[place] + 1) if shape[place] % d == 0]
    if draw(st.booleans()) or place == len(shape) - 1:
        part = draw(st.sampled_from(divisors))
        shape[place : place + 1] = [part, shape[place] // part]
    else:
        shape[place : place + 2] = [shape[place] * shape[place + 1]]
    return build.apply(Reshape(tuple(shape)), x)


def permute(draw: Any, build: Builder, x: Value) -> Value:
    rest = draw(st.permutations(range(1, x.type.rank)))
    return build.apply(Permute((0, *rest)), x)


def cut(draw: Any, build: Builder, x: Value) -> Value:
    axis = draw(st.integers(1, x.type.rank - 1))
    size = x.type.shape[axis]
    start = draw(st.integers(0, size - 1))
    stop = draw(st.integers(start + 1, size))
    return build.apply(Slice(axis, start, stop, draw(st.integers(1, 2))), x)


def join(draw: Any, build: Builder, x: Value) -> Value:
    return build.apply(Concat(draw(st.integers(1, x.type.rank - 1))), x, x)


def expand(draw: Any, build: Builder, x: Value) -> Value:
    shape = tuple(3 if d == 1 else d for d in x.type.shape[1:])
    return build.apply(Expand((BATCH, *shape)), x)


def compute(draw: Any, build: Builder, x: Value) -> Value:
    return build.apply(Relu(), x)


MOVES = [reshape, permute, cut, join, expand, compute]


@examples(1.0)
@given(st.data())
def test_moves(data: st.DataObject) -> None:
    """Chains of reshapes, permutations, slices, concatenations and expansions, exactly."""
    build = Builder()
    shape = shapes(data.draw, 2, 3)
    x = build.graph.add_input(f32(BATCH, *shape))
    if len(shape) == 3:
        x = build.apply(Relu(), x)  # channels last, from here on
    for move in data.draw(st.lists(st.sampled_from(MOVES), min_size=1, max_size=5)):
        if x.type.rank < 5 and prod(x.type.concrete(1)) < 10000:
            x = move(data.draw, build, x)
    build.graph.set_outputs([x])
    check(build.graph, data.draw(st.integers(1, 3)), limit=0)


def test_several_outputs_in_the_users_layout() -> None:
    """Maps lie channels last inside and row-major in the user's arrays, one value twice, an input
    handed through."""
    build = Builder()
    x = build.input(10, 4, 5)
    y = build.conv(x, 18, (3, 3))
    z = build.apply(Relu(), y)
    build.graph.set_outputs([z, y, x, z])
    check(build.graph, 3)


def test_nothing_at_all() -> None:
    """An empty batch runs, and leaves everything alone."""
    build = Builder()
    y = build.conv(build.input(10, 4, 5), 18, (3, 3))
    build.graph.set_outputs([build.head(y, 5)])
    check(build.graph, 0)
