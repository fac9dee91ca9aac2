"""What a picture of a graph shows, before any form of drawing it: boxes, groups and edges.

Boxes are inputs, nodes and outputs; parameters are told in the box of the node that reads them.
Groups nest as modules do: a node lies in the group of its origin where other nodes lie deeper, and
else in the group of the origin's parent, so that a module of one node is that node's box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Constant, Conv2d, Fusion, Op
from lucid.ir.text import print_attributes, print_op, print_recipe

Group = tuple[str, ...]
"""A module path as its parts: ("layer1", "0", "conv2")."""


@dataclass(frozen=True)
class Edge:
    """Result number `result` of the box `source`, read as operand number `operand`."""

    source: str
    result: int
    operand: int
    type: str


@dataclass(frozen=True)
class Box:
    """One thing drawn. `kind`: `input`, `output`, or the family of the op, such as `pooling`."""

    id: str
    title: str
    kind: str
    detail: str = ""
    group: Group = ()
    results: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """Boxes in topological order."""

    name: str
    boxes: tuple[Box, ...]

    def groups(self) -> list[Group]:
        """Every group that holds a box, and the groups around it, in order of appearance."""
        found = (b.group[:depth] for b in self.boxes for depth in range(1, len(b.group) + 1))
        return list(dict.fromkeys(found))


def picture(graph: Graph) -> Picture:
    """The picture of a graph at any stage."""
    inner = _inner_groups(graph)
    sources = {v: (v.name, 0) for v in graph.inputs}
    boxes = [Box(v.name, v.name, "input", results=(str(v.type),)) for v in graph.inputs]
    for node in graph.nodes:
        box = _node_box(node, inner, sources)
        boxes.append(box)
        sources.update((v, (box.id, i)) for i, v in enumerate(node.outputs))
    for number, value in enumerate(graph.outputs):
        title = "output" if len(graph.outputs) == 1 else f"output {number}"
        boxes.append(
            Box(f"output:{number}", title, "output", edges=tuple(_edges([value], sources)))
        )
    return Picture(graph.name, tuple(boxes))


def _inner_groups(graph: Graph) -> set[Group]:
    """The module paths below which other nodes lie."""
    paths = {tuple(n.origin.split(".")) for n in graph.nodes}
    return {p[:depth] for p in paths for depth in range(1, len(p))}


def _node_box(node: Node, inner: set[Group], sources: dict[Value, tuple[str, int]]) -> Box:
    path = tuple(filter(None, node.origin.split(".")))
    anchor = node.op.anchor if isinstance(node.op, Fusion) else node.op
    return Box(
        id=node.outputs[0].name,
        title=title(node.op),
        kind=family(anchor),
        detail=_detail(anchor, node),
        group=path if path in inner else path[:-1],
        results=tuple(str(v.type) for v in node.outputs),
        edges=tuple(_edges(node.inputs, sources)),
        facts=_facts(node, anchor),
    )


def title(op: Op) -> str:
    """The name of an op; a fusion by all it does: `conv2d + add + relu`."""
    if not isinstance(op, Fusion):
        return op.name
    body = [n.op.name for n in op.body.nodes if not isinstance(n.op, Constant)]
    return " + ".join([op.anchor.name, *body])


def family(op: Op) -> str:
    """The family an op belongs to, which is the file it is declared in."""
    return type(op).__module__.rsplit(".", 1)[-1]


def _detail(op: Op, node: Node) -> str:
    """The second line of a box: window and stride, which say most about a layer."""
    if not isinstance(op, Conv2d):
        return ""
    height, width = node.inputs[1].type.shape[2:]
    stride = f", stride {op.stride[0]}" if op.stride != (1, 1) else ""
    groups = f", {op.groups} groups" if op.groups > 1 else ""
    return f"{height}x{width}{stride}{groups}"


def _edges(values: list[Value], sources: dict[Value, tuple[str, int]]) -> Iterator[Edge]:
    for operand, value in enumerate(values):
        if not isinstance(value, Parameter):
            yield Edge(*sources[value], operand, str(value.type))


def _facts(node: Node, anchor: Op) -> dict[str, str]:
    """What a viewer tells about a node when asked."""
    facts = {"op": node.op.name}
    if node.origin:
        facts["origin"] = node.origin
    attributes = print_attributes(anchor)
    if attributes:
        facts["attributes"] = attributes[1:-1]
    if isinstance(node.op, Fusion):
        facts["anchor"] = print_op(anchor)
    for value in node.inputs:
        if isinstance(value, Parameter):
            facts[f"@{value.name}"] = f"{value.type} = {print_recipe(value.recipe)}"
    if node.fused_from:
        facts["fused from"] = ", ".join(node.fused_from)
    return facts
