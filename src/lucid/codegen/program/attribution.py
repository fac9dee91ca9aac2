"""Attribution of the kernel calls of a program to the nodes of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lucid.codegen.program.program import KernelCall, Program, View, WeightRef
from lucid.ir.graph import Graph, Node
from lucid.ir.lineage import matches, stems_from

Placed = tuple[int, KernelCall]
"""A call and the number of its phase."""


def calls_by_node(program: Program, graph: Graph) -> dict[Node, list[Placed]]:
    """The calls of each node that has any, in order.

    A call belongs to the node whose result it writes, or a buffer named after it (`%y.sums`); else
    to the node of its module; else it only prepares what another call reads, and goes with that.
    """
    makers = {v.name: node for node in graph.nodes for v in node.outputs}
    makers |= {f"output{i}": v.producer for i, v in enumerate(graph.outputs) if v.producer}
    by_origin = {node.origin: node for node in reversed(graph.nodes) if node.origin}
    placed = [(n, call) for n, phase in enumerate(program.phases) for call in phase]
    owners: dict[int, Node] = {}
    readers: dict[str, Node] = {}
    for number, (_, call) in reversed(list(enumerate(placed))):
        buffer = call.writes[0].buffer
        owner = _maker(buffer, makers) or by_origin.get(call.origin) or readers.get(buffer)
        if owner is not None:
            owners[number] = owner
            readers |= {view.buffer: owner for view in call.reads}
    found: dict[Node, list[Placed]] = {}
    for number, entry in enumerate(placed):
        if number in owners:
            found.setdefault(owners[number], []).append(entry)
    return found


def _maker(buffer: str, makers: dict[str, Node]) -> Node | None:
    """The node after whose result a buffer is named: `%conv2d_3.sums`, `%relu.rows'`."""
    name = buffer.rstrip("'")
    while name not in makers and "." in name:
        name = name.rpartition(".")[0]
    return makers.get(name)


def doers(node: Node, calls: Mapping[Node, object]) -> list[Node]:
    """The nodes whose calls do the work of this one: itself, or where it has no calls, because its
    readers take what it reads and do the rest as they load it, the nearest readers that have."""
    found, left = dict[Node, None](), [node]
    for current in left:
        if current in calls:
            found.setdefault(current)
        else:
            left += [u for v in current.outputs for u in v.users if u not in left]
    return list(found)


def part_of(program: Program, graph: Graph, pattern: str) -> Program | None:
    """The program without all calls but those that do the work of the modules which match; None
    where there are none. Phases and buffers keep their numbers and places."""
    by_node = calls_by_node(program, graph)
    wanted = {id(c) for c in program.calls() if matches(c.origin, pattern)}
    for node in graph.nodes:
        for doer in doers(node, by_node) if stems_from(node, pattern) else ():
            calls = {id(call) for _, call in by_node[doer]}
            if matches(node.origin, pattern) or not calls & wanted:
                wanted |= calls
    if not wanted:
        return None
    phases = [[call for call in phase if id(call) in wanted] for phase in program.phases]
    used: set[str] = set()
    for call in (c for phase in phases for c in phase):
        used.update(view.buffer for view in (*call.reads, *call.writes))
        used.update(v.name for v in call.arguments.values() if isinstance(v, WeightRef))
        used.update(v.buffer for v in call.arguments.values() if isinstance(v, View))
    return replace(
        program,
        phases=phases,
        buffers={name: b for name, b in program.buffers.items() if name in used},
        weights={name: w for name, w in program.weights.items() if name in used},
        offsets={name: o for name, o in program.offsets.items() if name in used},
        inputs={name: v for name, v in program.inputs.items() if v.buffer in used},
        outputs={name: v for name, v in program.outputs.items() if v.buffer in used},
    )
