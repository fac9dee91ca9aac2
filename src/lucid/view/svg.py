"""SVG: one figure of a graph, modules as frames, fused nodes with the ops they consist of.

Figures flow down or to the right. Coordinates are kept *along* the flow and *across* it, and become
x and y where something is drawn. A figure that flows to the right is broken into lines, as text is,
so that it fills a slide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise

from lucid.ir.graph import Graph
from lucid.view.colours import COLOURS, style_class, stylesheet
from lucid.view.looks import BEHIND, Look, box_look, scope_look
from lucid.view.modules import Scope, modules
from lucid.view.picture import Box, Picture, picture
from lucid.view.place import Cell, Placed, place
from lucid.view.text_width import SIZES, text_width

SIDE, HEAD, FOOT = 14, 26, 10
"""The room between a frame and what is in it."""
MARGIN, TITLE, LEGEND = 20, 34, 30
BETWEEN_LINES, TURN = 44, 14
"""The room between lines, and how far an edge runs on before it turns to the next line."""
SLIDE = 16 / 9


def to_svg(graph: Graph | Picture, depth: int | None = None, right: bool = False) -> str:
    """The figure of a graph; modules that repeat are drawn once, with how often.

    `depth`: modules that many levels deep are drawn folded, 1 for the outermost. `right`: it flows
    to the right, in as many lines as fit a slide best.
    """
    drawn = picture(graph)
    root = _laid_out(modules(drawn), "", _Style(depth, right))
    if right:
        root.break_lines()
    legend, legend_width = _legend(root)
    title = escape(drawn.name)
    nodes = sum(b.kind not in ("input", "output") for b in drawn.boxes)
    note = f"{nodes} node{'s' * (nodes != 1)}"
    heading = text_width(drawn.name, SIZES["heading"], True) + 12
    heading += text_width(note, SIZES["detail"])
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


def _legend(root: _Laid) -> tuple[str, float]:
    """A sample of each family's colour and its name, and how wide they are together."""
    shown = set(root.kinds()) - {"input", "output"}
    parts, x = [], 0.0
    for kind in (k for k in COLOURS if k in shown):
        parts.append(
            f'<rect class="{style_class(kind)}" x="{x:.1f}" y="0" width="14" height="12" rx="3"/>'
            f'<text class="name" x="{x + 19:.1f}" y="10">{kind}</text>'
        )
        x += 19 + text_width(kind, SIZES["name"]) + 14
    return "".join(parts), x


@dataclass(frozen=True)
class _Style:
    """`depth`: the level of modules that are drawn folded; `right`: whether the figure flows to the
    right, else down."""

    depth: int | None
    right: bool

    def point(self, across: float, along: float) -> tuple[float, float]:
        """x and y."""
        return (along, across) if self.right else (across, along)

    def curve(self, start: _End, bend: float, meet: float, end: _End) -> str:
        """Straight ahead to `bend`, in an S to `meet`, and straight ahead."""
        if abs(start[0] - end[0]) < 0.5:
            return f"M{self._pair(*start)}L{self._pair(*end)}"
        middle = (bend + meet) / 2
        return (
            f"M{self._pair(*start)}L{self._pair(start[0], bend)}"
            f"C{self._pair(start[0], middle)} {self._pair(end[0], middle)} "
            f"{self._pair(end[0], meet)}L{self._pair(*end)}"
        )

    def arrow(self, across: float, along: float) -> str:
        """The head of an arrow that ends there."""
        corners = ((-3.5, -5.5), (0, -0.6), (3.5, -5.5))
        first, *others = (self._pair(across + a, along + b) for a, b in corners)
        return "M" + "L".join([first, *others])

    def _pair(self, across: float, along: float) -> str:
        return "{:.1f},{:.1f}".format(*self.point(across, along))


_End = tuple[float, float]
"""Across and along."""


@dataclass(frozen=True)
class _Line:
    """The rows from `first` to before `last`, which are drawn shifted by so much; on the page the
    line takes the room from `top` to `bottom` across."""

    first: int
    last: int
    across: float = 0
    along: float = 0
    top: float = 0
    bottom: float = 0


