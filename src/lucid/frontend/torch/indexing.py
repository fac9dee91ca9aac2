"""PyTorch's operators that take elements from places, or put them to places, that tensors tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lucid.frontend.torch.refused import DependsOnElements
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.ops import Array
from lucid.ir.types import Shape, broadcast


def gathered(w: Writer, x: Any, axis: int, table: Array) -> Value:
    """x[..., table, ...]; a slice where the table is an ascending range."""
    size = w.size(w.shape_of(x)[axis])
    table = table % size
    if table.ndim == 1 and table.size:
        steps = np.diff(table)
        step = int(steps[0]) if steps.size else 1
        if step > 0 and (steps == step).all():
            return w.slice(x, axis, int(table[0]), int(table[-1]) + 1, step)
    return w.emit(ops.Gather(axis), x, w.constant(table, "i64"))


def places(w: Writer, index: Any) -> Value:
    """Indices, whether they are known or computed, as i64."""
    if not isinstance(index, Value):
        array, shape = w.known(index)
        return w.expand(w.constant(array, "i64"), shape)
    return w.converted(index, "i64")


# -- taking -------------------------------------------------------------------------------------


@emits("index_select.default")
def index_select(w: Writer, x: Any, dim: int, index: Any) -> Value:
    axis = w.axis(dim)
    if isinstance(index, Value):
        return w.emit(ops.Gather(axis), x, w.reshape(places(w, index), (w.shape[axis],)))
    return gathered(w, x, axis, w.known(index)[0])


@emits("embedding.default")
def embedding(w: Writer, weight: Any, index: Any, *options: Any) -> Value:
    if isinstance(index, Value):
        return w.emit(ops.Gather(0), weight, places(w, index))
    array, shape = w.known(index)
    return w.expand(gathered(w, weight, 0, array), (*shape, *w.shape[len(shape) :]))


@emits("gather.default")
def gather(w: Writer, x: Any, dim: int, index: Any, sparse_grad: bool) -> Value:
    if not w.shape:
        return w.value(x)
    return w.emit(ops.GatherElements(w.axis(dim)), x, places(w, index))


@emits("take_along_dim.default")
def take_along_dim(w: Writer, x: Any, index: Any, dim: int | None) -> Value:
    """Both broadcast along the other axes."""
    if dim is None:
        return take(w, x, index)
    axis = w.axis(dim)
    own, other = list(w.shape_of(x)), list(w.shape_of(index))
    common = [broadcast((a,), (b,))[0] for a, b in zip(own, other, strict=True)]
    x = w.expand(x, tuple(own[i] if i == axis else d for i, d in enumerate(common)))
    return w.emit(ops.GatherElements(axis), x, w.expand(places(w, index), w.shape))


@emits("take.default")
def take(w: Writer, x: Any, index: Any) -> Value:
    """Of all elements as one axis."""
    count = prod(w.size(d) for d in w.shape_of(x))
    return w.emit(ops.Gather(0), w.reshape(x, (count,)), places(w, index))


@dataclass(frozen=True)
class Places:
    """Where `x[indices]` looks: along which `axes`, and the indices for them broadcast to `shape`.

    `first`: which axis of the result is the first of the indices'; where the axes do not stand
    together they come before all others.
    """

    axes: list[int]
    tables: list[Any]
    shape: Shape

    @staticmethod
    def of(w: Writer, indices: Sequence[Any]) -> Places:
        axes = [i for i, table in enumerate(indices) if table is not None]
        tables = [indices[a] for a in axes]
        if any(map(w.is_truth, tables)):
            w.refuse("it selects by truth values")
        shape: Shape = ()
        for table in tables:
            shape = broadcast(shape, w.shape_of(table))
        return Places(axes, tables, shape)

    @property
    def first(self) -> int:
        together = self.axes == list(range(self.axes[0], self.axes[-1] + 1))
        return self.axes[0] if together else 0

    def order(self, rank: int) -> list[int]:
        """The axes of x, those that are indexed before all others."""
        return [*self.axes, *(i for i in range(rank) if i not in self.axes)]

    def result_order(self, rank: int) -> list[int]:
        """The axes of the result, those of the indices before all others."""
        count = len(self.shape)
        own = range(self.first, self.first + count)
        return [*own, *(i for i in range(rank - len(self.axes) + count) if i not in own)]

    def stacked(self, w: Writer) -> Value:
        """The indices as one tensor (I..., d)."""
        parts = [w.expand(places(w, table), self.shape) for table in self.tables]
        parts = [w.reshape(part, (*self.shape, 1)) for part in parts]
        return parts[0] if len(parts) == 1 else w.emit(ops.Concat(len(self.shape)), *parts)


def inverse(order: Sequence[int]) -> list[int]:
    return [order.index(i) for i in range(len(order))]


def turned(w: Writer, x: Any, order: Sequence[int]) -> Value:
    """x permuted; x itself where nothing moves."""
    return w.value(x) if list(order) == list(range(len(order))) else w.permute(x, order)


@emits("index.Tensor", "_unsafe_index.Tensor")
def index(w: Writer, x: Any, indices: Sequence[Any]) -> Value:
    """By known tables for axes that stand together, which become one axis; else place by place.
    How many elements truth values select is known only when they are."""
    if any(isinstance(table, Value) and w.is_truth(table) for table in indices):
        raise DependsOnElements("it selects by truth values")
    own, found = w.shape_of(x), Places.of(w, indices)
    first, last = found.axes[0], found.axes[-1] + 1
    if any(isinstance(table, Value) for table in found.tables) or last - first > len(found.axes):
        if len(found.axes) == 1:
            return w.emit(ops.Gather(first), x, places(w, found.tables[0]))
        source = turned(w, x, found.order(len(own)))
        y = w.emit(ops.GatherND(), source, found.stacked(w))
        return turned(w, y, inverse(found.result_order(len(own))))
    sizes = [w.size(own[a]) for a in found.axes]
    tables = np.broadcast_arrays(*(w.known(table)[0] for table in found.tables))
    flat = np.zeros(tables[0].shape, np.int64)
    for table, size in zip(tables, sizes, strict=True):
        flat = flat * size + table % size
    joined: Shape = (*own[:first], prod(sizes), *own[last:])
    return gathered(w, w.reshape(x, joined), first, flat)


@emits("flip.default")
def flip(w: Writer, x: Any, dims: Sequence[int]) -> Value:
    value = w.value(x)
    for axis in map(w.axis, dims):
        value = gathered(w, value, axis, np.arange(w.size(w.shape[axis]))[::-1])
    return value


@emits("roll.default")
def roll(w: Writer, x: Any, shifts: Sequence[int], dims: Sequence[int]) -> Value:
    """Without axes, all elements as one axis."""
    if not dims:
        count = prod(w.size(d) for d in w.shape)
        return w.reshape(_rolled(w, w.reshape(x, (count,)), shifts[0], 0), w.shape)
    value = w.value(x)
    for shift, axis in zip(shifts, map(w.axis, dims), strict=True):
        value = _rolled(w, value, shift, axis)
    return value


def _rolled(w: Writer, x: Value, shift: int, axis: int) -> Value:
    size = w.size(x.type.shape[axis])
    at = -shift % size if size else 0
    if not at:
        return x
    return w.emit(ops.Concat(axis), w.slice(x, axis, at, size), w.slice(x, axis, 0, at))


@emits("diagonal.default", "diagonal_copy.default")
def diagonal(w: Writer, x: Any, offset: int, dim1: int, dim2: int) -> Value:
    """Along two axes, which become one at the end: every so many elements of both as one axis."""
    own = w.shape_of(x)
    first, second = (w.axis(d, len(own)) for d in (dim1, dim2))
    rows, columns = w.size(own[first]), w.size(own[second])
    rest = [i for i in range(len(own)) if i not in (first, second)]
    joined = w.permute(x, [*rest, first, second])
    outer = tuple(own[i] for i in rest)
    flat = w.reshape(joined, (*outer, rows * columns))
    start = offset if offset >= 0 else -offset * columns
    count = w.size(w.shape[-1])
    if not count:
        return w.slice(flat, len(rest), 0, 0)
    stop = start + (count - 1) * (columns + 1) + 1
    return w.slice(flat, len(rest), start, stop, columns + 1)


# -- putting ------------------------------------------------------------------------------------

REDUCTIONS = {
    "sum": "add",
    "add": "add",
    "prod": "mul",
    "multiply": "mul",
    "amax": "max",
    "amin": "min",
    "mean": "add",
}
"""Torch's names for what becomes of elements put to one place."""
NEUTRAL = {"add": 0.0, "mul": 1.0, "max": -math.inf, "min": math.inf}


