"""How many threads the calls of a program get: no more than it is worth, and half where half are
quicker just now.

Beside other processes a thread may be interrupted inside a portion of a phase, and its caller waits
for a time slice of the system's, several milliseconds; or it comes when the caller has done all.
Half of the threads (of two: the caller alone, which waits for nobody) are then quicker. So half do
the calls for a *while*, after which all try again. A while begins

- when **two calls within `SOON` had their team in vain**, as the driver tells;
- when **calls take longer than they took with half of the threads** in the last while, `CLEARLY`;
- when **that was long ago**: the first while comes after a few calls, and later ones, as short as
  whiles are, when all threads have worked for so long that half a percent of it is lost by them.

In the first two cases a while is twice as long as the one before, unless all threads did well for
ten times as long in between. What is compared was measured one after the other, so that a change of
the machine's speed decides nothing for long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

SOON = 0.05
"""Seconds. Of a network of half a millisecond one call in a hundred may be in vain, which shows in
its 99th percentile; of one of ten milliseconds every third, as it may be quicker on the whole."""
SHORTEST = 0.01
"""Seconds of the shortest while, which lasts for a call at least."""
DOUBLINGS = 7
"""Of whiles, at most: to 1.3 s, and 128 calls, so that one that tries in vain is not yet the 99th
percentile."""
WELL = 10
"""Times the last while, after which the next one is short again."""
FIRST, OFTEN, RARELY = 16, 20, 200
"""Calls before the first while; how many times as long as the last while all threads work before
the next one, and as long as what was lost in it. So where both widths take about the same, and
chance has much to say, it is soon looked at again."""
ENOUGH = 0.005
"""Seconds of calls that a comparison needs: the first few find caches cold, and threads asleep."""
LATELY = 16
"""Calls that a mean is of: if each takes twice as long from now on, that is noticed after ten to
thirty, and one that a time slice is added to by chance costs one short while."""
CLEARLY = 1.05


class Width:
    """So many threads: what calls have taken since these took over, the seconds of all (`busy`) and
    the `mean` of the latest; and for how long they have given way to `fewer`, half of them."""

    def __init__(self, threads: int, wider: Width | None = None) -> None:
        self.threads = threads
        self.wider = wider
        self.fewer = Width(threads >> 1, self) if threads > 1 else None
        self.calls = 0
        self.busy = self.mean = self._since = self._until = 0.0
        self._doublings = self._calls_of_fewer = 0

    def take_over(self, now: float) -> None:
        self.calls = 0
        self.busy = self.mean = 0.0
        self._since = now

    def took(self, seconds: float) -> None:
        self.calls += 1
        self.busy += seconds
        self.mean += (seconds - self.mean) / min(self.calls, LATELY)

    def is_slower_than(self, fewer: Width) -> bool:
        return self.busy >= ENOUGH and 0 < CLEARLY * fewer.mean < self.mean

    def has_not_seen(self, fewer: Width) -> bool:
        """For long, or at all."""
        mean = fewer.mean  # which another thread may set to zero meanwhile
        if mean == 0:
            return self.calls >= FIRST
        seconds = max(SHORTEST, mean)
        lost = seconds * (1 - self.mean / mean)
        return self.busy > max(OFTEN * seconds, RARELY * lost)

    def fail(self, now: float) -> None:
        """Give way, for longer than the last time if that was just now."""
        last = SHORTEST * 2**self._doublings
        did_well = now - self._since > WELL * last
        self.give_way(now, 0 if did_well else min(self._doublings + 1, DOUBLINGS))

    def give_way(self, now: float, doublings: int = 0) -> None:
        self._doublings = doublings
        self._calls_of_fewer = 0
        self._until = now + SHORTEST * 2**doublings

    def is_back(self, clock: Callable[[], float]) -> bool:
        """Whether the while is over, with the next call, which is asked for."""
        if self._calls_of_fewer >= 2**self._doublings and clock() >= self._until:
            return True
        self._calls_of_fewer += 1
        return False


class Pace:
    """The pace of one program, which is `worth` so many threads. `clock`: seconds.

    Any number of threads may ask and tell at the same time: what is told of a width that has just
    given way counts for nothing.
    """

    def __init__(self, worth: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.worth = worth
        self._clock = clock
        self._most = 1
        self._width = Width(1)
        self._in_vain = -math.inf

    def threads(self, most: int) -> int:
        """How many the next call gets, of this many at most."""
        most = max(1, min(most, self.worth))
        if most != self._most:
            self._most, self._width = most, Width(most)
        wider = self._width.wider
        if wider is not None and wider.is_back(self._clock):
            wider.take_over(self._clock())
            self._width = wider
        return self._width.threads

    def took(self, threads: int, seconds: float) -> None:
        """Take note of a call on so many threads that met no other call of this process."""
        width = self._width
        if width.threads != threads:
            return
        width.took(seconds)
        if width.fewer is None:
            return
        if width.is_slower_than(width.fewer):
            self._give_way(width, width.fail)
        elif width.has_not_seen(width.fewer):
            self._give_way(width, width.give_way)

    def in_vain(self, threads: int) -> None:
        """Take note that a call on so many threads would have taken no longer with half of them."""
        width, now = self._width, self._clock()
        again = now - self._in_vain < SOON
        self._in_vain = -math.inf if again else now
        if again and width.threads == threads:
            self._give_way(width, width.fail)

    def _give_way(self, width: Width, how: Callable[[float], None]) -> None:
        now = self._clock()
        how(now)
        if width.fewer is not None:
            width.fewer.take_over(now)
            self._width = width.fewer
