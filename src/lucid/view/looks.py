"""The appearance of boxes and folded modules: their size and SVG, the same in files and pages."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

from lucid.view.colours import style_class
from lucid.view.modules import Scope
from lucid.view.picture import Box, Part
from lucid.view.text_width import SIZES, shortened, text_width

PAD = 10
LABEL = 17
"""The height of a line with the types of results, below a box or beside it."""
PART_HEIGHT, PART_GAP, PARTS_WIDTH = 17, 4, 260
BEHIND = 6
"""How far cards stick out behind the one that stands for several modules."""
WIDEST = 280
"""No line of text is wider, in pixels."""


@dataclass(frozen=True)
class Look:
    """`foot`: the height of the box itself (or the width, in figures that flow to the right), where
    edges leave; below it (or beside it) lie the labels of results. `outs`: where from the middle
    each result leaves."""

    width: float
    height: float
    foot: float
    svg: str
    outs: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """A line of text in a box, and its class in the style sheet."""

    text: str
    style: str

    @property
    def size(self) -> float:
        return SIZES[self.style]

    @property
    def width(self) -> float:
        return text_width(self.text, self.size, self.style == "title")

    @staticmethod
    def of(text: str, style: str, ending: str = "") -> Line:
        """As much of the text as is no wider than WIDEST, and the ending."""
        return Line(shortened(text, SIZES[style], WIDEST, style == "title") + ending, style)


def box_look(box: Box, path: str, right: bool = False) -> Look:
    """A box in the scope `path`. `right`: in a figure that flows to the right."""
    name = box.origin.removeprefix(f"{path}.") if box.origin != path.split("#")[0] else ""
    parts = box.parts if box.kind not in ("input", "output") else ()
    times = () if box.milliseconds is None else (told_time(box.milliseconds),)
    ratios = () if box.decibels is None else (told_ratio(box.decibels),)
    return _box(box.title, name, box.detail, box.kind, parts, box.results, (*times, *ratios), right)


def told_time(milliseconds: float) -> str:
    """Three digits, in ms or in us."""
    if milliseconds < 0.1:
        return f"{1000 * milliseconds:.3g} us"
    return f"{milliseconds:.3g} ms"


def told_ratio(decibels: float) -> str:
    """A signal-to-noise ratio."""
    return f"{decibels:.1f} dB" if math.isfinite(decibels) else "exact" if decibels > 0 else "lost"


@lru_cache(maxsize=4096)
def _box(
    title: str,
    name: str,
    detail: str,
    kind: str,
    parts: tuple[Part, ...],
    results: tuple[str, ...],
    notes: tuple[str, ...],
    right: bool,
) -> Look:
    lines = [Line.of(title, "title")]
    if name:
        lines.insert(0, Line.of(name, "name"))
    lines += [Line.of(t, "detail") for t in (detail, *notes) if t]
    rows = _part_rows(parts)
    widest = max([line.width for line in lines] + [_row_width(row) for row in rows])
    outs, spread = _spread(results, right)
    width = round(max(widest + 2 * PAD, 0 if right else spread, 64), 1)
    text, y = _lines(lines, width, 7)
    chips, y = _chips(rows, width, y)
    height = round(max(y + 7, spread if right else 0), 1)
    radius = height / 2 if kind in ("input", "output") and len(lines) == 1 else 6
    body = (
        f'<rect class="body {style_class(kind)}" width="{width}" height="{height}" '
        f'rx="{radius:g}"/>'
    )
    return _with_labels(body + text + chips, width, height, results, outs, right)


def _lines(lines: Sequence[Line], width: float, y: float) -> tuple[str, float]:
    """Lines in the middle of a box, and where the last ends."""
    texts = []
    for line in lines:
        y += line.size * 1.2
        texts.append(
            f'<text class="middle {line.style}" x="{width / 2:g}" y="{y - 2.2:.1f}">'
            f"{escape(line.text)}</text>"
        )
    return "".join(texts), y


def _part_rows(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts in rows of at most PARTS_WIDTH."""
    rows: list[list[Part]] = []
    for part in parts:
        if rows and _row_width([*rows[-1], part]) <= PARTS_WIDTH:
            rows[-1].append(part)
        else:
            rows.append([part])
    return rows


def _part_width(part: Part) -> float:
    return round(text_width(part.op, SIZES["part"]) + 10, 1)


def _row_width(row: Sequence[Part]) -> float:
    return sum(map(_part_width, row)) + PART_GAP * (len(row) - 1)


def _chips(rows: Sequence[Sequence[Part]], width: float, y: float) -> tuple[str, float]:
    """One small box for each part, in its family's colours."""
    drawn = []
    y += 4 if rows else 0
    for row in rows:
        x = (width - _row_width(row)) / 2
        for part in row:
            wide = _part_width(part)
            drawn.append(
                f'<rect class="{style_class(part.kind)}" x="{x:.1f}" y="{y:.1f}" width="{wide}" '
                f'height="{PART_HEIGHT}" rx="3"/><text class="middle part" x="{x + wide / 2:.1f}" '
                f'y="{y + 12.3:.1f}">{escape(part.op)}</text>'
            )
            x += wide + PART_GAP
        y += PART_HEIGHT + PART_GAP
    return "".join(drawn), y - (PART_GAP if rows else 0)


