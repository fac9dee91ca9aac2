"""The Program interpreter: every call's region by the ops' references, on real buffers.

Run with buffers apart it tests schedule and lowering; run on the planned arena it tests the memory
plan as well, so that a wrong result can be blamed on one of them or on the emitted code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lucid.codegen.program.program import KernelCall, Program, View
from lucid.ir import recipe
from lucid.ir.interpret import interpret
from lucid.ir.ops.base import Array
from lucid.ir.types import DTYPES

UNWRITTEN = 99
"""What integers hold that have not been written."""

Observer = Callable[[KernelCall, list[Array]], None]


class ProgramInterpreter:
    """Buffers of a program, and its calls run on them.

    `payload`: the source tensors. `planned`: arena buffers lie in one array at their offsets, as
    the plan says; else each is an array of its own. What is not yet written is NaN.
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
        arena = np.full(program.arena, np.nan, dtype)
        self.buffers: dict[str, Array] = {}
        for name, buffer in program.buffers.items():
            if buffer.dtype != "f32":  # integers stay what they are, beside the plan
                self.buffers[name] = np.full(buffer.floats, UNWRITTEN, DTYPES[buffer.dtype])
            elif planned and name in program.offsets:
                start = program.offsets[name]
                self.buffers[name] = arena[start : start + buffer.floats]
            else:
                self.buffers[name] = np.full(buffer.floats, np.nan, dtype)

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
        """Write the program's inputs."""
        for view, array in zip(self.program.inputs, inputs, strict=True):
            self.array(view)[...] = array

    def step(self, call: KernelCall, dtype: type[np.floating[Any]] | None = None) -> list[Array]:
        """Run one call, computed in `dtype` (by default that of the buffers); what it wrote."""
        read = [self.array(v).copy() for v in call.reads]
        results = interpret(call.region, read, self.payload, dtype or self.dtype)
        for view, result in zip(call.writes, results, strict=True):
            self.array(view)[...] = result.reshape(view.shape)
        return results

    def outputs(self) -> list[Array]:
        """Copies of the program's outputs as they stand."""
        return [self.array(v).copy() for v in self.program.outputs]

    def array(self, view: View) -> Array:
        """The view as a NumPy array on the buffer's memory."""
        if view.buffer not in self.buffers:
            packed = self.program.weights[view.buffer]
            assert packed.recipe is not None, "zeros are no operand of a region"
            value = recipe.evaluate(packed.recipe, lambda name: np.asarray(self.payload[name]))
            self.buffers[view.buffer] = np.asarray(value, self.dtype).reshape(-1)
        base = self.buffers[view.buffer][view.offset :]
        strides = tuple(s * base.itemsize for s in view.strides)
        return as_strided(base, view.shape, strides)
