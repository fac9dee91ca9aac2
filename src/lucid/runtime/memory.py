"""Anonymous memory for arenas and weights: aligned, and in huge pages where the system has them."""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

import numpy as np

from lucid.codegen.language.dtypes import dtype

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array

HUGE_PAGE = 2 << 20
ALIGNMENT = 64
"""Bytes that packed weights are aligned to; no vector is longer, so that panels may be read by
aligned loads."""


class Memory:
    """`size` bytes of zeroed memory at `address`, aligned to a page (a huge one when large).

    Raises MemoryError.
    """

    def __init__(self, size: int) -> None:
        self.size = max(size, mmap.PAGESIZE)
        slack = HUGE_PAGE if self.size >= HUGE_PAGE else 0
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self._map = mmap.mmap(-1, self.size + slack, flags=flags)
        except (OSError, OverflowError) as problem:
            raise MemoryError(f"{self.size:,} bytes of memory cannot be had: {problem}") from None
        if slack and hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._window = (ctypes.c_char * len(self._map)).from_buffer(self._map)
        base = ctypes.addressof(self._window)
        self.address = -(-base // slack) * slack if slack else base
        self._start = self.address - base

    def array(self, offset: int, count: int, kind: str) -> Array:
        """The `count` elements of a dtype from byte `offset` on, as they are stored."""
        return np.frombuffer(self._map, dtype(kind).storage, count, self._start + offset)
