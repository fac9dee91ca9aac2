"""Lowering of sampling at computed places."""

from __future__ import annotations

import numpy as np

from lucid.codegen.kernels.roi import RoiAlign as RoiKernel
from lucid.codegen.kernels.roi import scratch_bytes
from lucid.codegen.kernels.sampling import AXES
from lucid.codegen.kernels.sampling import DeformColumns as DeformKernel
from lucid.codegen.kernels.sampling import GridSample as GridKernel
from lucid.codegen.language.elements import STRIDED, Access
from lucid.codegen.lowering.arguments import only_declared
from lucid.codegen.lowering.context import Lowering, lowers, row_major
from lucid.codegen.lowering.direct import MOST_PLANES
from lucid.codegen.lowering.maps import map_strides, numbers, pixels, region_of
from lucid.codegen.program.program import ArgumentValue, View, WeightRef
from lucid.ir.graph import Node
from lucid.ir.ops import DeformColumns, GridSample, RoiAlign


@lowers(GridSample)
def _grid_sample(ctx: Lowering, node: Node) -> None:
    """One `GridSample` call. Maps of few planes stay planar; those of more than two axes are, where
    their channels do not lie side by side."""
    op, (source, _) = node.op, node.inputs
    assert isinstance(op, GridSample)
    x, grid = (ctx.view(v) for v in node.inputs)
    shape, count = ctx.shape(node.output), len(x.shape) - 2
    planar = x.shape[1] > 1 and x.strides[1] != 1 and (count > 2 or x.shape[1] <= MOST_PLANES)
    if planar:
        like = View("", x.dtype, shape, row_major(shape))
        y = ctx.result(node.output, like)
        planar = y.strides[-1] == 1
    else:
        y = ctx.result(node.output)
    if not planar:
        x = pixels(ctx, source)
    kernel = GridKernel(
        op.mode, op.padding, op.align_corners, count, planar, Access.along(grid.strides[-2])
    )
    arguments: dict[str, ArgumentValue] = {
        "nothing": nothing(ctx, x.shape[1]),
        "channels": x.shape[1],
        "x_channel": x.strides[1],
        "y_channel": y.strides[1],
        "grid_coordinate": grid.strides[-1],
    }
    spatial = {"x": x.strides[2:], "grid": grid.strides[1:-1], "y": y.strides[2:]}
    for name, view in (("x", x), ("grid", grid), ("y", y)):
        arguments |= {name: view, f"{name}_image": view.strides[0]}
        steps = zip(AXES, reversed(spatial[name]), strict=False)
        arguments |= {f"{name}_{axis}": step for axis, step in steps}
    for prefix, sizes in (("", x.shape[2:]), ("out_", shape[2:])):
        own = zip(AXES, reversed(sizes), strict=False)
        arguments |= {f"{prefix}{axis}s": size for axis, size in own}
    ctx.call(
        kernel,
        int(np.prod([shape[0], *shape[2:-1]])),
        only_declared(kernel, arguments),
        [x, grid],
        [y],
        region_of(ctx, op, [x, grid], node.origin),
        node.origin,
        algorithm="grid_sample",
    )


def nothing(ctx: Lowering, channels: int) -> WeightRef:
    """Zeros for the channels of one pixel, which is what lies beyond a map."""
    return numbers(ctx, np.zeros(channels), "nothing")


@lowers(DeformColumns)
def _deform_columns(ctx: Lowering, node: Node) -> None:
    """One `DeformColumns` call."""
    op = node.op
    assert isinstance(op, DeformColumns)
    x, y = pixels(ctx, node.inputs[0]), ctx.result(node.output)
    offset, *masks = (ctx.view(v) for v in node.inputs[1:])
    channels, (height, width) = x.shape[1], y.shape[2:]
    parts = offset.shape[1] // (2 * op.kernel[0] * op.kernel[1])
    pixel = {v.strides[3] for v in (offset, *masks)}
    access = Access.along(pixel.pop()) if len(pixel) == 1 else Access(STRIDED)
    kernel = DeformKernel(bool(masks), access)
    arguments: dict[str, ArgumentValue] = {
        **map_strides("x", x),
        **map_strides("y", y),
        "nothing": nothing(ctx, channels),
        "height": x.shape[2],
        "width": x.shape[3],
        "channels": channels,
        "out_height": height,
        "out_width": width,
        "kernel_h": op.kernel[0],
        "kernel_w": op.kernel[1],
        "stride_h": op.stride[0],
        "stride_w": op.stride[1],
        "pad_top": op.padding[0],
        "pad_left": op.padding[1],
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "groups": op.groups,
        "parts": parts,
        "run": op.run(channels, parts),
    }
    for name, view in zip(("offset", "mask"), (offset, *masks), strict=False):
        arguments |= map_strides(name, view) | {f"{name}_channel": view.strides[1]}
    reads = [x, offset, *masks]
    ctx.call(
        kernel,
        y.shape[0] * height,
        only_declared(kernel, arguments),
        reads,
        [y],
        region_of(ctx, op, reads, node.origin),
        node.origin,
        algorithm="deform_columns",
    )


@lowers(RoiAlign)
def _roi_align(ctx: Lowering, node: Node) -> None:
    """One `RoiAlign` call."""
    op = node.op
    assert isinstance(op, RoiAlign)
    x, boxes, y = pixels(ctx, node.inputs[0]), ctx.view(node.inputs[1]), ctx.result(node.output)
    size = (x.shape[2], x.shape[3])
    kernel = RoiKernel(op.half_pixel, op.mode == "max")
    arguments: dict[str, ArgumentValue] = {
        **map_strides("x", x),
        **map_strides("y", y),
        "boxes": boxes,
        "box": boxes.strides[0],
        "coordinate": boxes.strides[1],
        "images": x.shape[0],
        "height": size[0],
        "width": size[1],
        "channels": x.shape[1],
        "out_height": op.size[0],
        "out_width": op.size[1],
        "samples": op.samples,
        "scale": op.scale,
    }
    reads = [x, boxes]
    ctx.call(
        kernel,
        y.shape[0],
        only_declared(kernel, arguments),
        reads,
        [y],
        region_of(ctx, op, reads, node.origin),
        node.origin,
        algorithm="roi_align",
        scratch=scratch_bytes(op.size, size),
    )
