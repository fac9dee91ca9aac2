"""The harness itself: stray accesses and wrong plans do show."""

import dataclasses

import numpy as np
import pytest
from harness import Guarded, Run, assert_near, set_apart
from strategies import Builder, random_inputs

from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.ir import Graph, interpret
from lucid.ir.ops import Relu


def two_layers(batch: int = 2) -> tuple[Graph, Program]:
    build = Builder()
    x = build.input(10, 4, 5)
    y = build.apply(Relu(), build.conv(x, 20, (3, 3), origin="a"))
    build.graph.set_outputs([build.head(build.conv(y, 24, origin="b"), 7)])
    choices = schedule(build.graph, Target.host(), batch)
    return build.graph, lower(build.graph, choices, Target.host(), batch)


def run(graph: Graph, program: Program) -> float:
    inputs = random_inputs(graph, program.batch)
    (value,) = Run(program, Target.host()).outputs(graph.payload, inputs)
    (wanted,) = interpret(graph, inputs, dtype=np.float64)
    assert_near(value, wanted, 1e-6)
    return float(np.abs(value - wanted).max())


def change(program: Program, origin: str, **arguments: int) -> None:
    """Set some arguments of the call for a layer."""
    for phase in program.phases:
        for i, call in enumerate(phase):
            if call.origin == origin:
                phase[i] = dataclasses.replace(call, arguments=call.arguments | arguments)


def test_a_right_program_passes() -> None:
    assert run(*two_layers()) < 1e-6


def test_a_write_beside_its_buffer_shows() -> None:
    graph, program = two_layers()
    set_apart(program)
    change(program, "b", rows=2 * 6 + 1)
    with pytest.raises(AssertionError, match=r"beside it|between"):
        run(graph, program)


def test_a_read_of_what_nobody_wrote_shows() -> None:
    graph, program = two_layers()
    program.phases.pop(0)
    program.threads.pop(0)
    with pytest.raises(AssertionError, match="unwritten"):
        run(graph, program)


def test_overlapping_buffers_show() -> None:
    graph, program = two_layers(batch=40)  # more than a kernel reads before it writes
    program.offsets = dict.fromkeys(program.offsets, 0)
    with pytest.raises(AssertionError):
        run(graph, program)


def test_guards_lie_on_both_sides() -> None:
    block = Guarded(20, skew=12)
    block.assert_intact("it")
    block.bytes[:] = 0
    block.assert_intact("it")
    for place in (block.start - 1, block.start + 20):
        before = int(block._block[place])
        block._block[place] = 0
        with pytest.raises(AssertionError, match="it: 1 bytes"):
            block.assert_intact("it")
        block._block[place] = before
    assert block.address % 64 == 12
