"""The driver: every task once, phases one after the other, and nobody waits for an idle thread.

Most kernels here are Python functions, so that it is decided which thread is where; the last test
is a stress test of native ones. A call that does not end is a failure, not a hanging process.
"""

from __future__ import annotations

import ctypes
import functools
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any, ClassVar

import numpy as np
import pytest
from llvmlite import ir

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.kernel import Frame, KernelSpec
from lucid.codegen.language.llvm import assembly
from lucid.codegen.language.values import VOID
from lucid.codegen.target import Target
from lucid.runtime.library import library
from lucid.runtime.team import SUBMIT_TYPE, WORKER_TYPE, team_table

HOST = Target.host()
KERNEL_TYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)
PATIENCE = 10.0
"""Seconds after which a call is taken to hang."""

Phases = Sequence[Sequence[int]]
"""The tasks of the steps of each phase."""
Portion = tuple[int, int, int, int]
"""Step, first task, last task (not included), thread."""


@functools.cache
def functions() -> tuple[Any, Any, Any]:
    """`lucid_submit`, `lucid_worker`, and what keeps them in memory."""
    code = library(HOST).load([Driver()])
    submit = SUBMIT_TYPE(code.address(Driver(), "lucid_submit"))
    return submit, WORKER_TYPE(code.address(Driver(), "lucid_worker")), code


class Tables:
    """The tables of a call. `code`: the address of what does the steps; `arguments`: theirs;
    `threads`: what phases of several tasks are worth."""

    def __init__(
        self, phases: Phases, code: int, arguments: Sequence[int], threads: int = 99
    ) -> None:
        tasks = [t for phase in phases for t in phase]
        self.steps = np.array([[code, a, t] for a, t in zip(arguments, tasks, strict=True)])
        firsts = np.cumsum([0, *(len(p) for p in phases)]).tolist()
        rows = [
            (f, len(p), sum(p), 1 if sum(p) == 1 else threads)
            for f, p in zip(firsts, phases, strict=False)
        ]
        self.phases = np.array([*rows, (0,) * driver.PHASE_WORDS])
        self.call = np.zeros(driver.CALL_WORDS, np.int64)
        self.call[driver.CALL_VERSION] = driver.VERSION
        self.call[driver.CALL_STEPS] = self.steps.ctypes.data
        self.call[driver.CALL_STEP_COUNT] = len(self.steps)
        self.call[driver.CALL_PHASES] = self.phases.ctypes.data
        self.call[driver.CALL_SCRATCH_BYTES] = 1

    @property
    def address(self) -> int:
        return int(self.call.ctypes.data)

    def spoil(self) -> None:
        """Leave nothing in them that could be taken for an address."""
        for table in (self.steps, self.phases, self.call):
            table[...] = -1


@dataclass
class Crew:
    """A team's table and such of its threads as were started."""

    size: int
    table: Any = field(init=False)
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = team_table(self.size)

    def start(self, number: int) -> None:
        """Let a worker begin its life."""
        work = functools.partial(functions()[1], self.table.ctypes.data, number)
        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def begin(self, tables: Tables) -> threading.Thread:
        """Submit a call on a thread of its own, which lives as long as the call."""
        caller = threading.Thread(
            target=functions()[0], args=(self.table.ctypes.data, tables.address), daemon=True
        )
        caller.start()
        return caller

    def run(self, tables: Tables) -> None:
        caller = self.begin(tables)
        caller.join(PATIENCE)
        assert not caller.is_alive(), "the call does not end"

    def wake(self, word: int) -> None:
        """Those that sleep on this word."""
        place = ctypes.c_void_p(self.table.ctypes.data + 8 * word)
        number = ctypes.c_long(HOST.system_calls.futex)
        call = number, place, driver.FUTEX_WAKE_PRIVATE, driver.EVERYONE
        ctypes.CDLL(None).syscall(*call)

    def stop(self) -> None:
        """Let the threads end: those that wait for something to do, and those that rest."""
        self.table[driver.TEAM_THREADS] = 0
        self.table[driver.TEAM_SERIAL] += 1
        self.wake(driver.TEAM_SERIAL)
        self.wake(driver.TEAM_THREADS)
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a worker does not end"


