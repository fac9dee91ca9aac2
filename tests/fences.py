"""Memory between unreadable pages: what reads or writes beside its array ends the process.

With LUCID_GUARD_PAGES=end every array ends where an unreadable page begins, with =start it begins
where one ends; the tests of kernels then run as they are. A masked load of lanes that lie beyond
is no access, nor is a prefetch; anything else is a SIGSEGV. So such tests run in a process of their
own, which notes in the file $LUCID_GUARD_NOTE what it is about to enter.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lucid.codegen.kernels.packing import Packed
from lucid.codegen.language.dtypes import dtype
from lucid.runtime.weights import ALIGNMENT, WeightStore

PAGE = mmap.PAGESIZE
MODE = os.environ.get("LUCID_GUARD_PAGES", "")
"""`end`, `start`, or nothing."""
NOTE = os.environ.get("LUCID_GUARD_NOTE", "")
_UNREADABLE, _USUAL = 0, mmap.PROT_READ | mmap.PROT_WRITE

Fence = tuple[int, int]
"""First byte and number of bytes, both of whole pages."""


def pages(size: int) -> int:
    """Bytes of the pages that hold so many."""
    return -(-size // PAGE) * PAGE


class Block:
    """`size` bytes, `lead` bytes after a fence, with one behind them where their pages end, and
    those `within`, counted from the first byte. `fill`: an int32 to fill it all with."""

    def __init__(self, size: int, lead: int, fill: int, within: Iterable[Fence] = ()) -> None:
        room = pages(lead + size)
        self._map = mmap.mmap(-1, room + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.words = np.frombuffer(self._map, np.int32)
        self.words[:] = fill
        self.first = PAGE + lead
        base = int(self.words.ctypes.data)
        self.address = base + self.first
        ends = [(base, PAGE), (base + PAGE + room, PAGE)]
        self._fences = [*ends, *((self.address + at, length) for at, length in within)]

    def close(self) -> None:
        """Make the fences unreadable."""
        self._protect(_UNREADABLE)

    def open(self) -> None:
        """Make them readable again, to see whether they still hold what they did."""
        self._protect(_USUAL)

    def _protect(self, how: int) -> None:
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for at, length in self._fences:
            if protect(ctypes.c_void_p(at), ctypes.c_size_t(length), how):
                raise OSError(ctypes.get_errno(), "mprotect")


def lead_of(size: int, alignment: int = 1) -> int:
    """Bytes between the fence before an array of this size and its first byte: in the mode `end` as
    many as put its end at a fence, or less than `alignment` before it."""
    return 0 if MODE == "start" else pages(size) - -(-size // alignment) * alignment


def arena_offsets(sizes: Mapping[str, int], alignment: int) -> tuple[dict[str, int], int]:
    """Places for buffers of these sizes, each on pages of its own with a page between, and the size
    of the arena. All in bytes."""
    offsets, at = {}, 0
    for name, size in sizes.items():
        offsets[name] = at + lead_of(size, alignment)
        at += pages(size) + PAGE
    return offsets, at


def between(sizes: Mapping[str, int]) -> list[Fence]:
    """The pages between the buffers that `arena_offsets` places."""
    fences, at = [], 0
    for size in sizes.values():
        fences.append((at + pages(size), PAGE))
        at += pages(size) + PAGE
    return fences


def shares(used: int, stride: int, threads: int) -> tuple[int, list[Fence]]:
    """For scratch of `threads` shares `stride` bytes apart, of which `used` are: its lead, and the
    page that ends each share."""
    lead = lead_of(used, ALIGNMENT)
    return lead, [(t * stride + pages(used) - lead, PAGE) for t in range(threads)]


class FencedWeights(WeightStore):
    """Packed weights, each between fences; it begins at a multiple of the alignment."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        super().__init__(payload)
        self._blocks: list[Block] = []

    def ensure(
        self, parameters: Iterable[Packed], progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        for packed in dict.fromkeys(parameters):
            if packed not in self._addresses:
                block = Block(packed.bytes, lead_of(packed.bytes, ALIGNMENT), 0)
                place = block.words.view(np.uint8)[block.first : block.first + packed.bytes]
                self._pack((packed, place.view(dtype(packed.dtype).storage)))
                block.close()
                self._blocks.append(block)
                self._addresses[packed] = block.address


def note(lines: Sequence[str]) -> None:
    """Leave word of what is about to run, for who finds this process dead."""
    if NOTE:
        with open(NOTE, "w") as file:
            file.write("\n".join(lines))
