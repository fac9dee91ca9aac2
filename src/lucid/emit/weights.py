"""The file of packed weights that a C program maps: a header, then arrays at multiples of 64 bytes.

All levels share the file: where two arrays are equal, bit by bit, it holds one. The header is 64
bytes: magic, version, bytes of the file, what identifies the tables that read it (16 bytes), two
sums over the 64-bit words that follow, and eight bytes of zeros.
"""

from __future__ import annotations

import hashlib
import struct
from typing import IO

import numpy as np

from lucid.ir.ops.base import Array
from lucid.runtime.memory import ALIGNMENT

MAGIC = b"LUCID C\n"
VERSION = 1
HEADER = struct.Struct("<8sQQ16sQQQ")
MODULUS = 1 << 64
CHUNK = 1 << 20
"""Words that are summed at a time."""


class WeightFile:
    """Writes arrays to a file that can be sought in. `size`: bytes so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[bytes, int] = {}
        self._sums = (0, 0)
        self.size = HEADER.size
        file.write(bytes(HEADER.size))

    def add(self, array: Array) -> int:
        """Where in the file this array lies, aligned."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(data.data).digest()
        place = self._places.get(digest)
        if place is None:
            place = self._places[digest] = self.size
            self._write(data)
        return place

    def _write(self, data: Array) -> None:
        padded = np.concatenate([data, np.zeros(-len(data) % ALIGNMENT, np.uint8)])
        words = padded.view("<u8")
        for first in range(0, len(words), CHUNK):
            self._sum(words[first : first + CHUNK])
        self._file.write(padded.data)
        self.size += len(padded)

    def _sum(self, words: Array) -> None:
        """Go on with the sum of words, and the sum of what that was after each, modulo 2^64."""
        first, second = self._sums
        times = np.arange(len(words), 0, -1, dtype=np.uint64)
        second += len(words) * first + int((times * words).sum(dtype=np.uint64))
        self._sums = (first + int(words.sum(dtype=np.uint64))) % MODULUS, second % MODULUS

    def finish(self, identity: bytes) -> None:
        """Write the header. `identity`: 16 bytes that tell what reads the file."""
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, VERSION, self.size, identity, *self._sums, 0))
        self._file.seek(0, 2)
