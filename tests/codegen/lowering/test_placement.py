"""Concatenations whose operands are written side by side, against the interpreter."""

from __future__ import annotations

import pytest
from harness import check
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.ir import Graph, Value
from lucid.ir.ops import Add, Concat, MaxPool2d, Relu, Sigmoid, Slice
from lucid.ir.passes import run_passes


def conv(build: Builder, x: Value, channels: int, size: int = 3, **options: object) -> Value:
    return build.conv(x, channels, (size, size), padding=(size // 2,) * 4, **options)


def program(graph: Graph) -> Program:
    target = Target.host()
    fused = run_passes(graph)
    return lower(fused, schedule(fused, target, 1), target, 1, 2)


def copies(graph: Graph) -> int:
    """Calls that only move a value about in the arena."""
    lowered = program(graph)
    kinds = {b.name: b.kind for b in lowered.buffers.values()}
    return sum(
        call.kernel.family == "elementwise"
        and {kinds[v.buffer] for v in (*call.reads, *call.writes)} == {"arena"}
        for call in lowered.calls()
    )


def test_branches_write_their_slices() -> None:
    build = Builder()
    x = build.input(12, 9, 7)
    branches = [
        build.apply(Relu(), conv(build, x, 10, 1)),
        conv(build, conv(build, x, 6, 1), 17),
        conv(build, x, 12, 3, groups=12),
        build.apply(MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)), x),
    ]
    build.graph.set_outputs([conv(build, build.apply(Concat(1), *branches), 9, 1)])
    assert copies(build.graph) == 0
    check(build.graph, 3)


def test_a_dense_block_has_one_buffer() -> None:
    """Each layer reads all before it and writes beside them."""
    build = Builder()
    features = [conv(build, build.input(8, 6, 6), 10, 1)]
    for _ in range(3):
        joined = build.apply(Concat(1), *features) if len(features) > 1 else features[0]
        features.append(conv(build, build.apply(Relu(), conv(build, joined, 12, 1)), 5))
    last = build.apply(Concat(1), *features)
    build.graph.set_outputs([conv(build, last, 4, 1)])
    assert copies(build.graph) == 0
    wide = [b for b in program(build.graph).buffers.values() if b.elements == 36 * 25]
    assert len(wide) == 1
    check(build.graph, 2)


@pytest.mark.parametrize("kernel", ["winograd2x2", "direct", "depthwise"])
def test_a_residual_layer_in_a_slice(kernel: str) -> None:
    """The result and what is added to it lie differently."""
    build = Builder()
    x = conv(build, build.input(5, 7, 8), 24, 1)
    groups = 24 if kernel == "depthwise" else 1
    y = conv(build, x, 24, 3, groups=groups, origin="layer")
    y = build.apply(Relu(), build.apply(Add(), y, x))
    joined = build.apply(Concat(1), conv(build, x, 9, 1), y, conv(build, x, 3, 1))
    build.graph.set_outputs([conv(build, joined, 8, 1), build.apply(Sigmoid(), y)])
    check(build.graph, 2, {"layer": kernel})


def test_what_cannot_be_placed_is_copied() -> None:
    """Inputs, slices of other values, values joined twice, and a join that is returned."""
    build = Builder()
    x = build.input(6, 5, 4)
    y = conv(build, x, 8, 1)
    half = build.apply(Slice(1, 2, 6), y)
    inner = build.apply(Concat(1), y, half)
    outer = build.apply(Concat(1), inner, x, y, half)
    build.graph.set_outputs([outer, build.apply(Relu(), inner), y])
    check(build.graph, 3)


def test_joins_of_joins_share_a_buffer() -> None:
    build = Builder()
    x = build.input(6, 5, 4)
    inner = build.apply(Concat(1), conv(build, x, 7, 1), conv(build, x, 9, 3))
    outer = build.apply(Concat(1), conv(build, x, 4, 1), inner, conv(build, inner, 5, 1))
    build.graph.set_outputs([conv(build, outer, 8, 3)])
    assert copies(build.graph) == 0
    check(build.graph, 1)


def test_what_two_joins_share_is_copied_once() -> None:
    """A slice of the input, which lies elsewhere, at the beginning of one concatenation and of a
    longer one of the same values: found by fuzzing."""
    build = Builder()
    x = build.input(20, 6, 7)
    part = build.apply(Slice(1, 0, 10), x)
    other = build.apply(Sigmoid(), build.apply(Slice(1, 10, 20), x))
    y = conv(build, build.apply(Relu(), build.apply(Concat(1), part, other)), 3, 1)
    build.graph.set_outputs([conv(build, build.apply(Concat(1), part, other, y), 3)])
    check(build.graph)
