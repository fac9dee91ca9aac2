"""Lowering of 3x3 convolutions to Winograd's."""

from __future__ import annotations

from lucid.codegen.body import PLAIN
from lucid.codegen.kernels.winograd import Winograd, scratch_floats
from lucid.codegen.lowered_ops import PartialSums
from lucid.codegen.lowering.context import Lowering, row_stride
from lucid.codegen.lowering.epilogue import only_declared
from lucid.codegen.lowering.layer import (
    Layer,
    bias_of,
    enough_chunks,
    geometry,
    panel_vectors,
    window,
)
from lucid.codegen.microkernels import Tile
from lucid.codegen.packing import WinogradPanels
from lucid.codegen.program import ArgumentValue, Code
from lucid.ir.ops import Conv2d, SplitAttention


def winograd(ctx: Lowering, layer: Layer) -> None:
    """The layer as one `Winograd` call, with channel sums where a split attention reads it."""
    op, choice = layer.op, layer.choice
    assert isinstance(op, Conv2d)
    m = int(choice.kernel[-1])
    x = ctx.rows_view(layer.x)
    y = ctx.result(layer.result)
    if row_stride(y) is None:
        raise AssertionError("results of convolutions are channels last")
    n, channels, height, width = y.shape
    columns, depth = channels // op.groups, x.shape[1] // op.groups
    vectors = panel_vectors(columns, ctx.target)
    panel = vectors * ctx.target.vector
    panels = -(-columns // panel)
    tiles_w = -(-width // m)
    tiles = -(-height // m) * tiles_w
    image_blocks, block_images = (-(-tiles // choice.tiles), 1)
    if tiles <= choice.tiles:
        image_blocks, block_images = 1, max(1, choice.tiles // tiles)
    blocks = image_blocks * -(-n // block_images)
    block_tiles = -(-tiles // image_blocks) * min(block_images, max(1, n))
    chunks = enough_chunks(ctx, layer, op.groups * blocks, panels)
    wants_sums = any(
        isinstance(u.op, SplitAttention) and u.inputs[0] is layer.result for u in layer.result.users
    )
    kernel = Winograd(m, layer.epilogue.body, wants_sums)
    tile = Tile(vectors, PLAIN, raw=True)
    extra_arguments, tensors = layer.epilogue.bind(ctx, op.groups, panel)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    outputs = [layer.append(region, inputs[0], inputs[1:])]
    writes = [y]
    if wants_sums:
        shape = (n, image_blocks, channels)
        sums = ctx.allocate(
            f"{layer.result.name}.sums", shape, (image_blocks * channels, channels, 1)
        )
        ctx.sums[layer.result] = sums
        writes.append(sums)
        outputs.append(region.append(PartialSums(image_blocks), [outputs[0]]).output)
    region.set_outputs(outputs)
    packing = WinogradPanels(m, op.groups, panel)
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **window((3, 3), (1, 1), op.padding),
        "weights": ctx.weights(
            layer.weight.recipe, packing, ctx.shape(layer.weight), layer.weight.name
        ),
        "bias": bias_of(ctx, layer, op.groups, panel),
        "y": y,
        "sums": writes[-1],
        **extra_arguments,
        **{export: Code(tile, export) for export in Tile.exports},
        "y_image": y.strides[0],
        "y_line": y.strides[2],
        "y_pixel": y.strides[3],
        "images": n,
        "groups": op.groups,
        "depth": depth,
        "columns": columns,
        "panel": panel,
        "panels": panels,
        "tiles_w": tiles_w,
        "tiles": tiles,
        "block_tiles": block_tiles,
        "image_blocks": image_blocks,
        "block_images": block_images,
        "blocks": blocks,
        "chunks": chunks,
        "block_stride": 1,
        "chunk_stride": blocks,
        "prefetch": 1,
    }
    ctx.call(
        kernel,
        op.groups * blocks * chunks,
        only_declared(kernel, arguments),
        [x, *tensors],
        writes,
        region,
        layer.origin,
        algorithm=choice.kernel,
        scratch=scratch_floats(m, block_tiles, depth, panel, ctx.target.vector),
        work=2 * n * height * width * channels * depth * 9,
    )
