"""Reductions over axes, and the softmax. Axes count from 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import NUMBERS, TensorType


class Reduction(Op):
    """Base of the reductions: the axes named become 1, or go away without `keepdims`."""

    axes: tuple[int, ...]
    keepdims: bool

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        legal = len(set(self.axes)) == len(self.axes) and all(0 <= a < x.rank for a in self.axes)
        self.require(legal, f"axes must be distinct and within 0..{x.rank - 1}, got {self.axes}")
        if self.keepdims:
            return x.with_shape(tuple(1 if a in self.axes else d for a, d in enumerate(x.shape)))
        return x.with_shape(tuple(d for a, d in enumerate(x.shape) if a not in self.axes))

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return not set(self.axes).intersection(operands[0].batch_axes())


@op("sum")
class Sum(Reduction):
    """y = the sum over `axes`, of integers wrapping around. x: any shape -> without these axes (or
    1 with `keepdims`)."""

    takes = NUMBERS

    axes: tuple[int, ...]
    keepdims: bool = False

    def evaluate(self, x: Array) -> Array:
        y: Array = np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)
        return y


@op("prod")
class Prod(Reduction):
    """y = the product over `axes`, of integers wrapping around. x: any shape -> without these axes
    (or 1 with `keepdims`)."""

    takes = NUMBERS

    axes: tuple[int, ...]
    keepdims: bool = False

    def evaluate(self, x: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            y: Array = np.prod(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)
        return y


@op("sum_squares")
class SumSquares(Reduction):
    """y = the sum of x^2 over `axes`. x: any shape -> without these axes (or 1 with `keepdims`)."""

    never_negative = True

    axes: tuple[int, ...]
    keepdims: bool = False

    def evaluate(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            y: Array = np.sum(x * x, axis=self.axes, keepdims=self.keepdims)
        return y


@op("mean")
class Mean(Reduction):
    """y = the mean over `axes`. x: any shape -> without these axes (or 1 with `keepdims`)."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def evaluate(self, x: Array) -> Array:
        y: Array = np.mean(x, axis=self.axes, keepdims=self.keepdims)
        return y


class Extreme(Reduction):
    """Base of maximum and minimum: of no elements there is none."""

    takes = NUMBERS

    def infer(self, x: TensorType) -> TensorType:
        result = super().infer(x)
        empty = [a for a in self.axes if x.shape[a] == 0]
        self.require(not empty, f"there is no {self.name} along axes {empty} of {x}")
        return result


@op("max")
class Max(Extreme):
    """y = the maximum over `axes`; NaN wins. x: any shape -> without these axes (or 1)."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def evaluate(self, x: Array) -> Array:
        y: Array = np.max(x, axis=self.axes, keepdims=self.keepdims)
        return y


@op("min")
class Min(Extreme):
    """y = the minimum over `axes`; NaN wins. x: any shape -> without these axes (or 1)."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def evaluate(self, x: Array) -> Array:
        y: Array = np.min(x, axis=self.axes, keepdims=self.keepdims)
        return y


class ArgExtreme(Op):
    """Base of where the maximum and the minimum lie."""

    takes = NUMBERS

    axis: int
    keepdims: bool
    last: bool

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        within = 0 <= self.axis < x.rank
        self.require(within, f"axis must be within 0..{x.rank - 1}, got {self.axis}")
        self.require(x.shape[self.axis] != 0, f"there is none along axis {self.axis} of {x}")
        kept = (1,) * self.keepdims
        return TensorType("i64", (*x.shape[: self.axis], *kept, *x.shape[self.axis + 1 :]))

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return self.axis not in operands[0].batch_axes()

    def place(self, function: Callable[..., Array], x: Array) -> Array:
        """Where what `function` looks for lies, from the end on for the last one."""
        if self.last:
            place = function(np.flip(x, self.axis), axis=self.axis, keepdims=self.keepdims)
            return np.asarray(x.shape[self.axis] - 1 - place, np.int64)
        return np.asarray(function(x, axis=self.axis, keepdims=self.keepdims), np.int64)


@op("arg_max")
class ArgMax(ArgExtreme):
    """y = where along `axis` the maximum lies: of equal ones the first, or the `last`; NaN is
    larger than all numbers.

    x: any shape -> i64 without the axis (or 1 with `keepdims`).
    """

    axis: int
    keepdims: bool = False
    last: bool = False

    def evaluate(self, x: Array) -> Array:
        return self.place(np.argmax, x)


@op("arg_min")
class ArgMin(ArgExtreme):
    """y = where along `axis` the minimum lies: of equal ones the first, or the `last`; NaN is
    smaller than all numbers.

    x: any shape -> i64 without the axis (or 1 with `keepdims`).
    """

    axis: int
    keepdims: bool = False
    last: bool = False

    def evaluate(self, x: Array) -> Array:
        return self.place(np.argmin, x)


@op("softmax")
class Softmax(Op):
    """y = exp(x - max x) / sum(exp(x - max x)) along `axis`; the type stays."""

    never_negative = True

    axis: int

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        self.require(
            0 <= self.axis < x.rank, f"axis must be within 0..{x.rank - 1}, got {self.axis}"
        )
        return x

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return self.axis not in operands[0].batch_axes()

    def evaluate(self, x: Array) -> Array:
        return softmax(x, self.axis)


def softmax(x: Array, axis: int) -> Array:
    """The softmax of an array along one axis."""
    with np.errstate(invalid="ignore"):  # of inf - inf: NaN where all, or the largest, is infinite
        powers = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
        y: Array = powers / np.sum(powers, axis=axis, keepdims=True)
    return y
