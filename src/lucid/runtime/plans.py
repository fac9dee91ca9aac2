"""The parts of a compiled model: its source of graphs, its plans, and their saved form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lucid.codegen.language.dtypes import dtype
from lucid.ir.types import batch_of
from lucid.runtime.binding import BoundProgram
from lucid.runtime.steps import HostOp, HostStep, NativeStep

if TYPE_CHECKING:
    from lucid.codegen.program.program import Program
    from lucid.codegen.scheduling.basis import Basis
    from lucid.codegen.scheduling.schedule import Schedule
    from lucid.codegen.target import Target
    from lucid.ir.graph import Graph, State
    from lucid.ir.ops.base import Array
    from lucid.ir.passes import RewriteLog
    from lucid.ir.stage import Rest
    from lucid.ir.structure import Structure
    from lucid.ir.types import Shapes
    from lucid.runtime.binding import BoundTables
    from lucid.runtime.kernel_compiler import Objects
    from lucid.runtime.signature import Interface
    from lucid.runtime.steps import Step
    from lucid.runtime.weights import Prepared, WeightStore


class Source(Protocol):
    """What the compiler hands in: graphs for image sizes, at every stage, and how to match a
    checkpoint with the model's tensors."""

    @property
    def name(self) -> str:
        """What the model is called."""

    @property
    def dtypes(self) -> Sequence[str] | None:
        """Of the model's inputs, in order; None where nothing is known of them yet."""

    @property
    def input_names(self) -> Sequence[str] | None:
        """Of the model's inputs, in order, where they are known before there is a graph."""

    @property
    def structure(self) -> Structure | None:
        """How the model's outputs are put together; None: one as it is, several as a tuple."""

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        """The shapes of the inputs that these are; from then on `dtypes` and `input_names` are
        known. Raises InputError."""

    def graph(self, shapes: Shapes) -> Graph:
        """The optimised graph for inputs of these shapes and those dtypes: they are what the types
        of its inputs say for one size of the batch. Raises InputError where the shapes fit none."""

    def rest(self, shapes: Shapes) -> Rest | None:
        """What is to be done with the results of the graph for inputs of exactly these shapes,
        before they are the model's outputs."""

    def stages(self) -> list[str]:
        """The names that `stage` takes, in order."""

    def stage(self, shapes: Shapes, name: str) -> Graph:
        """The graph after one stage: `captured`, a pass by name, or `fused`."""

    def rewrites(self, shapes: Shapes) -> RewriteLog:
        """What the passes do to the graph, and what they nearly do."""

    @property
    def disable(self) -> Sequence[str]:
        """The passes that are left out."""

    def state(self) -> State:
        """The tensors that `match` takes."""

    def match(self, weights: Any, sizes: Sequence[Shapes] = ()) -> Mapping[str, Any]:
        """A checkpoint (path, state dict, or a network, which is compared for inputs of these
        sizes) as tensors by name, every tensor of the model among them. Raises WeightsError."""


@dataclass(frozen=True, eq=False)
class Sized:
    """A graph, which serves all shapes that the types of its inputs allow. `obstacle`: why a batch
    cannot be run in slices, None where it can be (`lucid.ir.batch`)."""

    graph: Graph
    obstacle: str | None

    def batch(self, shapes: Shapes) -> int | None:
        """The batch in inputs of these shapes; None where the graph does not serve them."""
        return batch_of(self.graph.input_types(), shapes)


