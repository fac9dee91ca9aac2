"""The change of dtype."""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import DTYPES, TensorType


@op("cast")
class Cast(Op):
    """y = x as another dtype; the shape stays.

    A float becomes an integer by dropping what is behind the point. What is out of range becomes
    the nearest bound, and NaN 0; what is not 0 is true. PyTorch and ONNX leave that open for
    floats, and wrap integers around.
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
        if dtype.kind == "f":
            return x if x.dtype.kind == "f" else x.astype(dtype)
        if dtype.kind == "b" or x.dtype.kind == "b":
            return x.astype(dtype)
        if x.dtype.kind == "f":
            return _whole(x, dtype)
        bounds, own = np.iinfo(dtype), np.iinfo(x.dtype)
        return x.clip(max(bounds.min, own.min), min(bounds.max, own.max)).astype(dtype)


def _whole(x: Array, dtype: np.dtype[np.integer]) -> Array:
    """Floats as integers, rounded towards zero and kept within the range of `dtype`."""
    bounds = np.iinfo(dtype)
    above = x >= float(bounds.max)  # the largest int64 is no float: float() gives the next one
    inside = np.where(above | np.isnan(x), 0, np.maximum(x, float(bounds.min)))
    return np.where(above, bounds.max, inside.astype(dtype)).astype(dtype)
