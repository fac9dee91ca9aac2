"""Layers as functions, with PyTorch's names, defaults and meaning, for inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions, which are
    `normalized_shape`; so are weight and bias. Raises ShapeError where they are not."""
    axes, shape = _last_axes(input, normalized_shape, "layer_norm")
    if weight is None and bias is not None:
        weight = np.ones(shape, np.float32)
    operands = [o for o in (weight, bias) if o is not None]
    return apply(ops.LayerNorm(axes, eps), input, *operands)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Operand | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean of x^2 + eps) * weight over the last dimensions; `eps` None is that of
    float32. Raises ShapeError where those are not `normalized_shape`."""
    axes, _ = _last_axes(input, normalized_shape, "rms_norm")
    op = ops.RmsNorm(axes, float(np.finfo(np.float32).eps) if eps is None else eps)
    return apply(op, input) if weight is None else apply(op, input, weight)


def _last_axes(
    input: Tensor, shape: Sequence[int], function: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The last axes of x, whose dimensions `shape` names, and the shape as a tuple."""
    shape, rank = tuple(shape), input.ndim
    if not shape or input.type.shape[-len(shape) :] != shape:
        raise ShapeError(f"{function}: {input.type} does not end in normalized_shape {shape}")
    return tuple(range(rank - len(shape), rank)), shape


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) of each group of an image's channels, * weight + bias by
    channel. x (N, C, ...)."""
    if input.ndim < 2:
        raise ShapeError(f"group_norm: x must be (N, C, ...), got {input.type}")
    channels = int(input.shape[1])
    weight = np.ones(channels, np.float32) if weight is None else weight
    bias = np.zeros(channels, np.float32) if bias is None else bias
    return apply(ops.GroupNorm(num_groups, eps), input, weight, bias)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels) ** beta. x (N, C, ...)."""
    return apply(ops.LocalResponseNorm(size, alpha, beta, k), input)


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


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x."""
    return apply(ops.LeakyRelu(negative_slope), input)


def prelu(input: Tensor, weight: Operand) -> Tensor:
    """x where x > 0, else weight * x: one weight, or one for each channel of x (N, C, ...)."""
    weight = weight if isinstance(weight, Tensor) else Tensor(weight)
    if weight.numel() > 1:
        weight = weight.reshape(-1, *[1] * (input.ndim - 2))
    return apply(ops.Prelu(), input, weight)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return apply(ops.Elu(alpha), input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(ln(1 + exp(x)))."""
    return apply(ops.Mish(), input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + exp(beta * x)) / beta. `threshold` has no effect: nothing overflows here."""
    if beta == 1.0:
        return apply(ops.Softplus(), input)
    return apply(ops.Softplus(), input * beta) / beta


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return apply(ops.Softsign(), input)


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


Sizes = int | Sequence[int | None] | None


def adaptive_avg_pool2d(input: Tensor, output_size: Sizes) -> Tensor:
    """Means over windows such that the result has `output_size`; None keeps a dimension."""
    size, wanted = _adaptive_size(input, output_size, "adaptive_avg_pool2d")
    if wanted == (1, 1):
        return input.mean((2, 3), keepdim=True)
    if _divides(wanted, size):
        return avg_pool2d(input, [s // w for s, w in zip(size, wanted, strict=True)])
    return apply(ops.AdaptiveAvgPool2d(wanted), input)


def adaptive_max_pool2d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Tensor:
    """Maxima over windows such that the result has `output_size`; None keeps a dimension."""
    if return_indices:
        raise LucidError("adaptive_max_pool2d: return_indices=True is not supported")
    size, wanted = _adaptive_size(input, output_size, "adaptive_max_pool2d")
    if wanted == (1, 1):
        return input.amax((2, 3), keepdim=True)
    if _divides(wanted, size):
        return max_pool2d(input, [s // w for s, w in zip(size, wanted, strict=True)])
    return apply(ops.AdaptiveMaxPool2d(wanted), input)


def _adaptive_size(
    input: Tensor, output_size: Sizes, function: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The height and width of x, and those of the result. Raises ShapeError."""
    if isinstance(output_size, int) or output_size is None:
        output_size = (output_size, output_size)
    if input.ndim != 4 or len(output_size) != 2:
        raise ShapeError(f"{function}: cannot pool {input.type} to {output_size}")
    height, width = (int(d) for d in input.shape[2:])
    rows, columns = (
        s if w is None else w for s, w in zip((height, width), output_size, strict=True)
    )
    if min(rows, columns) < 1:
        raise ShapeError(f"{function}: output_size must be positive, got {(rows, columns)}")
    return (height, width), (rows, columns)


