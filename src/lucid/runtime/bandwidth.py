"""The measured bandwidth: bytes per second that this machine moves when idle otherwise.

What memory gives depends on how much of it is touched, since smaller sets stay in a cache; so it is
measured for a size, as copying between two arrays that have it together.
"""

from __future__ import annotations

import functools

import numpy as np

from lucid.runtime.peak import calls_per_second, side_by_side

SMALLEST, LARGEST = 1 << 18, 1 << 27
"""Bytes: below, starting a copy counts; above, no cache of today makes a difference."""
MOVED = 1 << 29
"""Bytes that the threads move in one round: enough for all of them to be at work together."""
ROUNDS = 4


def measured_bandwidth(size: int, threads: int = 1) -> float:
    """GB/s, read and written, of `threads` threads that copy in a working set of `size` bytes.

    The size is rounded up to a power of two, and measured once in the life of the process.
    """
    rounded = 1 << max(0, size - 1).bit_length()
    return _measured(min(max(rounded, SMALLEST), LARGEST), threads)


@functools.cache
def _measured(size: int, threads: int) -> float:
    half = size // threads // 2 // 4
    sides = [(np.ones(half, np.float32), np.zeros(half, np.float32)) for _ in range(threads)]
    works = [functools.partial(np.copyto, target, source) for source, target in sides]
    calls = max(4, MOVED // (8 * half * threads))
    best = max(calls_per_second(side_by_side(works, calls)) for _ in range(ROUNDS))
    return best * 8 * half / 1e9
