"""How products and windows are cut into tasks, which no result depends on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.program.program import KernelCall
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import LEVELS
from lucid.ir.passes import run_passes

ZEN3 = replace(LEVELS["x86-64-v3"], l2=512 << 10)


def the_call(build: Builder, threads: int, algorithm: str) -> KernelCall:
    fused = run_passes(build.graph)
    program = lower(fused, schedule(fused, ZEN3, 1), ZEN3, 1, threads)
    (call,) = (c for c in program.calls() if c.algorithm == algorithm)
    return call


@pytest.mark.parametrize(("channels", "side"), [(256, 56), (128, 56), (512, 28), (64, 30)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_have_as_many_blocks_of_rows(channels: int, side: int, threads: int) -> None:
    """Of 25 blocks one of two threads would have 13."""
    build = Builder()
    x = build.input(channels, side, side)
    build.graph.set_outputs([build.conv(x, 64, (1, 1))])
    call = the_call(build, threads, "pointwise")
    assert call.arguments["blocks"] == call.tasks
    assert call.tasks % threads == 0
    assert call.tasks >= 4


@pytest.mark.parametrize(("groups", "prefetch"), [(32, 1), (4, 0)])
def test_weights_of_all_groups_are_asked_for_where_l2_does_not_hold_them(
    groups: int, prefetch: int
) -> None:
    """Each group passes its own once: 32 groups of 32 channels have 1.2 MB, four 0.15."""
    build = Builder()
    channels = 32 * groups
    x = build.input(channels, 14, 14)
    options = {"padding": (1,) * 4, "stride": (2, 2), "groups": groups}
    build.graph.set_outputs([build.conv(x, channels, (3, 3), **options)])
    assert the_call(build, 2, "direct").arguments["prefetch"] == prefetch


@pytest.mark.parametrize(("side", "channels", "by_blocks"), [(56, 64, True), (14, 256, False)])
def test_threads_share_blocks_of_tiles_where_maps_outweigh_weights(
    side: int, channels: int, by_blocks: bool
) -> None:
    """And groups where they do not: both of two groups as a split attention has them."""
    build = Builder()
    x = build.input(channels, side, side)
    options = {"padding": (1,) * 4, "groups": 2}
    build.graph.set_outputs([build.conv(x, 2 * channels, (3, 3), **options)])
    given = the_call(build, 2, "winograd4x4").arguments
    blocks, parts = given["blocks"], 2 * given["chunks"]
    strides = (parts, 1) if by_blocks else (1, blocks)
    assert (given["block_stride"], given["chunk_stride"]) == strides
    assert blocks > 1 or not by_blocks
