"""Runs programs for aarch64 under qemu: objects, tables and memory as one static executable.

The objects of a program's kernels are laid out and relocated as in any process
(`lucid.runtime.code_memory`), beside the tables that the driver walks, the weights, the arena and
the user's arrays. The entry calls `lucid_run`, or on two threads `lucid_submit` many times, writes
the outputs to standard output, and exits. In `turns` it is two callers of the gate.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import numpy as np
from harness import PATTERN

from lucid.codegen.kernels import admission_tables as native
from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.kernels.admission import Admission
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.packing import Packed
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.llvm import compile_object
from lucid.codegen.language.names import KernelName
from lucid.codegen.program.program import Program
from lucid.codegen.target import Target
from lucid.runtime.binding import BoundProgram
from lucid.runtime.code_memory import Layout
from lucid.runtime.object_code import ObjectCode
from lucid.runtime.plans import Snapshot
from lucid.runtime.saving import object_codes
from lucid.runtime.team import team_table
from lucid.runtime.weights import WeightStore

TARGET = Target.named("aarch64")
PROCESSORS = {"aarch64": "a64fx", "aarch64-dotprod": "neoverse-n1"}
"""What qemu is for each level: the first one has neither dotprod nor rcpc."""
EMULATOR = shutil.which("qemu-aarch64")

BASE = 0x400000
HEADERS = 0x1000
"""Bytes for the ELF and program headers; the entry's code follows."""