def short_type(kind: str) -> str:
    """`f32[N,64,16,16]` as `N×64×16×16`; other dtypes are told."""
    found = re.fullmatch(r"(\w+)\[(.*)\](.*)", kind)
    if found is None:
        return kind
    dtype, shape, rest = found.groups()
    shown = shape.replace(",", "×") or "scalar"
    return (shown if dtype == "f32" else f"{dtype} {shown}") + rest


def _spread(results: Sequence[str], right: bool) -> tuple[tuple[float, ...], float]:
    """Where results leave a box, from its middle, and how much room it must have for their labels:
    how wide it must be, or how high where the figure flows to the right."""
    wide = [LABEL + 2.0 if right else _label_width(r) for r in results]
    if len(wide) == 1:
        return (0.0,), wide[0] if right else 2 * wide[0]
    if right:
        places = [wide[0] * (i + 0.5 - len(wide) / 2) for i in range(len(wide))]
        return tuple(places), sum(wide)
    places, x = [], 8.0
    for width in wide:
        places.append(x)
        x += width + 6
    return tuple(round(p - x / 2, 1) for p in places), x


def _label_width(result: str) -> float:
    return text_width(short_type(result), SIZES["shape-label"]) + 8


def _with_labels(
    svg: str,
    width: float,
    height: float,
    results: tuple[str, ...],
    outs: tuple[float, ...],
    right: bool,
) -> Look:
    """What a box looks like with the types of its results, each beside where its edge leaves: to
    the right of an edge that goes down, above one that goes to the right."""
    labels = []
    for kind, out in zip(results, outs, strict=True):
        x, y = (width + 5, height / 2 + out - 4) if right else (width / 2 + out + 5, height + 13)
        labels.append(
            f'<text class="shape-label" x="{x:.1f}" y="{y:.1f}">{escape(short_type(kind))}</text>'
        )
    svg += "".join(labels)
    if right:
        room = max(map(_label_width, results), default=0)
        return Look(round(width + room, 1), height, width, svg, outs)
    return Look(width, height + (LABEL if results else 0), height, svg, outs)


def scope_look(scope: Scope, right: bool = False, sign: str = "") -> Look:
    """A folded module. `sign`: what stands before its name."""
    types = {(b.id, n): kind for b in scope.boxes for n, kind in enumerate(b.results)}
    times = [b.milliseconds for b in scope.boxes if b.milliseconds is not None]
    notes = (told_time(sum(times)),) if times else ()
    kinds = Counter(box.kind for box in scope.boxes if box.status != "removed")
    statuses = Counter(box.status for box in scope.boxes if box.status)
    return _folded(
        sign + scope.title,
        scope.repeat,
        tuple(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))),
        tuple((s, statuses[s]) for s in ("added", "changed", "removed") if statuses[s]),
        tuple(types[key] for key in scope.outs),
        notes,
        right,
    )


@lru_cache(maxsize=1024)
def _folded(
    title: str,
    repeat: int,
    kinds: tuple[tuple[str, int], ...],
    statuses: tuple[tuple[str, int], ...],
    results: tuple[str, ...],
    notes: tuple[str, ...],
    right: bool,
) -> Look:
    nodes = sum(count for _, count in kinds)
    again = f" ×{repeat}" if repeat > 1 else ""
    detail = f"{nodes} node{'s' * (nodes != 1)}"
    lines = [
        Line.of(title, "title", again),
        *(Line(t, "detail") for t in (detail, *notes)),
    ]
    counts = "  ".join(f"+{n}" for _, n in statuses)
    outs, spread = _spread(results, right)
    wide = max([line.width for line in lines] + [text_width(counts, SIZES["detail"], True) + 8])
    behind = BEHIND if repeat > 1 else 0
    front = max(wide + 2 * PAD + 8, 120 if right else max(spread, 120))
    left = 0 if right else behind  # to the right, what comes in meets the front card
    width = round(left + front + behind, 1)
    middle = 2 * left + front
    text, y = _lines(lines, middle, 8 + behind)
    bar, y = _bar(kinds, 12 + left, front - 24, y + 5)
    marks, y = _counts(statuses, middle, y)
    foot = round(y + 8, 1)
    cards = [
        f'<rect class="{style}" x="{left + d:g}" y="{behind - d:g}" '
        f'width="{front:g}" height="{foot - behind:g}" rx="8"/>'
        for d, style in ((behind, "card"), (behind / 2, "card"), (0, "body card"))
        if d or style == "body card"
    ]
    svg = "".join(cards) + text + bar + marks
    return _with_labels(svg, width, foot, results, outs, right)


def _bar(kinds: Sequence[tuple[str, int]], x: float, room: float, y: float) -> tuple[str, float]:
    """How many nodes of each family, as a bar."""
    total = sum(n for _, n in kinds)
    drawn = []
    for kind, count in kinds:
        wide = room * count / total
        drawn.append(
            f'<rect class="{style_class(kind)}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
            'height="7" stroke-width="0.6"/>'
        )
        x += wide
    return "".join(drawn), y + 7


def _counts(statuses: Sequence[tuple[str, int]], width: float, y: float) -> tuple[str, float]:
    """How many nodes a pass added, changed and removed."""
    if not statuses:
        return "", y
    signs = {"added": "+", "changed": "~", "removed": "−"}
    spans = "  ".join(
        f'<tspan class="count-{status}">{signs[status]}{count}</tspan>'
        for status, count in statuses
    )
    text = f'<text class="middle count" x="{width / 2:g}" y="{y + 15:.1f}">{spans}</text>'
    return text, y + 18
