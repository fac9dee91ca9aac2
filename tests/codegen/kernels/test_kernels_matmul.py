"""Products of computed matrices against the interpreter, over shapes, strides and bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.ir import BATCH, Graph, Value, f32
from lucid.ir.ops import Add, Constant, Fusion, MatMul, Mul, Permute, Relu, Reshape, Slice, Softmax

SIZES = [1, 2, 5, 7, 16, 17, 31, 33, 49, 64, 70, 130]


def size(draw: Any) -> int:
    return draw(st.sampled_from(SIZES))


def operand(build: Builder, draw: Any, *shape: Any) -> Value:
    """An input of this shape, by any order of its axes in memory but the batch's."""
    order = (0, *draw(st.permutations(range(1, len(shape)))))
    value = build.graph.add_input(f32(*(shape[a] for a in order)))
    if order == tuple(range(len(shape))):
        return value
    return build.apply(Permute(tuple(np.argsort(order).tolist())), value)


@examples(0.4)
@given(st.data())
def test_products(data: st.DataObject) -> None:
    """Any sizes and strides, with several matrices an image."""
    build, draw = Builder(), data.draw
    rows, depth, columns = (size(draw) for _ in range(3))
    heads = draw(st.sampled_from([1, 2, 3]))
    a = operand(build, draw, BATCH, heads, rows, depth)
    b = operand(build, draw, BATCH, heads, depth, columns)
    build.graph.set_outputs([build.apply(MatMul(), a, b)])
    check(build.graph, draw(st.sampled_from([0, 1, 3])))


@examples(0.3)
@given(st.data())
def test_broadcast_matrices(data: st.DataObject) -> None:
    """Dimensions of size 1, missing ones, and parameters."""
    build, draw = Builder(), data.draw
    rows, depth, columns = (draw(st.sampled_from([1, 3, 20, 70])) for _ in range(3))
    first, second = draw(st.sampled_from([(2, 1), (1, 3), (1, 1), (2, 2)]))
    a = operand(build, draw, BATCH, first, 1, rows, depth)
    shapes = [(BATCH, second, 4, depth, columns), (BATCH, 1, 1, depth, columns)]
    kind = draw(st.sampled_from(["input", "matrix", "matrices"]))
    if kind == "input":
        shape = draw(st.sampled_from(shapes))
        b = operand(build, draw, *shape)
        if first != 1 and shape[1] not in (1, first):
            return
    elif kind == "matrix":
        b = build.weight("b", depth, columns)
    else:
        b = build.weight("b", 5, depth, columns)
    build.graph.set_outputs([build.apply(MatMul(), a, b)])
    check(build.graph, draw(st.sampled_from([1, 2])))


@pytest.mark.parametrize("depth", [256, 257, 700])
def test_long_sums(depth: int) -> None:
    """More steps than one chain adds up."""
    build = Builder()
    a, b = (build.graph.add_input(f32(BATCH, *s)) for s in ((40, depth), (depth, 50)))
    build.graph.set_outputs([build.apply(MatMul(), a, b)])
    check(build.graph, 2)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty_matrices(shape: tuple[int, int, int]) -> None:
    build = Builder()
    rows, depth, columns = shape
    a, b = (build.graph.add_input(f32(BATCH, *s)) for s in ((rows, depth), (depth, columns)))
    build.graph.set_outputs([build.apply(MatMul(), a, b)])
    check(build.graph, 2)


@examples(0.3)
@given(st.data())
def test_bodies(data: st.DataObject) -> None:
    """A bias by column, by head or by row, and a tensor as the result, lying anyhow."""
    build, draw = Builder(), data.draw
    rows, depth, columns = (draw(st.sampled_from([1, 5, 33, 70])) for _ in range(3))
    a = operand(build, draw, BATCH, 2, rows, depth)
    b = build.graph.add_input(f32(BATCH, 2, depth, columns))
    extras = [
        build.weight("column", columns),
        build.weight("head", 2, 1, 1),
        build.weight("row", rows, 1),
        build.weight("table", 1, 2, rows, columns),
        operand(build, draw, BATCH, 2, rows, columns),
    ]
    chosen = [extras[i] for i in draw(st.sampled_from([(0,), (1, 3), (2, 4)]))]
    y = build.apply(body_of(a, b, *chosen), a, b, *chosen, origin="product")
    if draw(st.booleans()):
        y = build.apply(Permute((0, 3, 1, 2)), y)
        y = build.apply(Reshape((BATCH, columns, 2 * rows)), y)
    build.graph.set_outputs([y])
    check(build.graph, draw(st.sampled_from([1, 3])))


def body_of(a: Value, b: Value, *extras: Value) -> Fusion:
    """relu(a @ b * 0.5 + extra + ...)."""
    body = Graph("body")
    (kind,) = MatMul().result_types(a.type, b.type)
    y, *others = (body.add_input(t) for t in (kind, *(e.type for e in extras)))
    y = body.append(Mul(), [y, body.append(Constant(0.5), []).output]).output
    for other in others:
        y = body.append(Add(), [y, other]).output
    body.set_outputs([body.append(Relu(), [y]).output])
    return Fusion(MatMul(), body)


@examples(0.2)
@given(st.data())
def test_attention(data: st.DataObject) -> None:
    """Queries, keys and values of one layer, softmax, and heads put side by side: over positions,
    and over channels as EdgeNeXt has it."""
    build, draw = Builder(), data.draw
    positions, heads, depth = draw(st.sampled_from([4, 9, 49])), 3, draw(st.sampled_from([5, 32]))
    wide = heads * depth
    x = build.graph.add_input(f32(BATCH, positions, wide))
    qkv = build.apply(Reshape((BATCH, positions, 3, heads, depth)), build.linear(x, 3 * wide))
    kind = draw(st.sampled_from(["positions", "channels", "map"]))
    across = kind == "channels"
    order = (2, 0, 3, 4, 1) if across else (2, 0, 3, 1, 4)
    parts = build.apply(Permute(order), qkv)
    one = (BATCH, heads, depth, positions) if across else (BATCH, heads, positions, depth)
    q, k, v = (build.apply(Reshape(one), build.apply(Slice(0, i, i + 1), parts)) for i in range(3))
    scores = build.apply(MatMul(), q, build.apply(Permute((0, 1, 3, 2)), k))
    y = build.apply(MatMul(), build.apply(Softmax(3), scores), v)
    side = round(positions**0.5)
    to, shape = {
        "positions": ((0, 2, 1, 3), (BATCH, positions, wide)),
        "channels": ((0, 3, 1, 2), (BATCH, positions, wide)),
        "map": ((0, 1, 3, 2), (BATCH, wide, side, side)),
    }[kind]
    y = build.apply(Reshape(shape), build.apply(Permute(to), y))
    build.graph.set_outputs([build.conv(y, 20) if kind == "map" else build.linear(y, 20)])
    batch = draw(st.sampled_from([1, 2]))
    target = TARGETS[-1]
    program = lower(build.graph, schedule(build.graph, target, batch, "strict"), target, batch)
    families = {c.kernel.family for c in program.calls() if c.origin != "output"}
    assert families == {"product", "matmul", "softmax"}, "heads side by side are no copy"
    check(build.graph, batch)