@contextmanager
def crew(size: int, started: int | None = None) -> Iterator[Crew]:
    """A team of which this many workers were started; by default all."""
    made = Crew(size)
    for number in range(1, size if started is None else 1 + started):
        made.start(number)
    yield made
    made.stop()


class Log:
    """Kernels that note what they were given; `work` is called in between, with each portion."""

    def __init__(
        self, phases: Phases, work: Callable[[Portion], object] = lambda p: None, threads: int = 99
    ) -> None:
        self.begun: list[Portion] = []
        self.events: list[tuple[bool, Portion]] = []
        self._work = work
        self._function = KERNEL_TYPE(self._called)
        code = ctypes.cast(self._function, ctypes.c_void_p).value or 0
        self.steps = [t for phase in phases for t in phase]
        self.tables = Tables(phases, code, range(len(self.steps)), threads)

    def _called(self, step: int | None, _: object, first: int, last: int, thread: int) -> None:
        portion = (step or 0, first, last, thread or 0)
        self.begun.append(portion)
        self.events.append((True, portion))
        self._work(portion)
        self.events.append((False, portion))

    def check(self, phases: Phases) -> None:
        """Every task was done once, and no phase began before the one before it was over."""
        done = Counter((s, t) for s, first, last, _ in self.begun for t in range(first, last))
        assert all(first < last for _, first, last, _ in self.begun)
        assert done == Counter((s, t) for s, tasks in enumerate(self.steps) for t in range(tasks))
        phase_of = [p for p, steps in enumerate(phases) for _ in steps]
        open_, latest = 0, 0
        for begins, (step, *_) in self.events:
            if begins and phase_of[step] != latest:
                assert open_ == 0, f"phase {phase_of[step]} begins before {latest} is over"
                assert phase_of[step] > latest, "a task of a phase that is over"
                latest = phase_of[step]
            open_ += 1 if begins else -1


SHAPES: list[Phases] = [
    [],
    [[1]],
    [[2]],
    [[7], [1], [1, 1], [16]],
    [[1], [1], [5, 1, 9], [1]],
    [[100], [3, 3, 3], [2], [31], [33]],
    [[1, 1], [64, 2], [1, 1, 1]],
]


@pytest.mark.parametrize(("size", "phases"), list(product([1, 2, 3, 6], SHAPES)))
def test_every_task_is_done_once_and_phases_follow_each_other(size: int, phases: Phases) -> None:
    with crew(size) as team:
        for _ in range(5):
            log = Log(phases)
            team.run(log.tables)
            log.check(phases)


@pytest.mark.parametrize("phases", SHAPES)
def test_a_caller_whose_workers_never_come_does_everything(phases: Phases) -> None:
    with crew(3, started=0) as team:
        log = Log(phases)
        team.run(log.tables)
        log.check(phases)
        assert all(thread == 0 for *_, thread in log.begun)


@pytest.mark.parametrize(
    ("tasks", "portions"),
    [
        (2, [(0, 1), (1, 2)]),
        (3, [(0, 1), (1, 2), (2, 3)]),
        (9, [(0, 3), (3, 4), (4, 5), (5, 7), (7, 8), (8, 9)]),
        (128, [(e + a, e + b) for e in (0, 64) for a, b in pairwise((0, 32, 48, 56, 60, 62, 64))]),
    ],
)
def test_portions_become_smaller_and_come_from_ones_own_share_first(
    tasks: int, portions: list[tuple[int, int]]
) -> None:
    with crew(2, started=0) as team:
        log = Log([[tasks]])
        team.run(log.tables)
        assert [p[1:3] for p in log.begun] == portions


def test_a_share_is_taken_over_all_steps_of_a_phase() -> None:
    with crew(2, started=0) as team:
        log = Log([[4, 2]])
        team.run(log.tables)
        assert [p[:3] for p in log.begun] == [
            (0, 0, 1), (0, 1, 2), (1, 0, 1), (0, 2, 3), (0, 3, 4), (1, 1, 2),
        ]  # fmt: skip


