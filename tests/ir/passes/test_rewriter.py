"""The driver: order, fixed points, the log, and what happens when a rule is wrong."""

import re
import time

import pytest
from pass_checks import with_payload

from lucid.errors import CompileError, UnknownNameError, VerifyError
from lucid.ir import BATCH, Graph, f32
from lucid.ir.marked import plain
from lucid.ir.ops import OPS, Add, Neg, Relu, Sigmoid, Tanh
from lucid.ir.passes import (
    PASSES,
    PIPELINE,
    Pass,
    RewriteLog,
    rewrite,
    rewrite_graph,
    rewriter,
    run_passes,
)
from lucid.ir.passes.rewriter import equation
from lucid.ir.text import print_graph


@pytest.fixture
def toy(monkeypatch):
    """A pass without rules, known only within the test."""
    monkeypatch.setattr(rewriter, "PASSES", {})
    return Pass("toy", "What the test makes of it")


def chain(*ops) -> Graph:
    graph = Graph("chain")
    value = graph.add_input(f32(BATCH, 4))
    for op in ops:
        value = graph.append(op, [value], origin=op.name).output
    graph.set_outputs([value])
    return graph


def test_rules_run_to_a_fixed_point_and_are_logged(toy):
    @rewrite(toy, Relu)
    def relu_to_tanh(node, graph):
        """Fires for both."""
        graph.substitute(node, Tanh(), node.inputs, fuses=[node])

    @rewrite(toy, Tanh)
    def tanh_twice_is_sigmoid(node, graph):
        before = node.inputs[0].producer
        if before is not None and before.op == Tanh():
            graph.substitute(node, Sigmoid(), before.inputs, fuses=[before, node])

    graph, log = chain(Relu(), Relu()), []
    rewriter.apply_pass(toy, graph, log)
    assert [n.op for n in graph.nodes] == [Sigmoid()]
    assert graph.nodes[0].fused_from == ("relu relu", "relu relu")
    assert [f.rule for f in log] == ["relu_to_tanh", "relu_to_tanh", "tanh_twice_is_sigmoid"]
    last = log[-1]
    assert last.before == (
        '%relu = tanh(%x) : f32[N,4] at "relu" from ("relu relu")',
        '%relu_1 = tanh(%relu) : f32[N,4] at "relu" from ("relu relu")',
    )
    assert last.after == (
        '%relu_1 = sigmoid(%x) : f32[N,4] at "relu" from ("relu relu", "relu relu")',
    )
    assert last.line.partition(":")[0].endswith("test_rewriter.py")


def test_what_nobody_reads_goes_however_long_the_chain():
    graph = chain(*[Tanh()] * 3000)
    graph.set_outputs(graph.inputs)
    start = time.perf_counter()
    assert run_passes(graph, ["canonicalise"]).nodes == []
    assert time.perf_counter() - start < 5


def test_rules_without_end_are_a_defect_that_is_named(toy):
    @rewrite(toy, Neg)
    def to_tanh(node, graph):
        graph.substitute(node, Tanh(), node.inputs)

    @rewrite(toy, Tanh)
    def to_neg(node, graph):
        graph.substitute(node, Neg(), node.inputs)

    with pytest.raises(CompileError, match="pass toy does not come to an end"):
        rewriter.apply_pass(toy, chain(Neg()))


def test_a_rule_that_fails_is_named_with_its_node(toy):
    @rewrite(toy, Relu)
    def broken(node, graph):
        graph.substitute(node, Add(), node.inputs)

    with pytest.raises(CompileError, match=r"pass toy, rule broken at %relu = relu.*'relu'.*add"):
        rewriter.apply_pass(toy, chain(Relu()))


def test_a_rule_that_changes_a_type_is_named(toy):
    @rewrite_graph(toy)
    def shrinks(graph):
        node = graph.graph.nodes[0]
        graph.replace(node, [graph.graph.inputs[1]])

    graph = chain(Relu())
    graph.add_input(f32(3), "other")
    with pytest.raises(CompileError, match=r"rule shrinks, failed: .* changes type"):
        rewriter.apply_pass(toy, graph)


def test_names_disable_and_observe():
    graph = with_payload("""graph g(%x: f32[N,4]) -> f32[N,4] {
      param @dead: f32[4]
      %r = reshape(%x) {shape=(-1,4)} : f32[N,4]
      return %r
    }""")
    seen = []
    result = run_passes(
        graph,
        disable=["drop-dead-parameters", "fold-scales"],
        observe=lambda name, g: seen.append((name, len(g.nodes))),
    )
    left = [n for n in PIPELINE if n not in ("drop-dead-parameters", "fold-scales")]
    assert seen == [(name, 0) for name in left]
    assert list(result.parameters) == ["dead"]
    assert print_graph(run_passes(graph, names=[])) == print_graph(graph)
    assert not run_passes(graph, names=["drop-dead-parameters"]).parameters
    assert run_passes(graph).payload is graph.payload


