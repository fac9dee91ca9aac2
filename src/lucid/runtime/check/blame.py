"""Bisection: the first stage on the way to machine code after which results are wrong.

Each stage is compared with the one before it: graphs before and after each pass, the Program
interpreted with the graph, the memory plan with buffers apart, kernels with their regions, and in
the end the whole native run with the interpreted one.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lucid.codegen.program.interpret import ProgramInterpreter
from lucid.codegen.program.plan import lifetimes
from lucid.codegen.program.program import KernelCall, Program, View
from lucid.errors import CompileError, LucidError, VerifyError
from lucid.ir.graph import Graph, Node
from lucid.ir.interpret import interpret
from lucid.ir.ops.base import Array
from lucid.ir.passes import PIPELINE, run_passes
from lucid.runtime.check.case import Case
from lucid.runtime.check.compare import EXACT, STEPS, difference, rounds, worst
from lucid.runtime.check.native import run_whole
from lucid.runtime.check.report import Floats, Tools, call_checks, exact, floats, whole_limit
from lucid.runtime.weights import WeightStore


@dataclass(frozen=True)
class Blame:
    """`stage`: `pass`, `schedule` (and lowering), `plan`, `emission` (the kernel's code, its packed
    weights or its arguments) or `runtime`. `name`: the pass, kernel or buffer; `origin`: the module
    path where it shows first."""

    stage: str
    name: str
    origin: str
    detail: str

    def __str__(self) -> str:
        where = f" at {self.origin}" if self.origin else ""
        return f"{self.stage}: {self.name}{where}: {self.detail}"


Find = Callable[[Case, Tools], Blame | None]


def bisect(case: Case, tools: Tools | None = None) -> Blame | None:
    """The first stage that gets the case wrong; None where all of them get it right."""
    tools = tools or Tools()
    found = search(case, tools)
    return found[1] if found else None


def search(case: Case, tools: Tools) -> tuple[Find, Blame] | None:
    """What `bisect` finds, and the function that finds it."""
    later = (blame_schedule, blame_plan, blame_kernel, blame_runtime)
    finds: list[Find] = [blame_pass, *(functools.partial(_in_regions, find) for find in later)]
    for find in finds:
        blame = find(case, tools)
        if blame is not None:
            return find, blame
    return None


def _in_regions(find: Find, case: Case, tools: Tools) -> Blame | None:
    """The first native call of the case that is found wrong."""
    found = (find(region, tools) for region in case.regions())
    return next((blame for blame in found if blame is not None), None)


def _off(error: float) -> str:
    return f"off by {error:.1e} of the largest value"


# -- passes ---------------------------------------------------------------------------------


def blame_pass(case: Case, tools: Tools) -> Blame | None:
    """The first pass after which the graph computes something else, in the case's `floats`."""
    dtype = floats(case)
    graph, wanted = case.graph, exact(case, case.graph, tools, dtype)
    allowed = STEPS if rounds(graph) else EXACT
    for name in PIPELINE:
        if name in case.settings.disable:
            continue
        try:
            after = run_passes(graph, [name])
        except CompileError as error:
            return Blame("pass", name, "", str(error))
        if after != graph:
            off = worst(exact(case, after, tools, dtype), wanted)
            if off > allowed:
                origin, value = _first_difference(case, graph, after, allowed)
                return Blame("pass", name, origin, f"{value} is {_off(off)}")
        graph = after
    return None


def _first_difference(case: Case, before: Graph, after: Graph, allowed: float) -> tuple[str, str]:
    """Origin and name of the first value that both graphs have and that differs."""
    dtype = floats(case)
    known = _values(case, before, dtype)
    found: list[tuple[str, str]] = []

    def compare(node: Node, results: tuple[Array, ...]) -> None:
        for value, array in zip(node.outputs, results, strict=True):
            if not found and difference(array, known.get(value.name, array)) > allowed:
                found.append((node.origin, f"%{value.name}"))

    interpret(after, case.inputs, case.graph.payload, dtype, compare)
    return found[0] if found else ("", "an output")


def _values(case: Case, graph: Graph, dtype: Floats) -> dict[str, Array]:
    """All that the nodes of a graph compute, by name."""
    known: dict[str, Array] = {}

    def keep(node: Node, results: tuple[Array, ...]) -> None:
        known.update((v.name, a) for v, a in zip(node.outputs, results, strict=True))

    interpret(graph, case.inputs, case.graph.payload, dtype, keep)
    return known


# -- schedule and lowering ------------------------------------------------------------------


