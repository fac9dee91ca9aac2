"""The tables of a level: its plans, and the steps, phases and arguments that native code walks.

They are one piece of constant data. Where it holds an address, of a kernel or of another part of
itself, the linker puts it in; places of weights count from the beginning of their file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.kernels.packing import Packed
from lucid.codegen.program.program import Program
from lucid.codegen.program.program_tables import Function
from lucid.codegen.program.tables import tables_of
from lucid.emit.elf import Address, Data
from lucid.ir.ops.base import Array
from lucid.runtime.binding import scratch_bytes

WORD = 8
PLAN = struct.Struct("<6q")
"""`struct plan` of the C source: addresses of steps and phases, the number of steps, the most
threads that a phase is worth, and the bytes of the arena and of each thread's scratch."""


def level_tables(prefix: str, programs: Sequence[Program], places: Mapping[Packed, int]) -> Data:
    """The tables of a level's programs, in the order in which its C source numbers the plans.

    `prefix`: what the level's symbols begin with. `places`: of packed weights in their file.
    """
    content = _Content(prefix, len(programs))
    for number, program in enumerate(programs):
        content.add(number, program, places)
    return Data(content.symbol, bytes(content.data), content.addresses)


def exported(prefix: str, function: Function) -> str:
    """The symbol of an exported function in the library."""
    return f"{prefix}_{function.kernel.symbol(function.export)}"


class _Content:
    """Tables behind one another; the rows of `struct plan` come first."""

    def __init__(self, prefix: str, plans: int) -> None:
        self.symbol = f"{prefix}_plans"
        self.data = bytearray(PLAN.size * plans)
        self.addresses: list[Address] = []
        self._prefix = prefix

    def add(self, number: int, program: Program, places: Mapping[Packed, int]) -> None:
        tables = tables_of(program)
        words = tables.words.copy()
        for word, name in tables.weights.items():
            words[word] += places[program.weights[name]]
        arguments = self._append(words)
        for word, function in tables.codes.items():
            self._point(arguments + WORD * word, function)
        steps = np.zeros((len(tables.steps), driver.STEP_WORDS), np.int64)
        steps[:, driver.STEP_TASKS] = [step.tasks for step in tables.steps]
        at = self._append(steps)
        for row, step in enumerate(tables.steps):
            place = at + WORD * driver.STEP_WORDS * row
            self._point(place + WORD * driver.STEP_CODE, Function(step.kernel, "kernel"))
            self._refer(place + WORD * driver.STEP_ARGUMENTS, arguments + WORD * step.first)
        own = PLAN.size * number
        threads = int(tables.phases[:, driver.PHASE_THREADS].max())
        memory = tables.arena, scratch_bytes(tables)
        PLAN.pack_into(self.data, own, 0, 0, len(steps), threads, *memory)
        self._refer(own, at)
        self._refer(own + WORD, self._append(tables.phases))

    def _append(self, words: Array) -> int:
        """Where these words lie."""
        at = len(self.data)
        self.data += np.asarray(words, "<i8").tobytes()
        return at

    def _point(self, at: int, function: Function) -> None:
        """Let a word be the address of a function."""
        self.addresses.append(Address(at, exported(self._prefix, function)))

    def _refer(self, at: int, place: int) -> None:
        """Let a word be the address of a place of these tables."""
        self.addresses.append(Address(at, self.symbol, place))
