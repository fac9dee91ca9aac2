"""Random networks, quantised: close to floats, legal, and text like any other graph."""

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from strategies import graphs, random_inputs

import lucid
from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.verify import verify
from lucid.quantisation.measure import Noise
from lucid.quantisation.places import layers_of


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs(head=True))
def test_quantised_networks_stay_close(interpreted: None, graph: Graph) -> None:
    assume(layers_of(graph))
    inputs = random_inputs(graph, batch=4)
    with np.errstate(all="ignore"):
        wanted = interpret(graph, inputs)
        assume(all(np.isfinite(y).all() for y in wanted))
        model = lucid.quantize(graph, inputs)
        given = interpret(model.graph, inputs)
    verify(model.graph)
    assert parse_graph(print_graph(model.graph)) == model.graph
    for a, b in zip(wanted, given, strict=True):
        assert Noise.between(a, b).decibels > 12
