"""The time of each call of a program, measured in place: between its neighbours, with all threads
at work, and its weights as cold as the rest of the network leaves them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.program.program import Program
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.ir.ops.base import Array
from lucid.ir.samples import sample
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.kernel_compiler import Objects, Progress
from lucid.runtime.library import library
from lucid.runtime.team import team
from lucid.runtime.weights import WeightStore

ATTEMPTS = 10
"""Runs to try where a thread's clock goes back, as it may when a virtual machine is moved."""


@dataclass(frozen=True)
class Clocked:
    """One run: from `start` to `end` by Python's clock, in seconds; so many `ticks` by that of the
    stamps, `middle` being the tick in the middle.

    `stamps`: (threads, steps, 3), in ticks of each thread's own clock from when the caller came by
    its own: when the thread had done what it did before the step, when it began the step, and when
    it ended. `parts`: (threads, steps), whether it had a part in the step; one in which it had none
    takes it no time.
    """

    stamps: Array
    parts: Array
    ticks: float
    middle: float
    start: float
    end: float

    @staticmethod
    def of(marks: Array, starts: Sequence[int], start: float, end: float) -> Clocked:
        """`marks`: the profile table that the driver has filled (threads, steps + 1, 3); `starts`:
        the steps that begin a phase."""
        came, left = marks[0, -1, [driver.PROFILE_START, driver.PROFILE_END]]
        steps = marks[:, :-1] if marks.shape[1] > 1 else np.zeros_like(marks)
        parts = steps[..., driver.PROFILE_START] > 0
        stamps = np.zeros((*parts.shape, 3))
        for own, rows, taken in zip(stamps, steps - [came, 0, came], parts, strict=True):
            _lay_out(own, rows, taken, starts)
        return Clocked(stamps, parts, float(left - came), (came + left) / 2, start, end)

    @property
    def forwards(self) -> bool:
        """Whether no clock went back."""
        flat = self.stamps.reshape(len(self.stamps), -1)
        return self.ticks >= 0 and bool((np.diff(flat) >= 0).all())

    @property
    def ms(self) -> float:
        """The run as its caller sees it."""
        return 1000 * (self.end - self.start)

    @property
    def ms_per_tick(self) -> float:
        """What a tick of the stamps takes."""
        return self.ms / max(1.0, self.ticks)


def _lay_out(stamps: Array, rows: Array, taken: Array, starts: Sequence[int]) -> None:
    """One thread's stamps (steps, 3) of its rows in the profile table. Its portions of the steps of
    a phase may lie among each other: they are told as one step after the other."""
    free = rows[taken, driver.PROFILE_START].min() if taken.any() else 0.0
    for first, end in zip(starts, [*starts[1:], len(stamps)], strict=True):
        own = taken[first:end]
        if not own.any():
            stamps[first:end] = free
            continue
        phase = rows[first:end]
        began = phase[own, driver.PROFILE_START].min()
        ended = phase[own, driver.PROFILE_END].max()
        busy = np.cumsum(phase[:, driver.PROFILE_BUSY], dtype=np.float64)
        stamps[first:end, 2] = began + (ended - began) * busy / max(1.0, busy[-1])
        stamps[first, :2] = free, began
        stamps[first + 1 : end, :2] = stamps[first : end - 1, 2:]
        free = stamps[end - 1, 2]


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

        What a phase takes, up to the next one, is shared among its calls by their work; so what
        threads wait for each other counts. Raises CompileError.
        """
        addresses = self._user_arrays(bound.program)
        clocked = self.clock(bound, addresses)
        self._rates.append(clocked.ms_per_tick)
        stamps = aligned(clocked, bound.starts)
        steps = wall_times(stamps, clocked.parts, clocked.ticks, bound.starts)
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
            if clocked.forwards:
                return clocked
        raise CompileError("this machine's clock runs backwards: nothing can be measured by it")

    def _clocked(
        self, bound: BoundProgram, workspace: Workspace, addresses: Sequence[int], profiled: bool
    ) -> Clocked:
        crew = team(self._target, self._threads, profiled)
        marks = np.zeros((self._threads, bound.count + 1, driver.PROFILE_WORDS), np.int64)
        call = workspace.prepare(bound, addresses)
        workspace.table[driver.CALL_PROFILE] = marks.ctypes.data
        start = time.perf_counter()
        status = crew.run(call)
        end = time.perf_counter()
        if status:
            raise CompileError(f"the native runtime refused the program (status {status})")
        self.runs += 1
        return Clocked.of(marks, bound.starts, start, end)

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


def aligned(clocked: Clocked, starts: Sequence[int]) -> Array:
    """Stamps (threads, steps, 3) by the caller's clock; `starts`: the steps that begin a phase.

    Threads' clocks agree on most machines. Where they do not, a thread would seem to begin a phase
    before another one has ended the one before it; it is shifted by the least that makes this
    untrue.
    """
    threads = list(zip(clocked.stamps, clocked.parts, strict=True))
    begun = np.array([_begun(*thread, starts) for thread in threads])
    ended = np.array([_ended(*thread, starts) for thread in threads])
    begun = np.append(begun, np.full((len(begun), 1), np.inf), axis=1)
    begun[0, -1] = clocked.ticks  # when the caller leaves
    ended[0] = np.maximum(ended[0], 0.0)  # nothing before it comes
    shifted = clocked.stamps.copy()
    for thread in range(1, len(shifted)):
        least = (ended[0] - begun[thread]).max()
        most = (begun[0] - ended[thread]).min()
        shifted[thread] += min(max(0.0, least), most)
    return shifted


def _begun(stamps: Array, parts: Array, starts: Sequence[int]) -> list[float]:
    """When a thread began each phase; never, where it has no part in it."""
    ends = [*starts[1:], len(stamps)]
    return [
        float(stamps[s, 1]) if parts[s:e].any() else np.inf
        for s, e in zip(starts, ends, strict=True)
    ]


def _ended(stamps: Array, parts: Array, starts: Sequence[int]) -> list[float]:
    """When a thread had ended all before each phase, and before the end of the last one."""
    last = np.maximum.accumulate(np.where(parts, stamps[:, 2], -np.inf))
    return [-np.inf, *(float(last[s - 1]) for s in [*starts[1:], len(stamps)])]


def wall_times(stamps: Array, parts: Array, ticks: float, starts: Sequence[int]) -> Array:
    """What each step takes, of `aligned` stamps: a phase lasts from when all before it is done to
    when it is done itself, the first from when the caller comes, the last until it leaves."""
    done = np.maximum.accumulate(np.where(parts, stamps[..., 2], 0.0).max(axis=0))
    opened = [0.0, *(float(done[s - 1]) for s in starts[1:]), ticks]
    return shared(np.diff(opened), stamps, starts)


def shared(spans: Array, stamps: Array, starts: Sequence[int]) -> Array:
    """What phases take, shared among their steps by the time that threads spend in them."""
    steps = stamps.shape[1]
    busy = (stamps[..., 2] - stamps[..., 1]).sum(axis=0).astype(np.float64)
    parts = np.zeros(steps)
    for span, first, end in zip(spans, starts, [*starts[1:], steps], strict=True):
        total = busy[first:end].sum()
        parts[first:end] = span * busy[first:end] / total if total else 0.0
    return parts
