"""`lucid export`."""

import json
import sys

import pytest


def test_the_file_is_a_model(lucid_command, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    path = tmp_path / "m.onnx"
    result = lucid_command("export", "resnest_digits", "-o", path)
    assert result.exit_code == 0
    assert str(path) in result.stderr
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert any(n.op_type == "BatchNormalization" for n in model.graph.node)


def test_after_a_pass(lucid_command, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    path = tmp_path / "m.onnx"
    result = lucid_command("export", "resnest_digits", "-o", path, "--stage", "fold-batch-norm")
    assert result.exit_code == 0
    assert not any(n.op_type == "BatchNormalization" for n in onnx.load(path).graph.node)


def test_the_file_is_run_as_the_model_is(lucid_command, digits, tmp_path):
    """Preprocessing, names of classes, and whether the weights are random stand in the file."""
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    path = tmp_path / "m.onnx"
    assert lucid_command("export", "resnest_digits", "-o", path).exit_code == 0
    runs = [lucid_command("run", m, digits[0], "--json") for m in ("resnest_digits", path)]
    first, second = (json.loads(run.stdout)["images"][0]["top"] for run in runs)
    assert [c["label"] for c in first] == [c["label"] for c in second]
    assert first[0]["probability"] == pytest.approx(second[0]["probability"], abs=1e-5)


def test_of_random_weights_and_another_size(lucid_command, digits, tmp_path):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    path = tmp_path / "m.onnx"
    lucid_command("export", "resnet_18", "--size", "64", "--random-weights", "-o", path)
    ran = lucid_command("run", path, digits[0])
    assert ran.exit_code == 0
    assert "random weights" in ran.stderr


def test_another_ending_is_a_usage_error(lucid_command, tmp_path):
    result = lucid_command("export", "resnest_digits", "-o", tmp_path / "m.pb")
    assert result.exit_code == 2
    assert ".onnx" in result.stderr


def test_without_the_package(lucid_command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = lucid_command("export", "resnest_digits", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 1
    assert "`pip install onnx`" in result.stderr


def test_into_a_folder_that_is_not_there(lucid_command, tmp_path):
    for command in ("export", "viz"):
        path = tmp_path / "none" / ("g.onnx" if command == "export" else "g.svg")
        result = lucid_command(command, "resnest_digits", "-o", path)
        assert result.exit_code == 1
        assert f"{path}: there is no folder {path.parent}" in result.stderr
