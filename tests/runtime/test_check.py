"""Checking: what is right passes, and code that is broken on purpose is found by name and stage."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid.codegen.kernels.body import Kernel
from lucid.codegen.language import vector_math
from lucid.codegen.program.plan import lifetimes
from lucid.codegen.program.program import Program
from lucid.errors import CompileError, InputError
from lucid.ir import Graph
from lucid.ir.ops import BatchNorm, Conv2d, Relu
from lucid.ir.passes import fold_batch_norm
from lucid.ir.recipe import Literal
from lucid.ir.samples import sample_inputs, sample_payload
from lucid.ir.text import parse_graph
from lucid.runtime import library
from lucid.runtime.check import Case, Settings, bisect, check, cut, load_case, reduce, save_case
from lucid.runtime.check.case import read_inputs
from lucid.runtime.check.compare import difference, rounding_difference, rounds
from lucid.runtime.check.native import Stepper
from lucid.runtime.check.report import Tools, call_checks, whole_limit

lowering = importlib.import_module("lucid.codegen.lowering.lower")

NET = """\
graph small(%x: f32[N,3,12,12]) -> f32[N,4] {
  param @v: f32[8,3,3,3]
  param @scale: f32[8]
  param @shift: f32[8]
  param @mean: f32[8]
  param @var: f32[8]
  param @w: f32[4,8,1,1]
  %wide = conv2d(%x, @v) {padding=(1,1,1,1)} : f32[N,8,12,12] at "body.wide"
  %norm = batch_norm(%wide, @scale, @shift, @mean, @var) : f32[N,8,12,12] at "body.norm"
  %act = relu(%norm) : f32[N,8,12,12] at "body.act"
  %low = max_pool2d(%act) {kernel=(2,2), stride=(2,2)} : f32[N,8,6,6] at "body.low"
  %narrow = conv2d(%low, @w) : f32[N,4,6,6] at "body.narrow"
  %mean_1 = mean(%narrow) {axes=(2,3)} : f32[N,4] at "head"
  return %mean_1
}
"""


def small(threads: int = 1) -> Case:
    graph = parse_graph(NET)
    graph.payload = sample_payload(graph)
    rng = np.random.default_rng(3)
    for name in ("scale", "shift", "mean", "var"):
        graph.payload[name] = rng.uniform(0.5, 1.5, 8).astype(np.float32)
    return Case(graph, tuple(sample_inputs(graph, 2)), 2, Settings(threads=threads))


@pytest.fixture(scope="module")
def resnest() -> Case:
    model = lucid.models.create_model("resnest_14", layers=[1, 1], num_classes=10)
    graph = lucid.trace(model, (1, 3, 64, 64))
    return Case(graph, tuple(sample_inputs(graph, 1)), 1, Settings(threads=2))


@pytest.fixture
def fresh_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of this test's own, so that what it breaks is compiled, and forgotten."""
    monkeypatch.setattr(library, "_libraries", {})


# -- what is right ------------------------------------------------------------------------------


def test_what_is_right_passes(resnest: Case) -> None:
    for case in (small(threads=2), resnest):
        report = check(case)
        assert report.ok
        assert report.error < 1e-5
        assert len(report.calls) == sum(c.tasks > 0 for c in case.program(case.fused()).calls())
    assert bisect(small(threads=2)) is None
    assert reduce(small()) is None


def test_differences() -> None:
    nan = np.array([1.0, np.nan])
    assert difference(nan, nan) == 0
    assert difference(np.array([1.0, 2.0]), nan) == np.inf
    assert difference(np.array([1.0, np.inf]), np.array([1.0, -np.inf])) == np.inf
    assert difference(np.array([1.0, 4.0]), np.array([2.0, 4.0])) == 0.25
    assert difference(np.zeros(2), np.zeros(3)) == np.inf
    assert difference(np.array([0.5]), np.zeros(1)) == 0.5
    assert difference(np.zeros(0), np.zeros(0)) == 0


# -- what is broken on purpose ------------------------------------------------------------------


@pytest.fixture
def wrong_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """fold-batch-norm takes another epsilon."""
    module = importlib.import_module(fold_batch_norm.__name__)
    monkeypatch.setattr(module, "Literal", lambda eps: Literal(eps + 0.1))


def test_a_wrong_pass(wrong_pass: None) -> None:
    blame = bisect(small())
    assert blame is not None
    assert (blame.stage, blame.name, blame.origin) == ("pass", "fold-batch-norm", "body.wide")
    found = reduce(small())
    assert found is not None
    assert [type(n.op) for n in found[0].graph.nodes] == [BatchNorm]
    assert found[0].batch == 1


