"""Tuning: the log, what is measured and what is not, and results that stay right.

Nothing here asserts that something is fast: machines are busy.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.codegen import target as target_module
from lucid.codegen.scheduling.conv_shape import convolutions
from lucid.codegen.scheduling.schedule import Choice, Schedule
from lucid.codegen.target import Target
from lucid.compiler import CompileOptions
from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.model_source import ModelSource
from lucid.runtime import timing
from lucid.runtime.timing import Clocked, aligned, wall_times
from lucid.runtime.tune import Tuner
from lucid.runtime.tuning_log import UNTOLD, Finding, Setting, TuningLog

SHAPE = (1, 3, 48, 48)
SETTING = Setting("x86-64-v3", "some processor", False, False, 1 << 20, "LLVM 1", 2, "fast")
FINDING = Finding(
    "conv2d; 1x3x16x16", Choice("winograd4x4", 16, chunks=2), 0.5, Choice("direct"), 0.75, 17
)


class Small(nn.Module):
    """Three distinct layers, one of them twice."""

    def __init__(self) -> None:
        self.first = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 64, 1)

    def forward(self, x):
        x = nn.functional.relu(self.first(x))
        x = nn.functional.relu(self.second(x))
        return self.last(nn.functional.relu(self.third(x))).mean((2, 3))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Small()


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> Graph:
    return ModelSource(model, ()).graph((SHAPE,))


def tuner(threads: int = 1, precision: str = "fast") -> Tuner:
    return Tuner(Target.host(), 1, threads, precision)


def kernels(schedule: Schedule) -> set[str]:
    return {c.kernel for c in schedule.choices.values()}


# -- the log ------------------------------------------------------------------------------------


def test_what_is_logged_is_read_again_for_the_same_setting_only(tmp_path: Path) -> None:
    log = TuningLog(tmp_path / "folder" / "tuning.jsonl")
    assert log.read(SETTING) == {}
    other = Setting(**{**vars(SETTING), "threads": 4})
    later = Finding(FINDING.layer, Choice("direct", split="rows", rows=24), 0.4, *list_of(FINDING))
    log.add(SETTING, [FINDING])
    log.add(other, [later])
    assert log.read(SETTING) == {FINDING.layer: FINDING}
    log.add(SETTING, [later])
    assert log.read(SETTING) == {FINDING.layer: later}  # the last one holds
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [row["threads"] for row in rows] == [2, 4, 2]
    assert log.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("measured", ["25", "26"])
def test_halves_and_whole_vectors_are_told_apart(
    measured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two processors of AMD's families that a virtual machine calls the same, and by a level
    that is the machine's own or asked for by its name."""
    level = Target.named("x86-64-v4")
    settings = {}
    for family in ("25", "26"):
        told = f"vendor_id\t: AuthenticAMD\ncpu family\t: {family}\nmodel name\t: AMD EPYC\n"
        (tmp_path / family).write_text(told)
        monkeypatch.setattr(target_module, "CPU_INFORMATION", str(tmp_path / family))
        settings[family] = Setting.of(level, 2, "fast")
    monkeypatch.setattr(target_module, "CPU_INFORMATION", str(tmp_path / measured))
    settings["own"] = Setting.of(level.on_half_units(), 2, "fast")
    log = TuningLog(tmp_path / "tuning.jsonl")
    log.add(settings[measured], [FINDING])
    assert {name: bool(log.read(s)) for name, s in settings.items()} == {
        family: family == measured for family in ("25", "26", "own")
    }


def test_lines_that_do_not_tell_hold_for_no_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = TuningLog(tmp_path / "tuning.jsonl")
    log.add(SETTING, [FINDING])
    row = json.loads(log.path.read_text())
    log.path.write_text(json.dumps({k: v for k, v in row.items() if k not in UNTOLD}))
    assert log.read(SETTING) == {}
    assert not caplog.records


def list_of(finding: Finding) -> tuple[Choice, float, int]:
    return finding.model, finding.model_ms, finding.tried


