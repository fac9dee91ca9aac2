"""SVG: one figure of a graph, modules as frames, fused nodes with what they were made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html import escape

from lucid.ir.graph import Graph
from lucid.view.colours import COLOURS, style_class, stylesheet
from lucid.view.looks import BEHIND, Look, box_look
from lucid.view.modules import Scope, modules
from lucid.view.picture import Box, Picture, picture
from lucid.view.place import Cell, Placed, place
from lucid.view.text_width import text_width

SIDE, HEAD, FOOT = 14, 24, 10
"""The room between a frame and what is in it."""
MARGIN, TITLE, LEGEND = 20, 34, 30


def to_svg(graph: Graph | Picture) -> str:
    """The figure of a graph; modules that repeat are drawn once, with how often."""
    drawn = picture(graph)
    root = _laid_out(modules(drawn))
    shown = {b.kind for b in drawn.boxes} | {p.kind for b in drawn.boxes for p in b.parts}
    kinds = [k for k in COLOURS if k in shown - {"input", "output"}]
    legend, legend_width = _legend(kinds)
    title = escape(drawn.name)
    nodes = sum(b.kind not in ("input", "output") for b in drawn.boxes)
    note = f"{nodes} node{'s' * (nodes != 1)}"
    heading = text_width(drawn.name, 15, True) + text_width(note, 11) + 12
    inner = max(root.width, legend_width, heading)
    width, height = inner + 2 * MARGIN, root.height + 2 * MARGIN + TITLE + LEGEND
    parts: list[str] = []
    root.draw(MARGIN + (inner - root.width) / 2, MARGIN + TITLE, parts.append)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lucid" width="{width:.0f}" '
            f'height="{height:.0f}" viewBox="0 0 {width:.1f} {height:.1f}" role="img">',
            f"<title>{title}</title>",
            f"<style>\n{stylesheet()}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            f'<text class="heading" x="{MARGIN}" y="{MARGIN + 12}">{title}'
            f'<tspan class="detail" dx="10" font-weight="400">{note}</tspan></text>',
            *parts,
            f'<g class="legend" transform="translate({MARGIN},{height - MARGIN - 14:.1f})">'
            f"{legend}</g>",
            "</svg>\n",
        ]
    )


def _legend(kinds: Sequence[str]) -> tuple[str, float]:
    """A sample of each family's colour and its name, and how wide they are together."""
    parts, x = [], 0.0
    for kind in kinds:
        parts.append(
            f'<rect class="{style_class(kind)}" x="{x:.1f}" y="0" width="14" height="12" rx="3"/>'
            f'<text class="name" x="{x + 19:.1f}" y="10">{kind}</text>'
        )
        x += 19 + text_width(kind, 10) + 14
    return "".join(parts), x


@dataclass
class _Laid:
    """A scope with coordinates: what stands in each slot, and links as curves."""

    scope: Scope
    title: str
    looks: list[Look | _Laid] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    placed: Placed | None = None
    width: float = 0
    height: float = 0
    left: float = 0
    top: float = 0

    @property
    def behind(self) -> float:
        """The room for frames behind this one."""
        return BEHIND if self.scope.repeat > 1 else 0

    def port(self, slot: int) -> float:
        """Where a port is, from the middle of the frame."""
        assert self.placed is not None
        return self.left + self.placed.x[slot] - self.width / 2

    def draw(self, x: float, y: float, emit: Callable[[str], None]) -> None:
        """Frame, links and everything inside, the frame's corner at (x, y)."""
        assert self.placed is not None
        if self.title:
            self._draw_frame(x, y, emit)
        x, y = x + self.left, y + self.top
        for line in self._links(x, y):
            emit(line)
        for slot, item in enumerate(self.looks):
            left = x + self.placed.x[slot] - self.cells[slot].width / 2
            top = y + self.placed.y[slot]
            if isinstance(item, _Laid):
                item.draw(left, top, emit)
            else:
                emit(_placed_box(self.scope.items[slot], item, left, top))

    def _draw_frame(self, x: float, y: float, emit: Callable[[str], None]) -> None:
        """The frame and its title; more frames behind it where it stands for several modules."""
        behind = self.behind
        for d in (behind, behind / 2, 0) if behind else (0,):
            emit(
                f'<rect class="{"behind" if d else "frame"}" x="{x + d:.1f}" '
                f'y="{y + behind - d:.1f}" width="{self.width - behind:.1f}" '
                f'height="{self.height - behind:.1f}" rx="10"/>'
            )
        emit(
            f'<text class="frame-title" x="{x + 10:.1f}" y="{y + behind + 17:.1f}">'
            f"{escape(self.title)}</text>"
        )

    def _links(self, x: float, y: float) -> list[str]:
        """The path of every link: down its row, through the gap, and down to where it ends."""
        assert self.placed is not None
        p, order, cells = self.placed, self.scope.order, self.cells
        lines, items = [], len(self.looks)
        ends = len(p.tops) - 1
        for wire, a, b in order.links:
            known = self.scope.wires[wire]
            old = set(known.gone) >= ({b} if b < order.lanes else set(known.targets))
            x1 = x + p.x[a] + cells[a].outs.get(wire, 0)
            x2 = x + p.x[b] + (cells[b].ins or {}).get(wire, 0)
            row, below = p.row[a], p.row[b]
            y1 = y + (p.tops[row] if a >= order.lanes else p.y[a] + cells[a].foot)
            bend, meet = y + p.bottoms[row], y + p.tops[below]
            y2 = y + (p.tops[below] if b >= order.lanes else p.y[b])
            if self.title and row == 0 and a >= items:
                y1 -= self.top
            if self.title and below == ends and items <= b < order.lanes:
                y2 += FOOT
            lines.append(
                f'<path class="edge{" gone" if old else ""}" d="{curve(x1, y1, bend, x2, meet, y2)}'
                f'{arrow(x2, y2) if b < items and isinstance(self.looks[b], Look) else ""}"/>'
            )
        return lines


