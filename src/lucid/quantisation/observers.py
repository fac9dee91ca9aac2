"""Histograms of any number of numbers, in memory that does not grow with them."""

from __future__ import annotations

import math

import numpy as np

from lucid.ir.ops.base import Array

HALF = 8192
"""Bins on either side of zero."""
SMALLEST = -120
"""The exponent of the bins' width before any number but zero is seen."""


class Histogram:
    """How many numbers lie in each of 2 * HALF bins of equal width, from -HALF to HALF widths.

    The width is a power of two. Where a number lies outside, it is doubled until that one fits, and
    neighbouring bins become one: what is counted is then exactly what it would have been with that
    width from the start, whatever the order of the numbers.

    `counts`: int64 (2 * HALF); bin i holds [(i - HALF) * width, (i - HALF + 1) * width). `least`,
    `largest`: of all numbers, exactly; infinities of the wrong sign before there are any.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * HALF, np.int64)
        self.least, self.largest = math.inf, -math.inf
        self._exponent = SMALLEST

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self._exponent)

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    def centres(self) -> Array:
        """float64 (2 * HALF): the middle of each bin."""
        middles: Array = (np.arange(-HALF, HALF) + 0.5) * self.width
        return middles

    def add(self, x: Array) -> None:
        """Count finite numbers: an array of floats of any shape."""
        if not x.size:
            return
        least, largest = float(x.min()), float(x.max())
        self._widen(least, largest)
        places = np.floor(x.reshape(-1) * np.float64(1 / self.width)).astype(np.int32)
        places += HALF
        self.counts += np.bincount(places, minlength=2 * HALF)
        self.least, self.largest = min(self.least, least), max(self.largest, largest)

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted."""
        if not other.total:
            return
        self._widen(other.least, other.largest)
        theirs = other.counts
        if other._exponent > self._exponent:
            self._double(other._exponent - self._exponent)
        else:
            theirs = _doubled(theirs, self._exponent - other._exponent)
        self.counts = self.counts + theirs
        self.least = min(self.least, other.least)
        self.largest = max(self.largest, other.largest)

    def quantile(self, share: float) -> float:
        """The number that a share (0 to 1) of all numbers are at most, but for a bin's width."""
        reached = np.cumsum(self.counts)
        rank = share * reached[-1]
        place = int(np.searchsorted(reached, rank))
        before = reached[place - 1] if place else 0
        inside = (rank - before) / max(1, self.counts[place])
        value = float(place - HALF + inside) * self.width
        return min(max(value, self.least), self.largest)

    def _widen(self, least: float, largest: float) -> None:
        """Let the bins reach these numbers."""
        doublings = 0
        while not self._holds(least, largest, doublings):
            doublings += 1
        self._double(doublings)

    def _holds(self, least: float, largest: float, doublings: int) -> bool:
        width = math.ldexp(1.0, self._exponent + doublings)
        return least / width >= -HALF and largest / width < HALF

    def _double(self, times: int) -> None:
        self.counts = _doubled(self.counts, times)
        self._exponent += times


def _doubled(counts: Array, times: int) -> Array:
    """The counts of bins 2 ** `times` as wide."""
    if not times:
        return counts
    places = (np.arange(-HALF, HALF) >> min(times, 62)) + HALF
    merged = np.zeros_like(counts)
    np.add.at(merged, places, counts)
    return merged
