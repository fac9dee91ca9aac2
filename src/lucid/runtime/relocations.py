"""Relocations: what a linker writes into code and tables once it knows where everything lies.

Of each machine those that its kernels have: position-independent code of the small model without
undefined symbols. In the words of the standards, S + A is the `target` and P the `place`. Sources:
System V ABI, AMD64 supplement, 4.4; ELF for the Arm 64-bit Architecture, 5.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lucid.errors import CompileError

X86_64, AARCH64 = 62, 183
"""Machines, as the header of an object calls them."""


class Relocation(NamedTuple):
    """`size`: bytes of the word that changes. `apply`: the word anew, from the one that is there,
    the target's address and its own. It raises CompileError where the target is out of reach.
    `aligned`: whether the place is an instruction of aarch64, which begin at multiples of 4."""

    size: int
    apply: Callable[[int, int, int], int]
    aligned: bool = False


def _absolute(bits: int) -> Callable[[int, int, int], int]:
    """S + A."""
    return lambda word, target, place: _unsigned(target, bits)


def _relative(bits: int) -> Callable[[int, int, int], int]:
    """S + A - P."""
    return lambda word, target, place: _signed(target - place, bits)


def _page(word: int, target: int, place: int) -> int:
    """ADRP: pages of 4 kB from here to there, whose low two bits stand apart."""
    pages = _signed((target >> 12) - (place >> 12), 21)
    return word & 0x9F00001F | (pages & 3) << 29 | pages >> 2 << 5


def _in_page(scale: int) -> Callable[[int, int, int], int]:
    """ADD, LDR and STR: where in its page the target lies, in units of what is loaded."""

    def apply(word: int, target: int, place: int) -> int:
        offset = target & 0xFFF
        if offset % (1 << scale):
            raise CompileError(f"an operand of {1 << scale} bytes lies at {target:#x}")
        return word & ~(0xFFF << 10) | offset >> scale << 10

    return apply


def _branch(word: int, target: int, place: int) -> int:
    """B and BL: instructions from here to there."""
    if target % 4:
        raise CompileError(f"a branch leads to {target:#x}, between two instructions")
    return word & 0xFC000000 | _signed((target - place) >> 2, 26)


def _signed(value: int, bits: int) -> int:
    """A number as so many bits. Raises CompileError."""
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise CompileError(f"a distance of {value:,} does not fit into {bits} bits")
    return value & (1 << bits) - 1


def _unsigned(value: int, bits: int) -> int:
    if not 0 <= value < 1 << bits:
        raise CompileError(f"the address {value:#x} does not fit into {bits} bits")
    return value


RELOCATIONS: Mapping[int, Mapping[int, Relocation]] = {
    X86_64: {
        1: Relocation(8, _absolute(64)),  # R_X86_64_64
        2: Relocation(4, _relative(32)),  # PC32
        4: Relocation(4, _relative(32)),  # PLT32: directly, all that is called being near
        24: Relocation(8, _relative(64)),  # PC64
    },
    AARCH64: {
        257: Relocation(8, _absolute(64)),  # R_AARCH64_ABS64
        260: Relocation(8, _relative(64)),  # PREL64
        261: Relocation(4, _relative(32)),  # PREL32
        275: Relocation(4, _page, True),  # ADR_PREL_PG_HI21
        277: Relocation(4, _in_page(0), True),  # ADD_ABS_LO12_NC
        278: Relocation(4, _in_page(0), True),  # LDST8_ABS_LO12_NC
        284: Relocation(4, _in_page(1), True),  # LDST16_ABS_LO12_NC
        285: Relocation(4, _in_page(2), True),  # LDST32_ABS_LO12_NC
        286: Relocation(4, _in_page(3), True),  # LDST64_ABS_LO12_NC
        299: Relocation(4, _in_page(4), True),  # LDST128_ABS_LO12_NC
        282: Relocation(4, _branch, True),  # JUMP26
        283: Relocation(4, _branch, True),  # CALL26
    },
}
"""By machine and type, as the standards number them."""


def relocation(machine: int, kind: int) -> Relocation:
    """Raises CompileError for one that no kernel has."""
    known = RELOCATIONS[machine].get(kind)
    if known is None:
        raise CompileError(f"relocations of type {kind} are not known for machine {machine}")
    return known