def test_decrements_that_came_late_change_nothing() -> None:
    """Threads that found nothing leave tickets below zero."""
    phases = [[9], [2], [1, 3]]
    with crew(2, started=0) as team:
        for late in (1, 5):
            team.table[driver.TEAM_TICKETS :: driver.LINES] -= late
            log = Log(phases)
            team.run(log.tables)
            log.check(phases)


def test_a_thread_that_comes_late_takes_part_in_the_current_phase() -> None:
    came = threading.Event()

    def work(portion: Portion) -> None:
        step, first, _, thread = portion
        if thread:
            came.set()
        elif (step, first) == (1, 0):
            team.start(1)
            assert came.wait(PATIENCE)

    phases = [[8], [8], [8]]
    with crew(2, started=0) as team:
        log = Log(phases, work)
        team.run(log.tables)
        log.check(phases)
        workers = [p for p in log.begun if p[3]]
    assert workers[0][:3] == (1, 4, 6)
    assert all(step >= 1 for step, *_ in workers)


def test_a_caller_waits_for_a_portion_that_is_held_and_does_the_rest() -> None:
    """It falls asleep meanwhile, and is woken."""
    held, go_on = threading.Event(), threading.Event()

    def work(portion: Portion) -> None:
        if portion[3]:
            held.set()
            assert go_on.wait(PATIENCE)
        else:
            assert held.wait(PATIENCE)

    phases = [[2], [2]]
    with crew(2) as team:
        log = Log(phases, work)
        caller = team.begin(log.tables)
        assert held.wait(PATIENCE)
        caller.join(0.1)
        assert caller.is_alive(), "the call is over with a portion held"
        assert {step for step, *_ in log.begun} == {0}, "a phase with a portion held is over"
        go_on.set()
        caller.join(PATIENCE)
        assert not caller.is_alive(), "the caller is not woken"
        log.check(phases)


@pytest.mark.parametrize("size", [2, 5])
def test_sleeping_threads_are_woken_when_there_is_something_to_do(size: int) -> None:
    """At the beginning of a call and between phases: no task of a phase ends before each thread has
    one, and the single task before it takes until all are asleep."""
    meet = threading.Barrier(size)

    def work(portion: Portion) -> None:
        if portion[0] == 1:
            time.sleep(0.05)
        else:
            meet.wait(PATIENCE)

    with crew(size) as team:
        for _ in range(3):
            time.sleep(0.05)
            phases = [[size], [1], [size]]
            log = Log(phases, work)
            team.run(log.tables)
            log.check(phases)
            assert {p[3] for p in log.begun if p[0] == 2} == set(range(size))


# -- fewer threads ---------------------------------------------------------------------------------


def test_a_phase_that_is_worth_one_thread_is_done_by_one() -> None:
    phases = [[2], [5, 1, 4], [2], [3]]
    meet = threading.Barrier(2)
    with crew(2) as team:
        for _ in range(5):
            log = Log(phases, lambda p: meet.wait(PATIENCE) if p[0] in (0, 4) else None)
            log.tables.phases[[1, 3], driver.PHASE_THREADS] = 1
            team.run(log.tables)
            log.check(phases)
            alone = {step: [p[1:] for p in log.begun if p[0] == step] for step in (1, 2, 3, 5)}
            thread = alone[1][0][2]
            assert [alone[step] for step in (1, 2, 3)] == [[(0, n, thread)] for n in (5, 1, 4)]
            assert [p[:2] for p in alone[5]] == [(0, 3)]


def test_a_phase_takes_no_more_threads_than_it_is_worth() -> None:
    phases = [[40], [2], [7, 7]]
    with crew(4) as team:
        for _ in range(3):
            log = Log(phases, lambda p: time.sleep(0.002), threads=2)
            team.run(log.tables)
            log.check(phases)
            assert {thread for *_, thread in log.begun} == {0, 1}


def test_threads_rest_where_a_team_has_fewer_and_come_again_where_it_has_more() -> None:
    """A quota may change while a process runs. The caller sleeps in the first phase's task."""
    with crew(4) as team:
        for threads in (4, 2, 3, 1, 4):
            time.sleep(0.02)
            team.table[driver.TEAM_THREADS] = threads
            team.wake(driver.TEAM_THREADS)
            meet = threading.Barrier(threads)
            log = Log([[threads]] * 3, lambda p, meet=meet: meet.wait(PATIENCE))
            if threads > 1:
                team.run(log.tables)
                log.check([[threads]] * 3)
                assert {thread for *_, thread in log.begun} == set(range(threads))


