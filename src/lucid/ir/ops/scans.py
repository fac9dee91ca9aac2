"""Running totals along an axis, which counts from 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import TensorType


class Scan(Op):
    """Base of the running totals: each result is that of all elements up to it (`exclusive`: before
    it; `reverse`: from the other end), one after the other. Integers wrap around."""

    function: ClassVar[Any]
    axis: int
    exclusive: bool
    reverse: bool

    def infer(self, x: TensorType) -> TensorType:
        within = 0 <= self.axis < x.rank
        self.require(within, f"axis must be within 0..{x.rank - 1}, got {self.axis}")
        self.require(x.dtype != "bool", f"x must hold numbers, got {x}")
        self.require_computed(x=x)
        return x

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return self.axis not in operands[0].batch_axes()

    def evaluate(self, x: Array) -> Array:
        x = np.flip(x, self.axis) if self.reverse else x
        with np.errstate(all="ignore"):
            y = self.function.accumulate(x, self.axis, x.dtype)
        if self.exclusive and x.shape[self.axis]:
            first = np.full_like(y.take([0], self.axis), self.function.identity)
            before = y.take(range(x.shape[self.axis] - 1), self.axis)
            y = np.concatenate([first, before], self.axis)
        y = np.flip(y, self.axis) if self.reverse else y
        return np.ascontiguousarray(y)


@op("cum_sum")
class CumSum(Scan):
    """y = the sum of the elements of x up to each, along `axis`; `exclusive`: of those before it.
    With `reverse` they are counted from the end. f32 or integers; the type stays."""

    function = np.add
    axis: int
    exclusive: bool = False
    reverse: bool = False


@op("cum_prod")
class CumProd(Scan):
    """y = the product of the elements of x up to each, along `axis`; `exclusive`: of those before
    it. With `reverse` they are counted from the end. f32 or integers; the type stays."""

    function = np.multiply
    axis: int
    exclusive: bool = False
    reverse: bool = False
