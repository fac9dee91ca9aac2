"""Schedules, programs and the Program interpreter, on the models of the golden data."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from data import golden
from harness import TARGETS, assert_near, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs, random_inputs

from lucid import trace
from lucid.codegen.kernels.microkernels import panel_vectors
from lucid.codegen.lowering import lower
from lucid.codegen.program.interpret import ProgramInterpreter
from lucid.codegen.program.json_form import program_json
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.conv_shape import convolutions
from lucid.codegen.scheduling.kernel_names import KERNELS
from lucid.codegen.scheduling.schedule import Choice, Schedule, schedule
from lucid.codegen.target import LEVELS, Target
from lucid.errors import ParseError, UnknownNameError
from lucid.ir import Graph, interpret
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph
from lucid.models import create_model

HOST = TARGETS[-1]
MODELS = sorted({case.model for case in golden.cases()})
QUICK = ("resnest_14", "resnest_50_4s2x40d", "resnest_50_fast_2s2x40d", "resnet_18")


DEEP = ("resnest_101", "resnest_200", "resnest_269", "resnet_101", "resnet_152")
"""Models whose stages repeat their second block: two blocks have every kind of layer."""


@functools.lru_cache(maxsize=len(MODELS))
def fused(name: str, seed: int | None = None, side: int = 64, batch: int = 1) -> Graph:
    """The optimised graph of a model, with golden weights where a seed is given. Deep ones are cut:
    `test_golden_compiled.py` runs them whole."""
    model = create_model(name, layers=[2, 2, 2, 2]) if name in DEEP else create_model(name)
    if seed is not None:
        shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
        model.load_state_dict(golden.weights(shapes, seed))
    return run_passes(trace(model, (batch, 3, side, side)))


def program(graph: Graph, batch: int = 1, threads: int = 2, target: Target = HOST) -> Program:
    return lower(graph, schedule(graph, target, batch), target, batch, threads)


# -- schedules ------------------------------------------------------------------------------------

schedules = st.builds(
    Schedule,
    st.dictionaries(
        st.text(), st.builds(Choice, st.sampled_from(KERNELS), st.integers(0, 99)), max_size=9
    ),
)


@given(schedules)
def test_schedules_survive_json(choices: Schedule) -> None:
    assert Schedule.from_json(choices.to_json()) == choices


@pytest.mark.parametrize("name", MODELS)
def test_the_schedules_of_models_survive_json(name: str) -> None:
    graph = fused(name)
    for target in LEVELS.values():
        choices = schedule(graph, target, 1)
        assert Schedule.from_json(choices.to_json()) == choices
        assert len(choices.choices) == len(convolutions(graph))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"y": 7}',
        '{"y": []}',
        '{"y": {}}',
        '{"y": {"tiles": 4}}',
        '{"y": {"kernel": "magic"}}',
        '{"y": {"kernel": ["direct"]}}',
        '{"y": {"kernel": "direct", "speed": 9}}',
        '{"y": {"kernel": "winograd4x4", "tiles": "many"}}',
        '{"y": {"kernel": "winograd4x4", "tiles": -1}}',
    ],
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ParseError):
        Schedule.from_json(text)


def test_forcing_kernels_by_patterns() -> None:
    graph = fused("resnest_14")
    forced = {"layer1.*.conv2.conv": "winograd2x2", "layer*.conv2.conv": "direct"}
    choices = schedule(graph, HOST, 1, "fast", forced)
    by_origin = {n.origin: choices.choices[n.output.name].kernel for n in convolutions(graph)}
    conv2 = {o: k for o, k in by_origin.items() if o.endswith("conv2.conv")}
    assert conv2.pop("layer1.0.conv2.conv") == "winograd2x2", "the first pattern wins"
    assert set(conv2.values()) == {"direct"}
    free = schedule(graph, HOST, 1).choices
    others = [n for n in convolutions(graph) if not n.origin.endswith("conv2.conv")]
    assert all(choices.choices[n.output.name] == free[n.output.name] for n in others)


def test_forcing_a_kernel_that_cannot() -> None:
    graph = fused("resnest_14")
    with pytest.raises(UnknownNameError, match=r"'magic'.*pointwise, direct, winograd2x2"):
        schedule(graph, HOST, 1, "fast", {"layer1.*": "magic"})
    with pytest.raises(UnknownNameError, match=r"cannot compute layer1\.0\.conv1.*pointwise, dir"):
        schedule(graph, HOST, 1, "fast", {"layer1.0.conv1": "winograd4x4"})


def test_a_schedule_that_does_not_fit() -> None:
    """A schedule from elsewhere is refused, where its kernels would read what is not there."""
    graph = fused("resnest_14")
    right = schedule(graph, HOST, 1).choices
    by_origin = {n.origin: n.output.name for n in convolutions(graph)}
    for origin, choice, problem in [
        ("layer1.0.conv1", None, r"nothing for .*layer1\.0\.conv1"),
        ("layer1.0.conv1", Choice("winograd4x4", 16), r"cannot compute .*layer1\.0\.conv1"),
        ("layer1.0.conv2.conv", Choice("winograd2x2"), "gives no tiles"),
    ]:
        choices = {n: c for n, c in right.items() if n != by_origin[origin]}
        if choice is not None:
            choices[by_origin[origin]] = choice
        with pytest.raises(UnknownNameError, match=problem):
            lower(graph, Schedule(choices), HOST, 1)


def test_strict_precision_has_no_large_tiles() -> None:
    graph = fused("resnest_50", side=224)
    for precision, wanted in [("fast", True), ("strict", False)]:
        choices = schedule(graph, HOST, 1, precision).choices.values()
        assert ("winograd4x4" in {c.kernel for c in choices}) == wanted


# -- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("name", MODELS)
def test_residual_networks_are_never_copied(name: str, target: Target) -> None:
    """No buffer is laid out anew: everything is channels last from the stem's result on."""
    lowered = program(fused(name), 2, target=target)
    assert not [c.origin for c in lowered.calls() if c.algorithm == "strided"]


