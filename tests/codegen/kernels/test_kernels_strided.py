"""Moved elements: reshapes, permutations, slices, concatenations, copies."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from harness import check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.ir import BATCH, Dim, Value, f32
from lucid.ir.ops import (
    Concat,
    Expand,
    Permute,
    Relu,
    Reshape,
    Slice,
)

SIZES = [1, 2, 3, 5, 10, 17, 40]


def shapes(draw: Any, low: int = 1, high: int = 4) -> tuple[int, ...]:
    """Dimensions after the batch, at most a few thousand floats."""
    shape = draw(st.lists(st.sampled_from(SIZES), min_size=low, max_size=high))
    while prod(shape) > 4000:
        shape[int(np.argmax(shape))] = 3
    return tuple(shape)


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
