"""Quantised tensors, as `convert_pt2e` leaves them in a program: `quantized_decomposed` operators.

torch multiplies by 1/scale, rounded to float32, where the op divides: of numbers that are next to
the middle between two integers, the results may be one step apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lucid.frontend.torch.calling import DTYPES as GRAPH_DTYPES
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.ops.base import Array
from lucid.ir.ops.quantisation import QUANTISED
from lucid.ir.types import DTYPES

DECOMPOSED = "quantized_decomposed"
OVERLOADS = "default", "tensor", "tensor2"


@emits(*(f"quantize_per_tensor.{o}" for o in OVERLOADS), namespace=DECOMPOSED)
def quantize(
    w: Writer, x: Any, scale: Any, zero_point: Any, least: Any, most: Any, dtype: torch.dtype
) -> Value:
    kind = _kind(w, dtype)
    step, zero = _scale(w, scale), _zero_point(w, zero_point, kind)
    return w.emit(ops.Quantize(kind), _kept(w, x, scale, zero_point, least, most, kind), step, zero)


@emits("quantize_per_channel.default", namespace=DECOMPOSED)
def quantize_channels(
    w: Writer, x: Any, scales: Any, zero_points: Any, axis: int, least: int, most: int, dtype: Any
) -> Value:
    kind = _kind(w, dtype)
    bounds = np.iinfo(DTYPES[kind])
    y = w.emit(ops.Quantize(kind, w.axis(axis)), x, *_along(w, scales, zero_points, kind))
    if (least, most) == (bounds.min, bounds.max):
        return y
    low, high = (w.constant(bound, kind) for bound in (least, most))
    return w.emit(ops.Minimum(), w.emit(ops.Maximum(), y, low), high)


@emits(*(f"dequantize_per_tensor.{o}" for o in OVERLOADS), namespace=DECOMPOSED, keeps=True)
def dequantize(
    w: Writer,
    x: Any,
    scale: Any,
    zero_point: Any,
    least: Any,
    most: Any,
    dtype: torch.dtype,
    out_dtype: Any = None,
) -> Value:
    kind = _kind(w, dtype)
    zero = _zero_point(w, zero_point, kind)
    return w.emit(ops.Dequantize(), w.integers(x, kind), _scale(w, scale), zero)


@emits("dequantize_per_channel.default", namespace=DECOMPOSED, keeps=True)
def dequantize_channels(
    w: Writer,
    x: Any,
    scales: Any,
    zero_points: Any,
    axis: int,
    least: int,
    most: int,
    dtype: torch.dtype,
    out_dtype: Any = None,
) -> Value:
    kind = _kind(w, dtype)
    along = _along(w, scales, zero_points, kind)
    return w.emit(ops.Dequantize(w.axis(axis)), w.integers(x, kind), *along)


def _kind(w: Writer, dtype: torch.dtype) -> str:
    kind = GRAPH_DTYPES.get(dtype, "")
    if kind not in QUANTISED:
        w.refuse(f"it is quantised to {dtype}")
    return kind


def _number(w: Writer, operand: Any) -> Array:
    """A number that is known, or a tensor of one."""
    return np.asarray(w.known(operand)[0]).reshape(())


def _scale(w: Writer, scale: Any) -> Value:
    """The scale of a whole tensor."""
    if isinstance(scale, Value):
        return w.reshape(scale, ())
    number = float(_number(w, scale))
    if not (np.isfinite(number) and number > 0):
        w.refuse(f"its scale is {number:g}: a scale is a positive number")
    return w.constant(np.float32(number))


def _zero_point(w: Writer, zero_point: Any, kind: str) -> Value:
    if isinstance(zero_point, Value):
        return w.converted(w.reshape(zero_point, ()), kind)
    number = int(_number(w, zero_point))
    bounds = np.iinfo(DTYPES[kind])
    if not bounds.min <= number <= bounds.max:
        w.refuse(f"its zero point {number} is no {kind}")
    return w.constant(number, kind)


def _along(w: Writer, scales: Any, zero_points: Any, kind: str) -> list[Value]:
    """Scales of channels, and their zero points unless all are 0."""
    scale = scales if isinstance(scales, Value) else w.table(w.known(scales)[0])
    if zero_points is None or isinstance(zero_points, Value):
        return [scale] if zero_points is None else [scale, w.converted(zero_points, kind)]
    known, _ = w.known(zero_points)
    bounds = np.iinfo(DTYPES[kind])
    if known.size and not bounds.min <= known.min() <= known.max() <= bounds.max:
        w.refuse(f"its zero points are no {kind}")
    return [scale, w.integers(zero_points, kind)] if known.any() else [scale]


def _kept(
    w: Writer, x: Any, scale: Any, zero_point: Any, least: Any, most: Any, kind: str
) -> Value:
    """x within what the integers from `least` to `most` stand for, where these are not all."""
    low, high = (int(_number(w, bound)) for bound in (least, most))
    bounds = np.iinfo(DTYPES[kind])
    if (low, high) == (bounds.min, bounds.max):
        return w.value(x)
    if isinstance(scale, Value) or isinstance(zero_point, Value):
        w.refuse(f"it is quantised to {low} to {high} by a scale that it computes")
    step = float(np.float32(_number(w, scale)))
    zero = float(_number(w, zero_point))
    return w.emit(ops.Clip((low - zero) * step, (high - zero) * step), x)
