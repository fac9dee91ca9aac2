"""Lowering of convolutions to products over windows of a padded map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lucid.codegen.kernels.accumulation import CHAIN, SHORT
from lucid.codegen.kernels.direct import Direct, scratch_bytes
from lucid.codegen.kernels.live_taps import SPARSE, AxisWindows, sparse_share
from lucid.codegen.kernels.microkernels import WindowTile, panel_vectors, tile_target
from lucid.codegen.kernels.slices import DirectSlices
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.lowering.arguments import (
    bias_of,
    bind_extras,
    enough_chunks,
    geometry,
    only_declared,
    slice_arguments,
    tile_codes,
    window,
)
from lucid.codegen.lowering.context import Lowering, row_stride
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.lowering.product import PREFETCHED
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.ops import Conv2d

MOST_PLANES = 4
"""Channels up to which a planar image is read as it is; more are worth a copy to channels last."""
PANEL_SHARE = 0.6
"""Of L2, that a panel of weights may fill: every few rows of a block pass over it."""
BLOCK_ROWS = 192
"""Rows of a block, about: so many share a pass over the weights in L2."""
LEAST_ROWS = 24
"""Rows below which the strips of a line are too few for each other's tails."""
MOST_WALKED = 32
"""Columns of a group up to which copying its map takes longer than what it saves, on AVX2: 3x3 in
groups of 24, stride 2, 72 channels at 112x112 take 1.15 ms where the map lies and 1.85 with copies,
168 at 56x56 0.66 and 0.79; in groups of 32, 1024 channels at 14x14, 0.60 and 0.79. For that the
windows of the next rows are prefetched: without that the first takes 2.44 ms. On Zen 4 with AVX-512
these take 0.55 and 0.61, 0.29 and 0.31 ms, two threads."""
FEW_TASKS = 4
"""Tasks for each thread that a line is cut into where it has rows enough."""


@dataclass(frozen=True)
class Cut:
    """Blocks of outputs: bands of `lines` lines of an image, strips of `strip` columns of one line,
    or whole images, `block_images` of them; and chunks of weight panels. The fields are arguments
    of the kernel.
    """

    lines: int
    bands: int
    strip: int
    strips: int
    block_images: int
    blocks: int
    chunks: int
    block_stride: int
    chunk_stride: int
    prefetch: int


