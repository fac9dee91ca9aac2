"""Activations. What has no operator of its own in opset 18 is written in others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.ir.ops import (
    Add,
    Clip,
    Div,
    Elu,
    Gelu,
    Hardsigmoid,
    LeakyRelu,
    Less,
    Maximum,
    Minimum,
    Mul,
    Prelu,
    Sigmoid,
    Silu,
    Where,
)
from lucid.ir.types import TensorType
from lucid.onnx.known import Known
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

LARGEST = 3.4028234e38
"""The bounds that older versions of Clip have where there is none: of float32."""


@writes(Silu)
def write_silu(w: Writer, op: Silu, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Mul", operands[0], w.emit("Sigmoid", operands[0]))


@reads("Swish")
def read_swish(call: Call) -> Operand:
    x, alpha = call.operand(0), call.number("alpha", 1.0)
    if alpha == 1:
        return call.apply(Silu(), x)
    return call.apply(Mul(), x, call.apply(Sigmoid(), call.apply(Mul(), x, alpha)))


@writes(Hardsigmoid)
def write_hardsigmoid(
    w: Writer, op: Hardsigmoid, operands: Sequence[Edge], kind: TensorType
) -> str:
    return w.emit("HardSigmoid", operands[0], alpha=1 / 6, beta=0.5)


@reads("HardSigmoid")
def read_hardsigmoid(call: Call) -> Operand:
    """max(0, min(1, alpha x + beta)); with PyTorch's numbers it is the op."""
    x, alpha, beta = call.operand(0), call.number("alpha", 0.2), call.number("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return call.apply(Hardsigmoid(), x)
    line = call.apply(Add(), call.apply(Mul(), x, alpha), beta)
    return call.apply(Clip(0.0, 1.0), line)


@writes(LeakyRelu)
def write_leaky_relu(w: Writer, op: LeakyRelu, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("LeakyRelu", operands[0], alpha=op.slope)


@reads("LeakyRelu")
def read_leaky_relu(call: Call) -> Operand:
    return call.apply(LeakyRelu(call.number("alpha", 0.01)), call.operand(0))


@writes(Elu)
def write_elu(w: Writer, op: Elu, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Elu", operands[0], alpha=op.alpha)


@reads("Elu")
def read_elu(call: Call) -> Operand:
    return call.apply(Elu(call.number("alpha", 1.0)), call.operand(0))


@reads("Selu")
def read_selu(call: Call) -> Operand:
    alpha, gamma = call.number("alpha", 1.67326319), call.number("gamma", 1.05070102)
    return call.apply(Mul(), call.apply(Elu(alpha), call.operand(0)), gamma)


@reads("Celu")
def read_celu(call: Call) -> Operand:
    """alpha (exp(x / alpha) - 1) below 0: an ELU of x / alpha, stretched again."""
    alpha = call.number("alpha", 1.0)
    return call.apply(Mul(), call.apply(Elu(), call.apply(Div(), call.operand(0), alpha)), alpha)


@reads("ThresholdedRelu")
def read_thresholded_relu(call: Call) -> Operand:
    x = call.operand(0)
    return call.apply(Where(), call.apply(Less(), call.number("alpha", 1.0), x), x, 0.0)


@writes(Prelu)
def write_prelu(w: Writer, op: Prelu, operands: Sequence[Edge], kind: TensorType) -> str:
    """ONNX broadcasts the slope only; where x has to be, in parts."""
    x, slope = operands
    if x.type == kind:
        return w.emit("PRelu", x, slope)
    return w.emit("Where", w.emit("Greater", x, w.constant(0.0)), x, w.emit("Mul", slope, x))


@reads("PRelu")
def read_prelu(call: Call) -> Operand:
    return call.apply(Prelu(), call.operand(0), call.operand(1))


@writes(Clip)
def write_clip(w: Writer, op: Clip, operands: Sequence[Edge], kind: TensorType) -> str:
    if op.low is None and op.high is None:
        return operands[0].name
    bounds = ["" if bound is None else w.constant(bound) for bound in (op.low, op.high)]
    return w.emit("Clip", operands[0], *bounds)


@reads("Clip")
def read_clip(call: Call) -> Operand:
    """Bounds were attributes before opset 11. Where low exceeds high, all becomes high."""
    x = call.operand(0)
    if call.opset < 11:
        low, high = call.number("min", -LARGEST), call.number("max", LARGEST)
        return _clipped(
            call, x, None if low <= -LARGEST else low, None if high >= LARGEST else high
        )
    bounds = [call.operand(i) if call.has(i) else None for i in (1, 2)]
    if x.type.dtype == "f32" and all(b is None or isinstance(b, Known) for b in bounds):
        return _clipped(call, x, *(call.scalar(i) if call.has(i) else None for i in (1, 2)))
    for op, bound in zip((Maximum(), Minimum()), bounds, strict=True):
        x = x if bound is None else call.apply(op, x, bound)
    return x


def _clipped(call: Call, x: Operand, low: float | None, high: float | None) -> Operand:
    if low is None and high is None:
        return x
    if low is not None and high is not None:
        low = min(low, high)
    return call.apply(Clip(low, high), x)


@writes(Gelu)
def write_gelu(w: Writer, op: Gelu, operands: Sequence[Edge], kind: TensorType) -> str:
    """x * (1 + bend) / 2; ONNX has an operator for it only from opset 20 on."""
    (x,) = operands
    if op.approximate == "tanh":
        cube = w.emit("Mul", w.emit("Mul", w.emit("Mul", x, x), x), w.constant(0.044715))
        inner = w.emit("Mul", w.emit("Add", x, cube), w.constant(math.sqrt(2 / math.pi)))
        bend = w.emit("Tanh", inner)
    else:
        bend = w.emit("Erf", w.emit("Mul", x, w.constant(math.sqrt(0.5))))
    half = w.emit("Mul", x, w.constant(0.5))
    return w.emit("Mul", half, w.emit("Add", bend, w.constant(1.0)))


@reads("Gelu")
def read_gelu(call: Call) -> Operand:
    return call.apply(Gelu(call.text("approximate", "none")), call.operand(0))
