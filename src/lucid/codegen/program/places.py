"""Which places of a buffer strided dimensions reach, in one form for all ways to say it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Places:
    """The places `first` + sum of index * stride, 0 <= index < count, over `dimensions`.

    In normal form: strides are positive and grow, dimensions that repeat places are left out, and
    those that go on where smaller ones end, or before, are one with them. A dense array has one
    dimension however it is shaped and permuted. `dimensions` is None where there are no places.
    """

    first: int
    dimensions: tuple[tuple[int, int], ...] | None

    @staticmethod
    def of(first: int, extent: Iterable[tuple[int, int]]) -> Places:
        """The places of dimensions (count, stride) in any order, with strides of any sign."""
        found: list[tuple[int, int]] = []
        apart: list[tuple[int, int]] = []
        for count, stride in extent:
            if count < 1:
                return Places(0, None)
            if stride < 0:
                first += (count - 1) * stride
            if count > 1 and stride:
                apart.append((abs(stride), count))
        for stride, count in sorted(apart):
            size, step = found[-1] if found else (0, stride)
            if stride % step == 0 and stride // step <= size:
                found[-1] = (size + (count - 1) * (stride // step), step)
            else:
                found.append((count, stride))
        return Places(first, tuple(found))

    @property
    def end(self) -> int:
        """One past the last place."""
        if self.dimensions is None:
            return self.first
        return self.first + 1 + sum((count - 1) * stride for count, stride in self.dimensions)

    def inside(self, size: int) -> bool:
        """Whether all places are within a buffer of this size."""
        return self.dimensions is None or (self.first >= 0 and self.end <= size)

    def same(self, other: Places) -> bool:
        """Whether both are the same set."""
        if self == other:
            return True
        if None in (self.dimensions, other.dimensions):
            return False
        ends = (self.first, self.end) == (other.first, other.end)
        return ends and bool((self._marks() == other._marks()).all())

    def _marks(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For each place from the first to the last, whether it is one: for what overlaps in ways
        that have no normal form."""
        marks = np.zeros(self.end - self.first, bool)
        numbers = np.zeros(1, np.int64)
        for count, stride in self.dimensions or ():
            numbers = np.unique(np.add.outer(numbers, np.arange(count) * stride))
        marks[numbers] = True
        return marks
