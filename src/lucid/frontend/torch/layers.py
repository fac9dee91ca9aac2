"""PyTorch's norms and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lucid.frontend.torch.convolutions import per_axis
from lucid.frontend.torch.elementwise import square
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops, volumes
from lucid.ir.graph import Value
from lucid.ir.types import Shape

UNIT_ROUNDOFF = 1.1920928955078125e-07
"""float32's, which torch's RMS norm takes where it is given no epsilon."""


# -- norms --------------------------------------------------------------------------------------


@emits("_native_batch_norm_legit_no_training.default")
def native_batch_norm(
    w: Writer, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> tuple[Value, None, None]:
    return batch_norm(w, x, weight, bias, mean, var, False, momentum, eps), None, None


@emits("_native_batch_norm_legit.no_stats")
def native_batch_norm_of_itself(
    w: Writer, x: Any, weight: Any, bias: Any, training: bool, momentum: float, eps: float
) -> tuple[Value, None, None]:
    return batch_norm(w, x, weight, bias, None, None, training, momentum, eps), None, None


@emits("batch_norm.default")
def batch_norm(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
    *options: Any,
) -> Value:
    """With the statistics of x itself (while training, or without others) by reductions: over
    weights, which is weight standardisation, they are part of a recipe."""
    if not training and mean is not None:
        scale, shift = _affine(w, x, weight, bias)
        return w.emit(ops.BatchNorm(eps), x, scale, shift, mean, var)
    axes = (0, *range(2, len(w.shape)))
    centred = w.emit(ops.Sub(), x, w.emit(ops.Mean(axes, True), x))
    spread = w.emit(ops.Mean(axes, True), square(w, centred))
    y = w.emit(ops.Mul(), centred, w.emit(ops.Rsqrt(), w.emit(ops.Add(), spread, eps)))
    channel: Shape = (w.shape[1], *(1,) * (len(w.shape) - 2))
    if weight is not None:
        y = w.emit(ops.Mul(), y, w.reshape(weight, channel))
    return y if bias is None else w.emit(ops.Add(), y, w.reshape(bias, channel))


def _affine(w: Writer, x: Any, weight: Any, bias: Any) -> tuple[Value, Value]:
    """Scale and shift by channel: 1 and 0 where there are none."""
    channels: Shape = (w.shape_of(x)[1],)
    scale = w.filled(1.0, channels) if weight is None else w.value(weight)
    return scale, w.filled(0.0, channels) if bias is None else w.value(bias)


@emits("instance_norm.default")
def instance_norm(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    own: bool,
    momentum: float,
    eps: float,
    *options: Any,
) -> Value:
    if not own:
        return batch_norm(w, x, weight, bias, mean, var, False, momentum, eps)
    return group_norm(w, x, w.size(w.shape[1]), weight, bias, eps)


@emits("group_norm.default")
def group_norm(
    w: Writer, x: Any, groups: int, weight: Any, bias: Any, eps: float, *options: Any
) -> Value:
    return w.emit(ops.GroupNorm(groups, eps), x, *_affine(w, x, weight, bias))


@emits("native_group_norm.default")
def native_group_norm(
    w: Writer, x: Any, weight: Any, bias: Any, n: Any, c: Any, size: Any, groups: int, eps: float
) -> tuple[Value, None, None]:
    return group_norm(w, x, groups, weight, bias, eps), None, None


@emits("layer_norm.default")
def layer_norm(
    w: Writer, x: Any, sizes: Sequence[int], weight: Any, bias: Any, eps: float, *options: Any
) -> Value:
    op = ops.LayerNorm(_last(w, sizes), eps)
    if weight is None:
        return w.emit(op, x)
    return w.emit(op, x, weight, w.filled(0.0, tuple(sizes)) if bias is None else bias)


@emits("native_layer_norm.default")
def native_layer_norm(
    w: Writer, x: Any, sizes: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Value, None, None]:
    return layer_norm(w, x, sizes, weight, bias, eps), None, None


@emits("rms_norm.default")
def rms_norm(w: Writer, x: Any, sizes: Sequence[int], weight: Any, eps: float | None) -> Value:
    op = ops.RmsNorm(_last(w, sizes), UNIT_ROUNDOFF if eps is None else eps)
    return w.emit(op, x, *([] if weight is None else [weight]))


def _last(w: Writer, sizes: Sequence[int]) -> tuple[int, ...]:
    """The last axes, as many as there are sizes."""
    return tuple(range(len(w.shape) - len(sizes), len(w.shape)))


# -- pools --------------------------------------------------------------------------------------


@emits("max_pool1d.default", "max_pool2d.default", "max_pool3d.default")
def max_pool(
    w: Writer, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Value:
    windows = _windows(w, kernel, stride, padding, dilation)
    return volumes.max_pool(w.emit, w.value(x), windows, ceil_mode)


@emits("max_pool1d_with_indices.default", "max_pool2d_with_indices.default")
@emits("max_pool3d_with_indices.default")
def max_pool_with_indices(
    w: Writer, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Value, Value]:
    """Where nobody reads the indices, they are dropped."""
    y = max_pool(w, x, kernel, stride, padding, dilation, ceil_mode)
    windows = _windows(w, kernel, stride, padding, dilation)
    indices = ops.MaxPoolIndices(**vars(windows), ceil_mode=ceil_mode)
    return y, w.emit(indices, x)


@emits("max_unpool2d.default")
def max_unpool(w: Writer, x: Any, indices: Any, size: Any) -> Value:
    rows, columns = (w.size(d) for d in w.shape[-2:])
    images = [w.reshape(v, (1,) * (4 - len(w.shape)) + w.shape_of(v)) for v in (x, indices)]
    return w.reshape(w.emit(ops.MaxUnpool2d((rows, columns)), *images), w.shape)


@emits("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def avg_pool(
    w: Writer,
    x: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> Value:
    windows = _windows(w, kernel, stride, padding, 1)
    return volumes.avg_pool(w.emit, w.value(x), windows, ceil_mode, count_include_pad, divisor)


def _windows(w: Writer, kernel: Any, stride: Any, padding: Any, dilation: Any) -> volumes.Windows:
    border = tuple(per_axis(padding, w.shape))
    sizes = (tuple(per_axis(given, w.shape)) for given in (kernel, stride or kernel, dilation))
    size, step, spread = sizes
    return volumes.Windows(size, step, border * 2, spread)


@emits("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "adaptive_avg_pool3d.default")
@emits("_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default")
def adaptive_avg_pool(w: Writer, x: Any, wanted: Any) -> Value:
    sizes = tuple(w.size(d) for d in w.shape[2:])
    if all(d == 1 for d in sizes):
        return w.emit(ops.Mean(tuple(range(2, len(w.shape))), True), x)
    return volumes.adaptive_pool(w.emit, w.value(x), sizes, largest=False)


@emits("adaptive_max_pool1d.default", "adaptive_max_pool2d.default", "adaptive_max_pool3d.default")
def adaptive_max_pool(w: Writer, x: Any, wanted: Any) -> tuple[Value, None]:
    sizes = tuple(w.size(d) for d in w.shape[2:])
    return volumes.adaptive_pool(w.emit, w.value(x), sizes, largest=True), None
