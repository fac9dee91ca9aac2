"""The tables of a level: its plans, and the steps, phases and arguments that native code walks.

They are one piece of constant data. Where it holds an address, of a kernel or of another part of
itself, the linker puts it in; places of weights count from the beginning of their file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from lucid.codegen.kernels.packing import Packed
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.llvm import symbol
from lucid.codegen.program.program import ArgumentValue, Code, Program, View, WeightRef
from lucid.emit.elf import Address, Data
from lucid.runtime.binding import GUARD, BoundProgram

WORD = 8
PLAN = struct.Struct("<6q")
"""`struct plan` of the C source: addresses of steps and phases, the number of steps, the most
threads that a phase is worth, and the bytes of the arena and of each thread's scratch."""


class LevelTables:
    """Collects the plans of a level, in the order in which its C source numbers them.

    `prefix`: what the symbols of the level begin with. `places`: of the packed weights in the file.
    """

    def __init__(
        self, prefix: str, programs: Sequence[Program], places: Mapping[Packed, int]
    ) -> None:
        self._prefix = prefix
        self._places = places
        self._content = bytearray(PLAN.size * len(programs))
        self._addresses: list[Address] = []
        self.symbol = f"{prefix}_plans"
        for number, program in enumerate(programs):
            self._add(number, program)

    def _add(self, number: int, program: Program) -> None:
        calls = [call for call in program.calls() if call.tasks]
        arguments = [self._arguments(program, call.arguments, call.kernel) for call in calls]
        steps = self._words([w for call in calls for w in (0, 0, call.tasks)])
        for place, call, at in zip(range(steps, 1 << 62, 24), calls, arguments, strict=False):
            self._address(place, self.name(call.kernel, "kernel"))
            self._address(place + WORD, self.symbol, at)
        phases = self._words(BoundProgram._phases(program).ravel().tolist())
        scratch = -(-program.scratch // 4096) * 4096 + GUARD
        at = PLAN.size * number
        threads = max([1, *program.threads]) if program.threads else 1 << 30
        PLAN.pack_into(self._content, at, 0, 0, len(calls), threads, program.arena, scratch)
        self._address(at, self.symbol, steps)
        self._address(at + WORD, self.symbol, phases)

    def name(self, kernel: KernelSpec, export: str) -> str:
        return f"{self._prefix}_{symbol(kernel, export)}"

    def _words(self, words: Sequence[int]) -> int:
        at = len(self._content)
        self._content += np.asarray(words, np.int64).tobytes()
        return at

    def _address(self, at: int, name: str, addend: int = 0) -> None:
        self._addresses.append(Address(at, name, addend))

    def _arguments(
        self, program: Program, values: Mapping[str, ArgumentValue], kernel: KernelSpec
    ) -> int:
        users = [v.buffer for v in (*program.inputs.values(), *program.outputs.values())]
        numbers = {name: i for i, name in enumerate(users)}
        arena, absolute = len(users), len(users) + 1
        at = len(self._content)
        for declared in kernel.arguments():
            value = values[declared.name]
            match value:
                case WeightRef(name):
                    words = [absolute, self._places[program.weights[name]]]
                case View() if value.buffer in program.weights:
                    words = [
                        absolute,
                        self._places[program.weights[value.buffer]] + value.itemsize * value.offset,
                    ]
                case View() if value.buffer in numbers:
                    words = [numbers[value.buffer], value.itemsize * value.offset]
                case View():
                    words = [arena, program.offsets[value.buffer] + value.itemsize * value.offset]
                case Code(other, export):
                    self._address(len(self._content), self.name(other, export))
                    words = [0]
                case float() | int() if declared.kind == "float":
                    words = [struct.unpack("<I", struct.pack("<f", value))[0]]
                case _:
                    words = [int(value)]
            self._words(words)
        return at

    def data(self) -> Data:
        """The tables as data of the symbol."""
        return Data(self.symbol, bytes(self._content), self._addresses)
