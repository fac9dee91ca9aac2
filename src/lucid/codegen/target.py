"""Targets: the facts that kernels may assume about the machine they are generated for.

Vector width, registers, tile sizes and caches come from a `Target`, never from literals.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from dataclasses import dataclass, field
from typing import NamedTuple

from lucid.codegen import amx
from lucid.codegen.costs import (
    AVX2,
    AVX512,
    AVX512_BF16,
    AVX512_HALVES,
    AVX512_HALVES_BF16,
    AVX512_TILES,
    Costs,
)
from lucid.errors import UnknownNameError


class SystemCalls(NamedTuple):
    """Numbers of those of Linux that native code makes: `futex`, by which threads sleep and wake,
    `thread`, which gives the caller's number (gettid), `processor`, which gives the one that it is
    on (getcpu), and those that set and give on which ones a thread may run."""

    futex: int
    thread: int
    processor: int
    set_affinity: int
    get_affinity: int


SYSTEM_CALLS_X86 = SystemCalls(202, 186, 309, 203, 204)
SYSTEM_CALLS_ARM = SystemCalls(98, 178, 168, 122, 123)


@dataclass(frozen=True)
class Target:
    """One level of an instruction set.

    `vector`: floats a register holds. `registers`: vector registers. `fused`: whether multiply-add
    is one instruction (without it, a product is rounded before it is added). `masked`: whether
    masked loads and stores cost what plain ones do. `halves`: whether 16-bit floats are converted
    by instructions. `bf16`: whether two products of bfloat16 are added to a float32 sum by one
    instruction (vdpbf16ps), and floats rounded to them by one. `dot`: whether four products of
    bytes are added to a 32-bit sum by one instruction (VNNI, Arm's dotprod), and with VNNI two of
    16-bit integers. `byte_products`: whether there is any instruction for products of bytes, that
    or one that adds them up in pairs, in 16 bits (x86's pmaddubsw). `byte_offset`: what unsigned
    bytes are less by in its products: 128 where it takes signed ones alone (sdot). `lookups`:
    whether one instruction looks up each byte of a vector in a table of 16 (x86's pshufb). `tiles`:
    whether there are registers of 16 rows of 64 bytes, and products of two of them, of bfloat16 or
    bytes (Intel's AMX); threads configure them as they enter a run, and release them when they
    leave. `l1`, `l2`: data cache bytes a core may count on. `line`: bytes of a cache line.
    `asks_to_write`: whether to ask for the lines of results while these are computed (x86's
    prefetchw): stores in the end wait for them otherwise. Where it is set, kernels also ask for
    what they read next: rows of x in products, a depthwise block's next pixels, what matrix
    products read beside their operands. `half_units`: whether the processor does its vectors in two
    halves; `costs`: what kernels were measured to reach. Choices depend on these, and no kernel's
    code does.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector: int
    registers: int
    fused: bool = True
    masked: bool = False
    halves: bool = True
    bf16: bool = False
    dot: bool = False
    byte_products: bool = False
    byte_offset: int = 0
    l1: int = 32 << 10
    l2: int = 512 << 10
    line: int = 64
    lookups: bool = False
    tiles: bool = False
    asks_to_write: bool = False
    half_units: bool = field(default=False, repr=False)
    costs: Costs = field(default=AVX512, repr=False)

    def tile_rows(self, vectors: int) -> int:
        """Rows of the register tile over panels of so many vectors: as many as leave registers for
        the panel's vectors, one element of a row and, without fused multiply-adds, a product.

        Six at most: 6 x 64 reaches 90 to 100% of the FMA peak with AVX-512 and 6 x 16 reaches 97%
        with AVX2, strides at run time; taller tiles spill their row pointers.
        """
        left = self.registers - vectors - (1 if self.fused else 2)
        return min(6, left // vectors)

    @property
    def panel_vectors(self) -> int:
        """Vectors in the widest weight panel, so that the tile fits the registers."""
        return 4 if self.registers >= 32 else 2

    def halved(self) -> Target:
        """The same with vectors half as wide, and as many of them."""
        return dataclasses.replace(self, vector=self.vector // 2)

    @property
    def is_half(self) -> bool:
        """Whether vectors are half as wide as the level's."""
        return self.vector < LEVELS[self.name].vector

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith("x86_64")

    @property
    def system_calls(self) -> SystemCalls:
        """The numbers of Linux's system calls."""
        return SYSTEM_CALLS_X86 if self.is_x86 else SYSTEM_CALLS_ARM

    @property
    def level(self) -> int:
        """Position among the levels of one architecture."""
        return list(LEVELS).index(self.name)

    def runs_here(self) -> bool:
        """Whether this machine can run code generated for the target."""
        return self._runs_on(Target.host())

    def _runs_on(self, level: Target) -> bool:
        """Whether a machine of this level has all that the target needs."""
        return level.triple == self.triple and set(NEEDS[self.name]) <= set(NEEDS[level.name])

    @staticmethod
    def named(name: str) -> Target:
        """The target called `name`. Raises UnknownNameError."""
        if name == "host":
            return Target.host()
        if name not in LEVELS:
            raise UnknownNameError(f"no target is named {name!r}; there are {', '.join(LEVELS)}")
        return LEVELS[name]

    @staticmethod
    @functools.cache
    def host() -> Target:
        """The highest level this machine runs, or a lower one that LUCID_TARGET names, with its L2
        cache. Raises UnknownNameError for one that it does not run."""
        forced = os.environ.get("LUCID_TARGET")
        lower = Target.named(forced) if forced and forced != "host" else None
        level = Target._host_level(tiles=lower is None or lower.tiles)
        if lower is not None:
            if not lower._runs_on(level):
                raise UnknownNameError(
                    f"LUCID_TARGET is {forced}, which this machine ({level.name}) cannot run"
                )
            level = lower
        if level.vector == 16 and not level.tiles and has_half_units():
            level = level.on_half_units()
        return dataclasses.replace(level, l2=_l2_bytes() or level.l2)

    def on_half_units(self) -> Target:
        """The level on a processor that does its vectors in two halves."""
        costs = AVX512_HALVES_BF16 if self.bf16 else AVX512_HALVES
        return dataclasses.replace(self, half_units=True, costs=costs)

    @staticmethod
    def _host_level(tiles: bool = True) -> Target:
        """The highest level all of whose instructions this processor and its system know. `tiles`:
        whether one with tiles would be used: the system is asked for these."""
        machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(
            platform.machine().lower(), platform.machine().lower()
        )
        levels = [t for t in LEVELS.values() if t.triple.startswith(f"{machine}-")]
        if not levels:
            raise UnknownNameError(
                f"Lucid generates code for x86-64 and aarch64, not for {machine}"
            )
        has = processor_features()
        if not has:  # the system does not say
            return levels[0]
        lacks = {t.name: [f for f in NEEDS[t.name] if f not in has] for t in levels}
        runs = [t for t in levels if not lacks[t.name]]
        if not runs:
            raise UnknownNameError(
                f"Lucid's code for {machine} needs {', '.join(lacks[levels[0].name])}, which this "
                "processor has not"
            )
        if runs[-1].tiles and not (tiles and amx.tiles_granted()):
            runs = [t for t in runs if not t.tiles]
        return runs[-1]


LINUX_NAMES = {
    "bmi": "bmi1",
    "lzcnt": "abm",
    "avxvnni": "avx_vnni",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16",
    "amx-int8": "amx_int8",
    "neon": "asimd",
    "lse": "atomics",
    "dotprod": "asimddp",
}
"""What Linux calls features of processors, where LLVM has another name."""


def processor_features() -> frozenset[str]:
    """Of those that targets need, what this processor and its system have, in LLVM's words; nothing
    where the system does not say. Linux tells only of what it saves registers for."""
    told = processor_information()
    flags = next((set(told[name].split()) for name in FLAGS if name in told), set())
    known = {feature for needs in NEEDS.values() for feature in needs}
    return frozenset(f for f in known if LINUX_NAMES.get(f, f) in flags)


def has_half_units() -> bool:
    """Whether this processor does vectors of AVX-512 in two halves, as AMD's Zen 4 does (family
    25; most of Zen 5, family 26, have units as wide)."""
    told = processor_information()
    return (told.get("vendor_id"), told.get("cpu family")) == ("AuthenticAMD", "25")


def processor_information() -> dict[str, str]:
    """What the system tells of the first processor, by its words; nothing where it does not say."""
    told: dict[str, str] = {}
    try:
        with open(CPU_INFORMATION) as file:
            for line in file:
                name, _, value = line.partition(":")
                told.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return told


CPU_INFORMATION = "/proc/cpuinfo"
FLAGS = ("flags", "Features")
"""The lines of x86 and of aarch64."""
LARGEST_L2 = 2 << 20
"""Beyond this no core has a second level of its own: what says so is a hypervisor."""


def _l2_bytes() -> int | None:
    """The L2 cache of one core, as the system tells it; None where it does not."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index2/size") as file:
            size = int(file.read().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return None
    return max(128 << 10, min(size, LARGEST_L2))


X86_TRIPLE = "x86_64-unknown-linux-gnu"

_WHOLE = "+fast-dpwssd"
"""LLVM is not to take half of VNNI's multiply-adds apart again, for the sake of latency."""
_ASKS = "+prfchw"
"""Not among `NEEDS`: processors that do not know prefetchw take it for a no-operation."""
_AVX2 = Target(
    "x86-64-v3",
    X86_TRIPLE,
    "haswell",
    _ASKS,
    vector=8,
    registers=16,
    byte_products=True,
    lookups=True,
    asks_to_write=True,
    costs=AVX2,
)
_AVX512 = Target(
    "x86-64-v4",
    X86_TRIPLE,
    "skylake-avx512",
    "",
    vector=16,
    registers=32,
    masked=True,
    l2=1 << 20,
    byte_products=True,
    lookups=True,
)
_VNNI = dataclasses.replace(
    _AVX512, name="x86-64-v4-vnni", cpu="cascadelake", features=_WHOLE, dot=True
)
_BF16_LEVEL = dataclasses.replace(
    _VNNI, name="x86-64-v4-bf16", cpu="cooperlake", bf16=True, costs=AVX512_BF16
)
_TILES = "+amx-tile,+amx-bf16,+amx-int8"
_NOT_NEEDED = "-rcpc,-fullfp16"
"""What a Neoverse N1 has beyond `NEEDS`, and LLVM would use."""
_NEON = Target(
    "aarch64",
    "aarch64-unknown-linux-gnu",
    "neoverse-n1",
    f"{_NOT_NEEDED},-dotprod",
    vector=4,
    registers=32,
)
LEVELS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            "x86-64", X86_TRIPLE, "x86-64", "", vector=4, registers=16, fused=False, halves=False
        ),
        _AVX2,
        dataclasses.replace(
            _AVX2, name="x86-64-v3-vnni", features=f"{_ASKS},+avxvnni,{_WHOLE}", dot=True
        ),
        _AVX512,
        _VNNI,
        _BF16_LEVEL,
        dataclasses.replace(
            _BF16_LEVEL,
            name="x86-64-v4-amx",
            features=f"{_WHOLE},{_TILES}",
            tiles=True,
            costs=AVX512_TILES,
        ),
        _NEON,
        dataclasses.replace(
            _NEON,
            name="aarch64-dotprod",
            features=_NOT_NEEDED,
            dot=True,
            byte_products=True,
            byte_offset=128,
        ),
    )
}
"""Every target by name, the levels of one architecture in ascending order. Those with VNNI or
dotprod differ in products of integers alone, those with bf16 and AMX besides in those of
bfloat16."""

_V3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt")
_V4 = (*_V3, *(f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl")))
_BF16 = (*_V4, "avx512vnni", "avx512bf16")
_V81 = ("neon", "lse")
NEEDS = {
    "x86-64": (),
    "x86-64-v3": _V3,
    "x86-64-v3-vnni": (*_V3, "avxvnni"),
    "x86-64-v4": _V4,
    "x86-64-v4-vnni": (*_V4, "avx512vnni"),
    "x86-64-v4-bf16": _BF16,
    "x86-64-v4-amx": (*_BF16, "amx-tile", "amx-bf16", "amx-int8"),
    "aarch64": _V81,
    "aarch64-dotprod": (*_V81, "dotprod"),
}
"""What a processor must have to run a target's code, in LLVM's words: all that LLVM may use for its
`cpu` unasked. Virtual machines may hide any of them."""
