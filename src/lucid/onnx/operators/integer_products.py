"""Products of quantised tensors: ConvInteger, MatMulInteger, and those that requantise their sums.

All are sums of integers, exact, of operands less their zero points. QLinearConv, QLinearMatMul and
QGemm multiply the sums by one f32 for each column, scale_x * scale_w / scale_y in this order, round
half to even, add the zero point and saturate: what ONNX Runtime computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.graph import Parameter
from lucid.ir.ops import (
    Add,
    Cast,
    Concat,
    Div,
    IntegerConv2d,
    IntegerLinear,
    IntegerMatMul,
    Mul,
    Op,
    Permute,
    Quantize,
    Saturate,
    Sub,
    Sum,
)
from lucid.ir.ops.windows import Pair, Sizes
from lucid.ir.types import TensorType
from lucid.ir.volumes import Windows
from lucid.onnx.known import Known, Operand
from lucid.onnx.operators.products import as_matrices, check_kernel
from lucid.onnx.operators.quantisation import INT32, check_scale, number, whole, widened
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import windows

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.writer import Edge, Writer

UINT8 = 2
"""ONNX's number of the element type."""


class Zero(NamedTuple):
    """A zero point: `known` where it is one number that the file tells, else `computed`, in i32."""

    known: int = 0
    computed: Operand | None = None


def zero_at(call: Call, index: int) -> Zero:
    """The zero point that is this operand; 0 where it is left out."""
    if not call.has(index):
        return Zero()
    zero = number(call, widened(call, index))
    if isinstance(zero, Known) and zero.array.ndim == 0:
        return Zero(int(zero.array))
    return Zero(computed=call.apply(Cast("i32"), zero))


# -- convolutions ---------------------------------------------------------------------------------


@reads("ConvInteger")
def read_integer_convolution(call: Call) -> Operand:
    w, groups = _windows(call, 1)
    return _convolved(call, w, groups, centred(call, 1, 3, 0), zero_at(call, 2))


@reads("QLinearConv")
def read_quantised_convolution(call: Call) -> Operand:
    w, groups = _windows(call, 3)
    weight = centred(call, 3, 5, 0)
    bias = [call.parameter(8, stored(call, 8))] if call.has(8) else []
    sums = _convolved(call, w, groups, weight, zero_at(call, 2), *bias)
    multiplier = _multiplier(call, 1, 4, 6)
    if multiplier.type.rank:
        (channels,) = call.integer_dims(*multiplier.type.shape)
        multiplier = call.reshape(multiplier, (1, channels, *(1,) * (sums.type.rank - 2)))
    return requantised(call, sums, multiplier, 7)


def _windows(call: Call, weight: int) -> tuple[Windows, int]:
    """The windows of a convolution whose weight is this operand, and its groups."""
    kernel = tuple(call.integer_dims(*call.shape(weight)[2:]))
    check_kernel(call, kernel, call.operand(weight))
    if len(kernel) > 2:
        raise UnsupportedError("over 3 spatial axes: Lucid has it over one and two")
    return windows(call, kernel), call.integer("group", 1)


def _convolved(
    call: Call, w: Windows, groups: int, weight: Parameter, zero: Zero, *bias: Parameter
) -> Operand:
    """The sums, of one or two spatial axes."""
    x, axes, padding = call.operand(0), len(w.kernel), w.padding
    if zero.computed is not None and zero.computed.type.rank:
        raise ModelFileError(f"has zero points {zero.computed.type} for an image: there is one")
    if zero.computed is not None and any(padding):
        x, padding = _bordered(call, x, padding), (0,) * len(padding)
    before, after = padding[:axes], padding[axes:]
    (top, left), (bottom, right) = _pair(before, 0), _pair(after, 0)
    op = IntegerConv2d(
        _pair(w.stride, 1),
        (top, left, bottom, right),
        _pair(w.dilation, 1),
        groups,
        zero.known,
    )
    images = (_as_image(call, operand) for operand in (x, weight))
    sums = call.apply(op, *images, *bias)
    if axes == 1:
        sums = call.reshape(sums, (*sums.type.shape[:2], sums.type.shape[3]))
    if zero.computed is None:
        return sums
    totals = _totals(call, weight, tuple(range(1, weight.type.rank)))
    totals = call.reshape(totals, (*totals.type.shape, *(1,) * axes))
    return _joined(call, Sub(), sums, call.apply(Mul(), totals, zero.computed))


