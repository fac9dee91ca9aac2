"""How many threads the calls of a program get: no more than it is worth, and than have paid lately.

Beside other processes a thread may be interrupted inside a portion of a phase, and its caller waits
for a time slice of the system's, several milliseconds; or it comes when the caller has done all.
The driver tells of calls that had their team in vain. Once is chance. Twice within `SOON`, and the
calls of the next while are done by half of the threads (of two: by the caller alone, which waits
for nobody); then by all again, to see. Each while is twice as long as the one before, unless the
team did well for ten times as long in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SOON = 0.05
"""Seconds. Of a network of half a millisecond one call in a hundred may be in vain, which shows in
its 99th percentile; of one of ten milliseconds every third, as it is still quicker on the whole.
Beside one and two busy processes, on two cores, the first takes 1.05 of what one thread takes at
the median, and 0.7 to 1.1 at the 99th percentile."""
SHORTEST, LONGEST = 0.01, 1.0
"""Seconds of the first while and of those in the end: of a network of half a millisecond that tries
in vain each time, two calls in two thousand do."""
WELL = 10
"""Times the last while, after which the next one is short again."""


class Pace:
    """The pace of one program, which is `worth` so many threads. `clock`: seconds."""

    def __init__(self, worth: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.worth = worth
        self._clock = clock
        self._halvings = 0
        self._resumed = self._until = 0.0
        self._while = SHORTEST
        self._last = -SOON

    def threads(self, most: int) -> int:
        """How many the next call gets, of this many at most."""
        if self._halvings and (now := self._clock()) >= self._until:
            self._halvings -= 1
            self._resumed, self._until = now, now + self._while
        return max(1, min(most, self.worth) >> self._halvings)

    def in_vain(self) -> None:
        """Take note that the last call would have taken no longer with half of its threads."""
        now = self._clock()
        again = now - self._last < SOON
        self._last = now
        if again:
            did_well = now - self._resumed > WELL * self._while
            self._while = SHORTEST if did_well else min(2 * self._while, LONGEST)
            self._halvings += 1
            self._until = now + self._while
            self._last = -SOON
