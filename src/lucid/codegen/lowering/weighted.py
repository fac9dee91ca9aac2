"""Lowering of resizing by tables of weights."""

from __future__ import annotations

from lucid.codegen.kernels.weighted import Weighted, scratch_bytes
from lucid.codegen.lowering.arguments import only_declared
from lucid.codegen.lowering.context import Lowering
from lucid.codegen.lowering.direct import MOST_PLANES
from lucid.codegen.lowering.maps import (
    is_planar,
    map_strides,
    numbers,
    pixels,
    planes,
    region_of,
)
from lucid.codegen.program.program import ArgumentValue
from lucid.ir.graph import Node
from lucid.ir.ops import Resize


def weighted(ctx: Lowering, node: Node, op: Resize) -> None:
    """One `Weighted` call. Images of few planes stay planar."""
    x, shape = ctx.view(node.inputs[0]), ctx.shape(node.output)
    planar = is_planar(x) and x.shape[1] <= MOST_PLANES
    y = ctx.result(node.output, x.over(shape, x.strides) if planar else None)
    if planar and is_planar(y):
        source, out = planes(x), planes(y)
    else:
        x = pixels(ctx, node.inputs[0])
        source, out = x, y
    n, channels, height, width = source.shape
    kernel = Weighted(channels == 1 and source.strides[3] == out.strides[3] == 1)
    lines, columns = op.taps(0, height), op.taps(1, width)
    if kernel.planar:
        columns = columns[0].T, columns[1].T
    dense = channels == 1 == source.strides[3] or source.strides[3] == channels
    arguments: dict[str, ArgumentValue] = {
        **map_strides("x", source),
        **map_strides("y", out),
        "line_places": numbers(ctx, lines[0], "lines"),
        "line_weights": numbers(ctx, lines[1], "line_weights"),
        "column_places": numbers(ctx, columns[0], "columns"),
        "column_weights": numbers(ctx, columns[1], "column_weights"),
        "line_taps": lines[0].shape[1],
        "column_taps": columns[0].size // op.size[1],
        "out_height": op.size[0],
        "out_width": op.size[1],
        "runs": 1 if dense else width,
        "run": width * channels if dense else channels,
        "channels": channels,
    }
    ctx.call(
        kernel,
        n * op.size[0],
        only_declared(kernel, arguments),
        [x],
        [y],
        region_of(ctx, op, [x], node.origin),
        node.origin,
        algorithm="resize",
        scratch=scratch_bytes(lines[0].shape[1], width * channels),
    )
