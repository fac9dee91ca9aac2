"""Quantised tensors: QuantizeLinear and DequantizeLinear.

Scales and zero points of a whole tensor are constants of the graph, those of channels and blocks
are parameters, and so are the integers that stand for weights. Four-bit integers, which graphs have
no dtype for, are held as 8-bit ones; what would be quantised to them runs on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.graph import Parameter
from lucid.ir.ops import Cast, Dequantize, Lookup, Quantize, Saturate
from lucid.ir.types import DTYPES, TensorType
from lucid.onnx.known import Foreign, Known, Operand, known
from lucid.onnx.table import reads, writes
from lucid.onnx.tensors import graph_dtype

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.writer import Edge, Writer

CHANNELS_SINCE, WIDE_SINCE = 13, 21
"""The versions of QuantizeLinear and DequantizeLinear from which on channels have scales, and
blocks, and 16 bits are written."""
INT32 = 6
"""ONNX's number of the element type."""
WIDER = {"int2": "i8", "int4": "i8", "uint2": "u8", "uint4": "u8"}
"""The dtypes that hold packed integers, by NumPy's names for those."""
LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""Smaller scales are denormal numbers, which compiled code takes for 0."""


class Scales(NamedTuple):
    """Scale and zero point of a tensor (None: 0) as operands, and `axis` and `block` of the op that
    takes them."""

    scale: Operand
    zero_point: Operand | None
    axis: int
    block: int

    @property
    def operands(self) -> list[Operand]:
        return [self.scale] if self.zero_point is None else [self.scale, self.zero_point]


@reads("QuantizeLinear", "com.microsoft.QuantizeLinear")
def read_quantize(call: Call) -> Operand:
    call.ignore("saturate")  # is of floats of 8 bits
    if call.integer("precision", 0) not in (0, 1):
        raise UnsupportedError("divides in other floats than f32")
    x = floats(call, call.operand(0))
    dtype = _dtype(call)
    scales = scales_of(call, x.type)
    check_scale(call, 1)
    return call.apply(Quantize(dtype, scales.axis, scales.block), x, *scales.operands)


def _dtype(call: Call) -> str:
    """That of the zero point, or what the operator says."""
    stated = call.integer("output_dtype", 0)
    dtype = graph_dtype(stated) if stated else "u8"
    if not call.has(2):
        return dtype
    its = call.operand(2).type.dtype
    if stated and its != dtype:
        raise ModelFileError(f"says that it gives {dtype}, and has a zero point of {its}")
    return its


@reads("DequantizeLinear", "com.microsoft.DequantizeLinear")
def read_dequantize(call: Call) -> Operand:
    call.ignore("output_dtype")  # floats are computed in f32, whatever they are to be
    x = whole(call, 0)
    elements = call.element(0), call.element(2) if call.has(2) else 0
    if all(elements) and elements[0] != elements[1]:
        raise ModelFileError(f"has a zero point of another element type than {x.type}")
    scales = scales_of(call, x.type)
    check_scale(call, 1, 0.0)
    return call.apply(Dequantize(scales.axis, scales.block), x, *scales.operands)


def floats(call: Call, x: Operand) -> Operand:
    """An operand in f32, which integers are turned into."""
    return x if x.type.dtype == "f32" else call.apply(Cast("f32"), x)


def whole(call: Call, index: int) -> Operand:
    """An operand of integers; one that the file holds, and that has axes, as a parameter."""
    operand = widened(call, index)
    if isinstance(operand, Known) and operand.array.ndim and not operand.has_batch:
        return call.parameter(index, operand)
    return operand


def widened(call: Call, index: int) -> Operand:
    """An operand of integers, of which packed ones are unpacked."""
    held = call.held(index)
    if isinstance(held, Foreign):
        array = np.asarray(held.value)
        if array.dtype.name in WIDER:
            return known(array.astype(DTYPES[WIDER[array.dtype.name]]))
    return call.as_operand(held)


def scales_of(call: Call, x: TensorType, scale: int = 1, zero_point: int = 2) -> Scales:
    """The operands at these indices as scale and zero point of a tensor. One number may have any
    shape; a vector is one for each index along the attribute `axis`; with the attribute
    `block_size` there is one for each block of so many along it."""
    axis, block = call.integer("axis", 1), call.integer("block_size", 0)
    given = call.operand(scale)
    zero = widened(call, zero_point) if call.has(zero_point) else None
    if zero is not None:
        _require_as_many(zero, given)
    if is_number(given):
        zero = None if zero is None or _is_zero(zero) else number(call, zero)
        return Scales(number(call, given), zero, 0, 0)
    if not block and given.type.rank != 1:
        raise ModelFileError(f"has scales {given.type} for {x}: neither one, nor for an axis")
    if not call.operator.domain and call.opset < CHANNELS_SINCE:
        raise ModelFileError(f"has scales {given.type}: one for each channel came with opset 13")
    if isinstance(zero, Known):
        zero = None if _is_zero(zero) else call.parameter(zero_point, zero)
    return Scales(call.value(given), zero, call.counted(axis, x.rank), max(0, block))


def _require_as_many(zero: Operand, scale: Operand) -> None:
    """Raises ModelFileError unless there is a zero point for each scale."""
    if zero.type.shape != scale.type.shape and not (is_number(zero) and is_number(scale)):
        raise ModelFileError(
            f"has zero points {zero.type} for scales {scale.type}: as many as these"
        )


def _is_zero(zero: Operand) -> bool:
    """Whether zero points are known to be 0, as those of weights are as a rule."""
    return isinstance(zero, Known) and not zero.array.any()


def is_number(operand: Operand) -> bool:
    """Whether a tensor has one element, whatever its shape."""
    return all(d == 1 for d in operand.type.shape)


def number(call: Call, operand: Operand) -> Operand:
    """The one element of an operand without axes; an operand of several as it is."""
    return call.reshape(operand, ()) if is_number(operand) else operand


def check_scale(call: Call, index: int, least: float = LEAST_SCALE) -> None:
    """Raises ModelFileError where a scale that is known is below `least`, infinite or NaN."""
    if not isinstance(call.operand(index), Known | Parameter):
        return
    scale = call.elements(index).reshape(-1)
    wrong = scale[~((scale >= least) & np.isfinite(scale))]
    if wrong.size:
        raise ModelFileError(f"has the scale {wrong[0]:g}: a scale is a positive number")


# -- writing --------------------------------------------------------------------------------------


@writes(Quantize)
def write_quantize(w: Writer, op: Quantize, operands: Sequence[Edge], kind: TensorType) -> str:
    x, scale, *given = operands
    _require_operator(w, op.dtype, op.block)
    zero = given[0] if given else _zeros(w, op.dtype, scale)
    return w.emit("QuantizeLinear", x, scale, zero, **_granularity(op, scale))


@writes(Dequantize)
def write_dequantize(w: Writer, op: Dequantize, operands: Sequence[Edge], kind: TensorType) -> str:
    """Integers of 32 bits have no zero point in ONNX."""
    x, scale, *zero = operands
    _require_operator(w, "i8" if x.type.dtype == "i32" else x.type.dtype, op.block)
    if zero and x.type.dtype == "i32":
        x, zero = w.edge(w.emit("Sub", x, _beside(w, op, x.type, *zero)), x.type), []
    return w.emit("DequantizeLinear", x, scale, *zero, **_granularity(op, scale))


@writes(Saturate)
def write_saturate(w: Writer, op: Saturate, operands: Sequence[Edge], kind: TensorType) -> str:
    """A QuantizeLinear by a scale of 1."""
    _require_operator(w, op.dtype, 0)
    return w.emit("QuantizeLinear", *operands, w.constant(1.0), w.constant(op.zero_point, op.dtype))


@writes(Lookup)
def write_lookup(w: Writer, op: Lookup, operands: Sequence[Edge], kind: TensorType) -> str:
    x, table = operands
    index = w.emit("Cast", x, to=INT32)
    if x.type.dtype == "i8":
        index = w.emit("Add", index, w.constant(128, "i32"))
    return w.emit("Gather", table, index, axis=0)


def _granularity(op: Quantize | Dequantize, scale: Edge) -> dict[str, int]:
    """The attributes for scales of channels and of blocks."""
    if not scale.type.rank:
        return {}
    return {"axis": op.axis, "block_size": op.block} if op.block else {"axis": op.axis}


def _require_operator(w: Writer, dtype: str, block: int) -> None:
    """Write a version of QuantizeLinear and DequantizeLinear that has this."""
    if dtype not in ("u8", "i8", "u16", "i16"):
        raise UnsupportedError(f"QuantizeLinear to {dtype}")
    if block or dtype not in ("u8", "i8"):
        w.require(WIDE_SINCE)


def _zeros(w: Writer, dtype: str, scale: Edge) -> str:
    """A zero point of 0, which says what the dtype is, for each scale."""
    shape = [d for d in scale.type.shape if isinstance(d, int)]
    return w.constant(np.zeros(shape), dtype)


def _beside(w: Writer, op: Dequantize, x: TensorType, zero: Edge) -> str:
    """Zero points as an operand of x."""
    if op.block and zero.type.rank:
        raise UnsupportedError("zero points of blocks of 32-bit integers")
    after = x.rank - op.axis - 1
    return w.emit("Reshape", zero, w.integers(-1, *(1,) * after)) if zero.type.rank else zero.name
