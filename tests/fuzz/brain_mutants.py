"""Seeded miscompiles of products of bfloat16."""

from __future__ import annotations

from .mutant import TILES, C, K, L, Mutant

TESTS = "tests/codegen/kernels/test_kernels_brains.py"
"""Where sums are exact: random floats are off by as much as small mistakes."""
BRAINS = [
    Mutant(
        "the last pair of an odd row is not filled",
        f"{K}.brain_rows:Rounded.rows",
        "depth * 2 - f.row_numbers",
        "k.int(0)",
        ("product",),
        TESTS,
    ),
    Mutant(
        "a row of floats lies where the next one's pairs do, as if it were as long",
        f"{K}.brain_rows:Rounded.spare_rows",
        "2 if self.inner",
        "1 if self.inner",
        ("product",),
        TESTS,
    ),
    Mutant(
        "behind an odd map lies what was there before",
        f"{K}.direct:_BrainEmitter._map",
        "k.int(1)",
        "k.int(0)",
        ("direct",),
        TESTS,
    ),
    Mutant(
        "pixels of planes come two by two the other way round",
        f"{K}.brain_rows:round_planes",
        "plane * k.vector + pixel for",
        "plane * k.vector + (pixel ^ 1) for",
        ("direct",),
        TESTS,
    ),
    Mutant(
        "pairs are not told apart from their halves without an instruction",
        "lucid.codegen.language.brains:_numbers",
        "0xFFFF0000",
        "0xFFFFFFFF",
        TILES,
        TESTS,
    ),
    Mutant(
        "a pixel of zeros is as short as pairs are",
        f"{K}.winograd:WinogradEmitter._clear",
        "self.padded * self.arithmetic.numbers_of_element",
        "self.padded",
        ("winograd_bf16",),
        TESTS,
    ),
    Mutant(
        "a channel of V lies where a pair would",
        f"{K}.brain_winograd:_Emitter._point",
        "row.to(I16) + channel",
        "row + channel",
        ("winograd_bf16",),
        TESTS,
    ),
    Mutant(
        "rows that are split by panels are rounded as if they were fewer",
        f"{L}.product:product",
        "block_rows + loader.spare_rows",
        "block_rows - 1",
        tests=TESTS,
    ),
    Mutant(
        "bfloat16 is for every precision",
        f"{C}.scheduling.schedule:allowed_kernels",
        'if precision == "bf16"',
        "if True",
        tests=TESTS,
    ),
]
