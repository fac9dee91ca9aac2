"""A Program as tables of words, before code, weights and memory have addresses.

This is what native code walks (`kernels.driver`), and all that running a Program takes: who binds
it puts the addresses of code and weights into the words that await them, whether in memory, in a
file, or in an object of data that a linker finishes.

Buffers have numbers: the inputs, then the outputs, the arena, and last where the weights begin. So
a weight is told, as any operand is, by two words, a number and a byte offset.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.language.kernel import WORDS
from lucid.codegen.program.program import Code, View, WeightRef
from lucid.codegen.program.program_tables import Function, ProgramTables, Step

if TYPE_CHECKING:
    from lucid.codegen.program.program import ArgumentValue, KernelCall, Program
    from lucid.ir.ops.base import Array


def tables_of(program: Program) -> ProgramTables:
    """The tables of a program whose arena is placed. Calls without a task are left out."""
    users = [v.buffer for v in (*program.inputs.values(), *program.outputs.values())]
    encoder = _Encoder(program, {name: number for number, name in enumerate(users)})
    steps = tuple([encoder.step(call) for call in program.calls() if call.tasks])
    return ProgramTables(
        steps,
        np.array(encoder.words, np.int64),
        encoder.codes,
        encoder.weights,
        _phases(program),
        len(users),
        program.arena,
        program.scratch,
    )


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


@dataclass
class _Encoder:
    """Collects the words of calls. `numbers`: of the users' buffers."""

    program: Program
    numbers: Mapping[str, int]
    words: list[int] = field(default_factory=list)
    codes: dict[int, Function] = field(default_factory=dict)
    weights: dict[int, str] = field(default_factory=dict)

    def step(self, call: KernelCall) -> Step:
        first = len(self.words)
        for declared in call.kernel.arguments():
            encoded = self._encode(call.arguments[declared.name], declared.kind)
            assert len(encoded) == WORDS[declared.kind], (call.kernel, declared.name)
            self.words += encoded
        return Step(call.kernel.called(), first, call.tasks)

    def _encode(self, value: ArgumentValue, kind: str) -> Sequence[int]:
        match value:
            case WeightRef(name):
                return self._weight(name, 0)
            case View():
                return self._place(value)
            case Code(kernel, export):
                self.codes[len(self.words)] = Function(kernel.called(), export)
                return [0]
            case float() | int() if kind == "float":
                return [struct.unpack("<I", struct.pack("<f", value))[0]]
            case _:
                return [int(value)]

    def _place(self, view: View) -> Sequence[int]:
        """Buffer number and byte offset of a view."""
        inside = view.itemsize * view.offset
        if view.buffer in self.program.weights:
            return self._weight(view.buffer, inside)
        if view.buffer in self.numbers:
            return [self.numbers[view.buffer], inside]
        return [len(self.numbers), self.program.offsets[view.buffer] + inside]

    def _weight(self, name: str, inside: int) -> Sequence[int]:
        self.weights[len(self.words) + 1] = name
        return [len(self.numbers) + 1, inside]
