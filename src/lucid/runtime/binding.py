"""A Program bound to addresses: the tables that native code walks, and the memory of one call."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from lucid.codegen.kernels import driver
from lucid.codegen.language.kernel import WORDS, words_of
from lucid.codegen.program.program import ArgumentValue, Code, KernelCall, Program, View, WeightRef
from lucid.ir.ops.base import Array
from lucid.runtime.library import Code as Loaded
from lucid.runtime.memory import Memory
from lucid.runtime.pace import Pace
from lucid.runtime.weights import WeightStore

GUARD = 1 << 12
"""Bytes after the arena and each thread's scratch that belong to nobody."""


class BoundProgram:
    """The step and argument tables of a program over one store of weights.

    Buffer numbers: the inputs, the outputs, the arena, and last one at address 0, so that the
    offset of a weight is its address. A workspace fills the table they point to. As long as this
    object lives, so do the code and the weights. `pace`: how many threads its calls get.
    """

    def __init__(self, program: Program, code: Loaded, weights: WeightStore) -> None:
        self.program = program
        self.weights = weights
        self.arena_bytes = program.arena
        self.scratch_bytes = -(-program.scratch // 4096) * 4096 + GUARD
        users = [v.buffer for v in (*program.inputs.values(), *program.outputs.values())]
        self._numbers = {name: i for i, name in enumerate(users)}
        self._arena, self._absolute = len(users), len(users) + 1
        self.code = code
        calls = [c for c in program.calls() if c.tasks]
        self.steps = np.zeros((max(1, len(calls)), driver.STEP_WORDS), np.int64)
        self.steps_address = int(self.steps.ctypes.data)
        self.count = len(calls)
        lengths = [words_of(c.kernel.arguments()) for c in calls]
        self.words = np.zeros(max(1, sum(lengths)), np.int64)
        at = 0
        for step, call, length in zip(self.steps, calls, lengths, strict=False):
            self.words[at : at + length] = self._arguments(call)
            step[driver.STEP_CODE] = code.address(call.kernel)
            step[driver.STEP_ARGUMENTS] = self.words.ctypes.data + 8 * at
            step[driver.STEP_TASKS] = call.tasks
            at += length
        self.phases = self._phases(program)
        self.phases_address = int(self.phases.ctypes.data)
        self.pace = Pace(int(self.phases[:, driver.PHASE_THREADS].max()))

    @staticmethod
    def _phases(program: Program) -> Array:
        """The rows of the phases that have something to do, and the row that ends them."""
        phases = [[c.tasks for c in phase if c.tasks] for phase in program.phases]
        threads = program.threads or [sum(tasks) for tasks in phases]
        given = [(tasks, n) for tasks, n in zip(phases, threads, strict=True) if tasks]
        rows, first = [], 0
        for tasks, worth in given:
            rows.append((first, len(tasks), sum(tasks), worth))
            first += len(tasks)
        return np.array([*rows, (0,) * driver.PHASE_WORDS], np.int64)

    @property
    def starts(self) -> list[int]:
        """The steps that begin a phase; 0 alone where there is none."""
        return [int(first) for first in self.phases[:-1, driver.PHASE_FIRST]] or [0]

    def _arguments(self, call: KernelCall) -> list[int]:
        words: list[int] = []
        for declared in call.kernel.arguments():
            value = call.arguments[declared.name]
            encoded = self._encode(value, declared.kind)
            assert len(encoded) == WORDS[declared.kind], (call.kernel, declared.name)
            words += encoded
        return words

    def _encode(self, value: ArgumentValue, kind: str) -> list[int]:
        match value:
            case WeightRef(name):
                return [self._absolute, self.weights.address(self.program.weights[name])]
            case View():
                return self._place(value)
            case Code(kernel, export):
                return [self.code.address(kernel, export)]
            case float() | int() if kind == "float":
                return [struct.unpack("<I", struct.pack("<f", value))[0]]
            case _:
                return [int(value)]

    def _place(self, view: View) -> list[int]:
        """Buffer number and byte offset of a view."""
        inside = view.itemsize * view.offset
        if view.buffer in self.program.weights:
            base = self.weights.address(self.program.weights[view.buffer])
            return [self._absolute, base + inside]
        if view.buffer in self._numbers:
            return [self._numbers[view.buffer], inside]
        return [self._arena, self.program.offsets[view.buffer] + inside]

    @property
    def needs(self) -> tuple[int, int]:
        """The capacity of a workspace that this program can run in."""
        return self.arena_bytes, self.scratch_bytes


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

    def fits(self, bound: BoundProgram) -> bool:
        return all(c >= n for c, n in zip(self.capacity, bound.needs, strict=True))

    def larger(self, bound: BoundProgram) -> Workspace:
        """One in which this program fits, and all that fit in this one."""
        arena, scratch = map(max, self.capacity, bound.needs)
        return Workspace(self._threads, (arena, scratch))

    def arena(self, offset: int, count: int, dtype: str) -> Array:
        """`count` elements of the arena as they are stored, from byte `offset` on."""
        return self._arena.array(offset, count, dtype)

    def prepare(self, bound: BoundProgram, arrays: Sequence[int], step: int | None = None) -> int:
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
