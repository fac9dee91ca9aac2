"""`lucid tune`"""

import json

from lucid.codegen.scheduling.schedule import Schedule


def test_layers_are_measured_once_and_told(lucid_command, model_file, tmp_path):
    arguments = ("tune", f"{model_file}:build", "--size", 16, "--threads", 1)
    log, chosen = tmp_path / "log.jsonl", tmp_path / "schedule.json"
    result = lucid_command(*arguments, "--budget", 1, "--log", log, "--json", "-o", chosen)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["runs"] > 0
    (layer,) = answer["layers"]
    assert layer["layer"] == "0"
    assert layer["count"] == 1
    assert layer["tuned_ms"] <= layer["model_ms"]
    assert len(log.read_text().splitlines()) == 1
    assert len(Schedule.from_json(chosen.read_text()).choices) == 1
    again = lucid_command(*arguments, "--log", log)
    assert again.exit_code == 0, again.stderr
    assert "all layers known from the log" in again.stdout
    assert "total" in again.stdout
    assert "cost model alone" not in again.stdout


def test_report(lucid_command, model_file, tmp_path):
    arguments = ("tune", f"{model_file}:build", "--size", 16, "--threads", 1, "--budget", 0)
    result = lucid_command(*arguments, "--log", tmp_path / "log", "--report")
    assert result.exit_code == 0, result.stderr
    assert "the cost model alone is" in result.stdout
    result = lucid_command(*arguments, "--log", tmp_path / "log", "--report", "--json")
    report = json.loads(result.stdout)["report"]
    assert report["model_ms"] > 0
    assert report["within_aim"] == (report["model_slower_by"] <= report["aim"])


def test_what_cannot_be_tuned_is_an_error(lucid_command, model_file):
    result = lucid_command("tune", f"{model_file}:build", "--precision", "sloppy")
    assert result.exit_code == 1
    assert "fast, strict" in result.stderr
    result = lucid_command("tune", f"{model_file}:build", "--target", "aarch64")
    assert result.exit_code == 1
    assert "cannot run" in result.stderr
    result = lucid_command("tune", f"{model_file}:dense", "--budget", 1, "--json")
    assert result.exit_code == 0, result.stderr  # no convolution: nothing to tune
    assert json.loads(result.stdout)["layers"] == []