@pytest.mark.parametrize(
    ("caller", "worker", "alone", "vain"),
    [(0.0, 0.1, 0.0, True), (0.1, 0.0, 0.0, False), (0.0, 0.0, 0.1, False)],
)
def test_callers_who_wait_for_others_are_told(
    caller: float, worker: float, alone: float, vain: bool
) -> None:
    """Seconds that the caller takes for its task of the first phase, the worker for its own, which
    ends the phase, and then for the second phase, which nobody could help it with."""
    meet, left = threading.Barrier(2), threading.Event()

    def work(portion: Portion) -> None:
        step, _, _, thread = portion
        if step == 1:
            time.sleep(alone)
            return
        meet.wait(PATIENCE)
        assert thread == 0 or left.wait(PATIENCE)
        time.sleep(worker if thread else caller)
        if thread == 0:
            left.set()

    with crew(2) as team:
        log = Log([[2], [1]], work)
        team.run(log.tables)
        log.check([[2], [1]])
        assert bool(team.table[driver.TEAM_IN_VAIN]) == vain


@pytest.mark.parametrize(
    ("phases", "vain"), [([[4], [1], [3]], True), ([[1], [1]], False), ([], False)]
)
def test_callers_who_do_all_themselves_are_told(phases: Phases, vain: bool) -> None:
    with crew(3, started=0) as team:
        log = Log(phases)  # its tables alone would not keep its function
        team.run(log.tables)
        assert bool(team.table[driver.TEAM_IN_VAIN]) == vain


def test_tables_of_another_version_are_refused() -> None:
    submit, *_ = functions()
    tables = Log([[3], [4]]).tables
    tables.call[driver.CALL_VERSION] = driver.VERSION - 1
    for size in (1, 2):
        assert submit(team_table(size).ctypes.data, tables.address) == 1


# -- the order of memory ---------------------------------------------------------------------------


def test_atomic_accesses_have_the_orders_that_the_proof_needs() -> None:
    """x86 would forgive most of what is missing, and an emulated aarch64 too."""
    text = str(Driver().emit(Target.named("aarch64")))
    accesses = re.findall(
        r"(atomicrmw \w+|load atomic|store atomic).* (\w*(?:acq|rel|seq)\w*)", text
    )
    orders = Counter(" ".join(access) for access in accesses)
    assert orders.pop("load atomic seq_cst") > 0
    assert orders == {
        "atomicrmw add acquire": 1,  # a ticket is taken
        "atomicrmw add acq_rel": 1,  # what was finished is counted
        "atomicrmw add seq_cst": 2,  # the serial, for the next phase and for the end
        "atomicrmw max seq_cst": 1,  # a thread is about to sleep
        "atomicrmw xchg seq_cst": 2,  # a thread says who it is, and a caller where all are to wake
        # a ticket is given out, its phase's width before; the call begins, and is finished
        "store atomic release": 4,
    }
    code = assembly(Driver(), Target.named("aarch64"))
    assert all(f"\t{name}\t" in code for name in ("ldadda", "ldaddal", "stlr"))
    assert "\tldapr\t" not in code  # whose order is too weak for who sleeps and who wakes


# -- stress ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stressed(KernelSpec):
    """Tasks that look whether the phase before is over, take their time, and count how often each
    was done. Arguments: the round; where the counts of the phase before are, and how many; where
    this step's are; where errors are counted; and a number by which the times differ."""

    family: ClassVar[str] = "test_stressed"

    def emit(self, target: Target) -> ir.Module:
        frame = Frame(self, target)
        k = frame.kernel
        b, words = k.builder, k.args["arguments"]
        turn, before, seed = (k.load_int(words.words(i)) for i in (0, 2, 5))
        counts, mine, errors = (k.load_pointer(words.words(i)) for i in (1, 3, 4))
        with k.loop(frame.first, frame.last) as task:
            with k.loop(0, before) as other:
                differs = k.load_int(counts.words(other.index)).compare("!=", turn)
                with k.when(differs):
                    b.atomic_rmw("add", errors.raw, k.int(1).raw, "monotonic")
            with k.loop(0, (task.index + 1) * seed % 97):
                if target.is_x86:
                    b.call(k.intrinsic("llvm.x86.sse2.pause", VOID, []), [])
            place = mine.words(task.index)
            k.store_int(k.load_int(place) + 1, place)
        return frame.finish()


