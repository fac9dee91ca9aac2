"""Teams of threads that run a program together, one team for each size, shared by the process.

The workers live in native code (`lucid_worker`): they spin briefly between runs and then sleep.
A call runs to its end: other greenlets of its thread wait for it, and it never for them.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from lucid.codegen.kernels import driver_tables as driver
from lucid.errors import InputError
from lucid.os_threads import RLock, Thread
from lucid.runtime.library import library
from lucid.runtime.planning import PLANNING
from lucid.runtime.processors import allowance

if TYPE_CHECKING:
    from lucid.codegen.language.kernel import KernelSpec
    from lucid.codegen.target import Target
    from lucid.ir.ops.base import Array

IDLE_SPINS = 2000
"""Rounds a worker spins before it sleeps: 50 to 200 us, longer than the gap between two calls of a
busy server, short enough to cost an idle one nothing."""
CALL_SPINS = 6000
"""Rounds before sleeping in a call: 100 to 250 us. On two quiet cores ResNeSt-50's median is the
same with 8000 and 20000 rounds, and 2% slower with 2000, which puts threads to sleep that would
have gone on at once. On a machine with other work 20000 halve the throughput of small models: the
thread waited for may need this very core."""
GAP = 0.0002
"""Seconds between two calls beyond which idle threads sleep at once after the second: what they
spin for is shorter."""
FAULTS = {s for s in signal.Signals if s.name in ("SIGILL", "SIGFPE", "SIGSEGV", "SIGBUS")}
"""Signals that a thread's own instructions raise."""

# Calls by these types release the GIL.
RUN_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
WORKER_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
SUBMIT_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)


def syscall_address() -> int:
    """The C library's `syscall`, by which native code reaches the futex."""
    function = ctypes.CDLL(None).syscall
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def team_table(size: int) -> Array:
    """The table of a team of so many threads that has done nothing yet."""
    words, line = driver.team_words(size), 8 * driver.LINES
    room = np.zeros(words + driver.LINES, np.int64)
    table = room[(-room.ctypes.data % line) // 8 :][:words]
    table[driver.TEAM_THREADS] = size
    table[driver.TEAM_SYSCALL] = syscall_address()
    table[driver.TEAM_CALL_SPINS] = CALL_SPINS
    table[driver.TEAM_IDLE_SPINS] = IDLE_SPINS
    return table


def _kernel(profiled: bool) -> KernelSpec:
    from lucid.codegen.kernels.driver import Driver

    return Driver(profiled)


class Team:
    """`size` threads, the caller's among them. One call at a time runs on a team.

    Raises InputError where the system does not let the process start so many threads.
    """

    def __init__(self, target: Target, size: int, profiled: bool = False) -> None:
        self.size = size
        kernel = driver.PROFILED_DRIVER if profiled else driver.DRIVER
        self._code = library(target).own(kernel, functools.partial(_kernel, profiled))
        self._submit = SUBMIT_TYPE(self._code.address(kernel, "lucid_submit"))
        self._worker = WORKER_TYPE(self._code.address(kernel, "lucid_worker"))
        self._lock = RLock()  # a signal handler may call a model in a call
        self._table = team_table(size)
        self._address = self._table.ctypes.data
        self._words = self._table.data
        self._futex = target.system_calls.futex
        self._left = 0.0
        self._ways = (size, True, True)
        self._threads: list[Thread] = []
        with _signals_blocked():
            self._start()

    def _start(self) -> None:
        for number in range(1, self.size):
            try:
                thread = Thread(functools.partial(self._work, number))
            except RuntimeError as problem:
                self.stop()
                raise InputError(
                    f"this process may start {number} threads for a model, not {self.size}: "
                    f"{problem}; compile with fewer threads="
                ) from problem
            self._threads.append(thread)

    def _work(self, number: int) -> None:
        """A worker's life; as long as it lasts the thread keeps the team's table."""
        self._worker(self._address, number)

    def run(self, call: int, threads: int | None = None) -> int:
        """Run the call table at this address on so many of the threads, by default on all; the
        native status."""
        with self._lock:
            threads = threads or self.size
            spins = threads <= allowance.processors
            ways = (threads, spins, spins and time.monotonic() - self._left < GAP)
            if ways != self._ways:
                self._change(*ways)
            status = int(self._submit(self._address, call))
            self._left = time.monotonic()
            return status

    @property
    def in_vain(self) -> bool:
        """Whether the last call's caller waited for other threads more than it worked, or did
        nearly all itself."""
        return bool(self._words[driver.TEAM_IN_VAIN])

    def _change(self, threads: int, in_calls: bool, between_calls: bool) -> None:
        """How many threads are at work, and whether they spin before they sleep."""
        if self._words[driver.TEAM_THREADS] == 0:  # it was stopped
            return
        more = threads > self._ways[0]
        self._ways = (threads, in_calls, between_calls)
        self._words[driver.TEAM_CALL_SPINS] = CALL_SPINS if in_calls else 0
        self._words[driver.TEAM_IDLE_SPINS] = IDLE_SPINS if between_calls else 0
        self._words[driver.TEAM_THREADS] = threads
        if more:
            self._wake(driver.TEAM_THREADS)

    def stop(self) -> None:
        """Let the workers end. A call that comes later runs on its own thread alone."""
        with self._lock:
            self._table[driver.TEAM_THREADS] = 0
        with self._lock:  # taken anew, so that workers see the above before the serial
            self._table[driver.TEAM_SERIAL] += 1
            self._wake(driver.TEAM_SERIAL)
            self._wake(driver.TEAM_THREADS)
        for thread in self._threads:
            thread.join(timeout=1)

    def _wake(self, word: int) -> None:
        """The threads that sleep on this word of the table."""
        place = ctypes.c_void_p(self._address + 8 * word)
        wake, everyone = driver.FUTEX_WAKE_PRIVATE, driver.EVERYONE
        ctypes.CDLL(None).syscall(ctypes.c_long(self._futex), place, wake, everyone)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Threads started here inherit that they get no signals: those are for the user's threads. But
    faults: blocked, these end the process without a word of `faulthandler`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_teams: dict[tuple[Target, int, bool, int], Team] = {}


def team(target: Target, size: int, profiled: bool = False, number: int = 0) -> Team:
    """The process's team of this size; of several for callers at the same time that of a number."""
    key = (target, size, profiled, number)
    found = _teams.get(key)
    if found is None:
        with PLANNING:
            found = _teams.get(key) or Team(target, size, profiled)
            _teams[key] = found
    return found


def _after_fork() -> None:
    """Threads do not survive a fork: forget the teams, so that the child makes its own."""
    _teams.clear()


def _at_exit() -> None:
    for one in list(_teams.values()):
        one.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
