"""Coordinates for one scope whose order is known: `layout.js` does the same in the page.

Rows lie below each other; links run straight down through their own row and bend in the gap below
it, so that no link crosses a box or a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lucid.view.layers import Order, Wiring

BETWEEN = 18
"""Pixels between neighbours in a row."""
GAP = 24
"""The least height between rows; up to BEND more where links run far to the side."""
BEND = 36
PITCH = 15
"""Between the ends of links that enter the same box."""
PORT_GAP = 12
"""The least height between a row and the ports above or below it."""
BOX, MIXED, LANE = 4, 1, 12
"""How much a link weighs in a median: between boxes, between a box and a lane, within a lane."""
FIRM = {BOX: 1.0, MIXED: 0.0001, LANE: 0.003}
"""How firmly what has such a link keeps its place in a row: boxes stand straight below each other,
and lanes make way."""
PASSES = 7
"""Down and up by turns, down at the end: what follows stands straight below."""


@dataclass
class Cell:
    """The size of what stands in a slot. `foot`: where links leave, above a label if there is one.
    `ins` and `outs`: where, from the middle, the links of a wire enter and leave. `light`: it hangs
    beside what others stand below."""

    width: float = 0
    height: float = 0
    foot: float = 0
    ins: dict[int, float] | None = None
    outs: dict[int, float] = field(default_factory=dict)
    light: bool = False


@dataclass
class Placed:
    """By slot: `x` of the middle, `y` of the top. By row: `tops` and `bottoms`."""

    x: list[float]
    y: list[float]
    row: list[int]
    tops: list[float]
    bottoms: list[float]
    width: float
    height: float


Link = tuple[int, int, float, float]
"""Upper slot, lower slot, and where it leaves the one and enters the other, from their middles."""


def place(order: Order, wires: Wiring, cells: list[Cell]) -> Placed:
    """The coordinates of all slots. `cells`: by slot; those of lanes are added here, and `ins`
    where it is None."""
    lanes = sum(len(layer) for layer in order.layers) - len(cells)
    cells += [Cell(ins={}) for _ in range(lanes)]
    _enter(order, cells)
    links = [
        (a, b, cells[a].outs.get(w, 0), (cells[b].ins or {}).get(w, 0)) for w, a, b in order.links
    ]
    x = _columns(order, cells, links)
    tops, bottoms, y, row = _rows(order, cells, links, x)
    left = min((x[s] - cells[s].width / 2 for s in range(len(cells))), default=0)
    right = max((x[s] + cells[s].width / 2 for s in range(len(cells))), default=0)
    return Placed(
        [v - left for v in x], y, row, tops, bottoms, right - left, bottoms[-1] if bottoms else 0
    )


def _enter(order: Order, cells: list[Cell]) -> None:
    """Spread the ends of links over the tops of boxes, one from a box above in the middle."""
    position = {slot: i for layer in order.layers for i, slot in enumerate(layer)}
    entering: dict[int, list[tuple[int, int]]] = {}
    for wire, upper, lower in order.links:
        if cells[lower].ins is None:
            entering.setdefault(lower, []).append((wire, upper))
    for slot, ends in entering.items():
        ends.sort(key=lambda end: position[end[1]])
        main = next((i for i, (_, upper) in enumerate(ends) if upper < order.lanes), 0)
        far = max(main, len(ends) - 1 - main, 1)
        pitch = min(PITCH, (cells[slot].width / 2 - 8) / far)
        cells[slot].ins = {wire: (i - main) * pitch for i, (wire, _) in enumerate(ends)}


def _columns(order: Order, cells: list[Cell], links: list[Link]) -> list[float]:
    """The middle of each slot: as near as may be to what it is linked with."""
    x = [0.0] * len(cells)
    near: dict[bool, dict[int, list[tuple[int, float, int]]]] = {True: {}, False: {}}
    for a, b, leave, enter in links:
        weight = (BOX, MIXED, LANE)[(a >= order.lanes) + (b >= order.lanes)]
        weight = MIXED if cells[b].light else weight
        near[True].setdefault(b, []).append((a, leave - enter, weight))
        near[False].setdefault(a, []).append((b, enter - leave, weight))
    for layer in order.layers:
        _settle(layer, [(0.0, 1.0)] * len(layer), cells, x)
    for number in range(PASSES):
        above = number % 2 == 0
        for layer in order.layers if above else reversed(order.layers):
            wished = [_wish(s, near[above].get(s, ()), x) for s in layer]
            _settle(layer, wished, cells, x)
    if order.ins == 1 and order.outs == 1:  # so that modules that follow each other do not drift
        x[order.lanes - 1] = x[order.lanes - 2]
    return x


def _wish(slot: int, near: Sequence[tuple[int, float, int]], x: list[float]) -> tuple[float, float]:
    """Where a slot would like to be, the weighted median of what it is linked with; how firmly."""
    if not near:
        return x[slot], FIRM[MIXED]
    places = sorted((x[other] + shift, weight) for other, shift, weight in near)
    firm = max(FIRM[weight] for _, weight in places)
    half, passed = sum(weight for _, weight in places) / 2, 0
    for i, (here, weight) in enumerate(places):
        passed += weight
        if passed > half:
            return here, firm
        if passed == half:
            return (here + places[i + 1][0]) / 2, firm
    raise AssertionError("half of the weights is reached")


def _settle(
    layer: Sequence[int], wished: Sequence[tuple[float, float]], cells: list[Cell], x: list[float]
) -> None:
    """Set `x` of a row: least squares from the wishes, no two nearer than they may be.

    Neighbours that would overlap join into blocks, each at the mean of what its members wish.
    """
    blocks: list[list[float]] = []  # weighted sum of wishes, weight, number of members
    shifts, shift = [], 0.0
    for i, slot in enumerate(layer):
        if i:
            before = layer[i - 1]
            shift += (cells[before].width + cells[slot].width) / 2 + BETWEEN
        shifts.append(shift)
        wish, weight = wished[i]
        blocks.append([(wish - shift) * weight, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [p + q for p, q in zip(blocks[-1], last, strict=True)]
    member = iter(range(len(layer)))
    for total, weight, count in blocks:
        for _ in range(int(count)):
            i = next(member)
            x[layer[i]] = total / weight + shifts[i]


def _rows(
    order: Order, cells: list[Cell], links: list[Link], x: list[float]
) -> tuple[list[float], list[float], list[float], list[int]]:
    """Tops and bottoms of rows, then the top and the row of each slot."""
    row = [0] * len(cells)
    for number, layer in enumerate(order.layers):
        for slot in layer:
            row[slot] = number
    bends = [0.0] * len(order.layers)
    for a, b, leave, enter in links:
        bends[row[a]] = max(bends[row[a]], abs(x[a] + leave - x[b] - enter))
    tops, bottoms, y, at = [], [], [0.0] * len(cells), 0.0
    for number, layer in enumerate(order.layers):
        height = max(cells[s].height for s in layer)
        tops.append(at)
        bottoms.append(at + height)
        for slot in layer:
            y[slot] = at + (0 if slot >= order.lanes else (height - cells[slot].height) / 2)
        ports = (number == 0 and order.ins) or (number + 2 == len(order.layers) and order.outs)
        at += height + (PORT_GAP if ports else GAP) + min(BEND, bends[number] / 6)
    return tops, bottoms, y, row
