"""The Program verifier: each rule broken in turn, and named in the error."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
from strategies import Builder

from lucid.codegen.kernels.packing import Flat, Packed
from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Buffer, Code, KernelCall, Program, View, WeightRef
from lucid.codegen.program.verify import verify_program
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.errors import VerifyError
from lucid.ir.ops import Concat, Relu, Softmax

TARGET = Target.named("x86-64-v3")


def program() -> Program:
    """Two convolutions beside each other in phase 1, joined, and a head."""
    build = Builder(name="two")
    x = build.apply(Relu(), build.input(1, 4, 5), origin="relu")
    a = build.conv(x, 20, (3, 3), origin="a", padding=(1,) * 4)
    b = build.conv(x, 20, origin="b")
    y = build.apply(Concat(2), a, b, origin="concat")
    y = build.apply(Softmax(1), y, origin="softmax")
    build.graph.set_outputs([build.head(y, 7, origin="head"), build.apply(Relu(), y)])
    choices = schedule(build.graph, TARGET, 2, forced={"a": "direct", "b": "pointwise"})
    return lower(build.graph, choices, TARGET, 2)


def change(program: Program, origin: str, edit: Callable[[KernelCall], dict[str, Any]]) -> None:
    """Replace fields of the first call for a layer."""
    for phase in program.phases:
        for i, call in enumerate(phase):
            if call.origin == origin:
                phase[i] = dataclasses.replace(call, **edit(call))
                return
    raise AssertionError(f"no call for {origin}")


def assert_fails(program: Program, *parts: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify_program(program)
    for part in ("program two: ", *parts):
        assert re.search(part, str(caught.value)), str(caught.value)


def moved(view: View, offset: int) -> View:
    return dataclasses.replace(view, offset=view.offset + offset)


def test_a_lowered_program_is_right() -> None:
    verify_program(program())


def test_a_view_beyond_its_buffer() -> None:
    for offset in (1, -1):
        broken = program()
        change(broken, "a", lambda c, o=offset: {"writes": (moved(c.writes[0], o),)})
        assert_fails(broken, "phase 1, direct", "for a: write 0", "not inside its buffer of 800")


def test_a_view_of_no_buffer() -> None:
    broken = program()
    change(broken, "b", lambda c: {"reads": (dataclasses.replace(c.reads[0], buffer="nothing"),)})
    assert_fails(broken, "for b: read 0, nothing", "no such buffer")


def test_a_write_to_an_input() -> None:
    broken = program()
    change(broken, "a", lambda c: {"writes": (dataclasses.replace(c.writes[0], buffer="input0"),)})
    broken.buffers["input0"] = Buffer("input0", "input", 800, "f32")
    assert_fails(broken, "for a: write 0", "the user's input")


def test_a_write_to_a_parameter() -> None:
    broken = program()
    broken.weights["flat"] = Packed(None, Flat(), (800,), "f32")
    change(broken, "a", lambda c: {"writes": (dataclasses.replace(c.writes[0], buffer="flat"),)})
    assert_fails(broken, "for a: write 0", "is a parameter")


def test_a_packed_parameter_as_an_array() -> None:
    broken = program()
    name = next(n for n in broken.weights if n.startswith("a.weight"))
    change(broken, "a", lambda c: {"reads": (dataclasses.replace(c.reads[0], buffer=name),)})
    assert_fails(broken, "for a: read 0", "packed parameter is no array")


def test_a_write_that_folds_onto_itself() -> None:
    broken = program()

    def fold(call: KernelCall) -> dict[str, Any]:
        view = call.writes[0]
        return {"writes": (dataclasses.replace(view, strides=(0, *view.strides[1:])),)}

    change(broken, "a", fold)
    assert_fails(broken, "for a: write 0", "some place twice")


def test_a_read_before_the_write() -> None:
    broken = program()
    broken.phases.pop(0)
    assert_fails(broken, "is read before it is written")


def test_a_read_of_what_is_written_in_part() -> None:
    broken = program()
    broken.phases[2].pop()
    assert_fails(broken, "softmax", "is read before it is written")


def test_a_read_in_the_phase_of_its_write() -> None:
    broken = program()
    broken.phases[1] += broken.phases.pop(2)
    assert_fails(broken, "phase 1", "read before it is written|touches")


def test_two_writes_of_one_place_in_a_phase() -> None:
    broken = program()
    first = broken.phases[1][0]
    broken.phases[1].append(dataclasses.replace(first, origin="again"))
    assert_fails(broken, "for again touches", "while direct", "for a writes")


def test_an_output_that_nobody_writes() -> None:
    broken = program()
    broken.phases[-1] = [c for c in broken.phases[-1] if c.writes[0].buffer != "output1"]
    for phase in broken.phases:
        phase[:] = [c for c in phase if c.writes[0].buffer != "output1"]
    assert_fails(broken, "output, output1", "read before it is written")


def test_tasks_and_writes_agree() -> None:
    for tasks in (0, -1):
        broken = program()
        change(broken, "a", lambda c, t=tasks: {"tasks": t})
        assert_fails(broken, "for a: ", f"{tasks} tasks")


def test_reads_and_writes_are_those_of_the_region() -> None:
    broken = program()
    change(broken, "b", lambda c: {"reads": (*c.reads, *c.reads)})
    assert_fails(broken, "for b: reads", "its region")
    broken = program()
    change(broken, "b", lambda c: {"writes": ()})
    assert_fails(broken, "for b: ")


def with_argument(name: str, value: Any) -> Callable[[KernelCall], dict[str, Any]]:
    return lambda call: {"arguments": call.arguments | {name: value}}


def test_arguments_are_those_declared() -> None:
    broken = program()
    change(broken, "b", with_argument("more", 1))
    assert_fails(broken, "for b: ", r"missing arguments \[\], undeclared ones \['more'\]")
    broken = program()

    def without(call: KernelCall) -> dict[str, Any]:
        return {"arguments": {n: v for n, v in call.arguments.items() if n != "rows"}}

    change(broken, "b", without)
    assert_fails(broken, "for b: ", r"missing arguments \['rows'\]")


def test_arguments_are_of_their_kinds() -> None:
    for name, value, problem in [
        ("rows", 1.5, "rows is no int"),
        ("y", 0, "y is no buffer"),
        ("tallest", 0, "tallest is no code"),
        ("weights", WeightRef("nothing"), "no parameter is named nothing"),
        ("y", View("input0", "f32", (1,), (1,), 400), "argument y, .* is not inside"),
        ("y", View("conv2d", "f32", (1,), (1,)), "neither read nor written"),
    ]:
        broken = program()
        change(broken, "b", with_argument(name, value))
        assert_fails(broken, "for b: ", problem)
    broken = program()
    tile = next(v for c in broken.calls() for v in c.arguments.values() if isinstance(v, Code))
    change(broken, "b", with_argument("tallest", dataclasses.replace(tile, export="taller")))
    assert_fails(broken, "for b: ", "exports no taller")


def test_every_buffer_has_an_aligned_place_in_the_arena() -> None:
    for offset, problem in [(None, "has no place"), (8, "not aligned"), (1 << 20, "in the arena")]:
        broken = program()
        name = broken.phases[0][0].writes[0].buffer
        if offset is None:
            del broken.offsets[name]
        else:
            broken.offsets[name] = offset
        assert_fails(broken, "the memory plan: ", name, problem)


def test_buffers_that_live_together_are_apart() -> None:
    broken = program()
    one, other = (c.writes[0].buffer for c in broken.phases[1])
    broken.offsets[one] = broken.offsets[other]
    assert_fails(broken, "the memory plan: ", f"{one} and {other}|{other} and {one}", "phase 1")