def _divides(wanted: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether all windows of an adaptive pool are alike and next to each other."""
    return all(s % w == 0 for s, w in zip(size, wanted, strict=True))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim to end_dim, both included, as one."""
    return input.flatten(start_dim, end_dim)


def dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """x itself: nothing is dropped at inference. Raises LucidError for training=True."""
    if training:
        raise LucidError("dropout(training=True): Lucid runs networks and does not train them")
    return input


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Elements before and after the last dimension, the one before that, and so on: `pad` is
    (left, right, top, bottom, ...); a negative number takes as many away.

    mode: "constant" (`value`, 0 where None), "reflect" or "replicate".
    """
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    if mode not in modes:
        raise LucidError(f"pad: mode must be one of {', '.join(modes)}, got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(
            f"pad: {tuple(pad)} is not two numbers for each of {input.type}'s last axes"
        )
    before, after = [0] * input.ndim, [0] * input.ndim
    for i, (first, last) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = input.ndim - 1 - i
        before[axis], after[axis] = max(first, 0), max(last, 0)
        if min(first, last) < 0:
            stop = int(input.shape[axis]) + min(last, 0)
            input = apply(ops.Slice(axis, -min(first, 0), stop), input)
    if not any(before) and not any(after):
        return input
    op = ops.Pad(tuple(before), tuple(after), value or 0.0, modes[mode])
    return apply(op, input)


def interpolate(
    input: Tensor,
    size: IntPair | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """x (N, C, H, W) resized to `size`, or by `scale_factor` (rounded down).

    mode: "nearest", "nearest-exact" or "bilinear". Raises LucidError for others, ShapeError where
    not exactly one of size and scale_factor is given.
    """
    if mode not in ("nearest", "nearest-exact", "bilinear"):
        raise LucidError(
            f"interpolate: mode must be 'nearest', 'nearest-exact' or 'bilinear', got {mode!r}"
        )
    if align_corners is not None and mode != "bilinear":
        raise LucidError("interpolate: align_corners is for mode='bilinear' only")
    if input.ndim != 4 or (size is None) == (scale_factor is None):
        raise ShapeError(
            f"interpolate: x must be (N, C, H, W), and one of size and scale_factor given; got "
            f"{input.type}, size {size} and scale_factor {scale_factor}"
        )
    heights = (int(input.shape[2]), int(input.shape[3]))
    if scale_factor is None:
        assert size is not None
        wanted, scale = pair(size, "size"), None
    else:
        factors = [scale_factor] * 2 if isinstance(scale_factor, int | float) else [*scale_factor]
        if len(factors) != 2:
            raise ShapeError(f"interpolate: scale_factor must be one or two numbers, got {factors}")
        wanted = (int(heights[0] * factors[0]), int(heights[1] * factors[1]))
        scale = None if recompute_scale_factor else (float(factors[0]), float(factors[1]))
    return apply(ops.interpolation(heights, wanted, scale, mode, bool(align_corners)), input)


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`."""
    if not tensors:
        raise ShapeError("concat: there must be at least one tensor")
    return apply(ops.Concat(tensors[0].axis(dim)), *tensors)


cat = concat
