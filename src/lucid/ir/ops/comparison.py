"""Truth values: comparisons, logic, and the choice between two values.

There is no boolean dtype. Truth is f32 1.0, falsehood 0.0, and whatever is not zero (NaN too)
counts as true where it is read. Of truth values, Mul is "and" and Maximum is "or"; a > b is
Less(b, a).
"""

from __future__ import annotations

import numpy as np

from lucid.errors import ShapeError
from lucid.ir.ops.base import Array, op
from lucid.ir.ops.elementwise import Binary, Elementwise, Unary
from lucid.ir.types import NUMBERS, TensorType, broadcast


class Comparison(Binary):
    """y = 1 where the relation holds, else 0; false where either is NaN. Operands: f32 or integers
    of one dtype -> f32."""

    never_negative = True
    takes = NUMBERS

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return TensorType("f32", super().infer(a, b).shape)


def truth(holds: Array, like: Array) -> Array:
    """Truth values: of the dtype of operands that are floats, else float32."""
    return holds.astype(like.dtype if like.dtype.kind == "f" else np.float32)


@op("equal")
class Equal(Comparison):
    """y = 1 where a = b (0.0 equals -0.0), else 0; 0 where either is NaN."""

    torch = "eq"

    def evaluate(self, a: Array, b: Array) -> Array:
        return truth(np.equal(a, b), a)


@op("less")
class Less(Comparison):
    """y = 1 where a < b, else 0; 0 where either is NaN."""

    torch = "lt"

    def evaluate(self, a: Array, b: Array) -> Array:
        return truth(np.less(a, b), a)


@op("less_equal")
class LessEqual(Comparison):
    """y = 1 where a <= b, else 0; 0 where either is NaN."""

    torch = "le"

    def evaluate(self, a: Array, b: Array) -> Array:
        return truth(np.less_equal(a, b), a)


@op("not")
class Not(Unary):
    """y = 1 where x is 0 (or -0.0), else 0; NaN is true, so not NaN is 0."""

    torch = "logical_not"
    never_negative = True
    domain = (-1, 1)

    def evaluate(self, x: Array) -> Array:
        return np.equal(x, 0).astype(x.dtype)


class Ternary(Elementwise):
    """y = f(a, b, c) for each element, with NumPy broadcasting of all three."""

    def common(self, *operands: TensorType) -> TensorType:
        """The last operand's dtype with the shape that all of them broadcast to."""
        shape = operands[0].shape
        for other in operands[1:]:
            try:
                shape = broadcast(shape, other.shape)
            except ShapeError as error:
                raise ShapeError(f"{self.name}: {error}") from None
        return operands[-1].with_shape(shape)


@op("where")
class Where(Ternary):
    """y = a where cond is not 0 (NaN is not 0), else b; what is chosen passes as it is.

    cond: f32, a and b of one dtype; all broadcast -> their dtype.
    """

    def infer(self, cond: TensorType, a: TensorType, b: TensorType) -> TensorType:
        self.require_float(cond=cond)
        self.require(a.dtype == b.dtype, f"a and b must have one dtype, got {a} and {b}")
        return self.common(cond, a, b)

    def evaluate(self, cond: Array, a: Array, b: Array) -> Array:
        return np.where(cond != 0, a, b)
