"""Lowering of 3x3 convolutions to Winograd's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lucid.codegen.kernels import bf16_winograd, integer_winograd
from lucid.codegen.kernels import winograd as winograd_kernel
from lucid.codegen.kernels.bf16_winograd import Bf16Winograd
from lucid.codegen.kernels.body import PLAIN
from lucid.codegen.kernels.integer_winograd import IntegerWinograd
from lucid.codegen.kernels.matrix_tile import BLOCK, MatrixTile
from lucid.codegen.kernels.microkernels import Tile, panel_vectors
from lucid.codegen.kernels.packing import (
    WinogradBf16Panels,
    WinogradPairPanels,
    WinogradPanels,
    WinogradParts,
)
from lucid.codegen.kernels.slices import WinogradSlices
from lucid.codegen.kernels.winograd import Winograd
from lucid.codegen.lowering.arguments import (
    bias_of,
    bind_extras,
    enough_chunks,
    geometry,
    only_declared,
    result_strides,
    slice_arguments,
    sums_view,
    tile_codes,
)
from lucid.codegen.lowering.context import Lowering, row_stride
from lucid.codegen.lowering.layer import Layer, feeds_attention
from lucid.codegen.lowering.matrices import by_matrices
from lucid.codegen.lowering.product import MAPS_OUTWEIGH
from lucid.codegen.program.lowered_ops import PartialSums
from lucid.codegen.program.program import ArgumentValue, View
from lucid.codegen.scheduling.conv_shape import groups_together, phase_tiles
from lucid.codegen.scheduling.kernel_names import winograd_m
from lucid.ir.ops import IntegerConv2d


@dataclass(frozen=True)
class Tiling:
    """Output tiles in blocks: an image has several, or a block several whole images, so that what
    is summed together never depends on the batch. The fields are arguments of the kernel.

    `tiles`: of an image, `phase_tiles` of each phase of its pixels, `tiles_w` in a line of a phase.
    `block_tiles`: of a block, at most.
    """

    tiles_w: int
    phase_tiles: int
    tiles: int
    image_blocks: int
    block_images: int
    blocks: int
    block_tiles: int

    @staticmethod
    def of(y: View, dilation: tuple[int, int], m: int, wanted: int) -> Tiling:
        """Blocks of about `wanted` tiles of m x m outputs."""
        n, _, height, width = y.shape
        tiles_h, tiles_w = phase_tiles((height, width), dilation, m)
        tiles = tiles_h * tiles_w * math.prod(dilation)
        image_blocks = -(-tiles // wanted)
        block_images = 1 if image_blocks > 1 else max(1, wanted // tiles)
        blocks = image_blocks * -(-n // block_images)
        block_tiles = -(-tiles // image_blocks) * min(block_images, max(1, n))
        return Tiling(
            tiles_w, tiles_h * tiles_w, tiles, image_blocks, block_images, blocks, block_tiles
        )


def winograd(ctx: Lowering, layer: Layer) -> None:
    """The layer as one `Winograd` call, with channel sums where a split attention reads it."""
    op, m = layer.conv, winograd_m(layer.choice.kernel)
    x, y = ctx.rows_view(layer.x), ctx.result(layer.result)
    assert row_stride(y) is not None, "results of convolutions are channels last"
    n, channels, height, width = y.shape
    depth, groups = ctx.shape(layer.weight)[1], op.groups
    together = _together(ctx, layer, channels, depth)
    work = 2 * n * height * width * channels * depth * 9
    groups, depth = groups // together, depth * together
    columns = channels // groups
    vectors = panel_vectors(columns, ctx.target, layer.numbers)
    panel = vectors * ctx.target.vector
    panels = -(-columns // panel)
    tiling = _tiling(ctx, layer, y, m, groups)
    chunks = enough_chunks(ctx, layer, groups * tiling.blocks, panels)
    blocks_outside = _blocks_outside(ctx, layer, y, m, tiling.blocks)
    extras, tensors = bind_extras(ctx, layer.epilogue, groups, panel)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    results = [layer.append(region, inputs[0], inputs[1:])]
    writes = [y]
    if feeds_attention(layer) and not layer.is_integer:
        writes.append(sums_view(ctx, layer, tiling.image_blocks))
        results.append(region.append(PartialSums(tiling.image_blocks), results).output)
    region.set_outputs(results)
    form = _form(ctx, layer, m, len(writes) > 1, vectors, together)
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **slice_arguments(layer, depth),
        "pad_top": op.padding[0] // op.dilation[0],
        "pad_left": op.padding[1] // op.dilation[1],
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        **form.arguments,
        "bias": bias_of(ctx, layer, groups, panel),
        **dict(zip(("y", "sums"), writes, strict=False)),
        **extras,
        **tile_codes(form.tile),
        **result_strides(y),
        "images": n,
        "groups": groups,
        "depth": depth,
        "columns": columns,
        "panel": panel,
        "panels": panels,
        **dataclasses.asdict(tiling),
        "chunks": chunks,
        "block_stride": groups * chunks if blocks_outside else 1,
        "chunk_stride": 1 if blocks_outside else tiling.blocks,
        "prefetch": 1,
    }
    ctx.call(
        form.kernel,
        groups * tiling.blocks * chunks,
        only_declared(form.kernel, arguments),
        [x, *tensors],
        writes,
        region,
        layer.origin,
        algorithm=layer.choice.kernel,
        scratch=form.scratch_bytes(m, tiling.block_tiles, depth, panel, ctx.target.vector),
        work=work,
    )


def _tiling(ctx: Lowering, layer: Layer, y: View, m: int, groups: int) -> Tiling:
    """Blocks as they were chosen, or smaller ones where threads would have none: those that share
    one transform its input each for themselves. Channel sums are of blocks, whose order no number
    of threads may change."""
    dilation, wanted = layer.conv.dilation, layer.choice.tiles
    tiling = Tiling.of(y, dilation, m, wanted)
    settled = layer.choice.chunks or feeds_attention(layer) or tiling.block_images > 1
    if settled or groups * tiling.blocks >= ctx.threads:
        return tiling
    for parts in range(-(-ctx.threads // (groups * max(1, y.shape[0]))), tiling.image_blocks, -1):
        share = -(-tiling.tiles // parts)
        if share >= ctx.target.costs.shared_tiles:
            return Tiling.of(y, dilation, m, share)
    return tiling


@dataclass(frozen=True)
class _Form:
    """What floats and integers have of their own: kernel and tile, the arguments that are packed
    weights, and how much scratch a task takes."""

    kernel: Winograd
    tile: Tile | MatrixTile
    arguments: dict[str, ArgumentValue]
    scratch_bytes: Callable[[int, int, int, int, int], int]


def _blocks_outside(ctx: Lowering, layer: Layer, y: View, m: int, blocks: int) -> bool:
    """Whether threads share blocks of tiles, which are what they have in their caches, rather than
    groups and panels."""
    n, channels, height, width = y.shape
    columns, depth = ctx.shape(layer.weight)[:2]
    maps = n * height * width * (channels + depth * layer.conv.groups)
    weights = (m + 2) ** 2 * columns * depth
    return blocks >= ctx.threads and maps >= MAPS_OUTWEIGH * weights


def _together(ctx: Lowering, layer: Layer, channels: int, depth: int) -> int:
    """How many of the layer's groups are one of the kernel's."""
    groups = layer.conv.groups
    if layer.is_integer or layer.slices is not None:
        return 1
    return groups_together(groups, depth, channels // groups, ctx.target)


def _form(ctx: Lowering, layer: Layer, m: int, sums: bool, vectors: int, together: int) -> _Form:
    weight, panel, shape = layer.weight, vectors * ctx.target.vector, ctx.shape(layer.weight)
    op, options = layer.op, (m, layer.epilogue.body, sums, layer.conv.dilation != (1, 1))
    rows, groups = ctx.target.tile_rows(vectors), layer.conv.groups // together
    tile = Tile(vectors, PLAIN, raw=True, numbers=layer.numbers, rows=rows)
    if layer.choice.rounds_to_bf16:
        return _bf16_form(ctx, layer, Bf16Winograd(*options), groups, tile)
    if not isinstance(op, IntegerConv2d):
        spec = Winograd if layer.slices is None else WinogradSlices
        packing = WinogradPanels(m, groups, panel, together)
        packed = ctx.weights(weight.recipe, packing, shape, weight.name)
        return _Form(spec(*options), tile, {"weights": packed}, winograd_kernel.scratch_bytes)
    dtypes = layer.x.type.dtype, layer.result.type.dtype
    pairs, parts = WinogradPairPanels(m, groups, panel), WinogradParts(m, op.largest(dtypes[0]))
    arguments: dict[str, ArgumentValue] = {
        "weights": ctx.weights(weight.recipe, pairs, shape, weight.name, layer.numbers),
        "parts": ctx.weights(weight.recipe, parts, shape, f"{weight.name}.parts", "i64"),
        "zero_point": layer.zero_point,
    }
    return _Form(
        IntegerWinograd(*options, *dtypes, vectors), tile, arguments, integer_winograd.scratch_bytes
    )


def _bf16_form(ctx: Lowering, layer: Layer, kernel: Bf16Winograd, groups: int, tile: Tile) -> _Form:
    """By tiles of matrices in place of `tile`, where there are any and channels are whole blocks of
    pairs."""
    weight, shape = layer.weight, ctx.shape(layer.weight)
    packing = WinogradBf16Panels(kernel.m, groups, tile.vectors * ctx.target.vector)
    packed = ctx.weights(weight.recipe, packing, shape, weight.name, layer.numbers)
    scratch = bf16_winograd.scratch_bytes
    if not by_matrices(ctx.target, layer) or shape[1] % (2 * BLOCK):
        return _Form(kernel, tile, {"weights": packed}, scratch)
    matrix = MatrixTile(tile.vectors, raw=True)
    reaching = partial(scratch, rows_beyond=matrix.rows - 1)
    return _Form(kernel, matrix, {"weights": packed}, reaching)
