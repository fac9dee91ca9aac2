"""Every pass, alone, in order and in any order, keeps the meaning of what frameworks write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idioms import IDIOMS, idiomatic_graphs
from strategies import Builder, assert_equivalent

from lucid.ir.passes import PIPELINE, run_passes
from lucid.ir.text import parse_graph, print_graph


@pytest.mark.parametrize("name", sorted(IDIOMS))
@given(data=st.data())
def test_an_idiom_keeps_its_meaning(name, data):
    build = Builder(seed=data.draw(st.integers(0, 99)))
    x = build.input(data.draw(st.integers(1, 6)), 5, 6)
    build.graph.set_outputs([IDIOMS[name](data.draw, build, [x])])
    assert_equivalent(build.graph, run_passes(build.graph))


@pytest.mark.parametrize("name", PIPELINE)
@given(graph=idiomatic_graphs())
def test_a_pass_alone_keeps_the_meaning(name, graph):
    assert_equivalent(graph, run_passes(graph, [name]))


@given(graph=idiomatic_graphs(max_steps=6))
def test_the_pipeline_keeps_the_meaning(graph):
    after = run_passes(graph)
    assert_equivalent(graph, after)
    assert parse_graph(print_graph(after)) == after


@given(graph=idiomatic_graphs(), names=st.permutations(PIPELINE))
def test_any_order_keeps_the_meaning(graph, names):
    assert_equivalent(graph, run_passes(graph, names))


@given(graph=idiomatic_graphs())
def test_a_second_run_finds_nothing(graph):
    once = run_passes(graph)
    log = []
    assert run_passes(once, log=log) == once, log
