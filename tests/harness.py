"""Runs programs in memory that shows every stray access, and compares them with the interpreter.

`check` compiles a graph for every target the machine runs and holds the results against the
float64 interpreter. User arrays, arena and each thread's scratch lie in larger blocks filled with
NaNs of one pattern: what is read before it is written, or beside its array, turns the result into
NaN, and what is written beside it breaks the pattern. With `apart`, every arena buffer has guards
of its own around it, and user arrays begin at odd places. With LUCID_GUARD_PAGES all of these, and
each of the packed weights, lie between unreadable pages (`fences.py`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fences
import numpy as np
from hypothesis import settings
from strategies import random_inputs

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.lowering import lower
from lucid.codegen.program.plan import ALIGNMENT, aligned
from lucid.codegen.program.program import Program
from lucid.codegen.program.verify import verify_program
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import LEVELS, Target
from lucid.ir import Graph, interpret
from lucid.ir.passes import run_passes
from lucid.runtime.binding import BoundProgram
from lucid.runtime.cache import ObjectCache, default_folder
from lucid.runtime.library import library
from lucid.runtime.team import RUN_TYPE, Team, team
from lucid.runtime.weights import WeightStore

TARGETS = [t for t in LEVELS.values() if t.runs_here()]
"""Every target whose code this machine runs, the plainest first."""

ZEN4 = replace(LEVELS["x86-64-v4-bf16"].on_half_units(), l2=1 << 20)
"""A processor with bfloat16 that does its vectors in halves."""

PATTERN = 0x7FA5A5A5
"""A signalling NaN: whatever is computed from it is another one."""
GUARD = 1024
"""Bytes before and after each array: more than the widest panel."""

LIMITS = {
    "winograd4x4": 4e-6,
    "pointwise_bf16": 1e-2,
    "direct_bf16": 1e-2,
    "winograd2x2_bf16": 3e-2,
}
"""Largest error, relative to the largest output, by kernel; that of others is `LIMIT`."""
LIMIT = 1.5e-6


def examples(share: float) -> settings:
    """Settings with this share of the profile's examples: kernels are compiled on the way."""
    return settings(max_examples=max(3, round(settings.default.max_examples * share)))


def object_cache() -> ObjectCache:
    """The user's cache of kernels: several tests, processes and levels want the same ones, and an
    entry is of the very sources that run."""
    return _cache_in(default_folder())


@functools.cache
def _cache_in(folder: Path) -> ObjectCache:
    return ObjectCache(folder)


# -- memory ---------------------------------------------------------------------------------------


