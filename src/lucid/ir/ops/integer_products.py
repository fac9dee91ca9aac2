"""Products of quantised tensors: integers of 8 bits, summed up in 32.

The operands stand for (x - zero_point) and for weights whose zero points are taken off already.
Sums are exact, and wrap around at 32 bits as ONNX's ConvInteger and MatMulInteger do; so are the
results of every algorithm, on every processor.
"""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.convolution import Conv2d
from lucid.ir.ops.linear import Linear, MatMul
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.ops.windows import Padding, Pair
from lucid.ir.types import DTYPES, TensorType

WEIGHTS = ("i8", "i16")
"""The dtypes of weights: i16 holds 8-bit weights less a zero point."""


class IntegerProduct(Op):
    """Base of products of integers. `zero_point`: what x holds for 0."""

    zero_point: int

    def largest(self, dtype: str) -> int:
        """The largest |x - zero_point| of this dtype."""
        bounds = np.iinfo(DTYPES[dtype])
        return int(max(bounds.max - self.zero_point, self.zero_point - bounds.min))

    def _as_floats(
        self, x: TensorType, weight: TensorType, bias: TensorType | None
    ) -> tuple[TensorType, ...]:
        """The types of the product's operands if they were floats, for its shape rule."""
        self.require(x.dtype in EIGHT_BITS, f"x must be {' or '.join(EIGHT_BITS)}, got {x}")
        held = weight.dtype in WEIGHTS
        self.require(held, f"weight must be {' or '.join(WEIGHTS)}, got {weight}")
        self.require(bias is None or bias.dtype == "i32", f"bias must be i32, got {bias}")
        given = (x, weight) if bias is None else (x, weight, bias)
        return tuple(TensorType("f32", each.shape) for each in given)

    def _summed(self, product: Op, x: Array, weight: Array, bias: Array | None) -> Array:
        """A product of floats, computed in float64, which holds all of its sums exactly."""
        doubles = [x.astype(np.float64) - self.zero_point, weight.astype(np.float64)]
        (y,) = product.results(*doubles)
        shape = (1, -1, 1, 1) if y.ndim == 4 and isinstance(product, Conv2d) else (-1,)
        total = y.astype(np.int64)
        if bias is not None:
            total = total + bias.astype(np.int64).reshape(shape)
        return total.astype(np.int32)


@op("integer_conv2d")
class IntegerConv2d(IntegerProduct):
    """y[n,o,i,j] = bias[o] + sum over c, u, v of
    (x[n, c, i*s+u*d-top, j*s+v*d-left] - zero_point) * w[o,c,u,v].

    x: u8 or i8 (N, C, H, W), weight: i8 or i16 (O, C/groups, KH, KW), bias: i32 (O) -> i32 (N, O,
    OH, OW), wrapping around. Outside the input x is the zero point. Otherwise as `conv2d`.
    """

    images_apart = True

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    zero_point: int = 0

    def of_floats(self) -> Conv2d:
        """The same convolution of floats."""
        return Conv2d(self.stride, self.padding, self.dilation, self.groups)

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> TensorType:
        (result,) = self.of_floats().result_types(*self._as_floats(x, weight, bias))
        return TensorType("i32", result.shape)

    def evaluate(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return self._summed(self.of_floats(), x, weight, bias)


@op("integer_linear")
class IntegerLinear(IntegerProduct):
    """y = (x - zero_point) @ weight.T + bias.

    x: u8 or i8 (..., in), weight: i8 or i16 (out, in), bias: i32 (out) -> i32 (..., out), wrapping
    around.
    """

    images_apart = True

    zero_point: int = 0

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> TensorType:
        (result,) = Linear().result_types(*self._as_floats(x, weight, bias))
        return TensorType("i32", result.shape)

    def evaluate(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return self._summed(Linear(), x, weight, bias)


@op("integer_matmul")
class IntegerMatMul(Op):
    """y = (a - zero_point) @ (b - right_zero_point), with NumPy broadcasting as `matmul`.

    a: u8 or i8 (..., M, K), b: u8 or i8 (..., K, P) -> i32 (..., M, P), wrapping around.
    """

    zero_point: int = 0
    right_zero_point: int = 0

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        for name, kind in (("a", a), ("b", b)):
            fits = kind.dtype in EIGHT_BITS
            self.require(fits, f"{name} must be {' or '.join(EIGHT_BITS)}, got {kind}")
        floats = (TensorType("f32", kind.shape) for kind in (a, b))
        (result,) = MatMul().result_types(*floats)
        return TensorType("i32", result.shape)

    def keeps_images_apart(self, operands: tuple[TensorType, ...], result: TensorType) -> bool:  # type: ignore[override]
        return MatMul().keeps_images_apart(operands, result)

    def evaluate(self, a: Array, b: Array) -> Array:
        left = a.astype(np.float64) - self.zero_point
        right = b.astype(np.float64) - self.right_zero_point
        y: Array = np.matmul(left, right).astype(np.int64).astype(np.int32)
        return y