def scattered(
    w: Writer, x: Any, dim: int, index: Any, source: Any, reduction: str = "none"
) -> Value:
    """The result of `scatter`; the source may have more elements than there are indices."""
    axis, where = w.axis(dim), places(w, index)
    updates, shape = w.alike(source), where.type.shape
    if not w.shape:  # one element, of which an axis is made
        where, updates = (w.reshape(v, (1,)) for v in (where, updates))
        y = w.emit(ops.ScatterElements(0, reduction), w.reshape(w.alike(x), (1,)), where, updates)
        return w.reshape(y, ())
    for i, size in enumerate(shape):
        if updates.type.rank and updates.type.shape[i] != size:
            updates = w.slice(updates, i, 0, w.size(size))
    data = w.expand(w.alike(x), w.shape)
    return w.emit(ops.ScatterElements(axis, reduction), data, where, w.expand(updates, shape))


@emits("scatter.src", "scatter.value")
def scatter(w: Writer, x: Any, dim: int, index: Any, source: Any) -> Value:
    return scattered(w, x, dim, index, source)


@emits("scatter_add.default")
def scatter_add(w: Writer, x: Any, dim: int, index: Any, source: Any) -> Value:
    return scattered(w, x, dim, index, source, "add")


@emits("scatter.reduce", "scatter.value_reduce")
def scatter_by(w: Writer, x: Any, dim: int, index: Any, source: Any, reduce: str) -> Value:
    return scattered(w, x, dim, index, source, REDUCTIONS[reduce])


