"""`CompiledModel`, the result of `lucid.compile`: calls, weights, and looking inside.

A call of a known size takes no lock: it looks up its plan (`planner`), is admitted (`admission`),
checks out a workspace, and enters native code, which releases the GIL (`running`).
"""

from __future__ import annotations

import functools
import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.codegen.language.dtypes import dtype
from lucid.codegen.scheduling.basis import Basis
from lucid.errors import CompileError, InputError, TraceError, UnknownNameError, UnsupportedError
from lucid.runtime import log
from lucid.runtime.crash import CrashReporter
from lucid.runtime.inputs import Inputs
from lucid.runtime.outputs import Outputs
from lucid.runtime.planner import Planner
from lucid.runtime.planning import PLANNING
from lucid.runtime.plans import Plan, Saved, Snapshot
from lucid.runtime.running import Runner
from lucid.runtime.signature import Signature, TensorSpec, as_html, specs
from lucid.runtime.slices import compute
from lucid.runtime.steps import run_steps, warn_of_host_ops
from lucid.runtime.weights import WeightStore

if TYPE_CHECKING:
    from lucid.codegen.program.program import Program
    from lucid.codegen.scheduling.explain import Explanation
    from lucid.codegen.scheduling.schedule import Schedule
    from lucid.codegen.target import Target
    from lucid.ir.graph import Graph
    from lucid.ir.ops.base import Array
    from lucid.ir.types import ShapeArgument, Shapes
    from lucid.runtime.binding import BoundTables
    from lucid.runtime.kernel_compiler import Objects, Progress
    from lucid.runtime.plans import Ready, Slices, Source
    from lucid.runtime.profile_report import Profile
    from lucid.runtime.signature import Interface
    from lucid.runtime.steps import HostOp


