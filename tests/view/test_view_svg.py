"""Figures: everything is there, nothing lies on anything else."""

import pytest
from drawings import Area, Drawing, overlaps
from hypothesis import given
from strategies import graphs

import lucid
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph
from lucid.view import compare, cut, picture, to_svg
from lucid.view.picture import Box, Edge, Picture
from lucid.view.text_width import SIZES

SMALL = """
graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8] {
  param @a.w: f32[4,4,3,3]
  %c = conv2d(%x, @a.w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "block.a"
  %s = add(%c, %x) : f32[N,4,8,8] at "block"
  %r = relu(%s) : f32[N,4,8,8] at "block.relu"
  return %r
}
"""


@pytest.fixture(scope="module")
def resnest():
    return lucid.trace(lucid.models.resnest_14(), (1, 3, 64, 64))


def check(text):
    """Boxes apart, labels apart, boxes in frames wholly or not at all; gives the drawing."""
    drawing = Drawing(text)
    assert overlaps(drawing.boxes) == []
    assert overlaps(drawing.labels) == []
    for frame in drawing.frames:
        for other in (*drawing.boxes, *drawing.frames, *drawing.labels):
            assert frame.holds(other) or other.holds(frame) or not frame.overlaps(other)
    width, height = (float(drawing.root.get(k)) for k in ("width", "height"))
    for box in drawing.boxes:
        assert Area("", 0, 0, width, height).holds(box)
    return drawing


def test_a_small_graph():
    drawing = check(to_svg(parse_graph(SMALL)))
    assert [b.name for b in drawing.boxes] == ["x", "c", "s", "r", "output:0"]
    assert [e.name for e in drawing.labels].count("N×4×8×8") == 4
    assert len(drawing.frames) == 1
    tops = [box.top for box in drawing.boxes]
    assert tops == sorted(tops)


def test_a_fused_node_shows_its_parts():
    drawing = check(to_svg(run_passes(parse_graph(SMALL))))
    names = [e.name for e in drawing.labels]
    assert "conv2d + add + relu" in names
    assert {"conv2d", "add", "relu"} <= set(names)


@pytest.mark.parametrize("stage", ["captured", "fused", "both"])
def test_a_network(resnest, stage):
    fused = run_passes(resnest)
    drawn = {
        "captured": picture(resnest),
        "fused": picture(fused),
        "both": compare(picture(resnest), picture(fused)),
    }[stage]
    drawing = check(to_svg(drawn))
    assert {b.name for b in drawing.boxes} == {b.id for b in drawn.boxes}


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("depth", [1, 2, None])
def test_folded_to_a_depth_and_to_the_right(resnest, depth, right):
    text = to_svg(run_passes(resnest), depth, right)
    drawing = check(text)
    names = {b.name for b in drawing.boxes}
    assert ("layer1.0" in names, "sum_1" in names) == (depth == 1, depth is None)
    assert {f.name for f in drawing.boxes} >= {"x", "output:0"}
    titles = {e.name for e in drawing.labels}
    assert ("conv2" in titles) == (depth != 1)
    if right:
        width, height = (float(drawing.root.get(k)) for k in ("width", "height"))
        assert width > height


def test_whole_networks_fit_a_slide():
    """Drawn on 1920 x 1080 pixels, the smallest text of ResNeSt-50 has 12 or more."""
    graph = run_passes(lucid.trace(lucid.models.resnest_50(), (1, 3, 224, 224)))
    for depth in (1, 2):
        root = Drawing(to_svg(graph, depth, right=True)).root
        scale = min(1920 / float(root.get("width")), 1080 / float(root.get("height")))
        assert scale * min(SIZES.values()) >= 12


def test_lines_follow_each_other(resnest):
    """What is read later stands further to the right, or in a lower line."""
    drawing = check(to_svg(run_passes(resnest), 1, right=True))
    tops = [round(box.top + box.bottom) // 2 for box in drawing.boxes]
    lines = [[b for b, t in zip(drawing.boxes, tops, strict=True) if t == top] for top in set(tops)]
    assert len(lines) > 1
    for line in lines:
        lefts = [box.left for box in line]
        assert lefts == sorted(lefts)


def test_modules_that_repeat_are_drawn_once():
    graph = run_passes(lucid.trace(lucid.models.resnest_50(), (1, 3, 64, 64)))
    drawing = check(to_svg(graph))
    titles = {e.name for e in drawing.labels}
    assert {"layer1.1–2 ×2", "layer2.1–3 ×3", "layer3.1–5 ×5"} <= titles
    assert len(drawing.boxes) < len(graph.nodes) - 20


def test_a_part(resnest):
    drawn = cut(picture(resnest), "layer1.0.conv2")
    drawing = check(to_svg(drawn))
    names = {e.name for e in drawing.labels}
    assert {"from layer1.0.relu", "to layer1.0.conv3", "softmax"} <= names
    assert cut(picture(resnest), "layer9*").boxes == ()
    wide = cut(picture(resnest), "layer1.*")
    assert {b.origin.split(".")[0] for b in wide.boxes if b.origin} == {"layer1"}


def test_many_skips():
    """Every box reads all before it: many lanes, all ends told apart."""
    boxes = [Box("b0", "x", "input", results=("f32[N,3]",))]
    for i in range(1, 12):
        edges = tuple(Edge(f"b{k}", 0, k, "f32[N,3]") for k in range(i))
        boxes.append(Box(f"b{i}", "concat", "shape", results=("f32[N,3]",), edges=edges))
    check(to_svg(Picture("dense", tuple(boxes))))


def test_odd_names():
    graph = parse_graph(SMALL.replace('"block.', r'"<b&\"k.').replace('"block"', r'"<b&\"k"'))
    check(to_svg(graph))


def test_a_graph_shows_itself_in_a_notebook():
    graph = parse_graph(SMALL)
    assert graph._repr_svg_() == to_svg(graph)
    assert graph._repr_html_().startswith("<iframe")


@given(graphs())
def test_any_graph(graph):
    check(to_svg(compare(picture(graph), picture(run_passes(graph)))))