def test_a_wrong_pass_in_a_network(wrong_pass: None, resnest: Case) -> None:
    blame = bisect(resnest)
    assert blame is not None
    assert (blame.stage, blame.name, blame.origin) == ("pass", "fold-batch-norm", "conv1.0")


@pytest.fixture
def wrong_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """One buffer lies where another one that lives with it does, and nobody verifies it."""

    def plan_badly(program: Program, threads: int) -> None:
        plan(program, threads)
        spans = lifetimes(program)
        for one in spans:  # a residual, which a later layer overwrites
            for other in spans:
                room = program.arena - program.offsets[one] >= program.buffers[other].bytes
                if room and spans[one].first < spans[other].first < spans[one].last:
                    program.offsets[other] = program.offsets[one]
                    return

    plan = lowering.plan
    monkeypatch.setattr(lowering, "plan", plan_badly)
    monkeypatch.setattr(lowering, "verify_program", lambda program: None)


def test_a_wrong_plan(wrong_plan: None, resnest: Case) -> None:
    blame = bisect(resnest)
    assert blame is not None
    assert blame.stage == "plan"
    assert "overwritten" in blame.detail
    assert " by " in blame.detail
    assert not check(resnest).ok


def test_a_wrong_plan_that_the_verifier_sees(
    wrong_plan: None, monkeypatch: pytest.MonkeyPatch, resnest: Case
) -> None:
    from lucid.codegen.program.verify import verify_program

    monkeypatch.setattr(lowering, "verify_program", verify_program)
    blame = bisect(resnest)
    assert blame is not None
    assert (blame.stage, blame.name) == ("plan", "the Program verifier")


@pytest.fixture
def wrong_kernel(monkeypatch: pytest.MonkeyPatch, fresh_kernels: None) -> None:
    """relu in generated code leaves a little of what is negative."""

    def leaky(k: Kernel, op: Relu, operands):
        return right(k, op, operands) + operands[0] * 0.01

    right = vector_math.LOWERINGS[Relu]
    monkeypatch.setitem(vector_math.LOWERINGS, Relu, leaky)


def test_a_wrong_kernel(wrong_kernel: None) -> None:
    report = check(small())
    assert not report.ok
    assert [c.origin for c in report.calls if not c.ok] == ["body.wide"]
    blame = bisect(small())
    assert blame is not None
    assert (blame.stage, blame.origin) == ("emission", "body.wide")
    found = reduce(small())
    assert found is not None
    assert [type(n.op) for n in found[0].graph.nodes] == [Relu]


def test_a_wrong_argument(monkeypatch: pytest.MonkeyPatch, resnest: Case) -> None:
    """A lowering that gives a product a smaller depth than it has, which the verifier sees."""
    calls = []

    def call_badly(self, kernel, tasks, arguments, *rest, **fields):
        if kernel.family == "product" and fields.get("algorithm") == "gate":
            calls.append(arguments)
            if len(calls) == 1:
                arguments = arguments | {"depth": arguments["depth"] - 1}
        right(self, kernel, tasks, arguments, *rest, **fields)

    from lucid.codegen.lowering.context import Lowering

    right = Lowering.call
    monkeypatch.setattr(Lowering, "call", call_badly)

    class Once(Case):
        def program(self, fused: Graph) -> Program:
            calls.clear()
            return super().program(fused)

    blame = bisect(Once(resnest.graph, resnest.inputs, 1))
    assert blame is not None
    assert (blame.stage, blame.name) == ("schedule", "the Program verifier")
    assert "layer1.0.conv2.fc1" in blame.detail