def blame_schedule(case: Case, tools: Tools) -> Blame | None:
    """The first kernel call whose result is not what the graph has there, in float64."""
    fused = case.fused()
    try:
        program = case.program(fused)
    except VerifyError as error:
        stage = "plan" if "memory plan" in str(error) else "schedule"
        return Blame(stage, "the Program verifier", "", str(error))
    except LucidError:
        raise
    except Exception as error:
        return Blame("schedule", "lowering", "", f"{type(error).__name__}: {error}")
    interpreter = ProgramInterpreter(program, case.graph.payload, False, np.float64)
    off = worst(interpreter.run(case.inputs), exact(case, fused, tools))
    if off <= EXACT:
        return None
    known = _values(case, fused, np.float64)
    found: list[KernelCall] = []

    def compare(call: KernelCall, results: list[Array]) -> None:
        for view, array in zip(call.writes, results, strict=True):
            wanted = known.get(view.buffer)
            if wanted is None or found or wanted.shape != view.shape:
                continue
            if difference(array.reshape(view.shape), wanted) > EXACT:
                found.append(call)

    ProgramInterpreter(program, case.graph.payload, False, np.float64).run(case.inputs, compare)
    if not found:
        return Blame("schedule", "lowering", "", f"an output is {_off(off)}")
    name = found[0].algorithm or found[0].kernel.family
    return Blame("schedule", name, found[0].origin, f"what it computes is {_off(off)}")


# -- the memory plan ------------------------------------------------------------------------


def blame_plan(case: Case, tools: Tools) -> Blame | None:
    """The first buffer that holds something else on the planned arena than by itself, or that lies
    where another one does which the same phase touches: interpreted calls read all before they
    write, native ones do not."""
    program = case.program(case.fused())
    neighbours = _neighbours(program)
    free, planned = (ProgramInterpreter(program, case.graph.payload, p) for p in (False, True))
    free.feed(case.inputs)
    planned.feed(case.inputs)

    def blame(name: str, origin: str = "") -> Blame:
        return Blame("plan", name, origin, _overlaps(program, name, neighbours[name]))

    def differs(view: View) -> bool:
        return not np.array_equal(free.array(view), planned.array(view), equal_nan=True)

    for number, phase in enumerate(program.phases):
        tools.report("memory plan", number, len(program.phases))
        touched = {v.buffer for call in phase for v in (*call.reads, *call.writes)}
        for call in phase:
            for view in call.reads:
                if differs(view) or neighbours[view.buffer] & touched:
                    return blame(view.buffer, call.origin)
            if call.tasks:
                free.step(call)
                planned.step(call)
    return next((blame(view.buffer) for view in program.outputs.values() if differs(view)), None)


def _overlaps(program: Program, name: str, others: Iterable[str]) -> str:
    """Which buffers lie where this one does while both live."""
    start = program.offsets.get(name, 0)
    where = f"at {start} to {start + program.buffers[name].bytes}, is overwritten while it is read"
    listed = ", ".join(f"{o} (at {program.offsets[o]})" for o in sorted(others))
    return f"{where} by {listed}" if listed else where


def _neighbours(program: Program) -> dict[str, set[str]]:
    """For every buffer those that lie where it does while both live."""
    found: dict[str, set[str]] = defaultdict(set)
    spans = lifetimes(program)
    places = {n: (o, o + program.buffers[n].bytes) for n, o in program.offsets.items()}
    for one, other in combinations(spans, 2):
        (start, end), (place, beyond) = places[one], places[other]
        if start < beyond and place < end and spans[one].overlaps(spans[other]):
            found[one].add(other)
            found[other].add(one)
    return found


# -- emission and running -------------------------------------------------------------------


def blame_kernel(case: Case, tools: Tools) -> Blame | None:
    """The first kernel call that computes something else than its region."""
    program = case.program(case.fused())
    try:
        for row in call_checks(case, program, tools):
            if not row.ok:
                detail = f"{row.kernel} is {_off(row.error)}, allowed {row.allowed:.0e}"
                return Blame("emission", row.algorithm, row.origin, detail)
    except LucidError as error:
        return Blame("emission", "code generation", "", str(error))
    except Exception as error:
        return Blame("emission", "code generation", "", f"{type(error).__name__}: {error}")
    return None


def blame_runtime(case: Case, tools: Tools) -> Blame | None:
    """The native run as a whole, where each kernel by itself is right."""
    settings = case.settings
    program, weights = case.program(case.fused()), WeightStore(case.graph.payload)
    wanted = ProgramInterpreter(program, case.graph.payload, False).run(case.inputs)
    for threads in sorted({1, settings.threads}):
        name = "one thread" if threads == 1 else f"{threads} threads, not one"
        try:
            values = run_whole(
                program, settings.machine, weights, case.inputs, threads, tools.cache
            )
        except CompileError as error:
            return Blame("runtime", name, "", str(error))
        off = worst(values, wanted)
        if off > whole_limit(case):
            return Blame("runtime", name, "", f"the outputs are {_off(off)}")
    return None
