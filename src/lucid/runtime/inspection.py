"""Looking inside a plan: why it is as it is, its code, and where its time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.codegen.language.llvm import assembly, ir_text
from lucid.codegen.scheduling.explain import explain
from lucid.errors import InputError
from lucid.ir.batch import described, obstacle
from lucid.runtime.planner import MAX_BATCH
from lucid.runtime.planning import PLANNING
from lucid.runtime.plans import Plan
from lucid.runtime.profile_steps import StepProfiler
from lucid.runtime.slices import rows_of
from lucid.runtime.steps import HostStep

if TYPE_CHECKING:
    from lucid.codegen.program.program import Program
    from lucid.codegen.scheduling.basis import Basis
    from lucid.codegen.scheduling.explain import Explanation
    from lucid.codegen.scheduling.schedule import Schedule
    from lucid.codegen.target import Target
    from lucid.ir.ops.base import Array
    from lucid.ir.passes import Miss
    from lucid.runtime.plans import Slices
    from lucid.runtime.profile import Profiler
    from lucid.runtime.profile_report import Profile

CODE_STAGES = ("scheduled", "llvm", "asm")
"""The stages of a model behind its graphs, in order."""


def explanation_of(
    plan: Plan,
    misses: Sequence[Miss],
    schedule: Schedule,
    target: Target,
    threads: int,
    basis: Basis,
) -> Explanation:
    """What was fused, which kernels were chosen and why, and how work is cut."""
    return explain(
        plan.graph,
        misses,
        schedule,
        [(step.bound.program, step.region.graph) for step in plan.native],
        [step.node for step in plan.steps if isinstance(step, HostStep)],
        {value.name: value.type.concrete(plan.batch) for value in plan.graph.inputs},
        target,
        threads,
        basis,
        described(obstacle(plan.graph), MAX_BATCH),
    )


def code_of(programs: Sequence[Program], stage: str, target: Target) -> str:
    """The text of programs at one of CODE_STAGES: themselves, or their kernels."""
    if stage == "scheduled":
        return "\n".join(map(str, programs))
    text, comment = (ir_text, ";") if stage == "llvm" else (assembly, "#")
    with PLANNING:  # which keeps LLVM's own lock out of forks
        return "\n".join(
            f"{comment} kernel {' '.join(str(kernel).split())}\n{text(kernel, target)}"
            for kernel in dict.fromkeys(k for program in programs for k in program.kernels())
        )


def profile_of(
    profiler: Profiler, plans: Slices, model: str, arrays: Sequence[Array], runs: int
) -> Profile:
    """The profile of a plan of slices, on its rows of the inputs. Raises InputError for a batch
    that has none."""
    if not plans.batch:
        raise InputError("an empty batch has no profile")
    plan, graph = plans.whole, plans.graph
    assert isinstance(plan, Plan)
    rows = slice(0, plans.parts[0][1])
    arrays = rows_of(graph.inputs, arrays, rows)
    results = rows_of(graph.outputs, plans.outputs(), rows)
    if plan.whole is None:
        return StepProfiler(profiler, model, runs).profile(plan, arrays, results)
    addresses = [array.ctypes.data for array in (*arrays, *results)]
    return profiler.profile(plan.whole, model, addresses, runs)
