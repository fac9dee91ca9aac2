"""The benchmark's own machinery: weights, files, the worker protocol, the figures."""

import os
import platform
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import core_distance  # noqa: E402 (a script's folder, not a package)
import engines  # noqa: E402
import isa  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
from job import Job, tensor, weights  # noqa: E402
from worker import EngineError, Worker  # noqa: E402


@pytest.fixture
def job(tmp_path):
    return Job("resnest_digits", 2, 1, 32, str(tmp_path), channels=1)


@pytest.fixture
def prepared(job):
    """The job with its files. The reference is of the interpreter."""
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    from prepare import prepare

    prepare(job)
    return job


def state(process):
    """The letter of the process's state: T is stopped."""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0]


def skip_without(name):
    """Skip the test where the package of this engine is not installed."""
    modules = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "mnn": "MNN"}
    module = modules.get(name, "torch")
    return pytest.importorskip(module, reason=f"{module} is not installed")


def test_weights_follow_from_names_and_shapes():
    shapes = {"a.weight": (4, 2, 3, 3), "a.bias": (4,), "bn.running_var": (4,)}
    first, second = weights(shapes), weights(shapes)
    assert {key: value.shape for key, value in first.items()} == shapes
    assert all(np.array_equal(first[key], second[key]) for key in shapes)
    assert not np.array_equal(first["a.weight"], tensor("b.weight", (4, 2, 3, 3)))
    assert (first["bn.running_var"] > 0).all()


def test_operations_are_those_of_direct_convolution(prepared):
    from lucid.frontend.trace import trace
    from lucid.nn import Conv2d, Flatten, Linear, Sequential
    from prepare import flops

    model = Sequential(Conv2d(4, 6, 3, groups=2, padding=1), Flatten(), Linear(6 * 25, 7))
    graph = trace(model, (1, 4, 5, 5))
    assert flops(graph, 3) == 3 * 2 * (6 * 25 * 2 * 9 + 7 * 150)


def test_a_worker_runs_only_in_its_turn(job):
    worker = Worker("peak", job)
    try:
        (process,) = worker.processes
        assert state(process) == "T"
        with worker.turn():
            loaded = worker.load()
            seconds = worker.burst(2)
            assert state(process) != "T"
        assert state(process) == "T"
        assert len(seconds) == 2
        assert 1 < loaded["flops"] / min(seconds) / 1e9 < 1000
        with worker.turn():
            assert worker.memory() > 10
    finally:
        worker.close()


def test_a_line_takes_some_time_from_core_to_core(monkeypatch):
    """Where there are two."""
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        found = core_distance.measure()
        assert os.sched_getaffinity(0) == before
        assert 1 < found < 1e6 if len(before) > 1 else np.isnan(found)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert np.isnan(core_distance.measure())


@pytest.mark.parametrize("name", [name for name in engines.Engine.registry if name != "peak"])
@pytest.mark.slow
def test_every_engine_runs_the_same_network(prepared, name):
    if name != "lucid":
        skip_without(name)
    workers, facts, failures = peers.ready([name], prepared)
    try:
        assert not failures
        assert facts[name]["error"] < 1e-5
        with workers[0].turn():
            assert len(workers[0].burst(2)) == 2
    finally:
        for worker in workers:
            worker.close()


@pytest.mark.parametrize("name", ["lucid", "onnxruntime", "ncnn"])
@pytest.mark.slow
def test_callers_take_part_in_every_run(prepared, name):
    """In threads, or in processes where the engine wants that; one figure a burst."""
    if name != "lucid":
        skip_without(name)
    job = Job(**{**prepared.__dict__, "callers": 2})
    workers, _, failures = peers.ready([name], job)
    try:
        assert not failures
        assert len(workers[0].processes) == (2 if name == "ncnn" else 1)
        with workers[0].turn():
            (seconds,) = workers[0].burst(3)
        assert 0 < seconds < 10
    finally:
        for worker in workers:
            worker.close()


def test_a_failure_is_reported(job):
    workers, facts, failures = peers.ready(["lucid"], job)  # no weights in the folder
    assert not workers
    assert not facts
    assert "lucid" in failures["lucid"]


def test_an_engine_that_errs_does_not_count(prepared, monkeypatch):
    monkeypatch.setattr(peers, "TOLERANCE", -1.0)
    workers, _, failures = peers.ready(["lucid"], prepared)
    assert not workers
    assert "does not count" in failures["lucid"]


def test_a_dead_worker_is_an_engine_error(job):
    worker = Worker("peak", job)
    worker.processes[0].kill()
    worker.processes[0].wait()
    with pytest.raises(EngineError, match="died"), worker.turn():
        worker.memory()
    worker.close()