@dataclass(eq=False)
class Plan:
    """What calls with inputs of some shapes need: the graph, and its steps, whose programs are
    bound to addresses.

    `whole`: the program where it alone computes the graph. `rest`: what is done with the results.
    `used` says when the plan was called last, in calls of its model; all else never changes.
    """

    graph: Graph
    batch: int
    schedule: Schedule
    steps: Sequence[Step]
    weights: WeightStore
    rest: Rest | None
    used: int
    whole: BoundProgram | None = field(init=False)

    def __post_init__(self) -> None:
        alone = self.steps[0] if len(self.steps) == 1 else None
        self.whole = alone.bound if isinstance(alone, NativeStep) else None

    @property
    def native(self) -> list[NativeStep]:
        """The native calls, in order."""
        return [step for step in self.steps if isinstance(step, NativeStep)]

    @property
    def programs(self) -> list[Program]:
        """Those of the native calls, in order."""
        return [step.bound.program for step in self.native]

    @property
    def host_ops(self) -> tuple[HostOp, ...]:
        """What runs on the host, in order, as far as that is known."""
        behind = [] if self.rest is None else self.rest.host_ops
        return (
            *(step.op for step in self.steps if isinstance(step, HostStep)),
            *(HostOp(kind, "", where, None) for kind, where in behind),
        )

    def rebound(self, weights: WeightStore) -> Plan:
        """The plan over other weights, which are packed for its programs already."""
        steps = [
            NativeStep(s.region, BoundProgram(s.bound.program, s.bound.code, weights))
            if isinstance(s, NativeStep)
            else HostStep.of(s.node, self.graph, weights)
            for s in self.steps
        ]
        return replace(self, steps=steps, weights=weights)


@dataclass(frozen=True, eq=False)
class Ready:
    """A plan from a file, for calls alone: one program computes all outputs. `graph`: what is known
    of it without reading it, the same for all batches. `weights`: what keeps them in memory."""

    graph: Interface
    batch: int
    whole: BoundTables
    weights: object
    rest: None = None
    host_ops: tuple[HostOp, ...] = ()


class Slices(NamedTuple):
    """The plans of one call: of the slices of its batch in order, over the same weights, each with
    how many rows it takes. The last slice may have fewer, and an empty batch has one slice.

    `graph`: says which inputs and outputs have the batch. The plans may be of other graphs, without
    a batch: those that were made for shapes which a slice has by chance.
    """

    parts: Sequence[tuple[Plan | Ready, int]]
    batch: int
    graph: Graph | Interface

    @staticmethod
    def one(plan: Plan | Ready) -> Slices:
        """A batch that is run whole."""
        return Slices(((plan, plan.batch),), plan.batch, plan.graph)

    @property
    def whole(self) -> Plan | Ready:
        """The plan of the first slice."""
        return self.parts[0][0]

    @property
    def is_one(self) -> bool:
        """Whether the batch is run whole."""
        return self.parts[0][1] == self.batch

    def outputs(self) -> list[Array]:
        """Empty arrays for the outputs."""
        types = [v.type for v in self.graph.outputs]
        return [np.empty(t.concrete(self.batch), dtype(t.dtype).storage) for t in types]


@dataclass(frozen=True)
class Saved:
    """What is known beforehand of a model that was saved: choices by the shapes of the inputs,
    weights, and plans for calls of such shapes, that of the first plan first."""

    schedules: Mapping[Shapes, Schedule] = field(default_factory=dict)
    weights: Prepared | None = None
    ready: Mapping[Shapes, Ready] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A compiled model as it is at one moment; the first of the plans settled the algorithms."""

    source: Source
    plans: Mapping[Shapes, Plan]
    target: Target
    threads: int
    basis: Basis
    cache: Objects | None
    metadata: Mapping[str, Any]


def continued(
    known: Schedule | None,
    graph: Graph,
    batch: int,
    choose: Callable[[Graph, int], Schedule],
) -> Schedule:
    """The choices made for the first shape; new ones for layers that it did not have, where the
    model's forward branches on the size of the image."""
    from lucid.codegen.scheduling.schedule import Schedule, without_choice

    if known is None:
        return choose(graph, batch)
    strangers = without_choice(known, graph, batch)
    if not strangers:
        return known
    fresh = choose(graph, batch).choices
    kept = {n: c for n, c in known.choices.items() if n in fresh and n not in strangers}
    return Schedule({**fresh, **kept})
