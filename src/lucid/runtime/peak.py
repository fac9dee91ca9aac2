"""The measured peak: multiply-adds per second that this machine does when idle otherwise.

It is measured, never computed from a data sheet: clocks differ with the width of vectors, with the
number of busy cores, and with what a hypervisor gives away.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np

from lucid.codegen.kernels.peak import Peak, operations
from lucid.codegen.target import Target
from lucid.os_threads import together
from lucid.runtime.library import KERNEL_TYPE, library

TRIPS = 200_000
"""Trips of one call: 2 to 6 ms."""
CALLS = 16
"""Calls that a thread makes one after the other: a new thread may share its core with the thread
that made it for some milliseconds, so the first calls say little."""

Span = tuple[float, float]


def measured_peak(target: Target, threads: int = 1, rounds: int = 3) -> float:
    """GFLOP/s of the fastest of `rounds` rounds on `threads` threads at once, measured now.

    2 operations a multiply-add. `target` must be one that runs here.
    """
    spec = Peak()
    code = library(target).load([spec])
    kernel = KERNEL_TYPE(code.address(spec))
    rows = [_Arguments(target) for _ in range(threads)]
    works = [functools.partial(kernel, *row.operands) for row in rows]
    calls = max(calls_per_second(side_by_side(works, CALLS)) for _ in range(rounds))
    return operations(target) * TRIPS * calls / 1e9


class _Arguments:
    """One thread's argument table, buffer table and data, on cache lines of its own."""

    def __init__(self, target: Target) -> None:
        self.data = np.zeros(1024, np.float32)
        self.data[: target.vector] = 0.5  # q * 0.5 + 1 stays finite
        self.data[target.vector : 2 * target.vector] = 1
        self.words = np.array([TRIPS, 0, 0], np.int64)
        self.buffers = np.array([self.data.ctypes.data], np.int64)
        self.operands = (self.words.ctypes.data, self.buffers.ctypes.data, 0, 1, None)


def side_by_side(works: Sequence[Callable[[], object]], calls: int) -> list[list[Span]]:
    """Each thread calls its own of `works` so often, all threads together; the spans of the calls,
    as (start, end) in seconds, by thread."""
    spans: list[list[Span]] = [[] for _ in works]

    def repeat(call: Callable[[], object], mine: list[Span]) -> None:
        for _ in range(calls):
            start = time.perf_counter()
            call()
            mine.append((start, time.perf_counter()))

    together([functools.partial(repeat, *p) for p in zip(works, spans, strict=True)])
    return spans


def calls_per_second(spans: list[list[Span]]) -> float:
    """The rate of calls on all threads together, from when each has done a quarter of its calls to
    when the first has done all; a call partly in that time counts by that part.

    0 where the threads were not at work at the same time.
    """
    begin = max(calls[len(calls) // 4][0] for calls in spans)
    finish = min(calls[-1][1] for calls in spans)
    if finish <= begin:
        return 0.0
    done = sum(
        max(0.0, min(end, finish) - max(start, begin)) / (end - start)
        for calls in spans
        for start, end in calls
    )
    return done / (finish - begin)
