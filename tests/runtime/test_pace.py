"""How many threads calls get: by what a program is worth, and whether teams paid lately."""

from __future__ import annotations

import pytest

from lucid.runtime.pace import LONGEST, SHORTEST, SOON, WELL, Pace


class Clocked(Pace):
    """A pace whose clock stands still but for `after`."""

    def __init__(self, worth: int) -> None:
        self.now = 100.0
        super().__init__(worth, lambda: self.now)

    def after(self, seconds: float) -> Clocked:
        self.now += seconds
        return self

    def in_vain_twice(self) -> None:
        self.in_vain()
        self.after(SHORTEST / 2).in_vain()


@pytest.mark.parametrize(
    ("worth", "most", "threads"), [(1, 8, 1), (3, 8, 3), (99, 8, 8), (99, 1, 1)]
)
def test_a_call_gets_what_it_is_worth_and_allowed(worth: int, most: int, threads: int) -> None:
    assert Clocked(worth).threads(most) == threads


def test_once_in_vain_is_chance() -> None:
    pace = Clocked(99)
    for _ in range(3):
        pace.after(2 * SOON).in_vain()
        assert pace.threads(2) == 2


@pytest.mark.parametrize(("most", "fewer"), [(2, 1), (3, 1), (8, 4)])
def test_twice_is_not_and_half_of_the_threads_go_on_for_a_while(most: int, fewer: int) -> None:
    pace = Clocked(99)
    pace.in_vain_twice()
    assert pace.threads(most) == fewer
    assert pace.after(0.9 * SHORTEST).threads(most) == fewer
    assert pace.after(0.2 * SHORTEST).threads(most) == most


def test_the_whiles_become_longer_as_long_as_it_does_not_pay() -> None:
    pace, times = Clocked(99), []
    for _ in range(12):
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
        assert pace.after(LONGEST).threads(2) == 2
    pace.after(2 * WELL * LONGEST).in_vain_twice()
    assert pace.threads(2) == 1
    assert pace.after(1.1 * SHORTEST).threads(2) == 2


def test_several_halvings_are_taken_back_one_by_one() -> None:
    pace = Clocked(99)
    pace.in_vain_twice()
    pace.in_vain_twice()
    assert pace.threads(8) == 2
    assert pace.after(LONGEST).threads(8) == 4
    assert pace.threads(8) == 4
    assert pace.after(LONGEST).threads(8) == 8
