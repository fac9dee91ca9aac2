"""Profiling: where a compiled model spends its time, measured inside the generated code.

A program is run by the profiled driver, the same code with a clock read before and after each
portion of a kernel call, on every thread. Its ticks become milliseconds by comparing them with
the caller's clock over all the runs. Ordinary runs in between tell what the measuring costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lucid.codegen.program.estimate import bytes_moved, operations
from lucid.codegen.program.program import KernelCall, Program
from lucid.codegen.target import Target
from lucid.ir.ops.base import Array
from lucid.runtime.bandwidth import measured_bandwidth
from lucid.runtime.binding import BoundProgram
from lucid.runtime.kernel_compiler import Objects, Progress
from lucid.runtime.peak import measured_peak
from lucid.runtime.profile_report import CallProfile, Event, Profile, ThreadProfile
from lucid.runtime.timing import Clocked, Stopwatch, aligned, wall_times

BLOCK = 5
"""Runs in a row by one driver: the other one's threads spin for a while after each change."""
KEPT = 0.5
"""The part of the runs, the fastest, that the profile is the mean of."""


@dataclass(frozen=True)
class Profiler:
    """Profiles bound programs on one team. `progress` is told of the runs."""

    target: Target
    threads: int
    cache: Objects | None = None
    progress: Progress | None = None

    def profile(
        self, bound: BoundProgram, model: str, addresses: Sequence[int], runs: int
    ) -> Profile:
        """The profile of `runs` runs on the user's arrays at these addresses."""
        stopwatch = Stopwatch(self.target, self.threads, bound.weights, self.cache, self.progress)
        measured, ordinary = self._in_turns(
            lambda profiled: stopwatch.clock(bound, addresses, profiled), runs
        )
        starts = bound.starts
        rate, chosen = milliseconds_a_tick(measured), fastest(measured)
        stamps = np.array([aligned(c, starts) for c in chosen]) * rate
        lengths = np.array([c.ticks for c in chosen]) * rate
        latency = mean_ms(chosen)
        rates = Rates(
            latency,
            measured_peak(self.target, self.threads),
            measured_bandwidth(working_set(bound.program), self.threads),
        )
        calls = [c for c in bound.program.calls() if c.tasks]
        runs_of = zip(stamps, chosen, lengths, strict=True)
        spans = np.mean([wall_times(s, c.parts, t, starts) for s, c, t in runs_of], axis=0)
        busy = (stamps[..., 2] - stamps[..., 1]).mean((0, 1))
        return Profile(
            model=model,
            inputs={name: view.shape for name, view in bound.program.inputs.items()},
            target=self.target.name,
            runs=runs,
            latency_ms=latency,
            ordinary_ms=mean_ms(fastest(ordinary)),
            overhead=min(c.ms for c in measured) / min(c.ms for c in ordinary) - 1,
            peak_gflops=rates.peak,
            bandwidth_gbs=rates.bandwidth,
            calls=tuple(
                call_profile(bound.program, call, float(ms), float(inside), rates)
                for call, ms, inside in zip(calls, spans, busy, strict=False)
            ),
            threads=thread_profiles(stamps, lengths),
            events=tuple(_events(stamps[0], chosen[0].parts, starts)) if calls else (),
        )

    def _in_turns(
        self, run: Callable[[bool], Clocked], runs: int
    ) -> tuple[list[Clocked], list[Clocked]]:
        """Profiled runs and as many ordinary ones, a few of each at a time, after one untimed."""
        measured: list[Clocked] = []
        ordinary: list[Clocked] = []
        while len(measured) < runs:
            if self.progress:
                self.progress("runs", len(measured), runs)
            count = min(BLOCK, runs - len(measured))
            for kept, profiled in ((ordinary, False), (measured, True)):
                run(profiled)
                kept += [run(profiled) for _ in range(count)]
        return measured, ordinary


def milliseconds_a_tick(runs: Sequence[Clocked]) -> float:
    """What a tick takes, by the caller's clock from the middle of the first run to the middle of
    the last; of a single run, all of it."""
    first, last = runs[0], runs[-1]
    if first is last:
        return first.ms_per_tick
    middles = [(r.start + r.end) / 2 for r in (first, last)]
    return float(1000 * (middles[1] - middles[0]) / max(1.0, last.middle - first.middle))


def mean_ms(runs: Sequence[Clocked]) -> float:
    """The mean of what the runs' caller sees of them."""
    return float(np.mean([r.ms for r in runs]))


def fastest(runs: Sequence[Clocked]) -> list[Clocked]:
    """The faster part of the runs, the fastest first."""
    return sorted(runs, key=lambda r: r.ms)[: max(1, round(KEPT * len(runs)))]


def thread_profiles(runs: Array, lengths: Array) -> tuple[ThreadProfile, ...]:
    """Means over the runs of what each thread did; `runs`: (runs, threads, steps, 3), and how long
    each of them took its caller; in milliseconds."""
    kernels = (runs[..., 2] - runs[..., 1]).sum(-1)
    barriers = (runs[..., 1] - runs[..., 0]).sum(-1)
    ends = lengths[:, None] - (runs[..., -1, 2] - runs[..., 0, 0])
    rows = np.stack([kernels, barriers, ends]).mean(1).T
    return tuple(ThreadProfile(*map(float, row)) for row in rows)


@dataclass(frozen=True)
class Rates:
    """What calls are compared with: milliseconds of a run, GFLOP/s, GB/s."""

    latency: float
    peak: float
    bandwidth: float


def call_profile(
    program: Program, call: KernelCall, ms: float, busy: float, rates: Rates
) -> CallProfile:
    """A row of the profile, for a call that takes `ms`, of which `busy` in the kernel."""
    done, moved = operations(call), bytes_moved(program, call)
    gflops = call.work / ms / 1e6 if ms else 0.0
    return CallProfile(
        origin=call.origin,
        kernel=call.kernel.family,
        algorithm=call.algorithm or call.kernel.family,
        ms=ms,
        busy_ms=busy,
        share=ms / rates.latency,
        work=call.work,
        done=done,
        moved=moved,
        gflops=gflops,
        share_of_peak=gflops / rates.peak,
        bound="compute" if done * rates.bandwidth > moved * rates.peak else "memory",
    )


def working_set(program: Program) -> int:
    """Bytes that a run touches: parameters, arena, and the user's arrays."""
    users = sum(b.bytes for b in program.buffers.values() if b.kind != "arena")
    return program.arena + users + sum(p.bytes for p in program.weights.values())


def _events(stamps: Array, parts: Array, starts: Sequence[int]) -> Iterator[Event]:
    """What every thread did of kernel calls, and its waits before phases; stamps in milliseconds
    from 0 on."""
    for thread, rows in enumerate(stamps.tolist()):
        for call, (before, start, end) in enumerate(rows):
            if call and call in starts and start > before:
                yield Event(thread, call, before, start - before, True)
            if parts[thread, call]:
                yield Event(thread, call, start, end - start, False)