def direct(ctx: Lowering, layer: Layer) -> None:
    """The layer as one `Direct` call."""
    op, arithmetic = layer.conv, layer.arithmetic
    _, inner, *taps = ctx.shape(layer.weight)
    x, result = ctx.view(layer.x), ctx.result(layer.result)
    planar = (
        layer.slices is None
        and x.shape[1] > 1
        and x.strides[3] == 1
        and inner <= MOST_PLANES
        and op.groups == 1
    )
    if not planar:
        x = ctx.rows_view(layer.x)
    n, channels, height, width = result.shape
    columns = channels // op.groups
    target = tile_target(columns, ctx.target, layer.numbers)
    vectors = panel_vectors(columns, target, layer.numbers)
    size = dtype(layer.numbers).bytes
    axes = windows(op, taps, x.shape, result.shape)
    share = sparse_share(*axes)
    walks = share <= 1 and _walks(ctx, layer, columns, axes)
    sparse = share < SPARSE or walks
    depth = inner * prod(taps) * (share if sparse else 1.0)
    column_bytes = size * target.vector * depth
    while vectors > 1 and vectors * column_bytes > PANEL_SHARE * ctx.target.l2:
        vectors -= 1
    panel = vectors * target.vector
    reach = [(t - 1) * d + 1 for t, d in zip(taps, op.dilation, strict=True)]
    padded = (width - 1) * op.stride[1] + reach[1]
    in_place = not planar and _reads_in_place(layer, x, inner, axes if sparse else None)
    panels, line_bytes = -(-columns // panel), size * padded * inner
    line_bytes = 0 if in_place and sparse else line_bytes
    cut = _cut(ctx, layer, result, reach[0], line_bytes, panels, walks)
    padded = (cut.strip - 1) * op.stride[1] + reach[1]
    parts, part_lines = _parts(op, taps[0], reach[0], cut.lines)
    met = parts * part_lines
    map_numbers = cut.block_images * met * padded * inner + arithmetic.numbers_of_element - 1
    map_numbers = 0 if in_place else map_numbers + -map_numbers % (8 // size)  # a table of I64
    line_step, pixel_step = (x.strides[2], x.strides[3]) if in_place else (padded * inner, inner)
    together = op.dilation[1] == 1 and not sparse
    lines_w, segment = (1, taps[1] * inner) if together else (taps[1], inner)
    steps = -(-segment // arithmetic.numbers_of_element)
    body = layer.epilogue.body
    kernel = Direct(
        body.extras, inner if planar else 0, x.dtype, layer.numbers, result.dtype, in_place, sparse
    )
    if layer.slices is not None:
        flat = inner == layer.slices.taps <= MOST_PLANES and op.groups == 1 and x.strides[3] == 1
        kernel = DirectSlices(body.extras, inner if flat else 0, sparse=sparse)
    short = steps <= SHORT and (layer.is_integer or taps[0] * lines_w * segment <= CHAIN)
    form = (steps if short else 0, layer.numbers, sparse, target.tile_rows(vectors))
    tile = WindowTile(vectors, body, *form, ahead=walks, half=target.is_half)
    extras, tensors = bind_extras(ctx, layer.epilogue, op.groups, panel)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    region.set_outputs([layer.append(region, inputs[0], inputs[1:])])
    packing = layer.panels(op.groups, panel, taps[0] * lines_w)
    shape, name = ctx.shape(layer.weight), layer.weight.name
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **window((taps[0], taps[1]), op.stride, op.padding),
        **slice_arguments(layer, inner),
        "plane": x.strides[1],
        "weights": ctx.weights(layer.weight.recipe, packing, shape, name, layer.numbers),
        "bias": bias_of(ctx, layer, op.groups, panel),
        "y": result,
        "y_row": row_stride(result) or 0,
        **extras,
        **tile_codes(tile),
        "met": met,
        "part_lines": part_lines,
        "part_step": op.dilation[0],
        "lines_h": taps[0],
        "step_h": (op.dilation[0] if parts == 1 or in_place else part_lines) * line_step,
        "lines_w": lines_w,
        "step_w": op.dilation[1] * pixel_step,  # where there is more than one
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "segment": steps,
        "chain": max(1, CHAIN // segment),
        "padded_width": padded,
        "zero_point": layer.zero_point,
        "map_numbers": map_numbers,
        "images": n,
        "channels": inner,
        "columns": columns,
        "groups": op.groups,
        "panel": panel,
        "panels": panels,
        **vars(cut),
    }
    rows = cut.block_images * cut.lines * cut.strip
    ctx.call(
        kernel,
        cut.blocks * cut.chunks * op.groups,
        only_declared(kernel, arguments),
        [x, *tensors],
        [result],
        region,
        layer.origin,
        algorithm=layer.choice.kernel,
        scratch=scratch_bytes(size * map_numbers, rows, (taps[0], taps[1]) if sparse else None),
        work=2 * n * height * width * channels * inner * taps[0] * taps[1],
    )


def windows(
    op: Conv2d, taps: Sequence[int], x: Sequence[int], y: Sequence[int]
) -> tuple[AxisWindows, AxisWindows]:
    """The windows along both axes, of maps of these shapes."""
    high, wide = (
        AxisWindows(y[2 + i], op.stride[i], op.padding[i], op.dilation[i], taps[i], x[2 + i])
        for i in (0, 1)
    )
    return high, wide


def _walks(
    ctx: Lowering, layer: Layer, columns: int, axes: tuple[AxisWindows, AxisWindows]
) -> bool:
    """Whether the windows of a few columns walk the map of floats where it lies, the rows at its
    border by their live taps alone: a copy of it would serve too few products."""
    if layer.numbers != COMPUTED or layer.slices is not None or layer.conv.groups == 1:
        return False
    narrow = ctx.target.registers < 32 or ctx.target.half_units
    return narrow and columns <= MOST_WALKED and all(axis.meet() for axis in axes)


def _reads_in_place(
    layer: Layer, x: View, inner: int, sparse: tuple[AxisWindows, AxisWindows] | None
) -> bool:
    """Whether windows lie in the map as they would in a copy of it: it has no padding, and the taps
    of a line lie side by side, or are dilated. Of sparse windows none may lie in padding alone."""
    if layer.numbers != COMPUTED or layer.slices is not None:
        return False
    if sparse is not None:
        return all(axis.meet() for axis in sparse)
    if any(layer.conv.padding):
        return False
    return x.strides[3] == inner or layer.conv.dilation[1] > 1


def _parts(op: Conv2d, taps: int, reach: int, lines: int) -> tuple[int, int]:
    """How the lines that `lines` lines of outputs meet lie: in one part, or, where windows are so
    dilated that this is less, in one for each line of taps; and the lines of a part."""
    own = (lines - 1) * op.stride[0] + 1
    together = own + reach - 1
    return (1, together) if together <= taps * own else (taps, own)


def _cut(
    ctx: Lowering, layer: Layer, y: View, reach: int, line_bytes: int, panels: int, walks: bool
) -> Cut:
    """Rows are split where the result has more of them than columns, so that the lines a block
    meets fill a quarter of L2 at most; else panels are, so that each weight is read once.

    `reach`: lines from a window's first to its last, of which it meets as many as there are taps.
    `line_bytes`: of a padded line; 0 where a block may meet as many as it likes. Narrow groups that
    `walks` pass the weights of all of them once: asked for, they take 0.8 of the time.
    """
    op, (n, channels, height, width) = layer.conv, y.shape
    weight = ctx.shape(layer.weight)
    passed, taps = prod(weight) if walks else prod(weight) // op.groups, weight[2]
    columns, stride = channels // op.groups, op.stride[0]
    chosen = layer.choice.split
    if n * height * width >= columns if chosen == "auto" else chosen == "rows":
        prefetch = int(dtype(layer.numbers).bytes * passed > PREFETCHED * ctx.target.l2)
        if height == 1:
            strip = _strip(ctx, layer, y, reach * line_bytes // width)
            strips = -(-width // strip)
            return Cut(1, 1, strip, strips, 1, n * strips, 1, op.groups, 1, prefetch)
        room = ctx.target.l2 // 4 // max(1, line_bytes)
        fitting = max((room - reach) // stride, (room // taps - 1) // stride) + 1
        wanted = -(-(layer.choice.rows or BLOCK_ROWS) // width)
        lines = max(1, min(height, fitting, wanted if layer.choice.rows else max(wanted, taps)))
        bands = -(-height // lines)
        lines = -(-height // bands)
        return Cut(lines, bands, width, 1, 1, n * bands, 1, op.groups, 1, prefetch)
    image = ((height - 1) * stride + reach) * line_bytes
    images = max(1, min(n, ctx.target.l2 // 2 // max(1, image)))
    blocks = -(-n // images)
    chunks = enough_chunks(ctx, layer, op.groups * blocks, panels)
    return Cut(height, 1, width, 1, images, blocks, chunks, 1, blocks, 1)


def _strip(ctx: Lowering, layer: Layer, y: View, row_bytes: int) -> int:
    """Columns of a strip of lines, where what each strip meets grows by `row_bytes` a column: it
    fills half of L2 at most, and there are as many strips for one thread as for the other."""
    n, _, _, width = y.shape
    fitting = max(LEAST_ROWS, min(BLOCK_ROWS, ctx.target.l2 // 2 // max(1, row_bytes)))
    strips = -(-width // (layer.choice.rows or fitting))
    if not layer.choice.rows:
        enough = -(-FEW_TASKS * ctx.threads // max(1, n * layer.conv.groups))
        strips = max(strips, min(width // LEAST_ROWS, enough))
        strips += -strips % ctx.threads
    return -(-width // strips)
