"""What kernel calls should take, from their work alone, and how many threads phases are worth.

An estimate is made of the Program alone and for its target, not measured: who lowers the same graph
elsewhere gets the same. It is to be too long rather than too short: a phase that is given out for
nothing costs a crossing, one that is not may cost half of what it takes.
"""

from __future__ import annotations

from math import inf, prod

from lucid.codegen.program.program import KernelCall, Program, View, WeightRef
from lucid.codegen.target import Target

CROSSING = 1000.0
"""Nanoseconds that a thread's part of a phase has to take to be worth giving out. On two cores of a
Zen 3 two like tasks take as long shared as one after the other where that is 0.9 us, 10% less where
it is 1.6 us, and 20% less where it is 3.5 us: a crossing costs 0.6 to 1 us."""
WAKING = 10_000.0
"""Nanoseconds that a team has to save in a call to be worth calling. To wake a thread costs the
caller 1.7 us at least and 8 to 11 us on a busy machine, and the thread comes later still."""
OPERATIONS = 4.0
"""A nanosecond, for each float that a vector holds: an eighth of what two multiply-adds a cycle at
4 GHz come to, as small layers reach a third of it."""
BYTES = 8.0
"""A nanosecond: half of what comes from another core's cache, where what a phase reads lies after a
phase that was shared."""
MULTIPLIES = {
    "winograd4x4": 36 / 144,
    "winograd2x2": 16 / 36,
    "winograd2x2_bf16": 16 / 36,
    "strassen": 7 / 8,
}
"""What is left of a direct convolution's multiplications, by algorithm; all, where not listed."""


def threads_worth(program: Program) -> list[int]:
    """The most threads that each phase is worth, at least one and no more than it has tasks; one in
    all phases, where two would save less than waking the other costs."""
    times = [sum(nanoseconds(program, c) for c in p if c.tasks) for p in program.phases]
    tasks = [sum(call.tasks for call in phase) for phase in program.phases]
    worth = [max(1, int(min(t / CROSSING, n))) for t, n in zip(times, tasks, strict=True)]
    saved = sum(time / 2 for time, threads in zip(times, worth, strict=True) if threads > 1)
    return worth if saved > WAKING else [1] * len(worth)


def nanoseconds(program: Program, call: KernelCall) -> float:
    """What a call should take on one thread; infinitely long where its work does not tell."""
    if not call.work and not call.kernel.streams:
        return inf
    rate = OPERATIONS * Target.named(program.target).vector
    passes = 1 if call.work else len(call.region.nodes)
    return max(operations(call) / rate, passes * bytes_moved(program, call) / BYTES)


def operations(call: KernelCall) -> float:
    """The floating operations that a call does, by its algorithm."""
    return call.work * MULTIPLIES.get(call.algorithm, 1.0)


def bytes_moved(program: Program, call: KernelCall) -> int:
    """Bytes that a call has to read and write: its views, and its packed parameters."""
    arguments = list(call.arguments.values())
    names = {a.name for a in arguments if isinstance(a, WeightRef)}
    arrays = {v for v in (*call.reads, *call.writes) if v.buffer not in names}
    weights = sum(program.weights[n].bytes for n in names)
    return weights + sum(v.itemsize * _places(v) for v in arrays)


def _places(view: View) -> int:
    """Elements of a view, each place once, though it be read many times."""
    sizes = [d for d, s in zip(view.shape, view.strides, strict=True) if s]
    return prod(sizes) if 0 not in view.shape else 0
