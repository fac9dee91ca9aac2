"""Ops without a kernel: they run on the host, between native calls, and nobody overlooks them."""

import warnings
from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid.codegen.language import vector_math
from lucid.codegen.lowering import HostNode, Region, partition
from lucid.codegen.lowering.context import LOWERINGS
from lucid.codegen.program.interpret import ProgramInterpreter
from lucid.codegen.target import Target
from lucid.errors import (
    CompileError,
    HostOpsWarning,
    InputError,
    UnknownNameError,
    UnsupportedError,
)
from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.ops import Add, Gather, Softmax
from lucid.ir.passes import run_passes
from lucid.ir.samples import sample_inputs, sample_payload
from lucid.ir.text import parse_graph
from lucid.runtime import library
from lucid.runtime.check import Case, Settings, bisect, check
from lucid.runtime.planner import MAX_BATCH
from lucid.runtime.tune import Tuner

CHAIN = """chain(%x: f32[N,3,6,6], %s: f32[4], %k: i64[4])
    -> f32[N,4], f32[N,4,6,6], f32[4], f32[4] {
  param @w: f32[4,3,3,3]
  param @b: f32[4]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,4,6,6] at "conv"
  %p = softmax(%c) {axis=1} : f32[N,4,6,6] at "first"
  %t = gather(@b, %k) {axis=0} : f32[4] at "table"
  %m = mean(%p) {axes=(2,3)} : f32[N,4] at "pool"
  %q = softmax(%m) {axis=1} : f32[N,4] at "second"
  %a = add(%q, %t) : f32[N,4] at "bias"
  %y = add(%a, %s) : f32[N,4] at "sum"
  return %y, %p, @b, %t
}"""
"""Two host ops in a row of native ones, one beside them, whose operand is a parameter."""


@pytest.fixture(autouse=True)
def two_ops_have_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in (Softmax, Gather):
        monkeypatch.delitem(LOWERINGS, op)


def graph(text: str = CHAIN) -> Graph:
    made = parse_graph(f"graph {text}")
    made.payload = sample_payload(made)
    if "b" in made.payload:
        made.payload = {**made.payload, "b": np.arange(4, dtype=np.float32)}
    return made


def compiled(made: Graph, **options) -> lucid.CompiledModel:
    with pytest.warns(HostOpsWarning):
        return lucid.compile(made, **{"threads": 1} | options)


