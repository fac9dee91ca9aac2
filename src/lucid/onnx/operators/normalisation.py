"""Normalisation. Opset 18 lacks the group norm and the RMS norm of today: they are written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import (
    Abs,
    Add,
    BatchNorm,
    Div,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    Maximum,
    Mean,
    Mul,
    RmsNorm,
    Sqrt,
    Sub,
    Sum,
)
from lucid.ir.types import Shape, TensorType
from lucid.onnx import computed_weights
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


SMALLEST = float(np.finfo(np.float32).smallest_normal)
PRECISION = ("stash_type",)
"""Attributes that say how statistics are rounded meanwhile: here they are float32 at least."""


@writes(BatchNorm)
def write_batch_norm(w: Writer, op: BatchNorm, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("BatchNormalization", *operands, epsilon=op.eps)


@reads("BatchNormalization")
def read_batch_norm(call: Call) -> Operand:
    """With the statistics that the file holds; of several results only the first is given.

    In training mode it takes its operand's own: of weights these are known, and standardise them.
    """
    eps = call.number("epsilon", 1e-5)
    call.ignore("momentum")  # of statistics that training keeps
    if not call.integer("spatial", 1):
        raise UnsupportedError("with statistics for each pixel")
    if not call.integer("training_mode", 0):
        x, *statistics = call.operands()
        if all(map(call.is_weight, statistics)):
            return call.apply(BatchNorm(eps), x, *statistics)
        return computed_weights.batch_norm(call, eps, x, *statistics)
    x = call.operand(0)
    if not call.is_weight(x):
        raise UnsupportedError("in training mode: export the model after `model.eval()`")
    call.ignore(3, 4)
    rank = x.type.rank
    y = call.apply(LayerNorm((0, *range(2, rank)), eps), x)
    for op, index in ((Mul(), 1), (Add(), 2)):
        (channels,) = call.integer_dims(*call.shape(index))
        y = call.apply(op, y, call.reshape(call.operand(index), (channels, *(1,) * (rank - 2))))
    return y


# -- over axes ----------------------------------------------------------------------------------


@writes(LayerNorm)
def write_layer_norm(w: Writer, op: LayerNorm, operands: Sequence[Edge], kind: TensorType) -> str:
    """LayerNormalization takes the last axes only, and wants a scale."""
    x, *affine = operands
    first = kind.rank - len(op.axes)
    if op.axes == tuple(range(first, kind.rank)):
        if not affine:
            affine = [w.edge(w.constant(np.ones(kind.concrete(1)[first:])), kind)]
        return w.emit("LayerNormalization", x, *affine, axis=first, epsilon=op.eps)
    mean = w.apply(Mean(op.axes, keepdims=True), x)
    y = _scaled(w, w.apply(Sub(), x, mean), op.axes, op.eps)
    return _affine(w, y, op.axes, affine).name


@reads("LayerNormalization")
def read_layer_norm(call: Call) -> Operand:
    """Without its mean and deviation, which only training reads."""
    x, first = call.operand(0), call.axis(-1)
    call.ignore(*PRECISION)
    axes = tuple(range(first, x.type.rank))
    shape = tuple(call.integer_dims(*x.type.shape[first:]))
    affine = [call.expand(o, shape) for o in call.operands()[1:]]
    return call.apply(LayerNorm(axes, call.number("epsilon", 1e-5)), x, *affine)


@writes(RmsNorm)
def write_rms_norm(w: Writer, op: RmsNorm, operands: Sequence[Edge], kind: TensorType) -> str:
    x, *weight = operands
    return _affine(w, _scaled(w, x, op.axes, op.eps), op.axes, weight).name


@reads("RMSNormalization")
def read_rms_norm(call: Call) -> Operand:
    x, first = call.operand(0), call.axis(-1)
    call.ignore(*PRECISION)
    axes = tuple(range(first, x.type.rank))
    shape = tuple(call.integer_dims(*x.type.shape[first:]))
    weight = [call.expand(o, shape) for o in call.operands()[1:]]
    return call.apply(RmsNorm(axes, call.number("epsilon", 1e-5)), x, *weight)


def _scaled(w: Writer, x: Edge, axes: tuple[int, ...], eps: float) -> Edge:
    """x / sqrt(mean(x^2) + eps)."""
    square = w.apply(Mean(axes, keepdims=True), w.apply(Mul(), x, x))
    total = w.edge(w.emit("Add", square, w.constant(eps)), square.type)
    return w.apply(Div(), x, w.apply(Sqrt(), total))


def _affine(w: Writer, y: Edge, axes: Sequence[int], affine: Sequence[Edge]) -> Edge:
    """y * weight + bias, those that there are; they have y's dimensions at `axes`, in order."""
    for op, values in zip((Mul(), Add()), affine, strict=False):
        order = sorted(range(len(axes)), key=lambda i: axes[i])
        if order != list(range(len(axes))):
            turned = values.type.with_shape(tuple(values.type.shape[i] for i in order))
            values = w.edge(w.emit("Transpose", values, perm=order), turned)
        shape: Shape = tuple(d if a in axes else 1 for a, d in enumerate(y.type.shape))
        values = w.edge(w.emit("Reshape", values, w.shape(shape)), values.type.with_shape(shape))
        y = w.apply(op, y, values)
    return y


