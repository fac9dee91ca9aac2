"""Random choices from one seed, and the pools that sizes come from.

Kernels do not depend on sizes, so any size would do; pools see to it that those turn up often at
which code takes another path: one more and one less than whole vectors, panels and tiles.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import prod
from typing import TypeVar

import numpy as np

T = TypeVar("T")

CHANNELS = [1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 63, 64, 65, 72, 100]
WIDE = [96, 127, 128, 129, 144, 192, 200, 256, 257, 260, 300]
SPATIAL = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 17, 19, 23, 28]
BATCHES = [0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9]
LARGEST = 60_000
"""Numbers in one array of a usual case."""


class Draw:
    """Choices that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.arrays = np.random.default_rng(seed)
        self.empty = False

    def pick(self, pool: Sequence[T]) -> T:
        return self.random.choice(pool)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return self.random.randint(low, high)

    def some(self, pool: Sequence[T], share: float = 0.5) -> list[T]:
        """A random part of a pool, in its order."""
        return [one for one in pool if self.chance(share)]

    def shuffled(self, pool: Sequence[T]) -> list[T]:
        return self.random.sample(list(pool), len(pool))

    def divisor(self, number: int) -> int:
        return self.pick([d for d in range(1, number + 1) if number % d == 0])

    def channels(self, most: int = 300) -> int:
        pool = WIDE if self.chance(0.15) else CHANNELS
        return self.pick([c for c in pool if c <= most] or [most])

    def image(self, channels: int, batch: int, least: int = 1) -> tuple[int, int]:
        """Height and width of a map that is not too large; at times one pixel, or a huge line."""
        if self.chance(0.04) and least == 1:
            return 1, 1
        if self.chance(0.03):
            long = max(least, min(3000, LARGEST // (least * channels * max(1, batch))))
            return self.pick([(least, long), (long, least)])
        height, width = (self.pick([s for s in SPATIAL if s >= least]) for _ in range(2))
        while height * width * channels * max(1, batch) > LARGEST and max(height, width) > least:
            height, width = max(least, height // 2), max(least, width // 2)
        return height, width

    def shape(self, low: int = 0, high: int = 4, most: int = 6000) -> tuple[int, ...]:
        """Dimensions of no particular meaning; one of them is 0 where arrays are to be `empty`."""
        pool = [1, 2, 3, 4, 5, 7, 8, 10, 16, 17, 33, 40]
        sizes = [self.pick(pool) for _ in range(self.integer(low, high))]
        while prod(sizes) > most:
            sizes[sizes.index(max(sizes))] = self.pick([1, 2, 3])
        if self.empty and sizes:
            sizes[self.integer(0, len(sizes) - 1)] = 0
        return tuple(sizes)