def test_damaged_lines_cost_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = TuningLog(tmp_path / "tuning.jsonl")
    log.add(SETTING, [FINDING])
    good = json.loads(log.path.read_text())

    def damaged(**changes: object) -> str:
        return json.dumps({**good, "layer": "other", **changes})

    def choosing(**changes: object) -> str:
        return damaged(choice={**good["choice"], **changes})

    lines = ["}{", "[]", "7", damaged(ms="soon"), damaged(ms=0), damaged(layer=3)]
    lines += [choosing(kernel="magic"), choosing(tiles=0), choosing(rows=-1), choosing(split="x")]
    lines += [choosing(colour="red"), '{"target": "x86-64-v3"', "\xff"]
    log.path.write_text("\n".join([json.dumps(good), *lines]))  # the last line has no end
    assert log.read(SETTING) == {FINDING.layer: FINDING}
    assert len(caplog.records) == 1
    assert str(len(lines)) in caplog.text
    second = Finding("second", *[getattr(FINDING, n) for n in list(vars(FINDING))[1:]])
    log.add(SETTING, [second])
    assert set(log.read(SETTING)) == {FINDING.layer, "second"}


def test_a_log_that_cannot_be_used_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = TuningLog(tmp_path)  # a folder
    assert log.read(SETTING) == {}
    log.add(SETTING, [FINDING])
    assert [("read" in r.message, "written" in r.message) for r in caplog.records] == [
        (True, False),
        (False, True),
    ]


# -- what is measured ---------------------------------------------------------------------------