@dataclass
class _Laid:
    """A scope with coordinates: what stands in each slot, and links as curves. `before` is the room
    between its corner and what is in it, across and along."""

    scope: Scope
    title: str
    style: _Style
    looks: list[Look | _Laid] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    placed: Placed = field(default_factory=lambda: Placed([], [], [], [], [], 0, 0))
    lines: list[_Line] = field(default_factory=list)
    across: float = 0
    along: float = 0
    before: _End = (0, 0)

    @property
    def width(self) -> float:
        return self.style.point(self.across, self.along)[0]

    @property
    def height(self) -> float:
        return self.style.point(self.across, self.along)[1]

    @property
    def behind(self) -> float:
        """The room for frames behind this one."""
        return BEHIND if self.scope.repeat > 1 else 0

    def kinds(self) -> Iterator[str]:
        """The families of everything that is drawn."""
        for item, look in zip(self.scope.items, self.looks, strict=True):
            if isinstance(look, _Laid):
                yield from look.kinds()
            elif isinstance(item, Box):
                yield item.kind
                yield from (part.kind for part in item.parts)
            else:
                yield from (box.kind for box in item.boxes)

    def port(self, slot: int) -> float:
        """Where a port is, from the middle of the frame."""
        return self.before[0] + self.placed.x[slot] - self.across / 2

    # -- lines ------------------------------------------------------------------------------

    def break_lines(self) -> None:
        """Break the figure into lines, so that it is as large as can be on a slide."""
        best, largest = self.lines, 0.0
        for count in range(1, len(self._breaks()) + 2):
            lines = self._lines_of(self.along / count)
            across, along = self._extent(lines)
            scale = min(SLIDE / (along + 2 * MARGIN), 1 / (across + TITLE + LEGEND + 2 * MARGIN))
            if scale > largest:
                best, largest = lines, scale
        self.lines = best
        self.across, self.along = self._extent(best)
        self.before = (0, 2 * TURN if len(best) > 1 else 0)

    def _breaks(self) -> list[int]:
        """The rows before which a line may begin: a single link leads there."""
        rows = [self.placed.row[a] for _, a, _ in self.scope.order.links]
        return [row + 1 for row in range(len(self.placed.tops) - 1) if rows.count(row) == 1]

    def _lines_of(self, length: float) -> list[_Line]:
        """The lines of a figure that is broken about every `length`."""
        tops, bottoms = self.placed.tops, self.placed.bottoms
        starts = [0]
        breaks = [*self._breaks(), len(tops)]
        for here, following in pairwise(breaks):
            if bottoms[following - 1] - tops[starts[-1]] > length * 1.02:
                starts.append(here)
        lines, place = [], 0.0
        for first, last in pairwise([*starts, len(tops)]):
            slots = [s for s, row in enumerate(self.placed.row) if first <= row < last]
            low = min(self.placed.x[s] - self.cells[s].width / 2 for s in slots)
            high = max(self.placed.x[s] + self.cells[s].width / 2 for s in slots)
            bottom = place + high - low
            lines.append(_Line(first, last, place - low, -tops[first], place, bottom))
            place = bottom + BETWEEN_LINES
        return lines

    def _extent(self, lines: Sequence[_Line]) -> _End:
        tops, bottoms = self.placed.tops, self.placed.bottoms
        along = max(bottoms[line.last - 1] - tops[line.first] for line in lines)
        return lines[-1].bottom, along + (4 * TURN if len(lines) > 1 else 0)

    def _line(self, row: int) -> _Line:
        return next(line for line in self.lines if line.first <= row < line.last)

    # -- drawing ----------------------------------------------------------------------------

    def draw(self, x: float, y: float, emit: Callable[[str], None]) -> None:
        """Frame, links and everything inside, the frame's corner at (x, y)."""
        if self.title:
            self._draw_frame(x, y, emit)
        across, along = self.style.point(x, y)  # its own inverse
        across, along = across + self.before[0], along + self.before[1]
        for text in self._links(across, along):
            emit(text)
        for slot, item in enumerate(self.looks):
            line = self._line(self.placed.row[slot])
            left, top = self.style.point(
                across + line.across + self.placed.x[slot] - self.cells[slot].width / 2,
                along + line.along + self.placed.y[slot],
            )
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

    def _links(self, across: float, along: float) -> Iterator[str]:
        """The path of every link: ahead in its row, through the gap, and ahead to where it ends."""
        p, order, items = self.placed, self.scope.order, len(self.looks)
        for wire, a, b in order.links:
            known = self.scope.wires[wire]
            old = set(known.gone) >= ({b} if b < order.lanes else set(known.targets))
            line, other = self._line(p.row[a]), self._line(p.row[b])
            start = self._start(wire, a, across + line.across, along + line.along)
            end = self._end(wire, b, across + other.across, along + other.along)
            bend = along + line.along + p.bottoms[p.row[a]]
            meet = along + other.along + p.tops[p.row[b]]
            if line is other:
                path = self.style.curve(start, bend, meet, end)
            else:
                gap = across + line.bottom + BETWEEN_LINES / 2
                path = _turned(start, bend + TURN, gap, meet - TURN, end)
            whole = b < items and isinstance(self.looks[b], Look)
            head = self.style.arrow(*end) if whole else ""
            yield f'<path class="edge{" gone" if old else ""}" d="{path}{head}"/>'

    def _start(self, wire: int, slot: int, across: float, along: float) -> _End:
        """Where a link leaves a slot."""
        p = self.placed
        lane = slot >= self.scope.order.lanes
        ahead = p.tops[p.row[slot]] if lane else p.y[slot] + self.cells[slot].foot
        if self.title and p.row[slot] == 0 and slot >= len(self.looks):
            ahead -= self.before[1]
        return across + p.x[slot] + self.cells[slot].outs.get(wire, 0), along + ahead

    def _end(self, wire: int, slot: int, across: float, along: float) -> _End:
        """Where a link enters a slot."""
        p, lanes = self.placed, self.scope.order.lanes
        ahead = p.tops[p.row[slot]] if slot >= lanes else p.y[slot]
        last = p.row[slot] == len(p.tops) - 1
        if self.title and last and len(self.looks) <= slot < lanes:
            ahead += self.along - self.before[1] - p.height
        return across + p.x[slot] + (self.cells[slot].ins or {}).get(wire, 0), along + ahead


