"""The Program interpreter: executes every call's region with the ops' references, on real buffers.

Run with buffers apart it tests schedule and lowering; run on the planned arena it tests the memory
plan as well, so that a wrong result can be blamed on one of them or on the emitted code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lucid.codegen.language.dtypes import dtype as storage
from lucid.codegen.program.program import KernelCall, Program, View
from lucid.ir import recipe
from lucid.ir.interpret import interpret
from lucid.ir.ops.base import Array
from lucid.ir.types import held

Observer = Callable[[KernelCall, list[Array]], None]


class ProgramInterpreter:
    """Buffers of a program, and its calls run on them.

    `payload`: the source tensors. `planned`: arena buffers lie in one array at their offsets, as
    the plan says; else each is an array of its own. Floats of every kind are held as `dtype`, all
    else as it is stored. What is not yet written has all its bits set, which is NaN, or -1.
    """

    def __init__(
        self,
        program: Program,
        payload: Mapping[str, Any],
        planned: bool = True,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.program = program
        self.payload = payload
        self.dtype = dtype
        buffers = program.buffers.values()
        kinds = {b.name: held(b.dtype, np.dtype(dtype)) for b in buffers}
        # The plan in larger numbers is as many times as large as the numbers that grow most.
        growth = max((kinds[b.name].itemsize // storage(b.dtype).bytes for b in buffers), default=1)
        arena = np.full(growth * program.arena if planned else 0, 0xFF, np.uint8)
        self.buffers: dict[str, Array] = {}
        for name, buffer in program.buffers.items():
            size = buffer.elements * kinds[name].itemsize
            if planned and name in program.offsets:
                memory = arena[growth * program.offsets[name] :][:size]
            else:
                memory = np.full(size, 0xFF, np.uint8)
            self.buffers[name] = memory.view(kinds[name])

    def run(self, inputs: Sequence[Array], observe: Observer | None = None) -> list[Array]:
        """The program's outputs. `observe` sees each call and the arrays it wrote."""
        self.feed(inputs)
        for call in self.program.calls():
            if call.tasks:
                results = self.step(call)
                if observe is not None:
                    observe(call, results)
        return self.outputs()

    def feed(self, inputs: Sequence[Array]) -> None:
        """Write the program's inputs, given as they are stored or as numbers of their dtype."""
        for view, array in zip(self.program.inputs.values(), inputs, strict=True):
            row, given = storage(view.dtype), np.asarray(array)
            self.array(view)[...] = row.decode(given) if given.dtype == row.storage else given

    def step(self, call: KernelCall, dtype: type[np.floating[Any]] | None = None) -> list[Array]:
        """Run one call, computed in `dtype` (by default that of the buffers); what it wrote."""
        read = [self.array(v).copy() for v in call.reads]
        results = interpret(call.region, read, self.payload, dtype or self.dtype)
        for view, result in zip(call.writes, results, strict=True):
            self.array(view)[...] = result.reshape(view.shape)
        return results

    def outputs(self) -> list[Array]:
        """Copies of the program's outputs as they stand."""
        return [self.array(v).copy() for v in self.program.outputs.values()]

    def array(self, view: View) -> Array:
        """The view as a NumPy array on the buffer's memory."""
        if view.buffer not in self.buffers:
            packed = self.program.weights[view.buffer]
            assert packed.recipe is not None, "zeros are no operand of a region"
            value = recipe.evaluate(packed.recipe, lambda name: np.asarray(self.payload[name]))
            kind = held(packed.dtype, np.dtype(self.dtype))
            self.buffers[view.buffer] = np.asarray(value, kind).reshape(-1)
        base = self.buffers[view.buffer][view.offset :]
        strides = tuple(s * base.itemsize for s in view.strides)
        return as_strided(base, view.shape, strides)
