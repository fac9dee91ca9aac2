"""How each op is written in ONNX's operators (opset 18).

A function registered with `writes` takes the writer, the op, its operands and the type of its
result, emits operators, and returns the name of the result. What has no operator of the same
meaning is written in others; an operator that computes the same for these sizes is preferred where
runtimes are known to be fast at it, such as GlobalAveragePool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lucid.ir.ops import (
    Abs,
    Add,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv2d,
    Div,
    Erf,
    Exp,
    Expand,
    Fusion,
    Gelu,
    Hardsigmoid,
    Hardswish,
    Linear,
    MatMul,
    Max,
    Maximum,
    MaxPool2d,
    Mean,
    Minimum,
    Mul,
    Neg,
    Op,
    Permute,
    RadixCombine,
    RadixMean,
    RadixSoftmax,
    Relu,
    Reshape,
    Rsqrt,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    SplitAttention,
    Sqrt,
    Sub,
    Sum,
    Tanh,
)
from lucid.ir.ops.windows import Padding
from lucid.ir.types import Dim, TensorType

if TYPE_CHECKING:
    from lucid.ir.export.onnx import Edge, Writer

Write = Callable[["Writer", Any, Sequence["Edge"], TensorType], str]
OPERATORS: dict[type[Op], Write] = {}


def writes(*op_classes: type[Op]) -> Callable[[Write], Write]:
    """Register the decorated function as the way these ops are written."""

    def register(function: Write) -> Write:
        for op_class in op_classes:
            OPERATORS[op_class] = function
        return function

    return register


# -- elementwise --------------------------------------------------------------------------------

NAMESAKES: dict[type[Op], str] = {
    Abs: "Abs",
    Add: "Add",
    Div: "Div",
    Erf: "Erf",
    Exp: "Exp",
    Hardswish: "HardSwish",
    MatMul: "MatMul",
    Maximum: "Max",
    Minimum: "Min",
    Mul: "Mul",
    Neg: "Neg",
    Relu: "Relu",
    Sigmoid: "Sigmoid",
    Sqrt: "Sqrt",
    Sub: "Sub",
    Tanh: "Tanh",
}
"""Ops for which there is one operator of the same meaning, without attributes."""


@writes(*NAMESAKES)
def namesake(w: Writer, op: Op, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit(NAMESAKES[type(op)], *operands)


@writes(Silu)
def silu(w: Writer, op: Silu, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Mul", operands[0], w.emit("Sigmoid", operands[0]))


@writes(Hardsigmoid)
def hardsigmoid(w: Writer, op: Hardsigmoid, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("HardSigmoid", operands[0], alpha=1 / 6, beta=0.5)


@writes(Rsqrt)
def rsqrt(w: Writer, op: Rsqrt, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Reciprocal", w.emit("Sqrt", operands[0]))


@writes(Clip)
def clip(w: Writer, op: Clip, operands: Sequence[Edge], kind: TensorType) -> str:
    if op.low is None and op.high is None:
        return operands[0].name
    bounds = ["" if bound is None else w.constant(bound) for bound in (op.low, op.high)]
    return w.emit("Clip", operands[0], *bounds)


@writes(Gelu)
def gelu(w: Writer, op: Gelu, operands: Sequence[Edge], kind: TensorType) -> str:
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


@writes(Constant)
def constant(w: Writer, op: Constant, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.constant(op.value, op.dtype)


# -- products and norms -------------------------------------------------------------------------


@writes(Conv2d)
def convolution(w: Writer, op: Conv2d, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit(
        "Conv",
        *operands,
        kernel_shape=operands[1].type.shape[2:],
        strides=op.stride,
        pads=op.padding,
        dilations=op.dilation,
        group=op.groups,
    )


@writes(Linear)
def linear(w: Writer, op: Linear, operands: Sequence[Edge], kind: TensorType) -> str:
    """Gemm takes matrices only."""
    if operands[0].type.rank == 2:
        return w.emit("Gemm", *operands, transB=1)
    y = w.emit("MatMul", operands[0], w.emit("Transpose", operands[1], perm=(1, 0)))
    return w.emit("Add", y, operands[2]) if len(operands) == 3 else y


@writes(BatchNorm)
def batch_norm(w: Writer, op: BatchNorm, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("BatchNormalization", *operands, epsilon=op.eps)


# -- pooling ------------------------------------------------------------------------------------


@writes(MaxPool2d)
def max_pool(w: Writer, op: MaxPool2d, operands: Sequence[Edge], kind: TensorType) -> str:
    """Runtimes differ about windows that lie in the padding alone: these see it explicitly."""
    (x,) = operands
    pads = _borders(op, op.dilation, x.type, kind)
    windows: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride}
    if op.dilation != (1, 1):
        windows["dilations"] = op.dilation
    if any(pads) and (op.dilation != (1, 1) or not _within(pads, op.kernel)):
        return w.emit("MaxPool", _padded(w, x, pads, -math.inf), **windows)
    return w.emit("MaxPool", x, pads=pads, **windows)


@writes(AvgPool2d)
def avg_pool(w: Writer, op: AvgPool2d, operands: Sequence[Edge], kind: TensorType) -> str:
    """Without `ceil_mode`, about which runtimes differ: the pads say what the windows reach.

    Where ONNX divides by another number than the op, windows over explicit zeros, divided by their
    size, are corrected by a factor for each.
    """
    (x,) = operands
    height, width = op.integers(*x.type.shape[2:])
    pads = _borders(op, (1, 1), x.type, kind)
    divisors = op.divisors(height, width)
    area = op.kernel[0] * op.kernel[1]
    windows: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride}
    if not op.count_include_pad and op.divisor is None and _within(pads, op.kernel):
        return w.emit("AveragePool", x, pads=pads, **windows)
    if (divisors == area).all() and _within(pads, op.kernel):
        return w.emit("AveragePool", x, pads=pads, count_include_pad=1, **windows)
    y = w.emit("AveragePool", _padded(w, x, pads, 0.0), **windows)
    factors = area / divisors
    if (factors == factors[0, 0]).all():
        factors = factors[0, 0]
    return w.emit("Mul", y, w.constant(factors))


def _borders(
    op: MaxPool2d | AvgPool2d, dilation: tuple[int, int], x: TensorType, y: TensorType
) -> Padding:
    """The padding with which as many windows fit without `ceil_mode`: more, or less, at the end."""
    if not op.ceil_mode:
        return op.padding
    top, left = op.padding[:2]
    ends = []
    for axis, before in enumerate((top, left)):
        size, windows = op.integers(x.shape[2 + axis], y.shape[2 + axis])
        reach = (windows - 1) * op.stride[axis] + dilation[axis] * (op.kernel[axis] - 1) + 1
        ends.append(max(0, reach - before - size))
    return (top, left, ends[0], ends[1])


def _within(pads: Padding, kernel: tuple[int, int]) -> bool:
    """Whether every window touches the input (undilated), as runtimes demand."""
    return max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1]


def _padded(w: Writer, x: Edge, pads: Padding, fill: float) -> str:
    if not any(pads):
        return x.name
    top, left, bottom, right = pads
    ends = w.integers(0, 0, top, left, 0, 0, bottom, right)
    return w.emit("Pad", x, ends, w.constant(fill))


# -- reductions ---------------------------------------------------------------------------------


@writes(Sum, Max)
def reduction(w: Writer, op: Sum | Max, operands: Sequence[Edge], kind: TensorType) -> str:
    name = "ReduceSum" if isinstance(op, Sum) else "ReduceMax"
    if not op.axes:  # in ONNX, no axes means all of them
        return operands[0].name
    return w.emit(name, operands[0], w.integers(*op.axes), keepdims=int(op.keepdims))


@writes(Mean)
def mean(w: Writer, op: Mean, operands: Sequence[Edge], kind: TensorType) -> str:
    """The mean of whole images as the global pool that it is."""
    (x,) = operands
    if not op.axes:
        return x.name
    if x.type.rank == 4 and set(op.axes) == {2, 3}:
        y = w.emit("GlobalAveragePool", x)
        return y if op.keepdims else w.emit("Flatten", y, axis=1)
    return w.emit("ReduceMean", x, w.integers(*op.axes), keepdims=int(op.keepdims))


@writes(Softmax)
def softmax(w: Writer, op: Softmax, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Softmax", operands[0], axis=op.axis)


# -- shapes -------------------------------------------------------------------------------------


@writes(Reshape)
def reshape(w: Writer, op: Reshape, operands: Sequence[Edge], kind: TensorType) -> str:
    """A dimension of the batch is 0 where it stays in its place, else -1 if it is the only one."""
    (x,) = operands
    stays = [i < x.type.rank and x.type.shape[i] == d for i, d in enumerate(kind.shape)]
    dims = [
        d if isinstance(d, int) else 0 if stay else -1
        for d, stay in zip(kind.shape, stays, strict=True)
    ]
    target = w.integers(*dims) if dims.count(-1) <= 1 else w.shape(kind.shape)
    return w.emit("Reshape", x, target)


@writes(Permute)
def permute(w: Writer, op: Permute, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Transpose", operands[0], perm=op.axes)


@writes(Concat)
def concat(w: Writer, op: Concat, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Concat", *operands, axis=op.axis)


@writes(Slice)
def cut(w: Writer, op: Slice, operands: Sequence[Edge], kind: TensorType) -> str:
    bounds = [w.integers(n) for n in (op.start, op.stop, op.axis, op.step)]
    return w.emit("Slice", operands[0], *bounds)


@writes(Expand)
def expand(w: Writer, op: Expand, operands: Sequence[Edge], kind: TensorType) -> str:
    """A dimension that is the operand's own may be 1: both are broadcast."""
    (x,) = operands
    own = (1,) * (kind.rank - x.type.rank) + x.type.shape
    dims = tuple(1 if a == d else d for a, d in zip(own, kind.shape, strict=True))
    return w.emit("Expand", x, w.shape(dims))


