"""HTML: one page with everything in it, in which modules fold and unfold.

Python says what there is, what it looks like, and in which order things stand in every module; the
page (`layout.js`, `draw.js`, `panels.js`, `page.js`) lays out what is unfolded and draws it.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from lucid.ir.graph import Graph
from lucid.view.colours import COLOURS, style_class, stylesheet
from lucid.view.layers import Order
from lucid.view.looks import Look, box_look, scope_look, short_type
from lucid.view.modules import Scope, modules
from lucid.view.overlay import MemoryPlan
from lucid.view.picture import Box, Picture, picture
from lucid.view.text_width import SIZES

SCRIPTS = ("layout.js", "draw.js", "panels.js", "page.js")


@dataclass(frozen=True)
class Stage:
    """One position of the slider. `note` says what was done to come to this picture."""

    name: str
    drawn: Picture
    note: str = ""


def to_html(graph: Graph | Picture) -> str:
    """The page of one graph."""
    return page([Stage(graph.name, picture(graph))])


def page(
    stages: Sequence[Stage],
    first: int = -1,
    memory: MemoryPlan | None = None,
    depth: int | None = None,
) -> str:
    """The page of a graph at some stages; it opens at number `first`. Boxes that are marked in a
    picture (see `compare`) are shown so. `memory`: for the last stage. `depth`: the level of the
    modules that are folded at first, 1 for the outermost; by default what there is room for."""
    tables = _Tables()
    name = stages[first].drawn.name
    data = {
        "name": name,
        "first": first % len(stages),
        "stages": [tables.stage(stage) for stage in stages],
        "nodes": tables.nodes.rows,
        "facts": tables.facts.rows,
        "parts": tables.parts.rows,
        "looks": tables.looks.rows,
        "orders": tables.orders.rows,
        "scopes": tables.scopes.rows,
        "titleSize": SIZES["frame-title"],
        "depth": depth,
        "families": [[kind, style_class(kind)] for kind in COLOURS],
        "memory": asdict(memory) if memory else None,
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    return Template(_asset("page.html")).substitute(
        title=escape(name),
        style=stylesheet() + _asset("page.css"),
        data=text,
        script="\n".join(map(_asset, SCRIPTS)),
    )


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class _Table:
    """Rows that are told once however often they are referred to, by number."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable, row: Any) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.rows)
            self.rows.append(row)
        return self._numbers[key]


class _Tables:
    """The data of the page. Scopes refer to nodes by their number n, to scopes by -1 - n."""

    def __init__(self) -> None:
        self.nodes, self.facts, self.parts = _Table(), _Table(), _Table()
        self.looks, self.orders, self.scopes = _Table(), _Table(), _Table()

    def stage(self, stage: Stage) -> dict[str, Any]:
        statuses = [box.status for box in stage.drawn.boxes]
        return {
            "name": stage.name,
            "note": stage.note,
            "root": self.scope(modules(stage.drawn)),
            "counts": {s: statuses.count(s) for s in ("added", "changed", "removed")},
        }

    def scope(self, scope: Scope) -> int:
        """The number of a scope."""
        row = {
            "path": scope.path,
            "title": scope.title,
            "repeat": scope.repeat,
            "look": self._look(scope_look(scope, sign="▸ ")) if scope.path else -1,
            "items": [
                self.node(i, scope.path) if isinstance(i, Box) else -1 - self.scope(i)
                for i in scope.items
            ],
            "ins": [_name(*key) for key in scope.ins],
            "outs": [_name(*key) for key in scope.outs],
            "wires": [[_name(*w.key), w.source, w.targets, w.gone] for w in scope.wires],
            "order": self._order(scope.order),
        }
        return self.scopes.number(json.dumps(row), row)

    def node(self, box: Box, path: str) -> int:
        """The number of a box in the scope `path`."""
        facts = tuple(box.facts.items())
        parts = [[p.op, p.origin, style_class(p.kind)] for p in box.parts]
        row = (
            box.id,
            box.title,
            box.kind,
            box.origin,
            box.status,
            self._look(box_look(box, path)),
            self.facts.number(facts, facts),
            self.parts.number(box.parts, parts),
            tuple(map(short_type, box.results)),
            tuple(_name(e.source, e.result) for e in box.edges if not e.gone),
            box.milliseconds,
            None if box.decibels is None else _noise(box.decibels),
        )
        return self.nodes.number(row, row)

    def _look(self, look: Look) -> int:
        row = (look.width, look.height, look.foot, look.outs, look.svg)
        return self.looks.number(row, row)

    def _order(self, order: Order) -> int:
        row = (order.ins, order.outs, order.lanes, order.layers, order.links)
        return self.orders.number(order, row)


def _noise(decibels: float) -> float:
    """What a signal-to-noise ratio says of noise: its power, as a share of the signal's."""
    return min(10 ** (-decibels / 10), 1.0)


def _name(source: str, result: int) -> str:
    """A value's name in the page: that of the node, and which of its results."""
    return f"{source}:{result}"
