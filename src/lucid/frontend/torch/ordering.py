"""PyTorch's operators of order along an axis, and running totals."""

from __future__ import annotations

from typing import Any

from lucid.frontend.torch.reductions import require_floating
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value

Pair = tuple[Value, Value]


@emits("topk.default")
def topk(w: Writer, x: Any, k: int, dim: int, largest: bool, sorted: bool) -> Pair:
    """Where torch may give them in any order (`sorted`), they are sorted all the same."""
    if not w.shape_of(x):
        return w.value(x), w.constant(0, "i64")
    values, places = w.emit_all(ops.TopK(w.axis(dim), k, largest), x)
    return values, places


@emits("sort.default")
def sort(w: Writer, x: Any, dim: int, descending: bool) -> Pair:
    shape = w.shape_of(x)
    size = w.size(shape[w.axis(dim)]) if shape else 1
    return topk(w, x, size, dim, descending, True)


@emits("sort.stable")
def stable_sort(w: Writer, x: Any, stable: bool | None, dim: int, descending: bool) -> Pair:
    """All sorting is stable."""
    return sort(w, x, dim, descending)


@emits("argsort.default")
def argsort(w: Writer, x: Any, dim: int, descending: bool) -> Value:
    return sort(w, x, dim, descending)[1]


@emits("argsort.stable")
def stable_argsort(w: Writer, x: Any, stable: bool, dim: int, descending: bool) -> Value:
    return argsort(w, x, dim, descending)


@emits("msort.default")
def msort(w: Writer, x: Any) -> Value:
    return sort(w, x, 0, False)[0]


@emits("kthvalue.default")
def kthvalue(w: Writer, x: Any, k: int, dim: int, keepdim: bool) -> Pair:
    axis = w.axis(dim, len(w.shape_of(x)))
    values, places = w.emit_all(ops.TopK(axis, k, False), x)
    last = (w.slice(value, axis, k - 1, k) for value in (values, places))
    value, place = (w.reshape(value, w.shape) for value in last)
    return value, place


@emits("median.dim")
def median(w: Writer, x: Any, dim: int, keepdim: bool) -> Pair:
    """Of two in the middle the lower one; the first NaN where there is one."""
    shape = w.shape_of(x)
    axis = w.axis(dim, len(shape))
    value, place = kthvalue(w, x, (w.size(shape[axis]) + 1) // 2, dim, keepdim)
    largest = w.emit(ops.Max((axis,), keepdim), x)
    number = w.emit(ops.Equal(), largest, largest)
    first = w.emit(ops.ArgMax(axis, keepdim), x)
    return w.emit(ops.Where(), number, value, largest), w.emit_all(
        ops.Where(), number, place, first
    )[0]


# -- running totals -----------------------------------------------------------------------------


@emits("cumsum.default")
def cumsum(w: Writer, x: Any, dim: int, dtype: Any) -> Value:
    require_floating(w, x, dtype)
    return w.emit(ops.CumSum(w.axis(dim)), x) if w.shape else w.value(x)


@emits("cumprod.default")
def cumprod(w: Writer, x: Any, dim: int, dtype: Any) -> Value:
    require_floating(w, x, dtype)
    return w.emit(ops.CumProd(w.axis(dim)), x) if w.shape else w.value(x)
