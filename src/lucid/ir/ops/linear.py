"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.errors import ShapeError
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import TensorType, broadcast


@op("linear")
class Linear(Op):
    """y = x @ weight.T + bias. x: (..., in), weight: (out, in), bias: (out) -> (..., out)."""

    images_apart = True

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> TensorType:
        self.require_float(x=x, weight=weight, bias=bias)
        self.require(weight.rank == 2, f"weight must be (out, in), got {weight}")
        out, _ = self.integers(*weight.shape)
        self.require(x.rank >= 1, f"x must have a last axis of {weight.shape[1]}, got {x}")
        self.require(
            x.shape[-1] == weight.shape[1],
            f"x has {x.shape[-1]} features, but the weight takes {weight.shape[1]} ({x}, {weight})",
        )
        self.require(bias is None or bias.shape == (out,), f"bias must be f32[{out}], got {bias}")
        return x.with_shape((*x.shape[:-1], out))

    def evaluate(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        y: Array = np.matmul(x, weight.T)
        return y if bias is None else y + bias


@op("matmul")
class MatMul(Op):
    """y = a @ b, with NumPy broadcasting of all but the last two axes.

    a: (..., M, K), b: (..., K, P) -> (..., M, P).
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        self.require_float(a=a, b=b)
        self.require(a.rank >= 2 and b.rank >= 2, f"a and b must be matrices, got {a} and {b}")
        self.require(
            a.shape[-1] == b.shape[-2],
            f"a has {a.shape[-1]} columns, b has {b.shape[-2]} rows ({a}, {b})",
        )
        try:
            batch = broadcast(a.shape[:-2], b.shape[:-2])
        except ShapeError as error:
            raise ShapeError(f"{self.name}: {error}") from None
        return a.with_shape((*batch, a.shape[-2], b.shape[-1]))

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return operands[0].rank - 1 not in operands[0].batch_axes()  # it is summed over

    def evaluate(self, a: Array, b: Array) -> Array:
        y: Array = np.matmul(a, b)
        return y
