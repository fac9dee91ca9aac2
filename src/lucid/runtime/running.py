"""Running bound programs: the way into native code, and the memory of calls."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lucid.codegen.kernels.driver_tables import DRIVER
from lucid.runtime.admission import check_policy, gate
from lucid.runtime.binding import Workspace
from lucid.runtime.processors import allowance
from lucid.runtime.team import RUN_TYPE

if TYPE_CHECKING:
    from lucid.codegen.target import Target
    from lucid.runtime.admission import Pool
    from lucid.runtime.binding import BoundTables
    from lucid.runtime.library import Code


class Runner:
    """Runs programs on a team of threads or on their caller's, for any number of callers at the
    same time. `enter`: native code on the caller's thread, which asks nobody, once it was entered;
    `free`: memory no call has."""

    def __init__(self, target: Target, threads: int) -> None:
        self._target = target
        self._threads = threads
        self._policy = "adaptive"
        self._code: Code | None = None  # what `enter` is of
        self._alone: Callable[[int], int] | None = None
        self._pools: dict[int, Pool] = {}
        self.enter: Callable[[int], int] | None = None
        self.free: list[Workspace] = []

    @property
    def policy(self) -> str:
        """What becomes of a call while others run (`lucid.runtime.admission`)."""
        return self._policy

    @policy.setter
    def policy(self, policy: str) -> None:
        self._policy = check_policy(policy)

    def run(self, bound: BoundTables, addresses: Sequence[int]) -> int:
        """Run a program on the arrays at these addresses, its inputs and then its outputs; the
        status of the native code, 0 where it ran.

        Its pace is told what the call took unless it met others: it may have waited for them, or
        had no team for their sake."""
        if self._threads == 1:
            return self._admitted(bound, addresses, 1)
        way_in, pace = gate(self._target), bound.pace
        allowed = allowance.threads()
        way_in.allow(allowed)
        threads = pace.threads(min(self._threads, allowed))
        if pace.worth == 1 or not way_in.is_empty:
            return self._admitted(bound, addresses, threads)
        start = time.monotonic()
        status = self._admitted(bound, addresses, threads)
        seconds = time.monotonic() - start
        if way_in.is_empty:
            pace.took(threads, seconds)
        return status

    def _admitted(self, bound: BoundTables, addresses: Sequence[int], threads: int) -> int:
        """Run on so many threads, or on the caller's alone, once it is this call's turn."""
        enter = self.enter or self._entry(bound.code)
        if threads == 1 and self._policy != "block":  # it is its thread's alone, waits for nobody
            return self._run(enter, bound, addresses)
        turn = gate(self._target).turn()
        if turn.is_taken:  # a signal handler's call, in a call
            return self._run(enter, bound, addresses)
        size = self._threads if threads > 1 else 1
        pool = self._pools.get(size)
        if pool is None:  # to find it takes longer than small networks
            pool = self._pools[size] = gate(self._target).pool(self._target, size)
        try:
            team = turn.take(pool, self._policy)
            if team is None:
                return self._run(self._alone or enter, bound, addresses)
            status = self._run(functools.partial(team.run, threads=threads), bound, addresses)
            if team.in_vain:
                bound.pace.in_vain(threads)
            return status
        finally:
            turn.leave()

    def _run(
        self, enter: Callable[[int], int], bound: BoundTables, addresses: Sequence[int]
    ) -> int:
        try:  # pop and append are atomic
            workspace = self.free.pop()
        except IndexError:
            workspace = Workspace(self._threads, bound.needs)
        if not workspace.fits(bound):
            workspace = workspace.larger(bound)
        try:
            return enter(workspace.prepare(bound, addresses))
        finally:
            self.free.append(workspace)

    def _entry(self, code: Code) -> Callable[[int], int]:
        """The ways into native code on the caller's thread: of who asks nobody, and of who was
        admitted."""
        address, self._code = code.address(DRIVER, "lucid_run"), code
        self._alone = RUN_TYPE(address)
        way_in = gate(self._target)
        self.enter = functools.partial(way_in.beside, way_in.address, address)
        return self.enter

    def trim(self, arena: int) -> None:
        """Let go of memory of calls whose arena is larger. Calls come and go meanwhile: what is in
        neither list is theirs."""
        kept = []
        with suppress(IndexError):
            for _ in range(len(self.free)):
                workspace = self.free.pop()
                if workspace.capacity[0] <= arena:
                    kept.append(workspace)
        self.free.extend(kept)
