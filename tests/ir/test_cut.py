"""Parts of graphs are graphs: legal, readable, and they compute what they did in their place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs

from lucid import models
from lucid.frontend.trace import trace
from lucid.ir import interpret, parse_graph, verify
from lucid.ir.cut import cut, outermost, subgraph
from lucid.ir.json_form import graph_json
from lucid.ir.passes import run_passes

TEXT = """graph small(%x: f32[N,4], %unused: f32[N,9]) -> (f32[N,4], f32[N,4]) {
  param @w: f32[4]
  %two = constant() {value=2.0} : f32[]
  %a = relu(%x) : f32[N,4] at "first"
  %b = mul(%a, %two) : f32[N,4] at "second.in"
  %c = mul(%b, @w) : f32[N,4] at "second.out"
  %d = add(%c, %a) : f32[N,4] at "third"
  %e = tanh(%b) : f32[N,4] at "second.side"
  return %d, %b
}
""".replace("-> (f32[N,4], f32[N,4])", "-> f32[N,4], f32[N,4]")


def test_inputs_where_it_is_cut_and_outputs_that_are_read():
    part = cut(parse_graph(TEXT), "second")
    verify(part)
    assert [v.name for v in part.inputs] == ["a"]
    assert [n.outputs[0].name for n in part.nodes] == ["two", "b", "c", "e"]
    assert list(part.parameters) == ["w"]
    assert [v.name for v in part.outputs] == ["b", "c", "e"]  # returned, read, and by nobody
    assert str(parse_graph(str(part))) == str(part)


def test_patterns():
    graph = parse_graph(TEXT)
    assert cut(graph, "fourth") is None
    assert [n.outputs[0].name for n in cut(graph, "*.out").nodes] == ["c"]
    assert [n.outputs[0].name for n in cut(graph, "%[de]").nodes] == ["d", "e"]
    assert outermost(graph) == ["first", "second", "third"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_block_computes_what_it_did(fused):
    graph = trace(models.resnest_14(), (1, 3, 32, 32))
    graph = run_passes(graph) if fused else graph
    part = cut(graph, "layer2.0")
    verify(part)
    assert str(parse_graph(str(part))) == str(part)
    seen = {}

    def observe(node, results):
        seen.update(zip((v.name for v in node.outputs), results, strict=True))

    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    interpret(graph, [x], observe=observe)
    results = interpret(part, [seen[v.name] for v in part.inputs])
    for value, result in zip(part.outputs, results, strict=True):
        np.testing.assert_array_equal(result, seen[value.name])


def test_fused_nodes_are_found_by_what_they_were_made_of():
    graph = run_passes(trace(models.resnest_14(), (1, 3, 32, 32)))
    (node,) = cut(graph, "layer1.0.bn1").nodes
    assert node.origin == "layer1.0.conv1"


def test_json():
    data = graph_json(run_passes(parse_graph(TEXT)))
    assert data["inputs"][1] == {"name": "unused", "dtype": "f32", "shape": ["N", 9]}
    assert data["nodes"][1]["op"] == "relu"
    assert data["outputs"] == ["d", "b"]
    conv = trace(models.resnest_14(), (1, 3, 32, 32))
    first = graph_json(run_passes(conv))["nodes"][0]
    assert first["attributes"]["anchor"]["attributes"]["stride"] == [2, 2]
    assert first["attributes"]["body"]["nodes"][0]["op"] == "relu"
    assert first["inputs"] == ["x", "@conv1.0.weight.folded", "@conv1.0.bias.folded"]


@given(graph=graphs(), data=st.data())
def test_any_nodes_are_a_legal_graph(graph, data):
    graph = run_passes(graph) if data.draw(st.booleans()) else graph
    nodes = [n for n in graph.nodes if data.draw(st.booleans())]
    part = subgraph(graph, nodes)
    verify(part)
    assert {n.outputs[0].name for n in nodes} <= {n.outputs[0].name for n in part.nodes}
    assert parse_graph(str(part)) == part
