"""A Program bound to addresses: the tables that native code walks, and the memory of one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.codegen.kernels import driver_tables as driver
from lucid.runtime.memory import Memory
from lucid.runtime.pace import Pace

if TYPE_CHECKING:
    from lucid.codegen.program.program import Program
    from lucid.codegen.program.program_tables import ProgramTables
    from lucid.ir.ops.base import Array
    from lucid.runtime.library import Code
    from lucid.runtime.weights import WeightStore

PAGE = 1 << 12
GUARD = PAGE
"""Bytes after the arena and each thread's scratch that belong to nobody."""


def scratch_bytes(tables: ProgramTables) -> int:
    """What each thread has for itself in a call of a program: whole pages, and the guard."""
    return -(-tables.scratch // PAGE) * PAGE + GUARD


class BoundTables:
    """The step and argument tables of a program, with the addresses of its code and weights.

    `weights`: where each weight lies. The weights' beginning is address 0, so that the offset of a
    weight is its address. A workspace fills the table of buffers. As long as this object lives, so
    does the code. `pace`: how many threads its calls get.
    """

    def __init__(self, tables: ProgramTables, code: Code, weights: Mapping[str, int]) -> None:
        self.code = code
        self.arena_bytes = tables.arena
        self.scratch_bytes = scratch_bytes(tables)
        self.words = tables.words.copy()
        for word, function in tables.codes.items():
            self.words[word] = code.address(function.kernel, function.export)
        for word, name in tables.weights.items():
            self.words[word] += weights[name]
        self.count = len(tables.steps)
        self.steps = np.zeros((max(1, self.count), driver.STEP_WORDS), np.int64)
        for row, step in zip(self.steps, tables.steps, strict=False):
            row[driver.STEP_CODE] = code.address(step.kernel)
            row[driver.STEP_ARGUMENTS] = self.words.ctypes.data + 8 * step.first
            row[driver.STEP_TASKS] = step.tasks
        self.steps_address = int(self.steps.ctypes.data)
        self.phases = tables.phases
        self.phases_address = int(self.phases.ctypes.data)
        self.pace = Pace(int(self.phases[:, driver.PHASE_THREADS].max()))

    @property
    def starts(self) -> list[int]:
        """The steps that begin a phase; 0 alone where there is none."""
        return [int(first) for first in self.phases[:-1, driver.PHASE_FIRST]] or [0]

    @property
    def needs(self) -> tuple[int, int]:
        """The capacity of a workspace that this program can run in."""
        return self.arena_bytes, self.scratch_bytes


class BoundProgram(BoundTables):
    """A program over one store of weights, which lives as long as this."""

    def __init__(self, program: Program, code: Code, weights: WeightStore) -> None:
        from lucid.codegen.program.tables import tables_of

        places = {name: weights.address(packed) for name, packed in program.weights.items()}
        super().__init__(tables_of(program), code, places)
        self.program, self.weights = program, weights


class Workspace:
    """The memory of one call at a time: arena, scratch and the call table.

    `capacity`: bytes of arena, and bytes of scratch for each of the `threads`.
    """

    def __init__(self, threads: int, capacity: tuple[int, int]) -> None:
        arena_bytes, scratch_bytes = self.capacity = capacity
        self._threads = threads
        self._arena = Memory(arena_bytes + GUARD)
        self._scratch = Memory(threads * scratch_bytes + GUARD)
        self._buffers = np.zeros(0, np.int64)
        self.table = np.zeros(driver.CALL_WORDS, np.int64)
        self.address = int(self.table.ctypes.data)
        self.table[driver.CALL_VERSION] = driver.VERSION
        self.table[driver.CALL_SCRATCH] = self._scratch.address

    def fits(self, bound: BoundTables) -> bool:
        return all(c >= n for c, n in zip(self.capacity, bound.needs, strict=True))

    def larger(self, bound: BoundTables) -> Workspace:
        """One in which this program fits, and all that fit in this one."""
        arena, scratch = map(max, self.capacity, bound.needs)
        return Workspace(self._threads, (arena, scratch))

    def arena(self, offset: int, count: int, dtype: str) -> Array:
        """`count` elements of the arena as they are stored, from byte `offset` on."""
        return self._arena.array(offset, count, dtype)

    def prepare(self, bound: BoundTables, arrays: Sequence[int], step: int | None = None) -> int:
        """Fill the call table for one run, or for that of a single step by one thread; gives its
        address."""
        self._buffers = np.array([*arrays, self._arena.address, 0], np.int64)
        first, count = (0, bound.count) if step is None else (step, 1)
        self.table[driver.CALL_STEPS] = bound.steps_address + 8 * driver.STEP_WORDS * first
        self.table[driver.CALL_STEP_COUNT] = count
        self.table[driver.CALL_PHASES] = bound.phases_address
        self.table[driver.CALL_BUFFERS] = self._buffers.ctypes.data
        self.table[driver.CALL_SCRATCH_BYTES] = bound.scratch_bytes
        return self.address
