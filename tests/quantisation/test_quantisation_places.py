"""Where graphs are cut into integers, on text."""

import pytest
from quantisation.conftest import graph_of

from lucid.quantisation.places import Places, is_ignored, layers_of, places

PARAMETERS = """
  param @a: f32[4,4,3,3]
  param @b: f32[4,4,3,3]
  param @c: f32[4,8,1,1]
  param @d: f32[4,4,1,1]
"""
ROW = "{padding=(1,1,1,1)} : f32[N,4,8,8]"
IMAGE = "f32[N,4,8,8]"

GRAPHS = {
    "an activation is part of the layer before it": (
        f"""
  %h = conv2d(%x, @a) {ROW}
  %r = relu(%h) : {IMAGE}
  %y = conv2d(%r, @b) {ROW}
  return %y
""",
        {"x": "x", "r": "r"},
    ),
    "of a residual block the last layer's result stays a float": (
        f"""
  %h = conv2d(%x, @a) {ROW}
  %r = relu(%h) : {IMAGE}
  %g = conv2d(%r, @b) {ROW}
  %s = add(%g, %x) : {IMAGE}
  %t = relu(%s) : {IMAGE}
  %y = conv2d(%t, @a) {ROW}
  return %y
""",
        {"x": "x", "r": "r", "t": "t"},
    ),
    "of two layers that meet the earlier one's result is held": (
        f"""
  %g = conv2d(%x, @a) {ROW}
  %h = conv2d(%x, @b) {ROW}
  %s = add(%h, %g) : {IMAGE}
  %y = conv2d(%s, @a) {ROW}
  return %y
""",
        {"x": "x", "g": "g", "s": "s"},
    ),
    "what is moved shares a scale": (
        f"""
  %h = conv2d(%x, @a) {ROW}
  %p = max_pool2d(%h) {{kernel=(3,3), stride=(1,1), padding=(1,1,1,1)}} : {IMAGE}
  %y = conv2d(%p, @b) {ROW}
  return %y
""",
        {"x": "x", "h": "h", "p": "h"},
    ),
    "parts that only a concatenation reads share its scale": (
        f"""
  %g = conv2d(%x, @a) {ROW}
  %h = conv2d(%x, @b) {ROW}
  %j = concat(%g, %h) {{axis=1}} : f32[N,8,8,8]
  %y = conv2d(%j, @c) : {IMAGE}
  return %y
""",
        {"x": "x", "g": "j", "h": "j", "j": "j"},
    ),
    "a part that others read has a scale of its own": (
        f"""
  %g = conv2d(%x, @a) {ROW}
  %h = conv2d(%g, @b) {ROW}
  %j = concat(%g, %h) {{axis=1}} : f32[N,8,8,8]
  %y = conv2d(%j, @c) : {IMAGE}
  return %y
""",
        {"x": "x", "g": "g", "h": "j", "j": "j"},
    ),
    "a gate stays a float": (
        f"""
  %h = conv2d(%x, @a) {ROW}
  %m = mean(%h) {{axes=(2,3), keepdims=true}} : f32[N,4,1,1]
  %f = conv2d(%m, @d) : f32[N,4,1,1]
  %s = sigmoid(%f) : f32[N,4,1,1]
  %g = mul(%h, %s) : {IMAGE}
  %y = conv2d(%g, @b) {ROW}
  return %y
""",
        {"x": "x", "h": "h", "m": "m", "g": "g"},
    ),
    "splits are read once by the attention over them": (
        """
  %h = conv2d(%x, @a) {padding=(1,1,1,1)} : f32[N,4,8,8]
  %r = reshape(%h) {shape=(N,2,2,8,8)} : f32[N,2,2,8,8]
  %s = sum(%r) {axes=(1)} : f32[N,2,8,8]
  %m = mean(%s) {axes=(2,3), keepdims=true} : f32[N,2,1,1]
  %w = concat(%m, %m) {axis=1} : f32[N,4,1,1]
  %f = conv2d(%w, @d) : f32[N,4,1,1]
  %g = reshape(%f) {shape=(N,2,2,1,1)} : f32[N,2,2,1,1]
  %k = mul(%r, %g) : f32[N,2,2,8,8]
  %t = sum(%k) {axes=(1)} : f32[N,2,8,8]
  %u = concat(%t, %t) {axis=1} : f32[N,4,8,8]
  %y = conv2d(%u, @b) {padding=(1,1,1,1)} : f32[N,4,8,8]
  return %y
""",
        {"x": "x", "h": "h", "r": "h", "m": "w", "w": "w", "t": "u", "u": "u"},
    ),
    "what is returned besides is held all the same": (
        f"""
  %h = conv2d(%x, @a) {ROW}
  %y = conv2d(%h, @b) {ROW}
  return %y, %h
""",
        {"x": "x", "h": "h"},
    ),
}


def graph(body: str):
    results = body.rsplit("return", 1)[1].count("%")
    kinds = ", ".join([IMAGE] * results)
    return graph_of(f"graph g(%x: {IMAGE}) -> {kinds} {{{PARAMETERS}{body}}}")


def told(found: Places) -> dict[str, str]:
    return {v.name: leader.name for v, leader in found.values.items()}


@pytest.mark.parametrize("name", GRAPHS)
def test_places(name: str) -> None:
    body, wanted = GRAPHS[name]
    g = graph(body)
    assert told(places(g, layers_of(g))) == wanted


def test_layers_that_stay_floats_want_no_integers() -> None:
    body, _ = GRAPHS["of a residual block the last layer's result stays a float"]
    g = graph(body)
    first, second, third = layers_of(g)
    assert told(places(g, [second])) == {"r": "r"}
    assert told(places(g, [first])) == {"x": "x"}
    assert told(places(g, [third])) == {"x": "x", "t": "t"}
    assert told(places(g, [])) == {}


def test_a_group_is_seen_without_what_was_moved_in_it() -> None:
    body, _ = GRAPHS["what is moved shares a scale"]
    g = graph(body)
    found = places(g, layers_of(g))
    leader = next(v for v in found.values if v.name == "h")
    assert [v.name for v in found.sharing(leader)] == ["h"]


def test_layers_are_products_with_parameters() -> None:
    text = """graph g(%x: f32[N,4], %w: f32[4,4]) -> f32[N,4] {
  param @a: f32[4,4]
  %h = linear(%x, @a) : f32[N,4] at "first"
  %y = linear(%h, %w) : f32[N,4] at "second"
  return %y
}"""
    g = graph_of(text)
    assert [n.origin for n in layers_of(g)] == ["first"]
    assert is_ignored(g.nodes[0], ["fir*"])
    assert is_ignored(g.nodes[0], ["nobody", "%h"])
    assert not is_ignored(g.nodes[0], ["second"])
