"""The verifier: what it accepts, and each rule it enforces, naming node, op and pass."""

import re

import pytest
from hypothesis import given
from strategies import graphs

from lucid.errors import VerifyError
from lucid.ir import BATCH, Literal, Node, Parameter, Source, Value, f32, parse_graph, verify
from lucid.ir.ops import Clip, Fusion, Relu
from lucid.ir.verify import RULES

TEXT = """
graph g(%x: f32[N,4]) -> f32[N,2] {
  param @w: f32[2,4]
  %a = relu(%x) : f32[N,4] at "act"
  %b = linear(%a, @w) : f32[N,2] at "fc"
  return %b
}
"""


@pytest.fixture
def graph():
    return parse_graph(TEXT)


@given(graphs())
def test_accepts_legal_graphs(graph):
    verify(graph)


def broken(graph, message, where=""):
    with pytest.raises(VerifyError, match=re.escape(message)) as caught:
        verify(graph, where)
    return str(caught.value)


def give(thing, **fields):
    for name, value in fields.items():
        setattr(thing, name, value)


BREACHES = {
    "parameters": lambda g: give(g.parameters["w"], recipe=Literal(1.0)),
    "sources": lambda g: g.add_parameter("again", Source("w", f32(8))),
    "order": lambda g: g.nodes.reverse(),
    "names": lambda g: give(g.nodes[1].output, name="x"),
    "links": lambda g: give(g.nodes[0].output, producer=None),
    "types": lambda g: give(g.nodes[1].output, type=f32(BATCH, 3)),
}
"""For each rule, what breaks it and none before it."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_breaks_a_rule_is_told_with_it(rule, graph):
    BREACHES[rule.name](graph)
    broken(graph, f" (rule {rule.name}: {rule.statement})")
    assert "\n" not in rule.statement


def test_the_pass_leads_the_message(graph):
    graph.nodes[1].outputs[0].type = f32(BATCH, 3)
    message = broken(graph, "states the type f32[N,3], but its op infers f32[N,2]", "after fold")
    assert message.startswith("after fold: %b = linear(...) at 'fc'")


def test_a_shape_that_does_not_fit(graph):
    act, fc = graph.nodes
    graph.set_inputs(fc, [act.output, act.output])
    broken(graph, "%b = linear(...) at 'fc': linear: only the batch axis may depend on the batch")


def test_arity(graph):
    graph.set_inputs(graph.nodes[1], [graph.nodes[0].output])
    broken(graph, "linear: takes 2 or 3 operands, got 1")


def test_order(graph):
    graph.nodes.reverse()
    broken(graph, "%b = linear(...) at 'fc' reads %a: f32[N,4], which is defined only later, by")


def test_a_value_of_nowhere(graph):
    graph.set_inputs(graph.nodes[0], [Value(f32(BATCH, 4), "ghost")])
    broken(graph, "reads %ghost: f32[N,4], which is defined nowhere")


def test_a_parameter_of_nowhere(graph):
    stranger = Parameter("w", Source("w", f32(2, 4)))
    graph.set_inputs(graph.nodes[1], [graph.nodes[0].output, stranger])
    broken(graph, "reads @w: f32[2,4], which is defined nowhere")


def test_an_output_of_nowhere(graph):
    graph.set_outputs([Value(f32(), "ghost")])
    broken(graph, "output %ghost: f32[] is defined nowhere")


def test_a_node_twice(graph):
    graph.nodes.append(graph.nodes[1])
    broken(graph, "%b = linear(...) at 'fc' is in the graph twice")


def test_names(graph):
    graph.nodes[1].output.name = "x"
    broken(graph, "two values are named %x")
    graph = parse_graph(TEXT)
    graph.parameters["other"] = graph.parameters.pop("w")
    broken(graph, "parameter @w: f32[2,4] is listed under the name 'other'")


def test_users(graph):
    act, fc = graph.nodes
    act.output._users.clear()
    broken(graph, "the users of %a: f32[N,4] should be")
    graph = parse_graph(TEXT)
    graph.inputs[0]._users[fc] = None
    broken(graph, "the users of %x: f32[N,4] should be")


def test_producers(graph):
    act, fc = graph.nodes
    act.output.producer = fc
    broken(graph, "a result of %a = relu(...) at 'act', has another producer")


def test_parameters(graph):
    graph.parameters["w"].recipe = Literal(1.0)
    broken(graph, "@w: f32[2,4] has a recipe of type f32[]")
    graph = parse_graph(TEXT)
    graph.add_source("n", f32(BATCH))
    broken(graph, "@n: f32[N] depends on the batch")
    graph = parse_graph(TEXT)
    graph.add_parameter("again", Source("w", f32(8)))
    broken(graph, "source @w is read both as f32[2,4] and as f32[8]")


def test_bodies_of_fusions():
    graph = parse_graph("""
    graph g(%x: f32[N,4]) -> f32[N,4] {
      %f = fusion(%x) {anchor=relu, body=graph body(%y: f32[N,4]) -> f32[N,4] {
        %c = clip(%y) {low=0.5} : f32[N,4]
        return %c
      }} : f32[N,4] at "act"
      return %f
    }
    """)
    verify(graph)
    (clip,) = graph.nodes[0].op.body.nodes
    clip.inputs = [Value(f32(BATCH, 4), "ghost")]
    message = broken(graph, "%c = clip(...) at '' reads %ghost", where="after fuse")
    assert message.startswith("after fuse: in the body of %f = fusion(...) at 'act': ")
    assert broken(graph, "%ghost").startswith("in the body of")


def test_dead_values_are_legal(graph):
    graph.append(Clip(0, 1), [graph.nodes[0].output])
    graph.add_source("dead", f32(3))
    verify(graph)


def test_clones_share_nothing_that_changes(graph):
    copy = graph.clone()
    copy.replace(copy.nodes[0], [copy.inputs[0]])
    verify(copy)
    verify(graph)
    assert len(graph.nodes) == 2
    assert isinstance(graph.nodes[0], Node)
    assert graph.find(Relu)
    assert not copy.find(Relu)
    assert not graph.find(Fusion)
