"""Cases of order, places and running totals, and how far their results may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lucid.ir import Value, ops
from lucid.ir.ops.indexing import REDUCTIONS

from .errors import LARGEST, TINY, Known, Pair, U, of_sum, rule, size_of, terms
from .maker import Maker, makes
from .values import Array

# -- cases ----------------------------------------------------------------------------------------


@makes("top_k")
def _top_k(make: Maker) -> Sequence[Value]:
    """A few of many, and all, sorted; often many that are equal."""
    draw = make.draw
    shape = (draw.pick([9, 33, 100, 1000]),) if draw.chance(0.3) else draw.shape(1, 4)
    axis = draw.integer(1, len(shape))
    x = make.array(*shape, kind=draw.pick([make.kind, "integers"]))
    size = shape[axis - 1]
    op = ops.TopK(axis, draw.pick([size, draw.integer(0, size)]), draw.chance(0.5))
    values, places = make.apply_all(op, x)
    return make.followed(values), places


def _part(make: Maker, shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """A shape of indices: any length along the axis, at times less along others."""
    draw = make.draw
    sizes = [draw.integer(1, d) if d and draw.chance(0.2) else d for d in shape]
    sizes[axis - 1] = draw.pick([1, 2, 5, 17]) if shape[axis - 1] else 0
    return tuple(sizes)


@makes("gather_elements")
def _gather_elements(make: Maker) -> Value:
    shape = make.draw.shape(1, 4, most=2000)
    axis = make.draw.integer(1, len(shape))
    indices = make.indices(max(1, shape[axis - 1]), *_part(make, shape, axis))
    return make.followed(make.apply(ops.GatherElements(axis), make.array(*shape), indices))


@makes("scatter_elements")
def _scatter_elements(make: Maker) -> Value:
    shape = make.draw.shape(1, 4, most=2000)
    axis = make.draw.integer(1, len(shape))
    part = _part(make, shape, axis)
    indices, data = make.indices(max(1, shape[axis - 1]), *part), make.array(*shape)
    op = ops.ScatterElements(axis, make.draw.pick(["none", "none", *REDUCTIONS]))
    return make.followed(make.apply(op, data, indices, make.array(*part)))


def _places(make: Maker, sizes: Sequence[int], *shape: int, batched: bool) -> Value:
    """Several indices for each place (..., d)."""
    parts = [make.indices(max(1, size), *shape, 1, batched=batched) for size in sizes]
    rank = len(parts[0].type.shape)
    return parts[0] if len(parts) == 1 else make.apply(ops.Concat(rank - 1), *parts)


@makes("gather_nd")
def _gather_nd(make: Maker) -> Value:
    """Of each image by indices of its own, or of a table by those of all."""
    draw = make.draw
    shape = draw.shape(1, 4, most=2000)
    depth, own = draw.integer(1, len(shape)), draw.integer(0, 1)
    count = draw.shape(0, 2, most=20) if 0 not in shape else (0,)
    indices = _places(make, shape[:depth], *count, batched=True)
    x = make.array(*shape, batched=own == 1)
    return make.followed(make.apply(ops.GatherND(own), x, indices))


@makes("scatter_nd")
def _scatter_nd(make: Maker) -> Value:
    """To tables, of which the images come last, if at all."""
    draw = make.draw
    shape = draw.shape(1, 4, most=2000)
    depth = draw.integer(1, len(shape))
    count = draw.shape(0, 2, most=20) if 0 not in shape else (0,)
    indices = _places(make, shape[:depth], *count, batched=False)
    data = make.array(*shape, batched=False)
    updates = make.array(*count, *shape[depth:], batched=False)
    op = ops.ScatterND(draw.pick(["none", "none", *REDUCTIONS]))
    return make.apply(op, data, indices, updates)


@makes("cum_sum", "cum_prod")
def _scan(make: Maker) -> Value:
    shape = make.draw.shape(1, 4)
    axis = make.draw.integer(1, len(shape))
    cls = ops.op_class(make.op)
    op = cls(axis, make.draw.chance(0.3), make.draw.chance(0.3))
    return make.followed(make.apply(op, make.array(*shape)))


@makes("non_max_suppression")
def _non_max_suppression(make: Maker) -> Sequence[Value]:
    """Boxes and scores in steps, so that some touch and some are equal."""
    draw = make.draw
    images, classes, count = draw.integer(1, 2), draw.integer(1, 3), draw.integer(1, 70)
    boxes = make.array(images, count, 4, batched=False, kind="normal")
    kind = draw.pick(["normal", "integers"])
    scores = make.array(images, classes, count, batched=False, kind=kind)
    if draw.chance(0.5):
        four = make.apply(ops.Constant(4.0))
        boxes = make.apply(ops.Round(), make.apply(ops.Mul(), boxes, four))
    least = draw.pick([None, 0.0, 0.5])
    form = draw.pick(["corners", "centre", "sides"])
    op = ops.NonMaxSuppression(draw.pick([0, 1, 5, 100]), draw.pick([0.0, 0.3, 0.5]), least, form)
    return make.apply_all(op, boxes, scores)


# -- errors ---------------------------------------------------------------------------------------


@rule(ops.TopK)
def _ordered(op: ops.TopK, x: Sequence[Known]) -> list[Pair]:
    """What is off may stand in another place; the sorted values are off by no more than any."""
    values, places = op.evaluate(x[0].value)
    off = ops.Max((op.axis,), True).evaluate(x[0].error) if x[0].error.size else np.zeros(())
    return [(values, off + 0 * places), (places, np.where(off > 0, np.inf, 0.0) + 0 * places)]


@rule(ops.GatherElements, ops.GatherND)
def _taken(op: ops.GatherElements | ops.GatherND, x: Sequence[Known]) -> Pair:
    indices = x[1].value.astype(np.int64)
    return op.evaluate(x[0].value, indices), op.evaluate(x[0].error, indices)


@rule(ops.ScatterElements, ops.ScatterND)
def _put(op: ops.ScatterElements | ops.ScatterND, x: Sequence[Known]) -> Pair:
    data, indices, updates = x[0], x[1].value.astype(np.int64), x[2]
    value = op.evaluate(data.value, indices, updates.value)

    def combined(reduction: str, a: Array, b: Array) -> Array:
        return replace(op, reduction=reduction).evaluate(a, indices, b)

    kind = {"max": "max", "min": "max", "mul": "max", "add": "add"}.get(op.reduction, "none")
    error = combined(kind, data.error, updates.error)
    ones = np.ones_like(data.value), np.ones_like(updates.value)
    count = combined("add", *ones)
    if op.reduction == "add":
        sizes = combined("add", size_of(data.value), size_of(updates.value))
        rounding = terms(int(count.max(initial=1))) * U * sizes + count * TINY
        return of_sum(value, sizes, error + rounding)
    if op.reduction == "mul":
        sizes = [np.abs(k.value) for k in (data, updates)]
        large = combined("mul", *(np.maximum(s, 1) for s in sizes))
        small = combined("mul", *(np.where(s > 0, np.minimum(s, 1), 1) for s in sizes))
        return value, _product(value, error, count, large, small)
    return value, error


def _product(value: Array, error: Array, count: Array, large: Array, small: Array) -> Array:
    """The error of a product of `count` factors, the larger and smaller ones of which give `large`
    and `small`: anything where part of it may overflow, or vanish."""
    beyond = ~(large < LARGEST / 4) | ~(small > 4 * TINY) | (error > 0)
    return np.where(beyond, np.inf, 2 * count * U * np.abs(value))


@rule(ops.CumSum)
def _running_sum(op: ops.CumSum, x: Sequence[Known]) -> Pair:
    sizes, error = op.evaluate(size_of(x[0].value)), op.evaluate(x[0].error)
    count = x[0].value.shape[op.axis]
    error = error + terms(count) * U * sizes + count * TINY
    return of_sum(op.evaluate(x[0].value), sizes, error)


@rule(ops.CumProd)
def _running_product(op: ops.CumProd, x: Sequence[Known]) -> Pair:
    size = np.abs(x[0].value)
    error = ops.CumSum(op.axis, op.exclusive, op.reverse).evaluate(x[0].error)
    large = op.evaluate(np.maximum(size, 1))
    small = op.evaluate(np.where(size > 0, np.minimum(size, 1), 1))
    value = op.evaluate(x[0].value)
    count = np.full(value.shape, float(value.shape[op.axis]))
    return value, _product(value, error, count, large, small)


@rule(ops.NonMaxSuppression)
def _kept(op: ops.NonMaxSuppression, x: Sequence[Known]) -> list[Pair]:
    off = any(k.error.any() for k in x)
    error = np.inf if off else 0.0
    return [(value, np.full(value.shape, error)) for value in op.results(*(k.value for k in x))]