def _pair(sizes: Sizes, default: int) -> Pair:
    """Sizes for the height and the width, those of a line for the width."""
    height, width = (default, *sizes)[-2:]
    return height, width


def _as_image(call: Call, x: Operand) -> Operand:
    """Lines as images of one row."""
    shape = x.type.shape
    return call.reshape(x, (*shape[:2], 1, shape[2])) if len(shape) == 3 else x


def _bordered(call: Call, x: Operand, padding: Sizes) -> Operand:
    """x with its zero point, which is known when the model runs, around it."""
    zero = number(call, call.operand(2))
    axes = len(padding) // 2
    for axis, sides in enumerate(zip(padding[:axes], padding[axes:], strict=True), 2):
        shape = x.type.shape
        before, after = (
            [call.expand(zero, (*shape[:axis], size, *shape[axis + 1 :]))] if size else []
            for size in sides
        )
        x = call.apply(Concat(axis), *before, x, *after)
    return x


# -- matrix products ------------------------------------------------------------------------------


@reads("MatMulInteger")
def read_integer_matmul(call: Call) -> Operand:
    return _multiplied(call, 1, 2, 3)


@reads("QLinearMatMul")
def read_quantised_matmul(call: Call) -> Operand:
    sums = _multiplied(call, 3, 2, 5)
    return requantised(call, sums, _multiplier(call, 1, 4, 6), 7)


@reads("com.microsoft.QGemm")
def read_quantised_gemm(call: Call) -> Operand:
    """alpha * scale_a * scale_b * (A B + C): the scale of C is that of the products."""
    a = call.operand(0)
    if call.integer("transA", 0):
        a = call.apply(Permute((1, 0)), a)
    transposed = bool(call.integer("transB", 0))
    weight: Operand = centred(call, 3, 5, 0 if transposed else 1)
    if not transposed:
        weight = call.apply(Permute((1, 0)), weight)
    sums = _linear(call, a, weight, zero_at(call, 2))
    if call.has(6):
        sums = _joined(call, Add(), sums, call.parameter(6, stored(call, 6)))
    alpha = call.number("alpha", 1.0)
    if not call.has(7):
        scale = call.apply(Mul(), _scale(call, 1), _scale(call, 4))
        return call.apply(Mul(), call.apply(Cast("f32"), sums), call.apply(Mul(), scale, alpha))
    multiplier = _multiplier(call, 1, 4, 7)
    if alpha != 1:
        multiplier = call.apply(Mul(), multiplier, alpha)
    return requantised(call, sums, multiplier, 8)


def _multiplied(call: Call, right: int, left_zero: int, right_zero: int) -> Operand:
    """The sums of a product as NumPy's matmul has it."""
    a, b = whole(call, 0), widened(call, right)
    zero = zero_at(call, left_zero)
    if isinstance(b, Known) and b.type.rank == 2 and a.type.rank > 1:
        weight = call.apply(Permute((1, 0)), centred(call, right, right_zero, 1))
        return _linear(call, a, weight, zero)
    other = zero_at(call, right_zero)
    a, b, restored = as_matrices(call, a, whole(call, right))
    sums = call.apply(IntegerMatMul(zero.known, other.known), a, b)
    if zero.computed is not None:
        columns = _less(call, b, Zero(other.known))
        if other.computed is not None:
            columns = call.apply(Sub(), columns, other.computed)
        columns = call.apply(Sum((b.type.rank - 2,), keepdims=True), columns)
        product = call.apply(Mul(), _by_row(call, zero.computed), columns)
        sums = _joined(call, Sub(), sums, product)
    if other.computed is not None:
        rows = call.apply(Sum((a.type.rank - 1,), keepdims=True), _less(call, a, zero))
        sums = _joined(call, Sub(), sums, call.apply(Mul(), rows, other.computed))
    return restored(sums)


