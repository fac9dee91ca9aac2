"""Text whose lines are marked: removed, added, a heading."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

HEADING, REMOVED, ADDED, NOTE, PLAIN = "#", "-", "+", "?", " "


class Line(NamedTuple):
    """A line of a report. `mark`: HEADING, REMOVED, ADDED, NOTE or PLAIN."""

    mark: str
    text: str

    def __str__(self) -> str:
        return self.text if self.mark == HEADING else f"  {self.mark} {self.text}"


def block(mark: str, text: str) -> list[Line]:
    """Lines of one kind, from a text that may have several."""
    return [Line(mark, line) for line in text.split("\n")]


def plain(lines: Iterable[Line]) -> str:
    """The lines as text."""
    return "".join(f"{str(line).rstrip()}\n" for line in lines)
