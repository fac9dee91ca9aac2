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
BLOCK = 1 << 16
"""Integers that are looked up at a time."""

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
    def of(section: str, weight: str, dtype: str, numbers: Array, packed: Array) -> Place | None:
        """That of a table which has these numbers, each unlike all others, and is packed with them;
        None where they do not all lie there, axis by axis."""
        if not numbers.size or numbers.ndim < 2:
            return None
        lines = [line for edge in _edges(numbers) if (line := _found(edge, packed)) is not None]
        axes = [_strides(line - line[0]) for line in lines]
        known = tuple(strides for strides in axes if strides is not None)
        if len(known) < numbers.ndim:
            return None
        first = int(lines[0][0])
        place = Place(section, weight, dtype, numbers.shape, first, known)
        return place if place._has(numbers, packed) else None

    def _has(self, numbers: Array, packed: Array) -> bool:
        try:
            blocks = self._blocks(packed.size)
            return all(np.array_equal(packed[at], numbers[some]) for some, at in blocks)
        except ValueError:
            return False

    def _blocks(self, count: int) -> Iterator[tuple[slice, Array]]:
        """Some indices along the first axis at a time, and the positions of what is there. Raises
        ValueError before the first where not all are among `count` numbers."""
        further, *others = map(_offsets, self.axes, self.shape)
        row: Any = np.int64(self.first)
        for offsets in others:
            row = np.add.outer(row, offsets)
        least, most = int(row.min()) + int(further.min()), int(row.max()) + int(further.max())
        if least < 0 or most >= count:
            raise ValueError(f"there are only {count} numbers")
        step = max(1, BLOCK // row.size)
        for start in range(0, len(further), step):
            yield slice(start, start + step), np.add.outer(further[start : start + step], row)

    def taken(self, packed: Array) -> Array:
        """The table. Raises ValueError where it does not lie in the packed weight."""
        numbers = packed.reshape(-1)
        if numbers.dtype.kind not in "iu" or not 0 < prod(self.shape) <= numbers.size:
            raise ValueError(f"{self.shape} integers are not among {numbers.size} {numbers.dtype}")
        table = np.empty(self.shape, DTYPES[self.dtype])
        for some, positions in self._blocks(numbers.size):
            table[some] = numbers[positions]
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
    known = row["dtype"] in TABLES and max(map(len, axes), default=0) <= MOST_STRIDES
    if not known or not 2 <= len(axes) == len(shape) or min(least, *shape) < 1:
        raise ValueError(f"{row!r} is no place of a table")
    return Place(str(row["section"]), str(row["weight"]), str(row["dtype"]), shape, first, axes)


def _whole(number: Any) -> int:
    """Raises ValueError for what JSON has beside integers, and for those that NumPy has not."""
    if type(number) is not int or abs(number) >= 1 << 62:
        raise ValueError(f"{number!r} is no whole number")
    return int(number)


def _edges(numbers: Array) -> Iterator[Array]:
    """Those along each axis through the first element."""
    for axis in range(numbers.ndim):
        yield numbers[(0,) * axis + (slice(None),) + (0,) * (numbers.ndim - axis - 1)]


def _found(line: Array, packed: Array) -> Array | None:
    """Where each of a few numbers is, the first time; None where one is missing."""
    there = np.flatnonzero(np.isin(packed, line))
    there = there[np.argsort(packed[there], kind="stable")]
    at = np.searchsorted(packed[there], line)
    if not len(there) or at.max() >= len(there):
        return None
    found: Array = there[at]
    return found if np.array_equal(packed[found], line) else None


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
