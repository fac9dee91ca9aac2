"""A part of a picture: the modules that match a pattern, with their inputs and outputs."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from lucid.ir.lineage import matches
from lucid.view.picture import Box, Picture


def cut(drawn: Picture, pattern: str) -> Picture:
    """The boxes that do the work of the modules which match a pattern such as `layer1.0`, or whose
    names match, such as `%relu_3`, and at their rim a box for each value that comes in or goes out.
    Empty where nothing matches."""

    def wanted(box: Box) -> bool:
        if pattern.startswith("%"):
            return fnmatchcase(box.id, pattern[1:])
        return any(matches(o, pattern) for o in (box.origin, *(p.origin for p in box.parts)))

    inside = {b.id: b for b in drawn.boxes if wanted(b)}
    every = {b.id: b for b in drawn.boxes}
    rim: dict[str, Box] = {}
    leaving: dict[tuple[str, int], Box] = {}
    for box in drawn.boxes:
        for edge in box.edges:
            source = every[edge.source]
            if box.id in inside and edge.source not in inside:
                known = source.origin or source.title
                rim[source.id] = Box(source.id, f"from {known}", "input", results=source.results)
            elif box.id not in inside and edge.source in inside:
                out = replace(edge, operand=0)
                name = f"output:{edge.source}.{edge.result}"
                title = f"to {box.origin or box.title}"
                leaving.setdefault(
                    (edge.source, edge.result), Box(name, title, "output", edges=(out,))
                )
    return Picture(f"{drawn.name}: {pattern}", (*rim.values(), *inside.values(), *leaving.values()))
