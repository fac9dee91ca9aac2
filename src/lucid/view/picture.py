"""`Picture`: the boxes, groups and edges to draw for a graph, independent of the format.

Boxes are inputs, nodes and outputs; parameters are told in the box of the node that reads them.
Groups nest as modules do: a node lies in the group of its origin where other nodes lie deeper, and
else in the group of the origin's parent, so that a module of one node is that node's box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import (
    OPS,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Constant,
    Convolution,
    Fusion,
    MaxPool2d,
    Op,
    Resize,
    SplitAttention,
)
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
    gone: bool = False


@dataclass(frozen=True)
class Part:
    """One of the nodes that a fused node was made of."""

    op: str
    origin: str
    kind: str


@dataclass(frozen=True)
class Box:
    """One thing drawn. `kind`: `input`, `output`, or the family of the op, such as `pooling`.

    `status`, where the picture is compared with one before: `added`, `changed`, or `removed`.
    `milliseconds`, where a profile is known. `decibels`, where it is known how far a quantised
    layer's result is off: signal to noise.
    """

    id: str
    title: str
    kind: str
    detail: str = ""
    origin: str = ""
    group: Group = ()
    results: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    status: str = ""
    milliseconds: float | None = None
    decibels: float | None = None


@dataclass(frozen=True)
class Picture:
    """Boxes in topological order."""

    name: str
    boxes: tuple[Box, ...]

    def groups(self) -> list[Group]:
        """Every group that holds a box, and the groups around it, in order of appearance."""
        found = (b.group[:depth] for b in self.boxes for depth in range(1, len(b.group) + 1))
        return list(dict.fromkeys(found))


def picture(graph: Graph | Picture) -> Picture:
    """The picture of a graph at any stage; a picture is its own."""
    if isinstance(graph, Picture):
        return graph
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
        kind=anchor.family,
        detail=_detail(anchor, node),
        origin=node.origin,
        group=path if path in inner else path[:-1],
        results=tuple(str(v.type) for v in node.outputs),
        edges=tuple(_edges(node.inputs, sources)),
        facts=_facts(node, anchor),
        parts=tuple(map(_part, node.fused_from)),
    )


def _part(text: str) -> Part:
    """What `conv2d layer1.0.conv1` names."""
    name, _, origin = text.partition(" ")
    return Part(name, origin, OPS[name].family if name in OPS else "")


def title(op: Op) -> str:
    """The name of an op; a fusion by all it does: `conv2d + add + relu`."""
    if not isinstance(op, Fusion):
        return op.name
    body = [n.op.name for n in op.body.nodes if not isinstance(n.op, Constant)]
    return " + ".join([op.anchor.name, *body])


def _detail(op: Op, node: Node) -> str:
    """The second line of a box: window and stride, which say most about a layer."""
    if isinstance(op, Convolution):
        window = node.inputs[1].type.shape[2:]
    elif isinstance(op, MaxPool2d | AvgPool2d):
        window = op.kernel
    elif isinstance(op, AdaptiveAvgPool2d | AdaptiveMaxPool2d | Resize):
        return "to {}x{}".format(*op.size)
    elif isinstance(op, SplitAttention):
        cardinality = f", cardinality {op.cardinality}" if op.cardinality > 1 else ""
        return f"radix {op.radix}{cardinality}"
    else:
        return ""
    stride = f", stride {op.stride[0]}" if set(op.stride) != {1} else ""
    groups = f", {op.groups} groups" if isinstance(op, Convolution) and op.groups > 1 else ""
    return f"{'x'.join(map(str, window))}{stride}{groups}"


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
