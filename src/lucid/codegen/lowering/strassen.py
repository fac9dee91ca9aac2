"""Lowering of 1x1 convolutions and linear layers to Strassen's products."""

from __future__ import annotations

from math import prod

from lucid.codegen.kernels.body import PLAIN
from lucid.codegen.kernels.microkernels import Tile
from lucid.codegen.kernels.strassen import (
    FACTORS,
    KINDS,
    Strassen,
    StrassenRows,
    factor_vectors,
    scratch_bytes,
)
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.lowering.arguments import bias_of, bind_extras, only_declared
from lucid.codegen.lowering.context import Lowering, row_stride
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.program.lowered_ops import StrassenFactors, StrassenProduct
from lucid.codegen.program.program import ArgumentValue, Code, View
from lucid.ir.ops import Linear, Permute, Reshape

BLOCK = 256
"""Pairs of a block, at most: 728 to 728 channels at 38x38 take 28.2 ms with 256 and 28.1 with all,
29.5 with 32, and on two threads 14.6 and 14.8, 15.2 (a Zen 4, two such layers)."""
CHUNKS = 8
"""Chunks of panels for each thread, where one block has all pairs."""


def strassen(ctx: Lowering, layer: Layer) -> None:
    """The layer as two calls: `StrassenRows` for the left factors, `Strassen` for the rest."""
    linear = isinstance(layer.op, Linear)
    shape = ctx.shape(layer.result)
    images, rows = shape[0], shape[1] if linear else prod(shape[2:])
    x = ctx.rows_view(layer.x)
    y = ctx.result(layer.result)
    factors = _factors(ctx, layer, x, images, rows)
    _products(ctx, layer, factors, y, images, rows)


def _factors(ctx: Lowering, layer: Layer, x: View, images: int, rows: int) -> View:
    """The left factors of all pairs."""
    depth, pairs = ctx.shape(layer.weight)[1] // 2, -(-rows // 2)
    shape = (FACTORS, images * pairs, depth)
    by_pair = (depth, FACTORS * depth, 1)
    v = ctx.allocate(f"{layer.result.name}.factors", COMPUTED, shape, by_pair)
    region, (given,) = ctx.region(layer.origin, [x])
    if len(x.shape) == 4:
        given = region.append(Permute((0, 2, 3, 1)), [given]).output
        given = region.append(Reshape((images, rows, 2 * depth)), [given]).output
    region.set_outputs([region.append(StrassenFactors(), [given]).output])
    blocks = ctx.pieces(images * pairs, 8)
    arguments: dict[str, ArgumentValue] = {
        "x": x,
        "v": v,
        "x_row": row_stride(x) or 0,
        "images": images,
        "rows": rows,
        "pairs": pairs,
        "depth": depth,
        "blocks": blocks,
    }
    kernel = StrassenRows()
    ctx.call(kernel, blocks, arguments, [x], [v], region, layer.origin, algorithm="strassen")
    return v


def _products(ctx: Lowering, layer: Layer, v: View, y: View, images: int, rows: int) -> None:
    outputs, inputs, *_ = ctx.shape(layer.weight)
    vectors = factor_vectors(inputs // 2, outputs // 2, ctx.target)
    height = ctx.target.tile_rows(vectors)
    width = vectors * ctx.target.vector
    panels, count = -(-outputs // 2 // width), v.shape[1]
    blocks = max(1, -(-count // BLOCK))
    chunks = min(panels, layer.choice.chunks or max(1, CHUNKS * ctx.threads // blocks))
    extras, tensors = bind_extras(ctx, layer.epilogue, 2, width)
    region, (given, *rest) = ctx.region(layer.origin, [v, *tensors])
    parameters = [p for p in (layer.weight, layer.bias) if p is not None]
    own = [region.add_parameter(p.name, p.recipe) for p in parameters]
    op = StrassenProduct(ctx.shape(layer.result))
    node = region.append(op, [given, *own], origin=layer.origin)
    region.set_outputs([layer.epilogue.append(region, node.output, rest)])
    kernel = Strassen(layer.epilogue.body)
    weight, packing = layer.weight, layer.panels(2, width)
    arguments: dict[str, ArgumentValue] = {
        "v": v,
        "weights": ctx.weights(weight.recipe, packing, ctx.shape(weight), weight.name),
        "bias": bias_of(ctx, layer, 2, width),
        "y": y,
        **extras,
        **_tiles(vectors, height),
        "y_row": row_stride(y) or 0,
        "images": images,
        "rows": rows,
        "pairs": -(-rows // 2),
        "depth": inputs // 2,
        "columns": outputs // 2,
        "panel": width,
        "panels": panels,
        "blocks": blocks,
        "chunks": chunks,
        "prefetch": 1,
    }
    ctx.call(
        kernel,
        blocks * chunks,
        only_declared(kernel, arguments),
        [v, *tensors],
        [y],
        region,
        layer.origin,
        algorithm="strassen",
        scratch=scratch_bytes(inputs // 2, height, width),
        work=2 * images * rows * inputs * outputs,
    )


def _tiles(vectors: int, rows: int) -> dict[str, ArgumentValue]:
    """The tiles by the names that the kernel has for them, and the rows of the tallest."""
    tiles: dict[str, ArgumentValue] = {"tile_rows": rows}
    for kind in KINDS:
        tile = Tile(vectors, PLAIN, raw=True, rows=rows, summed=kind.removesuffix("_"))
        tiles |= {kind + export: Code(tile, export) for export in tile.exports}
    return tiles