class Stress:
    """Calls of random phases, whose tables are made anew and spoilt after each."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.random = size, random.Random(seed)
        self.code = library(HOST).load([Stressed()])
        self.errors = np.zeros(1, np.int64)

    def phases(self) -> Phases:
        draw = self.random.choice
        return [[draw([1, 1, 2, 3, 5, 9, 40]) for _ in range(draw([1, 1, 2]))] for _ in range(6)]

    def run(self, team: Crew, rounds: int) -> None:
        """Some calls with the same phases, submitted by this thread."""
        phases = self.phases()
        counts = [np.zeros(sum(phase), np.int64) for phase in phases]
        submit = functions()[0]
        for turn in range(1, rounds + 1):
            arguments = self._arguments(phases, counts, turn)
            tables = Tables(
                phases, self.code.address(Stressed()), [int(a.ctypes.data) for a in arguments]
            )
            self.vary(team, tables)
            assert submit(team.table.ctypes.data, tables.address) == 0
            tables.spoil()
            for words in arguments:
                words[...] = -1
            assert not self.errors[0], "a task began before the phase before it was over"
            assert all((c == turn).all() for c in counts), "a task was not done once"

    def vary(self, team: Crew, tables: Tables) -> None:
        """Other numbers of threads for the phases, and now and then for the team, and spins."""
        draw = self.random.choice
        shared = tables.phases[:, driver.PHASE_TASKS] > 1
        tables.phases[shared, driver.PHASE_THREADS] = draw([1, 2, 3, 99])
        if draw(range(20)) == 0:
            team.table[driver.TEAM_CALL_SPINS] = draw([0, 100, 6000])
            team.table[driver.TEAM_IDLE_SPINS] = draw([0, 100, 2000])
            team.table[driver.TEAM_THREADS] = draw(range(2, self.size + 1))
            team.wake(driver.TEAM_THREADS)

    def _arguments(self, phases: Phases, counts: list[Any], turn: int) -> list[Any]:
        found = []
        for number, phase in enumerate(phases):
            before = counts[number - 1] if number else np.zeros(0, np.int64)
            at = counts[number].ctypes.data
            for tasks in phase:
                seed = self.random.choice([0, 1, 13, 60])
                found.append(
                    np.array(
                        [turn, before.ctypes.data, before.size, at, self.errors.ctypes.data, seed]
                    )
                )
                at += 8 * tasks
        return found


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do this on a thread of its own, which has to end in time."""
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except BaseException as problem:
            failures.append(problem)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "a call does not end"
    assert not failures, failures


@pytest.mark.parametrize("size", [2, 3, 7])
def test_thousands_of_calls_with_threads_that_come_and_go(size: int) -> None:
    with crew(size) as team:
        made = Stress(size, seed=size)
        within(60, lambda: [made.run(team, 20) for _ in range(100)])


@pytest.mark.parametrize("phases", [[[2]], [[2]] * 20, [[3], [1], [2]]])
def test_tens_of_thousands_of_calls_that_end_at_once(phases: Phases) -> None:
    """Threads wait and wake at every moment of a call."""
    code = library(HOST).load([Stressed()])
    counts, errors = np.zeros(3, np.int64), np.zeros(1, np.int64)
    words = np.array([0, 0, 0, counts.ctypes.data, errors.ctypes.data, 0])
    steps = [int(words.ctypes.data)] * len(phases)
    tables = Tables(phases, code.address(Stressed()), steps)
    calls = 40_000 // len(phases)
    with crew(2) as team:
        given = team.table.ctypes.data, tables.address
        within(30, lambda: [functions()[0](*given) for _ in range(calls)])
    assert counts.sum() == calls * sum(t for phase in phases for t in phase)
