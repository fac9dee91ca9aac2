"""Nodes that are run for rounded sizes give what their references give for their own."""

from collections.abc import Callable

import numpy as np
import pytest

from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.ops import Linear, NonMaxSuppression, RoiAlign
from lucid.ir.pieces import LIGHT, OFTEN, Pieces, pays
from lucid.ir.types import TensorType


def counting(made: list[Graph]) -> Callable[[Graph], Callable]:
    """Compiles nothing: keeps what it was given, and runs it by the references."""

    def compile_graph(graph):
        made.append(graph)
        return lambda arrays: interpret(graph, arrays)

    return compile_graph


def one_op(op, arrays, weights=()):
    graph = Graph("g", {f"w{i}": w for i, w in enumerate(weights)})
    values = [graph.add_input(TensorType("f32", a.shape), f"x{i}") for i, a in enumerate(arrays)]
    values += [graph.add_source(f"w{i}", TensorType("f32", w.shape)) for i, w in enumerate(weights)]
    graph.set_outputs(graph.append(op, values).outputs)
    return graph


def assert_same(op, calls, weights=(), exact=True):
    """For several sizes, and one graph is compiled for all of them."""
    made: list[Graph] = []
    pieces = Pieces(counting(made))
    for arrays in calls:
        graph = one_op(op, arrays, weights)
        wanted = interpret(graph, arrays)
        for a, b in zip(interpret(graph, arrays, natively=pieces), wanted, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)
    assert len(made) == 1


@pytest.mark.parametrize("least", [None, 0.3])
@pytest.mark.parametrize("most", [5, 2**31 - 1])
def test_suppression(most, least):
    rng = np.random.default_rng(0)
    calls = []
    for count in (17, 25, 32):
        low = rng.integers(0, 6, (2, count, 2))
        boxes = np.concatenate([low, low + rng.integers(0, 4, low.shape)], -1).astype(np.float32)
        scores = rng.integers(0, 8, (2, 3, count)).astype(np.float32) / 8
        scores[0, 0, :2] = [-np.inf, np.nan]
        calls.append([boxes, scores])
    assert_same(NonMaxSuppression(most, 0.25, least), calls)


def test_aligned_regions():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 3, 8, 9)).astype(np.float32)
    boxes = [(rng.random((n, 5)) * [0, 4, 4, 8, 8]).astype(np.float32) for n in (1, 7, 16)]
    assert_same(RoiAlign((2, 2)), [[x, b] for b in boxes])


def test_products():
    rng = np.random.default_rng(2)
    weights = [rng.standard_normal(s).astype(np.float32) for s in ((4, 6), (4,))]
    calls = [[rng.standard_normal((n, 6)).astype(np.float32)] for n in (1, 33, 70)]
    assert_same(Linear(), calls, weights, exact=False)


def test_nothing_has_no_piece():
    graph = one_op(RoiAlign((2, 2)), [np.zeros((1, 3, 8, 9), np.float32), np.zeros((0, 5))])
    pieces = Pieces(counting([]))
    (y,) = interpret(graph, [np.zeros((1, 3, 8, 9)), np.zeros((0, 5))], natively=pieces)
    assert y.shape == (0, 3, 2, 2)


def test_graphs_that_are_worth_compiling():
    rows = np.zeros((LIGHT // 64, 8), np.float32)
    large, small = (one_op(Linear(), [x], [np.zeros((16, 8))]) for x in (rows, rows[:4]))
    assert pays(large, varied=False, calls=1)
    assert pays(large, varied=True, calls=OFTEN)
    assert not pays(large, varied=True, calls=OFTEN - 1)
    assert not pays(small, varied=False, calls=OFTEN)
