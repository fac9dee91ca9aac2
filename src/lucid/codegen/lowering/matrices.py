"""What a product asks of its rows and panels, by the microkernel that multiplies them: a register
tile, or on targets with tiles of matrices, for bfloat16, one of these."""

from __future__ import annotations

from dataclasses import dataclass

from lucid.codegen.kernels.matrix_tile import MatrixTile, blocks_of
from lucid.codegen.kernels.microkernels import Tile
from lucid.codegen.kernels.packing import BlockPanels, Packing, PartPanels
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.target import Target


@dataclass(frozen=True)
class Form:
    """The microkernel, how panels are packed for it, the elements of a row, and how many rows after
    the last it reads."""

    tile: Tile | MatrixTile
    packing: Packing
    steps: int
    rows_beyond: int = 0


def by_matrices(target: Target, layer: Layer) -> bool:
    """Whether tiles of matrices multiply the layer's rows."""
    return target.tiles and layer.numbers == "bf16"


def form_of(layer: Layer, target: Target, groups: int, vectors: int, depth: int) -> Form:
    """Of rows of so many numbers by panels of so many vectors, as wide as `target` has them."""
    body, width = layer.epilogue.body, vectors * target.vector
    elements = -(-depth // layer.arithmetic.numbers_of_element)
    if not by_matrices(target, layer):
        rows = layer.arithmetic.tile_rows(target, vectors)
        tile = Tile(vectors, body, numbers=layer.numbers, rows=rows, half=target.is_half)
        return Form(tile, layer.panels(groups, width), elements)
    packing = (PartPanels if layer.parts > 1 else BlockPanels)(groups, width)
    matrix = MatrixTile(vectors, body, layer.parts)
    return Form(matrix, packing, layer.parts * blocks_of(elements), MatrixTile.rows - 1)
