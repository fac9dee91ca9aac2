"""Between floats and the integers that stand for them: q = x / scale + zero point.

The meanings are those of ONNX's QuantizeLinear and DequantizeLinear (opset 21), rounding half to
even. Scales and zero points are operands of any of three granularities: one number for the tensor,
a vector along `axis`, or, with `block` > 0, one number for each `block` elements along `axis`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.elementwise import Elementwise
from lucid.ir.types import DTYPES, TensorType

EIGHT_BITS = ("u8", "i8")
QUANTISED = ("u8", "i8", "u16", "i16", "i32")
"""The dtypes that stand for floats. ONNX's four-bit integers are held as 8-bit ones."""


class _Scaled(Op):
    """What `Quantize` and `Dequantize` share: the shapes of scales and zero points."""

    images_apart = True

    axis: int
    block: int

    def _require_scales(
        self, x: TensorType, scale: TensorType, zero_point: TensorType | None, dtype: str
    ) -> None:
        """Raise ShapeError unless scale and zero point are for an `x` quantised to `dtype`."""
        self.require(dtype in QUANTISED, f"dtype is one of {', '.join(QUANTISED)}, got {dtype!r}")
        self.require_float(scale=scale)
        wanted = TensorType(dtype, scale.shape)
        same = zero_point is None or zero_point == wanted
        self.require(same, f"the zero point must be {wanted}, got {zero_point}")
        if scale.rank == 0:
            return
        self.require(0 <= self.axis < x.rank, f"axis {self.axis} is none of {x}")
        along = x.shape[self.axis]
        if not self.block:
            fits = scale.shape == (along,)
            self.require(fits, f"scale must have shape ({along},), got {scale} for {x}")
            return
        (length,) = self.integers(along)
        blocks = list(x.shape)
        blocks[self.axis] = -(-length // self.block)
        wanted = scale.with_shape(tuple(blocks))
        message = f"{self.block} numbers share a scale: it must be {wanted}, got {scale} for {x}"
        self.require(scale == wanted, message)

    def _spread(self, scales: Array, shape: tuple[int, ...]) -> Array:
        """Scales or zero points so that they broadcast with an array of this shape."""
        if scales.ndim == 0:
            return scales
        if not self.block:
            return scales.reshape(-1, *(1,) * (len(shape) - self.axis - 1))
        repeated = np.repeat(scales, self.block, self.axis)
        return np.take(repeated, range(shape[self.axis]), self.axis)


@op("quantize")
class Quantize(_Scaled):
    """y = saturate(round(x / scale) + zero_point), as integers of `dtype`.

    x: f32, scale: f32, zero_point: `dtype` (0 where it is not given) -> `dtype`, the shape of x.
    Rounds half to even, saturates infinities, and gives the least integer for NaN, as ONNX Runtime
    does. Source: ONNX, QuantizeLinear.
    """

    dtype: str = "u8"
    axis: int = 0
    block: int = 0

    def infer(
        self, x: TensorType, scale: TensorType, zero_point: TensorType | None = None
    ) -> TensorType:
        self.require_float(x=x)
        self._require_scales(x, scale, zero_point, self.dtype)
        return TensorType(self.dtype, x.shape)

    def evaluate(self, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
        """The quotient is one of f32, whatever the rest is computed in: recipes of weights, in f64,
        give the integers that kernels would."""
        single, scales = x.astype(np.float32), scale.astype(np.float32)
        with np.errstate(all="ignore"):
            steps = single / self._spread(scales, x.shape)
        zero = 0 if zero_point is None else self._spread(zero_point, x.shape)
        return saturated(steps, zero, self.dtype)


@op("dequantize")
class Dequantize(_Scaled):
    """y = (x - zero_point) * scale.

    x: u8, i8, u16, i16 or i32, scale: f32, zero_point: of x's dtype (0 where it is not given) ->
    f32, the shape of x. Source: ONNX, DequantizeLinear.
    """

    axis: int = 0
    block: int = 0

    def infer(
        self, x: TensorType, scale: TensorType, zero_point: TensorType | None = None
    ) -> TensorType:
        self._require_scales(x, scale, zero_point, x.dtype)
        return TensorType("f32", x.shape)

    def evaluate(self, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
        steps = x.astype(np.int64)
        if zero_point is not None:
            steps = steps - self._spread(zero_point, x.shape)
        y: Array = steps.astype(scale.dtype) * self._spread(scale, x.shape)
        return y


@op("saturate")
class Saturate(Elementwise):
    """y = round(x) + zero_point, kept within the range of `dtype`: a `quantize` whose division by
    the scale is part of an earlier multiplication.

    f32 -> `dtype`. Rounds half to even; infinities saturate, NaN gives the least integer.
    """

    dtype: str = "u8"
    zero_point: int = 0

    @classmethod
    def examples(cls) -> Sequence[Elementwise]:
        return cls(), cls("u8", 131), cls("i8", -5), cls("i32")

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        known = self.dtype in QUANTISED
        self.require(known, f"dtype is one of {', '.join(QUANTISED)}, got {self.dtype!r}")
        bounds = np.iinfo(DTYPES[self.dtype])
        inside = bounds.min <= self.zero_point <= bounds.max
        self.require(inside, f"the zero point {self.zero_point} is no {self.dtype}")
        return TensorType(self.dtype, x.shape)

    def evaluate(self, x: Array) -> Array:
        return saturated(x, self.zero_point, self.dtype)


@op("lookup")
class Lookup(Op):
    """y = table[x - least], for each element: any function of an 8-bit integer.

    x: u8 or i8, table: (256), the results for the least integer to the largest -> the table's
    dtype, the shape of x.
    """

    images_apart = True

    def infer(self, x: TensorType, table: TensorType) -> TensorType:
        self.require(x.dtype in EIGHT_BITS, f"x must be {' or '.join(EIGHT_BITS)}, got {x}")
        self.require(table.shape == (256,), f"the table must have 256 numbers, got {table}")
        return TensorType(table.dtype, x.shape)

    def evaluate(self, x: Array, table: Array) -> Array:
        return table[x.astype(np.int64) - np.iinfo(x.dtype).min]


def saturated(x: Array, zero_point: Array | int, dtype: str) -> Array:
    """round(x) + zero_point within the range of an integer dtype; its least number for NaN."""
    kind = DTYPES[dtype]
    bounds = np.iinfo(kind)
    with np.errstate(invalid="ignore"):
        y = np.rint(x).astype(np.float64) + np.asarray(zero_point, np.float64)
    inside = np.clip(np.where(np.isnan(y), bounds.min, y), bounds.min, bounds.max)
    return inside.astype(kind)
