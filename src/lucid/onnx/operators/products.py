"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError
from lucid.ir.einsum import einsum
from lucid.ir.graph import Value
from lucid.ir.ops import Add, Conv1d, Conv2d, Conv3d, Convolution, Linear, MatMul, Mul, Op, Permute
from lucid.ir.transposed import CONVOLUTIONS, transposed_convolution
from lucid.ir.types import TensorType
from lucid.onnx import bfloat16, computed_weights
from lucid.onnx.call import Call
from lucid.onnx.integer_biases import at_scale_of_sums
from lucid.onnx.table import reads, writes
from lucid.onnx.tensors import BFLOAT16
from lucid.onnx.windows import auto_pad, halves, padding, per_axis, spatial_axes, windows

if TYPE_CHECKING:
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


@writes(Conv1d, Conv2d, Conv3d)
def write_convolution(
    w: Writer, op: Convolution, operands: Sequence[Edge], kind: TensorType
) -> str:
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
    x, weight = call.operand(0), call.operand(1)
    if weight.type.rank != call.rank():
        raise ModelFileError(f"has a weight {weight.type} for an operand {x.type}")
    kernel = tuple(call.integer_dims(*weight.type.shape[2:]))
    check_kernel(call, kernel, weight)
    w = windows(call, kernel)
    bias = [at_scale_of_sums(call, x, weight, call.operand(2))] if call.has(2) else []
    convolution = CONVOLUTIONS[len(kernel)]
    op = convolution(w.stride, w.padding, w.dilation, call.integer("group", 1))
    return _convolved(call, op, x, weight, *bias)


def _convolved(
    call: Call, op: Op, x: Operand, weight: Operand, bias: Operand | None = None
) -> Operand:
    """The convolution, by other ops where its weights are computed when the model runs."""
    if isinstance(op, Conv1d) and not call.is_weight(weight):
        flat, kernel = (
            call.reshape(o, (*o.type.shape[:2], 1, o.type.shape[2])) for o in (x, weight)
        )
        start, end = op.padding
        whole = Conv2d((1, *op.stride), (0, start, 0, end), (1, *op.dilation), op.groups)
        y = _convolved(call, whole, flat, kernel, bias)
        return call.reshape(y, (*y.type.shape[:2], y.type.shape[3]))
    if isinstance(op, Conv2d) and not call.is_weight(weight):
        return computed_weights.convolution(call, op, x, weight, bias)
    return call.apply(op, x, weight, *([] if bias is None else [bias]))


def check_kernel(call: Call, kernel: tuple[int, ...], weight: Operand) -> None:
    """Raises ModelFileError where the file says another kernel than its weight has."""
    stated = call.integer_list("kernel_shape")
    if stated is not None and stated != kernel:
        raise ModelFileError(f"says kernel_shape={list(stated)}, but its weight is {weight.type}")


@reads("ConvTranspose")
def read_transposed_convolution(call: Call) -> Operand:
    """The padding is what is cut off the result; `output_shape` and `auto_pad` say it otherwise.

    An `output_shape` beyond what there is to cut from adds zeros at the end, as ONNX Runtime does.
    """
    x, weight, axes = call.operand(0), call.operand(1), spatial_axes(call)
    if call.rank(1) != call.rank():
        raise ModelFileError(f"has a weight {weight.type} for an operand {x.type}")
    kernel = tuple(call.integer_dims(*weight.type.shape[2:]))
    check_kernel(call, kernel, weight)
    stride, dilation = per_axis(call, "strides", 1), per_axis(call, "dilations", 1)
    more, before, wanted = per_axis(call, "output_padding", 0), padding(call), _output_size(call)
    automatic = auto_pad(call)
    sides = []
    for axis, size in enumerate(call.integer_dims(*x.type.shape[2:])):
        full = stride[axis] * (size - 1) + dilation[axis] * (kernel[axis] - 1) + 1
        start, end = before[axis], before[axis + axes] - more[axis]
        if wanted is not None or automatic.startswith("SAME"):
            length = wanted[axis] if wanted is not None else size * stride[axis]
            upper = "SAME_UPPER" if automatic == "SAME_UPPER" else "SAME_LOWER"
            start, end = halves(upper, full + more[axis] - length)
            end = full - length - start if wanted is not None else end - more[axis]
        sides.append((start, end))
    bias = call.value(call.operand(2)) if call.has(2) else None
    groups = call.integer("group", 1)

    def apply(op: Op, *operands: Operand) -> Value:
        apart = _convolved if isinstance(op, Conv2d) else Call.apply
        return call.value(apart(call, op, *operands))

    operands = call.value(x), call.value(weight), bias
    return transposed_convolution(apply, *operands, stride, sides, dilation, groups)


def _output_size(call: Call) -> tuple[int, ...] | None:
    """The sizes that `output_shape` asks for; runtimes take batch and channels in front of them,
    too, and do not look at these."""
    given, axes = call.integer_list("output_shape"), spatial_axes(call)
    if given is None:
        return None
    if len(given) not in (axes, axes + 2):
        raise ModelFileError(f"has an output_shape {list(given)} for {axes} axes")
    return given[-axes:]


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
    bias = call.operand(2) if call.has(2) else None
    if bias is not None:
        bias = call.apply(Mul(), bias, beta) if beta != 1 else at_scale_of_sums(call, a, b, bias)
    transposed = bool(call.integer("transB", 0))
    if not call.is_weight(b):
        y = call.apply(MatMul(), a, call.apply(Permute((1, 0)), b) if transposed else b)
        return _plus(call, y, alpha, bias)
    b = b if transposed else call.apply(Permute((1, 0)), b)
    if bias is not None and alpha == 1 and bias.type.shape == b.type.shape[:1]:
        return call.apply(Linear(), a, b, bias)
    return _plus(call, call.apply(Linear(), a, b), alpha, bias)


def _plus(call: Call, y: Operand, alpha: float, bias: Operand | None) -> Operand:
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
    a, b, restored = as_matrices(call, a, b)
    if call.element(0) == BFLOAT16 and not (call.is_weight(a) or call.is_weight(b)):
        a, b = (bfloat16.rounded(call, operand) for operand in (a, b))
        return restored(bfloat16.rounded(call, call.apply(MatMul(), a, b)))
    return restored(call.apply(MatMul(), a, b))


def as_matrices(
    call: Call, a: Operand, b: Operand
) -> tuple[Operand, Operand, Callable[[Operand], Operand]]:
    """The operands of a product with vectors as matrices of one row or column, and what takes these
    out of the result again."""
    vectors = a.type.rank == 1, b.type.rank == 1
    if vectors[0]:
        a = call.reshape(a, (1, *a.type.shape))
    if vectors[1]:
        b = call.reshape(b, (*b.type.shape, 1))

    def restored(y: Operand) -> Operand:
        shape = list(y.type.shape)
        if vectors[1]:
            del shape[-1]
        if vectors[0]:
            del shape[-1 if vectors[1] else -2]
        return call.reshape(y, tuple(shape))

    return a, b, restored


@reads("Einsum")
def read_einsum(call: Call) -> Operand:
    equation = call.text("equation", "")
    return einsum(equation, call.operands(), call.apply, call.is_weight)
