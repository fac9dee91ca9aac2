"""Layers of quantised tensors, each of which dequantises its operands, computes in f32, and
quantises what comes out: those that ONNX Runtime adds to ONNX's own. And quantisation by a scale
that is chosen when the model runs.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir import volumes
from lucid.ir.ops import (
    Add,
    Cast,
    Clip,
    Concat,
    Dequantize,
    Div,
    Equal,
    LeakyRelu,
    Max,
    Maximum,
    Mean,
    Min,
    Minimum,
    Mul,
    Op,
    Quantize,
    Round,
    Sigmoid,
    Softmax,
    Sub,
    Where,
)
from lucid.onnx.known import Operand
from lucid.onnx.operators.quantisation import check_scale, number, whole
from lucid.onnx.table import reads
from lucid.onnx.windows import windows

if TYPE_CHECKING:
    from lucid.onnx.call import Call

LEVELS = 255
"""The largest u8."""
SOFTMAX_SINCE = 13
"""The version of Softmax from which on it is over one axis."""


@reads("DynamicQuantizeLinear")
def read_dynamic(call: Call) -> Sequence[Operand]:
    """x as u8, by a scale and a zero point that take in all of x and 0. Of zeros alone the scale is
    1, as ONNX Runtime has it."""
    x = call.operand(0)
    axes = tuple(range(x.type.rank))
    least = call.apply(Minimum(), call.apply(Min(axes), x), 0.0)
    most = call.apply(Maximum(), call.apply(Max(axes), x), 0.0)
    zeros = call.apply(Equal(), most, least)
    extent = call.apply(Where(), zeros, 1.0, call.apply(Sub(), most, least))
    # A division by what is no constant, which no pass turns into a product.
    scale = call.apply(Div(), extent, call.apply(Where(), zeros, 1.0, float(LEVELS)))
    below = call.apply(Sub(), 0.0, call.apply(Div(), least, scale))
    zero = call.apply(Round(), call.apply(Clip(0.0, float(LEVELS)), below))
    zero = call.apply(Cast("u8"), zero)
    return [call.apply(Quantize("u8"), x, scale, zero), scale, zero]


# -- of ONNX Runtime ------------------------------------------------------------------------------


@reads("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def read_quantised_arithmetic(call: Call) -> Operand:
    op: Op = Add() if call.kind == "QLinearAdd" else Mul()
    return _quantised(call, call.apply(op, _floats(call, 0), _floats(call, 3)), 6)


@reads("com.microsoft.QLinearWhere")
def read_quantised_choice(call: Call) -> Operand:
    y = call.apply(Where(), call.operand(0), _floats(call, 1), _floats(call, 4))
    return _quantised(call, y, 7)


@reads("com.microsoft.QLinearConcat")
def read_quantised_concat(call: Call) -> Operand:
    parts = [_floats(call, i) for i in range(2, len(call.operator.proto.input), 3)]
    if not parts:
        raise ModelFileError("joins nothing")
    axis = call.axis(rank=parts[0].type.rank)
    return _quantised(call, call.apply(Concat(axis), *parts), 0, like=2)


@reads("com.microsoft.QLinearSigmoid")
def read_quantised_sigmoid(call: Call) -> Operand:
    return _quantised(call, call.apply(Sigmoid(), _floats(call, 0)), 3)


@reads("com.microsoft.QLinearLeakyRelu")
def read_quantised_leaky_relu(call: Call) -> Operand:
    op = LeakyRelu(call.number("alpha", 0.01))
    return _quantised(call, call.apply(op, _floats(call, 0)), 3)


@reads("com.microsoft.QLinearSoftmax")
def read_quantised_softmax(call: Call) -> Operand:
    """`opset`: the version of Softmax that is meant."""
    axis = call.axis(-1)
    if call.integer("opset", SOFTMAX_SINCE) < SOFTMAX_SINCE and axis != call.rank() - 1:
        raise UnsupportedError("over several axes at once")
    return _quantised(call, call.apply(Softmax(axis), _floats(call, 0)), 3)


@reads("com.microsoft.QLinearGlobalAveragePool")
def read_quantised_global_pool(call: Call) -> Operand:
    _require_channels_first(call)
    axes = tuple(range(2, call.rank()))
    return _quantised(call, call.apply(Mean(axes, keepdims=True), _floats(call, 0)), 3)


@reads("com.microsoft.QLinearAveragePool")
def read_quantised_pool(call: Call) -> Operand:
    _require_channels_first(call)
    w = windows(call, call.integer_list("kernel_shape") or ())
    ceil_mode, counts = (bool(call.integer(n, 0)) for n in ("ceil_mode", "count_include_pad"))
    x = call.value(_floats(call, 0))
    return _quantised(call, volumes.avg_pool(call.node, x, w, ceil_mode, counts), 3)


def _require_channels_first(call: Call) -> None:
    if call.integer("channels_last", 0):
        raise UnsupportedError("with channels last")


def _floats(call: Call, index: int) -> Operand:
    """The tensor whose integers, scale and zero point are the operands from this index on."""
    x = whole(call, index)
    return call.apply(Dequantize(), x, *_step(call, index + 1, 0.0))


def _quantised(call: Call, y: Operand, index: int, like: int = 0) -> Operand:
    """A tensor by the scale and the zero point that are the operands from this index on; without a
    zero point in the dtype of operand `like`."""
    step = _step(call, index)
    dtype = (step[1] if len(step) > 1 else call.operand(like)).type.dtype
    return call.apply(Quantize(dtype), y, *step)


def _step(call: Call, index: int, least: float | None = None) -> list[Operand]:
    """A scale of a whole tensor, and its zero point where there is one."""
    check_scale(call, index, *([] if least is None else [least]))
    indices = [index, index + 1] if call.has(index + 1) else [index]
    step = [number(call, call.operand(i)) for i in indices]
    if any(operand.type.rank for operand in step):
        raise ModelFileError(f"has scales {step[0].type}: this operator has one of a whole tensor")
    return step
