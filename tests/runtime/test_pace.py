"""How many threads calls get: by what a program is worth, and by what pays. Time is simulated."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from lucid.runtime.pace import DOUBLINGS, FIRST, OFTEN, RARELY, SHORTEST, SOON, WELL, Pace

LONGEST = SHORTEST * 2**DOUBLINGS


class Clocked(Pace):
    """A pace whose clock stands still but for `after`."""

    def __init__(self, worth: int) -> None:
        self.now = 100.0
        super().__init__(worth, lambda: self.now)

    def after(self, seconds: float) -> Clocked:
        self.now += seconds
        return self

    def calls(self, most: int, seconds: float, count: int) -> list[int]:
        """So many, each of which takes so long; the threads that they got."""
        given = []
        for _ in range(count):
            given.append(self.threads(most))
            self.after(seconds).took(given[-1], seconds)
        return given

    def in_vain_twice(self, most: int = 2) -> None:
        threads = self.threads(most)
        self.in_vain(threads)
        self.after(SHORTEST / 2).in_vain(threads)


@pytest.mark.parametrize(
    ("worth", "most", "threads"), [(0, 8, 1), (1, 8, 1), (3, 8, 3), (99, 8, 8), (99, 1, 1)]
)
def test_a_call_gets_what_it_is_worth_and_allowed(worth: int, most: int, threads: int) -> None:
    assert Clocked(worth).threads(most) == threads


# -- calls that had their team in vain --------------------------------------------------------


def test_once_in_vain_is_chance() -> None:
    pace = Clocked(99)
    for _ in range(3):
        assert pace.threads(2) == 2
        pace.after(2 * SOON).in_vain(2)


@pytest.mark.parametrize(("most", "fewer"), [(2, 1), (3, 1), (8, 4)])
def test_twice_is_not_and_half_of_the_threads_go_on_for_a_while(most: int, fewer: int) -> None:
    pace = Clocked(99)
    pace.in_vain_twice(most)
    assert pace.threads(most) == fewer
    assert pace.after(0.9 * SHORTEST).threads(most) == fewer
    assert pace.after(0.2 * SHORTEST).threads(most) == most


def test_a_while_lasts_for_a_call_however_late_it_comes() -> None:
    pace = Clocked(99)
    pace.in_vain_twice()
    assert [pace.after(1.0).threads(2) for _ in range(3)] == [1, 2, 2]


def test_the_whiles_become_longer_as_long_as_it_does_not_pay() -> None:
    pace, times = Clocked(99), []
    for _ in range(DOUBLINGS + 3):
        pace.in_vain_twice()
        start = pace.now
        while pace.threads(2) == 1:
            pace.after(SHORTEST / 4)
        times.append(pace.now - start)
    assert times[0] < 2 * SHORTEST
    assert times == sorted(times)
    assert LONGEST <= times[-1] < 1.1 * LONGEST


def test_they_are_short_again_after_it_has_paid() -> None:
    pace = Clocked(99)
    for _ in range(12):
        pace.in_vain_twice()
        while pace.threads(2) == 1:
            pace.after(SHORTEST)
    pace.after(2 * WELL * LONGEST).in_vain_twice()
    assert pace.threads(2) == 1
    assert pace.after(1.1 * SHORTEST).threads(2) == 2


def test_several_halvings_are_taken_back_one_by_one() -> None:
    pace = Clocked(99)
    pace.in_vain_twice(8)
    pace.in_vain_twice(8)
    given = [pace.after(SHORTEST).threads(8) for _ in range(9)]
    assert list(dict.fromkeys(given)) == [2, 4, 8]
    assert given == sorted(given)


def test_one_thread_cannot_give_way() -> None:
    pace = Clocked(99)
    assert pace.threads(1) == 1
    for _ in range(5):
        pace.after(SHORTEST / 2).in_vain(1)
    assert pace.threads(1) == 1


def test_what_is_told_of_threads_that_gave_way_counts_for_nothing() -> None:
    """As of calls of others that began before."""
    pace = Clocked(99)
    pace.in_vain_twice(8)
    pace.in_vain(8)
    pace.after(SHORTEST / 4).in_vain(8)
    pace.took(8, 1000.0)
    assert pace.threads(8) == 4


def test_where_more_threads_are_allowed_or_fewer_it_begins_anew() -> None:
    pace = Clocked(99)
    pace.in_vain_twice(8)
    assert [pace.threads(most) for most in (8, 6, 6, 8)] == [4, 6, 6, 8]


# -- what calls took --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "calls_of_one", "busy"),
    [
        (0.001, 0.0005, 10, RARELY * SHORTEST / 2),
        (0.001, 0.00095, 10, OFTEN * SHORTEST),
        (0.1, 0.06, 1, RARELY * 0.04),
        (0.1, 0.1, 1, OFTEN * 0.1),
    ],
)
def test_half_of_the_threads_are_tried_after_a_few_calls_and_then_rarely(
    one: float, two: float, calls_of_one: int, busy: float
) -> None:
    """Short calls for a hundredth of a second, of long ones one; sooner where it costs less."""
    pace = Clocked(99)
    assert set(pace.calls(2, two, FIRST)) == {2}
    assert pace.calls(2, one, calls_of_one) == [1] * calls_of_one
    count = round(busy / two)
    assert set(pace.calls(2, two, count - 2)) == {2}
    assert 1 in pace.calls(2, two, 5)


def tried(one: float, two: float) -> Clocked:
    """A pace that has just tried one thread, whose calls take so long, and goes on with two."""
    pace = Clocked(99)
    pace.calls(2, two, FIRST)
    while pace.threads(2) == 1:
        pace.after(one).took(1, one)
    return pace


def test_the_first_calls_after_a_while_may_take_longer() -> None:
    """They find caches cold, and threads asleep."""
    pace = tried(0.001, 0.0006)
    assert set(pace.calls(2, 0.0015, 2) + pace.calls(2, 0.0006, 200)) == {2}


@pytest.mark.parametrize("before", [5, 1000])
def test_it_is_soon_noticed_that_calls_take_longer(before: int) -> None:
    pace = tried(0.0018, 0.001)
    pace.calls(2, 0.001, before)
    assert 1 in pace.calls(2, 0.002, 40)


def test_what_counts_of_half_of_the_threads_is_their_last_while() -> None:
    pace = tried(0.3, 0.2)
    while pace.threads(2) == 2:
        pace.after(0.2).took(2, 0.2)
    pace.after(0.1).took(1, 0.1)
    assert pace.calls(2, 0.2, 2) == [2, 1]


def test_who_began_before_the_others_gave_way_tells_nothing_of_them() -> None:
    pace = tried(0.01, 0.006)
    pace.in_vain_twice()
    pace.took(2, 100.0)
    while pace.threads(2) == 1:
        pace.after(0.01).took(1, 0.01)
    pace.after(0.02).took(2, 0.02)
    assert pace.threads(2) == 1


def test_calls_that_nothing_is_known_of_change_nothing() -> None:
    """Those that met others: nobody tells what they took."""
    pace = Clocked(99)
    assert {pace.after(0.01).threads(2) for _ in range(1000)} == {2}


@dataclass
class World:
    """Two processors, which so many `hogs` share, and a network that takes `one` thread so many
    seconds, and `two` so many where there are none; all times are those by the machine's `speed`.
    Calls of two threads are held up by time slices of a hog's, more often the longer they are, and
    so are those of one thread beside two."""

    one: float
    two: float
    hogs: Callable[[float], int] = lambda now: 0
    speed: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def call(self, threads: int) -> tuple[float, bool]:
        """The seconds that it takes, and whether the team was in vain."""
        hogs = self.hogs(self.now)
        alone = {1: self.one, 2: self.two}[threads] * self.speed(self.now)
        alone *= self.chance.uniform(0.95, 1.05)
        rate = hogs / 0.003 if threads == 2 else (hogs // 2) / 0.01
        held, left = 0.0, self.chance.expovariate(1)
        while left < alone * rate:
            held += self.chance.uniform(0.002, 0.005)
            left += self.chance.expovariate(1)
        self.now += alone + held
        return alone + held, threads == 2 and held > alone


def calls(world: World, until: float, fixed: int = 0) -> np.ndarray:
    """What calls take one after the other, on so many threads, or as many as the pace says; rows of
    when, threads, seconds."""
    pace, rows = Pace(2, lambda: world.now), []
    while world.now < until:
        threads = fixed or pace.threads(2)
        start = world.now
        seconds, in_vain = world.call(threads)
        rows.append((start, threads, seconds))
        pace.took(threads, seconds)
        if in_vain:
            pace.in_vain(threads)
    return np.array(rows)


def steady(now: float) -> float:
    return 1.0


def swinging(now: float) -> float:
    """Slower by 1.4 for half of the time, in stretches of different lengths."""
    return 1.4 if (now / 0.7) % 1 + (now / 0.31) % 1 > 1 else 1.0


NETWORKS = {
    "half a millisecond": (0.0006, 0.0005),
    "which hardly gains": (0.004, 0.0039),
    "which loses": (0.002, 0.0024),
    "middling": (0.006, 0.0034),
    "long": (0.019, 0.011),
    "very long": (0.12, 0.065),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("speed", "limit"), [(steady, 1.01), (swinging, 1.03)])
def test_on_an_idle_machine_calls_take_what_the_best_number_takes(
    name: str, speed: Callable[[float], float], limit: float
) -> None:
    found = [
        calls(World(*NETWORKS[name], speed=speed), 20.0, fixed)[:, 2].mean() for fixed in (1, 2, 0)
    ]
    assert found[2] < limit * min(found[:2])


@pytest.mark.parametrize("hogs", [1, 2])
@pytest.mark.parametrize("name", ["half a millisecond", "which hardly gains", "middling", "long"])
@pytest.mark.parametrize("speed", [steady, swinging])
def test_beside_busy_processes_they_take_what_one_thread_takes(
    name: str, hogs: int, speed: Callable[[float], float]
) -> None:
    one, paced = (
        calls(World(*NETWORKS[name], lambda now: hogs, speed), 20.0, fixed)[:, 2]
        for fixed in (1, 0)
    )
    assert paced.mean() < 1.05 * one.mean()
    assert np.median(paced) < 1.1 * np.median(one)
    if name == "half a millisecond":
        assert np.percentile(paced, 99) < 1.2 * np.percentile(one, 99)


@pytest.mark.parametrize("name", ["half a millisecond", "middling", "long"])
@pytest.mark.parametrize("speed", [steady, swinging])
def test_threads_come_and_go_with_the_load(name: str, speed: Callable[[float], float]) -> None:
    """Gone within a second or two; back within the longest while, of 128 calls or 1.3 s."""
    one, two = NETWORKS[name]
    world = World(one, two, lambda now: 10 < now < 30, speed)
    when, threads, _ = calls(world, 60.0).T
    longest = 1.4 * max(LONGEST, 2**DOUBLINGS * one)

    def share_of_two(begin: float, end: float) -> float:
        return float((threads[(begin < when) & (when < end)] == 2).mean())

    assert share_of_two(1, 10) > 0.95
    assert share_of_two(12, 30) < 0.05
    assert share_of_two(30 + longest, 60) > 0.95
