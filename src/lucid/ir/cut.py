"""A part of a graph as a graph of its own: values that enter it become inputs."""

from __future__ import annotations

from collections.abc import Iterable

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.lineage import stems_from
from lucid.ir.ops import Constant


def cut(graph: Graph, pattern: str) -> Graph | None:
    """The nodes that do the work of the modules which match, such as `layer1.0` or `*.conv2`, or
    whose results match, such as `%relu_3`; None where nothing does."""
    nodes = [n for n in graph.nodes if stems_from(n, pattern)]
    return subgraph(graph, nodes) if nodes else None


def subgraph(graph: Graph, nodes: Iterable[Node]) -> Graph:
    """A legal graph of these nodes, under the names they have.

    Values that others make are its inputs, in the order in which they are made, but constants come
    along. It returns what others read of it, or the whole graph returns, or nobody reads.
    """
    inside = set(nodes)
    inside |= {n for n in _makers(inside) if isinstance(n.op, Constant)}
    kept = [n for n in graph.nodes if n in inside]
    made = {v for n in kept for v in n.outputs}
    read = {v for n in kept for v in n.inputs} - made
    part = Graph(graph.name, graph.payload)
    mapped: dict[Value, Value] = {}
    for value in graph.values():
        if value not in read:
            continue
        if isinstance(value, Parameter):
            mapped[value] = part.add_parameter(value.name, value.recipe)
        else:
            mapped[value] = part.add_input(value.type, value.name)
    for node in kept:
        new = part.append(
            node.op,
            [mapped[v] for v in node.inputs],
            names=[v.name for v in node.outputs],
            origin=node.origin,
            fused_from=node.fused_from,
            location=node.location,
        )
        mapped.update(zip(node.outputs, new.outputs, strict=True))
    returned = set(graph.outputs)
    part.set_outputs(
        mapped[v]
        for n in kept
        for v in n.outputs
        if v in returned or not v.users or any(u not in inside for u in v.users)
    )
    return part


def outermost(graph: Graph) -> list[str]:
    """The outermost modules of a graph, in order: what a pattern could begin with."""
    return list(dict.fromkeys(n.origin.split(".")[0] for n in graph.nodes if n.origin))


def _makers(nodes: Iterable[Node]) -> Iterable[Node]:
    return (v.producer for n in nodes for v in n.inputs if v.producer is not None)
