"""Layers as functions, with PyTorch's names, defaults and meaning, for inference."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.errors import LucidError, ShapeError
from lucid.frontend.tensor import Operand, Tensor, apply
from lucid.ir import ops

IntPair = int | Sequence[int]


def pair(value: IntPair, what: str) -> tuple[int, int]:
    """An int for both directions, or (vertical, horizontal). Raises ShapeError."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= 2
    if len(values) != 2:
        raise ShapeError(f"{what} must be an int or a pair of ints, got {value!r}")
    return (int(values[0]), int(values[1]))


def _borders(padding: IntPair, what: str = "padding") -> tuple[int, int, int, int]:
    """Symmetric padding as (top, left, bottom, right)."""
    vertical, horizontal = pair(padding, what)
    return (vertical, horizontal, vertical, horizontal)


def convolution_padding(
    padding: IntPair | str, kernel: tuple[int, int], stride: IntPair, dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """PyTorch's padding argument, "same" and "valid" included, as (top, left, bottom, right)."""
    if not isinstance(padding, str):
        return _borders(padding)
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding != "same":
        raise ShapeError(f"padding must be ints, 'same' or 'valid', got {padding!r}")
    if pair(stride, "stride") != (1, 1):
        raise ShapeError(f"padding='same' is defined for stride 1 only, got stride {stride}")
    rows, columns = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    return (rows // 2, columns // 2, rows - rows // 2, columns - columns // 2)


def conv2d(
    input: Tensor,
    weight: Operand,
    bias: Operand | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Tensor:
    """x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O) -> (N, O, OH, OW)."""
    weight = weight if isinstance(weight, Tensor) else Tensor(weight)
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: weight must be (O, C/groups, KH, KW), got {weight.type}")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    spread = pair(dilation, "dilation")
    op = ops.Conv2d(
        pair(stride, "stride"),
        convolution_padding(padding, kernel, stride, spread),
        spread,
        groups,
    )
    return apply(op, input, weight) if bias is None else apply(op, input, weight, bias)


def linear(input: Tensor, weight: Operand, bias: Operand | None = None) -> Tensor:
    """x (..., in), weight (out, in), bias (out) -> (..., out)."""
    operands = (input, weight) if bias is None else (input, weight, bias)
    return apply(ops.Linear(), *operands)


def batch_norm(
    input: Tensor,
    running_mean: Operand | None,
    running_var: Operand | None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias by channel. `momentum` has no effect.

    Raises LucidError where the statistics of the batch itself would be needed.
    """
    if training or running_mean is None or running_var is None:
        raise LucidError("batch_norm: Lucid normalises with running statistics only")
    channels = int(input.shape[1])
    weight = Tensor([1.0] * channels) if weight is None else weight
    bias = Tensor([0.0] * channels) if bias is None else bias
    return apply(ops.BatchNorm(eps), input, weight, bias, running_mean, running_var)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), keeping NaN. `inplace` has no effect: tensors are values."""
    return apply(ops.Relu(), input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return apply(ops.Clip(0.0, 6.0), input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return apply(ops.Silu(), input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return apply(ops.Sigmoid(), input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return apply(ops.Tanh(), input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6."""
    return apply(ops.Hardswish(), input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return apply(ops.Hardsigmoid(), input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), by erf, or with approximate="tanh" by tanh."""
    return apply(ops.Gelu(approximate), input)


def softmax(input: Tensor, dim: int | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`; None means 0 for ranks 0, 1 and 3, else 1."""
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
    return input.softmax(dim)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over each window of x (N, C, H, W); `stride` None means the kernel's size."""
    kernel = pair(kernel_size, "kernel_size")
    step = kernel if stride is None else pair(stride, "stride")
    borders = _pool_padding(padding, kernel)
    op = ops.AvgPool2d(kernel, step, borders, ceil_mode, count_include_pad, divisor_override)
    return apply(op, input)


def max_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Maximum over each window of x (N, C, H, W); `stride` None means the kernel's size."""
    if return_indices:
        raise LucidError("max_pool2d: return_indices=True is not supported")
    kernel = pair(kernel_size, "kernel_size")
    step = kernel if stride is None else pair(stride, "stride")
    borders = _pool_padding(padding, kernel)
    op = ops.MaxPool2d(kernel, step, borders, pair(dilation, "dilation"), ceil_mode)
    return apply(op, input)


def _pool_padding(padding: IntPair, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    borders = _borders(padding)
    if any(2 * b > k for b, k in zip(borders, kernel * 2, strict=True)):
        raise ShapeError(
            f"padding {padding} of a pool may be at most half its kernel_size {kernel}"
        )
    return borders


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Means over windows such that the result has `output_size`; None keeps a dimension.

    Raises ShapeError unless the input's height and width are multiples of it.
    """
    if isinstance(output_size, int) or output_size is None:
        output_size = (output_size, output_size)
    if input.ndim != 4 or len(output_size) != 2:
        raise ShapeError(f"adaptive_avg_pool2d: cannot pool {input.type} to {output_size}")
    size = [int(d) for d in input.shape[2:]]
    wanted = [s if w is None else w for s, w in zip(size, output_size, strict=True)]
    if wanted == [1, 1]:
        return input.mean((2, 3), keepdim=True)
    if any(w < 1 or s % w for s, w in zip(size, wanted, strict=True)):
        raise ShapeError(
            f"adaptive_avg_pool2d: a {size[0]}x{size[1]} map cannot be pooled to "
            f"{wanted[0]}x{wanted[1]}: only sizes that divide the map's are supported"
        )
    return avg_pool2d(input, [s // w for s, w in zip(size, wanted, strict=True)])


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim to end_dim, both included, as one."""
    return input.flatten(start_dim, end_dim)


def dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """x itself: nothing is dropped at inference. Raises LucidError for training=True."""
    if training:
        raise LucidError("dropout(training=True): Lucid runs networks and does not train them")
    return input


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`."""
    if not tensors:
        raise ShapeError("concat: there must be at least one tensor")
    return apply(ops.Concat(tensors[0].axis(dim)), *tensors)


cat = concat