@emits("scatter_reduce.two")
def scatter_reduce(
    w: Writer, x: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool
) -> Value:
    """Where the elements that are there do not count, neutral ones are put to their places first;
    a mean is a sum over how many there are."""
    kind = REDUCTIONS[reduce]
    if not include_self:
        x = scattered(w, x, dim, index, NEUTRAL[kind])
    total = scattered(w, x, dim, index, source, kind)
    if reduce != "mean":
        return total
    ones = w.filled(1.0, w.shape)
    start = ones if include_self else scattered(w, ones, dim, index, 0.0)
    return w.emit(ops.Div(), total, scattered(w, start, dim, index, 1.0, "add"))


@emits("index_put.default", "_unsafe_index_put.default", "_index_put_impl.default")
def index_put(
    w: Writer,
    x: Any,
    indices: Sequence[Any],
    values: Any,
    accumulate: bool,
    unsafe: bool = False,
) -> Value:
    """`x[indices] = values`, or `+=`; `unsafe`: whether torch leaves out its checks."""
    if len(indices) == 1 and indices[0] is not None and w.is_truth(indices[0]):
        return _where(w, x, indices[0], values, accumulate)
    found, rank = Places.of(w, indices), len(w.shape)
    order, target = found.order(rank), found.result_order(rank)
    rest = tuple(w.shape[i] for i in order[len(found.axes) :])
    first = found.first
    shape = (*rest[:first], *found.shape, *rest[first:])
    updates = turned(w, w.expand(w.alike(values), shape), target)
    data = turned(w, w.expand(w.alike(x), w.shape), order)
    op = ops.ScatterND("add" if accumulate else "none")
    return turned(w, w.emit(op, data, found.stacked(w), updates), inverse(order))


def _where(w: Writer, x: Any, mask: Any, values: Any, accumulate: bool) -> Value:
    """One value to all places where a mask over the first axes is true."""
    own = w.shape_of(mask)
    if prod(w.size(d) for d in w.shape_of(values)) != 1:
        w.refuse("it puts as many values as there are places where a mask is true")
    value = w.reshape(w.alike(values), ())
    if accumulate:
        value = w.emit(ops.Add(), x, value)
    mask = w.reshape(mask, (*own, *[1] * (len(w.shape) - len(own))))
    return w.emit(ops.Where(), mask, value, w.alike(x))


@emits("index_add.default")
def index_add(w: Writer, x: Any, dim: int, index: Any, source: Any, alpha: float) -> Value:
    if alpha != 1:
        source = w.emit(ops.Mul(), source, alpha)
    return _put_along(w, x, dim, index, source, "add")


@emits("index_copy.default")
def index_copy(w: Writer, x: Any, dim: int, index: Any, source: Any) -> Value:
    return _put_along(w, x, dim, index, source, "none")


@emits("index_fill.int_Scalar", "index_fill.int_Tensor")
def index_fill(w: Writer, x: Any, dim: int, index: Any, value: Any) -> Value:
    return _put_along(w, x, dim, index, value, "none")


def _put_along(w: Writer, x: Any, dim: int, index: Any, source: Any, reduction: str) -> Value:
    """Whole slices, along one axis, to the places that a vector tells."""
    axis, where = w.axis(dim), places(w, index)
    (count,) = where.type.shape or (1,)
    order = [axis, *(i for i in range(len(w.shape)) if i != axis)]
    shape = tuple(count if i == axis else d for i, d in enumerate(w.shape))
    updates = turned(w, w.expand(w.alike(source), shape), order)
    data = turned(w, w.expand(w.alike(x), w.shape), order)
    y = w.emit(ops.ScatterND(reduction), data, w.reshape(where, (count, 1)), updates)
    return turned(w, y, inverse(order))


# -- triangles, and places as truth ---------------------------------------------------------------


@emits("tril.default")
def tril(w: Writer, x: Any, diagonal: int) -> Value:
    return _triangle(w, x, np.tri(*_matrix(w), k=diagonal))


@emits("triu.default")
def triu(w: Writer, x: Any, diagonal: int) -> Value:
    return _triangle(w, x, 1 - np.tri(*_matrix(w), k=diagonal - 1))


def _matrix(w: Writer) -> tuple[int, int]:
    rows, columns = map(w.size, w.shape[-2:])
    return rows, columns


def _triangle(w: Writer, x: Any, mask: Array) -> Value:
    return w.emit(ops.Where(), w.table(mask), x, w.alike(0.0))


@emits("one_hot.default")
def one_hot(w: Writer, x: Any, classes: int) -> Value:
    if classes < 0:
        w.refuse("how many classes there are depends on the largest of its elements")
    where = w.reshape(w.emit(ops.Cast("f32"), places(w, x)), (*w.shape[:-1], 1))
    return w.emit(ops.Cast("i64"), w.emit(ops.Equal(), where, w.table(np.arange(classes))))
