"""How a C program finds out, as it starts, which levels of instructions its processor has."""

from __future__ import annotations

from lucid.codegen.target import NEEDS, Target

EAX, EBX, ECX, _EDX = range(4)
CPUID = {
    "f16c": (1, 0, ECX, 29),
    "fma": (1, 0, ECX, 12),
    "movbe": (1, 0, ECX, 22),
    "popcnt": (1, 0, ECX, 23),
    "bmi": (7, 0, EBX, 3),
    "avx2": (7, 0, EBX, 5),
    "bmi2": (7, 0, EBX, 8),
    "avx512f": (7, 0, EBX, 16),
    "avx512dq": (7, 0, EBX, 17),
    "avx512cd": (7, 0, EBX, 28),
    "avx512bw": (7, 0, EBX, 30),
    "avx512vl": (7, 0, EBX, 31),
    "avx512vnni": (7, 0, ECX, 11),
    "avxvnni": (7, 1, EAX, 4),
    "avx512bf16": (7, 1, EAX, 5),
    "lzcnt": (0x80000001, 0, ECX, 5),
}
"""Leaf, subleaf, register and bit of the instruction `cpuid`, by LLVM's names of features (Intel's
Software Developer's Manual, volume 2, CPUID; AMD's manual, volume 3, appendix E)."""
HWCAP = 16
HARDWARE = {
    "neon": (HWCAP, 0, 0, 1),
    "lse": (HWCAP, 0, 0, 8),
    "dotprod": (HWCAP, 0, 0, 20),
}
"""Entry of the auxiliary vector and bit, for aarch64 (Linux: asm/hwcap.h)."""
KEPT = {4: 0, 8: 0x6, 16: 0xE6}
"""The registers that an x86 system must keep for vectors of so many floats, as bits of XCR0: those
of AVX, and the masks and upper halves of AVX-512."""


def needs(target: Target) -> list[tuple[int, int, int, int]]:
    """Where the processor tells of each feature that a target's code needs."""
    told = CPUID if target.is_x86 else HARDWARE
    return [told[feature] for feature in NEEDS[target.name]]


def state(target: Target) -> int:
    """What the system must keep for the target's code."""
    return KEPT[target.vector] if target.is_x86 else 0
