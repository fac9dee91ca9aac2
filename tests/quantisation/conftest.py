"""Small graphs of floats with tensors of their own, and measuring by the interpreter."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.samples import sample_payload
from lucid.ir.text import parse_graph
from lucid.quantisation import measure


def graph_of(text: str) -> Graph:
    """A graph from its text, with generated tensors."""
    graph = parse_graph(text)
    graph.payload = sample_payload(graph)
    return graph


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the quantiser interpret graphs, which is quicker for small ones than compiling them."""

    def runner(graph: Graph, threads: int | None) -> Callable[[Sequence[np.ndarray]], list]:
        return lambda arrays: interpret(graph, arrays)

    monkeypatch.setattr(measure, "runner", runner)
