"""What the tests of passes share: graphs as text before and after, compared and run."""

from __future__ import annotations

import numpy as np
from strategies import assert_equivalent

from lucid.ir import Graph, TensorType
from lucid.ir.passes import Firing, Miss, run_passes
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import DTYPES


def with_payload(text: str, seed: int = 0) -> Graph:
    """The graph of a text, with random tensors for its sources; positive ones, as variances are,
    or integers."""
    graph = parse_graph(text)
    rng = np.random.default_rng(seed)

    def drawn(kind: TensorType) -> np.ndarray:
        if kind.dtype == "f32":
            return rng.uniform(0.5, 1.5, kind.concrete(1))
        dtype = DTYPES[kind.dtype]
        most = min(1000, int(np.iinfo(dtype).max))
        return rng.integers(max(-most, np.iinfo(dtype).min), most, kind.concrete(1), dtype)

    graph.payload = {name: drawn(source.type) for name, source in graph.sources().items()}
    return graph


def assert_rewrites(names: str | list[str], before: str, after: str) -> list[Firing]:
    """The passes turn one text into the other, both computing the same; gives what fired."""
    graph, log = with_payload(before), []
    result = run_passes(graph, [names] if isinstance(names, str) else names, log=log)
    assert print_graph(result) == print_graph(parse_graph(after))
    assert_equivalent(graph, result)
    return log


def assert_unchanged(names: str | list[str], text: str) -> None:
    """The passes leave the graph as it is."""
    assert assert_rewrites(names, text, text) == []


def after(names: str | list[str], text: str, ops: list[str]) -> Graph:
    """The graph of a text after the passes, which computes the same with just these ops."""
    graph = with_payload(text)
    result = run_passes(graph, [names] if isinstance(names, str) else names)
    assert [n.op.name for n in result.nodes] == ops, str(result)
    assert_equivalent(graph, result)
    return result


def computes(names: str | list[str], text: str, ops: str) -> Graph:
    """As `after`, with ops as words, constants left out."""
    graph = with_payload(text)
    result = run_passes(graph, [names] if isinstance(names, str) else names)
    found = [n.op.name for n in result.nodes if n.op.name != "constant"]
    assert found == ops.split(), str(result)
    assert_equivalent(graph, result)
    return result


def missed(name: str, text: str) -> list[str]:
    """What a pass that leaves a graph as it is says of it."""
    misses: list[Miss] = []
    graph = with_payload(text)
    assert run_passes(graph, [name], misses=misses) == graph
    return [m.reason for m in misses]
