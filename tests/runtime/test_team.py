"""Teams of threads: forks, signals, idleness, more threads than cores, and the end of a process."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from python_process import run_python

import lucid
from lucid import nn, os_threads
from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.target import Target
from lucid.errors import InputError
from lucid.runtime import processors
from lucid.runtime.pace import Pace
from lucid.runtime.planning import PLANNING
from lucid.runtime.team import RUN_TYPE, SUBMIT_TYPE, Team, team

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 20, 20)).astype(np.float32)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
no_warning = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Small(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 16, 1)

    def forward(self, x):
        return self.last(nn.functional.relu(self.conv(x)))


def in_a_fork(work: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether `work` is true in a forked child, which is killed when it takes too long."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@forks
@no_warning
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_works_on_both_sides_of_a_fork(threads: int) -> None:
    fast = lucid.compile(Small(), IMAGE.shape, threads=threads)
    expected = fast(IMAGE)

    def child() -> bool:
        known = np.array_equal(fast(IMAGE), expected)
        other_size = fast(IMAGE[:1, :, :16]).shape == (1, 16, 16, 20)
        another = lucid.compile(Small(), IMAGE.shape, threads=threads)(IMAGE)
        return known and other_size and np.array_equal(another, expected)

    assert in_a_fork(child)
    assert np.array_equal(fast(IMAGE), expected)


@forks
@no_warning
def test_a_fork_waits_for_a_compilation_in_another_thread() -> None:
    fast = lucid.compile(Small(), IMAGE.shape, threads=2)
    expected = fast(IMAGE)
    holds, stop = threading.Event(), threading.Event()

    def compiling() -> None:
        with PLANNING:
            holds.set()
            stop.wait(0.2)

    other = threading.Thread(target=compiling)
    other.start()
    holds.wait()
    assert in_a_fork(lambda: np.array_equal(fast(IMAGE[:1]), expected[:1]))
    other.join()


FORK_WHILE_PACKING = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor
import logging
from lucid.runtime.planning import PLANNING
planning = threading.Event()
def pack():
    with PLANNING:
        planning.set()
        time.sleep(0.2)  # until the fork below has taken what locks it can
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(abs, -1).result() == 1
        logging.getLogger("lucid").setLevel(logging.INFO)
packer = threading.Thread(target=pack)
packer.start()
planning.wait()
if os.fork() == 0:
    os._exit(0)
os.wait()
packer.join()
"""


@forks
def test_a_fork_takes_no_lock_that_who_plans_waits_for() -> None:
    assert run_python("import lucid" + FORK_WHILE_PACKING).returncode == 0


@forks
@no_warning
def test_a_fork_while_another_thread_calls() -> None:
    fast = lucid.compile(Small(), IMAGE.shape, threads=2)
    expected, stop = fast(IMAGE), threading.Event()

    def calling() -> None:
        while not stop.is_set():
            fast(IMAGE)

    caller = threading.Thread(target=calling)
    caller.start()
    try:
        for _ in range(5):
            assert in_a_fork(lambda: np.array_equal(fast(IMAGE), expected))
    finally:
        stop.set()
        caller.join()


def put_result(queue, fast, image) -> None:
    queue.put(fast(image))


