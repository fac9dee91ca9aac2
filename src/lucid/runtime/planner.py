"""The plans of a compiled model: graphs, schedules, programs and weights for the shapes of calls.

Plans are made under PLANNING and stay as they are once made; a call of known shapes takes no lock.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lucid.errors import MissingPackageError, UnsupportedError
from lucid.ir.types import batch_of, sizes_text
from lucid.runtime.binding import BoundProgram
from lucid.runtime.library import library
from lucid.runtime.planning import PLANNING
from lucid.runtime.plans import Plan, Saved, Sized, Slices, continued
from lucid.runtime.steps import HostOp, HostStep, NativeStep, listed
from lucid.runtime.weights import WeightStore

if TYPE_CHECKING:
    from lucid.codegen.scheduling.schedule import Schedule
    from lucid.codegen.target import Target
    from lucid.ir.graph import Graph
    from lucid.ir.stage import Rest
    from lucid.ir.types import Shapes
    from lucid.runtime.crash import CrashReporter
    from lucid.runtime.kernel_compiler import Objects, Progress
    from lucid.runtime.plans import Ready, Source
    from lucid.runtime.running import Runner
    from lucid.runtime.signature import Interface

MAX_BATCH = 16
"""The largest batch of one plan whose rows are independent; the arena is linear in it, so larger
batches run in slices."""
PLANS_KEPT = 24
"""Plans of other sizes that are kept: a server's few image sizes by batches 1 to 16."""

schedule_log = logging.getLogger("lucid.schedule")