def test_a_wrong_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lowering that computes another op than the graph has."""
    from lucid.codegen.lowering.layer import Layer

    right = Layer.append

    def without_bias(self, region, x, tensors):
        bias, self.bias = self.bias, None
        try:
            return right(self, region, x, tensors)
        finally:
            self.bias = bias

    monkeypatch.setattr(Layer, "append", without_bias)
    blame = bisect(small())
    assert blame is not None
    assert (blame.stage, blame.origin) == ("schedule", "body.wide")


def test_what_raises_is_blamed_too(monkeypatch: pytest.MonkeyPatch, fresh_kernels: None) -> None:
    def fail(*_):
        raise CompileError("no such luck")

    with monkeypatch.context() as patch:
        patch.setitem(vector_math.LOWERINGS, Relu, fail)
        blame = bisect(small())
        assert blame is not None
        assert (blame.stage, blame.detail) == ("emission", "no such luck")
    with monkeypatch.context() as patch:
        patch.setattr(lowering, "plan", lambda *_: 1 // 0)
        blame = bisect(small())
        assert blame is not None
        assert blame.stage == "schedule"
        assert "ZeroDivisionError" in blame.detail


# -- parts and files ----------------------------------------------------------------------------


def test_cut() -> None:
    graph = parse_graph(NET)
    by_name = {v.name: v for v in graph.values()}
    part = cut(graph, [by_name["low"]], {by_name["norm"]})
    assert [v.name for v in part.inputs] == ["norm"]
    assert [n.op.name for n in part.nodes] == ["relu", "max_pool2d"]
    assert not part.parameters
    both = cut(graph, [by_name["narrow"], by_name["wide"]], {by_name["low"]})
    assert [v.name for v in both.inputs] == ["x", "low"]
    assert [type(n.op) for n in both.nodes] == [Conv2d, Conv2d]


@pytest.mark.parametrize("name", ["repro", "repro.zip"])
def test_a_repro_is_the_same_case(tmp_path: Path, name: str) -> None:
    case = small(threads=2)
    save_case(case, tmp_path / name)
    again = load_case(tmp_path / name)
    assert again.graph == case.graph
    assert again.settings == case.settings
    assert again.batch == 2
    np.testing.assert_array_equal(again.inputs[0], case.inputs[0])
    np.testing.assert_array_equal(again.graph.payload["v"], case.graph.payload["v"])
    assert check(again).ok


def test_a_repro_without_arrays(tmp_path: Path) -> None:
    (tmp_path / "graph.lir").write_text(NET)
    assert check(load_case(tmp_path)).ok
    with pytest.raises(InputError, match=r"holds no graph\.lir"):
        load_case(tmp_path.parent)
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(InputError, match="no repro"):
        load_case(tmp_path / "a.zip")


def test_given_inputs(tmp_path: Path) -> None:
    graph, x = parse_graph(NET), np.ones((3, 3, 12, 12))
    np.savez(tmp_path / "in.npz", images=x)
    (array,), batch = read_inputs(tmp_path / "in.npz", graph)
    assert (array.shape, array.dtype, batch) == (x.shape, np.float32, 3)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    with pytest.raises(InputError, match="expected x: "):
        read_inputs(tmp_path / "two.npz", graph)
    (tmp_path / "none.npz").write_text("nothing")
    with pytest.raises(InputError, match=r"no \.npz file"):
        read_inputs(tmp_path / "none.npz", graph)


MIDDLE = """\
graph middle(%x: f32[N,64]) -> u8[N,64] {
  %s = constant() {value=1.2} : f32[]
  %q = quantize(%x, %s) {dtype="u8"} : u8[N,64]
  return %q
}
"""
"""9 / 1.2 is 7.5 in float32 and rounds to 8; by the float64 quotient of float32's 1.2 it is 7."""


def test_what_rounds_to_integers_is_held_against_float32() -> None:
    graph = parse_graph(MIDDLE)
    x = np.arange(128, dtype=np.float32).reshape(2, 64)
    case = Case(graph, (x,), 2, Settings(threads=1))
    assert rounds(graph)
    assert rounds(case.fused())
    report = check(case)
    assert report.ok
    assert report.error == 0
    assert bisect(case) is None


def test_a_wrong_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step in every eighth number is wrong."""
    x = np.arange(128, dtype=np.float32).reshape(2, 64)
    case = Case(parse_graph(MIDDLE), (x,), 2, Settings(threads=1))
    monkeypatch.setattr(Stepper, "run", lambda *_: [_quotients(x) + (x % 8 == 3).astype(np.uint8)])
    report = check(case)
    assert not report.ok
    assert [c.ok for c in report.calls] == [False]


def _quotients(x: np.ndarray) -> np.ndarray:
    return np.rint(x / np.float32(1.2)).astype(np.uint8)


def test_differences_of_rounded_integers() -> None:
    exact = np.full(1000, 100, np.uint8)
    one, all_of_them, far = exact.copy(), exact + 1, exact.copy()
    one[5], far[5] = 99, 98
    assert rounding_difference(exact, exact) == 0
    assert rounding_difference(one, exact) == pytest.approx(1e-5)
    assert rounding_difference(all_of_them, exact) == pytest.approx(1e-2)
    assert rounding_difference(far, exact) == pytest.approx(2e-2)
    assert rounding_difference(exact[:3], exact) == np.inf
    assert rounding_difference(exact[:0], exact[:0]) == 0


def test_only_kernels_that_round_to_bfloat16_may_be_off_by_as_much() -> None:
    """Where they are forced, whatever the precision."""
    plain = small()
    case = replace(plain, settings=Settings(kernels={"body.narrow": "pointwise_bf16"}))
    program = case.program(case.fused())
    allowed = {c.origin: c.allowed for c in call_checks(case, program, Tools())}
    assert allowed["body.narrow"] == 2e-2
    assert allowed["body.wide"] == 2e-5
    assert (whole_limit(plain), whole_limit(case)) == (1e-4, 1e-1)
