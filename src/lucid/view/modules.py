"""The modules of a picture as nested scopes, each a small graph of its own.

A scope holds boxes and inner scopes, ports where values come in and go out, and wires between
them. Equal modules that follow each other fold into one scope, "x5". A module whose nodes run at
several times (called twice, say) becomes as many scopes, so that scopes never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from lucid.view.layers import Order, Wiring, order
from lucid.view.picture import Box, Picture

Key = tuple[str, int]
"""A value: the box it comes from, and the number of the result."""


@dataclass(frozen=True)
class Wire:
    """A value in a scope: the slot it comes from and the slots that read it (see `layers`), and
    those among them that do not read it any more."""

    key: Key
    type: str
    source: int
    targets: tuple[int, ...]
    gone: tuple[int, ...] = ()


@dataclass
class Scope:
    """A module of two things at least, or the whole picture. `repeat`: how many equal modules it
    stands for."""

    path: str
    title: str
    items: list[Box | Scope]
    ins: list[Key] = field(default_factory=list)
    outs: list[Key] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    repeat: int = 1

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """Every box in it, at any depth."""
        return tuple(box for item in self.items for box in _boxes(item))

    @cached_property
    def wiring(self) -> Wiring:
        return tuple((w.source, w.targets) for w in self.wires)

    @cached_property
    def order(self) -> Order:
        return order(len(self.items), len(self.ins), len(self.outs), self.wiring)

    @cached_property
    def signature(self) -> int:
        """Equal for modules that do the same, whatever they are called."""
        items = tuple(
            i.signature if isinstance(i, Scope) else _box_signature(i, self.path)
            for i in self.items
        )
        types = tuple((w.type, w.gone) for w in self.wires)
        return hash((items, self.wiring, types, len(self.ins), len(self.outs), self.repeat))


def _box_signature(box: Box, path: str) -> tuple[object, ...]:
    name, parts = box.origin.removeprefix(path), tuple(p.op for p in box.parts)
    return (box.title, box.detail, box.results, parts, box.status, name)


def modules(drawn: Picture) -> Scope:
    """The scope of a whole picture."""
    return _Builder(drawn).scope((), "", list(drawn.boxes))


class _Builder:
    def __init__(self, drawn: Picture) -> None:
        self.names = {box.id for box in drawn.boxes}
        self.readers: dict[Key, dict[str, bool]] = {}
        for box in drawn.boxes:
            for edge in box.edges:
                readers = self.readers.setdefault((edge.source, edge.result), {})
                readers[box.id] = readers.get(box.id, True) and edge.gone

    def scope(self, group: tuple[str, ...], path: str, boxes: list[Box]) -> Scope:
        """The scope of the module `group`, and the scopes in it."""
        items: list[Box | Scope] = []
        for (part, call), members in self._parts(len(group), boxes).items():
            if not part:
                items += members
                continue
            inner = (*group, part)
            module = self.scope(inner, ".".join(inner) + call, members)
            items.append(module.items[0] if len(module.items) == 1 else module)
        return self._wired(Scope(path, _title(path), self._folded(items)))

    def _parts(self, depth: int, boxes: list[Box]) -> dict[tuple[str, str], list[Box]]:
        """The boxes by inner module and call of it; boxes of the module itself under `("", id)`."""
        part = {b.id: b.group[depth] if len(b.group) > depth else "" for b in boxes}
        call = {b.id: "" if part[b.id] else b.id for b in boxes}
        for attempt in range(3):
            found: dict[tuple[str, str], list[Box]] = {}
            for box in boxes:
                found.setdefault((part[box.id], call[box.id]), []).append(box)
            tangled = {name for name, _ in _cycles(found) if name}
            if not tangled or attempt == 2:
                break
            for name in tangled:
                if attempt == 0:
                    call |= _calls(boxes, {i for i, p in part.items() if p == name})
                else:  # two modules that need each other: show their boxes instead
                    inside = [i for i, p in part.items() if p == name]
                    part |= dict.fromkeys(inside, "")
                    call |= {i: i for i in inside}
        return found

    def _wired(self, scope: Scope) -> Scope:
        """The scope with its ports and wires, found from the edges of its boxes."""
        owner: dict[str, int] = {}
        for i, item in enumerate(scope.items):
            owner.update(dict.fromkeys((b.id for b in _boxes(item)), i))
        found: dict[Key, tuple[str, dict[int, bool]]] = {}
        ins: dict[Key, None] = {}
        for i, item in enumerate(scope.items):
            for box in _boxes(item):
                for edge in box.edges:
                    source = owner.get(edge.source)
                    if source == i or edge.source not in self.names:
                        continue
                    key = (edge.source, edge.result)
                    if source is None:
                        ins.setdefault(key)
                    targets = found.setdefault(key, (edge.type, {}))[1]
                    targets[i] = targets.get(i, True) and edge.gone
        scope.ins = list(ins)
        scope.outs = self._outs(owner, scope)
        first = {key: len(scope.items) + i for i, key in enumerate(scope.ins)}
        last = {key: len(scope.items) + len(ins) + i for i, key in enumerate(scope.outs)}
        types = {(b.id, n): t for b in scope.boxes for n, t in enumerate(b.results)}
        for key in dict.fromkeys([*found, *scope.outs]):
            kind, targets = found.get(key, (types.get(key, ""), {}))
            source = owner[key[0]] if key[0] in owner else first[key]
            if key in last:
                outside = (old for name, old in self.readers[key].items() if name not in owner)
                targets[last[key]] = all(outside)
            gone = tuple(slot for slot, old in targets.items() if old)
            scope.wires.append(Wire(key, kind, source, tuple(targets), gone))
        return scope

    def _outs(self, owner: dict[str, int], scope: Scope) -> list[Key]:
        """The values that are read outside, in the order in which they are made."""
        return [
            (box.id, n)
            for box in scope.boxes
            for n in range(len(box.results))
            if any(reader not in owner for reader in self.readers.get((box.id, n), ()))
        ]

    def _folded(self, items: list[Box | Scope]) -> list[Box | Scope]:
        """The items, each run of equal scopes that feed each other as one scope."""
        folded: list[Box | Scope] = []
        run: list[Scope] = []
        for item in [*items, None]:
            follows = isinstance(item, Scope) and run and self._follows(run[-1], item)
            if run and not follows:
                folded += [self._run(run)] if len(run) > 1 else run
                run = []
            if isinstance(item, Scope):
                run.append(item)
            elif item is not None:
                folded.append(item)
        return folded

    def _follows(self, before: Scope, scope: Scope) -> bool:
        """Whether they are equal but for a number in the name, and one feeds the other alone."""
        names = [s.path.rstrip("0123456789") for s in (before, scope)]
        numbered = names[0] == names[1] and before.path != names[0] and scope.path != names[1]
        if not numbered or before.signature != scope.signature:
            return False
        inside = {box.id for box in scope.boxes}
        fed = set(scope.ins) == set(before.outs)
        return fed and all(inside.issuperset(self.readers[key]) for key in before.outs)

    def _run(self, run: list[Scope]) -> Scope:
        first, last = run[0], run[-1]
        name = last.path.rsplit(".", 1)[-1]
        path = f"{first.path}–{name}"
        scope = Scope(path, f"{first.title}–{name}", list(run), repeat=len(run))
        return self._wired(scope)


def _title(path: str) -> str:
    """The last part of a path; a number says little alone: `layer1.0`."""
    parts = path.split(".")
    return ".".join(parts[-2:] if parts[-1].split("#")[0].isdigit() else parts[-1:])


def _boxes(item: Box | Scope) -> Iterable[Box]:
    return (item,) if isinstance(item, Box) else item.boxes


def _cycles(found: dict[tuple[str, str], list[Box]]) -> set[tuple[str, str]]:
    """Those among the parts of a scope that wait for each other."""
    owner = {box.id: key for key, members in found.items() for box in members}
    after: dict[tuple[str, str], set[tuple[str, str]]] = {key: set() for key in found}
    for key, members in found.items():
        for box in members:
            for edge in box.edges:
                source = owner.get(edge.source)
                if source is not None and source != key:
                    after[source].add(key)
    missing = dict.fromkeys(found, 0)
    for keys in after.values():
        for key in keys:
            missing[key] += 1
    ready = [key for key, count in missing.items() if not count]
    for key in ready:
        for reader in after[key]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if len(ready) == len(found):
        return set()
    import networkx as nx

    parts = nx.strongly_connected_components(nx.DiGraph(after))
    return {key for part in parts if len(part) > 1 for key in part}


def _calls(boxes: list[Box], inside: set[str]) -> dict[str, str]:
    """For each box of a module which call of it this is, `#2` for the second: the next begins where
    a value comes back that had left the module."""
    inner: dict[str, int] = {}
    outer: dict[str, int] = {}  # the last call that a box outside depends on
    for box in boxes:
        sources = [e.source for e in box.edges]
        past = [outer[s] for s in sources if s in outer]
        same = [inner[s] for s in sources if s in inner]
        if box.id in inside:
            inner[box.id] = max([0, *same, *(p + 1 for p in past)])
        elif past or same:
            outer[box.id] = max([*past, *same])
    return {name: f"#{number + 1}" if number else "" for name, number in inner.items()}
