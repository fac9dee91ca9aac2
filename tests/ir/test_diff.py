"""What became of a graph: by pass, by hand, and of a whole network."""

import json

import pytest
from hypothesis import given
from strategies import graphs

from lucid import models
from lucid.frontend.trace import trace
from lucid.ir.diff import diff
from lucid.ir.marked import ADDED, REMOVED
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph

TEXT = """graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8] {
  param @w: f32[4,4,3,3]
  param @dead: f32[7]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "a"
  %r = relu(%c) : f32[N,4,8,8] at "b"
  %t = tanh(%r) : f32[N,4,8,8] at "c"
  return %t
}
"""


def kinds(found):
    return [(c.kind, c.node.outputs[0].name) for c in found.changes]


def after(text: str, *passes: str):
    graph = parse_graph(text)
    return graph, run_passes(graph, list(passes))


def test_the_same_graph_has_no_difference():
    found = diff(parse_graph(TEXT), parse_graph(TEXT), ("a", "b"))
    assert not found
    assert str(found) == "a -> b: no difference\n"


def test_fused_nodes_are_listed_under_what_they_became():
    found = diff(*after(TEXT, "fuse-epilogue"))
    assert kinds(found) == [("fused", "t")]
    (change,) = found.changes
    assert [n.op.name for n in change.before] == ["conv2d", "relu", "tanh"]
    assert str(change) == "%t at a: 3 nodes became one"
    marks = [line.mark for line in change.lines()]
    assert marks.count(REMOVED) == 3
    assert marks.count(ADDED) == 5  # the fusion's body is two nodes, a return and a brace
    assert found.summary() == "before -> after: 3 nodes fused into 1"


def test_removed_added_changed_rewired():
    other = TEXT.replace("%r = relu(%c)", "%r = sigmoid(%c)")
    found = diff(parse_graph(TEXT), parse_graph(other))
    assert kinds(found) == [("changed", "r")]

    shorter = TEXT.replace('  %r = relu(%c) : f32[N,4,8,8] at "b"\n', "").replace("(%r)", "(%c)")
    found = diff(parse_graph(TEXT), parse_graph(shorter))
    assert kinds(found) == [("removed", "r"), ("rewired", "t")]
    assert str(found.changes[1]) == "%t at c: tanh reads %c in place of %r"
    assert kinds(diff(parse_graph(shorter), parse_graph(TEXT))) == [
        ("added", "r"),
        ("rewired", "t"),
    ]


def test_results_of_another_name_are_the_same_by_op_and_module():
    renamed = TEXT.replace("%r", "%s")
    assert not diff(parse_graph(TEXT), parse_graph(renamed))
    moved = TEXT.replace("return %t", "return %r")
    found = diff(parse_graph(TEXT), parse_graph(moved))
    assert found.results == ("%t", "%r")
    assert str(found).endswith("  - return %t\n  + return %r\n")


def test_parameters():
    found = diff(*after(TEXT, "drop-dead-parameters"))
    assert not found.changes
    assert [p.name for p in found.dropped] == ["dead"]
    assert "- param @dead: f32[7]" in str(found)
    scaled = TEXT.replace("param @dead: f32[7]", "param @v: f32[4,4,3,3] = mul(@w, 2.0)")
    found = diff(parse_graph(TEXT), parse_graph(scaled.replace("(%x, @w)", "(%x, @v)")))
    assert kinds(found) == [("rewired", "c")]
    assert "reads @v in place of @w" in str(found)
    assert "+ param @v: f32[4,4,3,3] = mul(@w, 2.0)" in str(found)


def test_what_fed_only_fused_nodes_went_with_them():
    text = TEXT.replace(
        "  %t = tanh(%r)",
        '  %i = reshape(%r) {shape=(N,4,8,8)} : f32[N,4,8,8] at "i"\n  %t = tanh(%i)',
    )
    found = diff(*after(text, "canonicalise", "fuse-epilogue"))
    assert [n.op.name for n in found.changes[0].before] == ["conv2d", "relu", "reshape", "tanh"]


@pytest.fixture(scope="module")
def network():
    kept = {"captured": trace(models.resnest_14(), (1, 3, 64, 64))}
    run_passes(kept["captured"], observe=lambda name, graph: kept.update({name: graph.clone()}))
    return kept


def test_a_whole_network(network):
    found = diff(network["captured"], network["drop-dead-parameters"], ("captured", "fused"))
    assert found.summary().startswith("captured -> fused: ")
    block = found.about("layer2.0")
    sizes = {c.node.op.name: len(c.before) for c in block.changes if c.kind == "fused"}
    assert sizes["split_attention"] == 14
    assert not [c for c in block.changes if c.kind in ("removed", "rewired")]
    assert len(found.about("%relu_7").changes) == 1
    everything = json.loads(json.dumps(found.to_json()))
    assert everything["to"] == "fused"
    assert len(everything["changes"]) == len(found.changes)


def test_one_pass_is_short(network):
    found = diff(network["fuse-split-attention"], network["fold-scales"])
    assert {c.kind for c in found.changes} == {"changed", "rewired"}
    assert len(str(found).splitlines()) < 50


@given(graph=graphs())
def test_every_node_is_told_of_once(graph):
    """What is there before and not after, or after and not before, stands in exactly one change."""
    after = run_passes(graph)
    found = diff(graph, after)
    gone = [v.name for c in found.changes for n in c.before for v in n.outputs]
    assert len(gone) == len(set(gone))
    names = [{v.name for n in g.nodes for v in n.outputs} for g in (graph, after)]
    assert names[0] - names[1] <= set(gone)
    new = {v.name for c in found.changes if c.after for v in c.after.outputs}
    assert names[1] - names[0] <= new
    assert str(found)
    assert not (found and after == graph)
    assert not diff(after, parse_graph(str(after)))
