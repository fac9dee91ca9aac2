"""Products over vectors half as wide as the level's, as processors have them that do whole ones in
halves: integers, whose sums are exact, bitwise the same with one thread and two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import ZEN4, Run, set_apart
from strategies import Builder
from test_kernels_bf16 import filled

from lucid.codegen.kernels.microkernels import Tile, WindowTile, tile_target
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.kernel_names import BF16_SUFFIX
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import LEVELS
from lucid.ir import Graph, interpret
from lucid.ir.ops import Add, Relu
from lucid.ir.passes import run_passes

TARGET = replace(LEVELS["x86-64-v4"].on_half_units(), l2=1 << 20)
"""Without instructions for bfloat16, so that more machines run it."""
HERE = pytest.mark.skipif(not TARGET.runs_here(), reason="this processor has no vectors of AVX-512")


@pytest.mark.parametrize(
    ("columns", "numbers", "halves"),
    [
        (24, "f32", True),
        (24, "bf16", True),
        (24, "i16", False),
        (8, "f32", True),
        (72, "f32", True),
        (16, "f32", False),
        (30, "f32", False),
        (1000, "f32", False),
    ],
)
def test_which_tiles_have_half_vectors(columns: int, numbers: str, halves: bool) -> None:
    """Those over columns that leave much of the last whole one empty."""
    for target in (TARGET, ZEN4):
        assert tile_target(columns, target, numbers).is_half == halves
    for target in LEVELS.values():
        assert not tile_target(columns, target, numbers).is_half


def groups_of(columns: int, size: int) -> Graph:
    """Three groups of so many columns, of 24 numbers each, with a bias and a residual."""
    build = Builder()
    x, other = build.input(72, 9, 7), build.input(3 * columns, 9, 7)
    padding = (size // 2,) * 4
    y = build.conv(x, 3 * columns, (size, size), True, "layer", groups=3, padding=padding)
    build.graph.set_outputs([build.apply(Relu(), build.apply(Add(), y, other))])
    return build.graph


@HERE
@pytest.mark.parametrize("numbers", ["", BF16_SUFFIX])
@pytest.mark.parametrize("kernel", ["pointwise", "direct"])
@pytest.mark.parametrize("columns", [24, 8, 37])
def test_groups(columns: int, kernel: str, numbers: str) -> None:
    graph = groups_of(columns, 1 if kernel == "pointwise" else 3)
    inputs = filled(graph, 2, columns)
    (wanted,) = interpret(graph, inputs, dtype=np.float64)
    fused = run_passes(graph)
    choices = schedule(fused, TARGET, 2, "fast", {"layer": kernel + numbers})
    for threads in (1, 2):
        program = lower(fused, choices, TARGET, 2, threads)
        tiles = [k for k in program.kernels() if isinstance(k, Tile | WindowTile)]
        assert tiles
        assert all(tile.half for tile in tiles)
        set_apart(program)
        (found,) = Run(program, TARGET, threads, skew=12).outputs(graph.payload, inputs)
        np.testing.assert_array_equal(found, wanted)
