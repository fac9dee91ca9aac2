"""PyTorch's reductions, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lucid.frontend.torch.elementwise import square
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.ops import Op
from lucid.ir.types import INTEGERS, Dim

Axes = int | Sequence[int] | None


def axes_of(w: Writer, x: Any, dim: Axes) -> tuple[int, ...]:
    """The axes that torch means: all of them for None and for none."""
    rank = len(w.shape_of(x))
    dims = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return tuple(sorted(w.axis(d, rank) for d in dims)) if rank else ()


def require_floating(w: Writer, x: Any, dtype: Any) -> None:
    """Refuse to convert floats to integers first, which drops fractions; floating dtypes are all
    f32."""
    to_whole = dtype is not None and not dtype.is_floating_point
    if to_whole and not w.is_truth(x) and w.value(x).type.dtype == "f32":
        w.refuse(f"it converts to {str(dtype).removeprefix('torch.')} before it reduces")


def _reduced(make: Callable[[tuple[int, ...], bool], Op]) -> Callable[..., Value]:
    def write(
        w: Writer, x: Any, dim: Axes = None, keepdim: bool = False, dtype: Any = None
    ) -> Value:
        require_floating(w, x, dtype)
        axes = axes_of(w, x, dim)
        value = w.value(x)
        if w.integer is not None and value.type.dtype in INTEGERS:  # truth values are counted
            value = w.alike(value)
        return w.emit(make(axes, keepdim), value) if axes else value

    return write


mean = _reduced(ops.Mean)
total = _reduced(ops.Sum)
product = _reduced(ops.Prod)
largest = _reduced(ops.Max)
smallest = _reduced(ops.Min)

emits("mean.dim")(mean)
emits("sum.dim_IntList")(total)
emits("amax.default")(largest)
emits("amin.default")(smallest)
emits("prod.dim_int")(product)


@emits("any.dim", "any.dims", "any.default")
def any_(w: Writer, x: Any, dim: Axes = None, keepdim: bool = False) -> Value:
    return largest(w, w.truth(x), dim, keepdim)


@emits("all.dim", "all.dims", "all.default")
def all_(w: Writer, x: Any, dim: Axes = None, keepdim: bool = False) -> Value:
    return smallest(w, w.truth(x), dim, keepdim)


@emits("mean.default")
def mean_of_all(w: Writer, x: Any, dtype: Any) -> Value:
    return mean(w, x, dtype=dtype)


@emits("sum.default")
def sum_of_all(w: Writer, x: Any, dtype: Any) -> Value:
    return total(w, x, dtype=dtype)


@emits("prod.default")
def product_of_all(w: Writer, x: Any, dtype: Any) -> Value:
    return product(w, x, dtype=dtype)


@emits("max.default")
def max_of_all(w: Writer, x: Any) -> Value:
    return largest(w, x)


@emits("min.default")
def min_of_all(w: Writer, x: Any) -> Value:
    return smallest(w, x)


@emits("max.dim")
def max_along(w: Writer, x: Any, dim: int, keepdim: bool) -> tuple[Value, Value]:
    return largest(w, x, dim, keepdim), argmax(w, x, dim, keepdim)


@emits("min.dim")
def min_along(w: Writer, x: Any, dim: int, keepdim: bool) -> tuple[Value, Value]:
    return smallest(w, x, dim, keepdim), argmin(w, x, dim, keepdim)


@emits("argmax.default")
def argmax(w: Writer, x: Any, dim: int | None, keepdim: bool) -> Value:
    if dim is None:
        w.refuse("it looks for one place in the whole batch")
    return w.emit(ops.ArgMax(w.axis(dim, len(w.shape_of(x))), keepdim), x)


@emits("argmin.default")
def argmin(w: Writer, x: Any, dim: int | None, keepdim: bool) -> Value:
    if dim is None:
        w.refuse("it looks for one place in the whole batch")
    return w.emit(ops.ArgMin(w.axis(dim, len(w.shape_of(x))), keepdim), x)


# -- variances and norms ------------------------------------------------------------------------


@emits("var.correction")
def variance(w: Writer, x: Any, dim: Axes, correction: float | None, keepdim: bool) -> Value:
    return variance_and_mean(w, x, dim, correction, keepdim)[0]


@emits("std.correction")
def deviation(w: Writer, x: Any, dim: Axes, correction: float | None, keepdim: bool) -> Value:
    return w.emit(ops.Sqrt(), variance(w, x, dim, correction, keepdim))


@emits("var_mean.correction")
def variance_and_mean(
    w: Writer, x: Any, dim: Axes, correction: float | None, keepdim: bool
) -> tuple[Value, Value]:
    axes, shape = axes_of(w, x, dim), w.shape_of(x)
    lost = 1 if correction is None else correction
    centre = w.emit(ops.Mean(axes, True), x)
    spread = w.emit(ops.Mean(axes, keepdim), square(w, w.emit(ops.Sub(), x, centre)))
    if lost:
        if any(isinstance(shape[a], Dim) for a in axes):
            w.refuse("its correction depends on the size of the batch")
        count = math.prod(w.size(shape[a]) for a in axes)
        spread = w.emit(ops.Mul(), spread, count / (count - lost) if count > lost else math.nan)
    return spread, centre if keepdim else w.emit(ops.Mean(axes, False), x)


@emits("linalg_vector_norm.default", "norm.ScalarOpt_dim")
def vector_norm(
    w: Writer, x: Any, order: float | None, dim: Axes, keepdim: bool, dtype: Any = None
) -> Value:
    require_floating(w, x, dtype)
    axes = axes_of(w, x, dim)
    if order is None or order == 2:
        return w.emit(ops.Sqrt(), w.emit(ops.Sum(axes, keepdim), square(w, x)))
    if order not in (1, math.inf):
        w.refuse(f"it is a norm of order {order}")
    op = ops.Sum(axes, keepdim) if order == 1 else ops.Max(axes, keepdim)
    return w.chain(x, ops.Abs(), op)


@emits("linalg_norm.default")
def linalg_norm(
    w: Writer, x: Any, order: float | None, dim: Axes, keepdim: bool, dtype: Any
) -> Value:
    if order is not None and not isinstance(dim, int) and len(axes_of(w, x, dim)) != 1:
        w.refuse("it is a norm of matrices")
    return vector_norm(w, x, order, dim, keepdim, dtype)


# -- softmax ------------------------------------------------------------------------------------


@emits("softmax.int")
def softmax(w: Writer, x: Any, dim: int, dtype: Any = None) -> Value:
    require_floating(w, x, dtype)
    return w.emit(ops.Softmax(w.axis(dim)), x)


@emits("_softmax.default")
def softmax_of_halves(w: Writer, x: Any, dim: int, half_to_float: bool) -> Value:
    return softmax(w, x, dim)


@emits("_safe_softmax.default")
def safe_softmax(w: Writer, x: Any, dim: int, dtype: Any = None) -> Value:
    """0 where all that the softmax is taken over is -inf."""
    require_floating(w, x, dtype)
    axis = w.axis(dim, len(w.shape_of(x)))
    dead = w.emit(ops.Equal(), w.emit(ops.Max((axis,), True), x), -math.inf)
    return w.emit(ops.Where(), dead, 0.0, w.emit(ops.Softmax(axis), x))


@emits("log_softmax.int")
def log_softmax(w: Writer, x: Any, dim: int, dtype: Any = None) -> Value:
    require_floating(w, x, dtype)
    axis = (w.axis(dim),)
    below = w.emit(ops.Sub(), x, w.emit(ops.Max(axis, True), x))
    total = w.emit(ops.Sum(axis, True), w.emit(ops.Exp(), below))
    return w.emit(ops.Sub(), below, w.emit(ops.Log(), total))


@emits("_log_softmax.default")
def log_softmax_of_halves(w: Writer, x: Any, dim: int, half_to_float: bool) -> Value:
    return log_softmax(w, x, dim)


@emits("logsumexp.default")
def logsumexp(w: Writer, x: Any, dim: Axes, keepdim: bool) -> Value:
    axes = axes_of(w, x, dim)
    top = w.emit(ops.Max(axes, True), x)
    powers = w.emit(ops.Exp(), w.emit(ops.Sub(), x, top))
    height = w.emit(ops.Log(), w.emit(ops.Sum(axes, True), powers))
    return w.reshape(w.emit(ops.Add(), height, top), w.shape)