# -- over groups --------------------------------------------------------------------------------


@writes(GroupNorm)
def write_group_norm(w: Writer, op: GroupNorm, operands: Sequence[Edge], kind: TensorType) -> str:
    """Each group as the one channel of an instance norm, then scale and bias by channel."""
    x, weight, bias = operands
    grouped = w.emit("Reshape", x, w.integers(0, op.groups, -1))
    one, none = w.constant(np.ones(op.groups)), w.constant(np.zeros(op.groups))
    y = w.emit("InstanceNormalization", grouped, one, none, epsilon=op.eps)
    y = w.emit("Reshape", y, w.shape(kind.shape))
    return _affine(w, w.edge(y, kind), (1,), (weight, bias)).name


@reads("GroupNormalization")
def read_group_norm(call: Call) -> Operand:
    """Scale and bias: one for each channel; one for each group before opset 21."""
    x, groups = call.operand(0), call.integer("num_groups", 0)
    call.ignore(*PRECISION)
    (channels,) = call.integer_dims(*x.type.shape[1:2])
    if groups < 1 or channels % groups:
        raise ModelFileError(f"splits {channels} channels into {groups} groups")
    affine = [call.operand(1), call.operand(2)]
    if call.opset < 21:
        each = channels // groups
        columns = [call.reshape(o, (groups, 1)) for o in affine]
        affine = [call.reshape(call.expand(o, (groups, each)), (channels,)) for o in columns]
    return call.apply(GroupNorm(groups, call.number("epsilon", 1e-5)), x, *affine)


@reads("InstanceNormalization")
def read_instance_norm(call: Call) -> Operand:
    x = call.operand(0)
    (channels,) = call.integer_dims(*x.type.shape[1:2])
    return call.apply(GroupNorm(channels, call.number("epsilon", 1e-5)), *call.operands())


# -- over neighbours and along an axis ----------------------------------------------------------


@writes(LocalResponseNorm)
def write_local_response_norm(
    w: Writer, op: LocalResponseNorm, operands: Sequence[Edge], kind: TensorType
) -> str:
    """LRN, where the window has a middle; else its sum as an average pool over the channels."""
    (x,) = operands
    if op.size % 2:
        return w.emit("LRN", x, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.k)
    row = w.emit("Reshape", w.emit("Mul", x, x), w.integers(0, 1, int(str(kind.shape[1])), -1))
    ends = w.integers(0, 0, op.size // 2, 0, 0, 0, (op.size - 1) // 2, 0)
    padded = w.emit("Pad", row, ends, w.constant(0.0))
    mean = w.emit("AveragePool", padded, kernel_shape=(op.size, 1), strides=(1, 1))
    mean = w.emit("Reshape", mean, w.shape(kind.shape))
    base = w.emit("Add", w.emit("Mul", mean, w.constant(op.alpha)), w.constant(op.k))
    return w.emit("Div", x, w.emit("Pow", base, w.constant(op.beta)))


@reads("LRN")
def read_local_response_norm(call: Call) -> Operand:
    """PyTorch's window is ONNX's where it has a middle."""
    size = call.integer("size", 0)
    if size % 2 == 0:
        raise UnsupportedError(f"over {size} channels: Lucid reads odd windows")
    alpha, beta = call.number("alpha", 1e-4), call.number("beta", 0.75)
    op = LocalResponseNorm(size, alpha, beta, call.number("bias", 1.0))
    return call.apply(op, call.operand(0))


@reads("LpNormalization")
def read_lp_normalization(call: Call) -> Operand:
    """What has the norm 0 stays 0."""
    x, axis, p = call.operand(0), call.axis(-1), call.integer("p", 2)
    if p == 1:
        norm = call.apply(Sum((axis,), keepdims=True), call.apply(Abs(), x))
    else:
        squares = call.apply(Mul(), x, x)
        norm = call.apply(Sqrt(), call.apply(Sum((axis,), keepdims=True), squares))
    return call.apply(Div(), x, call.apply(Maximum(), norm, SMALLEST))
