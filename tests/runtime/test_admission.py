"""Callers at the same time: who runs on how many threads, who waits, and in which order."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.codegen.kernels import admission_tables as native
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.target import Target
from lucid.errors import UnknownNameError
from lucid.os_threads import RLock
from lucid.runtime import admission
from lucid.runtime.admission import POLICIES, Gate, Pool, Turn
from lucid.runtime.library import library
from lucid.runtime.pace import Pace
from lucid.runtime.team import RUN_TYPE

HOST = Target.host()
PATIENCE = 10.0
"""Seconds after which a caller is taken to hang."""


@dataclass(eq=False)
class Caller:
    """A caller with a thread of its own, which runs until it is told to leave. `team`: the number
    of the team that it was given, None where it runs alone, and before."""

    gate: Gate
    pool: Pool
    policy: str = "adaptive"
    team: int | None = None
    admitted: threading.Event = field(default_factory=threading.Event)
    leaving: threading.Event = field(default_factory=threading.Event)

    def come(self) -> Caller:
        self.thread = threading.Thread(target=self._call, daemon=True)
        before = self.waiting
        self.thread.start()
        deadline = threading.Event()
        for _ in range(int(PATIENCE * 1000)):
            if self.admitted.is_set() or self.waiting > before:
                return self
            deadline.wait(0.001)
        raise AssertionError("it neither waits nor runs")

    @property
    def waiting(self) -> int:
        return int(self.gate.table[native.GATE_WAITING])

    def _call(self) -> None:
        turn = self.gate.turn()
        try:
            team = turn.take(self.pool, self.policy)
            self.team = None if team is None else self.pool.teams.index(team)
            self.admitted.set()
            self.leaving.wait(PATIENCE)
        finally:
            turn.leave()

    def leave(self) -> None:
        self.leaving.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    @property
    def runs(self) -> bool:
        return self.admitted.wait(PATIENCE if self.waiting == 0 else 0.02)


@pytest.fixture
def gate() -> Iterator[Callable[[int], Gate]]:
    """Makes gates of so many processors, which nobody holds in the end."""
    made = []

    def make(processors: int) -> Gate:
        made.append(Gate(HOST, processors))
        return made[-1]

    yield make
    for one in made:
        held = [int(one.table[w]) for w in (native.GATE_HELD, native.GATE_BESIDE)]
        assert held == [0, 0]
        assert one.table[native.GATE_WAITING] == 0
        assert one.table[native.GATE_MUTEX] == native.FREE


def test_one_caller_has_a_team_and_the_next_waits(gate: Callable[[int], Gate]) -> None:
    two = gate(2)
    pool = two.pool(HOST, 2)
    first = Caller(two, pool).come()
    assert first.runs
    assert first.team == 0
    second = Caller(two, pool).come()
    assert not second.runs
    first.leave()
    assert second.runs
    assert second.team == 0
    second.leave()


def test_with_more_callers_than_processors_each_has_one(gate: Callable[[int], Gate]) -> None:
    """First come, first served, of whatever size; beyond 64 too."""
    two = gate(2)
    pools = [two.pool(HOST, 2), two.pool(HOST, 3)]
    callers = [Caller(two, pools[number % 2]).come() for number in range(70)]
    for number, caller in enumerate(callers):
        assert caller.runs, number
        if number + 2 < len(callers):
            assert not callers[number + 2].admitted.is_set(), number
        caller.leave()
    # all but the first, which came alone, and the last, which was left alone
    assert [caller.team for caller in callers[1:-1]] == [None] * 68


def test_two_that_call_again_and_again_do_not_take_turns(gate: Callable[[int], Gate]) -> None:
    """They run side by side, until one of them stops."""
    two = gate(2)
    pool, teams = two.pool(HOST, 2), []
    last = Caller(two, pool).come()
    for _ in range(native.CROWD + 3):
        following = Caller(two, pool).come()
        last.leave()
        assert following.runs
        teams.append(following.team)
        last = following
    last.leave()
    assert teams == [0] * (native.CROWD - 1) + [None] * 4
    lone = Caller(two, pool).come()
    assert lone.team == 0
    lone.leave()


def test_callers_have_teams_of_their_own_where_there_are_processors(
    gate: Callable[[int], Gate],
) -> None:
    five = gate(5)
    pool = five.pool(HOST, 2)
    first = Caller(five, pool).come()
    alone = Caller(five, pool).come()  # processors enough, but no team yet
    assert (first.team, alone.team) == (0, None)
    alone.leave()
    second, third = (Caller(five, pool).come() for _ in range(2))
    assert (second.team, third.team) == (1, None)
    for caller in (first, second, third):
        caller.leave()
    assert len(pool.teams) == 2


def test_who_blocks_has_a_team_of_its_own_soon(gate: Callable[[int], Gate]) -> None:
    five = gate(5)
    pool = five.pool(HOST, 2)
    first = Caller(five, pool, "block").come()
    second = Caller(five, pool, "block").come()  # processors enough, but no team yet
    assert not second.runs
    first.leave()
    assert second.runs
    third = Caller(five, pool, "block").come()
    assert third.runs
    assert {second.team, third.team} == {0, 1}
    for caller in (second, third):
        caller.leave()


def test_who_blocks_waits_for_a_team_and_who_does_not_wait_runs_alone(
    gate: Callable[[int], Gate],
) -> None:
    two = gate(2)
    pool, one = two.pool(HOST, 2), two.pool(HOST, 1)
    alone = Caller(two, one).come()
    blocks = Caller(two, pool, "block").come()
    hurries = [Caller(two, pool, "single-thread").come() for _ in range(3)]
    assert alone.runs
    assert not blocks.runs
    assert all(caller.admitted.wait(PATIENCE) and caller.team is None for caller in hurries)
    alone.leave()
    assert blocks.runs
    assert blocks.team == 0
    for caller in (blocks, *hurries):
        caller.leave()
    idle = Caller(two, pool, "single-thread").come()
    assert idle.team == 0
    idle.leave()


def test_nobody_overtakes_who_waits(gate: Callable[[int], Gate]) -> None:
    """Not even where there is a processor, which is too little for who blocks; and all who wait are
    admitted by who gives enough back for them."""
    two = gate(2)
    pool, one = two.pool(HOST, 2), two.pool(HOST, 1)
    alone = Caller(two, one).come()
    blocks = Caller(two, pool, "block").come()
    behind = [Caller(two, one).come() for _ in range(2)]
    assert alone.runs
    assert not any(caller.runs for caller in (blocks, *behind))
    alone.leave()
    assert blocks.runs
    assert not any(caller.runs for caller in behind)
    blocks.leave()
    assert all(caller.runs for caller in behind)
    for caller in behind:
        caller.leave()


def test_who_waits_has_a_processor_before_another_has_a_team(gate: Callable[[int], Gate]) -> None:
    three = gate(3)
    everything = Caller(three, three.pool(HOST, 3), "block").come()
    assert everything.team == 0
    waiting = [Caller(three, three.pool(HOST, 2)).come() for _ in range(3)]
    everything.leave()
    assert all(caller.runs and caller.team is None for caller in waiting)
    for caller in waiting:
        caller.leave()


def test_more_threads_than_processors_hold_them_all(gate: Callable[[int], Gate]) -> None:
    two = gate(2)
    first = Caller(two, two.pool(HOST, 7), "block").come()
    assert first.team == 0
    second = Caller(two, two.pool(HOST, 1)).come()
    assert not second.runs
    first.leave()
    assert second.runs
    second.leave()


def test_calls_beside_count_and_hold_nobody(gate: Callable[[int], Gate]) -> None:
    """A team is not for who shares the processors with a caller that waits for nobody."""
    two = gate(2)
    seen = []
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(lambda _: look())

    def look() -> int:
        for _ in range(2):
            caller = Caller(two, two.pool(HOST, 2)).come()
            seen.append((caller.runs, caller.team))
            caller.leave()
        return 5

    address = ctypes.cast(call, ctypes.c_void_p).value
    assert address is not None
    assert two.beside(two.address, address, 0) == 5
    assert seen == [(True, None)] * 2


def test_who_is_admitted_wakes_where_the_other_was(gate: Callable[[int], Gate]) -> None:
    """Where that lets all processors be held, and if it may run there; then it is free again."""
    one, mine = gate(1), min(os.sched_getaffinity(0))
    everywhere = os.sched_getaffinity(0)
    turn = one.turn()
    for away in (set(), {mine}):
        turn.take(one.pool(HOST, 1), "block")
        if away and len(everywhere) == 1:
            return
        seen: list[tuple[int, set[int]]] = []
        where = everywhere - away

        def come(where: set[int] = where, seen: list[tuple[int, set[int]]] = seen) -> None:
            os.sched_setaffinity(0, where)
            own = one.turn()
            own.take(one.pool(HOST, 1), "block")
            seen.append((int(own.words[native.TICKET_DRAWN]), os.sched_getaffinity(0)))
            own.leave()

        thread = threading.Thread(target=come, daemon=True)
        thread.start()
        while not one.table[native.GATE_WAITING]:
            pass
        os.sched_setaffinity(0, {mine})
        turn.leave()
        os.sched_setaffinity(0, everywhere)
        thread.join(PATIENCE)
        assert seen == [(0 if away else 1, where)]


def test_leaving_twice_is_leaving_once(gate: Callable[[int], Gate]) -> None:
    two = gate(2)
    pool = two.pool(HOST, 2)
    turn = two.turn()
    assert two.turn() is turn
    for _ in range(2):
        assert turn.take(pool, "adaptive") is pool.teams[0]
        assert turn.is_taken
        turn.leave()
        turn.leave()
        assert not turn.is_taken


def test_threads_without_number(gate: Callable[[int], Gate]) -> None:
    """Nobody is forgotten and no more run than may, whatever comes and goes."""
    three, guard = gate(3), RLock()
    pools = [three.pool(HOST, size) for size in (1, 2, 3)]
    running, most, done = 0, 0, 0

    def calling(number: int) -> None:
        nonlocal running, most, done
        turn = three.turn()
        for count in range(60):
            pool = pools[(number + count) % 3]
            try:
                team = turn.take(pool, "block" if number % 3 else "adaptive")
                with guard:
                    running += 1 if team is None else pool.size
                    most = max(most, running)
                with guard:
                    running -= 1 if team is None else pool.size
                    done += 1
            finally:
                turn.leave()

    threads = [threading.Thread(target=calling, args=(n,), daemon=True) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == 9 * 60
    assert most <= 3


# -- models -----------------------------------------------------------------------------------


NET = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1))
IMAGE = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)


@functools.cache
def wanted() -> np.ndarray:
    return lucid.compile(NET, IMAGE.shape, threads=1)(IMAGE)


class Steady(Pace):
    """As many threads as there are, whether or not they pay on a busy machine. `told`: how many
    calls had that it was told of."""

    def __init__(self, worth: int) -> None:
        super().__init__(worth)
        self.told: list[int] = []

    def took(self, threads: int, seconds: float) -> None:
        assert 0 < seconds < PATIENCE
        self.told.append(threads)

    def in_vain(self, threads: int) -> None:
        pass


def compiled(threads: int, policy: str) -> lucid.CompiledModel:
    """A model that takes as many threads as it is given, small as it is."""
    fast = lucid.compile(NET, IMAGE.shape, threads=threads, queue_policy=policy)
    for plan in fast._planner.plans.values():
        plan.whole.pace = Steady(threads)
    return fast


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("threads", [1, 2])
def test_many_callers_of_a_model(policy: str, threads: int) -> None:
    """The same bits, and only as many workspaces as callers run at once."""
    fast = compiled(threads, policy)
    assert fast.queue_policy == policy
    right: list[bool] = []

    def calling() -> None:
        right.extend(np.array_equal(fast(IMAGE), wanted()) for _ in range(10))

    threads_ = [threading.Thread(target=calling) for _ in range(8)]
    for thread in threads_:
        thread.start()
    for thread in threads_:
        thread.join()
    assert right == [True] * 80
    if policy == "block" or (policy, threads) == ("adaptive", 2):  # a processor is held by each
        assert len(fast._runner.free) <= admission.gate(HOST).processors


def test_a_failure_gives_everything_back() -> None:
    fast = compiled(2, "block")
    expected = fast(IMAGE)
    turn = admission.gate(HOST).turn()

    class Interrupt(BaseException):
        pass

    def interrupted(*_: object) -> None:
        assert turn.is_taken
        raise Interrupt

    free, fast._runner.free = fast._runner.free, [type("W", (), {"fits": interrupted})()]
    with pytest.raises(Interrupt):
        fast(IMAGE)
    assert not turn.is_taken
    fast._runner.free = free
    assert np.array_equal(fast(IMAGE), expected)


def test_a_call_in_a_call_waits_for_nobody() -> None:
    """As that of a signal handler, between any two lines of the other's."""
    fast = compiled(2, "block")
    gate = admission.gate(HOST)
    turn = gate.turn()
    try:
        turn.take(gate.pool(HOST, 2), "block")
        assert np.array_equal(fast(IMAGE), wanted())
        assert turn.is_taken
    finally:
        turn.leave()


