"""The random graphs are legal, run, and hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import STEPS, Builder, assert_equivalent, graphs, random_inputs

from lucid.ir import interpret, verify
from lucid.ir.ops import AvgPool2d, Conv2d, Linear, Softmax


@given(graphs(), st.integers(0, 2))
def test_random_graphs_are_legal_and_tame(graph, batch):
    verify(graph)
    for array in interpret(graph, random_inputs(graph, batch)):
        assert np.isfinite(array).all()
        assert np.abs(array).max(initial=0) < 1e4
    assert_equivalent(graph, graph.clone())


@pytest.mark.parametrize("step", STEPS)
def test_every_step_can_be_had_alone(step):
    @settings(max_examples=5)
    @given(graphs(max_steps=2, only=[step], head=True))
    def check(graph):
        verify(graph)
        assert graph.find(Linear)

    check()


def test_steps_can_be_left_out():
    @settings(max_examples=10)
    @given(graphs(without=["avg_pool"]))
    def check(graph):
        assert not graph.find(AvgPool2d)

    check()


@pytest.mark.parametrize(("radix", "cardinality"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_both_spellings_of_split_attention_agree(radix, cardinality):
    def build(by_slices):
        builder = Builder(seed=3)
        x = builder.input(radix * cardinality * 3, 4, 5)
        y = builder.split_attention(x, radix, cardinality, 2 * cardinality, by_slices)
        builder.graph.set_outputs([y])
        verify(builder.graph)
        return builder.graph

    assert build(True).find(Softmax) or radix == 1
    assert len(build(True).find(Conv2d)) == 2
    assert_equivalent(build(True), build(False))