def test_the_text_of_a_program() -> None:
    lowered = program(fused("resnest_14"))
    text = str(lowered)
    assert text.startswith(f"program {lowered.name} target={HOST.name} batch=1 {{\n")
    assert text.count("  phase ") == len(lowered.phases)
    for buffer in lowered.buffers.values():
        place = f" at {lowered.offsets[buffer.name]}" if buffer.kind == "arena" else ""
        assert f" {buffer.name}: {buffer.elements} {buffer.dtype}{place}\n" in text
    for call in lowered.calls():
        assert f'{call.kernel} "{call.origin}" tasks={call.tasks}\n' in text
    for name in lowered.weights:
        assert f"  weights {name}: " in text


def test_inputs_and_outputs_go_by_the_graph_s_names() -> None:
    """In its order; a value that is returned twice has another name the second time."""
    graph = parse_graph(
        "graph two(%left: f32[N,3], %levels: u8[N,2]) -> f32[N,3], u8[N,2], f32[N,3] {"
        " %sum = add(%left, %left): f32[N,3]  return %sum, %levels, %sum }"
    )
    made = lower(graph, Schedule({}), HOST, 5)
    shapes = {name: (v.dtype, v.shape) for name, v in (made.inputs | made.outputs).items()}
    sums, levels = ("f32", (5, 3)), ("u8", (5, 2))
    assert list(made.inputs) == ["left", "levels"]
    assert list(made.outputs) == ["sum", "levels", "sum'"]
    assert shapes == {"left": sums, "levels": levels, "sum": sums, "sum'": sums}
    text, data = str(made), program_json(made)
    assert "  input %levels = input1: 10 u8\n" in text
    assert "  output %sum' = output2: 15 f32\n" in text
    assert data["format"] == 2
    assert data["outputs"]["sum'"] == {
        "buffer": "output2",
        "dtype": "f32",
        "offset": 0,
        "shape": [5, 3],
        "strides": [3, 1],
    }