def _linear(call: Call, a: Operand, weight: Operand, zero: Zero) -> Operand:
    """The sums by a weight (out, in)."""
    sums = call.apply(IntegerLinear(zero.known), a, weight)
    if zero.computed is None:
        return sums
    totals = _totals(call, weight, (1,))
    return _joined(call, Sub(), sums, call.apply(Mul(), _by_row(call, zero.computed), totals))


def _joined(call: Call, op: Op, sums: Operand, other: Operand) -> Operand:
    """Sums and what broadcasts with them. Raises ModelFileError where that has another length, with
    which sums of one row or column would become many."""
    result = call.apply(op, sums, other)
    if result.type.shape != sums.type.shape:
        raise ModelFileError(f"has scales or zero points {other.type} for sums {sums.type}")
    return result


def _less(call: Call, x: Operand, zero: Zero) -> Operand:
    """x less a zero point that is known, in i32."""
    wide = call.apply(Cast("i32"), x)
    return call.apply(Sub(), wide, Known(np.array(zero.known, np.int32))) if zero.known else wide


def _by_row(call: Call, zero: Operand) -> Operand:
    """The zero points of rows, or the one of all, beside columns."""
    return call.reshape(zero, (*zero.type.shape, 1)) if zero.type.rank == 1 else zero


# -- weights --------------------------------------------------------------------------------------


def centred(call: Call, index: int, zero_point: int, axis: int) -> Parameter:
    """Weights that the file holds, less their zero point or those along an axis: i8, or i16 where
    these hold them."""
    weight = stored(call, index)
    zero = stored(call, zero_point).array if call.has(zero_point) else np.zeros((), np.int8)
    if zero.size != 1 and zero.shape != weight.array.shape[axis : axis + 1]:
        raise ModelFileError(f"has zero points {zero.shape} for weights {weight.type}")
    if not zero.any() and weight.array.dtype == np.int8:
        return call.parameter(index, weight)
    if zero.size > 1:
        zero = np.moveaxis(zero.reshape(-1, *(1,) * (weight.array.ndim - 1)), 0, axis)
    numbers = weight.array.astype(np.int16) - (zero if zero.size > 1 else zero.reshape(()))
    fits = numbers.size and numbers.min() >= -128 and numbers.max() <= 127
    return call.parameter(index, Known(numbers.astype(np.int8 if fits else np.int16)), "centred")


def stored(call: Call, index: int) -> Known:
    """An operand of integers that the file holds."""
    operand = widened(call, index)
    if not isinstance(operand, Known):
        raise UnsupportedError(f"operand {index} is computed when the model runs")
    return operand


def _totals(call: Call, weight: Operand, axes: tuple[int, ...]) -> Operand:
    """The sums of weights, in i32."""
    return call.apply(Sum(axes), call.apply(Cast("i32"), weight))


# -- scales ---------------------------------------------------------------------------------------


def _scale(call: Call, index: int) -> Operand:
    """A scale, or those of channels, with its elements where the file tells them."""
    check_scale(call, index, 0.0)
    scale = call.operand(index)
    return number(call, Known(call.elements(index)) if isinstance(scale, Parameter) else scale)


def _multiplier(call: Call, left: int, right: int, result: int) -> Operand:
    """The product of two scales, by that of the result."""
    check_scale(call, result)
    product = call.apply(Mul(), _by_row(call, _scale(call, left)), _scale(call, right))
    return call.apply(Div(), product, _scale(call, result))


