"""Cross-layer equalisation: the network stays what it is, and both weights' ranges meet."""

import numpy as np
import pytest
from quantisation.conftest import graph_of

from lucid.ir.interpret import interpret
from lucid.quantisation.equalise import equalised, pairs

CHAIN = """graph g(%x: f32[N,4,8,8]) -> f32[N,6,4,4] {
  param @a: f32[8,4,3,3]
  param @ab: f32[8]
  param @b: f32[8,1,3,3]
  param @c: f32[6,8,1,1]
  %h = conv2d(%x, @a, @ab) {padding=(1,1,1,1)} : f32[N,8,8,8]
  %r = relu(%h) : f32[N,8,8,8]
  %d = conv2d(%r, @b) {padding=(1,1,1,1), groups=8} : f32[N,8,8,8]
  %p = max_pool2d(%d) {kernel=(2,2), stride=(2,2)} : f32[N,8,4,4]
  %y = conv2d(%p, @c) : f32[N,6,4,4]
  return %y
}"""


def test_what_the_network_computes_stays() -> None:
    graph = graph_of(CHAIN)
    generator = np.random.default_rng(1)
    payload = {n: np.asarray(a) for n, a in graph.payload.items()}
    payload["ab"] = generator.standard_normal(8).astype(np.float32)
    payload["a"] = payload["a"] * 10.0 ** generator.uniform(-3, 3, (8, 1, 1, 1)).astype(np.float32)
    graph.payload = payload
    x = generator.standard_normal((2, 4, 8, 8)).astype(np.float32)
    (before,) = interpret(graph, [x])
    tensors = equalised(graph)
    (after,) = interpret(graph, [x], payload=tensors)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())
    made = np.abs(tensors["a"]).reshape(8, -1).max(1)
    read = np.abs(tensors["b"]).reshape(8, -1).max(1)
    np.testing.assert_allclose(made, read, rtol=0.01)
    np.testing.assert_allclose(read, np.abs(tensors["c"]).max((0, 2, 3)), rtol=0.01)


def test_pairs() -> None:
    graph = graph_of(CHAIN)
    assert [(p.first.output.name, p.second.output.name) for p in pairs(graph)] == [
        ("h", "d"),
        ("d", "y"),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%r = relu(%h)", "%r = sigmoid(%h)"),  # which is not homogeneous
        ("%r = relu(%h)", "%r = clip(%h) {low=0.0, high=6.0}"),
        ("return %y", "return %y, %r"),  # others see it
    ],
)
def test_near_misses(old: str, new: str) -> None:
    text = CHAIN.replace(old, new)
    if "return %y, %r" in text:
        text = text.replace("-> f32[N,6,4,4]", "-> f32[N,6,4,4], f32[N,8,8,8]")
    assert [p.first.output.name for p in pairs(graph_of(text))] == ["d"]


def test_channels_of_zeros_stay() -> None:
    graph = graph_of(CHAIN)
    payload = {n: np.array(a) for n, a in graph.payload.items()}
    payload["b"][3] = 0
    payload["a"][5] = 0
    graph.payload = payload
    assert all(np.isfinite(a).all() for a in equalised(graph).values())
