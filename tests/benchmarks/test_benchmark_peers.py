"""The benchmark's own machinery: weights, the worker protocol, the figures."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import peers  # noqa: E402 (a script's folder, not a package)
import report  # noqa: E402


@pytest.fixture
def job(tmp_path):
    return peers.Job("resnest_50", 1, 1, 32, str(tmp_path))


def state(worker):
    """The letter of the process's state: T is stopped."""
    stat = Path(f"/proc/{worker.process.pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0]


def test_weights_follow_from_names_and_shapes():
    shapes = {"a.weight": (4, 2, 3, 3), "a.bias": (4,), "bn.running_var": (4,)}
    first, second = peers.weights(shapes), peers.weights(shapes)
    assert {key: value.shape for key, value in first.items()} == shapes
    assert all(np.array_equal(first[key], second[key]) for key in shapes)
    assert not np.array_equal(first["a.weight"], peers.tensor("b.weight", (4, 2, 3, 3)))
    assert (first["bn.running_var"] > 0).all()


def test_a_worker_runs_only_in_its_turn(job):
    worker = peers.Worker("peak", job)
    try:
        assert state(worker) == "T"
        with worker.turn():
            loaded = worker.ask("load", **peers.asdict(job))
            seconds = worker.ask("burst", runs=2)["seconds"]
            assert state(worker) != "T"
        assert state(worker) == "T"
        assert len(seconds) == 2
        assert 1 < loaded["flops"] / min(seconds) / 1e9 < 1000
    finally:
        worker.close()


def test_a_failure_is_reported(job):
    workers, facts, failures = peers.ready(["lucid"], job)  # no weights in the folder
    assert not workers
    assert not facts
    assert "lucid" in failures["lucid"]


def test_a_dead_worker_is_an_engine_error(job):
    worker = peers.Worker("peak", job)
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(peers.EngineError, match="died"), worker.turn():
        worker.ask("memory")
    worker.close()


def test_ratios_are_to_lucid(capsys):
    facts = {name: {"version": "1", "flops": 0, "error": 3e-7} for name in ("lucid", "other")}
    engines = peers.summary(facts, {"lucid": [0.01, 0.02, 0.03], "other": [0.02, 0.05, 0.06]})
    assert engines["other"]["min_ratio"] == pytest.approx(2)
    assert engines["other"]["median_ratio"] == pytest.approx(2.5)
    assert engines["lucid"]["min_ratio"] == 1
    job = {"model": "m", "size": 8, "batch": 1, "threads": 1}
    machine = {"cpu": "c", "cores": 1, "load": 0.0}
    report.show({"job": job, "machine": machine, "runs": 3, "engines": engines, "failures": {}})
    assert "2.50" in capsys.readouterr().out
