"""Seeded miscompiles of products by tiles of matrices, of floats as sums of parts, and over half
vectors. The first two are found where AMX runs or can be emulated."""

from __future__ import annotations

from .mutant import TILES, C, K, L, Mutant

FOLDER = "tests/codegen/kernels"
SUMS = f"{FOLDER}/test_kernels_matrix_tile.py"
"""The tile by itself, against bounds that are tighter than those of whole layers."""
LAYERS = f"{FOLDER}/test_kernels_matrix_products.py"
HALVES = f"{FOLDER}/test_kernels_half_vectors.py"
"""Where every tile has half vectors; the fuzzer has them on processors with such units alone."""

MATRICES = [
    Mutant(
        "rows for matrix tiles end with their numbers, not with a block",
        f"{L}.matrices:form_of",
        "layer.parts * blocks_of(elements)",
        "layer.parts * elements",
        tests=f"{LAYERS}::test_linear_layers",
    ),
]

OF_PARTS = [
    Mutant(
        "of the products of parts the smallest are left out",
        f"{K}.matrix_tile:_PartsEmitter._sums_put_by",
        "lead + (first + second)",
        "lead + first",
        ("matrix_tile",),
        SUMS,
    ),
    Mutant(
        "an infinity meets its own second part",
        f"{K}.matrix_tile:_PartsEmitter._sums_put_by",
        "k.pick(finite, lead + (first + second), lead)",
        "lead + (first + second)",
        ("matrix_tile",),
        SUMS,
    ),
    Mutant(
        "sums of small products go on from those of other vectors",
        f"{K}.matrix_tile:_PartsEmitter._add_vectors",
        "for other in others:",
        "for other in others[:1]:",
        ("matrix_tile",),
        SUMS,
    ),
    Mutant(
        "what lies behind a row is taken apart too",
        f"{K}.bf16_rows:Parted.write",
        ", mask=k.first_lanes(count - number)",
        "",
        ("product",),
        f"{LAYERS}::test_linear_layers",
    ),
    Mutant(
        "floats are multiplied by parts where there are no tiles",
        f"{C}.scheduling.schedule:Choice.on",
        "if target.tiles or",
        "if True or",
        tests=LAYERS,
    ),
]

IN_HALVES = [
    Mutant(
        "tiles of half vectors have whole ones",
        f"{K}.microkernels:Tile.emit",
        "target.halved() if self.half else target",
        "target",
        TILES,
        HALVES,
    ),
    Mutant(
        "windows of half vectors meet panels of whole ones",
        f"{L}.direct:direct",
        "panel = vectors * target.vector",
        "panel = vectors * ctx.target.vector",
        tests=HALVES,
    ),
]

VECTORS = [*MATRICES, *OF_PARTS, *IN_HALVES]
