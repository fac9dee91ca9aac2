"""The state of a lowering: the layout of values, deferred computations, and the calls so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from lucid.codegen.kernels.loaders import Join, Loader, Stage
from lucid.codegen.kernels.packing import Flat, Packed, Packing
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.lowering.placement import Place
from lucid.codegen.program.program import (
    ArgumentValue,
    Buffer,
    KernelCall,
    Program,
    View,
    WeightRef,
)
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.errors import UnsupportedError
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops.base import Op, nearest
from lucid.ir.recipe import Recipe
from lucid.ir.types import TensorType, is_float

Lower = Callable[["Lowering", Node], None]
Copy = Callable[["Lowering", View, View, str], None]
"""From a source and a result, of any strides, and the origin to a call."""
LOWERINGS: dict[type[Op], Lower] = {}

SMALL = 1 << 12
"""Numbers that are sooner written out of order than copied in another phase."""


def lowers(*op_classes: type[Op]) -> Callable[[Lower], Lower]:
    """Register the decorated function as the lowering of these ops."""

    def register(function: Lower) -> Lower:
        for op_class in op_classes:
            LOWERINGS[op_class] = function
        return function

    return register


def lower_node(ctx: Lowering, node: Node) -> None:
    """Run the lowering of a node that has one: its op's, or that of the nearest base."""
    lowering = nearest(LOWERINGS, type(node.op))
    assert lowering is not None, f"{node.op.name} has no lowering"
    lowering(ctx, node)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous array of this shape."""
    strides, step = [], 1
    for d in reversed(shape):
        strides.append(step)
        step *= d
    return tuple(reversed(strides))


def channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an NCHW array that is stored as NHWC; other ranks are row-major."""
    return features_last(shape) if len(shape) == 4 else row_major(shape)


