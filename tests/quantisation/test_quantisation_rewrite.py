"""Graphs of integers, and those of floats that compute the same."""

import numpy as np
import pytest
from quantisation.conftest import graph_of

from lucid.ir.interpret import interpret
from lucid.ir.ops import Dequantize, Quantize
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.verify import verify
from lucid.quantisation.places import layers_of, places
from lucid.quantisation.ranges import Scaling, weight_scales
from lucid.quantisation.rewrite import Weights, quantised, simulated

BLOCK = """graph g(%x: f32[N,4,6,6]) -> f32[N,3], f32[N,4,6,6] {
  param @a.weight: f32[4,4,3,3]
  param @a.bias: f32[4]
  param @b.weight: f32[4,1,3,3]
  param @s: f32[1,4,1,1]
  param @fc.weight: f32[3,4]
  param @fc.bias: f32[3]
  %h = conv2d(%x, @a.weight, @a.bias) {padding=(1,1,1,1)} : f32[N,4,6,6] at "a"
  %r = relu(%h) : f32[N,4,6,6]
  %g = conv2d(%r, @b.weight) {padding=(1,1,1,1), groups=4} : f32[N,4,6,6] at "b"
  %t = add(%g, %x) : f32[N,4,6,6]
  %u = mul(%t, @s) : f32[N,4,6,6]
  %m = mean(%u) {axes=(2,3)} : f32[N,4]
  %y = linear(%m, @fc.weight, @fc.bias) : f32[N,3] at "fc"
  return %y, %u
}"""
X = np.random.default_rng(5).standard_normal((3, 4, 6, 6)).astype(np.float32)


def both(ignored: tuple[str, ...] = ()):
    graph = graph_of(BLOCK)
    graph.payload = {
        name: np.random.default_rng(len(name)).standard_normal(a.shape).astype(np.float32)
        for name, a in graph.payload.items()
    }
    layers = [n for n in layers_of(graph) if n.origin not in ignored]
    where = places(graph, layers)
    scalings = {v: Scaling(float(np.float32(0.2)), 128) for v in where.values.values()}
    numbers = {
        n: Weights.of(n, graph.payload, weight_scales(graph.payload[n.inputs[1].name], "mse"))
        for n in layers
    }
    arguments = (graph, where, scalings, numbers)
    return graph, quantised(*arguments), simulated(*arguments)


@pytest.mark.parametrize("ignored", [(), ("a",), ("b", "fc"), ("a", "b", "fc")])
def test_integers_and_floats_agree(ignored: tuple[str, ...]) -> None:
    graph, integers, floats = both(ignored)
    for made in (integers, floats):
        verify(made)
        assert set(made.sources()) <= set(made.payload)
    wanted = interpret(graph, [X])
    for a, b, c in zip(wanted, interpret(integers, [X]), interpret(floats, [X]), strict=True):
        np.testing.assert_allclose(b, c, rtol=2e-5, atol=2e-5)
        assert np.abs(b - a).max() < 0.1 * np.abs(a).max()
        if len(ignored) == 3:
            np.testing.assert_array_equal(a, b)


def test_the_form_is_that_of_onnx() -> None:
    _, integers, _ = both()
    text = print_graph(integers)
    assert parse_graph(text) == integers
    assert len(integers.find(Quantize)) == 4  # x, r, u, m
    assert len(integers.find(Dequantize)) == 4 + 3 * 2
    assert integers.payload["a.weight"].dtype == np.int8
    assert integers.payload["a.bias"].dtype == np.int32
    assert integers.payload["a.weight.scale"].dtype == np.float32
    assert integers.payload["s"].dtype == np.float32
    scale = integers.parameters["a.bias.scale"]
    product = integers.payload["a.weight.scale"] * np.float32(0.2)
    biases = interpret(graph_of_bias(integers), [])[0]
    np.testing.assert_allclose(biases, integers.payload["a.bias"] * product, rtol=1e-6)
    assert scale.type.shape == (4,)
    assert "b.weight.bias" in integers.parameters  # a place for the correction


def graph_of_bias(graph):
    """What the layer `a` adds."""
    copy = graph.clone()
    layer = next(n for n in copy.nodes if n.op.name == "conv2d" and n.origin == "a")
    copy.set_outputs([layer.inputs[2]])
    copy.drop_unread()
    copy.inputs = []
    return copy


SHARED = """graph g(%x: f32[N,4]) -> f32[N,4] {
  param @w: f32[4,4]
  param @b: f32[4]
  %p = linear(%x, @w, @b) : f32[N,4] at "first"
  %q = linear(%p, @w, @b) : f32[N,4] at "second"
  %r = linear(%q, @w) : f32[N,4] at "third"
  return %r
}"""


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("ignored", [(), ("second",), ("first", "third")])
def test_layers_that_share_weights(ignored: tuple[str, ...], zeros: bool) -> None:
    graph = graph_of(SHARED)
    generator = np.random.default_rng(0)
    graph.payload = {
        name: (generator.standard_normal(a.shape) * (not zeros)).astype(np.float32)
        for name, a in graph.payload.items()
    }
    layers = [n for n in layers_of(graph) if n.origin not in ignored]
    where = places(graph, layers)
    scalings = {
        v: Scaling(float(np.float32(0.05 * (i + 1))), 99) for i, v in enumerate(where.values)
    }
    numbers = {
        n: Weights.of(n, graph.payload, weight_scales(graph.payload["w"], "mse")) for n in layers
    }
    x = generator.standard_normal((5, 4)).astype(np.float32)
    integers, floats = (f(graph, where, scalings, numbers) for f in (quantised, simulated))
    for made in (integers, floats):
        verify(made)
    (a,), (b,) = interpret(integers, [x]), interpret(floats, [x])
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    (wanted,) = interpret(graph, [x])
    assert np.abs(a - wanted).max() <= 0.15 * np.abs(wanted).max()


def test_outputs_are_not_rounded() -> None:
    _, integers, _ = both()
    assert all(v.producer.op.name != "dequantize" for v in integers.outputs)


def weights(values: list[int], scales: list[float], bias: list[float]) -> Weights:
    array = np.array(values, np.int8).reshape(len(scales), -1)
    return Weights("w", array, np.array(scales, np.float32), "b", np.array(bias, np.float32))


def test_biases_are_whole_steps_of_the_sums() -> None:
    own = weights([1, 2, 3, 4], [0.5, 0.25], [1.1, -2.2])
    x = Scaling(0.1, 0)
    np.testing.assert_array_equal(own.integer_bias(x), [22, -88])
    np.testing.assert_allclose(own.bias_scales(x), [0.05, 0.025], rtol=1e-6)
    np.testing.assert_array_equal(own.floats(), [[0.5, 1], [0.75, 1]])


@pytest.mark.parametrize("bias", [1e9, -1e9, 5e2])
def test_a_bias_that_sums_have_no_room_for_stays_a_float(bias: float) -> None:
    own = weights([127] * 8, [1e-6, 1.0], [bias, 0.0])
    assert own.integer_bias(Scaling(0.1, 0)) is None
    assert weights([127] * 8, [1e-6, 1.0], [1e-3, 0.0]).integer_bias(Scaling(0.1, 0)) is not None
