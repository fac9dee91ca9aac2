"""Layers whose weights are computed when the model runs, in ops that take such operands."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

from lucid.ir.ops import Add, Concat, Conv2d, Div, MatMul, Mul, Pad, Slice, Sqrt, Sub

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand


def convolution(
    call: Call, op: Conv2d, x: Operand, weight: Operand, bias: Operand | None
) -> Operand:
    """The op on computed weights: the pixels under each tap side by side, and one product.

    x: (N, C, H, W), weight: (O, C/groups, KH, KW), bias: (O) -> (N, O, OH, OW).
    """
    top, left, bottom, right = op.padding
    if any(op.padding):
        x = call.apply(Pad((0, 0, top, left), (0, 0, bottom, right)), x)
    batch, _, *sizes = x.type.shape
    out, inner, *taps = call.integer_dims(*weight.type.shape)
    steps = list(zip(call.integer_dims(*sizes), taps, op.stride, op.dilation, strict=True))
    counts = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in steps]
    columns = []
    for tap in product(*map(range, taps)):
        part = x
        for axis, (at, count, (_, _, s, d)) in enumerate(zip(tap, counts, steps, strict=True)):
            part = call.apply(Slice(2 + axis, at * d, at * d + (count - 1) * s + 1, s), part)
        columns.append(call.reshape(part, (batch, op.groups, inner, 1, prod(counts))))
    rows = columns[0] if len(columns) == 1 else call.apply(Concat(3), *columns)
    rows = call.reshape(rows, (batch, op.groups, inner * prod(taps), prod(counts)))
    matrix = call.reshape(weight, (op.groups, out // op.groups, inner * prod(taps)))
    y = call.reshape(call.apply(MatMul(), matrix, rows), (batch, out, *counts))
    if bias is None:
        return y
    return call.apply(Add(), y, call.reshape(bias, (out, *(1,) * len(counts))))


def batch_norm(call: Call, eps: float, x: Operand, *statistics: Operand) -> Operand:
    """(x - mean) / sqrt(variance + eps) * scale + bias, each along axis 1."""
    scale, bias, mean, variance = (_by_channel(call, s, x.type.rank) for s in statistics)
    deviation = call.apply(Sqrt(), call.apply(Add(), variance, eps))
    y = call.apply(Div(), call.apply(Sub(), x, mean), deviation)
    return call.apply(Add(), call.apply(Mul(), y, scale), bias)


def _by_channel(call: Call, x: Operand, rank: int) -> Operand:
    (channels,) = call.integer_dims(*x.type.shape)
    return call.reshape(x, (channels, *(1,) * max(0, rank - 2)))