# -- what is written as its parts ---------------------------------------------------------------


@writes(RadixMean)
def radix_mean(w: Writer, op: RadixMean, operands: Sequence[Edge], kind: TensorType) -> str:
    """The sum of the splits' means: no sum of whole images."""
    (x,) = operands
    mean = w.apply(Mean((2, 3), keepdims=True), x)
    return _total(w, [w.apply(part, mean) for part in _splits(op.radix, kind)])


@writes(RadixSoftmax)
def radix_softmax(w: Writer, op: RadixSoftmax, operands: Sequence[Edge], kind: TensorType) -> str:
    n, channels, *_ = kind.shape
    inner = _int(channels) // (op.cardinality * op.radix)
    if op.cardinality == 1:  # one cardinality: in the order of x already
        by_radix = w.apply(Reshape((n, op.radix, 1, inner)), operands[0])
    else:
        logits = w.apply(Reshape((n, op.cardinality, op.radix, inner)), operands[0])
        by_radix = w.apply(Permute((0, 2, 1, 3)), logits)
    return w.apply(Reshape(kind.shape), w.apply(Softmax(1), by_radix)).name


@writes(RadixCombine)
def radix_combine(w: Writer, op: RadixCombine, operands: Sequence[Edge], kind: TensorType) -> str:
    x, gate = operands
    if op.radix == 1:
        return w.apply(Mul(), x, gate).name
    parts = _splits(op.radix, kind)
    splits = [w.apply(part, x) for part in parts]
    if op.folded:
        difference = w.apply(Sub(), splits[0], splits[1])
        return w.apply(Add(), splits[1], w.apply(Mul(), gate, difference)).name
    gates = [w.apply(part, gate) for part in parts]
    return _total(w, [w.apply(Mul(), s, g) for s, g in zip(splits, gates, strict=True)])


