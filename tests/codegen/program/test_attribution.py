"""Every kernel call belongs to a node, and parts of programs hold just their own calls."""

import json

import pytest

from lucid import models
from lucid.codegen.lowering import lower
from lucid.codegen.program.attribution import calls_by_node, doers, part_of
from lucid.codegen.program.json_form import program_json
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.frontend.trace import trace
from lucid.ir.passes import run_passes

TARGET = Target.named("x86-64-v4")


@pytest.fixture(scope="module", params=[1, 2])
def lowered(request):
    graph = run_passes(trace(models.resnest_14(), (1, 3, 64, 64)))
    return lower(graph, schedule(graph, TARGET, 1), TARGET, 1, request.param), graph


def test_every_call_belongs_to_one_node(lowered):
    program, graph = lowered
    found = calls_by_node(program, graph)
    calls = [call for placed in found.values() for _, call in placed]
    assert len(calls) == len(list(program.calls())) == len(set(map(id, calls)))
    for node, placed in found.items():
        assert all(c.origin.startswith(node.origin) or c.origin == "output" for _, c in placed)
        assert all(call in program.phases[number] for number, call in placed)


def test_split_attention_has_its_two_layers(lowered):
    program, graph = lowered
    found = calls_by_node(program, graph)
    (node,) = [n for n in graph.nodes if n.origin == "layer1.0.conv2"]
    assert [c.origin for _, c in found[node]] == ["layer1.0.conv2.fc1", "layer1.0.conv2.fc2"]


def test_what_has_no_call_is_done_by_its_readers(lowered):
    program, graph = lowered
    found = calls_by_node(program, graph)
    idle = [n for n in graph.nodes if n not in found]
    assert {n.op.name for n in idle} >= {"avg_pool2d", "reshape"}
    for node in idle:
        assert all(reader in found for reader in doers(node, found))
        assert doers(node, found)


def test_a_part_keeps_phases_and_places(lowered):
    program, graph = lowered
    part = part_of(program, graph, "layer2.0")
    assert 0 < len(list(part.calls())) < len(list(program.calls()))
    for number, phase in enumerate(part.phases):
        assert all(call in program.phases[number] for call in phase)
    assert all(program.offsets[name] == place for name, place in part.offsets.items())
    assert set(part.weights) < set(program.weights)
    assert "phase 0 " not in str(part)
    assert part_of(program, graph, "layer9") is None


def test_json(lowered):
    program, _ = lowered
    data = json.loads(json.dumps(program_json(program)))
    assert len(data["calls"]) == len(list(program.calls()))
    assert data["buffers"][0]["kind"] == "input"
    assert data["calls"][0]["arguments"]["x"]["buffer"] == "input0"
