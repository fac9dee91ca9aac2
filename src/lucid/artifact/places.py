"""Tables of integers that a file has no copy of, as they lie in its packed weights.

Packing 8-bit integers puts them into another order, axis by axis: element (i, j, ...) of a table
lies at first + f(i) + g(j) + ... in the packed weight, and each of f, g, ... is a few strides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.ir.types import DTYPES

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array

TABLES = ("i8", "u8")
"""The dtypes of tables that are taken from packed weights, whose integers are no shorter: what was
stored in more bits, or with another sign, is what it was in the last eight."""
MOST_STRIDES = 6
"""Of an axis: for groups, panels, columns, and integers that are multiplied together."""

Strides = tuple[tuple[int, int], ...]
"""How an axis lies: pairs of a period and a stride, the shortest period first. Every `period`
elements, as counted within the next longer period, are `stride` further on."""


@dataclass(frozen=True)
class Place:
    """Where a table lies, of two axes or more. `section`, `weight`: of the packed weight. `first`:
    where its first element is, and `axes` how the others follow."""

    section: str
    weight: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    axes: tuple[Strides, ...]

    @staticmethod
    def of(section: str, weight: str, dtype: str, positions: Array) -> Place | None:
        """That of a table whose elements are at these positions, an array of its shape; None where
        they do not lie axis by axis."""
        if not positions.size or positions.ndim < 2:
            return None
        first = int(positions.flat[0])
        axes = [_strides(line - first) for line in _edges(positions)]
        known = tuple(strides for strides in axes if strides is not None)
        place = Place(section, weight, dtype, positions.shape, first, known)
        if len(known) < len(axes):
            return None
        row, further = place._rows()
        fits = all(np.array_equal(row + o, p) for o, p in zip(further, positions, strict=True))
        return place if fits else None

    def _rows(self) -> tuple[Array, Array]:
        """The positions of what is first along the first axis, and how far from it the others are
        that follow along this axis."""
        further, *others = map(_offsets, self.axes, self.shape)
        row: Any = np.int64(self.first)
        for offsets in others:
            row = np.add.outer(row, offsets)
        return row, further

    def taken(self, packed: Array) -> Array:
        """The table. Raises ValueError where it does not lie in the packed weight."""
        numbers = packed.reshape(-1)
        if numbers.dtype.kind not in "iu" or not 0 < prod(self.shape) <= numbers.size:
            raise ValueError(f"{self.shape} integers are not among {numbers.size} {numbers.dtype}")
        table = np.empty(self.shape, DTYPES[self.dtype])
        row, further = self._rows()
        least, most = int(row.min()) + int(further.min()), int(row.max()) + int(further.max())
        if least < 0 or most >= numbers.size:
            raise ValueError(f"there are only {numbers.size} numbers")
        for line, offset in zip(table, further, strict=True):
            line[...] = numbers[row + offset]
        return table


def to_json(places: Mapping[str, Place]) -> str:
    """The section that has these."""
    rows = {name: asdict(place) for name, place in places.items()}
    return json.dumps(rows, separators=(",", ":"))


def from_json(text: str) -> dict[str, Place]:
    """The inverse of `to_json`. Raises ValueError, TypeError, LookupError, AttributeError."""
    return {str(name): _place(row) for name, row in json.loads(text).items()}


def _place(row: Mapping[str, Any]) -> Place:
    axes = tuple(tuple((_whole(p), _whole(s)) for p, s in axis) for axis in row["axes"])
    shape, first = tuple(map(_whole, row["shape"])), _whole(row["first"])
    least = min((period for axis in axes for period, _ in axis), default=1)
    if row["dtype"] not in TABLES or not 2 <= len(axes) == len(shape) or min(least, *shape) < 1:
        raise ValueError(f"{row!r} is no place of a table")
    return Place(str(row["section"]), str(row["weight"]), str(row["dtype"]), shape, first, axes)


def _whole(number: Any) -> int:
    """Raises ValueError for what JSON has beside integers, and for those that NumPy has not."""
    if type(number) is not int or abs(number) >= 1 << 62:
        raise ValueError(f"{number!r} is no whole number")
    return int(number)


def _edges(positions: Array) -> Iterator[Array]:
    """Those along each axis through the first element."""
    for axis in range(positions.ndim):
        yield positions[(0,) * axis + (slice(None),) + (0,) * (positions.ndim - axis - 1)]


def _offsets(strides: Sequence[tuple[int, int]], count: int) -> Array:
    """How far from the first each of `count` elements along an axis is."""
    left, found = np.arange(count), np.zeros(count, np.int64)
    for period, stride in reversed(strides):
        found += left // period * stride
        left %= period
    return found


def _strides(offsets: Array) -> Strides | None:
    """How an axis lies whose elements are so far from the first; None where it takes many."""
    found: list[tuple[int, int]] = []
    while len(found) <= MOST_STRIDES:
        (wrong,) = np.nonzero(_offsets(found, len(offsets)) != offsets)
        if not wrong.size:
            return tuple(found)
        found.append((int(wrong[0]), int(offsets[wrong[0]])))
    return None
