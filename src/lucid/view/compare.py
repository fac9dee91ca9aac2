"""The changes made by a pass: one picture of both graphs, whose boxes are marked."""

from __future__ import annotations

from dataclasses import replace

from lucid.view.picture import Box, Picture

RIM = ("input", "output")
"""Kinds of boxes that no pass makes or removes."""


def compare(before: Picture, after: Picture) -> Picture:
    """The picture `after`, its boxes marked as `added` or `changed`, and with them, as `removed`,
    those of `before` which are not there any more, with the edges that fed them.

    Boxes are the same if they have the same id, and changed if they do something else or are fused
    from something else; what they read may have been renamed. Nothing reads what was removed: it
    hangs beside what took its place.
    """
    old = {box.id: box for box in before.boxes}
    names = {box.id for box in after.boxes}
    kept = (replace(box, status=_status(old.get(box.id), box)) for box in after.boxes)
    lost = (
        replace(box, status="removed", edges=tuple(replace(e, gone=True) for e in box.edges))
        for box in before.boxes
        if box.id not in names and box.kind not in RIM
    )
    return Picture(after.name, (*kept, *lost))


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
