"""Order along an axis: the largest elements, and sorting. Axes count from 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import TensorType


@op("top_k")
class TopK(Op):
    """The k largest elements along `axis`, the largest first, and where they lie; or the smallest.

    x: any shape and dtype, its axis no batch -> of x's dtype and i64, both with k in place of the
    axis. Of equal elements (0.0 equals -0.0) the one with the lower index comes first; NaN is
    larger than all numbers, as for torch.topk and torch.sort (ONNX leaves it open, and in ONNX
    Runtime NaN makes any order). With all elements of the axis it is a stable sort.
    """

    axis: int
    k: int
    largest: bool = True

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        within = 0 <= self.axis < x.rank
        self.require(within, f"axis must be within 0..{x.rank - 1}, got {self.axis}")
        self.require_computed(x=x)
        (size,) = self.integers(x.shape[self.axis])
        fits = 0 <= self.k <= size
        self.require(fits, f"k must be within 0..{size} (axis {self.axis} of {x}), got {self.k}")
        kind = x.with_shape((*x.shape[: self.axis], self.k, *x.shape[self.axis + 1 :]))
        return kind, TensorType("i64", kind.shape)

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return True  # the axis is no batch

    def evaluate(self, x: Array) -> tuple[Array, Array]:
        places = stable_order(x, self.axis, self.largest)
        places = np.take(places, range(self.k), self.axis)
        return np.take_along_axis(x, places, self.axis), places


def stable_order(x: Array, axis: int, descending: bool) -> Array:
    """The int64 indices along an axis that sort it; of equal elements the lower index first. NaN
    is larger than all numbers."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64, copy=False)
    turned = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    order: Array = x.shape[axis] - 1 - np.flip(turned, axis)
    return order.astype(np.int64, copy=False)
