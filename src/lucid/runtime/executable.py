"""`CompiledModel`, the result of `lucid.compile`: plans by size, weights by checkpoint, calls.

A call of a known size takes no lock: it looks up its plan, checks out a workspace, and enters
native code, which releases the GIL. Plans are made under PLANNING and stay as they are once made.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.llvm import assembly, ir_text
from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.explain import Basis, Explanation, explain
from lucid.codegen.scheduling.schedule import Schedule, without_choice
from lucid.codegen.target import Target
from lucid.errors import CompileError, InputError, TraceError, UnknownNameError
from lucid.ir.batch import mixing_node
from lucid.ir.graph import Graph
from lucid.ir.ops.base import Array
from lucid.ir.types import Dim, ShapeArgument, Shapes, with_batch
from lucid.runtime import log
from lucid.runtime.arrays import describe, like
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.crash import CrashReporter
from lucid.runtime.inputs import Inputs
from lucid.runtime.library import Code, Objects, Progress, library
from lucid.runtime.planning import PLANNING
from lucid.runtime.plans import Plan, Saved, Snapshot, Source, continued
from lucid.runtime.signature import Signature, TensorSpec, as_html, specs
from lucid.runtime.team import RUN_TYPE, team
from lucid.runtime.weights import WeightStore

if TYPE_CHECKING:
    from lucid.runtime.profile_report import Profile

MAX_BATCH = 16
"""The largest batch of one plan; the arena is linear in it, so larger batches run in slices."""
PLANS_KEPT = 24
"""Plans of other sizes that are kept: a server's few image sizes by batches 1 to 16."""

schedule_log = logging.getLogger("lucid.schedule")


