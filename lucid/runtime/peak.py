"""The measured peak: multiply-adds a second that this machine does when it does nothing else.

It is measured, never computed from a data sheet: clocks differ with the width of vectors, with the
number of busy cores, and with what a hypervisor gives away.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable

import numpy as np

from lucid.codegen.kernels.peak import Peak, operations
from lucid.codegen.target import Target
from lucid.runtime.library import library

TRIPS = 500_000
"""Trips of one run: 4 to 15 ms, long against the start of threads, short against clock drift."""

KERNEL_TYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)


def measured_peak(target: Target, threads: int = 1, runs: int = 8) -> float:
    """GFLOP/s of the fastest of `runs` runs on `threads` threads at once, measured now.

    2 operations a multiply-add. `target` must be one that runs here.
    """
    spec, native = Peak(), library(target)
    native.load([spec])
    kernel = KERNEL_TYPE(native.address(spec))
    rows = [_Arguments(target) for _ in range(threads)]
    seconds = min(_run(kernel, rows) for _ in range(runs))
    return operations(target) * TRIPS * threads / seconds / 1e9


@functools.cache
def known_peak(target: Target, threads: int = 1) -> float:
    """`measured_peak`, measured once in the life of the process."""
    return measured_peak(target, threads)


class _Arguments:
    """One thread's argument table, buffer table and data, on cache lines of its own."""

    def __init__(self, target: Target) -> None:
        self.data = np.zeros(1024, np.float32)
        self.data[: target.vector] = 0.5  # q * 0.5 + 1 stays finite
        self.data[target.vector : 2 * target.vector] = 1
        self.words = np.array([TRIPS, 0, 0], np.int64)
        self.buffers = np.array([self.data.ctypes.data], np.int64)


def _run(kernel: Callable[..., None], rows: list[_Arguments]) -> float:
    """Seconds from the first thread's start to the last one's end, all at work together."""
    ready = threading.Barrier(len(rows))
    spans: list[tuple[float, float]] = []

    def work(row: _Arguments) -> None:
        ready.wait()
        start = time.perf_counter()
        kernel(row.words.ctypes.data, row.buffers.ctypes.data, 0, 1, None)
        spans.append((start, time.perf_counter()))

    others = [threading.Thread(target=work, args=(row,)) for row in rows[1:]]
    for thread in others:
        thread.start()
    work(rows[0])
    for thread in others:
        thread.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)