class CompiledModel:
    """A model compiled to native code. It takes and returns NumPy arrays (or the like), of any
    batch where it has one, and can be called from any thread.

    `threads`: the size of the team that runs a call; with 1, a call runs on its caller's thread,
    and calls run concurrently. `queue_policy` says what becomes of a call while others run.
    `threads_asked`: the number that was asked for, None where it is the process's default; a pickle
    carries it. Results are bitwise identical for any number of threads,
    and where rows are independent (`explain` says so) for a batch run whole or in parts.
    `input_shapes`: of the inputs, in order, as compiled for; None before. A `shape` given to a
    method is that of the one input, or a sequence of shapes, one for each. `metadata`: JSON data
    that `save` stores with the model. `living_stages`: those of `further_stages`, in order, for as
    long as who runs them keeps them.
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
        host_ops: str = "run",
    ) -> None:
        self.target = target
        self.threads = threads
        self.threads_asked: int | None = None
        self.input_shapes: Shapes | None = None
        self.metadata: dict[str, Any] = {}
        self.living_stages = weakref.WeakValueDictionary[int, CompiledModel]()
        self._source = source
        self._inputs = Inputs(source.name, source.dtypes, source.input_names)
        self._cache = cache
        self._progress = progress
        self._crashes = crashes or CrashReporter(lambda shapes: source.stage(shapes, "captured"))
        self._basis = basis or Basis()
        self._runner = Runner(target, threads)
        self._planner = Planner(
            source,
            schedule_for,
            target,
            threads,
            cache,
            progress,
            self._crashes,
            saved or Saved(),
            self._runner,
            host_ops == "run",
        )
        self._signature: Signature | None = None
        self._outputs: Outputs
        self._host_ops: dict[HostOp, None] = {}

    def __repr__(self) -> str:
        told = self._signature or "not compiled yet"
        return f"<CompiledModel {self._source.name}: {told}; {self._facts()}>"

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return as_html(f"CompiledModel {self._source.name}", self._facts(), self._signature)

    def _facts(self) -> str:
        return f"{self.target.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def queue_policy(self) -> str:
        """What becomes of a call while other calls run, of this model or others; it may be changed
        at any time, and changes no bit of a result. All calls of a process hold no more processors
        than it may use, and those that wait are served in the order in which they came. Raises
        UnknownNameError where it is set to something else than

        - `"adaptive"`: it runs on its caller's thread alone, or waits where all processors are
          held: the most calls a second, and for a single caller all threads. Where one thread is
          all that it takes (`threads=1`, or a small network) it never waits.
        - `"block"`: it waits until it can have all its threads (`threads=1`: a processor).
        - `"single-thread"`: it runs on its caller's thread alone, and never waits.
        """
        return self._runner.policy

    @queue_policy.setter
    def queue_policy(self, policy: str) -> None:
        self._runner.policy = policy
        for stage in self.further_stages:
            stage.queue_policy = policy

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each input, for the size compiled for. Raises InputError where
        the model is not compiled yet, as `outputs` does."""
        return self._known_signature().inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each output, in flat order; sizes that are known only once the
        model has run are `"?"`."""
        return self._known_signature().outputs

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """`input_shapes` of a model with one input. Raises InputError where it has another
        number."""
        if self.input_shapes is None:
            return None
        if len(self.input_shapes) != 1:
            raise InputError(f"{self._inputs}: their shapes are `input_shapes`")
        return self.input_shapes[0]

    def _known_signature(self) -> Signature:
        self._shapes_or_first(None)  # raises
        assert self._signature is not None
        return self._signature

    # -- planning ---------------------------------------------------------------------------

    def prepare(self, shape: ShapeArgument) -> Program:
        """Plan, compile and pack for inputs of this shape now, not at the first call.

        The Program of its first slice, which is the whole batch up to 16; of the first region
        where ops run on the host (see `programs`). Raises InputError.
        """
        shapes = self._shapes_or_first(shape)
        try:
            whole = self._plan_of(shapes)
        except (InputError, TraceError) as problem:
            likely = self._inputs.likely(shapes)
            if not likely:
                raise
            raise InputError(f"{problem}; {likely}") from problem
        return self._programs(whole)[0]

    def _programs(self, plan: Plan) -> list[Program]:
        """Those of a plan; one that does nothing where it has none."""
        from lucid.codegen.program.program import Program

        return plan.programs or [Program(plan.graph.name, self.target.name, plan.batch)]

    def prepare_examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Program:
        """`prepare` for inputs like these arrays or tensors."""
        shapes = self._source.examples(inputs, named)
        self._inputs.know(self._source.dtypes, self._source.input_names)
        return self.prepare(shapes)

    def prepare_calls(self, shapes: Shapes) -> None:
        """`prepare` for calls alone, which a file may have all for."""
        plan = self._plans_for(shapes).whole
        if self._signature is None:
            self._learn_signature(plan)

    def _plans_for(self, shapes: Shapes) -> Slices:
        """What a call needs."""
        plans = self._planner.for_call(shapes)
        if self._planner.fresh:
            self._take_note()
        return plans

    def _plan_of(self, shapes: Shapes) -> Plan:
        """The plan of the whole batch, or of its first slice."""
        self._plan_ready()
        plan = self._plans_for(shapes).whole
        assert isinstance(plan, Plan)
        return plan

    def _plan_ready(self) -> None:
        """Let nothing be ready for calls alone."""
        if self._planner.ready:
            self._planner.plan_ready()

    def _take_note(self) -> None:
        """Take inputs and outputs from the first plan, and warn of what is new on the host."""
        with PLANNING:
            fresh, self._planner.fresh = self._planner.fresh, []
            if self._signature is None and fresh:
                self._learn_signature(fresh[0])
            found = dict.fromkeys(op for plan in fresh for op in plan.host_ops)
            new = [op for op in found if op not in self._host_ops]
            self._host_ops |= dict.fromkeys(new)
        if new:
            warn_of_host_ops(self._source.name, new)

    def _learn_signature(self, plan: Plan | Ready) -> None:
        name, graph, rest = self._source.name, plan.graph, plan.rest
        self._inputs.compiled(graph.inputs)
        names = () if rest is None else [told[0] for told in rest.outputs]
        self._outputs = Outputs(name, graph.outputs, self._source.structure, rest is None, names)
        self.input_shapes = graph.input_shapes(plan.batch)
        outputs = specs(graph.outputs)
        if rest is not None:
            outputs = tuple(TensorSpec(n, dtype(d).numbers, s) for n, d, s in rest.outputs)
        self._signature = Signature(specs(graph.inputs), outputs)
        log.dump(self, name, self.input_shapes)

    @property
    def host_ops(self) -> tuple[HostOp, ...]:
        """The nodes without a kernel, which run on the host, in all plans so far: op, result,
        module path and source line of each."""
        return tuple(self._host_ops)

    @property
    def further_stages(self) -> list[CompiledModel]:
        """What was compiled for the last calls of a model that goes on by the sizes or elements of
        what it has computed."""
        references = self.living_stages.valuerefs()
        return [stage for reference in references if (stage := reference()) is not None]

    def graph(self, shape: ShapeArgument | None = None) -> Graph:
        """The optimised graph for an image size (by default the one compiled for)."""
        return self._planner.sized(self._shapes_or_first(shape)).graph

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

    def __call__(self, *inputs: Any, out: Any = None, **named: Any) -> Any:
        """The model's outputs, put together as the model's forward does, in the kind of array that
        the first input is.

        `inputs`: arrays in the order of `self.inputs`, or by their names, or one mapping from
        names; each of the dtype and rank that `self.inputs` says, a number where it has no axes.
        Sizes that depend on the batch agree in all inputs; other sizes than those compiled for are
        planned first. `out`: an array to write to, or for several outputs a sequence of arrays or a
        mapping by the names in `self.outputs`: contiguous, of the shapes and dtypes of the results,
        apart from one another. They are then the result. Not for outputs whose sizes are known only
        once the model has run.

        Raises InputError; UnsupportedError, TraceError where the model cannot be compiled for these
        sizes, or a later stage of it cannot be read."""
        given, arrays = self.read(inputs, named)
        plans = self._planned(given, arrays)
        rest, results = plans.whole.rest, plans.outputs()
        if out is not None:
            outs = self._outputs.given(out, results)
            results = self._outputs.stored(outs, results)
            arrays = [_apart(a, results) for a in arrays]
            compute(plans, self._run, arrays, results)
            return self._outputs.together(outs)
        compute(plans, self._run, arrays, results)
        if rest is not None:
            results = rest.finish(results, self._inputs.apart(given))
        return self.wrapped(given, results)

    async def acall(self, *inputs: Any, out: Any = None, **named: Any) -> Any:
        """A call that asyncio awaits, with the arguments and results of `__call__`.

        It runs on one of as many threads as there are processors, which all models share; one that
        is cancelled before it has begun does not begin. Do not write to the inputs before it is
        done. Raises what a call raises."""
        import asyncio

        from lucid.runtime.executor import executor

        call = functools.partial(self, *inputs, out=out, **named)
        return await asyncio.get_running_loop().run_in_executor(executor(), call)

    def read(
        self, inputs: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[Sequence[Any], list[Array]]:
        """The inputs of a call in the model's order, and as arrays of its dtypes, as they are
        stored. Raises InputError."""
        given = inputs
        if (
            named
            or len(inputs) != self._inputs.count
            or (inputs and isinstance(inputs[0], Mapping))
        ):
            given = self._in_order(inputs, named)
        return given, self._inputs.read(given)

    def independent(self, shapes: Shapes) -> Graph | Interface | None:
        """The graph for inputs of these shapes, where each row of each output depends on that row
        of the inputs alone, all of which have a batch in front; else, and before anything is
        compiled, None. Raises what compiling it for these shapes raises."""
        if self.input_shapes is None:
            return None
        graph: Graph | Interface | None = self._planner.stored(shapes)
        if graph is None:
            sized = self._planner.sized(shapes)
            apart = not sized.obstacle and self._source.rest(shapes) is None
            graph = sized.graph if apart else None
        whole = graph is not None and all(kind.batch_axes() for kind in graph.input_types())
        return graph if whole else None

    def wrapped(self, given: Sequence[Any], results: Sequence[Array]) -> Any:
        """The flat outputs of a call put together, in the kind of array that its first input is."""
        return self._outputs.wrapped(given[0] if given else None, results)

    def results(self, arrays: Sequence[Array]) -> list[Array]:
        """The flat outputs for inputs that are all arrays as they are stored (`ir.stage.Stage`)."""
        plans = self._plans_for(tuple([array.shape for array in arrays]))
        rest, results = plans.whole.rest, plans.outputs()
        compute(plans, self._run, arrays, results)
        return results if rest is None else rest.finish(results)

    def _in_order(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Inputs by position and by name, in the model's order; where nothing is known of those
        yet, they are the first examples. Raises InputError."""
        if self._inputs.count is None:
            mapping = len(inputs) == 1 and not named and isinstance(inputs[0], Mapping)
            self._source.examples(() if mapping else inputs, inputs[0] if mapping else named)
            self._inputs.know(self._source.dtypes, self._source.input_names)
        return self._inputs.in_order(inputs, named)

    def _planned(self, given: Sequence[Any], arrays: Sequence[Array]) -> Slices:
        """The plans for the inputs `given`, which are `arrays` once they are read."""
        try:
            return self._plans_for(tuple([array.shape for array in arrays]))
        except (InputError, TraceError, UnsupportedError) as problem:
            advice = self._inputs.advice(given, arrays)
            if not advice and not isinstance(problem, InputError):
                raise
            told = advice or f"{self._inputs.compared(arrays)}: {problem}"
            raise InputError(told) from problem
        finally:
            if self._signature is None:  # it failed, and another first call may do better
                self._inputs.know(self._source.dtypes, self._source.input_names)

    def _run(self, plan: Plan | Ready, arrays: Sequence[Array], results: Sequence[Array]) -> None:
        """One call of a plan."""
        if plan.whole is not None:
            self._enter(plan, plan.whole, (*arrays, *results))
            return
        assert isinstance(plan, Plan)
        native = functools.partial(self._enter, plan)
        with self._crashes.watching(plan.graph.input_shapes(plan.batch)):
            run_steps(plan.graph, plan.steps, plan.batch, plan.weights, native, arrays, results)

    def _enter(self, plan: Plan | Ready, bound: BoundTables, arrays: Sequence[Array]) -> None:
        """Run one of a plan's programs on its inputs and outputs."""
        status = self._runner.run(bound, [a.ctypes.data for a in arrays])
        if status:
            with self._crashes.watching(plan.graph.input_shapes(plan.batch)):
                raise CompileError(f"the native runtime refused the program (status {status})")

    # -- weights ----------------------------------------------------------------------------

    def load_weights(self, weights: Any) -> CompiledModel:
        """Swap the weights without recompiling.

        `weights`: the path of a weight file, tensors by name, or another training of the network: a
        module, the path of an ONNX file or of a .lucid file. Names tell the tensors of modules; the
        file of an ONNX or saved model may name them otherwise, and must hold the same graph.

        Calls in flight finish with the old weights. Tensors are read, not copied, now and when
        another size is planned: do not write to them. Raises WeightsError, and keeps the old.
        """
        self._refuse_stages(
            "has no weights to swap", "put the weights into the model, and compile that"
        )
        self._plan_ready()
        store = WeightStore(self._source.match(weights, list(self._planner.plans)))
        self._planner.swap(store)
        return self

    # -- keeping ----------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        targets: Sequence[str] | None = None,
        *,
        weights: str | None = None,
    ) -> CompiledModel:
        """Write the model to a file that `lucid.load` opens: graphs and choices for the shapes
        planned so far, weights, and object code for each of the `targets` (by name; by default the
        one compiled for), which are not run. A file that is there is replaced in the end, or stays
        as it is.

        `weights`: "packed" holds them as the kernels of the targets read them, which serves those
        targets and this version of Lucid; "compact" the same in less room, and the first process
        on a host that loads it makes the rest, in the cache folder; "plain" as the model has them,
        and loading packs them, on any machine; "both" is packed and plain. By default compact, but
        packed for a model that was loaded from a packed file, which has no less. Raises InputError
        before the first shape is planned, UnknownNameError, WeightsError for other weights, or
        another target, than such a model has, UnsupportedError for one with further stages,
        OSError.
        """
        from lucid.runtime.saving import save

        save(self.snapshot(), path, targets, weights)
        return self

    def snapshot(self) -> Snapshot:
        """All that a file of the model is made from. Raises InputError before there is a plan."""
        first = self._shapes_or_first(None)
        self._refuse_stages(
            "cannot be saved or pickled",
            "compile the model where it is to run; the cache on disk keeps what was compiled",
        )
        try:
            json.dumps(self.metadata)
        except (TypeError, ValueError) as problem:
            raise InputError(f"metadata must be what JSON can say: {problem}") from problem
        with PLANNING:
            self._plan_ready()
            first_plan = self._planner.plan(first)  # which may have been dropped
            plans = {first: first_plan, **self._planner.plans}
        return Snapshot(
            self._source, plans, self.target, self.threads, self._basis, self._cache, self.metadata
        )

    def _refuse_stages(self, what: str, advice: str) -> None:
        """Raises UnsupportedError for a model with further stages."""
        if any(plan.rest is not None for plan in list(self._planner.plans.values())):
            raise UnsupportedError(
                f"{self._source.name} {what}: sizes or elements that it computes decide how it goes"
                " on, so its further stages, and the weights in them, are read from the model only "
                f"as they are needed. Instead, {advice}"
            )

    # -- looking inside ---------------------------------------------------------------------

    def program(self, shape: ShapeArgument | None = None) -> Program:
        """The Program for an input shape (by default the one compiled for)."""
        return self.prepare(self._shapes_or_first(shape))

    def programs(self, shape: ShapeArgument | None = None) -> list[Program]:
        """The Programs for an input shape, one for each native call, in order: one, unless ops run
        on the host."""
        shapes = self._shapes_or_first(shape)
        self.prepare(shapes)
        return self._programs(self._plan_of(shapes))

    def profile(self, x: Any, runs: int = 20) -> Profile:
        """Profile a call with `x`, measured inside the generated code in `runs` runs:
        by kernel call, by module, by thread (`print` it, or see `lucid.runtime.profile`).

        `x`: the one input, or a tuple or list of them, or a mapping by name. Of a batch larger than
        16 its first slice is run. Raises InputError.
        """
        if runs < 1:
            raise InputError(f"a profile takes one run at least, not {runs}")
        named = x if isinstance(x, Mapping) else {}
        inputs = x if isinstance(x, tuple | list) else () if named else (x,)
        given = self._in_order(inputs, named)
        arrays = self._inputs.read(given)
        self._plan_ready()  # or says that there is no compiler, as what follows needs
        from lucid.runtime.inspection import profile_of
        from lucid.runtime.profile import Profiler

        plans = self._planned(given, arrays)
        profiler = Profiler(self.target, self.threads, self._cache, self._progress)
        return profile_of(profiler, plans, self._source.name, arrays, runs)

    def explanation(self, shape: ShapeArgument | None = None) -> Explanation:
        """For each node of the optimised graph what was fused into it, what was not and why, which
        kernel it got and why, and how its work is cut. `shape` as in `ir`."""
        shapes = self._shapes_or_first(shape)
        self.prepare(shapes)
        from lucid.runtime.inspection import explanation_of

        plan = self._plan_of(shapes)
        misses = self._source.rewrites(shapes).misses
        made = self.target, self.threads, self._basis
        return explanation_of(plan, misses, self.schedule, *made)

    def explain(self, shape: ShapeArgument | None = None) -> str:
        """The same as text; without a shape, that of the further stages compiled so far as well."""
        further = [stage.explain() for stage in self._further(shape)]
        return "\n".join([str(self.explanation(shape)), *further])

    def _further(self, shape: ShapeArgument | None) -> list[CompiledModel]:
        """The further stages that are shown with the model: all that are compiled, unless a shape
        is asked for."""
        further = self.further_stages if shape is None else []
        return [stage for stage in further if stage.input_shapes is not None]

    @property
    def schedule(self) -> Schedule:
        """The choices made for the first shape."""
        if self._planner.schedule is None:
            self._plan_of(self._shapes_or_first(None))
        assert self._planner.schedule is not None
        return self._planner.schedule

    def stages(self) -> list[str]:
        """The names that `ir` takes, in the order in which a model goes through them."""
        self._plan_ready()
        from lucid.runtime.inspection import CODE_STAGES

        return [*self._source.stages(), *CODE_STAGES]

    def ir(self, stage: str = "fused", shape: ShapeArgument | None = None) -> str:
        """The model as text at a stage: a graph (`captured`, after a pass by its name, `fused`),
        its Program (`scheduled`), or its kernels (`llvm`, `asm`).

        `shape`: an input shape, by default the one compiled for, and with it the further stages
        compiled so far. Raises UnknownNameError.
        """
        stages = self.stages()
        from lucid.runtime.inspection import CODE_STAGES, code_of

        if stage not in stages:
            raise UnknownNameError(f"no stage is named {stage!r}; there are {', '.join(stages)}")
        shapes = self._shapes_or_first(shape)
        if stage in CODE_STAGES:
            text = code_of(self.programs(shapes), stage, self.target)
        else:
            text = str(self._source.stage(shapes, stage))
        return "\n".join([text, *(further.ir(stage) for further in self._further(shape))])


def _apart(array: Array, results: Sequence[Array]) -> Array:
    """An input, copied where a result is to be written over it."""
    return array.copy() if any(np.may_share_memory(array, r) for r in results) else array
