"""Teams of threads that run a program together, one team for each size, shared by the process.

The workers live in native code (`lucid_worker`): they spin briefly between runs and then sleep.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading

import numpy as np

from lucid.codegen.kernels import driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.target import Target
from lucid.runtime.library import library

IDLE_SPINS = 2000
"""Rounds a worker spins before it sleeps: 50 to 200 us, longer than the gap between two calls of a
busy server, short enough to cost an idle one nothing."""
BARRIER_SPINS = 20000
"""Rounds at a barrier before sleeping: longer than any imbalance on undisturbed cores."""

RUN_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
WORKER_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
SUBMIT_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)


def syscall_address() -> int:
    """The C library's `syscall`, by which native code reaches the futex."""
    function = ctypes.CDLL(None).syscall
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def default_threads() -> int:
    """LUCID_NUM_THREADS, else the processors this process may use: affinity and cgroup quota."""
    forced = os.environ.get("LUCID_NUM_THREADS")
    if forced:
        return max(1, int(forced))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(available or 1, _quota() or available or 1))


def _quota() -> int | None:
    """Processors the cgroup's CPU quota allows, rounded up; None where there is no quota."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


class Team:
    """`size` threads, the caller's among them. One call at a time runs on a team."""

    def __init__(self, target: Target, size: int, profiled: bool = False) -> None:
        self.size = size
        native, kernel = library(target), Driver(profiled)
        native.load([kernel])
        self._submit = SUBMIT_TYPE(native.address(kernel, "lucid_submit"))
        self._worker = WORKER_TYPE(native.address(kernel, "lucid_worker"))
        self._lock = threading.Lock()
        self._room = np.zeros(driver.TEAM_WORDS + 16, np.int64)
        address = self._room.ctypes.data
        self._table = self._room[(-address % 128) // 8 :][: driver.TEAM_WORDS]
        self._address = self._table.ctypes.data
        self._table[driver.TEAM_THREADS] = size
        self._table[driver.TEAM_SYSCALL] = syscall_address()
        self._table[driver.TEAM_SPINS] = IDLE_SPINS
        self._threads = [
            threading.Thread(target=self._live, args=(i,), name=f"lucid-{i}", daemon=True)
            for i in range(1, size)
        ]
        for thread in self._threads:
            thread.start()

    def _live(self, number: int) -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._worker(self._address, number)

    def run(self, call: int) -> int:
        """Run the call table at this address on all threads; the native status."""
        with self._lock:
            return int(self._submit(self._address, call))

    def stop(self) -> None:
        """Let the workers end."""
        with self._lock:
            self._table[driver.TEAM_STOP] = 1
            self._table[driver.TEAM_THREADS] = 0
            self._table[driver.TEAM_EPOCH] += 1
            wake = ctypes.CDLL(None).syscall
            number = 202 if os.uname().machine in ("x86_64", "amd64") else 98
            wake(number, ctypes.c_void_p(self._address), driver.FUTEX_WAKE_PRIVATE, driver.EVERYONE)
        for thread in self._threads:
            thread.join(timeout=1)


_teams: dict[tuple[Target, int, bool], Team] = {}
_teams_lock = threading.Lock()


def team(target: Target, size: int, profiled: bool = False) -> Team:
    """The process's team of this size."""
    with _teams_lock:
        key = (target, size, profiled)
        if key not in _teams:
            _teams[key] = Team(target, size, profiled)
        return _teams[key]


def _after_fork() -> None:
    """Threads do not survive a fork: forget the teams, and make a lock nobody holds."""
    global _teams_lock
    _teams.clear()
    _teams_lock = threading.Lock()


def _at_exit() -> None:
    for one in list(_teams.values()):
        one.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
