"""The benchmark under load, with the multiply-add loop in the place of an engine."""

import argparse
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import load  # noqa: E402 (a script's folder, not a package)
from job import Job  # noqa: E402


def test_every_part_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("none", 1, 1, 8, str(tmp_path))
    settings = {"busy": (0, 1), "quota": (0.5,), "callers": (2,), "arrivals": (0.5,)}
    chosen = argparse.Namespace(engines=["peak"], seconds=0.15, only=load.PARTS, **settings)
    result = load.measure(job, chosen)
    assert not result["failures"]
    rows = {(row["part"], row["setting"]): row for row in result["rows"]}
    assert list(rows) == [
        *(("busy", 0), ("busy", 1), ("quota", 0.5), ("callers", 2)),
        *(("capacity", load.CAPACITY_CALLERS), ("arrivals", 0.5)),
    ]
    for row in rows.values():
        assert row["engine"] == "peak"
        assert row["calls"] >= 1
        assert 0 < row["p50"] <= row["p90"] <= row["p99"] <= row["max"]
        assert row["per_second"] > 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_an_engine_that_fails_is_told(tmp_path: Path) -> None:
    bench = load.Bench(Job("resnest_digits", 1, 1, 32, str(tmp_path), channels=1), ["lucid"], 0.1)
    assert not bench.workers
    assert "lucid" in bench.failures["lucid"]  # there are no weights in the folder
