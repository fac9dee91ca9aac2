"""Memory maps tell the plan as it is, and the picture draws every buffer in its place."""

import xml.etree.ElementTree as ElementTree

import pytest

from lucid import trace
from lucid.codegen.lowering import lower
from lucid.codegen.program.plan import lower_bound
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import LEVELS
from lucid.ir.passes import run_passes
from lucid.models import create_model
from lucid.runtime.memory_map import memory_map, place_rows, summary
from lucid.runtime.memory_picture import HEIGHT, WIDTH, picture

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def program() -> Program:
    graph = run_passes(trace(create_model("resnest_14"), (2, 3, 64, 64)))
    target = LEVELS["x86-64-v3"]
    return lower(graph, schedule(graph, target, 2), target, 2, threads=2)


def test_the_map_is_the_plan(program: Program) -> None:
    memory = memory_map(program, threads=2)
    assert memory.peak == program.arena
    assert memory.bound == lower_bound(program) == max(p.alive for p in memory.phases)
    assert memory.users == 4 * 2 * (3 * 64 * 64 + 1000)
    assert memory.total == memory.peak + memory.weights + 2 * program.scratch
    assert {p.name: p.offset for p in memory.places} == program.offsets
    pool = next(p for p in memory.places if p.origin == "maxpool")
    assert (pool.bytes, pool.first) == (4 * 2 * 64 * 16 * 16, 3)
    assert "layer1.0.conv1" in memory.phases[pool.first + 1].origins
    assert len(place_rows(memory)) == len(program.offsets)
    assert "2 x " in summary(memory)


def test_rectangles_do_not_overlap(program: Program) -> None:
    root = ElementTree.fromstring(picture(memory_map(program)))
    boxes = [
        tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
        if r.find(f"{SVG}title") is not None
    ]
    assert len(boxes) == len(program.offsets)
    for i, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= WIDTH
        assert 0 <= y <= y + h <= HEIGHT
        for x2, y2, w2, h2 in boxes[:i]:  # less than a pixel is how thin ones are made to show
            apart = x + w <= x2 + 0.1 or x2 + w2 <= x + 0.1
            assert apart or y + h <= y2 + 0.6 or y2 + h2 <= y + 0.6


def test_labels_are_escaped(program: Program) -> None:
    renamed = Program("a<b", program.target, 1)
    assert "a&lt;b" in picture(memory_map(renamed))
    assert "nothing to plan" in summary(memory_map(renamed))