def test_avx512_can_be_hidden(job, monkeypatch):
    """By all means or by none: a machine that cannot says so by an empty answer."""
    monkeypatch.setattr(isa, "PACKAGES", ())  # to copy them takes a minute
    settings = isa.hiding(Path(job.folder))
    assert set(settings) <= {"LD_PRELOAD"}
    if settings:
        worker = Worker("peak", job, settings)
        with worker.turn():
            assert worker.load()["flops"] % (2 * 8 * 12) == 0
        worker.close()


ASKS = """
#include <stdio.h>
int main(void) {
    unsigned a = 7, b, c = 0, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return printf("%u %u", b >> 16 & 1, b >> 5 & 1) < 0;
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is x86's")
@pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump"
)
def test_what_stands_for_cpuid_hides_avx512(tmp_path):
    """Its other answers are the processor's."""
    program, library = tmp_path / "asks", isa.handler(tmp_path)
    (tmp_path / "asks.c").write_text(ASKS)
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    run(["gcc", str(tmp_path / "asks.c"), "-o", str(program)])
    avx2 = run([str(program)]).stdout.split()[1]
    isa._replace_cpuid(program)
    found = run([str(program)], env={**os.environ, "LD_PRELOAD": str(library)}).stdout
    assert found.split() == ["0", avx2]


@pytest.fixture
def result():
    facts = {name: {"version": "1", "error": 3e-7} for name in ("lucid", "other", "third")}
    facts["lucid"] |= {"compile_cold": 2.0, "compile_cached": 0.25}
    times = {"lucid": [0.01, 0.02, 0.03], "other": [0.02, 0.05, 0.06], "third": [0.1, 0.1, 0.1]}
    job = Job("m", 4, 1, 8, "", callers=2, isa="avx2")
    found = peers.summary(facts, times, job)
    return {
        "job": {"model": "m", "size": 8, "batch": 4, "threads": 1, "callers": 2, "isa": "avx2"},
        "machine": {
            "cpu": "c",
            "cores": 1,
            "load": 0.0,
            "peak_gflops": 100.0,
            "peak_ms": 5.0,
            "core_ns": [25, 152],
        },
        "avx512_hidden": True,
        "gflop": 1.0,
        "runs": 3,
        "engines": found,
        "fastest": peers.fastest(found),
        "failures": {"late": "late: it broke"},
    }


def test_ratios_are_to_lucid(result):
    found = result["engines"]
    assert found["other"]["min_ratio"] == pytest.approx(2)
    assert found["other"]["median_ratio"] == pytest.approx(2.5)
    assert found["lucid"]["min_ratio"] == 1
    assert found["lucid"]["images_s"] == pytest.approx(400)
    assert result["fastest"] == {"engine": "other", "ratio": pytest.approx(2)}


def test_the_result_is_a_table(result, capsys):
    report.show(result)
    shown = capsys.readouterr().out
    for part in (
        "2 callers",
        "2.50",
        "Fastest peer: other, 2.00",
        "2.00 s",
        "25 to 152 ns",
        "late: it broke",
    ):
        assert part in shown


def test_the_result_is_a_markdown_table(result):
    lines = report.markdown(result).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| lucid |")
    assert "- AVX-512 is hidden from all engines" in lines


def test_files_are_rows_of_one_table(result, capsys):
    result["job"]["lengths"] = [1, 3, 8, 4]
    head, first, second = report.files_rows([result, result])
    assert head == ["network", "lucid", "other", "third", "fastest peer", "largest error"]
    times = ["10.00 (20.00)", "20.00 (50.00)", "100.00 (100.00)"]
    assert first == second == ["m", *times, "2.00", "3.0e-07"]
    assert "at 1x3x8x4," in report.title(result)
    report.show_files([result])
    assert "load 0.0 to 0.0" in capsys.readouterr().out
    assert "Failed: late: it broke" in report.files_markdown([result])


def test_a_file_says_what_it_takes(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    from onnx import helper

    def saved(*shape):
        kind = onnx.TensorProto.FLOAT
        x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
        node = helper.make_node("Relu", ["x"], ["y"])
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y])), path)
        return path

    job = peers.of_file(saved(2, 5), {"threads": 1, "folder": str(tmp_path)})
    assert (job.shape, job.batch, job.onnx.name) == ((2, 5), 2, "net.onnx")
    assert job.reference.name == "net-2x5-batch2.npz"
    with pytest.raises(ValueError, match="not known"):
        peers.of_file(saved("N", 5), {"threads": 1, "folder": str(tmp_path)})


def test_without_lucid_there_are_no_ratios():
    found = peers.summary({"other": {"version": "1"}}, {"other": [0.5]}, Job("m", 1, 1, 8, ""))
    assert "min_ratio" not in found["other"]
    assert peers.fastest(found) == {"engine": "other", "ratio": None}
