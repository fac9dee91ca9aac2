"""The difference of two graphs: nodes removed, added, changed, or fused into others.

Nodes are the same if their results have the same name, which passes keep, or else if they alone do
the same op for the same module. A node that is gone was fused where its lineage (`fused_from`) says
so, into the nearest such node that it feeds; one that fed nothing but such nodes went with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.json_form import node_json, parameter_json
from lucid.ir.lineage import lineage, stems_from
from lucid.ir.marked import ADDED, HEADING, PLAIN, REMOVED, Line, block, plain
from lucid.ir.printer import print_attributes, print_node, print_parameter

LONGEST = 120
"""Characters of a parameter's line."""

KINDS = ("fused", "changed", "added", "removed", "rewired")


@dataclass(frozen=True)
class Change:
    """What became of one place in a graph.

    `kind`: `fused` (several nodes became `after`), `changed` (another op, attribute or type),
    `rewired` (only its operands changed), `added`, `removed`. `before`: the nodes as they were,
    `after`: the node as it is, None where there is none. `operands`: of a rewired node, each
    operand that changed, before and after. `parameters`: those which no node read before.
    """

    kind: str
    before: tuple[Node, ...]
    after: Node | None
    operands: tuple[tuple[str, str], ...] = ()
    parameters: tuple[Parameter, ...] = ()

    @property
    def node(self) -> Node:
        """The node it is about."""
        return self.after or self.before[-1]

    def __str__(self) -> str:
        """`%relu_1 at layer1.0.conv1: 3 nodes became one`"""
        node = self.node
        names = ", ".join(f"%{v.name}" for v in node.outputs)
        place = f"{names} at {node.origin}" if node.origin else names
        match self.kind:
            case "fused":
                return f"{place}: {len(self.before)} nodes became one"
            case "rewired":
                moves = ", ".join(f"{new} in place of {old}" for old, new in self.operands)
                return f"{place}: {node.op.name} reads {moves}"
        return f"{place}: {self.kind}"

    def lines(self) -> Iterator[Line]:
        yield Line(PLAIN, "")
        yield Line(PLAIN, str(self))
        if self.kind != "rewired":
            for node in self.before:
                yield from block(REMOVED, print_node(node, lineage=False))
            if self.after is not None:
                yield from block(ADDED, print_node(self.after, lineage=False))
        for parameter in self.parameters:
            yield Line(ADDED, _shortened(print_parameter(parameter)))

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "before": [node_json(n) for n in self.before],
            "after": node_json(self.after) if self.after else None,
            "operands": [{"before": old, "after": new} for old, new in self.operands],
            "parameters": [parameter_json(p) for p in self.parameters],
        }


@dataclass(frozen=True)
class GraphDiff:
    """All changes from one graph to another, in the order of the nodes.

    `dropped`: parameters that were there and that no node had read. `results`: what is returned,
    before and after, where that differs. `new_parameters`, `gone_parameters`: how many.
    """

    changes: tuple[Change, ...]
    dropped: tuple[Parameter, ...] = ()
    results: tuple[str, str] | None = None
    new_parameters: int = 0
    gone_parameters: int = 0
    names: tuple[str, str] = field(default=("before", "after"))

    def __bool__(self) -> bool:
        return bool(self.changes or self.dropped or self.results)

    def about(self, pattern: str) -> GraphDiff:
        """Only what became of the modules that match, or of results, such as `%relu_3`."""

        def wanted(change: Change) -> bool:
            nodes = (*change.before, *((change.after,) if change.after else ()))
            return any(stems_from(n, pattern) for n in nodes)

        changes = tuple(filter(wanted, self.changes))
        read = {p.name for c in changes for p in c.parameters}
        return GraphDiff(changes, new_parameters=len(read), names=self.names)

    def summary(self) -> str:
        """`canonical -> fused: 9 nodes became 3 by fusion, 1 changed; 4 parameters new, 12 gone`"""
        counts = Counter(c.kind for c in self.changes)
        fused = [c for c in self.changes if c.kind == "fused"]
        parts = []
        if fused:
            parts.append(f"{sum(len(c.before) for c in fused)} nodes fused into {len(fused)}")
        parts += [f"{counts[kind]} {kind}" for kind in KINDS[1:] if counts[kind]]
        text = ", ".join(parts) or ("no node changed" if self else "no difference")
        counted = ((self.new_parameters, "new"), (self.gone_parameters, "gone"))
        moves = ", ".join(f"{count} {word}" for count, word in counted if count)
        text += f"; parameters: {moves}" if moves else ""
        return f"{' -> '.join(self.names)}: {text}"

    def lines(self) -> Iterator[Line]:
        """The summary, then each change with the lines it takes away and puts there."""
        yield Line(HEADING, self.summary())
        for change in self.changes:
            yield from change.lines()
        if self.dropped:
            yield Line(PLAIN, "")
            yield Line(PLAIN, "parameters that nothing read")
            for parameter in self.dropped:
                yield Line(REMOVED, _shortened(print_parameter(parameter)))
        if self.results:
            yield Line(PLAIN, "")
            yield Line(REMOVED, f"return {self.results[0]}")
            yield Line(ADDED, f"return {self.results[1]}")

    def __str__(self) -> str:
        return plain(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "from": self.names[0],
            "to": self.names[1],
            "changes": [c.to_json() for c in self.changes],
            "dropped": [parameter_json(p) for p in self.dropped],
            "results": list(self.results) if self.results else None,
            "parameters": {"new": self.new_parameters, "gone": self.gone_parameters},
        }


