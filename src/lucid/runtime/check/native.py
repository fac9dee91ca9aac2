"""Native code, whole or one kernel call at a time, on arrays that are given to it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.program.plan import ALIGNMENT, aligned
from lucid.codegen.program.program import KernelCall, Program, View
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.ir.ops.base import Array
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.cache import ObjectCache
from lucid.runtime.kernel_compiler import Progress
from lucid.runtime.library import library
from lucid.runtime.team import RUN_TYPE
from lucid.runtime.timing import Stopwatch
from lucid.runtime.weights import WeightStore


def apart(program: Program) -> Program:
    """The program with every arena buffer at a place of its own, and some room between."""
    offsets, at = {}, 0
    for name in program.offsets:
        offsets[name] = at
        at += aligned(program.buffers[name].bytes) + ALIGNMENT
    return replace(program, offsets=offsets, arena=at)


def run_whole(
    program: Program,
    target: Target,
    weights: WeightStore,
    inputs: Sequence[Array],
    threads: int = 1,
    cache: ObjectCache | None = None,
) -> list[Array]:
    """The program's outputs, computed by a team of threads."""
    arrays = [
        np.ascontiguousarray(dtype(v.dtype).encode(np.asarray(a)))
        for a, v in zip(inputs, program.inputs.values(), strict=True)
    ]
    results = [unwritten(v.shape, dtype(v.dtype).storage) for v in program.outputs.values()]
    stopwatch = Stopwatch(target, threads, weights, cache)
    bound = stopwatch.bind(program)
    stopwatch.clock(bound, [a.ctypes.data for a in (*arrays, *results)], profiled=False)
    views = program.outputs.values()
    return [dtype(v.dtype).decode(a) for v, a in zip(views, results, strict=True)]


def unwritten(shape: tuple[int, ...], storage: np.dtype[Any]) -> Array:
    """An array that shows where nothing has been written by having all bits set: NaN, or -1."""
    array = np.empty(shape, storage)
    array.reshape(-1).view(np.uint8)[:] = 0xFF
    return array


class Stepper:
    """Single kernel calls of a program, with buffers apart. Raises CompileError."""

    def __init__(
        self,
        program: Program,
        target: Target,
        weights: WeightStore,
        cache: ObjectCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.program = apart(program)
        code = library(target).load([*program.kernels(), Driver()], cache, progress)
        weights.ensure(program.weights.values(), progress)
        self._bound = BoundProgram(self.program, code, weights)
        self._workspace = Workspace(1, self._bound.needs)
        self._run = RUN_TYPE(code.address(Driver(), "lucid_run"))
        calls = [c for c in program.calls() if c.tasks]
        self._steps = {id(call): number for number, call in enumerate(calls)}
        self._buffers = {name: self._memory(name) for name in program.buffers}

    def _memory(self, name: str) -> Array:
        """A buffer as the kernels see it, flat."""
        buffer = self.program.buffers[name]
        if name in self.program.offsets:
            place = self.program.offsets[name]
            return self._workspace.arena(place, buffer.elements, buffer.dtype)
        return np.zeros(buffer.elements, dtype(buffer.dtype).storage)

    def run(self, call: KernelCall, buffers: Mapping[str, Array]) -> list[Array]:
        """What the call writes where its operands' buffers hold `buffers`; what it leaves out is
        NaN."""
        for view in call.reads:
            if view.buffer in self._buffers:
                self._buffers[view.buffer][...] = dtype(view.dtype).encode(buffers[view.buffer])
        for view in call.writes:
            array = self._array(view)
            array[...] = unwritten(array.shape, array.dtype)
        users = [v.buffer for v in (*self.program.inputs.values(), *self.program.outputs.values())]
        addresses = [self._buffers[name].ctypes.data for name in users]
        table = self._workspace.prepare(self._bound, addresses, self._steps[id(call)])
        status = self._run(ctypes.c_void_p(table))
        if status:
            raise CompileError(f"the native runtime refused {call.kernel} (status {status})")
        return [dtype(v.dtype).decode(self._array(v).copy()) for v in call.writes]

    def _array(self, view: View) -> Array:
        base = self._buffers[view.buffer][view.offset :]
        if not prod(view.shape):
            return np.empty(view.shape, base.dtype)
        return as_strided(base, view.shape, [base.itemsize * s for s in view.strides])