@writes(SplitAttention)
def split_attention(
    w: Writer, op: SplitAttention, operands: Sequence[Edge], kind: TensorType
) -> str:
    x, fc1_weight, fc1_bias, fc2_weight, fc2_bias = operands
    parts = op.parts()
    hidden = w.apply(parts.fc1, w.apply(parts.mean, x), fc1_weight, fc1_bias)
    logits = w.apply(parts.fc2, w.apply(parts.activation, hidden), fc2_weight, fc2_bias)
    return w.apply(parts.combine, x, w.apply(parts.gate, logits)).name


@writes(Fusion)
def fusion(w: Writer, op: Fusion, operands: Sequence[Edge], kind: TensorType) -> str:
    own = op.anchor_operands(len(operands))
    return w.inline(op.body, w.apply(op.anchor, *operands[:own]), *operands[own:]).name


def _splits(radix: int, kind: TensorType) -> list[Slice]:
    """What cuts (N, radix*C, ...) into its splits; `kind`: the type of one."""
    channels = _int(kind.shape[1])
    return [Slice(1, r * channels, (r + 1) * channels) for r in range(radix)]


def _total(w: Writer, terms: Sequence[Edge]) -> str:
    total = terms[0]
    for term in terms[1:]:
        total = w.apply(Add(), total, term)
    return total.name


def _int(dim: int | Dim) -> int:
    assert isinstance(dim, int), "channels do not depend on the batch"
    return dim
