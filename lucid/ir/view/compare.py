"""What a pass did to a picture: one picture of both, in which every box says what became of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace

from lucid.ir.view.picture import Box, Edge, Picture

RIM = ("input", "output")
"""Kinds of boxes that no pass makes or removes."""


def compare(before: Picture, after: Picture) -> Picture:
    """The picture `after`, its boxes marked as `added` or `changed`, and with them, as `removed`,
    those of `before` which are not there any more, with the edges they had.

    Boxes are the same if they have the same id, and changed if they do something else or are fused
    from something else; what they read may have been renamed.
    """
    old = {box.id: box for box in before.boxes}
    new = {box.id: box for box in after.boxes}
    gone = [box for box in before.boxes if box.id not in new and box.kind not in RIM]
    lost = {box.id for box in gone}
    boxes = [replace(box, status=_status(old.get(box.id), box)) for box in after.boxes]
    ghosts = [
        replace(box, status="removed", edges=tuple(replace(e, gone=True) for e in box.edges))
        for box in gone
    ]
    linked = [_with_lost(box, old.get(box.id), lost) for box in boxes]
    together = _sorted(linked, ghosts)
    if together is None:  # the edges that were lead backwards now
        together = _sorted(boxes, ghosts) or [
            *boxes,
            *(replace(g, edges=tuple(e for e in g.edges if e.source in lost)) for g in ghosts),
        ]
    return Picture(after.name, tuple(together))


def _status(old: Box | None, new: Box) -> str:
    if new.kind in RIM:
        return ""
    if old is None:
        return "added"
    same = (old.title, old.facts, old.results, old.parts) == (
        new.title,
        new.facts,
        new.results,
        new.parts,
    )
    return "" if same else "changed"


def _with_lost(box: Box, old: Box | None, lost: set[str]) -> Box:
    """The box with the edges it had from what was removed."""
    had = (replace(e, gone=True) for e in old.edges if e.source in lost) if old else ()
    return replace(box, edges=(*box.edges, *had))


def _sorted(boxes: list[Box], ghosts: list[Box]) -> list[Box] | None:
    """All in topological order, else in the order given; None where there is a cycle."""
    every = [*boxes, *ghosts]
    number = {box.id: i for i, box in enumerate(every)}
    readers: dict[str, list[int]] = {}
    missing = [0] * len(every)
    for i, box in enumerate(every):
        for source in {e.source for e in _known(box, number)}:
            readers.setdefault(source, []).append(i)
            missing[i] += 1
    ready = [i for i, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        box = every[heapq.heappop(ready)]
        found.append(box)
        for i in readers.get(box.id, ()):
            missing[i] -= 1
            if not missing[i]:
                heapq.heappush(ready, i)
    return found if len(found) == len(every) else None


def _known(box: Box, number: dict[str, int]) -> Iterator[Edge]:
    return (e for e in box.edges if e.source in number)
