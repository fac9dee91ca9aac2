"""The plain check: the whole network against the interpreter, and every kernel call by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lucid.codegen.lowering import HostNode
from lucid.codegen.program.interpret import ProgramInterpreter
from lucid.codegen.program.lowered_ops import PartialSums
from lucid.codegen.program.program import KernelCall, Program
from lucid.codegen.scheduling.kernel_names import BF16_SUFFIX
from lucid.ir.graph import Graph, Node
from lucid.ir.interpret import Tensors, interpret, run_node
from lucid.ir.ops.base import Array
from lucid.runtime.cache import ObjectCache
from lucid.runtime.check.case import Case
from lucid.runtime.check.compare import (
    LIMITS,
    STEPS,
    difference,
    rounding_difference,
    rounds,
    worst,
)
from lucid.runtime.check.native import Stepper, run_whole
from lucid.runtime.kernel_compiler import Progress
from lucid.runtime.steps import parameter_array
from lucid.runtime.weights import WeightStore


@dataclass(frozen=True)
class Tools:
    """Where kernels are kept, and who is told how far things are."""

    cache: ObjectCache | None = None
    progress: Progress | None = None

    def report(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


Floats = type[np.floating[Any]]
"""What a graph is interpreted in."""


@dataclass(frozen=True)
class CallCheck:
    """One kernel call, run natively on the interpreter's own inputs. `error`: of the largest value
    that it should have written."""

    origin: str
    kernel: str
    algorithm: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True)
class CheckReport:
    """What a check found. `error`: of the whole network's outputs, by the largest of them, against
    the captured graph in float64, or in float32 where it rounds to integers."""

    model: str
    error: float
    allowed: float
    calls: tuple[CallCheck, ...]

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed and all(c.ok for c in self.calls)

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite error is null."""
        calls = [
            asdict(c) | {"error": c.error if np.isfinite(c.error) else None, "ok": c.ok}
            for c in self.calls
        ]
        error = self.error if np.isfinite(self.error) else None
        return asdict(self) | {"error": error, "ok": self.ok, "calls": calls}


def check(case: Case, tools: Tools | None = None) -> CheckReport:
    """Run the case compiled and interpreted, as a whole and call by call."""
    tools = tools or Tools()
    calls = tuple(
        row
        for region in case.regions()
        for row in call_checks(region, region.program(region.fused()), tools)
    )
    values, wanted = compiled(case, tools), exact(case, case.graph, tools, floats(case))
    limit = whole_limit(case)
    return CheckReport(case.graph.name, worst(values, wanted), limit, calls)


def compiled(case: Case, tools: Tools) -> list[Array]:
    """The outputs of the case, computed by native code and, between, by host ops."""
    fused, settings = case.fused(), case.settings
    weights = WeightStore(case.graph.payload)
    read = Tensors(case.graph.payload, fused)
    values = dict(zip(fused.inputs, case.inputs, strict=True))
    values |= {p: parameter_array(p, read) for p in fused.parameters.values()}
    for part in case.parts(fused):
        if isinstance(part, HostNode):
            node, floats = part.node, np.dtype(np.float32)
            results = run_node(node, [values[v] for v in node.inputs], case.batch, floats)
            values.update(zip(node.outputs, results, strict=True))
            continue
        inputs = [values[v] for v in part.region.inputs]
        made = settings.machine, weights, inputs, settings.threads, tools.cache
        values.update(zip(part.region.outputs, run_whole(part.program, *made), strict=True))
    return [values[v] for v in fused.outputs]


def exact(case: Case, graph: Graph, tools: Tools, dtype: Floats = np.float64) -> list[Array]:
    """The outputs of one of the case's graphs."""
    done = 0

    def count(node: Node, results: tuple[Array, ...]) -> None:
        nonlocal done
        done += 1
        tools.report("interpreting", done, len(graph.nodes))

    return interpret(graph, case.inputs, case.graph.payload, dtype, count)


def floats(case: Case) -> Floats:
    """What the case is interpreted in: float64, unless it rounds to integers."""
    return np.float32 if rounds(case.graph) else np.float64


def whole_limit(case: Case) -> float:
    """What the outputs of the whole network may be off by."""
    if rounds(case.graph):
        return STEPS
    forced = any(kernel.endswith(BF16_SUFFIX) for kernel in case.settings.kernels.values())
    return LIMITS["bf16" if forced else case.settings.precision].whole


def call_checks(case: Case, program: Program, tools: Tools) -> Iterator[CallCheck]:
    """Every kernel call, in order: native code against its region, computed in float64 (where it
    rounds to integers in float32), both on what the interpreter has in the buffers there."""
    payload = case.graph.payload
    machine = case.settings.machine
    stepper = Stepper(program, machine, WeightStore(payload), tools.cache, tools.progress)
    interpreter = ProgramInterpreter(program, payload, planned=False)
    interpreter.feed(case.inputs)
    calls = [c for c in program.calls() if c.tasks]
    for number, call in enumerate(calls):
        tools.report("kernel calls", number, len(calls))
        values = stepper.run(call, interpreter.buffers)
        rounded = rounds(call.region)
        wanted = interpreter.step(call, np.float32 if rounded else np.float64)
        measure = rounding_difference if rounded else difference
        error = max(
            measure(*_comparable(call, i, v, e.reshape(v.shape)))
            for i, (v, e) in enumerate(zip(values, wanted, strict=True))
        )
        name = call.algorithm or call.kernel.family
        limit = call_limit(case, call)
        yield CallCheck(call.origin, str(call.kernel), name, error, limit)


def call_limit(case: Case, call: KernelCall) -> float:
    """What a kernel call may be off by: little, unless it rounds to bfloat16."""
    if call.algorithm.endswith(BF16_SUFFIX):
        return LIMITS["bf16"].kernel
    return LIMITS["strict" if case.settings.precision == "strict" else "fast"].kernel


def _comparable(call: KernelCall, number: int, value: Array, wanted: Array) -> tuple[Array, Array]:
    """Partial sums only say the same once they are added up."""
    producer = call.region.outputs[number].producer
    if producer is not None and isinstance(producer.op, PartialSums):
        return value.sum(axis=1), wanted.sum(axis=1)
    return value, wanted
