"""Object code as LLVM writes it: the sections, symbols and relocations of an ELF64 file.

Objects may come from a damaged file, so nothing in them is believed: each offset is checked before
it is followed, and what kernels have no use for is refused. Source: System V ABI, chapter 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from lucid.errors import CompileError
from lucid.runtime.relocations import RELOCATIONS, Relocation, relocation

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
MAGIC = b"\x7fELF\x02\x01\x01"
"""64 bits, little-endian, version 1."""
RELOCATABLE = 1
BYTES, SYMBOLS, WITH_ADDENDS, WITHOUT_ADDENDS, X86_UNWINDING = 1, 2, 4, 9, 0x70000001
"""Types of sections; relocations are with addends or without."""
WRITABLE, LOADED, EXECUTABLE, OF_THREADS, COMPRESSED = 1, 2, 4, 0x400, 0x800
"""Flags of sections."""
UNWINDING = ".eh_frame"
"""How to unwind the stack, which nothing does through a kernel."""
RESERVED = 0xFF00
"""From here on what stands for a section's number is none."""
LARGEST_ALIGNMENT = 4096

T = TypeVar("T")
Bytes = bytes | memoryview
"""Of a file in memory, or mapped."""


class Section(NamedTuple):
    """A part of an object that goes into memory. `is_code`: else it is constants."""

    content: memoryview
    alignment: int
    is_code: bool


class Place(NamedTuple):
    """A place in a section, by the section's number in its object."""

    section: int
    offset: int


class Fixup(NamedTuple):
    """A word that changes when it is known where the object lies: the place, how it changes, and
    the target, `addend` bytes from a place in the object."""

    place: Place
    how: Relocation
    target: Place
    addend: int


class _Header(NamedTuple):
    """The header of a section, of any type."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class ObjectCode:
    """A relocatable object: `sections` by number, `symbols` by name, and `fixups`.

    Raises CompileError for what is no object code, is damaged, or has what kernels have not:
    variables, undefined symbols, other relocations.
    """

    def __init__(self, data: Bytes) -> None:
        self._data = memoryview(data)
        headers = self._headers()
        self.sections: Mapping[int, Section] = dict(self._loaded(headers))
        if not self.sections:
            _refuse("it has no code")
        tables = {n: list(self._symbols(headers, n)) for n, h in _of_kind(headers, SYMBOLS)}
        self.symbols: Mapping[str, Place] = {
            name: place
            for table in tables.values()
            for name, place in table
            if name and place is not None
        }
        self.fixups: Sequence[Fixup] = list(self._fixups(headers, tables))

    def write(self, image: bytearray, offsets: Mapping[int, int], base: int) -> None:
        """Write the sections, by number, at these offsets into the image of a piece of memory, as
        they are where it begins at the address `base`. Raises CompileError where a relocation does
        not reach."""
        for number, section in self.sections.items():
            start = offsets[number]
            image[start : start + len(section.content)] = section.content
        for place, how, target, addend in self.fixups:
            at = offsets[place.section] + place.offset
            to = offsets[target.section] + target.offset + addend
            word = int.from_bytes(image[at : at + how.size], "little")
            fixed = how.apply(word, base + to, base + at)
            image[at : at + how.size] = fixed.to_bytes(how.size, "little")

    def _headers(self) -> list[_Header]:
        if len(self._data) < HEADER.size:
            _refuse("it is too short")
        magic, kind, machine, *_, first, _, _, _, _, size, count, names = HEADER.unpack_from(
            self._data
        )
        if not magic.startswith(MAGIC) or kind != RELOCATABLE:
            _refuse("it is no relocatable ELF64 object")
        if machine not in RELOCATIONS:
            _refuse(f"it is for machine {machine}")
        if size != SECTION.size or not names < count:
            _refuse("it has no table of sections")
        self.machine = machine
        self._names = names
        return [_Header(*row) for row in SECTION.iter_unpack(self._bytes(first, size * count))]

    def _bytes(self, offset: int, size: int) -> memoryview:
        if offset + size > len(self._data):
            _refuse(f"it ends before byte {offset + size:,}")
        return self._data[offset : offset + size]

    def _name(self, table: _Header, offset: int) -> str:
        names = self._bytes(table.offset, table.size)
        text, end, _ = bytes(names[offset : offset + 4096]).partition(b"\0")
        if not end:
            _refuse("a name does not end")
        return text.decode(errors="replace")

    def _loaded(self, headers: Sequence[_Header]) -> Iterator[tuple[int, Section]]:
        for number, header in enumerate(headers):
            if not header.flags & LOADED or not header.size or header.kind == X86_UNWINDING:
                continue
            name = self._name(headers[self._names], header.name)
            if name == UNWINDING:
                continue
            writable = header.flags & WRITABLE and not name.startswith(".data.rel.ro")
            if header.kind != BYTES or writable or header.flags & (OF_THREADS | COMPRESSED):
                _refuse(f"its section {name!r} is neither code nor constants")
            alignment = max(1, header.alignment)
            if alignment & alignment - 1 or alignment > LARGEST_ALIGNMENT:
                _refuse(f"its section {name!r} is to lie at multiples of {alignment:,}")
            content = self._bytes(header.offset, header.size)
            yield number, Section(content, alignment, bool(header.flags & EXECUTABLE))

    def _symbols(
        self, headers: Sequence[_Header], number: int
    ) -> Iterator[tuple[str, Place | None]]:
        """The symbols of a table, in order; no place where it is in no section that is loaded."""
        table = headers[number]
        names = _at(headers, table.link)
        for name, _, _, section, value, _ in self._rows(SYMBOL, table):
            known = self.sections.get(section) if section < RESERVED else None
            if known is not None and value > len(known.content):
                _refuse("a symbol lies outside its section")
            yield self._name(names, name), None if known is None else Place(section, value)

    def _fixups(
        self,
        headers: Sequence[_Header],
        tables: Mapping[int, Sequence[tuple[str, Place | None]]],
    ) -> Iterator[Fixup]:
        for _, header in _of_kind(headers, WITHOUT_ADDENDS):
            if header.info in self.sections:
                _refuse("it has relocations without addends")
        for _, header in _of_kind(headers, WITH_ADDENDS):
            patched = self.sections.get(header.info)
            if patched is None:
                continue
            symbols = tables.get(header.link, ())
            for offset, what, addend in self._rows(RELOCATION, header):
                number, kind = what >> 32, what & 0xFFFFFFFF
                name, target = _at(symbols, number)
                how = relocation(self.machine, kind)
                if offset + how.size > len(patched.content) or (how.aligned and offset % 4):
                    _refuse("a relocation lies outside its section")
                if target is None:
                    _refuse(f"it asks for the symbol {name!r}, which it does not have")
                yield Fixup(Place(header.info, offset), how, target, addend)

    def _rows(self, layout: struct.Struct, header: _Header) -> Iterator[tuple[int, ...]]:
        data = self._bytes(header.offset, header.size)
        if header.entry != layout.size or len(data) % layout.size:
            _refuse("the rows of a table have another length")
        return layout.iter_unpack(data)


def _of_kind(headers: Sequence[_Header], kind: int) -> list[tuple[int, _Header]]:
    return [(number, header) for number, header in enumerate(headers) if header.kind == kind]


def _at(rows: Sequence[T], number: int) -> T:
    if number >= len(rows):
        _refuse(f"there is no row {number} in a table of {len(rows)}")
    return rows[number]


def _refuse(what: str) -> NoReturn:
    raise CompileError(f"object code cannot be loaded: {what}")