class Image:
    """The memory of the process, from BASE on; what is added gets an aligned address."""

    def __init__(self) -> None:
        self.bytes = bytearray(HEADERS)

    def add(self, content: bytes, alignment: int = 128) -> int:
        self.bytes += bytes(-len(self.bytes) % alignment)
        self.bytes += content
        return BASE + len(self.bytes) - len(content)

    def words(self, values: Sequence[int]) -> int:
        return self.add(np.asarray(values, np.int64).tobytes())

    def blank(self, size: int) -> int:
        return self.add(np.full(-(-size // 4), PATTERN, np.int32).tobytes(), 4096)


# -- binding --------------------------------------------------------------------------------------


compiled: Callable[[KernelSpec, Target], bytes] = functools.cache(compile_object)
"""Most programs have kernels in common, the driver at least."""


def compiled_for(snapshot: Snapshot) -> Callable[[KernelSpec, Target], bytes]:
    """In the place of `compiled`: what a library of the model is made of."""
    return lambda kernel, target: object_codes(snapshot, [kernel], target)[kernel]


class Linked:
    """Kernels in the image, linked as those of this machine are, as BoundProgram asks for them."""

    def __init__(self, image: Image, kernels: Sequence[KernelSpec], target: Target) -> None:
        objects = [ObjectCode(compiled(kernel, target)) for kernel in kernels]
        layout = Layout(objects)
        base = image.add(b"", PAGESIZE)
        image.add(layout.linked(base))
        self.symbols = {
            name: base + layout.offset(number, place)
            for number, obj in enumerate(objects)
            for name, place in obj.symbols.items()
        }

    def address(self, kernel: KernelSpec | KernelName, export: str = "kernel") -> int:
        name = kernel if isinstance(kernel, KernelName) else kernel.called()
        return self.symbols[name.symbol(export)]


class Stored:
    """Packed weights in the image, as BoundProgram asks for them."""

    def __init__(self, image: Image, payload: Mapping[str, Any], weights: Any) -> None:
        store = WeightStore(payload)
        store.ensure(weights)
        self.addresses: dict[Packed, int] = {
            p: image.add(ctypes.string_at(store.address(p), p.bytes)) for p in weights
        }

    def address(self, packed: Packed) -> int:
        return self.addresses[packed]


CLONE, WRITE, EXIT, EXIT_GROUP, YIELD = 220, 64, 93, 94, 124
THREAD_FLAGS = 0x50F00
"""Of a thread that shares everything but its stack."""
SUPERVISOR, RETURN = 0xD4000001, 0xD65F03C0
REPEATS = 20
"""Calls with two threads: the second takes its time to come."""


def move(register: int, value: int) -> list[int]:
    """Instructions that put a number into a register."""
    low = 0xD2800000 | (value & 0xFFFF) << 5 | register
    return [low, 0xF2A00000 | (value >> 16) << 5 | register]


def calling(function: int, *arguments: int) -> list[int]:
    """Call the function at this address."""
    given = [word for number, value in enumerate(arguments) for word in move(number, value)]
    return [*given, *move(9, function), 0xD63F0000 | 9 << 5]


def system(number: int, *arguments: int) -> list[int]:
    """A system call."""
    given = [word for place, value in enumerate(arguments) for word in move(place, value)]
    return [*given, *move(8, number), SUPERVISOR]


def branch_unless_zero(register: int, words: int) -> int:
    """A jump by so many instructions."""
    return 0xB5000000 | (words & 0x7FFFF) << 5 | register


def code_of(words: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def ending(outputs: int, length: int) -> list[int]:
    """write(1, outputs, length); exit_group(0)."""
    return [*system(WRITE, 1, outputs, length), *system(EXIT_GROUP, 0)]


def system_call() -> bytes:
    """The C library's `syscall`: its arguments move down by one register."""
    moves = [0xAA0003E0 | source << 16 | to for to, source in ((8, 0), *enumerate(range(1, 7)))]
    return code_of([*moves, SUPERVISOR, RETURN])


def load(register: int, address: int) -> list[int]:
    """Read the word at this address, by a register of its own."""
    return [*move(10, address), 0xF9400000 | 10 << 5 | register]


def store(register: int, address: int) -> list[int]:
    """Write it."""
    return [*move(10, address), 0xF9000000 | 10 << 5 | register]


def beginning(worker: Sequence[int], stack: int) -> list[int]:
    """Another thread that does this, and ends."""
    life = [*worker, *system(EXIT, 0)]
    return [
        *system(CLONE, THREAD_FLAGS, stack, 0, 0, 0),
        branch_unless_zero(0, len(life) + 1),
        *life,
    ]


def repeated(words: Sequence[int], times: int) -> list[int]:
    """Instructions that leave x19 alone, as calls do, so many times."""
    count = 19
    once = [*words, 0xD1000400 | count << 5 | count]
    return [*move(count, times), *once, branch_unless_zero(count, -len(once))]


def together(image: Image, linked: Linked, call: int) -> list[int]:
    """Another thread that is a team's worker; lucid_submit(team, call), many times."""
    team = team_table(2)
    team[driver.TEAM_SYSCALL] = image.add(system_call())
    table, stack = image.words(team), image.blank(1 << 16) + (1 << 16)
    worker = calling(linked.address(Driver(), "lucid_worker"), table, 1)
    submit = calling(linked.address(Driver(), "lucid_submit"), table, call)
    return [*beginning(worker, stack), *repeated(submit, REPEATS)]


def turns(folder: Path, times: int) -> tuple[int, list[int]]:
    """Two threads that each are admitted so many times to a gate of one processor, and meanwhile
    add 1 to a number by a load and a store; then a call that runs beside. The number, and the
    gate's words in the end."""
    image = Image()
    linked = Linked(image, [Admission()], TARGET)
    table = [0] * native.GATE_WORDS
    table[native.GATE_PROCESSORS], table[native.GATE_SYSCALL] = 1, image.add(system_call())
    pool, stack = image.words([0] * native.POOL_WORDS), image.blank(1 << 16) + (1 << 16)
    results = image.words([0, *table])
    gate, ended = results + 8, image.words([0])

    def caller() -> list[int]:
        ticket = [0] * native.TICKET_WORDS
        ticket[native.TICKET_TEAM] = native.ALONE
        own = image.words(ticket)
        admit, leave = (linked.address(Admission(), f"lucid_{n}") for n in ("admit", "leave"))
        arguments = (gate, own, pool, 1, native.ADAPTIVE)
        add = [*load(9, results), 0x91000400 | 9 << 5 | 9, *store(9, results)]
        return repeated([*calling(admit, *arguments), *add, *calling(leave, gate, own)], times)

    waiting = [*system(YIELD), *load(9, ended)]
    last = [*move(9, 1), *store(9, ended)]
    nothing = image.add(code_of([RETURN]))
    beside = calling(linked.address(Admission(), "lucid_beside"), gate, nothing, 0)
    words = [*beginning([*caller(), *last], stack), *caller(), *waiting]
    words += [0xB4000000 | (-len(waiting) & 0x7FFFF) << 5 | 9, *beside]
    length = 8 * (1 + native.GATE_WORDS)
    start = image.add(code_of([*words, *ending(results, length)]))
    number, *gates = np.frombuffer(run(beginning_at(image, start), folder), np.int64).tolist()
    return number, gates


def places(program: Program) -> tuple[list[int], int]:
    """Where the outputs lie, one behind the other on cache lines, and what they take; in bytes."""
    sizes = [program.buffers[v.buffer].bytes for v in program.outputs.values()]
    ends = np.cumsum([-(-size // 64) * 64 for size in sizes])
    return [0, *ends[:-1].tolist()], int(ends[-1])


def executable(
    program: Program,
    payload: Mapping[str, Any],
    inputs: Sequence[np.ndarray],
    threads: int = 1,
    target: Target = TARGET,
) -> bytes:
    """A static ELF executable that runs the program."""
    image = Image()
    linked = Linked(image, [*program.kernels(), Driver()], target)
    stored = Stored(image, payload, program.weights.values())
    program = replace(program, threads=[])  # as small as they are, phases are shared
    bound = BoundProgram(program, linked, stored)  # type: ignore[arg-type]  # they have addresses
    words = image.add(bound.words.tobytes())
    steps = bound.steps.copy()
    steps[:, driver.STEP_ARGUMENTS] += words - bound.words.ctypes.data
    users = [image.add(np.ascontiguousarray(a).tobytes()) for a in inputs]
    starts, size = places(program)
    results = image.blank(size)
    users += [results + start for start in starts]
    call = np.zeros(driver.CALL_WORDS, np.int64)
    call[driver.CALL_VERSION] = driver.VERSION
    call[driver.CALL_STEPS] = image.words(steps.reshape(-1))
    call[driver.CALL_STEP_COUNT] = bound.count
    call[driver.CALL_BUFFERS] = image.words([*users, image.blank(program.arena), 0])
    call[driver.CALL_SCRATCH] = image.blank(threads * bound.scratch_bytes)
    call[driver.CALL_SCRATCH_BYTES] = bound.scratch_bytes
    call[driver.CALL_PHASES] = image.words(bound.phases.reshape(-1))
    table = image.words(call)
    if threads == 1:
        running = calling(linked.address(Driver(), "lucid_run"), table)
    else:
        running = together(image, linked, table)
    start = image.add(code_of([*running, *ending(results, size)]))
    return beginning_at(image, start)


def beginning_at(image: Image, start: int) -> bytes:
    """A static ELF executable that begins here."""
    total = len(image.bytes)
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, total, total, 4096)
    image.bytes[: len(header)] = header
    return bytes(image.bytes)


def emulate(
    program: Program,
    payload: Mapping[str, Any],
    inputs: Sequence[np.ndarray],
    folder: Path,
    threads: int = 1,
    target: Target = TARGET,
    seconds: float = 300,
) -> list[np.ndarray]:
    """The program's outputs, computed by qemu as a processor of the target's level."""
    file = executable(program, payload, inputs, threads, target)
    written = run(file, folder, target, seconds)
    starts, _ = places(program)
    views = zip(starts, program.outputs.values(), strict=True)
    return [
        np.frombuffer(written, dtype(v.dtype).storage, prod(v.shape), at).reshape(v.shape)
        for at, v in views
    ]


def run(program: bytes, folder: Path, target: Target = TARGET, seconds: float = 300) -> bytes:
    """What an executable writes."""
    assert EMULATOR is not None
    file = folder / "program"
    file.write_bytes(program)
    file.chmod(0o700)
    command = [EMULATOR, "-cpu", PROCESSORS[target.name], file]
    done = subprocess.run(command, capture_output=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return done.stdout
