"""The interpreter: values, dtypes, the batch, weights, and what it holds in memory."""

import re
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder, graphs, random_inputs

from lucid.errors import InputError, WeightsError
from lucid.ir import interpret, parse_graph
from lucid.ir.ops import Relu

TEXT = """
graph g(%x: f32[N,2,3], %scale: f32[N,1,1]) -> f32[N,6], f32[2] {
  source @var: f32[2]
  param @w: f32[2] = rsqrt(add(@var, constant(){value=0.1}))
  %half = constant() {value=0.1} : f32[]
  %a = mul(%x, %scale) : f32[N,2,3]
  %b = add(%a, %half) : f32[N,2,3]
  %dead = relu(%b) : f32[N,2,3]
  %c = reshape(%b) {shape=(N,-1)} : f32[N,6]
  return %c, @w
}
"""
VAR = {"var": np.array([0.9, 3.9], np.float32)}


def operands(batch):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((batch, *s)).astype(np.float32) for s in [(2, 3), (1, 1)]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_values(batch, dtype):
    x, scale = operands(batch)
    y, w = interpret(parse_graph(TEXT), [x, scale], VAR, dtype=dtype)
    assert y.dtype == w.dtype == dtype
    exact = x.astype(np.float64) * scale + 0.1
    np.testing.assert_allclose(y, exact.reshape(batch, 6), rtol=4 * np.finfo(dtype).eps, atol=1e-7)
    if dtype == np.float64:  # constants and recipes are not rounded to float32 on the way
        np.testing.assert_array_equal(y, exact.reshape(batch, 6))
        np.testing.assert_array_equal(w, 1 / np.sqrt(VAR["var"].astype(np.float64) + 0.1))


def test_payload_is_the_graphs_own_unless_given():
    graph = parse_graph(TEXT)
    with pytest.raises(WeightsError, match="no tensor 'var' among the 0 given"):
        interpret(graph, operands(1))
    graph.payload = VAR
    np.testing.assert_allclose(interpret(graph, operands(1))[1], [1, 0.5])
    np.testing.assert_allclose(interpret(graph, operands(1), {"var": [0.15, 24.9]})[1], [2, 0.2])
    with pytest.raises(WeightsError, match=re.escape("tensor 'var' is f32[2], got shape (3,)")):
        interpret(graph, operands(1), {"var": np.ones(3)})


def test_observe_sees_every_node_in_order():
    graph = parse_graph(TEXT)
    seen = []
    interpret(graph, operands(2), VAR, observe=lambda node, results: seen.append((node, results)))
    assert [node for node, _ in seen] == graph.nodes
    assert all(results[0].dtype == np.float32 for _, results in seen)
    assert seen[3][0].op == Relu()
    assert seen[3][1][0].min() >= 0


def test_inputs_are_checked():
    graph = parse_graph(TEXT)
    x, scale = operands(2)
    with pytest.raises(InputError, match="g takes 2 inputs, got 1"):
        interpret(graph, [x])
    with pytest.raises(InputError, match=re.escape("input x wants f32[N,2,3], got the shape (2,)")):
        interpret(graph, [x[:, 0, 0], scale])
    with pytest.raises(InputError, match=re.escape("(N = 2), got the shape (1, 1, 1)")):
        interpret(graph, [x, scale[:1]])
    with pytest.raises(InputError, match="input x wants"):
        interpret(graph, [x[:, :, :2], scale])


def test_a_multiple_of_the_batch():
    graph = parse_graph("""
    graph g(%x: f32[2N,3]) -> f32[N,6] {
      %y = reshape(%x) {shape=(N,-1)} : f32[N,6]
      return %y
    }
    """)
    x = np.arange(12.0).reshape(4, 3)
    assert interpret(graph, [x])[0].tolist() == x.reshape(2, 6).tolist()
    with pytest.raises(InputError):
        interpret(graph, [x[:3]])


def test_integers_stay_integers():
    graph = parse_graph("""
    graph g(%i: i64[N]) -> i64[N] {
      param @table: i64[1]
      %two = constant() {value=2, dtype="i64"} : i64[]
      %y = mul(%i, %two) : i64[N]
      %z = add(%y, @table) : i64[N]
      return %z
    }
    """)
    (y,) = interpret(graph, [np.array([2**40, 3])], {"table": np.array([1])}, dtype=np.float64)
    assert y.dtype == np.int64
    assert y.tolist() == [2**41 + 1, 7]


def test_values_are_released_after_their_last_use():
    builder = Builder()
    y = builder.input(2, 3, 3)
    for _ in range(5):
        y = builder.apply(Relu(), y)
    builder.graph.set_outputs([y])
    alive: list[weakref.ref] = []
    most = 0

    def observe(node, results):
        nonlocal most
        alive.extend(weakref.ref(r) for r in results)
        most = max(most, sum(ref() is not None for ref in alive))

    interpret(builder.graph, random_inputs(builder.graph), observe=observe)
    assert most <= 2


def test_inputs_are_left_alone_and_outputs_may_be_inputs():
    graph = parse_graph("graph g(%x: f32[N]) -> f32[N], f32[N] { return %x, %x }")
    x = np.arange(3, dtype=np.float32)
    first, second = interpret(graph, [x])
    assert first.tolist() == second.tolist() == [0, 1, 2]


@given(graphs(), st.integers(1, 3))
def test_float32_is_near_float64(graph, batch):
    inputs = random_inputs(graph, batch)
    exact = interpret(graph, inputs, dtype=np.float64)
    for single, double in zip(interpret(graph, inputs), exact, strict=True):
        assert single.dtype == np.float32
        assert double.dtype == np.float64
        np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-3 * np.abs(double).max())


@given(graphs())
def test_images_of_a_batch_do_not_mix(graph):
    inputs = random_inputs(graph, 3)
    whole = interpret(graph, inputs, dtype=np.float64)
    alone = interpret(graph, [x[1:2] for x in inputs], dtype=np.float64)
    for a, b in zip(whole, alone, strict=True):
        np.testing.assert_allclose(a[1:2], b, rtol=1e-9, atol=1e-9)


def test_casts_take_the_interpreter_s_precision():
    graph = parse_graph("graph g(%x: i64[N]) -> f32[N] { %y = cast(%x) : f32[N] return %y }")
    large = np.array([2**24 + 1])
    assert interpret(graph, [large], dtype=np.float64)[0].tolist() == [2**24 + 1]
    assert interpret(graph, [large])[0].tolist() == [2**24]