class Guarded:
    """`size` bytes between guards, in a block filled with the pattern. `skew`: bytes by which they
    lie off a page's start."""

    def __init__(self, size: int, skew: int = 0) -> None:
        page = 4096
        words = np.full(-(-(size + 2 * GUARD + 2 * page) // 4), PATTERN, np.int32)
        self._block = words.view(np.uint8)
        self.start = GUARD + -(words.ctypes.data + GUARD) % page + skew
        self.address = words.ctypes.data + self.start
        self.bytes = self._block[self.start : self.start + size]

    def close(self) -> None:
        """Protect what lies beside it, as long as the program runs."""

    def open(self) -> None:
        """Let what lies beside it be seen again."""

    def array(self, shape: Sequence[int], kind: Any = np.float32) -> np.ndarray:
        """The memory as an array."""
        return self.bytes.view(kind).reshape(shape)

    def assert_intact(self, what: str) -> None:
        inside = slice(self.start, self.start + self.bytes.size)
        changed = self._changed()
        changed[inside] = False
        assert not changed.any(), f"{what}: {changed.sum()} bytes beside it were written"

    def untouched(self) -> np.ndarray:
        """Which of its bytes are as they were before anything was written."""
        return ~self._changed()[self.start : self.start + self.bytes.size]

    def _changed(self) -> np.ndarray:
        """Which bytes of the whole block are not the pattern's."""
        return (self._block.view(np.int32) ^ PATTERN).view(np.uint8) != 0


class Fenced(Guarded):
    """The same between unreadable pages, `size` bytes long. `lead` and `within` as in `Block`."""

    def __init__(
        self, size: int, lead: int | None = None, within: Iterable[fences.Fence] = ()
    ) -> None:
        lead = fences.lead_of(size) if lead is None else lead
        block = fences.Block(size, lead, PATTERN, within)
        self._block, self.address = block.words.view(np.uint8), block.address
        self.start = block.first
        self.bytes = self._block[self.start : self.start + size]
        self.close, self.open = block.close, block.open  # type: ignore[method-assign]


@dataclass
class Run:
    """One run of a program, and the memory it had."""

    program: Program
    target: Target
    threads: int = 1
    skew: int = 0

    def outputs(self, payload: Mapping[str, Any], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The program's outputs; all guards are checked."""
        store = fences.FencedWeights(payload) if fences.MODE else WeightStore(payload)
        code = library(self.target).load([*self.program.kernels(), Driver()], object_cache())
        store.ensure(self.program.weights.values())
        bound = BoundProgram(self.program, code, store)
        self.arena, self.scratch = self._arena(), self._scratch(bound)
        given = [self._user(a.nbytes) for a in inputs]
        for block, array in zip(given, inputs, strict=True):
            block.array(array.shape, array.dtype)[...] = array
        views = list(self.program.outputs.values())
        results = [self._user(self.program.buffers[v.buffer].bytes) for v in views]
        blocks = (*given, *results, self.arena, self.scratch)
        for block in blocks:
            block.close()
        self._run(bound, [b.address for b in (*given, *results, self.arena)])
        for block in blocks:
            block.open()
        self._check(bound, [*given, *results])
        for block, array in zip(given, inputs, strict=True):
            np.testing.assert_array_equal(block.array(array.shape, array.dtype), array)
        return [
            block.array(view.shape, dtype(view.dtype).storage).copy()
            for block, view in zip(results, views, strict=True)
        ]

    def _user(self, size: int) -> Guarded:
        """Memory for an array of so many bytes."""
        return Fenced(size) if fences.MODE else Guarded(size, self.skew)

    def _arena(self) -> Guarded:
        if not fences.MODE:
            return Guarded(self.program.arena)
        sizes = {name: self.program.buffers[name].bytes for name in self.program.offsets}
        offsets, size = fences.arena_offsets(sizes, ALIGNMENT)
        apart = offsets == self.program.offsets and size == self.program.arena
        return Fenced(self.program.arena, within=fences.between(sizes) if apart else ())

    def _scratch(self, bound: BoundProgram) -> Guarded:
        size = self.threads * bound.scratch_bytes
        if not fences.MODE:
            return Guarded(size)
        return Fenced(size, *fences.shares(self.program.scratch, bound.scratch_bytes, self.threads))

    def _run(self, bound: BoundProgram, addresses: list[int]) -> None:
        """Fill the call table, and run it on a team."""
        buffers = np.array([*addresses, 0], np.int64)
        call = np.zeros(driver.CALL_WORDS, np.int64)
        call[driver.CALL_VERSION] = driver.VERSION
        call[driver.CALL_STEPS] = bound.steps.ctypes.data
        call[driver.CALL_STEP_COUNT] = bound.count
        call[driver.CALL_BUFFERS] = buffers.ctypes.data
        call[driver.CALL_SCRATCH] = self.scratch.address
        call[driver.CALL_SCRATCH_BYTES] = bound.scratch_bytes
        call[driver.CALL_PHASES] = bound.phases.ctypes.data
        # As small as they are, phases are shared.
        bound.phases[:, driver.PHASE_THREADS] = bound.phases[:, driver.PHASE_TASKS]
        run = RUN_TYPE(bound.code.address(Driver(), "lucid_run"))
        if fences.MODE and self.threads == 1:
            self._run_singly(lambda: run(call.ctypes.data), call)
            return
        fences.note([f"{self.target.name}, {self.threads} threads", str(self.program)])
        assert awake(self.target, self.threads).run(call.ctypes.data) == 0

    def _run_singly(self, enter: Callable[[], int], call: Any) -> None:
        """One kernel call after the other, so that it is known which was the last."""
        call[driver.CALL_STEP_COUNT] = 1
        for kernel_call in [c for c in self.program.calls() if c.tasks]:
            kernel, origin = kernel_call.kernel, kernel_call.origin
            fences.note([f"{self.target.name}: {kernel} {origin!r}", str(self.program)])
            assert enter() == 0
            call[driver.CALL_STEPS] += 8 * driver.STEP_WORDS

    def _check(self, bound: BoundProgram, users: list[Guarded]) -> None:
        for number, block in enumerate(users):
            block.assert_intact(f"user array {number}")
        self.arena.assert_intact("the arena")
        self.scratch.assert_intact("the scratch")
        owned = np.zeros(self.program.arena, bool)
        for name, offset in self.program.offsets.items():
            owned[offset : offset + self.program.buffers[name].bytes] = True
        assert self.arena.untouched()[~owned].all(), "between arena buffers"
        shares = self.scratch.untouched().reshape(self.threads, bound.scratch_bytes)
        beyond = shares[:, self.program.scratch :]
        assert beyond.all(), "beyond what the calls ask of scratch"


def awake(target: Target, threads: int) -> Team:
    """The process's team of this size, its threads looking for something to do: so short are the
    calls of tests that they would come too late to take part, were they asleep."""
    found = team(target, threads)
    if threads > 1:
        found._table[driver.TEAM_IDLE_SPINS] = 100_000
        phases, call = np.zeros(driver.PHASE_WORDS, np.int64), np.zeros(driver.CALL_WORDS, np.int64)
        call[driver.CALL_VERSION] = driver.VERSION
        call[driver.CALL_PHASES] = phases.ctypes.data
        assert found._submit(found._address, call.ctypes.data) == 0
        time.sleep(0.0002)
    return found


def set_apart(program: Program) -> None:
    """Plan the arena anew: every buffer at a place of its own, with guards around it."""
    if fences.MODE:
        sizes = {name: program.buffers[name].bytes for name in program.offsets}
        offsets, program.arena = fences.arena_offsets(sizes, ALIGNMENT)
        program.offsets.update(offsets)
        verify_program(program)
        return
    at = GUARD
    for name in program.offsets:
        program.offsets[name] = at
        at += aligned(program.buffers[name].bytes + GUARD)
    program.arena = aligned(at)
    assert GUARD % ALIGNMENT == 0
    verify_program(program)


# -- comparing ------------------------------------------------------------------------------------


def check(
    graph: Graph,
    batch: int = 2,
    kernels: Mapping[str, str] | None = None,
    limit: float | None = None,
    targets: Iterable[Target] = TARGETS,
    disable: Sequence[str] = (),
) -> Graph:
    """The compiled graph agrees with the interpreter on every target, bitwise the same with one
    thread and two. `kernels` forces kernels, as the option does. Gives the optimised graph."""
    inputs = random_inputs(graph, batch)
    wanted = interpret(graph, inputs, dtype=np.float64)
    fused = run_passes(graph, disable=disable)
    if limit is None:
        limit = max((LIMITS.get(k, LIMIT) for k in (kernels or {}).values()), default=LIMIT)
    for target in targets:
        choices = schedule(fused, target, max(1, batch), "strict", kernels)
        alone = lower(fused, choices, target, batch, threads=1)
        set_apart(alone)
        together = lower(fused, choices, target, batch, threads=2)
        results = Run(alone, target, skew=12).outputs(graph.payload, inputs)
        again = Run(together, target, threads=2).outputs(graph.payload, inputs)
        for number, (value, other, exact) in enumerate(zip(results, again, wanted, strict=True)):
            where = f"output {number} on {target.name}"
            np.testing.assert_array_equal(value, other, err_msg=f"{where}: threads change it")
            assert_near(value, exact, limit, where)
    return fused


def assert_near(value: np.ndarray, exact: np.ndarray, limit: float, where: str = "") -> None:
    """The largest difference is at most `limit` of the largest value, or of 1 if that is more: a
    few sums that happen to cancel say nothing."""
    assert value.shape == exact.shape
    assert not np.isnan(value).any(), f"{where}: something unwritten was read"
    if exact.size:
        error = np.abs(value - exact).max() / max(1.0, np.abs(exact).max())
        assert error <= limit, f"{where}: error {error:.2e}, allowed {limit:.0e}"
