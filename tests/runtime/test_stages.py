"""Models that go on by what they have computed: further stages, compiled as they are needed."""

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import lucid
from lucid.errors import HostOpsWarning, InputError, UnsupportedError
from lucid.frontend.sources import GivenGraph
from lucid.ir.text import parse_graph

FIRST = """graph net(%x: f32[8]) -> f32[8] {
  %y = relu(%x) : f32[8]
  return %y
}
"""


def second(count: int) -> GivenGraph:
    return GivenGraph(
        parse_graph(
            f"graph net_stage1(%y: f32[{count}]) -> f32[{count}] {{"
            f" %z = mul(%y, %y) : f32[{count}] return %z }}"
        )
    )


class Rest:
    """What is above 0, squared: its number is known once the first graph has run."""

    outputs = (("z", "f32", ("?",)), ("count", "i64", ()))
    host_ops = ()

    def __init__(self, compile_stage: Any) -> None:
        self.compile_stage = compile_stage
        self.stages: dict[int, Any] = {}

    def refuse_host_ops(self) -> None:
        """There are none."""

    def finish(self, results: list[np.ndarray], apart: Any = ()) -> list[np.ndarray]:
        (y,) = results
        positive = y[y > 0]
        count = len(positive)
        if count not in self.stages:
            self.stages[count] = self.compile_stage(second(count))
        return [*self.stages[count].results([positive]), np.asarray(count, np.int64)]


class Squares(GivenGraph):
    """`x[x > 0] ** 2`, and how many there are."""

    def __init__(self) -> None:
        super().__init__(parse_graph(FIRST))

    def rest(self, shapes: Any, compile_stage: Any) -> Rest:
        return Rest(compile_stage)


X = np.array([1, -2, 3, -4, 5, -6, 7, -8], np.float32)


def test_what_follows_is_compiled_by_what_is_known_then() -> None:
    options = lucid.CompileOptions(host_ops="refuse")
    model = lucid.compile(Squares(), threads=2, precision="strict", options=options)
    assert model.further_stages == []
    assert str(model.outputs[0]) == "z: float32[?]"
    assert str(model.outputs[1]) == "count: int64[]"
    for _ in range(2):
        z, count = model(X)
        np.testing.assert_array_equal(z, X[X > 0] ** 2)
        assert count == 4
        assert len(model.further_stages) == 1
    (stage,) = model.further_stages
    assert (stage.threads, stage.target, stage._basis) == (2, model.target, model._basis)
    np.testing.assert_array_equal(model({"x": -X})[0], X[X < 0] ** 2)
    assert len(model.further_stages) == 1
    np.testing.assert_array_equal(model(np.abs(X))[0], X**2)
    assert [s.input_shapes for s in model.further_stages] == [((4,),), ((8,),)]
    text = model.explain()
    for name in ("net for 8,", "net_stage1 for 4,", "net_stage1 for 8,"):
        assert name in text
    assert model.ir("captured").count("graph net_stage1(") == 2
    assert model.ir("captured", (8,)).count("graph ") == 1


def test_an_empty_stage() -> None:
    z, count = lucid.compile(Squares(), threads=1)(-np.abs(X))
    assert z.shape == (0,)
    assert count == 0


def test_results_in_the_kind_of_array_that_was_given() -> None:
    torch = pytest.importorskip("torch")
    z, count = lucid.compile(Squares(), threads=1)(torch.from_numpy(X))
    assert torch.equal(z, torch.from_numpy(X[X > 0] ** 2))
    assert count.dtype == torch.int64


def test_what_such_a_model_cannot() -> None:
    model = lucid.compile(Squares(), threads=1)
    with pytest.raises(InputError, match=r"^out= is for outputs whose sizes are known before"):
        model(X, out=np.zeros(4, np.float32))
    why = "sizes or elements that it computes decide how it goes on"
    saved = (
        rf"^net cannot be saved or pickled: {why}.*Instead, compile the model where it is to run"
    )
    for attempt in (lambda: model.save("never.lucid"), lambda: pickle.dumps(model)):
        with pytest.raises(UnsupportedError, match=saved):
            attempt()
    weights: Mapping[str, Any] = {}
    swapped = rf"^net has no weights to swap: {why}.*Instead, put the weights into the model"
    with pytest.raises(UnsupportedError, match=swapped):
        model.load_weights(weights)


def test_a_stage_that_is_not_kept_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(self: Rest, results: list[np.ndarray], apart: Any = ()) -> list[np.ndarray]:
        self.stages = {count: stage for count, stage in self.stages.items() if count == 4}
        return kept(self, results)

    kept = Rest.finish
    monkeypatch.setattr(Rest, "finish", finish)
    model = lucid.compile(Squares(), threads=1)
    for count in (4, 8, 7, 6):
        model(np.where(np.arange(8) < count, np.float32(2), np.float32(-2)))
    assert [stage.input_shapes for stage in model.further_stages] == [((4,),), ((6,),)]


def test_what_runs_behind_the_graph_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rest, "host_ops", (("Unique", "'node3'"),))
    with pytest.warns(HostOpsWarning, match="1 op of net .*\n  Unique in 'node3'\n"):
        model = lucid.compile(Squares(), threads=1)
    assert [(op.op, op.origin) for op in model.host_ops] == [("Unique", "'node3'")]
    options = lucid.CompileOptions(host_ops="refuse")
    with pytest.raises(UnsupportedError, match=r"would run in NumPy:\n  Unique in 'node3'"):
        lucid.compile(Squares(), options=options)
