"""How long each call of a program takes, in place: between its neighbours, with all threads at
work, and its weights as cold as the rest of the network leaves them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from lucid.codegen.kernels import driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.program import Program
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.ir.ops.base import Array
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.cache import ObjectCache
from lucid.runtime.library import Progress, library
from lucid.runtime.team import team
from lucid.runtime.weights import WeightStore

ATTEMPTS = 10
"""Runs to try where a thread's clock goes back, as it may when a virtual machine is moved."""


class Stopwatch:
    """Runs programs over one set of weights and notes the clock around their calls.

    `payload`: the source tensors of the parameters. `runs` counts the runs so far.
    """

    def __init__(
        self,
        target: Target,
        threads: int,
        payload: Mapping[str, Any],
        cache: ObjectCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.runs = 0
        self._threads = threads
        self._cache, self._progress = cache, progress
        self._native = library(target)
        self._native.load([Driver(profiled=True)], cache)
        self._team = team(target, threads, profiled=True)
        self._store = WeightStore(payload)
        self._workspace: Workspace | None = None
        self._arrays: dict[tuple[str, int], Array] = {}
        self._rates: list[float] = []

    def bind(self, program: Program) -> BoundProgram:
        """Load what the program needs, and pack its weights where no program before had them."""
        self._native.load(program.kernels(), self._cache, self._progress)
        self._store.ensure(program.weights.values(), self._progress)
        return BoundProgram(program, self._native, self._store)

    def run(self, bound: BoundProgram) -> Array:
        """Milliseconds of each of the program's calls in one run on random numbers, in order.

        What a phase takes, up to the next barrier, is shared among its calls by their work; so what
        threads wait for each other counts. Raises CompileError.
        """
        if self._workspace is None or not self._workspace.fits(bound):
            larger = self._workspace.larger(bound) if self._workspace else None
            self._workspace = larger or Workspace(self._threads, bound.needs)
        for _ in range(ATTEMPTS):
            stamps, rate = self._clocked(bound, self._workspace)
            if (np.diff(stamps.reshape(len(stamps), -1)) >= 0).all():
                break
        else:
            raise CompileError("this machine's clock runs backwards: nothing can be measured by it")
        self._rates.append(rate)
        steps = shared_by_phase(stamps, bound.steps[:, driver.STEP_BARRIER] != 0)
        times = np.zeros(sum(1 for _ in bound.program.calls()))
        worked = [i for i, c in enumerate(bound.program.calls()) if c.tasks]
        times[worked] = steps[: bound.count] * np.median(self._rates)
        return times

    def _clocked(self, bound: BoundProgram, workspace: Workspace) -> tuple[Array, float]:
        """The stamps of one run, (threads, steps, 3), and milliseconds a tick by the caller's
        clock."""
        stamps = np.zeros((self._threads, max(1, bound.count), 3), np.int64)
        call = workspace.prepare(bound, self._user_arrays(bound.program))
        workspace.table[driver.CALL_PROFILE] = stamps.ctypes.data
        start = time.perf_counter()
        status = self._team.run(call)
        seconds = time.perf_counter() - start
        if status:
            raise CompileError(f"the native runtime refused the program (status {status})")
        self.runs += 1
        return stamps, 1000 * seconds / max(1, int(stamps[0, -1, 2] - stamps[0, 0, 0]))

    def _user_arrays(self, program: Program) -> list[int]:
        """Addresses of arrays for the program's inputs and outputs."""
        addresses = []
        for view in (*program.inputs, *program.outputs):
            key = (view.buffer, program.buffers[view.buffer].floats)
            if key not in self._arrays:
                random = np.random.default_rng(len(self._arrays))
                self._arrays[key] = random.standard_normal(key[1], np.float32)
            addresses.append(int(self._arrays[key].ctypes.data))
        return addresses


def shared_by_phase(stamps: Array, barriers: Array) -> Array:
    """Ticks of each step, what waiting for the last thread takes included.

    `stamps`: (threads, steps, 3), each thread's clock before the step's barrier, after it, and
    after the step; `barriers`: (steps), whether a step begins a phase. Clocks of different threads
    are never compared: a phase lasts from one barrier to the next by the thread that sees most of
    it, since one that wakes late sees the work done already.
    """
    steps = stamps.shape[1]
    ticks = np.zeros(steps)
    starts = [0, *(i for i in range(1, steps) if barriers[i])]
    for first, end in zip(starts, [*starts[1:], steps], strict=True):
        finish = stamps[:, end, 1] if end < steps else stamps[:, -1, 2]
        span = (finish - stamps[:, first, 1]).max()
        busy = (stamps[:, first:end, 2] - stamps[:, first:end, 1]).sum(axis=0)
        ticks[first:end] = span * busy / max(1, busy.sum())
    return ticks
