"""`lucid export`."""

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
