"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError
from lucid.ir.einsum import einsum
from lucid.ir.ops import Add, Conv2d, Linear, MatMul, Mul, Permute
from lucid.ir.ops.windows import Pair
from lucid.ir.transposed import transposed_convolution
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import (
    auto_pad,
    halves,
    like_operand,
    padding,
    pair,
    two_dimensional,
    windows,
)

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


@writes(Conv2d)
def write_convolution(w: Writer, op: Conv2d, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit(
        "Conv",
        *operands,
        kernel_shape=operands[1].type.shape[2:],
        strides=op.stride,
        pads=op.padding,
        dilations=op.dilation,
        group=op.groups,
    )


@reads("Conv")
def read_convolution(call: Call) -> Operand:
    """Over one axis: over two, of which the first is 1."""
    x, weight = two_dimensional(call, call.operand(0)), call.operand(1)
    if weight.type.rank != call.rank():
        raise ModelFileError(f"has a weight {weight.type} for an operand {call.operand(0).type}")
    kernel = tuple(call.integer_dims(*weight.type.shape[2:]))
    _check_kernel(call, kernel)
    w = windows(call, x, kernel)
    bias = [call.operand(2)] if call.has(2) else []
    op = Conv2d(w.stride, w.padding, w.dilation, call.integer("group", 1))
    return like_operand(call, call.apply(op, x, two_dimensional(call, weight), *bias))


def _check_kernel(call: Call, kernel: tuple[int, ...]) -> None:
    """Raises ModelFileError where the file says another kernel than its weight has."""
    stated = call.integer_list("kernel_shape")
    if stated is not None and stated != kernel:
        raise ModelFileError(
            f"says kernel_shape={list(stated)}, but its weight is {call.operand(1).type}"
        )


@reads("ConvTranspose")
def read_transposed_convolution(call: Call) -> Operand:
    """The padding is what is cut off the result; `output_shape` and `auto_pad` say it otherwise.

    An `output_shape` beyond what there is to cut from adds zeros at the end, as ONNX Runtime does.
    """
    x, weight = two_dimensional(call, call.operand(0)), two_dimensional(call, call.operand(1))
    if weight.type.rank != 4 or call.rank(1) != call.rank():
        raise ModelFileError(f"has a weight {weight.type} for an operand {call.operand(0).type}")
    kernel = tuple(call.integer_dims(*weight.type.shape[2:]))
    _check_kernel(call, kernel[4 - call.rank() :])
    stride, dilation = pair(call, "strides", 1), pair(call, "dilations", 1)
    more, before, wanted = pair(call, "output_padding", 0), padding(call), _output_size(call)
    automatic = auto_pad(call)
    sides = []
    for axis, size in enumerate(call.integer_dims(*x.type.shape[2:])):
        full = stride[axis] * (size - 1) + dilation[axis] * (kernel[axis] - 1) + 1
        start, end = before[axis], before[axis + 2] - more[axis]
        if wanted is not None or automatic.startswith("SAME"):
            length = wanted[axis] if wanted is not None else size * stride[axis]
            upper = "SAME_UPPER" if automatic == "SAME_UPPER" else "SAME_LOWER"
            start, end = halves(upper, full + more[axis] - length)
            end = full - length - start if wanted is not None else end - more[axis]
        sides.append((start, end))
    (top, bottom), (left, right) = sides
    cut = (top, left, bottom, right)
    bias = call.value(call.operand(2)) if call.has(2) else None
    y = transposed_convolution(
        lambda op, *operands: call.value(call.apply(op, *operands)),
        call.value(x),
        call.value(weight),
        bias,
        stride,
        cut,
        dilation,
        call.integer("group", 1),
    )
    return like_operand(call, y)


def _output_size(call: Call) -> Pair | None:
    """The height and width that `output_shape` asks for; runtimes take batch and channels in front
    of them, too, and do not look at these."""
    given, spatial = call.integer_list("output_shape"), call.rank() - 2
    if given is None:
        return None
    if len(given) not in (spatial, spatial + 2):
        raise ModelFileError(f"has an output_shape {list(given)} for {spatial} axes")
    return (given[-2] if spatial == 2 else 1), given[-1]


@writes(Linear)
def write_linear(w: Writer, op: Linear, operands: Sequence[Edge], kind: TensorType) -> str:
    """Gemm takes matrices only."""
    if operands[0].type.rank == 2:
        return w.emit("Gemm", *operands, transB=1)
    y = w.emit("MatMul", operands[0], w.emit("Transpose", operands[1], perm=(1, 0)))
    return w.emit("Add", y, operands[2]) if len(operands) == 3 else y


@reads("Gemm")
def read_gemm(call: Call) -> Operand:
    """alpha A B + beta C, where A and B may be transposed; C is broadcast to the result."""
    a, b = call.operand(0), call.operand(1)
    if a.type.rank != 2 or b.type.rank != 2:
        raise ModelFileError(f"takes matrices, got {a.type} and {b.type}")
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if call.integer("transA", 0):
        a = call.apply(Permute((1, 0)), a)
    if not call.integer("transB", 0):
        b = call.apply(Permute((1, 0)), b)
    bias = call.operand(2) if call.has(2) else None
    if bias is not None and beta != 1:
        bias = call.apply(Mul(), bias, beta)
    if bias is not None and alpha == 1 and bias.type.shape == b.type.shape[:1]:
        return call.apply(Linear(), a, b, bias)
    y = call.apply(Linear(), a, b)
    if alpha != 1:
        y = call.apply(Mul(), y, alpha)
    return y if bias is None else call.apply(Add(), y, bias)


@writes(MatMul)
def write_matmul(w: Writer, op: MatMul, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("MatMul", *operands)


@reads("MatMul")
def read_matmul(call: Call) -> Operand:
    """Of two matrices of which the second is a weight: a linear layer. Vectors become matrices."""
    a, b = call.operand(0), call.operand(1)
    if min(a.type.rank, b.type.rank) < 1:
        raise ModelFileError(f"takes matrices, got {a.type} and {b.type}")
    if b.type.rank == 2 and call.is_weight(b):
        return call.apply(Linear(), a, call.apply(Permute((1, 0)), b))
    vectors = a.type.rank == 1, b.type.rank == 1
    if vectors[0]:
        a = call.reshape(a, (1, *a.type.shape))
    if vectors[1]:
        b = call.reshape(b, (*b.type.shape, 1))
    y = call.apply(MatMul(), a, b)
    shape = list(y.type.shape)
    if vectors[1]:
        del shape[-1]
    if vectors[0]:
        del shape[-1 if vectors[1] else -2]
    return call.reshape(y, tuple(shape))


@reads("Einsum")
def read_einsum(call: Call) -> Operand:
    equation = call.text("equation", "")
    return einsum(equation, call.operands(), call.apply, call.is_weight)