def _turned(start: _End, right: float, gap: float, left: float, end: _End) -> str:
    """From the end of a line, below it and back, to the beginning of the next."""
    return (
        f"M{start[1]:.1f},{start[0]:.1f}H{right:.1f}V{gap:.1f}H{left:.1f}V{end[0]:.1f}H{end[1]:.1f}"
    )


def _placed_box(item: Box | Scope, look: Look, x: float, y: float) -> str:
    place = f'transform="translate({x:.1f},{y:.1f})"'
    if not isinstance(item, Box):
        return f'<g class="box folded" data-id="{escape(item.path)}" {place}>{look.svg}</g>'
    facts = "\n".join(f"{k}: {v}" for k, v in item.facts.items())
    tip = f"<title>{escape(facts)}</title>" if facts else ""
    return f'<g class="box {item.status}" data-id="{escape(item.id)}" {place}>{tip}{look.svg}</g>'


# -- layout ---------------------------------------------------------------------------------


def _laid_out(scope: Scope, title: str, style: _Style, level: int = 1) -> _Laid:
    """The scope and all scopes in it, with coordinates. `level`: of the scopes in it."""
    laid = _Laid(scope, title, style)
    for number, item in enumerate(scope.items):
        if isinstance(item, Scope) and (style.depth is None or level < style.depth):
            inner = _inner(item, style, level + 1)
            laid.looks.append(inner)
            laid.cells.append(_frame_cell(scope, number, item, inner))
        else:
            look = (
                box_look(item, scope.path, style.right)
                if isinstance(item, Box)
                else scope_look(item, style.right)
            )
            laid.looks.append(look)
            laid.cells.append(_look_cell(scope, number, item, look, style))
    laid.cells += [Cell(width=4, ins={}) for _ in (*scope.ins, *scope.outs)]
    placed = laid.placed = place(scope.order, scope.wiring, laid.cells)
    laid.lines = [_Line(0, max(1, len(placed.tops)))]
    if not title:
        laid.across, laid.along = placed.width, placed.height
        return laid
    ports = [placed.x[len(scope.items) + i] for i in range(len(scope.ins))]
    label = 10 + text_width(title, SIZES["frame-title"], True) + 10
    behind = laid.behind
    if style.right:
        laid.before = (HEAD + behind, SIDE)
        laid.across = laid.before[0] + placed.width + FOOT
        laid.along = max(SIDE + placed.height + SIDE, label) + behind
    else:  # what enters from above passes beside the title
        laid.before = (max(SIDE, label - min(ports, default=label)), HEAD + behind)
        laid.across = max(laid.before[0] + placed.width + SIDE, label) + behind
        laid.along = laid.before[1] + placed.height + FOOT
    return laid


def _inner(item: Scope, style: _Style, level: int) -> _Laid:
    """An inner scope. One that repeats looks like its first, with all of its ports."""
    if item.repeat == 1:
        return _laid_out(item, item.title, style, level)
    first = item.items[0]
    assert isinstance(first, Scope)
    title = f"{item.title} ×{item.repeat}"
    return _laid_out(replace(first, repeat=item.repeat), title, style, level)


def _look_cell(scope: Scope, number: int, item: Box | Scope, look: Look, style: _Style) -> Cell:
    """The cell of a box, or of a folded module."""
    outs = {}
    for w, wire in enumerate(scope.wires):
        if wire.source == number:
            result = wire.key[1] if isinstance(item, Box) else item.outs.index(wire.key)
            outs[w] = look.outs[result]
    across, along = style.point(look.width, look.height)
    hanging = isinstance(item, Box) and item.status == "removed"
    return Cell(across, along, look.foot, None, outs, hanging)


def _frame_cell(scope: Scope, number: int, item: Scope, inner: _Laid) -> Cell:
    """The cell of a frame: links meet its ports."""
    items = len(inner.scope.items)
    ins, outs = {}, {}
    for w, wire in enumerate(scope.wires):
        if number in wire.targets:
            ins[w] = inner.port(items + item.ins.index(wire.key))
        if wire.source == number:
            outs[w] = inner.port(items + len(inner.scope.ins) + item.outs.index(wire.key))
    return Cell(inner.across, inner.along, inner.along, ins, outs)
