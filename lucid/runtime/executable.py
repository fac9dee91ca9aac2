"""CompiledModel: what `lucid.compile` gives. Plans by size, weights by checkpoint, calls by thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Iterator, Protocol

import numpy as np

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.lowering import lower
from lucid.codegen.program import Program
from lucid.codegen.schedule import Schedule
from lucid.codegen.target import Target
from lucid.errors import CompileError, InputError
from lucid.ir.graph import Graph
from lucid.ir.ops.base import Array
from lucid.ir.types import Dim
from lucid.runtime.arrays import as_array, like
from lucid.runtime.binding import BoundProgram, Workspace
from lucid.runtime.cache import ObjectCache
from lucid.runtime.library import Progress, library
from lucid.runtime.team import RUN_TYPE, team
from lucid.runtime.weights import WeightStore

MAX_BATCH = 16
"""The largest batch of one plan; the arena is linear in it, so larger batches run in slices."""
PLANS_KEPT = 24
"""Plans of other sizes that are kept: a server's few image sizes by batches 1 to 16."""


class Source(Protocol):
    """What the compiler hands in: graphs for image sizes, at every stage, and how to match a
    checkpoint with the model's tensors."""

    def graph(self, shape: tuple[int, ...]) -> Graph:
        """The optimised graph for inputs of this shape. Raises InputError where it fits none."""

    def stage(self, shape: tuple[int, ...], name: str) -> Graph:
        """The graph after one stage: `captured`, a pass by name, or `fused`."""

    def match(self, weights: Any) -> Mapping[str, Any]:
        """A checkpoint (path or state dict) as tensors by name. Raises WeightsError."""


