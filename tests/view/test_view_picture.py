"""What pictures hold, DOT text and Model Explorer's JSON."""

import json
import re

import pytest

import lucid
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph
from lucid.view import picture, to_dot, to_explorer

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


def test_boxes_and_groups():
    drawn = picture(parse_graph(SMALL))
    assert [b.title for b in drawn.boxes] == ["x", "conv2d", "add", "relu", "output"]
    assert [b.group for b in drawn.boxes] == [(), ("block",), ("block",), ("block",), ()]
    conv = drawn.boxes[1]
    assert (conv.kind, conv.detail) == ("convolution", "3x3")
    assert conv.facts["@a.w"].startswith("f32[4,4,3,3]")
    assert [e.source for e in drawn.boxes[2].edges] == ["c", "x"]


def test_a_fusion_is_named_by_all_it_does():
    drawn = picture(run_passes(parse_graph(SMALL)))
    assert [b.title for b in drawn.boxes] == ["x", "conv2d + add + relu", "output"]
    assert "conv2d block.a" in drawn.boxes[1].facts["fused from"]


@pytest.mark.parametrize("fused", [False, True])
def test_dot_of_a_network(resnest, fused):
    graph = run_passes(resnest) if fused else resnest
    text = to_dot(graph)
    edges = re.findall(r'^  "([^"]+)" -> "([^"]+)"', text, re.M)
    boxes = set(re.findall(r'^ *"([^"]+)" \[label', text, re.M))
    assert {end for edge in edges for end in edge} == boxes
    assert len(boxes) == len(graph.nodes) + 2
    assert 'subgraph "cluster_layer1.0.conv2"' in text or fused
    assert 'subgraph "cluster_layer1.0"' in text


def test_dot_quotes_what_needs_it():
    graph = parse_graph(SMALL.replace('"block.', r'"bl\"ock.').replace('"block"', r'"bl\"ock"'))
    assert r'label="bl\"ock"' in to_dot(graph)


def test_model_explorer_json(resnest):
    (graph,) = json.loads(to_explorer(resnest))
    assert graph["id"] == "resnest_14"
    nodes = {n["id"]: n for n in graph["nodes"]}
    assert len(nodes) == len(resnest.nodes) + 2
    for node in nodes.values():
        for edge in node["incomingEdges"]:
            source = nodes[edge["sourceNodeId"]]
            assert int(edge["sourceNodeOutputId"]) < len(source["outputsMetadata"])
    assert {n["namespace"] for n in nodes.values()} >= {"", "layer1/0", "layer1/0/conv2"}
