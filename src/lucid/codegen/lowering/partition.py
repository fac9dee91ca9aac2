"""A graph partitioned into regions, each of which is one Program, and nodes that run on the host.

A node that has no kernel is computed by its op's reference, between the regions that come before it
and those that read its result. A graph without such nodes is one region: the graph itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lucid.codegen.lowering.lower import lower, unsupported
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.errors import UnsupportedError
from lucid.ir.graph import Graph, Node, Parameter, Value


@dataclass(frozen=True, eq=False)
class Region:
    """Nodes that run in one native call, as a graph of their own: its `inputs` and `outputs` are
    these values of the whole graph, in order."""

    graph: Graph
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class HostNode:
    """A node of the whole graph that runs on the host."""

    node: Node


def partition(graph: Graph, on_host: Collection[Node]) -> list[Region | HostNode]:
    """The steps that compute a graph, in order, with as few regions as there can be.

    A node is in the first region that comes after all it reads: the number of regions is then that
    along the longest path, which no order can go below. A graph without nodes has no steps.
    """
    if not graph.nodes:
        return []
    if not on_host:
        return [Region(graph, tuple(graph.inputs), tuple(graph.outputs))]
    levels: dict[Node, int] = {}
    for node in graph.nodes:
        host = node in on_host
        before = {value.producer for value in node.inputs if value.producer is not None}
        # A host node has the level of the last region that it reads, and runs after that region.
        reach = [levels[n] + (n in on_host and not host) for n in before]
        levels[node] = max(reach, default=-1 if host else 0)
    steps: list[Region | HostNode] = []
    for level in range(-1, max(levels.values(), default=-1) + 1):
        own = [node for node in graph.nodes if levels[node] == level]
        native = [node for node in own if node not in on_host]
        if native:
            steps.append(_region(graph, native, level))
        steps += [HostNode(node) for node in own if node in on_host]
    return steps


def _region(graph: Graph, nodes: Sequence[Node], number: int) -> Region:
    """These nodes, in order, as a graph: it reads what they do not compute, and returns what is
    read outside."""
    region = Graph(f"{graph.name}_region{number}", graph.payload)
    members, mapped = set(nodes), dict[Value, Value]()
    inputs, outputs = [], []
    for node in nodes:
        for value in node.inputs:
            if value in mapped:
                continue
            if isinstance(value, Parameter):
                mapped[value] = region.add_parameter(value.name, value.recipe)
            else:
                mapped[value] = region.add_input(value.type, value.name)
                inputs.append(value)
        mapped.update(zip(node.outputs, region.adopt(node, mapped).outputs, strict=True))
    for node in nodes:
        for value in node.outputs:
            if value in graph.outputs or not members.issuperset(value.users):
                outputs.append(value)
    region.set_outputs(mapped[value] for value in outputs)
    return Region(region, tuple(inputs), tuple(outputs))


@dataclass(frozen=True, eq=False)
class Lowered:
    """A region and its Program."""

    region: Region
    program: Program


def lower_parts(
    graph: Graph,
    schedule: Schedule,
    target: Target,
    batch: int,
    threads: int = 1,
    host_nodes: bool = True,
) -> list[Lowered | HostNode]:
    """The regions of a graph, each lowered with the choices for its nodes, and its host nodes, in
    the order in which they run. Raises what `lower` does, but UnsupportedError only where there are
    to be no `host_nodes`."""
    on_host = dict.fromkeys(unsupported(graph) if host_nodes else ())
    while True:
        try:
            return [
                step
                if isinstance(step, HostNode)
                else _lowered(step, schedule, target, batch, threads)
                for step in partition(graph, on_host)
            ]
        except UnsupportedError as problem:  # of operands of a dtype that the kernel does not take
            node = _named(graph, problem.node)
            if not host_nodes or node is None or node in on_host:
                raise
            on_host[node] = None


def _lowered(
    region: Region, schedule: Schedule, target: Target, batch: int, threads: int
) -> Lowered:
    names = {value.name for node in region.graph.nodes for value in node.outputs}
    choices = Schedule({n: c for n, c in schedule.choices.items() if n in names})
    return Lowered(region, lower(region.graph, choices, target, batch, threads))


def _named(graph: Graph, name: str | None) -> Node | None:
    """The node of a graph with a result of this name."""
    return next((n for n in graph.nodes if n.outputs and n.outputs[0].name == name), None)