class CompiledModel:
    """A model compiled to native code. It takes and returns NumPy arrays (or the like) of any
    batch, and can be called from any thread.

    `threads`: the size of the team that runs a call; with 1, a call runs on its caller's thread,
    and calls run concurrently. `threads_asked`: the number that was asked for, None where it is the
    process's default; a pickle carries it. Results are bitwise identical for any number of threads,
    and for a batch run whole or in parts. `input_shapes`: of the inputs, in order, as compiled for;
    None before. A `shape` given to a method is that of the one input, or a sequence of shapes, one
    for each. `metadata`: JSON data that `save` stores with the model.
    """

    def __init__(
        self,
        source: Source,
        schedule_for: Callable[[Graph, int], Schedule],
        target: Target,
        threads: int,
        cache: Objects | None,
        progress: Progress | None = None,
        crashes: CrashReporter | None = None,
        basis: Basis | None = None,
        saved: Saved | None = None,
    ) -> None:
        self.target = target
        self.threads = threads
        self.threads_asked: int | None = None
        self.input_shapes: Shapes | None = None
        self.metadata: dict[str, Any] = {}
        self._source = source
        self._inputs = Inputs(source.name, source.dtypes)
        self._schedule_for = schedule_for
        self._cache = cache
        self._progress = progress
        self._crashes = crashes or CrashReporter(lambda shapes: source.stage(shapes, "captured"))
        self._basis = basis or Basis()
        self._saved = saved or Saved()
        self._schedule: Schedule | None = None
        self._signature: Signature | None = None
        self._weights: WeightStore | None = None
        self._graphs: OrderedDict[Shapes, Graph] = OrderedDict()  # by shapes of batch 1
        self._plans: dict[Shapes, Plan] = {}  # changed by who plans alone
        self._clock = itertools.count()
        self._free: list[Workspace] = []
        self._native = library(target)
        self._enter: Callable[[int], int] | None = None

    def __repr__(self) -> str:
        told = self._signature or "not compiled yet"
        return f"<CompiledModel {self._source.name}: {told}; {self._facts()}>"

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return as_html(f"CompiledModel {self._source.name}", self._facts(), self._signature)

    def _facts(self) -> str:
        return f"{self.target.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each input, for the size compiled for. Raises InputError where
        the model is not compiled yet, as `outputs` does."""
        return self._known_signature().inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each output."""
        return self._known_signature().outputs

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """`input_shapes` of a model with one input. Raises InputError where it has several."""
        if self.input_shapes is None:
            return None
        if len(self.input_shapes) > 1:
            raise InputError(f"{self._inputs}: their shapes are `input_shapes`")
        return self.input_shapes[0]

    def _known_signature(self) -> Signature:
        self._shapes_or_first(None)  # raises
        assert self._signature is not None
        return self._signature

    # -- planning ---------------------------------------------------------------------------

    def prepare(self, shape: ShapeArgument) -> Program:
        """Plan, compile and pack for inputs of this shape now, not at the first call.

        The Program of its first slice, which is the whole batch up to 16. Raises InputError.
        """
        shapes = self._shapes_or_first(shape)
        try:
            whole, _ = self._plans_for(shapes)
        except (InputError, TraceError) as problem:
            likely = self._inputs.likely(shapes)
            if not likely:
                raise
            raise InputError(f"{problem}; {likely}") from problem
        return whole.bound.program

    def _plans_for(self, shapes: Shapes) -> tuple[Plan, Plan]:
        """The plan of a batch's slices and the plan of its last slice, over the same weights.

        A batch whose images depend on each other has one plan, of its own size.
        """
        batch = shapes[0][0]
        large = batch > MAX_BATCH
        if (large and mixing_node(self._graph(shapes)) is not None) or 1 <= batch <= MAX_BATCH:
            whole = self._plan(shapes)
            return whole, whole
        whole = self._plan(with_batch(shapes, MAX_BATCH if large else 1))
        rest = batch % MAX_BATCH
        if not rest:
            return whole, whole
        last = self._plan(with_batch(shapes, rest))
        if last.weights is not whole.weights:  # another thread swapped them in between
            return self._plans_for(shapes)
        return whole, last

    def _plan(self, shapes: Shapes) -> Plan:
        plan = self._plans.get(shapes)
        if plan is None:
            with PLANNING, self._crashes.watching(shapes):
                plan = self._plans.get(shapes) or self._make_plan(shapes)
        plan.used = next(self._clock)
        return plan

    def _make_plan(self, shapes: Shapes) -> Plan:
        graph = self._graph(shapes)
        schedule = self._schedule_of(graph, shapes)
        assert graph.input_dtypes() == list(self._source.dtypes), graph.name
        program = lower(graph, schedule, self.target, shapes[0][0], self.threads)
        kernels = [*program.kernels(), *program.may_need, Driver()]
        code = self._native.load(kernels, self._cache, self._progress)
        store = self._weights = self._weights or WeightStore(graph.payload, self._saved.weights)
        store.ensure(program.weights.values(), self._progress)
        bound = BoundProgram(program, code, store)
        plan = self._plans[shapes] = Plan(graph, schedule, bound, next(self._clock))
        if self._schedule is None:  # the first size settles algorithms for all
            self._schedule, self.input_shapes = schedule, shapes
            self._signature = Signature(specs(graph.inputs), specs(graph.outputs))
            self._inputs.values = graph.inputs
            log.dump(self, self._source.name, shapes)
        if len(self._plans) > PLANS_KEPT:
            del self._plans[min(self._plans, key=lambda known: self._plans[known].used)]
            self._drop_workspaces()
        return plan

    def _schedule_of(self, graph: Graph, shapes: Shapes) -> Schedule:
        saved, batch = self._saved.schedules.get(shapes), shapes[0][0]
        if saved is not None and not without_choice(saved, graph, batch):
            return saved
        return continued(self._schedule, graph, batch, self._choose)

    def _choose(self, graph: Graph, batch: int) -> Schedule:
        schedule = self._schedule_for(graph, batch)
        for name, choice in schedule.choices.items():
            schedule_log.debug("%s: %s", name, choice)
        return schedule

    def graph(self, shape: ShapeArgument | None = None) -> Graph:
        """The optimised graph for an image size (by default the one compiled for)."""
        return self._graph(self._shapes_or_first(shape))

    def _graph(self, shapes: Shapes) -> Graph:
        key = with_batch(shapes, 1)
        with PLANNING:
            if key not in self._graphs:
                with self._crashes.watching(shapes):
                    self._graphs[key] = self._source.graph(key)
                if len(self._graphs) > PLANS_KEPT:
                    self._graphs.popitem(last=False)
            return self._graphs[key]

    def _shapes_or_first(self, shape: ShapeArgument | None) -> Shapes:
        """The shapes of the inputs, from what a user gives: one shape, or one for each."""
        if shape is None:
            if self.input_shapes is None:
                raise InputError(
                    "the model is compiled at its first call; give a shape to look before"
                )
            return self.input_shapes
        return self._inputs.shapes(shape)

    # -- running ----------------------------------------------------------------------------

    def __call__(self, *inputs: Any, out: Array | None = None, **named: Any) -> Any:
        """The model's outputs for a batch of inputs, (N, C, H, W) float32 or as compiled for
        (N, H, W, C) uint8, in the kind of array that the first input is.

        `inputs`: in the order of `self.inputs`, or by their names. `out`: an array to write to (one
        output only), which is then the result. Raises InputError."""
        given = inputs
        if named or len(inputs) != len(self._inputs):
            given = self._inputs.in_order(inputs, named)
        arrays = self._inputs.read(given)
        batch = len(arrays[0])
        whole, last = self._planned(given, arrays)
        results = whole.outputs(batch)
        if out is not None:
            results = [_checked_out(out, results)]
            arrays = [a.copy() if np.may_share_memory(a, out) else a for a in arrays]
        arrays += results
        if batch <= max(1, whole.bound.program.batch):
            if batch:
                self._run(whole, arrays)
        else:
            for start in range(0, batch, MAX_BATCH):
                rows = slice(start, min(start + MAX_BATCH, batch))
                plan = whole if rows.stop - start == MAX_BATCH else last
                values = (*plan.graph.inputs, *plan.graph.outputs)
                parts = zip(values, arrays, strict=True)
                self._run(plan, [a[_rows_of(v.type.shape[0], rows)] for v, a in parts])
        if out is not None:
            return out
        wrapped = [like(given[0], r) for r in results]
        return wrapped[0] if len(wrapped) == 1 else tuple(wrapped)

    def _planned(self, given: Sequence[Any], arrays: Sequence[Array]) -> tuple[Plan, Plan]:
        """The plans for the inputs `given`, which are `arrays` once they are read."""
        try:
            shapes = tuple([array.shape for array in arrays])
            if len(shapes) > 1:
                self._inputs.require_one_batch(shapes)
            return self._plans_for(shapes)
        except (InputError, TraceError) as problem:
            advice = self._inputs.advice(given, arrays)
            if not advice and isinstance(problem, TraceError):
                raise
            told = advice or f"{self._inputs.compared(arrays)}: {problem}"
            raise InputError(told) from problem

    def _run(self, plan: Plan, arrays: Sequence[Array]) -> None:
        """One call of a plan on the arrays of its program's inputs and outputs, in order."""
        enter = self._enter or self._entry(plan.bound.code)
        with self._workspace(plan.bound) as workspace:
            status = enter(workspace.prepare(plan.bound, [a.ctypes.data for a in arrays]))
        if status:
            with self._crashes.watching(tuple(a.shape for a in arrays[: len(self._inputs)])):
                raise CompileError(f"the native runtime refused the program (status {status})")

    def _entry(self, code: Code) -> Callable[[int], int]:
        """The way into native code. It does not hold the model, so that a model's memory goes with
        its last user, not when Python next looks for cycles."""
        target, threads = self.target, self.threads
        if threads == 1:
            run = RUN_TYPE(code.address(Driver(), "lucid_run"))
            self._enter = functools.partial(_run_alone, run, code)
        else:  # looked up each time: a fork makes another team
            self._enter = lambda call: team(target, threads).run(call)
        return self._enter

    @contextmanager
    def _workspace(self, bound: BoundProgram) -> Iterator[Workspace]:
        """Memory for one call; calls at the same time have one each, and leave it to later ones."""
        try:  # pop and append are atomic
            workspace = self._free.pop()
        except IndexError:
            workspace = Workspace(self.threads, bound.needs)
        if not workspace.fits(bound):
            workspace = workspace.larger(bound)
        try:
            yield workspace
        finally:
            self._free.append(workspace)

    def _drop_workspaces(self) -> None:
        """Let go of those that are larger than any plan needs, now that one was dropped."""
        largest = max(plan.bound.arena_bytes for plan in self._plans.values())
        self._free[:] = [w for w in self._free if w.capacity[0] <= largest]

    # -- weights ----------------------------------------------------------------------------

    def load_weights(self, weights: Any) -> CompiledModel:
        """Swap the weights without recompiling.

        `weights`: the path of a weight file, tensors by name, or another training of the network: a
        module, the path of an ONNX file or of a .lucid file. Names tell the tensors of modules; the
        file of an ONNX or saved model may name them otherwise, and must hold the same graph.

        Calls in flight finish with the old weights. Tensors are read, not copied, now and when
        another size is planned: do not write to them. Raises WeightsError, and keeps the old.
        """
        store = WeightStore(self._source.match(weights, list(self._plans)))
        with PLANNING:
            programs = [plan.bound.program for plan in self._plans.values()]
            store.ensure([w for p in programs for w in p.weights.values()], self._progress)
            plans: dict[Shapes, Plan] = {}
            for shapes, plan in self._plans.items():
                bound = BoundProgram(plan.bound.program, plan.bound.code, store)
                plans[shapes] = dataclasses.replace(plan, bound=bound)
            self._weights, self._plans = store, plans
        return self

    # -- keeping ----------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        targets: Sequence[str] | None = None,
        *,
        weights: str = "packed",
    ) -> CompiledModel:
        """Write the model to a file that `lucid.load` opens: graphs and choices for the shapes
        planned so far, weights, and object code for each of the `targets` (by name; by default the
        one compiled for), which are not run. A file that is there is replaced in the end, or stays
        as it is.

        `weights`: "packed" holds them as the kernels of the targets read them, which is quickest to
        load and serves those targets and this version of Lucid; "plain" as the model has them, and
        loading packs them, on any machine; "both" serves all. Raises InputError before the first
        shape is planned, UnknownNameError, WeightsError for plain weights of a model that was
        loaded without, OSError.
        """
        from lucid.runtime.saving import save

        save(self.snapshot(), path, targets, weights)
        return self

    def snapshot(self) -> Snapshot:
        """All that a file of the model is made from. Raises InputError before there is a plan."""
        first = self._shapes_or_first(None)
        try:
            json.dumps(self.metadata)
        except (TypeError, ValueError) as problem:
            raise InputError(f"metadata must be what JSON can say: {problem}") from problem
        with PLANNING:
            first_plan = self._plan(first)  # which may have been dropped
            plans = {first: first_plan, **self._plans}
        return Snapshot(
            self._source, plans, self.target, self.threads, self._basis, self._cache, self.metadata
        )

    # -- looking inside ---------------------------------------------------------------------

    def program(self, shape: ShapeArgument | None = None) -> Program:
        """The Program for an input shape (by default the one compiled for)."""
        return self.prepare(self._shapes_or_first(shape))

    def profile(self, x: Any, runs: int = 20) -> Profile:
        """Profile a call with `x`, measured inside the generated code in `runs` runs:
        by kernel call, by module, by thread (`print` it, or see `lucid.runtime.profile`).

        `x`: the one input, or a tuple or list of them, or a mapping by name. Of a batch larger than
        16 its first slice is run. Raises InputError.
        """
        from lucid.runtime.profile import Profiler

        if runs < 1:
            raise InputError(f"a profile takes one run at least, not {runs}")
        named = x if isinstance(x, Mapping) else {}
        inputs = x if isinstance(x, tuple | list) else () if named else (x,)
        given = self._inputs.in_order(inputs, named)
        arrays = self._inputs.read(given)
        plan, _ = self._planned(given, arrays)
        batch = min(len(arrays[0]), MAX_BATCH)
        if not batch:
            raise InputError("an empty batch has no profile")
        arrays = [np.ascontiguousarray(array[:batch]) for array in arrays] + plan.outputs(batch)
        addresses = [array.ctypes.data for array in arrays]
        profiler = Profiler(self.target, self.threads, self._cache, self._progress)
        return profiler.profile(plan.bound, self._source.name, addresses, runs)

    def explanation(self, shape: ShapeArgument | None = None) -> Explanation:
        """For each node of the optimised graph what was fused into it, what was not and why, which
        kernel it got and why, and how its work is cut. `shape` as in `ir`."""
        shapes = self._shapes_or_first(shape)
        program, graph = self.program(shapes), self._graph(shapes)
        misses = self._source.rewrites(with_batch(shapes, 1)).misses
        made = (self.schedule, program, self.target, self.threads, self._basis)
        return explain(graph, misses, *made)

    def explain(self, shape: ShapeArgument | None = None) -> str:
        """The same as text."""
        return str(self.explanation(shape))

    @property
    def schedule(self) -> Schedule:
        """The choices made for the first shape."""
        if self._schedule is None:
            self._shapes_or_first(None)  # raises
        assert self._schedule is not None
        return self._schedule

    def stages(self) -> list[str]:
        """The names that `ir` takes, in the order in which a model goes through them."""
        return [*self._source.stages(), "scheduled", "llvm", "asm"]

    def ir(self, stage: str = "fused", shape: ShapeArgument | None = None) -> str:
        """The model as text at a stage: a graph (`captured`, after a pass by its name, `fused`),
        its Program (`scheduled`), or its kernels (`llvm`, `asm`).

        `shape`: an input shape, by default the one compiled for. Raises UnknownNameError.
        """
        if stage not in self.stages():
            names = ", ".join(self.stages())
            raise UnknownNameError(f"no stage is named {stage!r}; there are {names}")
        shapes = self._shapes_or_first(shape)
        if stage == "scheduled":
            return str(self.program(shapes))
        if stage not in ("llvm", "asm"):
            return str(self._source.stage(with_batch(shapes, 1), stage))
        text, comment = (ir_text, ";") if stage == "llvm" else (assembly, "#")
        with PLANNING:  # which keeps LLVM's own lock out of forks
            return "\n".join(
                f"{comment} kernel {' '.join(str(kernel).split())}\n{text(kernel, self.target)}"
                for kernel in self.program(shapes).kernels()
            )


def _run_alone(run: Callable[[int, int, int], int], code: Code, call: int) -> int:
    """Run a call table on this thread; `code` is what `run` is of, and stays as long as this."""
    return int(run(call, 0, 1))


def _rows_of(dimension: int | Dim, rows: slice) -> slice:
    """The part of an array that a slice of the batch has; its first dimension may be 2N."""
    assert isinstance(dimension, Dim)
    return slice(rows.start * dimension.coefficient, rows.stop * dimension.coefficient)


def _checked_out(out: Any, results: Sequence[Array]) -> Array:
    """`out` for the model's one result. Raises InputError where it does not suit."""
    if len(results) != 1:
        raise InputError(f"out= takes one array, the model has {len(results)} outputs")
    (result,) = results
    wanted = f"out wants a {result.dtype} array {list(result.shape)}, contiguous and writeable"
    if not isinstance(out, np.ndarray):
        raise InputError(f"{wanted}, got {type(out).__name__}")
    if out.dtype != result.dtype or out.shape != result.shape:
        raise InputError(f"{wanted}, got {describe(out)}")
    if not out.flags.carray:  # contiguous, aligned, writeable
        raise InputError(f"{wanted}; this one is not")
    return out
