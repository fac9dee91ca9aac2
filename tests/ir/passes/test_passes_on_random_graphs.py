"""Every pass, alone and with the others, keeps the meaning of random graphs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_equivalent, graphs

from lucid.ir.ops import BatchNorm, SplitAttention
from lucid.ir.passes import PASSES, PIPELINE, run_passes
from lucid.ir.text import parse_graph, print_graph

QUIET = ["conv", "residual", "activation"]


def test_the_pipeline_holds_every_pass():
    assert sorted(PIPELINE) == sorted(PASSES)


@pytest.mark.parametrize("name", PIPELINE)
@given(graph=graphs())
def test_a_pass_alone_keeps_the_meaning(name, graph):
    assert_equivalent(graph, run_passes(graph, [name]))


@given(graph=graphs(max_steps=8))
def test_the_pipeline_keeps_the_meaning_and_leaves_its_argument_alone(graph):
    text = print_graph(graph)
    after = run_passes(graph)
    assert_equivalent(graph, after)
    assert print_graph(graph) == text
    assert not after.find(BatchNorm)
    assert parse_graph(print_graph(after)) == after


@given(graph=graphs(), names=st.permutations(PIPELINE))
def test_any_order_keeps_the_meaning(graph, names):
    assert_equivalent(graph, run_passes(graph, names))


@given(graph=graphs())
def test_a_second_run_finds_nothing(graph):
    once = run_passes(graph)
    log = []
    assert run_passes(once, log=log) == once, log


@given(graph=graphs(only=["split_attention", "squeeze_excitation"], max_steps=3))
def test_attention_is_found_in_every_spelling(graph):
    """Each block becomes a node, unless it is dead or one of its values is an output."""
    after = run_passes(graph)
    assert_equivalent(graph, after)
    if len(graph.outputs) == 1:
        assert after.find(SplitAttention)
        assert not {"softmax", "sigmoid", "hardsigmoid"} & {n.op.name for n in after.nodes}
    assert all(n.op.folded for n in after.find(SplitAttention) if n.op.radix == 2)


@given(graph=graphs(only=QUIET))
def test_the_batch_is_no_part_of_it(graph):
    after = run_passes(graph)
    for batch in (0, 1, 3):
        assert_equivalent(graph, after, batch=batch)
