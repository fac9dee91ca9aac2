"""Which taps of windows meet the map, along one axis, so that products with padding are left out.

Of far dilated windows on small maps most taps lie outside. The outputs of a block are cut into
pieces, all of whose windows have the same taps inside ("live"): along an axis those are a range,
each bound of which moves down by one tap from place to place as the window moves up. So an axis
has two pieces more than there are taps twice, at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise, product
from typing import TypeVar

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I64, Int, Pointer

WORDS = 3
"""Of an entry in the list of pieces: its first output, its first live tap, how many there are."""


SPARSE = 0.9
"""Share of the products with windows below which those with padding are left out."""
LEAST_ROWS = 4
"""Rows of the shortest tile."""

Count = TypeVar("Count", int, Int)


def list_words(taps: Count) -> Count:
    """Room for the list of pieces along an axis of so many taps, and the entry that ends it."""
    return (taps * 2 + 2) * WORDS


@dataclass(frozen=True)
class AxisWindows:
    """So many `outputs`, each of a window of `taps` taps, along an axis of `size` pixels that has
    `padding` before it."""

    outputs: int
    stride: int
    padding: int
    dilation: int
    taps: int
    size: int

    def pieces(self) -> list[tuple[int, int]]:
        """Outputs and live taps of each piece. Outputs may be more than memory could hold."""
        edges = (self.padding + side for side in (0, self.size))
        reached = [edge - t * self.dilation for edge in edges for t in range(self.taps)]
        places = (-(-pixel // self.stride) for pixel in reached)
        cuts = sorted({0, self.outputs, *(p for p in places if 0 < p < self.outputs)})
        parts = [
            (self._live_range(a * self.stride - self.padding), b - a) for a, b in pairwise(cuts)
        ]
        alike = groupby(parts, lambda part: part[0])
        return [(sum(outputs for _, outputs in same), len(live)) for live, same in alike]

    def meet(self) -> bool:
        """Whether every window has a live tap."""
        return all(taps for _, taps in self.pieces())

    def _live_range(self, start: int) -> range:
        """The live taps of a window that begins in pixel `start`."""
        first = max(0, -(start // self.dilation))
        return range(first, max(first, min(self.taps, -((start - self.size) // self.dilation))))


def sparse_share(high: AxisWindows, wide: AxisWindows) -> float:
    """The share of an image's products with windows that is left where its rows are sorted by live
    taps; groups of few rows take as long as those of LEAST_ROWS."""
    parts = product(high.pieces(), wide.pieces())
    left = sum(max(LEAST_ROWS, h[0] * w[0]) * max(1, h[1] * w[1]) for h, w in parts)
    return left / max(1, high.outputs * high.taps * wide.outputs * wide.taps)


@dataclass(frozen=True)
class Piece:
    """Outputs `first` to `last` (exclusive) along an axis, and their live taps: `taps` of them from
    `tap` on. Where none is live there is one, which meets padding."""

    first: Int
    last: Int
    tap: Int
    taps: Int

    @property
    def outputs(self) -> Int:
        return self.last - self.first


@dataclass(frozen=True)
class Axis:
    """The outputs of a block along one axis: how many, and the pixel of the map in which the first
    one's window begins; how the windows lie, and how many pixels there are."""

    outputs: Int
    start: Int
    stride: Int
    dilation: Int
    taps: Int
    size: Int


class Pieces:
    """The pieces of an axis, in a list in `room`."""

    def __init__(self, kernel: Kernel, axis: Axis, room: Pointer) -> None:
        self.kernel = kernel
        self.room = room
        self.count = self._find(axis)

    def _find(self, axis: Axis) -> Int:
        """Write the list; how many pieces there are."""
        k, state = self.kernel, self.kernel.stack(2, I64)
        count, last = state.words(0), state.words(1)
        k.store_int(0, count)
        k.store_int(-1, last)
        with k.loop(0, axis.outputs) as output:
            start = axis.start + output.index * axis.stride
            tap = (0 - start).maximum(0).ceil_div(axis.dilation).minimum(axis.taps - 1)
            end = (axis.size - start).maximum(0).ceil_div(axis.dilation).minimum(axis.taps)
            taps = (end - tap).maximum(1)
            both = tap * (axis.taps + 1) + taps
            with k.when(k.negated(both.equals(k.load_int(last)))):
                number = k.load_int(count)
                self._write(number, output.index, tap, taps)
                k.store_int(number + 1, count)
                k.store_int(both, last)
        found = k.load_int(count)
        self._write(found, axis.outputs)
        return found

    def _write(self, number: Int, *words: Int) -> None:
        for i, word in enumerate(words):
            self.kernel.store_int(word, self.room.words(number * WORDS + i))

    @contextmanager
    def each(self) -> Iterator[Piece]:
        """A loop over the pieces."""
        k = self.kernel
        with k.loop(0, self.count) as loop:
            entry = self.room.words(loop.index * WORDS)
            first, tap, taps, last = (k.load_int(entry.words(i)) for i in range(WORDS + 1))
            yield Piece(first, last, tap, taps)
