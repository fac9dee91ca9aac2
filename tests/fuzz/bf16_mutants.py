"""Seeded miscompiles of products of bfloat16."""

from __future__ import annotations

from .mutant import TILES, C, K, L, Mutant

TESTS = "tests/codegen/kernels/test_kernels_bf16.py"
"""Where sums are exact: random floats are off by as much as small mistakes."""
BF16 = [
    Mutant(
        "the last pair of an odd row is not filled",
        f"{K}.bf16_rows:Rounded.write",
        "depth * 2 - count",
        "k.int(0)",
        ("product",),
        TESTS,
    ),
    Mutant(
        "behind an odd map lies what was there before",
        f"{K}.direct:_Bf16Emitter._end",
        "kernel.int(1)",
        "kernel.int(0)",
        ("direct",),
        TESTS,
    ),
    Mutant(
        "pixels of planes come two by two the other way round",
        f"{K}.bf16_rows:round_planes",
        "plane * k.vector + pixel for",
        "plane * k.vector + (pixel ^ 1) for",
        ("direct",),
        TESTS,
    ),
    Mutant(
        "pairs are not told apart from their halves without an instruction",
        "lucid.codegen.language.bf16:_numbers",
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
        f"{K}.bf16_winograd:_Emitter._point",
        "row.to(I16) + channel",
        "row + channel",
        ("winograd_bf16",),
        TESTS,
    ),
    Mutant(
        "rows that are split by panels are rounded as if they were fewer",
        f"{L}.product:product",
        "block_rows + max(loader.spare_rows, form.rows_beyond)",
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