@pytest.mark.parametrize("arguments", [{"names": ["fuse-epilog"]}, {"disable": ["fuse-epilog"]}])
def test_unknown_names_are_answered_with_the_closest(arguments):
    with pytest.raises(UnknownNameError, match="did you mean fuse-epilogue"):
        run_passes(chain(Relu()), **arguments)


def test_an_illegal_graph_is_refused_before_any_pass():
    graph = chain(Relu(), Tanh())
    graph.nodes.reverse()
    with pytest.raises(VerifyError, match="before the passes"):
        run_passes(graph)


def test_a_pass_that_leaves_an_illegal_graph_is_named(monkeypatch):
    monkeypatch.setattr(rewriter, "PASSES", {})
    broken = Pass("broken", "Puts the nodes in the wrong order")

    @rewrite_graph(broken)
    def reverse(graph):
        graph.graph.nodes.reverse()

    monkeypatch.setattr("lucid.ir.passes.pipeline.PASSES", {"broken": broken})
    with pytest.raises(CompileError, match="after broken: "):
        run_passes(chain(Relu(), Tanh()), ["broken"])


def test_near_misses_stand_unless_the_rule_fires_in_the_end(toy):
    @rewrite(toy, Relu)
    def after_tanh(node, graph):
        before = node.inputs[0].producer
        if before is None or before.op != Tanh():
            graph.miss(node, "no tanh before it")
        else:
            graph.substitute(node, Tanh(), node.inputs)

    @rewrite(toy, Neg)
    def to_tanh(node, graph):
        graph.substitute(node, Tanh(), node.inputs)

    graph, log, misses = chain(Relu(), Neg(), Relu()), [], []
    rewriter.apply_pass(toy, graph, log, misses)
    assert [n.op for n in graph.nodes] == [Relu(), Tanh(), Tanh()]
    (miss,) = misses
    assert str(miss) == "relu %relu at relu: no tanh before it"
    assert miss.node == '%relu = relu(%x) : f32[N,4] at "relu"'
    assert (miss.pass_name, miss.rule) == ("toy", "after_tanh")
    assert miss.line.partition(":")[0].endswith("test_rewriter.py")


def test_near_misses_on_nodes_that_another_rule_takes_stand_too(toy):
    @rewrite(toy, Relu)
    def never(node, graph):
        graph.miss(node, "never")

    @rewrite(toy, Relu)
    def always(node, graph):
        graph.substitute(node, Tanh(), node.inputs)

    misses = []
    rewriter.apply_pass(toy, chain(Relu()), misses=misses)
    assert [m.reason for m in misses] == ["never"]


def test_the_log_as_text_and_as_data(toy):
    @rewrite(toy, Relu)
    def to_tanh(node, graph):
        graph.substitute(node, Tanh(), node.inputs)

    @rewrite(toy, Neg)
    def never(node, graph):
        graph.miss(node, "never")

    log = RewriteLog(["toy"])
    rewriter.apply_pass(toy, chain(Relu(), Neg()), log.firings, log.misses)
    text = plain(log.lines())
    assert text.startswith("toy: 1 rewrite, 1 near miss\n")
    assert '  - %relu = relu(%x) : f32[N,4] at "relu"\n  + %relu = tanh(%x)' in text
    assert "  ? neg %neg at neg: never\n" in text
    assert log.to_json()["near_misses"][0]["reason"] == "never"
    assert (len(log.about("relu").firings), len(log.about("relu").misses)) == (1, 0)


RULES = [(owner, rule) for owner in PIPELINE for rule in PASSES[owner].rules()]
NO_OPS = {"op", "f", "g", "h", "fc1", "fc2", "anchor"}
"""What stands for any function, or any op, in equations."""


@pytest.mark.parametrize(("owner", "rule"), RULES, ids=lambda r: getattr(r, "__name__", r))
def test_rules_begin_with_their_equation(owner, rule):
    """In one line, of ops that there are, and with what is to be said besides in a paragraph."""
    text, _, rest = rule.__doc__.partition("\n")
    assert text == equation(rule)
    assert " == " in text
    assert not text.endswith(".")
    assert set(re.findall(r"([a-z_]\w*)[({]", text)) <= set(OPS) | NO_OPS
    assert not rest or rest.startswith("\n    ")
