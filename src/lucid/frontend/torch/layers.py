"""PyTorch's norms and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lucid.frontend.torch.convolutions import as_image, image, image_border
from lucid.frontend.torch.elementwise import square
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.ops import Op
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


@emits("max_pool1d.default", "max_pool2d.default")
def max_pool(
    w: Writer, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Value:
    return _pooled(w, _max_pool_op(w, kernel, stride, padding, dilation, ceil_mode), x)


@emits("max_pool2d_with_indices.default", "max_pool1d_with_indices.default")
def max_pool_with_indices(
    w: Writer, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Value, Value]:
    op = _max_pool_op(w, kernel, stride, padding, dilation, ceil_mode)
    return _pooled(w, op, x), _pooled(w, ops.MaxPool2dIndices(**vars(op)), x)


def _max_pool_op(
    w: Writer, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> ops.MaxPool2d:
    rows, columns = image_border(padding, w)
    return ops.MaxPool2d(
        image(kernel, w),
        image(stride or kernel, w),
        (rows, columns, rows, columns),
        image(dilation, w),
        ceil_mode,
    )


@emits("max_unpool2d.default")
def max_unpool(w: Writer, x: Any, indices: Any, size: Any) -> Value:
    rows, columns = (w.size(d) for d in w.shape[-2:])
    y = w.emit(ops.MaxUnpool2d((rows, columns)), as_image(w, x), as_image(w, indices))
    return w.reshape(y, w.shape)


@emits("avg_pool1d.default", "avg_pool2d.default")
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
    rows, columns = image_border(padding, w)
    border = (rows, columns, rows, columns)
    sizes = image(kernel, w), image(stride or kernel, w)
    return _pooled(w, ops.AvgPool2d(*sizes, border, ceil_mode, count_include_pad, divisor), x)


@emits("avg_pool3d.default")
def avg_pool3d(
    w: Writer,
    x: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Value:
    """Over the depth alone, as torch's local response norm has it: pixels are one long axis."""
    sizes = (kernel, stride or kernel, padding)
    depth, *rest = zip(*(list(s) * (3 if len(s) == 1 else 1) for s in sizes), strict=True)
    if any(axis != (1, 1, 0) for axis in rest):
        w.refuse("it pools over three axes")
    n, c, d, *image = w.shape_of(x)
    flat = w.reshape(x, (n, c, d, w.size(image[0]) * w.size(image[1])))
    op = ops.AvgPool2d(
        (depth[0], 1), (depth[1], 1), (depth[2], 0) * 2, ceil_mode, count_include_pad, divisor
    )
    return w.reshape(w.emit(op, flat), w.shape)


@emits("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default")
@emits("_adaptive_avg_pool2d.default")
def adaptive_avg_pool(w: Writer, x: Any, size: Any) -> Value:
    if all(d == 1 for d in w.shape[2:]):
        return w.emit(ops.Mean(tuple(range(2, len(w.shape))), True), x)
    return _pooled(w, ops.AdaptiveAvgPool2d(image(w.shape[2:], w)), x)


@emits("adaptive_max_pool1d.default", "adaptive_max_pool2d.default")
def adaptive_max_pool(w: Writer, x: Any, size: Any) -> tuple[Value, None]:
    return _pooled(w, ops.AdaptiveMaxPool2d(image(w.shape[2:], w)), x), None


def _pooled(w: Writer, op: Op, x: Any) -> Value:
    if len(w.shape) not in (3, 4):
        w.refuse(f"it pools a tensor of {len(w.shape)} axes")
    return w.reshape(w.emit(op, as_image(w, x)), w.shape)