def test_the_work_of_a_program() -> None:
    """What ResNeSt-50 needs directly: 5.4 billion multiply-adds (resnest.md), pools apart."""
    lowered = program(fused("resnest_50", side=224))
    assert sum(call.work for call in lowered.calls()) == pytest.approx(2 * 5.4e9, rel=0.02)


def test_the_same_kernels_serve_every_size() -> None:
    """Other batches and image sizes call nothing that the first does not load."""
    first = program(fused("resnest_50", side=224))
    known = {*first.kernels(), *first.may_need}
    choices = schedule(fused("resnest_50", side=224), HOST, 1)
    for side, batch in [(224, 2), (224, 16), (65, 1), (320, 3)]:
        other = lower(fused("resnest_50", side=side), choices, HOST, batch, 2)
        assert set(other.kernels()) <= known


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("l2", [256 << 10, 2 << 20])
def test_resnest_101_needs_the_kernels_of_resnest_50_and_a_tile_for_its_wider_stem(
    target: Target, l2: int
) -> None:
    """The stem has 64 columns for 32: another tile where its panel is wider for them."""
    target = dataclasses.replace(target, l2=l2)
    fewer, more = (program(fused(f"resnest_{n}"), target=target) for n in (50, 101))
    added = {*more.kernels()} - {*fewer.kernels(), *fewer.may_need}
    before, after = (panel_vectors(columns, target) for columns in (32, 64))
    assert len(added) == (before != after)
    assert all((k.family, k.vectors) == ("window_tile", after) for k in added)


# -- the interpreter ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in MODELS]
)
def test_programs_interpret_to_the_right_result(name: str) -> None:
    """With buffers apart and on the planned arena, in the order of phases: schedule, lowering and
    plan are right, whatever the emitted code does."""
    graph = fused.__wrapped__(name, seed=1)  # large: not to be kept
    image = golden.image(1, 64, 64, 1)
    (wanted,) = interpret(graph, [image], dtype=np.float64)
    lowered = program(graph)
    weights: dict[str, np.ndarray] = {}
    for planned in (False, True):
        interpreter = ProgramInterpreter(lowered, graph.payload, planned)
        interpreter.buffers.update(weights)  # evaluated once: they are most of the work
        (value,) = interpreter.run([image])
        assert_near(value, wanted, 1e-5, f"planned: {planned}")
        weights = {
            name: interpreter.buffers[name] for name in lowered.weights.keys() & interpreter.buffers
        }


def test_the_interpreter_in_float64() -> None:
    graph = fused("resnest_14", seed=0)
    image = golden.image(2, 64, 64, 0)
    (wanted,) = interpret(graph, [image], dtype=np.float64)
    (value,) = ProgramInterpreter(program(graph, 2), graph.payload, dtype=np.float64).run([image])
    assert_near(value, wanted, 1e-12)


def test_the_interpreter_shows_each_call() -> None:
    graph = fused("resnest_14", seed=0)
    lowered, seen = program(graph), []
    interpreter = ProgramInterpreter(lowered, graph.payload)
    interpreter.run([golden.image(1, 64, 64)], lambda call, arrays: seen.append((call, arrays)))
    assert [call for call, _ in seen] == list(lowered.calls())
    for call, arrays in seen:
        assert [a.size for a in arrays] == [int(np.prod(v.shape)) for v in call.writes]


@examples(1.0)
@given(graphs(), st.integers(1, 3))
def test_generated_graphs_interpret_alike(graph: Graph, batch: int) -> None:
    inputs = random_inputs(graph, batch)
    wanted = interpret(graph, inputs, dtype=np.float64)
    after = run_passes(graph)
    interpreter = ProgramInterpreter(program(after, batch), graph.payload, dtype=np.float64)
    for value, exact in zip(interpreter.run(inputs), wanted, strict=True):
        assert_near(value, exact, 1e-9)
