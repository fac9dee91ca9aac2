"""Draw one ResNeSt block as traced, after the passes, and as kernel calls: docs/block.svg.

python docs/draw_block.py docs/block.svg
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import lucid
from lucid.ir.graph import Graph, Node
from lucid.ir.ops import SplitAttention
from lucid.ir.passes import run_passes
from lucid.models import resnest_50
from lucid.view import picture
from lucid.view.colours import colour
from lucid.view.picture import Box

BLOCK = "layer2.1"
SHAPE = (1, 3, 224, 224)
ROW, GAP, TOP = 28, 9, 82
COLUMNS = {"traced": (56, 186), "fused": (330, 230), "program": (640, 290)}
WIDTH = 960
INK, FAINT = "#26323f", "#8593a3"


class Slot(NamedTuple):
    """Where something is drawn: upper and lower edge."""

    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def inside(graph: Graph) -> tuple[list[Node], list[Box]]:
    """The nodes of the block, and their boxes."""
    nodes = [n for n in graph.nodes if n.origin.startswith(BLOCK)]
    boxes = {b.id: b for b in picture(graph).boxes}
    return nodes, [boxes[n.output.name] for n in nodes]


def groups(traced: list[Node], fused: list[Node]) -> list[list[int]]:
    """For each fused node the rows of the traced nodes that it does the work of."""
    owned: list[list[int]] = [[] for _ in fused]
    current = 0
    for row, node in enumerate(traced):
        line = f"{node.op.name} {node.origin}"
        later = (i for i in range(current, len(fused)) if line in fused[i].fused_from)
        current = next(later, current)
        owned[current].append(row)
    return owned


def rectangle(x: float, width: float, slot: Slot, fill: str, lines: Iterable[str]) -> str:
    """A box with its lines of text in the middle; the first is bold where there are more."""
    texts = [t for t in lines if t]
    parts = [
        f'<rect x="{x}" y="{slot.top}" width="{width}" height="{slot.bottom - slot.top}" rx="5" '
        f'fill="{fill}" stroke="{FAINT}" stroke-width="0.8"/>'
    ]
    for i, text in enumerate(texts):
        y = slot.middle + 4 + 16 * (i - (len(texts) - 1) / 2)
        bold = " bold" if i == 0 and len(texts) > 1 else ""
        parts.append(label(x + width / 2, y, text, f"label{bold}"))
    return "\n".join(parts)


def label(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y:.1f}" class="{style}">{escape(text)}</text>'


def arrow(x: float, start: float, end: float) -> str:
    return f'<path d="M{x},{start} V{end}" class="edge"/>'


def detour(x: float, out: float, start: float, end: float, reach: float) -> str:
    """An edge from (out, start) that passes boxes by, on their left, to the one at (x, end)."""
    curve = f"M{out},{start} H{x} C{x - reach},{start} {x - reach},{end} {x - 1},{end}"
    return f'<path d="{curve}" class="edge"/>'


def edges(boxes: list[Box], slots: list[Slot], x: float, width: float) -> list[str]:
    """Down the middle to the next box; by a detour to a later one."""
    rows = {b.id: i for i, b in enumerate(boxes)}
    drawn = []
    for row, box in enumerate(boxes):
        for edge in box.edges:
            source = rows.get(edge.source, -1)
            start = slots[source].bottom if source >= 0 else TOP - 26
            if source == row - 1:
                drawn.append(arrow(x + width / 2, start, slots[row].top - 2))
            else:
                out = (x, slots[source].middle) if source >= 0 else (x + width / 2, TOP - 20)
                drawn.append(detour(x, *out, slots[row].middle, 26 + 1.2 * (row - source)))
    return drawn


def band(left: Slot, right: Slot, x0: float, x1: float, fill: str) -> str:
    """What joins a group of boxes with what they became."""
    middle = (x0 + x1) / 2
    return (
        f'<path d="M{x0},{left.top} C{middle},{left.top} {middle},{right.top} {x1},{right.top} '
        f'V{right.bottom} C{middle},{right.bottom} {middle},{left.bottom} {x0},{left.bottom} Z" '
        f'fill="{fill}" opacity="0.35"/>'
    )


def heading(column: str, title: str, note: str) -> str:
    x, width = COLUMNS[column]
    middle = x + width / 2
    return label(middle, 24, title, "label bold large") + label(middle, 44, note, "label faint")


def draw() -> str:
    """The whole picture as SVG."""
    model = resnest_50()
    captured = lucid.trace(model, SHAPE)
    traced, traced_boxes = inside(captured)
    fused, fused_boxes = inside(run_passes(captured))
    calls = [c for c in lucid.compile(model, SHAPE).program().calls() if c.origin.startswith(BLOCK)]
    rows = [Slot(TOP + ROW * i, TOP + ROW * (i + 1) - GAP) for i in range(len(traced))]
    owned = groups(traced, fused)
    wide = [Slot(rows[g[0]].top, rows[g[-1]].bottom) for g in owned]
    bottom = rows[-1].bottom + 26
    parts = [
        heading("traced", "as traced", f"{len(traced)} ops"),
        heading("fused", "after the passes", f"{len(fused)} nodes"),
        heading("program", "as it runs", f"{len(calls)} kernel calls"),
    ]
    (x0, w0), (x1, w1), (x2, w2) = COLUMNS.values()
    for slot, box in zip(wide, fused_boxes, strict=True):
        parts.append(band(slot, slot, x0 + w0, x1, colour(box.kind)))
        parts.append(band(slot, slot, x1 + w1, x2, colour(box.kind)))
    parts += edges(traced_boxes, rows, x0, w0) + edges(fused_boxes, wide, x1, w1)
    for slot, box in zip(rows, traced_boxes, strict=True):
        text = f"{box.title} {box.detail}".strip()
        parts.append(rectangle(x0, w0, slot, colour(box.kind), [text]))
    for slot, box in zip(wide, fused_boxes, strict=True):
        shape = box.results[0].removeprefix("f32")
        parts.append(rectangle(x1, w1, slot, colour(box.kind), [box.title, box.detail, shape]))
    for node, slot, box in zip(fused, wide, fused_boxes, strict=True):
        mine = [c for c in calls if owner(c.origin, fused) is node]
        height = (slot.bottom - slot.top + GAP) / len(mine)
        for i, call in enumerate(mine):
            place = Slot(slot.top + i * height, slot.top + (i + 1) * height - GAP)
            does = [n.op.name for n in call.region.nodes]
            name = f"{call.algorithm}  ({call.origin.removeprefix(BLOCK + '.')})"
            lines = [name, *(" + ".join(does[j : j + 4]) for j in range(0, len(does), 4))]
            parts.append(rectangle(x2, w2, place, colour(box.kind), lines))
    for x, width in ((x0, w0), (x1, w1)):
        parts.append(arrow(x + width / 2, bottom - 26, bottom - 6))
    return page(bottom, parts)


def owner(origin: str, fused: list[Node]) -> Node:
    """The fused node that a kernel call computes: fc1 and fc2 belong to the attention."""
    for node in fused:
        if any(line.endswith(f" {origin}") for line in node.fused_from):
            return node
    return next(n for n in fused if isinstance(n.op, SplitAttention))


def page(height: float, parts: list[str]) -> str:
    style = (
        f".label{{font:12.5px Helvetica,Arial,'DejaVu Sans',sans-serif;fill:{INK};"
        "text-anchor:middle}.bold{font-weight:600}.large{font-size:15px}"
        f".faint{{fill:{FAINT}}}.edge{{fill:none;stroke:{FAINT};stroke-width:1.3;"
        "marker-end:url(#tip)}"
    )
    marker = (
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6"'
        f' markerHeight="6" orient="auto"><path d="M0,0 L6,3 L0,6 Z" fill="{FAINT}"/>'
        "</marker></defs>"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    title = "<title>One ResNeSt block: traced, after the passes, as kernel calls</title>"
    back = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return (
        "\n".join([head, title, f"<style>{style}</style>", marker, back, *parts, "</svg>"]) + "\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