class Planner:
    """Makes and keeps the plans of one model.

    `plans`: by the shapes of the inputs; changed by who plans alone. `ready`: what calls need where
    a file has brought it, until it is replaced by such a plan. `weights`: packed so far.
    `first`, `schedule`: shapes and choices of the first plan, which settles algorithms for all;
    None before. `fresh`: plans that nobody has taken note of yet.
    """

    def __init__(
        self,
        source: Source,
        schedule_for: Callable[[Graph, int], Schedule],
        target: Target,
        threads: int,
        cache: Objects | None,
        progress: Progress | None,
        crashes: CrashReporter,
        saved: Saved,
        runner: Runner,
        runs_host_nodes: bool,
    ) -> None:
        self.plans: dict[Shapes, Plan] = {}
        self.first: Shapes | None = None
        self.schedule: Schedule | None = None
        self._source = source
        self._schedule_for = schedule_for
        self._target, self._threads = target, threads
        self._cache, self._progress = cache, progress
        self._crashes = crashes
        self._saved = saved
        self._runner = runner
        self._runs_host_nodes = runs_host_nodes
        self.weights: WeightStore | None = None
        self.ready = dict(saved.ready)
        self.fresh: list[Plan] = []
        self._graphs: Sequence[Sized] = ()  # replaced, never changed
        self._clock = itertools.count()
        self._native = library(target)

    # -- plans ------------------------------------------------------------------------------

    def for_call(self, shapes: Shapes) -> Slices:
        """What a call with inputs of these shapes needs."""
        ready = self.ready.get(shapes)
        if ready is not None:
            return Slices.one(ready)
        may_be_made_up = self.ready and shapes not in self.plans
        made_up = self._made_up(shapes) if may_be_made_up else None
        if made_up is not None and (_as_planned(made_up) or not has_compiler()):
            return made_up
        return self.plans_for(shapes)

    def stored(self, shapes: Shapes) -> Interface | None:
        """What is ready for some batch of inputs of these shapes, and keeps its rows apart."""
        graphs = (ready.graph for ready in list(self.ready.values()))
        return next(
            (g for g in graphs if g.apart and batch_of(g.input_types(), shapes) is not None), None
        )

    def _made_up(self, shapes: Shapes) -> Slices | None:
        """A batch in slices of those that are ready: the largest that there are rows for, and for
        what is left the smallest, which then computes rows for nobody."""
        graph = self.stored(shapes)
        plans = {r.batch: r for r in list(self.ready.values()) if r.graph == graph and r.batch}
        if graph is None or not plans:
            return None
        batch = batch_of(graph.input_types(), shapes)
        assert batch is not None
        sizes = sorted(plans, reverse=True)
        parts: list[tuple[Ready, int]] = []
        left = batch
        while left > 0 or not parts:
            size = next((size for size in sizes if size <= left), sizes[-1])
            parts.append((plans[size], size))
            left -= size
        return Slices(parts, batch, graph)

    def plan_ready(self) -> None:
        """Plan what was ready for calls alone, for who wants to know or change more."""
        with PLANNING:
            for shapes in list(self.ready):
                self.plan(shapes)
            self.ready.clear()

    def plans_for(self, shapes: Shapes) -> Slices:
        """The plans of a call with inputs of these shapes."""
        known = self.plans.get(shapes)
        if known is not None:
            known.used = next(self._clock)
            return Slices.one(known)
        sized = self.sized(shapes)
        batch = sized.batch(shapes)
        assert batch is not None, sized.graph
        if sized.obstacle or 1 <= batch <= MAX_BATCH or self._source.rest(shapes):
            return Slices.one(self.plan(shapes))
        sizes = _cuts(batch)
        plans = {n: self.plan(sized.graph.input_shapes(n)) for n in dict.fromkeys(sizes)}
        if plans[sizes[-1]].weights is not plans[sizes[0]].weights:  # another thread swapped them
            return self.plans_for(shapes)
        return Slices([(plans[n], n) for n in sizes], batch, sized.graph)

    def plan(self, shapes: Shapes) -> Plan:
        """The plan for inputs of exactly these shapes."""
        plan = self.plans.get(shapes)
        if plan is None:
            with PLANNING, self._crashes.watching(shapes):
                plan = self.plans.get(shapes) or self._make(shapes)
        plan.used = next(self._clock)
        return plan

    def _make(self, shapes: Shapes) -> Plan:
        require_compiler(f"{self._source.name} for inputs of {sizes_text(shapes)}")
        from lucid.codegen.kernels.admission import Admission
        from lucid.codegen.kernels.driver import Driver
        from lucid.codegen.lowering import Lowered, lower_parts

        first = next(iter(self.ready), shapes)
        if self.schedule is None and shapes != first:  # it settles the algorithms for all
            self.plan(first)
        sized = self.sized(shapes)
        graph, batch = sized.graph, sized.batch(shapes)
        assert batch is not None, graph
        schedule = self._schedule_of(graph, shapes, batch)
        parts = lower_parts(
            graph, schedule, self._target, batch, self._threads, self._runs_host_nodes
        )
        programs = [part.program for part in parts if isinstance(part, Lowered)]
        kernels = [k for p in programs for k in (*p.kernels(), *p.may_need)]
        code = self._native.load([*kernels, Driver(), Admission()], self._cache, self._progress)
        store = self.weights = self.weights or WeightStore(graph.payload, self._saved.weights)
        store.ensure([w for p in programs for w in p.weights.values()], self._progress)
        steps = [
            NativeStep(part.region, BoundProgram(part.program, code, store))
            if isinstance(part, Lowered)
            else HostStep.of(part.node, graph, store)
            for part in parts
        ]
        rest, used = self._rest(shapes), next(self._clock)
        plan = self.plans[shapes] = Plan(graph, batch, schedule, steps, store, rest, used)
        self.fresh.append(plan)
        if self.schedule is None:
            self.schedule, self.first = schedule, shapes
        if len(self.plans) > PLANS_KEPT:
            del self.plans[min(self.plans, key=lambda known: self.plans[known].used)]
            native = [step for plan in self.plans.values() for step in plan.native]
            self._runner.trim(max((step.bound.arena_bytes for step in native), default=0))
        return plan

    def _rest(self, shapes: Shapes) -> Rest | None:
        """Raises UnsupportedError where it runs on the host what is to be refused."""
        rest = self._source.rest(shapes)
        if rest is None or self._runs_host_nodes:
            return rest
        if rest.host_ops:
            ops = [HostOp(kind, "", where, None) for kind, where in rest.host_ops]
            count = f"{len(ops)} operators" if len(ops) > 1 else "1 operator"
            raise UnsupportedError(
                f"{count} of {self._source.name} would run in NumPy:{listed(ops)}"
            )
        rest.refuse_host_ops()
        return rest

    def swap(self, store: WeightStore) -> None:
        """Let all plans read these weights, which are packed for them first."""
        with PLANNING:
            self.plan_ready()
            programs = [program for plan in self.plans.values() for program in plan.programs]
            store.ensure([w for p in programs for w in p.weights.values()], self._progress)
            plans = {shapes: plan.rebound(store) for shapes, plan in self.plans.items()}
            self.weights, self.plans = store, plans
            self.fresh = list(plans.values()) if self.fresh else []
            self._saved = Saved(self._saved.schedules)  # whose weights nobody reads any more

    # -- schedules --------------------------------------------------------------------------

    def _schedule_of(self, graph: Graph, shapes: Shapes, batch: int) -> Schedule:
        from lucid.codegen.scheduling.schedule import without_choice

        saved = self._saved.schedules.get(shapes)
        if saved is not None and not without_choice(saved, graph, batch):
            return saved
        return continued(self.schedule, graph, batch, self._choose)

    def _choose(self, graph: Graph, batch: int) -> Schedule:
        schedule = self._schedule_for(graph, batch)
        for name, choice in schedule.choices.items():
            schedule_log.debug("%s: %s", name, choice)
        return schedule

    # -- graphs -----------------------------------------------------------------------------

    def sized(self, shapes: Shapes) -> Sized:
        """The optimised graph that serves inputs of these shapes."""
        return self._known(shapes) or self._capture(shapes)

    def _known(self, shapes: Shapes) -> Sized | None:
        return next((g for g in reversed(self._graphs) if g.batch(shapes) is not None), None)

    def _capture(self, shapes: Shapes) -> Sized:
        with PLANNING, self._crashes.watching(shapes):
            known = self._known(shapes)
            if known is not None:
                return known
            from lucid.ir.batch import obstacle

            graph = self._source.graph(shapes)
            sized = Sized(graph, obstacle(graph))
            self._graphs = [*self._graphs, sized][-PLANS_KEPT:]
            return sized


def _cuts(batch: int) -> list[int]:
    """The rows of the slices that planning cuts a batch into; an empty one has one slice."""
    whole, rest = divmod(batch, MAX_BATCH)
    return [MAX_BATCH] * whole + [rest] * (rest > 0) or [1]


def _as_planned(slices: Slices) -> bool:
    """Whether a batch that was made up is in several slices, as planning would cut it."""
    return slices.batch > MAX_BATCH and [n for _, n in slices.parts] == _cuts(slices.batch)


@functools.cache
def has_compiler() -> bool:
    """Whether the package is there that generates code, which is not imported for that."""
    try:
        return importlib.util.find_spec("llvmlite") is not None
    except ImportError:
        return False


def require_compiler(what: str) -> None:
    """Raises MissingPackageError where the package is missing that generates code."""
    try:
        from lucid.codegen.language import llvm  # noqa: F401
    except ImportError as problem:
        raise MissingPackageError(
            f"{what} is not ready to be called, and to compile it takes the package llvmlite, "
            f"which is not there ({problem}): pip install llvmlite; or save the model for this "
            "machine by this version of Lucid, once it has been prepared for these sizes"
        ) from problem