def features_last(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array (N, C, *sizes) that is stored with axis 1 innermost."""
    n, channels, *sizes = shape
    batch, *steps, channel = row_major((n, *sizes, channels))
    return batch, channel, *steps


def dense_like(like: View) -> tuple[int, ...]:
    """The strides of a dense array of `like`'s shape, its dimensions in the order in which those
    of `like` lie (as row-major ones do, where two have the same stride); channels last where that
    says nothing, as of a view that repeats itself."""
    shape = like.shape
    real = [i for i, d in enumerate(shape) if d > 1]
    if 0 in shape or any(like.strides[i] == 0 for i in real):
        return channels_last(shape)
    strides, step = [1] * len(shape), 1
    for i in sorted(real, key=lambda i: (abs(like.strides[i]), -i)):
        strides[i] = step
        step *= shape[i]
    for usual in (channels_last(shape), row_major(shape)):
        if same_places(shape, usual, strides):
            return usual
    return tuple(strides)


@dataclass(frozen=True)
class Deferred:
    """A value that a loader makes when its reader needs it: rows of channels, pixel by pixel.

    `arguments` are the loader's; `build` appends what it computes to a region whose inputs are
    `reads`, and returns the value.
    """

    loader: Loader
    arguments: dict[str, ArgumentValue]
    reads: tuple[View, ...]
    build: Callable[[Graph, Sequence[Value]], Value]
    origin: str


@dataclass
class Lowering:
    """Lowers the nodes of one graph, in order, for one batch and a team of `threads`.

    `copy`: how an array is copied to another place; it is lowered in this context.
    """

    graph: Graph
    schedule: Schedule
    target: Target
    batch: int
    threads: int
    program: Program
    copy: Copy
    views: dict[Value, View] = field(default_factory=dict)
    deferred: dict[Value, Deferred] = field(default_factory=dict)
    sums: dict[Value, View] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    siblings: set[KernelSpec] = field(default_factory=set)
    placements: Mapping[Value, Place] = field(default_factory=dict)
    homes: dict[Value, View] = field(default_factory=dict)
    expansions: dict[Value, Layer] = field(default_factory=dict)

    # -- where values lie -------------------------------------------------------------------

    def shape(self, value: Value) -> tuple[int, ...]:
        return value.type.concrete(self.batch)

    def allocate(self, name: str, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> View:
        """A new arena buffer, dense under the given strides."""
        name = self._fresh(name)
        self.program.buffers[name] = Buffer(name, "arena", prod(shape), dtype)
        return View(name, dtype, tuple(shape), tuple(strides))

    def result(self, value: Value, like: View | None = None, strides: tuple[int, ...] = ()) -> View:
        """Where to write a value: the user's array if it is an output that can lie there as it is,
        else an arena buffer; channels last.

        `like`: given by a kernel that writes any strides, which then are dense in the order of
        this view (of the value's shape); a small output that nobody else reads goes to the user's
        array at once, a large one by a copy that turns it.
        `strides`: where the value is none of images, how a kernel wants them.
        A value that is concatenated lies in its slice of the whole.
        """
        if value in self.views:  # part of another one that has its place
            return self.views[value]
        shape = self.shape(value)
        if value in self.placements:
            self.views[value] = self.slice_of(value)
            return self.views[value]
        strides = strides or (channels_last(shape) if like is None else dense_like(like))
        direct = same_places(shape, strides, row_major(shape))
        small = prod(shape) <= SMALL
        direct = direct or (like is not None and small and not value.users)
        view = self.output_view(value) if direct else None
        self.views[value] = view or self.allocate(value.name, value.type.dtype, shape, strides)
        return self.views[value]

    def nothing(self, value: Value) -> View:
        """Where a value without elements lies."""
        shape = self.shape(value)
        own = self.output_view(value)
        return own or self.allocate(value.name, value.type.dtype, shape, row_major(shape))

    def slice_of(self, value: Value) -> View:
        """The channels of a concatenation that a value is to lie in, or those that one itself has
        in another."""
        place = self.placements[value]
        home = self.homes.get(place.root)
        if home is None:
            shape = self.shape(place.root)
            kind = place.root.type.dtype
            home = self.allocate(place.root.name, kind, shape, features_last(shape))
            self.homes[place.root] = home
        return home.over(self.shape(value), home.strides, home.offset + place.first)

    def output_view(self, value: Value) -> View | None:
        """The first of the user's arrays that this value is to be written to."""
        outputs = zip(self.graph.outputs, self.program.outputs.values(), strict=True)
        return next((view for output, view in outputs if output is value), None)

    def view(self, value: Value) -> View:
        """Where the value lies; what was deferred is computed now."""
        if value in self.views:
            return self.views[value]
        if isinstance(value, Parameter):
            self.views[value] = self.packed(value.recipe, self.shape(value), value.name)
        else:
            self._stage(value)
        return self.views[value]

    def rows_view(self, value: Value) -> View:
        """Where the value lies as rows of features (rank 4: channels last); copied if need be."""
        view = self.view(value)
        if row_stride(view) is not None:
            return view
        self.views[value] = self.dense(value, view)
        return self.views[value]

    def dense(self, value: Value, view: View) -> View:
        """A copy of the value, channels last and without gaps."""
        strides = channels_last(view.shape)
        rows = self.allocate(f"{value.name}.rows", view.dtype, view.shape, strides)
        self.copy(self, view, rows, value.producer.origin if value.producer else "")
        return rows

    def rows(self, value: Value, whole: bool = True) -> Deferred | View:
        """The value as rows: what makes them if it is not computed yet, else where they lie.

        `whole`: whether the reader takes all channels at once, as the rows of a `Join` have to be.
        """
        waiting = self.deferred.get(value)
        if waiting is None or value in self.views:
            return self.rows_view(value)
        if isinstance(waiting.loader, Join) and not whole:
            return self.rows_view(value)
        return waiting

    def _stage(self, value: Value) -> None:
        shape = self.shape(value)
        self.views[value] = self.stage(self.deferred[value], shape, self.result(value))

    def stage(self, rows: Deferred, shape: tuple[int, ...], out: View | None = None) -> View:
        """Write what a loader makes to a buffer (rank 4, channels last) as a phase of its own."""
        out = out or self.allocate(f"{rows.origin}.rows", COMPUTED, shape, channels_last(shape))
        count, depth = shape[0] * shape[2] * shape[3], shape[1]
        blocks = self.pieces(count, 12)
        region, inputs = self.region(rows.origin, rows.reads)
        region.set_outputs([rows.build(region, inputs)])
        arguments = {**rows.arguments, "y": out, "y_row": row_stride(out) or 0}
        arguments |= {"rows": count, "depth": depth, "blocks": blocks}
        kernel = Stage(rows.loader)
        self.call(
            kernel, blocks, arguments, rows.reads, [out], region, rows.origin, algorithm="stage"
        )
        return out

    def pieces(self, count: int, least: int) -> int:
        """Into how many tasks to split `count` items, `least` of them in one where possible: a few
        for each thread, so that a disturbed core costs little."""
        return max(1, min(count // max(1, least), 8 * self.threads))

    def packed(self, recipe: Recipe, shape: tuple[int, ...], name: str) -> View:
        """A parameter as an array, row-major; integers as they are, of which floats hold few."""
        kind = recipe.type.dtype
        kind = COMPUTED if is_float(kind) else kind
        ref = self.weights(recipe, Flat(), shape, name, kind)
        return View(ref.name, kind, shape, row_major(shape))

    def weights(
        self,
        recipe: Recipe | None,
        packing: Packing,
        shape: tuple[int, ...],
        name: str,
        dtype: str = COMPUTED,
    ) -> WeightRef:
        """A packed parameter; the same recipe, packing and dtype give the same one."""
        packed = Packed(recipe, packing, shape, dtype)
        for known, other in self.program.weights.items():
            if other == packed:
                return WeightRef(known)
        name = self._fresh(name)
        self.program.weights[name] = packed
        return WeightRef(name)

    def _fresh(self, name: str) -> str:
        """A name that neither a buffer nor packed weights have: views go by either's."""
        while name in self.program.buffers or name in self.program.weights:
            name += "'"
        return name

    # -- calls ------------------------------------------------------------------------------

    def region(self, name: str, reads: Sequence[View]) -> tuple[Graph, list[Value]]:
        """An empty region over these operands, and its inputs."""
        region = Graph(name or "region", self.graph.payload)
        types = [TensorType(v.dtype, v.shape) for v in reads]
        return region, [region.add_input(kind, "a") for kind in types]

    def call(
        self,
        kernel: KernelSpec,
        tasks: int,
        arguments: dict[str, ArgumentValue],
        reads: Sequence[View],
        writes: Sequence[View],
        region: Graph,
        origin: str,
        **fields: Any,
    ) -> None:
        """Append a call, in the first phase after those that write what it reads. Raises
        UnsupportedError for operands of another dtype than the kernel's code takes."""
        self._require_dtypes(kernel, arguments, origin)
        tasks = tasks if all(0 not in v.shape for v in writes) else 0
        level = max((self.levels.get(v.buffer, 0) for v in reads), default=0)
        for view in writes:  # parts of one buffer may be written by several calls, in one phase
            self.levels[view.buffer] = max(level + 1, self.levels.get(view.buffer, 0))
        while len(self.program.phases) <= level:
            self.program.phases.append([])
        call = KernelCall(
            kernel, tasks, arguments, tuple(reads), tuple(writes), region, origin, **fields
        )
        self.program.phases[level].append(call)

    def _require_dtypes(
        self, kernel: KernelSpec, arguments: Mapping[str, ArgumentValue], origin: str
    ) -> None:
        for declared in kernel.arguments():
            value = arguments.get(declared.name)
            if isinstance(value, View) and value.dtype != declared.dtype:
                raise UnsupportedError(
                    f"{origin or 'the model'}: {kernel.family} of {value.dtype} values; its kernel"
                    f" takes {declared.dtype}"
                )

    def may_need(self, *kernels: KernelSpec) -> None:
        """Kernels that another batch or image size may call in place of those chosen here."""
        self.siblings.update(kernels)


def itemsize(value: Value) -> int:
    """Bytes of one element of a value."""
    return dtype(value.type.dtype).bytes


def row_stride(view: View) -> int | None:
    """Elements from one row of features to the next, where all rows are evenly spaced and each is
    contiguous (rank 4: rows are pixels, features channels); else None."""
    order = (0, 2, 3, 1) if len(view.shape) == 4 else tuple(range(len(view.shape)))
    dims = [(view.shape[i], view.strides[i]) for i in order]
    *leading, (features, step) = dims
    if features > 1 and step != 1:
        return None
    rows, stride = 1, None
    for size, between in reversed(leading):
        if size == 1:
            continue
        if stride is None:
            stride = between
        elif between != rows * stride:
            return None
        rows *= size
    return features if stride is None else stride


def same_places(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two strides say the same, dimensions of size 1 apart."""
    return all(d == 1 or s == t for d, s, t in zip(shape, a, b, strict=True))
