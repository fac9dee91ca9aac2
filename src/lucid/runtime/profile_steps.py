"""Profiles of plans that have host ops: each native call profiled, each host op timed, in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lucid.ir.graph import Value
from lucid.ir.ops.base import Array
from lucid.runtime.binding import BoundProgram
from lucid.runtime.plans import Plan
from lucid.runtime.profile import KEPT, Profiler
from lucid.runtime.profile_report import CallProfile, Event, Profile, ThreadProfile
from lucid.runtime.steps import HostStep, run_steps

HOST = "host"
"""What the table calls the kernel's algorithm, and the bound, of a host op."""


@dataclass
class StepProfiler:
    """Runs a plan once, each of its steps `runs` times, and puts together what they take.

    `done`: the profiles of the native calls so far, and of host ops their only call.
    """

    profiler: Profiler
    model: str
    runs: int
    done: list[Profile | CallProfile] = field(default_factory=list)

    def profile(self, plan: Plan, arrays: Sequence[Array], results: Sequence[Array]) -> Profile:
        """The profile of a plan, whose results are written."""
        given, start = (arrays, results), time.perf_counter()
        run_steps(
            plan.graph, plan.steps, plan.batch, plan.weights, self._native, *given, self._host
        )
        parts = [part for part in self.done if isinstance(part, Profile)]
        host = sum(part.ms for part in self.done if isinstance(part, CallProfile))
        copies = 1000 * (time.perf_counter() - start) if not self.done else 0.0
        latency = copies + host + sum(part.latency_ms for part in parts)
        ordinary = copies + host + sum(part.ordinary_ms for part in parts)
        calls = [call for part in self.done for call in _calls(part)]
        inputs = {v.name: a.shape for v, a in zip(plan.graph.inputs, arrays, strict=True)}
        return Profile(
            model=self.model,
            inputs=inputs,
            target=self.profiler.target.name,
            runs=self.runs,
            latency_ms=latency,
            ordinary_ms=ordinary,
            overhead=sum(part.overhead * part.ordinary_ms for part in parts) / ordinary,
            peak_gflops=max((part.peak_gflops for part in parts), default=1.0),
            bandwidth_gbs=max((part.bandwidth_gbs for part in parts), default=1.0),
            calls=tuple(replace(c, share=c.ms / latency) for c in calls),
            threads=self._threads(parts, host),
            events=tuple(self._events()),
        )

    def _native(self, bound: BoundProgram, arrays: Sequence[Array]) -> None:
        addresses = [array.ctypes.data for array in arrays]
        self.done.append(self.profiler.profile(bound, self.model, addresses, self.runs))

    def _host(self, step: HostStep, arrays: Mapping[Value, Array], batch: int) -> list[Array]:
        times = []
        for _ in range(self.runs):
            start = time.perf_counter()
            results = step.run(arrays, batch)
            times.append(1000 * (time.perf_counter() - start))
        fastest = sorted(times)[: max(1, round(KEPT * self.runs))]
        ms = sum(fastest) / len(fastest)
        touched = [*(arrays[value] for value in step.reads), *step.known.values(), *results]
        moved, op = sum(array.nbytes for array in touched), step.op
        self.done.append(
            CallProfile(op.origin, op.op, HOST, ms, ms, 0.0, 0, 0.0, moved, 0.0, 0.0, HOST)
        )
        return results

    def _threads(self, parts: Sequence[Profile], host: float) -> tuple[ThreadProfile, ...]:
        """What each thread did in all native calls; the caller's ran the host ops besides."""
        rows = []
        for number in range(self.profiler.threads):
            own = [part.threads[number] for part in parts]
            kernels = sum(row.kernels for row in own) + (0.0 if number else host)
            ends = sum(row.ends for row in own) + (host if number else 0.0)
            rows.append(ThreadProfile(kernels, sum(row.barriers for row in own), ends))
        return tuple(rows)

    def _events(self) -> list[Event]:
        """The events of the parts, one after the other."""
        events, start, first = list[Event](), 0.0, 0
        for part in self.done:
            if isinstance(part, CallProfile):
                events.append(Event(0, first, start, part.ms, False))
                start += part.ms
            else:
                events += [
                    replace(e, call=first + e.call, start=start + e.start) for e in part.events
                ]
                start += max((e.start + e.ms for e in part.events), default=0.0)
            first += len(_calls(part))
        return events


def _calls(part: Profile | CallProfile) -> Sequence[CallProfile]:
    return (part,) if isinstance(part, CallProfile) else part.calls