def test_known_layers_are_not_measured_again(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = TuningLog(tmp_path / "tuning.jsonl")
    first = tuner().tune(graph, budget=0.5, log=log)
    assert first.runs > 0
    assert [len(names) for _, names in first.findings] == [1, 2, 1]
    assert len(log.path.read_text().splitlines()) == 3

    def no_stopwatch(*arguments: object) -> None:
        raise AssertionError("nothing is to be measured")

    with monkeypatch.context() as patch:
        patch.setattr(timing.Stopwatch, "run", no_stopwatch)
        second = tuner().tune(graph, log=log)
    assert second.runs == 0
    assert second.schedule == first.schedule
    assert tuner(threads=2).tune(graph, budget=0, log=log).runs > 0  # another team
    lines = log.path.read_text().splitlines()
    log.path.write_text("\n".join(lines[1:3]) + "\n")
    assert tuner().tune(graph, budget=0, log=log).runs > 0  # one layer is not known any more
    assert len(log.path.read_text().splitlines()) == 3
    assert tuner().tune(graph, budget=0, log=log, again=True).runs > 0
    assert len(log.path.read_text().splitlines()) == 6


@pytest.mark.parametrize("budget", [0, 1])
def test_the_budget_is_kept_to_roughly(graph: Graph, budget: float) -> None:
    tuner().tune(graph, budget=0.2)  # its kernels are compiled now
    start = time.monotonic()
    tuning = tuner().tune(graph, budget=budget)
    assert time.monotonic() - start < budget + 20
    assert set(tuning.schedule.choices) == set(tuning.model.choices)


def test_every_layer_has_choices_measured_and_the_faster_one_taken(graph: Graph) -> None:
    tuning = tuner(threads=2).tune(graph, budget=20)
    for finding, names in tuning.findings:
        assert finding.tried >= 4, finding
        assert 0 < finding.ms <= finding.model_ms
        for name in names:
            assert tuning.schedule.choices[name] == finding.choice
            assert tuning.model.choices[name] == finding.model
    assert Schedule.from_json(tuning.schedule.to_json()) == tuning.schedule


def test_strict_precision_never_gets_the_large_tiles(graph: Graph, tmp_path: Path) -> None:
    log = TuningLog(tmp_path / "tuning.jsonl")
    tuning = tuner(precision="strict").tune(graph, budget=1, log=log)
    assert "winograd4x4" not in kernels(tuning.schedule)
    text = log.path.read_text()
    assert "winograd4x4" not in text
    # Not even where a log says so.
    log.path.write_text(text.replace('"direct"', '"winograd4x4"').replace(', "tiles": 0', ""))
    again = tuner(precision="strict").tune(graph, budget=0, log=log)
    assert "winograd4x4" not in kernels(again.schedule)


def test_forced_kernels_are_cut_but_not_replaced_nor_logged(graph: Graph, tmp_path: Path) -> None:
    log = TuningLog(tmp_path / "tuning.jsonl")
    tuning = tuner().tune(graph, forced={"second": "winograd2x2"}, budget=0.5, log=log)
    by_origin = {n.origin: n.output.name for n in convolutions(graph)}
    assert tuning.schedule.choices[by_origin["second"]].kernel == "winograd2x2"
    assert len(tuning.findings) == 4  # the forced layer apart from the one like it
    assert len(log.path.read_text().splitlines()) == 3


def test_comparing_whole_programs(graph: Graph) -> None:
    model = tuner().tune(graph, budget=0).model
    totals = tuner().compare(graph, [model, model], runs=2)
    assert len(totals) == 2
    assert all(0 < t.calls <= t.run * 1.001 for t in totals)


# -- the clock ----------------------------------------------------------------------------------


def times(marks: list[list[list[int]]], starts: list[int]) -> list[float]:
    """What steps take by such a profile table: start, ticks at work and end of each, for each
    thread, and in its last row when the caller came and left."""
    clocked = Clocked.of(np.array(marks, np.int64), starts, 0.0, 1.0)
    assert clocked.forwards
    stamps = aligned(clocked, starts)
    return wall_times(stamps, clocked.parts, clocked.ticks, starts).tolist()


NOTHING = [0, 0, 0]


def test_a_phase_is_shared_among_its_calls_and_waiting_counts() -> None:
    # Two threads, three steps: the first two are one phase.
    first = [[100, 10, 110], [110, 30, 140], [150, 20, 170], [100, 0, 170]]
    second = [[100, 30, 130], [130, 10, 140], [150, 10, 160], NOTHING]
    assert times([first, second], [0, 2]) == [20, 20, 30]


def test_portions_of_the_steps_of_a_phase_may_lie_among_each_other() -> None:
    first = [[100, 30, 150], [110, 30, 160], [100, 0, 160]]
    assert times([first], [0]) == [30, 30]


def test_clocks_of_threads_may_disagree() -> None:
    first = [[100, 40, 140], [150, 20, 170], [100, 0, 170]]
    second = [[900, 40, 940], [945, 10, 955], NOTHING]
    assert times([first, second], [0, 1]) == [50, 20]  # the latest that it can have been


def test_a_thread_that_has_no_part_in_a_phase_does_not_shorten_it() -> None:
    late = [[10, 10, 20], NOTHING, [91, 8, 99], [10, 0, 99]]
    worker = [[10, 5, 15], [20, 69, 89], NOTHING, NOTHING]
    assert times([late, worker], [0, 1, 2]) == [10, 69, 10]
    never = [NOTHING] * 4
    assert times([late, worker, never], [0, 1, 2]) == [10, 69, 10]


# -- compile(tune=True) -------------------------------------------------------------------------


def test_a_tuned_model_is_right_and_its_schedule_makes_it_again(
    model: nn.Module, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path))
    tuner(threads=2).tune(graph, budget=1, log=TuningLog())
    fast = lucid.compile(model, SHAPE, threads=2, tune=True)
    x = np.random.default_rng(0).standard_normal((3, *SHAPE[1:]), np.float32)
    result = fast(x)
    (exact,) = interpret(graph, [x.astype(np.float64)], dtype=np.float64)
    assert np.abs(result - exact).max() < 2e-6 * np.abs(exact).max()
    known = Schedule.from_json(fast.schedule.to_json())
    assert known == fast.schedule
    again = lucid.compile(model, SHAPE, threads=1, options=CompileOptions(schedule=known))
    assert again(x).tobytes() == result.tobytes()
    assert len(TuningLog().path.read_text().splitlines()) == 3


def test_the_log_is_read_with_tune_only(
    model: nn.Module, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path))
    log = TuningLog()
    tuning = tuner().tune(graph, budget=0, log=log)
    target = Target.host()
    odd = Choice("direct", split="rows", rows=7)
    findings = [Finding(f.layer, odd, f.ms, f.model, f.model_ms, 1) for f, _ in tuning.findings]
    log.add(Setting.of(target, 1, "fast"), findings)
    plain = lucid.compile(model, SHAPE, threads=1)
    tuned = lucid.compile(model, SHAPE, threads=1, tune=True)
    assert odd not in plain.schedule.choices.values()
    assert set(tuned.schedule.choices.values()) == {odd}
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    np.testing.assert_allclose(tuned(x), plain(x), rtol=1e-4, atol=1e-5)
