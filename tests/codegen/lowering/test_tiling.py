"""How Winograd's tiles are cut for threads: in blocks of their own where those are large enough."""

from __future__ import annotations

import pytest
from graph_builder import Builder, attention_block
from harness import check

from lucid.codegen.costs import AVX2
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.conv_shape import ConvShape, convolutions
from lucid.codegen.scheduling.schedule import Choice, schedule
from lucid.codegen.target import LEVELS, Target
from lucid.ir import Graph
from lucid.ir.passes import run_passes

TARGET = LEVELS["x86-64-v3"]
LEAST, WHOLE = AVX2.shared_tiles, AVX2.tiles


def layer(side: int, groups: int = 1, channels: int = 32) -> Graph:
    build = Builder()
    x = build.input(channels, side, side)
    y = build.conv(x, channels, (3, 3), padding=(1,) * 4, groups=groups)
    build.graph.set_outputs([y])
    return build.graph


def cut(
    graph: Graph, threads: int, batch: int = 1, chunks: int = 0, target: Target = TARGET
) -> tuple[int, int, int]:
    """Tiles in a block, blocks, and chunks of the columns."""
    choices = schedule(graph, target, batch)
    for node in convolutions(graph):
        if ConvShape.of(node, batch).kernel == (3, 3):
            choices.choices[node.output.name] = Choice("winograd4x4", WHOLE, chunks=chunks)
    program = lower(graph, choices, target, batch, threads)
    (call,) = (c for c in program.calls() if c.algorithm.startswith("winograd"))
    tiles, blocks, parts = (call.arguments[n] for n in ("block_tiles", "blocks", "chunks"))
    return tiles, blocks, parts


@pytest.mark.parametrize(
    ("threads", "expected"),
    [(1, (WHOLE, 1, 1)), (2, (LEAST, 2, 1)), (3, (LEAST, 2, 2)), (4, (LEAST, 2, 2))],
)
def test_threads_have_blocks_of_their_own(threads: int, expected: tuple[int, int, int]) -> None:
    assert cut(layer(28), threads) == expected


@pytest.mark.parametrize(
    ("graph", "given", "expected"),
    [
        (layer(28, groups=2), {}, (WHOLE, 1, 1)),  # a group each
        (layer(28), {"batch": 2}, (WHOLE, 2, 1)),  # an image each
        (layer(14), {}, (16, 1, 2)),  # images together
        (layer(22), {}, (36, 1, 2)),  # too few tiles
        (layer(28), {"chunks": 2}, (WHOLE, 1, 2)),  # as was chosen
    ],
    ids=["groups", "images", "together", "small", "chosen"],
)
def test_other_blocks_stay(graph: Graph, given: dict, expected: tuple[int, int, int]) -> None:
    assert cut(graph, 2, **given) == expected


def test_levels_that_were_not_measured_share_blocks() -> None:
    assert cut(layer(28, channels=128), 2, target=LEVELS["x86-64-v4"]) == (WHOLE, 1, 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_blocks_of_threads_have_the_same_bits(batch: int) -> None:
    check(layer(28), batch, {"*": "winograd4x4"})


def test_channel_sums_are_of_the_same_blocks() -> None:
    """Whatever the number of threads: their sum depends on how they are put together."""
    graph = run_passes(attention_block(1, 1, 32, "", 28))
    assert cut(graph, 1)[:2] == cut(graph, 2)[:2] == (WHOLE, 1)
