"""Running bound programs: the way into native code, and the memory of calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.target import Target
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.library import Code
from lucid.runtime.team import RUN_TYPE, team


class Runner:
    """Runs programs on a team of threads (with one, on their caller's), for any number of callers
    at the same time. `enter`: native code, once it was entered; `free`: memory no call has."""

    def __init__(self, target: Target, threads: int) -> None:
        self._target = target
        self._threads = threads
        self.enter: Callable[[int], int] | None = None
        self.free: list[Workspace] = []

    def run(self, bound: BoundProgram, addresses: Sequence[int]) -> int:
        """Run a program on the arrays at these addresses, its inputs and then its outputs; the
        status of the native code, 0 where it ran."""
        enter = self.enter or self._entry(bound.code)
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
        """The way into native code. It does not hold the model, so that a model's memory goes with
        its last user, not when Python next looks for cycles."""
        target, threads = self._target, self._threads
        if threads == 1:
            run = RUN_TYPE(code.address(Driver(), "lucid_run"))
            self.enter = functools.partial(_run_alone, run, code)
        else:  # looked up each time: a fork makes another team
            self.enter = lambda call: team(target, threads).run(call)
        return self.enter

    def trim(self, arena: int) -> None:
        """Let go of memory of calls whose arena is larger."""
        self.free[:] = [w for w in self.free if w.capacity[0] <= arena]


def _run_alone(run: Callable[[int], int], code: Code, call: int) -> int:
    """Run a call table on this thread; `code` is what `run` is of, and stays as long as this."""
    return int(run(call))
