"""Static libraries: objects in one file of `ar`'s format, as System V and GNU write it.

Linkers read a table of symbols first, which says what object defines each. Nothing else than the
objects' bytes and names goes in, neither times nor owners, so that equal objects make equal files.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"!<arch>\n"


@dataclass(frozen=True)
class Member:
    """An object: its file name, its bytes, and the global symbols that it defines."""

    name: str
    content: bytes
    symbols: Sequence[str]


def archive(members: Sequence[Member]) -> bytes:
    """The library of these objects."""
    names, at = bytearray(), []
    for member in members:
        at.append(len(names))
        names += f"{member.name}/\n".encode()
    defined = [(name, number) for number, m in enumerate(members) for name in m.symbols]
    text = b"".join(name.encode() + b"\0" for name, _ in defined)
    size = 4 + 4 * len(defined) + len(text)
    place = len(MAGIC) + len(_entry("/", bytes(size))) + len(_entry("//", bytes(names)))
    bodies, places = [], []
    for member, start in zip(members, at, strict=True):
        places.append(place)
        bodies.append(_entry(f"/{start}", member.content))
        place += len(bodies[-1])
    index = struct.pack(f">{1 + len(defined)}I", len(defined), *(places[n] for _, n in defined))
    return b"".join([MAGIC, _entry("/", index + text), _entry("//", bytes(names)), *bodies])


def _entry(name: str, content: bytes) -> bytes:
    """A member with its header: name, time, owner, group, mode and size as text."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)
