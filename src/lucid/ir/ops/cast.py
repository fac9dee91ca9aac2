"""The change of dtype."""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import DTYPES, TensorType


@op("cast")
class Cast(Op):
    """y = x as another dtype; the shape stays.

    Integers wrap around, as NumPy's `astype` has it. A float becomes an integer by dropping what
    is behind the point; what is out of range becomes the nearest bound, and NaN 0 (PyTorch and
    ONNX leave both open). Whatever is not 0 is true, NaN too. Floats of fewer bits are rounded to
    the nearest, ties to even.
    No `Elementwise`: its operand and its result have unlike sizes, which a fused body cannot hold.
    """

    family = "elementwise"
    images_apart = True

    dtype: str = "f32"

    def infer(self, x: TensorType) -> TensorType:
        known = self.dtype in DTYPES
        self.require(known, f"dtype is one of {', '.join(DTYPES)}, got {self.dtype!r}")
        return TensorType(self.dtype, x.shape)

    def evaluate(self, x: Array) -> Array:
        dtype = DTYPES[self.dtype]
        if self.dtype == "f64":
            return x.astype(dtype)
        if dtype.kind == "f":
            return rounded(x if x.dtype.kind == "f" else x.astype(np.float32), self.dtype)
        if dtype.kind != "b" and x.dtype.kind == "f":
            return _whole(x, dtype)
        return x.astype(dtype)


def rounded(x: Array, dtype: str) -> Array:
    """Floats rounded to the nearest number of a float dtype, ties to even, in their own dtype."""
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(x.dtype)
    if dtype == "bf16":
        return _bfloats(x)
    return x


def _bfloats(x: Array) -> Array:
    """Rounded to the 8 bits of a bfloat16's mantissa."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    kept = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    whole = np.where(np.isnan(x), bits, kept).astype(np.uint32).view(np.float32)
    return whole.astype(x.dtype)


def _whole(x: Array, dtype: np.dtype[np.integer]) -> Array:
    """Floats as integers, rounded towards zero and kept within the range of `dtype`."""
    bounds = np.iinfo(dtype)
    above = x >= float(bounds.max)  # the largest int64 is no float: float() gives the next one
    inside = np.where(above | np.isnan(x), 0, np.maximum(x, float(bounds.min)))
    return np.where(above, bounds.max, inside.astype(dtype)).astype(dtype)
