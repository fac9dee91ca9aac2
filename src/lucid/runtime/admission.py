"""Callers of all models of the process: who runs now, on how many threads, and who waits.

A call holds as many processors as it keeps busy, and there are only as many as this process may
use: two models that are called from two threads do not bring four busy ones. Who finds a team free
and processors idle runs on the team, who does not runs on its own thread, and waits while all
processors are held, first come, first served. So eight callers of a model of two threads are served
like those of a model of one: a team is quicker for one call, but not for many.

The decisions are native code's (`lucid.codegen.kernels.admission`, which says why). A thread has
one `Turn`, and a call in a call (of a signal handler) runs beside it and waits for nobody.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import TYPE_CHECKING

import numpy as np

from lucid.codegen.kernels import admission_tables as native
from lucid.errors import InputError, UnknownNameError
from lucid.os_threads import Local
from lucid.runtime.library import library
from lucid.runtime.planning import PLANNING
from lucid.runtime.processors import available_processors
from lucid.runtime.team import syscall_address, team

if TYPE_CHECKING:
    from lucid.codegen.language.kernel import KernelSpec
    from lucid.codegen.target import Target
    from lucid.runtime.team import Team

POLICIES = {
    "adaptive": native.ADAPTIVE,
    "block": native.BLOCK,
    "single-thread": native.SINGLE_THREAD,
}
"""What becomes of a call while others run, by the name that users give it."""

ADMIT_TYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
LEAVE_TYPE = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
"""Waits for nobody: it need not release the GIL."""
BESIDE_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def check_policy(policy: str) -> str:
    """The policy of this name. Raises UnknownNameError where there is none."""
    if policy not in POLICIES:
        names = ", ".join(map(repr, POLICIES))
        raise UnknownNameError(f"queue_policy is one of {names}, not {policy!r}")
    return policy


class Turn:
    """What a thread holds while one of its calls runs. `leave()` gives it back, or does nothing: a
    function of C, so that an interrupt cannot come between."""

    def __init__(self, gate: Gate) -> None:
        table = np.zeros(native.TICKET_WORDS, np.int64)
        table[native.TICKET_TEAM] = native.ALONE
        self.words = table.data
        self.address = int(table.ctypes.data)
        self.leave = functools.partial(gate.leave, gate.address, self.address)
        self._gate = gate

    @property
    def is_taken(self) -> bool:
        """Whether a call of this thread runs."""
        return bool(self.words[native.TICKET_HOLDS])

    def take(self, pool: Pool, policy: str) -> Team | None:
        """Wait until the call may run, as the policy says; on this team, or on its thread alone.
        Raises InputError where the system gives no threads for the first team."""
        if pool.size > 1 and not pool.teams:
            pool.start()
        how = POLICIES[policy] if pool.size > 1 else native.ADAPTIVE  # no team to wait for
        self._gate.admit(self._gate.address, self.address, pool.address, pool.size, how)
        number = self.words[native.TICKET_TEAM]
        if pool.lacks_team:
            pool.grow()
        return None if number == native.ALONE else pool.teams[number]


class Gate:
    """All callers of the process pass it. `processors`: how many they hold at most, together;
    `beside(address, run, call)`: run a call table by `lucid_run`, though nobody admitted it."""

    def __init__(self, target: Target, processors: int) -> None:
        self._code = library(target).own(native.ADMISSION, _kernel)
        self.admit = ADMIT_TYPE(self._code.address(native.ADMISSION, "lucid_admit"))
        self.leave = LEAVE_TYPE(self._code.address(native.ADMISSION, "lucid_leave"))
        self.beside = BESIDE_TYPE(self._code.address(native.ADMISSION, "lucid_beside"))
        self.table = np.zeros(native.GATE_WORDS, np.int64)
        self._words = self.table.data
        self.processors = 0
        self.allow(processors)
        self.table[native.GATE_SYSCALL] = syscall_address()
        self.address = int(self.table.ctypes.data)
        self.pools: dict[tuple[Target, int], Pool] = {}
        self._turns = Local()

    def allow(self, processors: int) -> None:
        """There are so many now. Who holds more keeps them until the end of the call."""
        if processors != self.processors:
            self.processors = processors
            self.table[native.GATE_PROCESSORS] = processors

    @property
    def is_empty(self) -> bool:
        """Whether no call runs, of whatever model."""
        return self._words[native.GATE_RUNNING] == 0 == self._words[native.GATE_BESIDE]

    def turn(self) -> Turn:
        """This thread's."""
        found: Turn | None = getattr(self._turns, "turn", None)
        if found is None:
            found = self._turns.turn = Turn(self)
        return found

    def pool(self, target: Target, size: int) -> Pool:
        """The teams of a size."""
        found = self.pools.get((target, size))
        if found is None:
            found = self.pools.setdefault((target, size), Pool(self, target, size))
        return found

    def empty(self) -> None:
        """Forget all callers and teams, this thread's call too."""
        self.table[:] = 0
        self.table[native.GATE_PROCESSORS] = self.processors
        self.table[native.GATE_SYSCALL] = syscall_address()
        for pool in self.pools.values():
            pool.empty()
        turn = self.turn()
        turn.words[native.TICKET_HOLDS], turn.words[native.TICKET_TEAM] = 0, native.ALONE


def _kernel() -> KernelSpec:
    from lucid.codegen.kernels.admission import Admission

    return Admission()


class Pool:
    """Teams of one size, of which `teams` are all; with one thread there is none, and none before
    the first call."""

    def __init__(self, gate: Gate, target: Target, size: int) -> None:
        self.size = size
        self.teams: list[Team] = []
        self._gate, self._target = gate, target
        self._table = np.zeros(native.POOL_WORDS, np.int64)
        self._words = self._table.data
        self.address = int(self._table.ctypes.data)

    def start(self) -> None:
        """Make the first team, unless there is one. Raises InputError."""
        with PLANNING:
            if not self.teams:
                self._add()

    def empty(self) -> None:
        """Forget all teams."""
        self.teams.clear()
        self._table[:] = 0

    @property
    def lacks_team(self) -> bool:
        """Whether there were processors for a team, and no team."""
        return self.size > 1 and bool(self._words[native.POOL_MISSED])

    def grow(self) -> None:
        """Add a team where the processors are enough for one more, and nothing is being planned."""
        self._words[native.POOL_MISSED] = 0
        enough = (len(self.teams) + 1) * self.size <= self._gate.processors
        if not enough or len(self.teams) == native.POOL_TEAMS or not PLANNING.acquire(False):
            return
        try:
            self._add()
        except InputError:
            pass  # no threads for it: calls go on as they do
        finally:
            PLANNING.release()

    def _add(self) -> None:
        self.teams.append(team(self._target, self.size, number=len(self.teams)))
        newcomer = Turn(self._gate)
        newcomer.words[native.TICKET_POOL] = self.address
        newcomer.words[native.TICKET_TEAM] = len(self.teams) - 1
        newcomer.leave()


_gates: list[Gate] = []


def gate(target: Target) -> Gate:
    """The process's, by code for this target where it is the first that asks."""
    if not _gates:
        with PLANNING:
            if not _gates:
                _gates.append(Gate(target, available_processors()))
    return _gates[0]


def _after_fork() -> None:
    """Other threads, and what they held, do not survive it."""
    for one in _gates:
        one.empty()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
