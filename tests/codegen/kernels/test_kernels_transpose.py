"""Copies that exchange dimensions, square by square, against the interpreter."""

from __future__ import annotations

import pytest
from harness import TARGETS, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import Schedule
from lucid.ir import BATCH, f32
from lucid.ir.ops import Permute, Relu, Reshape, Slice

SIZES = [1, 2, 8, 15, 16, 17, 40, 63, 64, 65, 130]


@examples(0.5)
@given(st.data())
def test_flattened_maps(data: st.DataObject) -> None:
    """Channels last to planar, as before a linear layer, of whole maps and of some channels."""
    build, draw = Builder(), data.draw
    channels, height, width = (draw(st.sampled_from(SIZES)) for _ in range(3))
    x = build.apply(Relu(), build.conv(build.input(3, height, min(width, 20)), channels))
    if draw(st.booleans()) and channels > 2:
        x = build.apply(Slice(1, 1, channels), x)
    build.graph.set_outputs([x])
    check(build.graph, draw(st.sampled_from([0, 1, 3])))


@examples(0.5)
@given(st.data())
def test_permuted_arrays(data: st.DataObject) -> None:
    build, draw = Builder(), data.draw
    shape = tuple(draw(st.sampled_from([1, 2, 8, 17, 33])) for _ in range(draw(st.integers(2, 4))))
    x = build.graph.add_input(f32(BATCH, *shape))
    order = (0, *draw(st.permutations(range(1, len(shape) + 1))))
    y = build.apply(Permute(order), x)
    size = 1
    for d in shape:
        size *= d
    build.graph.set_outputs([build.apply(Reshape((BATCH, size)), y)])
    check(build.graph, draw(st.sampled_from([0, 1, 3])))


@pytest.mark.parametrize("channels", [3, 64])
def test_which_copies_are_turned(channels: int) -> None:
    """Two long dimensions; few channels are laid side by side by a kernel of their own."""
    build = Builder()
    x = build.apply(Permute((0, 2, 3, 1)), build.input(channels, 9, 10))
    build.graph.set_outputs([build.apply(Reshape((BATCH, 90 * channels)), x)])
    program = lower(build.graph, Schedule({}), TARGETS[0], 2)
    families = {c.kernel.family for c in program.calls() if c.origin != "output"}
    assert families == {"transpose" if channels > 3 else "interleave"}