def test_a_network_that_is_worth_one_thread_asks_nobody() -> None:
    fast = compiled(2, "adaptive")
    for plan in fast._planner.plans.values():
        plan.whole.pace.worth = 1
    gate = admission.gate(HOST)
    with_everything = Turn(gate)
    try:
        with_everything.take(gate.pool(HOST, 2), "block")
        assert np.array_equal(fast(IMAGE), wanted())
    finally:
        with_everything.leave()


def test_the_pace_is_told_of_calls_that_met_no_others() -> None:
    """Neither those that came before and go on, nor such as came meanwhile."""
    fast = compiled(2, "adaptive")
    (plan,) = fast._planner.plans.values()
    told = plan.whole.pace.told = []
    other, gate = compiled(1, "block"), admission.gate(HOST)
    fast(IMAGE)
    assert told == [2]
    somebody = Turn(gate)
    somebody.take(gate.pool(HOST, 1), "block")
    fast(IMAGE)
    somebody.leave()
    assert told == [2]
    run = fast._runner._run

    def while_somebody_comes(*arguments: object) -> int:
        somebody.take(gate.pool(HOST, 2), "single-thread")
        return run(*arguments)

    fast._runner._run = while_somebody_comes
    fast(IMAGE)
    somebody.leave()
    del fast._runner._run
    other(IMAGE)
    assert told == [2]
    fast(IMAGE)
    assert told == [2, 2]


def test_policies_have_names() -> None:
    for make in (
        lambda name: lucid.compile(NET, queue_policy=name),
        lambda name: setattr(lucid.compile(NET), "queue_policy", name),
        lambda name: lucid.load("m.lucid", queue_policy=name),
    ):
        with pytest.raises(UnknownNameError, match="'adaptive', 'block', 'single-thread', not 'x'"):
            make("x")


def test_lucid_run_is_what_runs_beside() -> None:
    code = library(HOST).load([Driver()])
    call = np.zeros(8, np.int64)  # of no version: refused with status 1
    address = code.address(Driver(), "lucid_run")
    assert RUN_TYPE(address)(call.ctypes.data) == 1
    gate = admission.gate(HOST)
    assert gate.beside(gate.address, address, call.ctypes.data) == 1