def assert_right(model: lucid.CompiledModel, made: Graph, batch: int) -> None:
    inputs = sample_inputs(made, batch)
    results = model(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    for result, exact in zip(results, interpret(made, inputs), strict=True):
        assert (result.shape, result.dtype) == (exact.shape, exact.dtype)
        np.testing.assert_allclose(result, exact, rtol=2e-5, atol=1e-6)


def names(step) -> list[str]:
    nodes = [step.node] if isinstance(step, HostNode) else step.graph.nodes
    return [node.outputs[0].name for node in nodes]


def test_as_few_regions_as_can_be() -> None:
    made = graph()
    steps = partition(made, [*made.find(Softmax), *made.find(Gather)])
    assert [(type(s), names(s)) for s in steps] == [
        (HostNode, ["t"]),
        (Region, ["c"]),
        (HostNode, ["p"]),
        (Region, ["m"]),
        (HostNode, ["q"]),
        (Region, ["a", "y"]),
    ]
    last = steps[-1]
    assert [v.name for v in last.inputs] == ["q", "t", "s"]
    assert str(last.graph.inputs[0].type) == "f32[N,4]"
    assert [v.name for v in steps[1].outputs] == ["c"]
    (whole,) = partition(made, [])
    assert whole.graph is made
    assert partition(parse_graph("graph g(%x: f32[N]) -> f32[N] { return %x }"), []) == []


def test_side_by_side_host_ops_share_the_regions_around_them() -> None:
    made = graph(
        "g(%x: f32[N,4], %y: f32[N,4]) -> f32[N,4] { %a = relu(%x) : f32[N,4]"
        " %b = softmax(%a) {axis=1} : f32[N,4] %c = relu(%y) : f32[N,4]"
        " %d = softmax(%c) {axis=1} : f32[N,4] %e = add(%b, %d) : f32[N,4] return %e }"
    )
    kinds = [type(step) for step in partition(made, made.find(Softmax))]
    assert kinds == [Region, HostNode, HostNode, Region]
    assert_right(compiled(made), made, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_right_for_any_batch_and_the_same_bits_in_parts(threads: int) -> None:
    made = graph()
    model = compiled(made, threads=threads)
    for batch in (1, 3, MAX_BATCH + 2, 0):
        assert_right(model, made, batch)
    inputs = sample_inputs(made, 5)
    whole = model(*inputs)
    parts = [model(inputs[0][i : i + 1], *inputs[1:]) for i in range(5)]
    np.testing.assert_array_equal(whole[0], np.concatenate([part[0] for part in parts]))
    outs = [np.empty_like(y) for y in whole]
    assert model(*inputs, out=outs)[1] is outs[1]
    for out, result in zip(outs, whole, strict=True):
        np.testing.assert_array_equal(out, result)


def test_a_batch_that_a_host_op_mixes_is_not_sliced() -> None:
    made = graph("g(%x: f32[N,4]) -> f32[N,4] { %y = softmax(%x) {axis=0} : f32[N,4] return %y }")
    model = compiled(made)
    assert model.programs()[0].phases == []
    for batch in (1, MAX_BATCH + 3):
        assert_right(model, made, batch)


def test_one_warning_names_them_all() -> None:
    with pytest.warns(HostOpsWarning) as caught:
        model = lucid.compile(graph(), threads=1)
    (warning,) = caught
    model(*sample_inputs(graph(), 2))
    assert warning.filename == __file__
    for text in (
        "3 ops of chain without a kernel",
        "gather in table",
        "softmax, 2 times, first in first",
    ):
        assert text in str(warning.message)
    assert [(op.op, op.origin) for op in model.host_ops] == [
        ("gather", "table"),
        ("softmax", "first"),
        ("softmax", "second"),
    ]


def test_nothing_is_told_of_a_model_without_any(recwarn) -> None:
    made = graph("g(%x: f32[N,4]) -> f32[N,4] { %y = relu(%x) : f32[N,4] return %y }")
    model = lucid.compile(made, threads=1)
    assert model.host_ops == ()
    assert not recwarn.list


def test_refused_with_all_of_them_listed() -> None:
    options = lucid.CompileOptions(host_ops="refuse")
    with pytest.raises(UnsupportedError, match=r"(?s)3 ops .*in first.*in table.*in second"):
        lucid.compile(graph(), options=options)
    with pytest.raises(UnknownNameError, match="host_ops is one of run, refuse, not 'no'"):
        lucid.compile(graph(), options=lucid.CompileOptions(host_ops="no"))


def test_programs_are_interpreted_region_by_region() -> None:
    made = graph()
    model = compiled(made)
    programs = model.programs()
    assert [p.name for p in programs] == ["chain_region0", "chain_region1", "chain_region2"]
    assert model.prepare(made.input_shapes(1)) is programs[0]
    image = sample_inputs(made, 1)[0]
    (c,) = ProgramInterpreter(programs[0], made.payload).run([image])
    exact = interpret(made, sample_inputs(made, 1))[1]
    p = Softmax(1).evaluate(c)
    np.testing.assert_allclose(p, exact, rtol=1e-5)
    for stage in ("scheduled", "llvm", "asm"):
        assert model.ir(stage)


def test_explained_and_profiled() -> None:
    made = graph()
    model = compiled(made, threads=2)
    text = model.explain()
    assert text.count("host op, by its reference in NumPy: it has no kernel") == 3
    assert "native call 1, phase 0" in text
    profile = model.profile(sample_inputs(made, 2), runs=2)
    hosts = [call for call in profile.calls if call.algorithm == "host"]
    assert [call.origin for call in hosts] == ["table", "first", "second"]
    assert all(call.ms > 0 and call.moved for call in hosts)
    assert all(call.share == call.ms / profile.latency_ms for call in profile.calls)
    assert profile.inputs == {"x": (2, 3, 6, 6), "s": (4,), "k": (4,)}
    assert len(profile.threads) == 2
    assert str(profile)
    assert max(event.call for event in profile.events) == len(profile.calls) - 1


@pytest.mark.parametrize("weights", ["packed", "plain", "both"])
def test_saved_and_loaded(tmp_path, weights: str) -> None:
    made = graph()
    model = compiled(made)
    model.save(tmp_path / "m.lucid", weights=weights)
    with pytest.warns(HostOpsWarning):
        loaded = lucid.load(tmp_path / "m.lucid", 1)
    assert loaded.host_ops == model.host_ops
    for batch in (1, 3):
        inputs = sample_inputs(made, batch)
        for mine, its in zip(model(*inputs), loaded(*inputs), strict=True):
            np.testing.assert_array_equal(mine, its)


def test_other_weights_reach_host_ops() -> None:
    made = graph()
    model = compiled(made)
    before = model(*sample_inputs(made, 2))
    made.payload = {**made.payload, "b": np.ones(4, np.float32)}
    model.load_weights(dict(made.payload))
    assert_right(model, made, 2)
    assert not np.array_equal(model(*sample_inputs(made, 2))[0], before[0])


def test_a_graph_without_nodes_costs_no_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made = graph("g(%x: f32[N,4], %k: i64[2]) -> i64[2], f32[N,4] { return %k, %x }")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lucid.compile(made, threads=1)
    monkeypatch.setattr(model._runner, "run", None)
    assert_right(model, made, MAX_BATCH + 1)
    assert model.programs()[0].phases == []


def test_checked_region_by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    made = graph()
    case = Case(made, tuple(sample_inputs(made, 2)), 2, Settings(threads=2))
    regions = case.regions()
    assert [region.graph.name for region in regions] == [f"chain_region{i}" for i in range(3)]
    report = check(case)
    assert report.ok
    assert {call.origin for call in report.calls} >= {"conv", "pool"}
    assert bisect(case) is None
    monkeypatch.setattr(library, "_libraries", {})
    monkeypatch.setitem(vector_math.LOWERINGS, Add, lambda k, op, x: x[0])
    assert not check(case).ok
    blame = bisect(case)
    assert blame is not None
    assert (blame.stage, blame.origin) == ("emission", "bias")


def test_regions_are_tuned() -> None:
    tuning = Tuner(Target.host(), batch=1, threads=1).tune(run_passes(graph()), budget=0.0)
    assert list(tuning.schedule.choices) == ["c"]
    assert [names for _, names in tuning.findings] == [["c"]]


def test_a_dtype_that_no_kernel_takes_runs_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(ctx, node):
        raise UnsupportedError(f"{node.origin}: of such values")

    made = graph(
        "g(%x: f32[N,4], %k: i64[3]) -> f32[N,3] {"
        ' %a = relu(%x) : f32[N,4] %y = gather(%a, %k) {axis=1} : f32[N,3] at "odd"'
        " %z = relu(%y) : f32[N,3] return %z }"
    )
    monkeypatch.setitem(LOWERINGS, Gather, refused)
    model = compiled(made)
    assert [op.origin for op in model.host_ops] == ["odd"]
    assert_right(model, made, 2)
    options = lucid.CompileOptions(host_ops="refuse")
    with pytest.raises(UnsupportedError, match="odd: of such values"):
        lucid.compile(made, options=options)


def test_what_an_op_says_of_its_operands_reaches_the_caller() -> None:
    made = graph(
        "g(%x: f32[4], %k: i64[2]) -> f32[2] { %y = gather(%x, %k) {axis=0} : f32[2] return %y }"
    )
    model = compiled(made)
    x = np.array([1e38, -np.inf, np.nan, 0], np.float32)
    np.testing.assert_array_equal(model(x, np.array([1, -2])), x[[1, 2]])
    with pytest.raises(InputError, match=r"^gather in the model: .*index 4 is outside"):
        model(x, np.array([0, 4]))


def test_a_reference_that_fails_is_named_with_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self, *operands):
        raise IndexError("no such row")

    monkeypatch.setenv("LUCID_CRASH_DIR", str(tmp_path))
    made = graph()
    model = compiled(made)
    monkeypatch.setattr(Gather, "evaluate", failing)
    wanted = (
        r"^gather in table failed on the host, for \(f32\[4\], i64\[4\]\): IndexError: no such row"
        r"\nWhat repeats this defect of Lucid is in "
    )
    with pytest.raises(CompileError, match=wanted) as caught:
        model(*sample_inputs(made, 2))
    assert caught.value.bundle is not None
    assert isinstance(caught.value.__cause__, CompileError)