def curve(x1: float, y1: float, bend: float, x2: float, meet: float, y2: float) -> str:
    """Straight down to `bend`, in an S to `meet`, and straight down."""
    if abs(x1 - x2) < 0.5:
        return f"M{x1:.1f},{y1:.1f}V{y2:.1f}"
    middle = (bend + meet) / 2
    return (
        f"M{x1:.1f},{y1:.1f}V{bend:.1f}C{x1:.1f},{middle:.1f} {x2:.1f},{middle:.1f} "
        f"{x2:.1f},{meet:.1f}V{y2:.1f}"
    )


def arrow(x: float, y: float) -> str:
    """The head of an arrow that ends at (x, y)."""
    return f"M{x - 3.5:.1f},{y - 5.5:.1f}L{x:.1f},{y - 0.6:.1f}L{x + 3.5:.1f},{y - 5.5:.1f}"


def _placed_box(item: Box | Scope, look: Look, x: float, y: float) -> str:
    assert isinstance(item, Box)
    facts = "\n".join(f"{k}: {v}" for k, v in item.facts.items())
    tip = f"<title>{escape(facts)}</title>" if facts else ""
    place = f'transform="translate({x:.1f},{y:.1f})"'
    return f'<g class="box {item.status}" data-id="{escape(item.id)}" {place}>{tip}{look.svg}</g>'


def _laid_out(scope: Scope, title: str = "") -> _Laid:
    """The scope and all scopes in it, with coordinates."""
    laid = _Laid(scope, title)
    for number, item in enumerate(scope.items):
        if isinstance(item, Box):
            look = box_look(item, scope.path)
            outs = {w: look.outs[scope.wires[w].key[1]] for w in _leaving(scope, number)}
            laid.looks.append(look)
            laid.cells.append(
                Cell(look.width, look.height, look.foot, None, outs, item.status == "removed")
            )
        else:
            inner = _inner(item)
            laid.looks.append(inner)
            laid.cells.append(_frame_cell(scope, number, item, inner))
    laid.cells += [Cell(width=4, ins={}) for _ in (*scope.ins, *scope.outs)]
    placed = laid.placed = place(scope.order, scope.wiring, laid.cells)
    ports = [placed.x[len(scope.items) + i] for i in range(len(scope.ins))]
    if title:
        label = 10 + text_width(title, 11.5, True) + 10
        laid.left = max(SIDE, label - min(ports, default=label))
        laid.top = HEAD + laid.behind
        laid.width = max(laid.left + placed.width + SIDE, label) + laid.behind
        laid.height = laid.top + placed.height + FOOT
    else:
        laid.width, laid.height = placed.width, placed.height
    return laid


def _inner(item: Scope) -> _Laid:
    """An inner scope. One that repeats looks like its first, with all of its ports."""
    if item.repeat == 1:
        return _laid_out(item, item.title)
    first = item.items[0]
    assert isinstance(first, Scope)
    return _laid_out(replace(first, repeat=item.repeat), f"{item.title} ×{item.repeat}")


def _frame_cell(scope: Scope, number: int, item: Scope, inner: _Laid) -> Cell:
    """The cell of a frame: links meet its ports."""
    items = len(inner.scope.items)
    ins, outs = {}, {}
    for w, wire in enumerate(scope.wires):
        if number in wire.targets:
            ins[w] = inner.port(items + item.ins.index(wire.key))
        if wire.source == number:
            outs[w] = inner.port(items + len(inner.scope.ins) + item.outs.index(wire.key))
    return Cell(inner.width, inner.height, inner.height, ins, outs)


def _leaving(scope: Scope, number: int) -> list[int]:
    """The wires that come from an item."""
    return [w for w, wire in enumerate(scope.wires) if wire.source == number]