def diff(before: Graph, after: Graph, names: tuple[str, str] = ("before", "after")) -> GraphDiff:
    """What became of `before` on the way to `after`. `names`: what to call the two."""
    match = _Match(before, after)
    order = {node: i for i, node in enumerate(before.nodes)}
    placed: list[tuple[int, Change]] = []
    known = {p.name: p for p in before.parameters.values()}
    told = set(known)
    position = 0
    for node in after.nodes:
        old = match.old.get(node)
        position = order[old] if old is not None else position
        change = match.change(node, told)
        if change is not None:
            placed.append((position, change))
        told |= {p.name for p in _parameters(node)}
    for node in match.removed():
        placed.append((order[node], Change("removed", (node,), None)))
    read = {p for n in before.nodes for p in _parameters(n)}
    gone = [p for p in known.values() if p.name not in after.parameters]
    returned = [", ".join(f"%{v.name}" for v in g.outputs) for g in (before, after)]
    renamed = ", ".join(match.renamed(v) for v in before.outputs)
    return GraphDiff(
        tuple(change for _, change in sorted(placed, key=lambda p: p[0])),
        tuple(p for p in gone if p not in read),
        (returned[0], returned[1]) if renamed != returned[1] else None,
        sum(name not in known for name in after.parameters),
        len(gone),
        names,
    )


class _Match:
    """Which nodes of two graphs are the same, and which were fused into which."""

    def __init__(self, before: Graph, after: Graph) -> None:
        self.before = before
        self.old: dict[Node, Node] = _pairs(before, after)
        self.new = {old: new for new, old in self.old.items()}
        self.names = {
            v.name: w.name
            for old, new in self.new.items()
            for v, w in zip(old.outputs, new.outputs, strict=False)
        }
        self.parts: dict[Node, list[Node]] = {}
        for node in before.nodes:
            whole = None if node in self.new else self._whole(node)
            if whole is not None:
                self.parts.setdefault(whole, []).append(node)
        self._take_along()

    def _take_along(self) -> None:
        """What fed nothing but parts of one node is part of it too."""
        wholes: dict[Node, Node] = {
            part: whole for whole, parts in self.parts.items() for part in parts
        }
        wholes |= {self.old[whole]: whole for whole in self.parts}
        for node in reversed(self.before.nodes):
            readers = {wholes.get(u) for v in node.outputs for u in v.users}
            if node in wholes or node in self.new or len(readers) != 1:
                continue
            whole = readers.pop()
            if whole is not None and not any(v in self.before.outputs for v in node.outputs):
                wholes[node] = whole
                self.parts[whole].append(node)
        order = {node: i for i, node in enumerate(self.before.nodes)}
        for parts in self.parts.values():
            parts.sort(key=order.__getitem__)

    def _whole(self, node: Node) -> Node | None:
        """The nearest node downstream that was fused from this one, as it is after."""
        wanted = Counter(lineage(node))
        seen, reached = {node}, [node]
        for current in reached:
            new = self.new.get(current)
            if new is not None and wanted <= Counter(new.fused_from):
                return new
            for user in (u for v in current.outputs for u in v.users if u not in seen):
                seen.add(user)
                reached.append(user)
        return None

    def removed(self) -> list[Node]:
        fused = {n for parts in self.parts.values() for n in parts}
        return [n for n in self.before.nodes if n not in self.new and n not in fused]

    def renamed(self, value: Value) -> str:
        """An operand as it is called after."""
        if isinstance(value, Parameter):
            return f"@{value.name}"
        return f"%{self.names.get(value.name, value.name)}"

    def change(self, node: Node, told: set[str]) -> Change | None:
        """What became of a node that is there now. `told`: parameters that need no mention."""
        old = self.old.get(node)
        new = tuple(p for p in dict.fromkeys(_parameters(node)) if p.name not in told)
        if old is None:
            return Change("added", (), node, parameters=new)
        parts = self.parts.get(node)
        if parts:
            return Change("fused", (*parts, old), node, parameters=new)
        if _does(old) != _does(node) or len(old.inputs) != len(node.inputs):
            return Change("changed", (old,), node, parameters=new)
        pairs = zip(map(self.renamed, old.inputs), map(_operand, node.inputs), strict=True)
        moved = tuple(dict.fromkeys((a, b) for a, b in pairs if a != b))
        return Change("rewired", (old,), node, moved, new) if moved else None


def _pairs(before: Graph, after: Graph) -> dict[Node, Node]:
    """For nodes of `after` the same node of `before`."""
    by_name = {n.outputs[0].name: n for n in before.nodes}
    found = {n: by_name[name] for n in after.nodes if (name := n.outputs[0].name) in by_name}
    taken = set(found.values())
    left = [_alone(n for n in before.nodes if n not in taken)]
    left.append(_alone(n for n in after.nodes if n not in found))
    return found | {left[1][key]: old for key, old in left[0].items() if key in left[1]}


def _alone(nodes: Iterator[Node]) -> dict[tuple[str, str], Node]:
    """By op and module, the nodes that are the only ones of theirs."""
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.op.name, node.origin), []).append(node)
    return {key: some[0] for key, some in groups.items() if key[1] and len(some) == 1}


def _does(node: Node) -> tuple[object, ...]:
    """What a node does, whatever it reads. Attributes as text: bodies are compared by theirs."""
    types = tuple(v.type for v in node.outputs)
    return node.op.name, print_attributes(node.op), types, node.origin


def _shortened(text: str) -> str:
    """Recipes grow long; what is of interest is how they begin."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _parameters(node: Node) -> Sequence[Parameter]:
    return [v for v in node.inputs if isinstance(v, Parameter)]


def _operand(value: Value) -> str:
    return f"{'@' if isinstance(value, Parameter) else '%'}{value.name}"
