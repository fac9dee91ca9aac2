"""Tables as text: columns as wide as what is in them, or fitted to the width of a terminal.

What does not fit is shortened in the middle (`layer3.10…nv2.conv`), since module paths differ at
both ends; where that would leave too little, the columns that matter least are left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

GAP = "  "
FIRST, OTHER = 26, 21
"""To how many characters the first column of text may be shortened, and the others."""
LEAST = 4
"""The width of a column of text where nothing else helps."""
PROSE = 24
"""The least width of a column whose lines wrap."""

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells by row. `numbers`: the columns that stand on the right, and are never shortened;
    `prose`: those whose text wraps; `spare`: those that may be left out, in this order."""

    columns: Sequence[str]
    rows: Sequence[Row]
    numbers: Sequence[str] = ()
    prose: Sequence[str] = ()
    spare: Sequence[str] = ()
    left_out: tuple[str, ...] = field(default=())

    def lines(self, width: int | None) -> list[str]:
        """The header, a rule and the rows, no wider than `width`; without trailing blanks."""
        widths = self._natural()
        if width is not None and _total(widths) > width:
            lowest = _total(self._lowest())
            candidates = [name for name in self.spare if name in self.columns]
            if lowest > width and candidates:
                return self._without(candidates[0]).lines(width)
            widths = self._fitted(width)
        lines = [line for row in self.rows for line in self._row(row, widths)]
        if any(self.columns):
            rule = "─" * _total(widths)
            lines = [*self._row(self.columns, widths), rule, *lines]
        if self.left_out:
            lines += ["", f"(no room for the columns {', '.join(self.left_out)})"]
        return lines

    def _natural(self) -> list[int]:
        return [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

    def _lowest(self) -> list[int]:
        """How narrow each column may become before one is left out."""
        first = next((c for c in self.columns if c not in self.numbers), None)
        floors = dict.fromkeys(self.columns, OTHER) | dict.fromkeys(self.prose, PROSE)
        if first is not None:
            floors[first] = FIRST
        return [
            width if name in self.numbers else min(width, floors[name])
            for name, width in zip(self.columns, self._natural(), strict=True)
        ]

    def _fitted(self, width: int) -> list[int]:
        """The widths of columns in a table of a width: from the lowest up, the first column first;
        below the lowest where even those are too wide."""
        natural, widths = self._natural(), self._lowest()
        room = width - _total(widths)
        for i, (most, name) in enumerate(zip(natural, self.columns, strict=True)):
            change = min(most - widths[i], room) if room > 0 else 0
            if room < 0 and name not in self.numbers:
                change = -min(widths[i] - min(widths[i], LEAST), -room)
            widths[i] += change
            room -= change
        return widths

    def _without(self, name: str) -> Table:
        kept = [i for i, column in enumerate(self.columns) if column != name]
        return Table(
            [self.columns[i] for i in kept],
            [[row[i] for i in kept] for row in self.rows],
            self.numbers,
            self.prose,
            self.spare,
            (*self.left_out, name),
        )

    def _row(self, cells: Row, widths: Sequence[int]) -> list[str]:
        """The lines of a row: one, or more where prose wraps."""
        columns = [
            textwrap.wrap(cell, width) or [""] if name in self.prose else [shortened(cell, width)]
            for name, cell, width in zip(self.columns, cells, widths, strict=True)
        ]
        lines = []
        for number in range(max(map(len, columns))):
            texts = [column[number] if number < len(column) else "" for column in columns]
            padded = (
                text.rjust(width) if name in self.numbers else text.ljust(width)
                for name, text, width in zip(self.columns, texts, widths, strict=True)
            )
            lines.append(GAP.join(padded).rstrip())
        return lines


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and end around `…`, in at most `width` characters."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return text[: width - 1 - end] + "…" + text[len(text) - end :]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)
