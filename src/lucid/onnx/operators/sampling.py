"""Sampling at computed places: grids, deformed windows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.affine_grid import affine_grid
from lucid.ir.ops import (
    Add,
    Cast,
    Concat,
    Conv2d,
    DeformColumns,
    Fold,
    GridSample,
    Permute,
    Reshape,
    RoiAlign,
)
from lucid.ir.ops.base import Array
from lucid.ir.ops.sampling import BORDERS
from lucid.ir.ops.windows import Pair, extent
from lucid.ir.types import TensorType
from lucid.onnx.known import known
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import auto_pad, padding, per_axis

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

# -- grids --------------------------------------------------------------------------------------

NEWER = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
"""What modes are called since version 20, and what they were called before."""


@writes(GridSample)
def write_grid_sample(w: Writer, op: GridSample, operands: Sequence[Edge], kind: TensorType) -> str:
    if kind.rank != 4:
        raise UnsupportedError("grid_sample of three axes is of a later version than Lucid writes")
    return w.emit(
        "GridSample",
        *operands,
        mode=op.mode,
        padding_mode=op.padding,
        align_corners=int(op.align_corners),
    )


@reads("GridSample")
def read_grid_sample(call: Call) -> Operand:
    mode = call.text("mode", "linear" if call.opset >= 20 else "bilinear")
    mode = NEWER.get(mode, mode)
    if mode not in NEWER.values():
        raise ModelFileError(f"has the mode {mode!r}: ONNX has {', '.join(NEWER)}")
    op = GridSample(
        mode,
        call.choice("padding_mode", BORDERS),
        bool(call.integer("align_corners", 0)),
    )
    return call.apply(op, call.operand(0), call.operand(1))


@reads("AffineGrid")
def read_affine_grid(call: Call) -> Operand:
    """In other ops; the batch is that of theta."""
    theta, (_, _, *size) = call.operand(0), call.sizes(1)
    aligned = bool(call.integer("align_corners", 0))
    batch, *_ = theta.type.shape
    if theta.type.shape[1:] != (len(size), len(size) + 1):
        raise ModelFileError(f"takes {theta.type} for {len(size)} axes")
    image = call.integer_dims(*size)

    def constant(array: np.ndarray) -> Operand:
        return known(np.asarray(array, np.float32))

    return affine_grid(call.apply, constant, theta, batch, image, aligned)


# -- deformed windows ---------------------------------------------------------------------------


@writes(DeformColumns)
def write_deform_columns(
    w: Writer, op: DeformColumns, operands: Sequence[Edge], kind: TensorType
) -> str:
    """As samples by a grid for each part of the channels that has offsets of its own, whose columns
    are pixels by taps: DeformConv is of a later version than Lucid writes."""
    x, offset, *mask = operands
    channels, *size = op.integers(*x.type.shape[1:])
    count, rows, columns = op.integers(*offset.type.shape[1:])
    taps = prod(op.kernel)
    parts, shared = count // (2 * taps), channels // op.groups
    unmoved = np.stack([_unmoved(op, axis, (rows, columns)) for axis in (1, 0)], -1)
    normal = (2 * unmoved + 1) / np.array(size[::-1]) - 1
    scale = w.constant(2 / np.array(size[::-1], np.float64))
    moves = w.emit("Reshape", offset, w.integers(0, parts, taps, 2, rows, columns))
    moves = w.emit("Transpose", moves, perm=(0, 1, 4, 5, 2, 3))
    moves = w.emit("Gather", moves, w.integers(1, 0), axis=5)
    factors = ""
    if mask:
        factors = w.emit("Reshape", mask[0], w.integers(0, parts, taps, rows, columns))
        factors = w.emit("Transpose", factors, perm=(0, 1, 3, 4, 2))
    found = []
    for part in range(parts):
        grid = _part(w, moves, part, (0, rows, columns * taps, 2))
        grid = w.emit("Add", w.emit("Mul", grid, scale), w.constant(normal))
        inner = channels // parts
        own = w.emit(
            "Slice", x, w.integers(part * inner), w.integers((part + 1) * inner), w.integers(1)
        )
        y = w.emit("GridSample", own, grid, mode="bilinear", padding_mode="zeros")
        if mask:
            y = w.emit("Mul", y, _part(w, factors, part, (0, 1, rows, columns * taps)))
        found.append(y)
    y = w.emit("Concat", *found, axis=1) if parts > 1 else found[0]
    y = w.emit("Reshape", y, w.integers(0, op.groups, shared, rows, columns, taps))
    y = w.emit("Transpose", y, perm=(0, 1, 5, 2, 3, 4))
    return w.emit("Reshape", y, w.integers(0, taps * channels, rows, columns))


def _unmoved(op: DeformColumns, axis: int, out: Pair) -> Array:
    """Where the taps of all windows lie on an axis, (OH, OW K)."""
    places = [op.places(axis, tap, out[axis]) for tap in range(prod(op.kernel))]
    return np.stack([np.broadcast_to(p, out) for p in places], -1).reshape(out[0], -1)


def _part(w: Writer, x: str, part: int, shape: tuple[int, ...]) -> str:
    """One index of the second axis, in another shape."""
    one = w.emit("Slice", x, w.integers(part), w.integers(part + 1), w.integers(1))
    return w.emit("Reshape", one, w.integers(*shape))


@reads("DeformConv")
def read_deform_conv(call: Call) -> Operand:
    """Columns, and a 1x1 convolution of them."""
    x, weight, offset = (call.operand(i) for i in range(3))
    if x.type.rank != 4:
        raise UnsupportedError(f"over {x.type.rank - 2} axes: Lucid has it over two")
    if auto_pad(call) != "NOTSET":
        raise UnsupportedError("with auto_pad")
    outer, inner, *kernel = call.integer_dims(*weight.type.shape)
    given = call.integer_list("kernel_shape")
    if given is not None and given != tuple(kernel):
        raise ModelFileError(f"has the kernel_shape {given} and the weight {weight.type}")
    groups, taps = call.integer("group", 1), prod(kernel)
    stride_h, stride_w = per_axis(call, "strides", 1)
    top, left, bottom, right = padding(call)
    dilation_h, dilation_w = per_axis(call, "dilations", 1)
    op = DeformColumns(
        (kernel[0], kernel[1]),
        (stride_h, stride_w),
        (top, left, bottom, right),
        (dilation_h, dilation_w),
        groups,
    )
    if offset.type.shape[1] != 2 * taps * call.integer("offset_group", 1):
        raise ModelFileError(f"has the offset {offset.type} for {taps} taps")
    mask = [call.operand(4)] if call.has(4) else []
    columns = call.apply(op, x, offset, *mask)
    weight = call.apply(Permute((0, 2, 3, 1)), weight)
    weight = call.apply(Reshape((outer, taps * inner, 1, 1)), weight)
    if call.is_weight(weight):
        bias = [call.operand(3)] if call.has(3) else []
        return call.apply(Conv2d(groups=groups), columns, weight, *bias)
    y = call.apply(Conv2d(groups=groups), columns, weight)
    if not call.has(3):
        return y
    return call.apply(Add(), y, call.reshape(call.operand(3), (outer, 1, 1)))


# -- boxes --------------------------------------------------------------------------------------


@writes(RoiAlign)
def write_roi_align(w: Writer, op: RoiAlign, operands: Sequence[Edge], kind: TensorType) -> str:
    x, boxes = operands
    first = w.emit("Slice", boxes, w.integers(0), w.integers(1), w.integers(1))
    images = w.emit("Cast", w.emit("Squeeze", first, w.integers(1)), to=INT64)
    return w.emit(
        "RoiAlign",
        x,
        w.emit("Slice", boxes, w.integers(1), w.integers(5), w.integers(1)),
        images,
        mode=op.mode,
        output_height=op.size[0],
        output_width=op.size[1],
        sampling_ratio=op.samples,
        spatial_scale=op.scale,
        coordinate_transformation_mode="half_pixel" if op.half_pixel else "output_half_pixel",
    )


INT64 = 7
"""The dtype in ONNX's numbers."""