def requantised(call: Call, sums: Operand, multiplier: Operand, zero_point: int) -> Operand:
    """Sums as integers of the dtype of the zero point at this index; without, u8."""
    y = _joined(call, Mul(), call.apply(Cast("f32"), sums), multiplier)
    if not call.has(zero_point):
        return call.apply(Saturate("u8"), y)
    given = number(call, call.operand(zero_point))
    if isinstance(given, Known) and given.array.ndim == 0:
        return call.apply(Saturate(given.type.dtype, int(given.array)), y)
    return call.apply(Quantize(given.type.dtype), y, 1.0, given)


# -- writing --------------------------------------------------------------------------------------


@writes(IntegerConv2d)
def write_integer_convolution(
    w: Writer, op: IntegerConv2d, operands: Sequence[Edge], kind: TensorType
) -> str:
    x, weight, *bias = operands
    floats = op.of_floats()
    window = {
        "kernel_shape": weight.type.shape[2:],
        "strides": floats.stride,
        "pads": floats.padding,
        "dilations": floats.dilation,
        "group": floats.groups,
    }
    left = _unsigned(w, x, op.zero_point)
    terms = (_sums(w, "ConvInteger", left, part, **window) for part in _parts(w, weight))
    sums = _added(w, *terms)
    if not bias:
        return sums
    return w.emit("Add", sums, w.emit("Reshape", bias[0], w.integers(-1, 1, 1)))


@writes(IntegerLinear)
def write_integer_linear(
    w: Writer, op: IntegerLinear, operands: Sequence[Edge], kind: TensorType
) -> str:
    x, weight, *bias = operands
    left = _unsigned(w, x, op.zero_point)
    terms = [
        _sums(w, "MatMulInteger", left, (w.emit("Transpose", part, perm=(1, 0)), zero))
        for part, zero in _parts(w, weight)
    ]
    return _added(w, *terms, *(edge.name for edge in bias))


@writes(IntegerMatMul)
def write_integer_matmul(
    w: Writer, op: IntegerMatMul, operands: Sequence[Edge], kind: TensorType
) -> str:
    a, b = operands
    left, right = _unsigned(w, a, op.zero_point), _unsigned(w, b, op.right_zero_point)
    return _sums(w, "MatMulInteger", left, right)


Bytes = tuple[str, int]
"""The name of a tensor of u8, and its zero point."""


def _unsigned(w: Writer, x: Edge, zero: int) -> Bytes:
    """A tensor of 8 bits as u8. Of u8 alone ONNX Runtime's sums are exact on all processors: those
    of products of u8 and i8 saturate at 16 bits where there is no VNNI."""
    if x.type.dtype == "u8":
        return x.name, zero
    return _as_bytes(w, w.emit("Cast", x, to=INT32), 128), zero + 128


def _as_bytes(w: Writer, x: str, zero: int) -> str:
    """Integers of 32 bits plus a zero point as u8."""
    return w.emit("Cast", w.emit("Add", x, w.constant(zero, "i32")), to=UINT8)


def _parts(w: Writer, weight: Edge) -> list[Bytes]:
    """Weights as the sum of tensors of u8: of 16 bits there are two, -128 to 127, and the rest."""
    if weight.type.dtype == "i8":
        return [_unsigned(w, weight, 0)]
    wide = w.emit("Cast", weight, to=INT32)
    most = w.emit("Min", w.emit("Max", wide, w.constant(-128, "i32")), w.constant(127, "i32"))
    rest = w.emit("Sub", wide, most)
    return [(_as_bytes(w, most, 128), 128), (_as_bytes(w, rest, 127), 127)]


def _sums(w: Writer, operator: str, left: Bytes, right: Bytes, **attributes: Any) -> str:
    (x, zero), (weight, other) = left, right
    zeros = (w.constant(number, "u8") for number in (zero, other))
    return w.emit(operator, x, weight, *zeros, **attributes)


def _added(w: Writer, first: str, *others: str) -> str:
    for other in others:
        first = w.emit("Add", first, other)
    return first
