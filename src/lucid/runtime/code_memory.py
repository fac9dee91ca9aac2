"""Executable memory: objects laid out side by side, linked, and never writable once they can run.

Code and constants of a batch of objects lie in one mapping, the code first: they reach one another
by 32-bit offsets, wherever the system puts the mapping.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import platform
import weakref
from collections.abc import Sequence
from typing import Any

from lucid.errors import CompileError
from lucid.runtime.object_code import ObjectCode, Place

LARGEST = 1 << 30
"""Bytes of a batch, so that all of its offsets fit 32 bits."""


class Layout:
    """Where the sections of objects lie from the start of a mapping: code, then from
    `constants`, the beginning of a page, constants. `size`: bytes, of whole pages."""

    def __init__(self, objects: Sequence[ObjectCode]) -> None:
        self._objects = objects
        self._offsets: list[dict[int, int]] = [{} for _ in objects]
        self.constants = self._place(0, code=True)
        self.size = self._place(self.constants, code=False)
        if self.size > LARGEST:
            raise CompileError(f"{self.size:,} bytes of object code are too much for one batch")

    def _place(self, end: int, code: bool) -> int:
        """Put sections one after the other; gives the next page's start."""
        for obj, offsets in zip(self._objects, self._offsets, strict=True):
            for number, section in obj.sections.items():
                if section.is_code == code:
                    start = _aligned(end, section.alignment)
                    offsets[number] = start
                    end = start + len(section.content)
        return _aligned(end, mmap.PAGESIZE)

    def offset(self, number: int, place: Place) -> int:
        """Where a place of the object of this number is."""
        return self._offsets[number][place.section] + place.offset

    def linked(self, base: int) -> bytearray:
        """The contents of a mapping that begins at the address `base`, which is a page's. Raises
        CompileError where a relocation does not reach."""
        image = bytearray(self.size)
        for obj, offsets in zip(self._objects, self._offsets, strict=True):
            obj.write(image, offsets, base)
        return image


class CodeMemory:
    """Objects in executable memory, which is freed when nobody holds this any more; not as the
    process ends, when daemon threads may be in it. Raises CompileError."""

    def __init__(self, objects: Sequence[ObjectCode]) -> None:
        layout = Layout(objects)
        size, code, base = layout.size, layout.constants, _mapped(layout.size)
        weakref.finalize(self, _system("munmap"), base, size).atexit = False
        image = layout.linked(base)
        ctypes.memmove(base, (ctypes.c_char * size).from_buffer(image), size)
        _protect(base, code, mmap.PROT_READ | mmap.PROT_EXEC)
        _protect(base + code, size - code, mmap.PROT_READ)
        if platform.machine() == "aarch64":
            _clear_instruction_cache(base, code)
        self._symbols = [
            {name: base + layout.offset(n, place) for name, place in obj.symbols.items()}
            for n, obj in enumerate(objects)
        ]

    def address(self, number: int, symbol: str) -> int:
        """Where a symbol of the object of this number lies. Raises CompileError."""
        address = self._symbols[number].get(symbol)
        if address is None:
            raise CompileError(f"object code has no symbol {symbol!r}")
        return address


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


# -- the system -----------------------------------------------------------------------------------


@functools.cache
def _system(name: str) -> Any:
    """A function of the C library's, with the types that it takes."""
    function = ctypes.CDLL(None, use_errno=True)[name]
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    types: dict[str, tuple[list[Any], Any]] = {
        "mmap": ([address, size, number, number, number, ctypes.c_long], address),
        "mprotect": ([address, size, number], number),
        "munmap": ([address, size], number),
    }
    function.argtypes, function.restype = types[name]
    return function


def _mapped(size: int) -> int:
    """The address of fresh memory to write to."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _system("mmap")(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise MemoryError(f"{size:,} bytes of memory for code: {os.strerror(ctypes.get_errno())}")
    return int(address)


def _protect(address: int, size: int, protection: int) -> None:
    if size and _system("mprotect")(address, size, protection):
        raise CompileError(
            "this system does not let the process make memory executable "
            f"({os.strerror(ctypes.get_errno())}), which compiled models run in"
        )


def _clear_instruction_cache(address: int, size: int) -> None:
    """Where a core may hold other instructions of these addresses, unlike on x86."""
    for library in (None, "libgcc_s.so.1"):
        try:
            clear = ctypes.CDLL(library)["__clear_cache"]
        except (OSError, AttributeError):
            continue
        clear(ctypes.c_void_p(address), ctypes.c_void_p(address + size))
        return
    raise CompileError("libgcc_s.so.1 is missing, which clears the cache of instructions")
