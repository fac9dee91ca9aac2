"""ELF objects for linkers (64 bits, little-endian): tables written as data, symbols renamed.

After the generic ABI (System V Application Binary Interface, chapters 4 and 5) and its supplements
for x86-64 and aarch64, which say how an address is put into a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime.object_code import (
    BYTES,
    HEADER,
    LOADED,
    MAGIC,
    RELOCATABLE,
    RELOCATION,
    SECTION,
    SYMBOL,
    SYMBOLS,
    WITH_ADDENDS,
    WRITABLE,
)
from lucid.runtime.relocations import AARCH64, X86_64

STRINGS = 3
"""A type of sections."""
INFO_LINK = 0x40
"""A flag of sections that say which other they are about."""
GLOBAL = 1
OBJECT, NOTYPE = 1, 0
HIDDEN = 2
UNDEFINED = 0

ABSOLUTE = {X86_64: 1, AARCH64: 257}
"""R_X86_64_64 and R_AARCH64_ABS64: the address of a symbol, and an addend, in a word."""


class Address(NamedTuple):
    """A word at `offset` that holds the address of a symbol, `addend` bytes behind it."""

    offset: int
    symbol: str
    addend: int = 0


@dataclass(frozen=True)
class Data:
    """Constant data that an object holds as `symbol`, aligned to so many bytes."""

    symbol: str
    content: bytes
    addresses: Sequence[Address] = ()
    alignment: int = 64


def machine_of(target: Target) -> int:
    """The number of a target's instruction set."""
    return X86_64 if target.is_x86 else AARCH64


class _Names:
    """A table of names, each at an offset."""

    def __init__(self) -> None:
        self.content = bytearray(b"\0")

    def add(self, name: str) -> int:
        at = len(self.content)
        self.content += name.encode() + b"\0"
        return at


def data_object(data: Data, target: Target) -> bytes:
    """An object with this data as its only, hidden symbol; the symbols whose addresses it holds are
    undefined in it."""
    names, sections = _Names(), _Names()
    own = 1  # the number of the section with the data
    foreign = [n for n in dict.fromkeys(a.symbol for a in data.addresses) if n != data.symbol]
    numbers = {name: i for i, name in enumerate([data.symbol, *foreign], 1)}
    size = len(data.content)
    symbols = SYMBOL.pack(0, 0, 0, 0, 0, 0)
    symbols += SYMBOL.pack(names.add(data.symbol), GLOBAL << 4 | OBJECT, HIDDEN, own, 0, size)
    for name in foreign:
        symbols += SYMBOL.pack(names.add(name), GLOBAL << 4 | NOTYPE, HIDDEN, UNDEFINED, 0, 0)
    kind = ABSOLUTE[machine_of(target)]
    relocations = b"".join(
        RELOCATION.pack(a.offset, numbers[a.symbol] << 32 | kind, a.addend) for a in data.addresses
    )
    writable, name = (WRITABLE, ".data.rel.ro") if relocations else (0, ".rodata")
    symtab, strtab = 4, 5
    parts = [  # name, type, flags, content, link, info, alignment, size of an entry
        (name, BYTES, LOADED | writable, data.content, 0, 0, data.alignment, 0),
        (f".rela{name}", WITH_ADDENDS, INFO_LINK, relocations, symtab, own, 8, RELOCATION.size),
        (".note.GNU-stack", BYTES, 0, b"", 0, 0, 1, 0),  # it needs no executable stack
        (".symtab", SYMBOLS, 0, symbols, strtab, 1, 8, SYMBOL.size),
        (".strtab", STRINGS, 0, bytes(names.content), 0, 0, 1, 0),
    ]
    titles = [sections.add(part[0]) for part in parts]
    title = sections.add(".shstrtab")
    body, rows = bytearray(HEADER.size), [SECTION.pack(*[0] * 10)]
    parts.append((".shstrtab", STRINGS, 0, bytes(sections.content), 0, 0, 1, 0))
    for at, (_, type_, flags, content, link, info, alignment, entry) in zip(
        [*titles, title], parts, strict=True
    ):
        body += bytes(-len(body) % alignment)
        where = len(body), len(content)
        rows.append(SECTION.pack(at, type_, flags, 0, *where, link, info, alignment, entry))
        body += content
    body += bytes(-len(body) % 8)
    body[: HEADER.size] = HEADER.pack(
        MAGIC.ljust(16, b"\0"),
        RELOCATABLE,
        machine_of(target),
        1,
        0,
        0,
        len(body),
        0,
        HEADER.size,
        0,
        0,
        SECTION.size,
        len(rows),
        len(rows) - 1,
    )
    return bytes(body) + b"".join(rows)


def renamed(code: bytes, rename: Callable[[str], str]) -> tuple[bytes, list[str]]:
    """An object whose global symbols have other names and are hidden from other libraries, and
    these names. Raises CompileError for one that needs symbols of others: kernels do not."""
    header = HEADER.unpack_from(code)
    table, count = header[6], header[12]
    places = [table + SECTION.size * number for number in range(count)]
    sections = [SECTION.unpack_from(code, place) for place in places]
    symtab = next(section for section in sections if section[1] == SYMBOLS)
    strings = sections[symtab[6]]
    found, names = bytearray(code), bytearray(code[strings[4] : strings[4] + strings[5]])
    given = []
    for at in range(symtab[4], symtab[4] + symtab[5], SYMBOL.size):
        name, info, _, section, value, size = SYMBOL.unpack_from(code, at)
        if info >> 4 != GLOBAL:
            continue
        old = names[name : names.index(b"\0", name)].decode()
        if section == UNDEFINED:
            raise CompileError(f"object code needs the symbol {old}, which nothing defines")
        given.append(rename(old))
        SYMBOL.pack_into(found, at, len(names), info, HIDDEN, section, value, size)
        names += given[-1].encode() + b"\0"
    changed = (*strings[:4], len(found), len(names), *strings[6:])
    SECTION.pack_into(found, places[symtab[6]], *changed)
    return bytes(found + names), given