@forks
@no_warning
def test_multiprocessing_by_fork() -> None:
    fast = lucid.compile(Small(), IMAGE.shape, threads=2)
    expected = fast(IMAGE)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=put_result, args=(queue, fast, IMAGE))
    process.start()
    assert np.array_equal(queue.get(), expected)
    process.join(10)
    assert process.exitcode == 0


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_workers_block_signals_and_callers_do_not() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    lucid.compile(Small(), IMAGE.shape, threads=3)(IMAGE)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before

    workers = team(Target.host(), 3)._threads
    assert len(workers) == 2
    for worker in workers:
        status = Path(f"/proc/self/task/{worker.native_id}/status").read_text()
        blocked = int(
            next(li for li in status.splitlines() if li.startswith("SigBlk")).split()[1], 16
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
            assert blocked >> (number - 1) & 1
        for number in (signal.SIGSEGV, signal.SIGILL):  # of which faulthandler tells
            assert not blocked >> (number - 1) & 1


def nothing_to_do() -> tuple[np.ndarray, np.ndarray]:
    """The table of a call without phases, and what it points to."""
    call, phases = np.zeros(driver.CALL_WORDS, np.int64), np.zeros(driver.PHASE_WORDS, np.int64)
    call[[driver.CALL_VERSION, driver.CALL_PHASES]] = driver.VERSION, phases.ctypes.data
    return call, phases


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_idle_workers_sleep() -> None:
    """They do not run for a moment: the system has counted no switches."""
    own = team(Target.host(), 4)

    def looked_at() -> list[str]:
        files = (Path(f"/proc/self/task/{t.native_id}/status") for t in own._threads)
        return [
            line
            for file in files
            for line in file.read_text().splitlines()
            if "ctxt_switches" in line or line.startswith("State")
        ]

    call = nothing_to_do()
    for threads in (4, 2):  # two of them rest
        assert own.run(call[0].ctypes.data, threads) == 0
        deadline = time.monotonic() + 20
        while not all("S (sleeping)" in li for li in looked_at() if li.startswith("State")):
            assert time.monotonic() < deadline
        before = looked_at()
        time.sleep(0.1)
        assert looked_at() == before


def allow(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """Let the process have so many processors, from now on."""
    monkeypatch.setattr(processors.allowance, "_read", lambda: count)
    monkeypatch.setattr(processors.allowance, "_until", 0.0)


def test_a_team_shrinks_and_grows_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not spin where its threads are more than the processors."""
    fast = lucid.compile(Small(), IMAGE.shape, threads=3)
    expected, runs, run = fast(IMAGE), [], Team.run

    def noted(own: Team, call: int, threads: int | None = None) -> int:
        status = run(own, call, threads)
        words = own._table[[driver.TEAM_THREADS, driver.TEAM_CALL_SPINS]].tolist()
        runs.append((words[0], words[1] > 0))
        return status

    monkeypatch.setattr(Team, "run", noted)
    for told in ("in_vain", "took"):  # as a busy machine would have it
        monkeypatch.setattr(Pace, told, lambda *_: None)
    steps = [(8, [(3, True)]), (1.5, [(2, False)]), (0.5, []), (2, [(2, True)]), (64, [(3, True)])]
    for count, wanted in steps:
        allow(monkeypatch, count)
        runs.clear()
        assert np.array_equal(fast(IMAGE), expected)
        assert runs == wanted
    processors.allowance._until = 0.0


@dataclass
class System:
    """What the system says where a thread is and may be, and who was bound to where; all else is
    asked of the system itself. It refuses to say what is None or empty."""

    here: int | None = 0
    allowed: set[int] = field(default_factory=set)
    told: list[tuple[int, set[int]]] = field(default_factory=list)

    def syscall(self, number: int, *words: int) -> int:
        calls = Target.host().system_calls
        size = 8 * driver.SET_WORDS
        if number == calls.processor:
            if self.here is None:
                return -1
            ctypes.c_uint32.from_address(words[0]).value = self.here
            return 0
        if number == calls.get_affinity:
            assert words[1] == size
            mask = sum(1 << place for place in self.allowed)
            ctypes.memmove(words[2], mask.to_bytes(size, "little"), size)
            return size if self.allowed else -1
        if number == calls.set_affinity:
            mask = int.from_bytes(ctypes.string_at(words[2], size), "little")
            self.told.append((words[0], {p for p in range(8 * size) if mask >> p & 1}))
            return 0
        return ctypes.CDLL(None).syscall(number, *map(ctypes.c_void_p, words))


@pytest.fixture
def asked() -> Iterator[tuple[System, Callable[[int], None]]]:
    """A system, and a call by so many threads that asks it."""
    system, own, call = System(), Team(Target.host(), 4), nothing_to_do()
    while not all(own._table[driver.TEAM_NUMBERS + driver.LINES * n] for n in (1, 2, 3)):
        time.sleep(0.001)
    function = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 8)(system.syscall)
    real = int(own._table[driver.TEAM_SYSCALL])

    def run(threads: int) -> None:
        own._table[driver.TEAM_SYSCALL] = ctypes.cast(function, ctypes.c_void_p).value
        assert own.run(call[0].ctypes.data, threads) == 0

    time.sleep(0.05)  # what threads note after their numbers
    yield system, run
    own._table[driver.TEAM_SYSCALL] = real
    own.stop()


def test_threads_wake_where_their_caller_is_not(
    asked: tuple[System, Callable[[int], None]],
) -> None:
    """They are bound anew when it has moved or may run elsewhere, and when there are more or fewer
    of them; to its own processor as well where they are more than the others."""
    system, run = asked
    for here, allowed, threads, others in [
        (3, {0, 3, 64, 1023}, 4, {0, 64, 1023}),
        (3, {0, 3, 64, 1023}, 4, None),
        (64, {0, 3, 64, 1023}, 4, {0, 3, 1023}),
        (64, {0, 3, 64, 1023}, 3, {0, 3, 1023}),
        (64, {0, 64, 1023}, 3, {0, 1023}),
        (1023, {0, 64, 1023}, 3, {0, 64}),
        (5, {0, 64, 1023}, 3, {0, 64, 1023}),  # it has just been forbidden
        (0, {0, 64}, 3, {0, 64}),
        (0, {0, 64}, 2, {64}),
        (0, {0, 64}, 2, None),
        (7, {7}, 2, {7}),
    ]:
        system.here, system.allowed = here, allowed
        run(threads)
        assert len({thread for thread, _ in system.told}) == (threads - 1 if others else 0)
        assert all(places == others for _, places in system.told)
        system.told.clear()


@pytest.mark.parametrize(
    ("here", "allowed"), [(7, set()), (None, {0, 1}), (1024, {0, 1}), (5000, {0, 1})]
)
def test_they_wake_anywhere_where_the_system_does_not_say_where_they_may(
    here: int | None, allowed: set[int], asked: tuple[System, Callable[[int], None]]
) -> None:
    system, run = asked
    system.here, system.allowed = here, allowed
    run(4)
    assert not system.told


def may_be_bound() -> bool:
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.skipif(not may_be_bound(), reason="affinity cannot be set here")
def test_the_system_knows_where_threads_wake() -> None:
    everywhere, own, call = os.sched_getaffinity(0), Team(Target.host(), 2), nothing_to_do()
    try:
        deadline = time.monotonic() + 20
        while True:
            assert own.run(call[0].ctypes.data) == 0
            (worker,) = own._threads
            others = everywhere - {int(own._table[driver.TEAM_PROCESSOR])}
            if os.sched_getaffinity(worker.native_id) == (others or everywhere):
                break
            assert time.monotonic() < deadline
    finally:
        own.stop()
    assert os.sched_getaffinity(0) == everywhere


WIDE = """
import os
import numpy as np, lucid
from lucid import nn
class Wide(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
    def forward(self, x):
        return self.conv(x)
image = np.random.default_rng(0).standard_normal((2, 3, 40, 40)).astype(np.float32)
expected = lucid.compile(Wide(), image.shape, threads=1)(image)
"""

AFFINITY = """
from lucid.runtime import processors, team
runs, run = [], team.Team.run
def noted(own, call, threads=None):
    runs.append(threads)
    return run(own, call, threads)
team.Team.run = noted
allowed = os.sched_getaffinity(0)
for mask in (allowed, {min(allowed)}, allowed):
    os.sched_setaffinity(0, mask)
    processors.allowance._until = 0.0
    for threads in (2, 9):
        fast = lucid.compile(Wide(), image.shape, threads=threads)
        assert np.array_equal(fast(image), expected)
    print(max(runs, default=1) <= len(mask), bool(runs) == (len(mask) > 1))
    runs.clear()
"""


@pytest.mark.skipif(not may_be_bound(), reason="affinity cannot be set here")
def test_no_more_threads_work_than_affinity_allows() -> None:
    done = run_python(WIDE + AFFINITY)
    assert done.stdout == "True True\n" * 3, done.stderr


def test_more_threads_than_cores() -> None:
    alone = lucid.compile(Small(), IMAGE.shape, threads=1)(IMAGE)
    many = lucid.compile(Small(), IMAGE.shape, threads=3 * (os.cpu_count() or 1) + 1)
    for _ in range(3):
        assert np.array_equal(many(IMAGE), alone)


def test_callers_of_one_team_take_turns() -> None:
    fast = lucid.compile(Small(), IMAGE.shape, threads=2)
    expected = fast(IMAGE)
    wrong = []

    def calling() -> None:
        for _ in range(20):
            if not np.array_equal(fast(IMAGE), expected):
                wrong.append(1)

    callers = [threading.Thread(target=calling) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_native_calls_release_the_gil() -> None:
    holds_it = 4  # FUNCFLAG_PYTHONAPI
    assert not RUN_TYPE._flags_ & holds_it
    assert not SUBMIT_TYPE._flags_ & holds_it


def test_too_many_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def limited(work: Callable[[], object]) -> os_threads.Thread:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(os_threads.Thread(work))
        return started[-1]

    monkeypatch.setattr("lucid.runtime.team.Thread", limited)
    with pytest.raises(InputError, match="may start 3 threads for a model, not 77"):
        team(Target.host(), 77)


MODEL = """
import os, signal, sys, threading, time
import numpy as np
import lucid
fast = lucid.compile(lucid.models.resnest_digits(), (1, 1, 32, 32), threads=2)
x = np.zeros((4, 1, 32, 32), np.float32)
expected = fast(x)
"""


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(0)",
        "import lucid.runtime.team as t; [team.stop() for team in t._teams.values()]; fast(x)",
        "threading.Thread(target=lambda: [fast(x) for _ in iter(int, 1)], daemon=True).start()",
    ],
    ids=["end", "exit", "stopped-team", "daemon-caller"],
)
def test_a_process_ends_without_hanging(ending: str) -> None:
    done = run_python(MODEL + ending)
    assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED = """
big = np.zeros((64, 1, 32, 32), np.float32)
def interrupt():
    while caught < 10:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)
caught = 0
interrupter = threading.Thread(target=interrupt)
while caught < 10:
    try:
        if not caught:
            interrupter.start()
        while True:
            fast(big)
    except KeyboardInterrupt:
        caught += 1
interrupter.join()
assert np.array_equal(fast(x), expected)
print("caught", caught)
"""


def test_an_interrupt_leaves_the_model_usable() -> None:
    done = run_python(MODEL + INTERRUPTED)
    assert done.stdout == "caught 10\n", done.stderr