@reads("RoiAlign")
def read_roi_align(call: Call) -> Operand:
    x, boxes, images = (call.operand(i) for i in range(3))
    coordinates = ("half_pixel", "output_half_pixel")
    half = call.opset >= 16 and call.choice("coordinate_transformation_mode", coordinates)
    op = RoiAlign(
        (call.integer("output_height", 1), call.integer("output_width", 1)),
        call.number("spatial_scale", 1.0),
        call.integer("sampling_ratio", 0),
        half == "half_pixel",
        call.choice("mode", ("avg", "max")),
    )
    count = boxes.type.shape[0]
    numbers = call.apply(Cast("f32"), call.reshape(images, (count, 1)))
    return call.apply(op, x, call.apply(Concat(1), numbers, boxes))


# -- windows ------------------------------------------------------------------------------------


@writes(Fold)
def write_fold(w: Writer, op: Fold, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit(
        "Col2Im",
        operands[0],
        w.integers(*op.size),
        w.integers(*op.kernel),
        strides=op.stride,
        pads=op.padding,
        dilations=op.dilation,
    )


@reads("Col2Im")
def read_col2im(call: Call) -> Operand:
    """Two axes at a time, the last ones first: axes do not mix in the sum."""
    x, size, kernel = call.operand(0), call.integers(1), call.integers(2)
    rank = len(size)
    strides = call.integer_list("strides") or (1,) * rank
    dilations = call.integer_list("dilations") or (1,) * rank
    pads = call.integer_list("pads") or (0,) * (2 * rank)
    lengths = (len(kernel), len(strides), len(dilations), len(pads) // 2)
    if set(lengths) != {rank} or rank < 1:
        raise ModelFileError(f"says windows of {lengths} axes for {rank}")
    n, channels, _ = x.type.shape
    (channels,) = call.integer_dims(channels)
    counts = [
        extent(size[a], kernel[a], strides[a], (pads[a], pads[rank + a]), dilations[a])
        for a in range(rank)
    ]
    if channels % prod(kernel) or min(counts) < 1:
        raise ModelFileError(f"takes {x.type} for windows of {kernel}")
    axes = list(range(rank))
    images = channels // prod(kernel)
    behind = 1
    while axes:
        pair_ = axes[-2:]
        del axes[-2:]
        left = (prod(kernel[a] for a in axes), prod(counts[a] for a in axes))
        own = (prod(kernel[a] for a in pair_), prod(counts[a] for a in pair_))
        # (images, taps left, taps, windows left, windows, behind) to one sum for each of the rest
        x = call.reshape(x, (n, images, left[0], own[0], left[1], own[1], behind))
        x = call.apply(Permute((0, 1, 2, 4, 6, 3, 5)), x)
        x = call.reshape(x, (n, images * prod(left) * behind * own[0], own[1]))
        op = Fold(
            _two(size, pair_, 1),
            _two(kernel, pair_, 1),
            _two(strides, pair_, 1),
            (*_two(pads[:rank], pair_, 0), *_two(pads[rank:], pair_, 0)),
            _two(dilations, pair_, 1),
        )
        x = call.apply(op, x)
        x = call.reshape(x, (n, images, *left, behind, prod(op.size)))
        x = call.apply(Permute((0, 1, 2, 3, 5, 4)), x)
        behind *= prod(op.size)
    return call.reshape(x, (n, images, *size))


def _two(values: Sequence[int], axes: Sequence[int], missing: int) -> Pair:
    """Those of two axes; `missing` for the first one where there is one alone."""
    return (values[axes[0]] if len(axes) == 2 else missing, values[axes[-1]])
