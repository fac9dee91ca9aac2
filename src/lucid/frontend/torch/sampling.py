"""PyTorch's resizing, and what else samples images; torchvision's operators for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops, volumes
from lucid.ir.affine_grid import affine_grid
from lucid.ir.graph import Value
from lucid.ir.ops.sampling import BORDERS, SAMPLING

# -- resizing -----------------------------------------------------------------------------------


@emits("upsample_nearest2d.vec", "upsample_nearest3d.vec")
def nearest(w: Writer, x: Any, size: Any, scales: Sequence[float] | None) -> Value:
    return _resized(w, x, scales, "nearest")


@emits("upsample_nearest1d.default", "upsample_nearest2d.default", "upsample_nearest3d.default")
def nearest_by_axis(w: Writer, x: Any, size: Any, *scales: float | None) -> Value:
    return _resized(w, x, scales, "nearest")


@emits("upsample_nearest1d.vec")
def nearest_line(w: Writer, x: Any, size: Any, scales: Sequence[float] | None) -> Value:
    return _resized(w, x, scales, "nearest")


@emits("_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec")
@emits("_upsample_nearest_exact3d.vec")
def nearest_exact(w: Writer, x: Any, size: Any, scales: Sequence[float] | None) -> Value:
    return _resized(w, x, scales, "nearest-exact")


@emits("_upsample_nearest_exact1d.default", "_upsample_nearest_exact2d.default")
@emits("_upsample_nearest_exact3d.default")
def nearest_exact_by_axis(w: Writer, x: Any, size: Any, *scales: float | None) -> Value:
    return _resized(w, x, scales, "nearest-exact")


@emits("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def linear(w: Writer, x: Any, size: Any, corners: bool, scales: Sequence[float] | None) -> Value:
    return _resized(w, x, scales, "bilinear", corners)


@emits("upsample_linear1d.default", "upsample_bilinear2d.default", "upsample_trilinear3d.default")
def linear_by_axis(w: Writer, x: Any, size: Any, corners: bool, *scales: float | None) -> Value:
    return _resized(w, x, scales, "bilinear", corners)


@emits("_upsample_bilinear2d_aa.vec")
def linear_smooth(
    w: Writer, x: Any, size: Any, corners: bool, scales: Sequence[float] | None
) -> Value:
    return _resized(w, x, scales, "bilinear", corners, True)


@emits("_upsample_bilinear2d_aa.default")
def linear_smooth_by_axis(
    w: Writer, x: Any, size: Any, corners: bool, *scales: float | None
) -> Value:
    return _resized(w, x, scales, "bilinear", corners, True)


@emits("upsample_bicubic2d.vec")
def cubic(w: Writer, x: Any, size: Any, corners: bool, scales: Sequence[float] | None) -> Value:
    return _resized(w, x, scales, "bicubic", corners)


@emits("upsample_bicubic2d.default")
def cubic_by_axis(w: Writer, x: Any, size: Any, corners: bool, *scales: float | None) -> Value:
    return _resized(w, x, scales, "bicubic", corners)


@emits("_upsample_bicubic2d_aa.vec")
def cubic_smooth(
    w: Writer, x: Any, size: Any, corners: bool, scales: Sequence[float] | None
) -> Value:
    return _resized(w, x, scales, "bicubic", corners, True)


@emits("_upsample_bicubic2d_aa.default")
def cubic_smooth_by_axis(
    w: Writer, x: Any, size: Any, corners: bool, *scales: float | None
) -> Value:
    return _resized(w, x, scales, "bicubic", corners, True)


def _resized(
    w: Writer,
    x: Any,
    scales: Sequence[float | None] | None,
    mode: str,
    corners: bool = False,
    antialias: bool = False,
) -> Value:
    """`scales` as the user gave them, by axis: they need not be the ratio of the sizes."""
    before, after = ([w.size(d) for d in shape[2:]] for shape in (w.shape_of(x), w.shape))
    given = scales if scales and any(s is not None for s in scales) else None

    def over(*axes: int) -> ops.Resize:
        old, new = (volumes.picked(sizes, axes, 1) for sizes in (before, after))
        own = None if given is None else volumes.picked(given, axes, None)
        return ops.interpolation(old, new, own, mode, corners, antialias)

    return volumes.axis_by_axis(w.emit, w.value(x), over)


# -- windows ------------------------------------------------------------------------------------


@emits("col2im.default")
def fold(
    w: Writer, x: Any, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any
) -> Value:
    height, width = (w.size(d) for d in w.shape[2:])
    op = ops.Fold(
        (height, width), tuple(kernel), tuple(stride), (*padding, *padding), tuple(dilation)
    )
    return w.emit(op, x)


# -- grids --------------------------------------------------------------------------------------


@emits("grid_sampler.default", "grid_sampler_2d.default", "grid_sampler_3d.default")
def grid_sample(w: Writer, x: Any, grid: Any, mode: int, padding: int, corners: bool) -> Value:
    return w.emit(ops.GridSample(SAMPLING[mode], BORDERS[padding], bool(corners)), x, grid)


@emits("affine_grid_generator.default")
def affine(w: Writer, theta: Any, size: Any, corners: bool) -> Value:
    batch, *image, _ = w.shape
    sizes = [w.size(d) for d in image]
    return affine_grid(w.emit, w.constant, w.value(theta), batch, sizes, bool(corners))


# -- torchvision's --------------------------------------------------------------------------------


@emits("deform_conv2d.default", namespace="torchvision")
def deform_conv(
    w: Writer,
    x: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Value:
    """Columns, and a 1x1 convolution of them."""
    outer, inner, *kernel = (w.size(d) for d in w.shape_of(weight))
    op = ops.DeformColumns(
        (kernel[0], kernel[1]),
        (stride_h, stride_w),
        (pad_h, pad_w, pad_h, pad_w),
        (dilation_h, dilation_w),
        groups,
    )
    taps = kernel[0] * kernel[1]
    if w.shape_of(offset)[1] != 2 * taps * offset_groups:
        w.refuse("its offsets are for another kernel")
    columns = w.emit(op, x, offset, *([mask] if use_mask else []))
    flat = w.reshape(w.permute(weight, (0, 2, 3, 1)), (outer, taps * inner, 1, 1))
    return w.emit(ops.Conv2d(groups=groups), columns, flat, w.value(bias))


@emits("roi_align.default", namespace="torchvision")
def roi_align(
    w: Writer,
    x: Any,
    boxes: Any,
    scale: float,
    height: int,
    width: int,
    samples: int,
    aligned: bool,
) -> Value:
    op = ops.RoiAlign((height, width), scale, max(0, samples), bool(aligned))
    return w.emit(op, x, boxes)
