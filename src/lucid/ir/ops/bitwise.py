"""Ops on the bits of integers."""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, op
from lucid.ir.ops.elementwise import Binary, Unary
from lucid.ir.types import INTEGERS


@op("bitwise_and")
class BitwiseAnd(Binary):
    """y = the bits set in both a and b. Integers only."""

    onnx = "BitwiseAnd"
    takes = INTEGERS

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.bitwise_and(a, b)
        return y


@op("bitwise_or")
class BitwiseOr(Binary):
    """y = the bits set in a or b. Integers only."""

    onnx = "BitwiseOr"
    takes = INTEGERS

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.bitwise_or(a, b)
        return y


@op("bitwise_xor")
class BitwiseXor(Binary):
    """y = the bits set in one of a and b. Integers only."""

    onnx = "BitwiseXor"
    takes = INTEGERS

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.bitwise_xor(a, b)
        return y


@op("bitwise_not")
class BitwiseNot(Unary):
    """y = the bits not set in x. Integers only."""

    onnx = "BitwiseNot"
    takes = INTEGERS

    def evaluate(self, x: Array) -> Array:
        y: Array = np.invert(x)
        return y


@op("shift_left")
class ShiftLeft(Binary):
    """y = a * 2^b, without the bits that no longer fit. By less than 0, or by at least as many
    bits as there are, 0. Integers only."""

    takes = INTEGERS

    def evaluate(self, a: Array, b: Array) -> Array:
        inside = (b >= 0) & (b < 8 * a.dtype.itemsize)
        return np.where(inside, np.left_shift(a, np.where(inside, b, 0)), a.dtype.type(0))


@op("shift_right")
class ShiftRight(Binary):
    """y = floor(a / 2^b), so that signed integers keep their sign. By less than 0, or by at least
    as many bits as there are, 0, or -1 where a is negative. Integers only."""

    takes = INTEGERS

    def evaluate(self, a: Array, b: Array) -> Array:
        most = 8 * a.dtype.itemsize
        inside = (b >= 0) & (b < most)
        beyond = np.where(a < 0, np.invert(a.dtype.type(0)), a.dtype.type(0)).astype(a.dtype)
        return np.where(inside, np.right_shift(a, np.where(inside, b, 0)), beyond)