class CompiledModel:
    """A model compiled to native code: NumPy in, NumPy out, any batch, from any thread.

    `threads`: the team that runs a call; with 1, a call runs on its caller's thread and calls run
    side by side. Results are bitwise the same for any number of threads, and for a batch run whole
    or in parts.
    """

    def __init__(
        self,
        source: Source,
        schedule_for: Callable[[Graph, int], Schedule],
        target: Target,
        threads: int,
        cache: ObjectCache | None,
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._schedule_for = schedule_for
        self.target = target
        self.threads = threads
        self._cache = cache
        self._progress = progress
        self._schedule: Schedule | None = None
        self._weights: WeightStore | None = None
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._plans: OrderedDict[tuple[int, ...], Program] = OrderedDict()
        self._bound: dict[int, BoundProgram] = {}
        self._workspaces: list[Workspace] = []
        self._lock = threading.RLock()
        self.input_shape: tuple[int, ...] | None = None
        self._native = library(target)
        self._run = None

    # -- planning ---------------------------------------------------------------------------

    def prepare(self, shape: Sequence[int]) -> Program:
        """Plan, compile and pack for inputs of this shape now, not at the first call."""
        return self._bind(tuple(shape)).program

    def _bind(self, shape: tuple[int, ...]) -> BoundProgram:
        with self._lock:
            program = self._program(shape)
            bound = self._bound.get(id(program))
            if bound is None or bound.weights is not self._weights:
                assert self._weights is not None
                self._weights.ensure(program.weights.values(), self._progress)
                bound = self._bound[id(program)] = BoundProgram(
                    program, self._native, self._weights
                )
            return bound

    def _program(self, shape: tuple[int, ...]) -> Program:
        program = self._plans.get(shape)
        if program is None:
            graph = self.graph(shape)
            if self._schedule is None:  # the first shape settles algorithms for all
                self._schedule = self._schedule_for(graph, max(1, shape[0]))
                self.input_shape = shape
            program = lower(graph, self._schedule, self.target, shape[0], self.threads)
            kernels = [*program.kernels(), *program.may_need, Driver()]
            self._native.load(kernels, self._cache, self._progress)
            self._plans[shape] = program
            if len(self._plans) > PLANS_KEPT:
                _, dropped = self._plans.popitem(last=False)
                self._bound.pop(id(dropped), None)
        self._plans.move_to_end(shape)
        return program

    def graph(self, shape: tuple[int, ...] | None = None) -> Graph:
        """The optimised graph for an image size (by default the one compiled for)."""
        key = self._shape_or_first(shape)[1:]
        with self._lock:
            if key not in self._graphs:
                graph = self._source.graph((1, *key))
                self._graphs[key] = graph
                if self._weights is None:
                    self._weights = WeightStore(graph.payload)
            return self._graphs[key]

    def _shape_or_first(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        if shape is not None:
            return shape
        if self.input_shape is None:
            raise InputError("the model is compiled at its first call; give a shape to look before")
        return self.input_shape

    # -- running ----------------------------------------------------------------------------

    def __call__(self, x: Any, out: Array | None = None) -> Any:
        """The model's outputs for a batch of inputs, (N, C, H, W) float32, in the kind of array
        that `x` is. `out`: an array to write to (one output only). Raises InputError."""
        array = as_array(x, "x")
        outputs = self._outputs(array)
        given = [out] if out is not None else None
        if given is not None:
            _check_out(given[0], outputs)
        results = given or [np.empty(shape, np.float32) for shape in outputs]
        for start in range(0, len(array), MAX_BATCH):
            stop = min(start + MAX_BATCH, len(array))
            self._run_slice(array[start:stop], [r[start:stop] for r in results])
        wrapped = [like(x, r) for r in results]
        return wrapped[0] if len(wrapped) == 1 else tuple(wrapped)

    def _outputs(self, array: Array) -> list[tuple[int, ...]]:
        """The shapes of the outputs for this input; the input is checked on the way."""
        if array.ndim == 0:
            raise InputError("x must be a batch of inputs, got a single number")
        graph = self.graph((max(1, len(array)), *array.shape[1:]))
        return [v.type.concrete(len(array)) for v in graph.outputs]

    def _run_slice(self, x: Array, results: Sequence[Array]) -> None:
        bound = self._bind(x.shape)
        with self._workspace(bound) as workspace:
            call = workspace.prepare(bound, [x.ctypes.data, *(r.ctypes.data for r in results)])
            if self.threads == 1:
                status = self._run_here(call)
            else:
                status = team(self.target, self.threads).run(call)
        if status:
            raise CompileError(f"the native runtime refused the program (status {status})")

    def _run_here(self, call: int) -> int:
        if self._run is None:
            self._run = RUN_TYPE(self._native.address(Driver(), "lucid_run"))
        return int(self._run(call, 0, 1))

    @contextmanager
    def _workspace(self, bound: BoundProgram) -> Iterator[Workspace]:
        """Memory for one call; calls at the same time have one each."""
        with self._lock:
            fitting = [w for w in self._workspaces if w.fits(bound)]
            if fitting:
                workspace = fitting[0]
                self._workspaces.remove(workspace)
            else:
                workspace = Workspace(
                    self.threads, bound.arena_bytes, bound.scratch_bytes, bound.count
                )
                self._workspaces = [w for w in self._workspaces if not w.smaller(workspace)]
        try:
            yield workspace
        finally:
            with self._lock:
                self._workspaces.append(workspace)

    # -- weights ----------------------------------------------------------------------------

    def load_weights(self, weights: Any) -> CompiledModel:
        """Swap the checkpoint (a path, or tensors by name) without compiling anything.

        Calls in flight finish with the old weights. Raises WeightsError, and then keeps the old.
        """
        store = WeightStore(self._source.match(weights))
        with self._lock:
            for program in self._plans.values():
                store.ensure(program.weights.values())
            self._weights = store
        return self

    # -- looking inside ---------------------------------------------------------------------

    def program(self, shape: Sequence[int] | None = None) -> Program:
        """The Program for an input shape (by default the one compiled for)."""
        return self.prepare(self._shape_or_first(tuple(shape) if shape else None))

    @property
    def schedule(self) -> Schedule:
        """The choices made for the first shape."""
        if self._schedule is None:
            self.prepare(self._shape_or_first(None))
        assert self._schedule is not None
        return self._schedule


def _check_out(out: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    if len(shapes) != 1:
        raise InputError(f"out= takes one array, the model has {len(shapes)} outputs")
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shapes[0]:
        got = f"{out.dtype}{list(out.shape)}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out must be a float32 array of shape {shapes[0]}, got {got}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise InputError("out must be contiguous and writeable")
