"""The time of each call of a program, measured in place: between its neighbours, with all threads
at work, and its weights as cold as the rest of the network leaves them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucid.codegen.kernels import driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.program.program import Program
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.ir.ops.base import Array
from lucid.ir.samples import sample
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.library import Objects, Progress, library
from lucid.runtime.team import team
from lucid.runtime.weights import WeightStore

ATTEMPTS = 10
"""Runs to try where a thread's clock goes back, as it may when a virtual machine is moved."""


@dataclass(frozen=True)
class Clocked:
    """One run: `stamps`, (threads, steps, 3), each thread's clock before a step's barrier, after
    it, and after the step; `start` and `end`, in seconds, of the whole by the caller's clock."""

    stamps: Array
    start: float
    end: float

    @property
    def ms(self) -> float:
        """The run as its caller sees it."""
        return 1000 * (self.end - self.start)

    @property
    def ms_per_tick(self) -> float:
        """What a tick of the stamps takes."""
        return self.ms / max(1, int(self.stamps[0, -1, 2] - self.stamps[0, 0, 0]))


class Stopwatch:
    """Runs programs over one set of weights and notes the clock around their calls.

    `weights`: where the programs' weights are packed. `runs` counts the runs so far.
    """

    def __init__(
        self,
        target: Target,
        threads: int,
        weights: WeightStore,
        cache: Objects | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.runs = 0
        self._threads = threads
        self._cache, self._progress = cache, progress
        self._native = library(target)
        self._driver = self._native.load([Driver(profiled=True)], cache)
        self._target = target
        self._store = weights
        self._workspace: Workspace | None = None
        self._arrays: dict[tuple[str, int, str], Array] = {}
        self._rates: list[float] = []

    def bind(self, program: Program) -> BoundProgram:
        """Load what the program needs, and pack its weights where no program before had them."""
        code = self._native.load(program.kernels(), self._cache, self._progress)
        self._store.ensure(program.weights.values(), self._progress)
        return BoundProgram(program, code, self._store)

    def run(self, bound: BoundProgram) -> Array:
        """Milliseconds of each of the program's calls in one run on random numbers, in order.

        What a phase takes, up to the next barrier, is shared among its calls by their work; so what
        threads wait for each other counts. Raises CompileError.
        """
        addresses = self._user_arrays(bound.program)
        clocked = self.clock(bound, addresses)
        self._rates.append(clocked.ms_per_tick)
        steps = shared_by_phase(clocked.stamps, bound.steps[:, driver.STEP_BARRIER] != 0)
        times = np.zeros(sum(1 for _ in bound.program.calls()))
        worked = [i for i, c in enumerate(bound.program.calls()) if c.tasks]
        times[worked] = steps[: bound.count] * np.median(self._rates)
        return times

    def clock(
        self, bound: BoundProgram, addresses: Sequence[int], profiled: bool = True
    ) -> Clocked:
        """One run on the user's arrays at these addresses, inputs and then outputs.

        Unless `profiled` it is a run of the ordinary driver, and its stamps are all 0. Raises
        CompileError.
        """
        if self._workspace is None or not self._workspace.fits(bound):
            larger = self._workspace.larger(bound) if self._workspace else None
            self._workspace = larger or Workspace(self._threads, bound.needs)
        for _ in range(ATTEMPTS):
            clocked = self._clocked(bound, self._workspace, addresses, profiled)
            if (np.diff(clocked.stamps.reshape(len(clocked.stamps), -1)) >= 0).all():
                return clocked
        raise CompileError("this machine's clock runs backwards: nothing can be measured by it")

    def _clocked(
        self, bound: BoundProgram, workspace: Workspace, addresses: Sequence[int], profiled: bool
    ) -> Clocked:
        crew = team(self._target, self._threads, profiled)
        stamps = np.zeros((self._threads, max(1, bound.count), 3), np.int64)
        call = workspace.prepare(bound, addresses)
        workspace.table[driver.CALL_PROFILE] = stamps.ctypes.data
        start = time.perf_counter()
        status = crew.run(call)
        end = time.perf_counter()
        if status:
            raise CompileError(f"the native runtime refused the program (status {status})")
        self.runs += 1
        return Clocked(stamps, start, end)

    def _user_arrays(self, program: Program) -> list[int]:
        """Addresses of arrays for the program's inputs and outputs."""
        addresses = []
        for view in (*program.inputs.values(), *program.outputs.values()):
            buffer = program.buffers[view.buffer]
            key = (buffer.name, buffer.elements, buffer.dtype)
            if key not in self._arrays:
                random = np.random.default_rng(len(self._arrays))
                numbers = sample(buffer.dtype, (buffer.elements,), random)
                self._arrays[key] = dtype(buffer.dtype).encode(numbers)
            addresses.append(int(self._arrays[key].ctypes.data))
        return addresses


def shared_by_phase(stamps: Array, barriers: Array) -> Array:
    """Ticks of each step, what waiting for the last thread takes included.

    `stamps`: (threads, steps, 3), each thread's clock before the step's barrier, after it, and
    after the step; `barriers`: (steps), whether a step begins a phase. Clocks of different threads
    are never compared: a phase lasts from one barrier to the next by the thread that sees most of
    it, since one that wakes late sees the work done already.
    """
    starts = phase_starts(barriers)
    finishes = [*(stamps[:, s, 1] for s in starts[1:]), stamps[:, -1, 2]]
    spans = [(f - stamps[:, s, 1]).max() for s, f in zip(starts, finishes, strict=True)]
    return shared(np.array(spans), stamps, starts)


def phase_starts(barriers: Array) -> list[int]:
    """The steps that begin a phase."""
    return [0, *(i for i in range(1, len(barriers)) if barriers[i])]


def shared(spans: Array, stamps: Array, starts: Sequence[int]) -> Array:
    """What phases take, shared among their steps by the time that threads spend in them."""
    steps = stamps.shape[1]
    busy = (stamps[..., 2] - stamps[..., 1]).sum(axis=0).astype(np.float64)
    parts = np.zeros(steps)
    for span, first, end in zip(spans, starts, [*starts[1:], steps], strict=True):
        total = busy[first:end].sum()
        parts[first:end] = span * busy[first:end] / total if total else 0.0
    return parts
