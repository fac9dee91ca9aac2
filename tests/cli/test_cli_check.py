"""`lucid check`"""

import importlib
import json
import re

import numpy as np
import pytest

from lucid.codegen.language import vector_math
from lucid.ir.ops import Relu
from lucid.runtime import library

NET = """\
graph small(%x: f32[N,3,12,12]) -> f32[N,8,12,12] {
  param @w: f32[8,3,3,3]
  %conv = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,8,12,12] at "body.conv"
  %act = relu(%conv) : f32[N,8,12,12] at "body.act"
  return %act
}
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.lir"
    path.write_text(NET)
    return path


@pytest.fixture
def wrong_relu(monkeypatch):
    """relu in generated code leaves a little of what is negative."""
    right = vector_math.LOWERINGS[Relu]
    monkeypatch.setattr(library, "_libraries", {})
    monkeypatch.setitem(vector_math.LOWERINGS, Relu, lambda k, op, x: right(k, op, x) + x[0] * 0.01)


def test_a_network(lucid_command):
    result = lucid_command("check", "resnest_14", "--size", 64, "--threads", 2)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"(\d+) of \1 kernel calls", result.stdout)
    assert "layer" in result.stdout


def test_a_network_stage_by_stage(lucid_command):
    result = lucid_command("check", "resnest_digits", "--bisect")
    assert result.exit_code == 0, result.stderr
    assert "nothing is wrong" in result.stdout


def test_given_inputs_and_a_repro(lucid_command, net, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.ones((3, 3, 12, 12), np.float32))
    repro = tmp_path / "repro"
    arguments = ("check", net, "--inputs", tmp_path / "in.npz", "--precision", "strict", "--json")
    result = lucid_command(*arguments, "-o", repro)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["ok"]
    assert {c["origin"] for c in answer["calls"]} >= {"body.conv"}
    assert json.loads((repro / "options.json").read_text())["batch"] == 3
    again = lucid_command("check", repro, "--json")
    assert json.loads(again.stdout) == answer


def test_a_wrong_kernel(lucid_command, net, tmp_path, wrong_relu, monkeypatch):
    arguments = ("check", net, "--threads", 1)
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path / "cache"))  # for wrong code only
    result = lucid_command(*arguments)
    assert result.exit_code == 1
    assert "--bisect names the stage" in result.stderr
    assert "body.conv" in result.stdout
    result = lucid_command(*arguments, "--bisect", "--json")
    assert result.exit_code == 1
    blame = json.loads(result.stdout)["blame"]
    assert (blame["stage"], blame["origin"]) == ("emission", "body.conv")
    repro = tmp_path / "repro.zip"
    result = lucid_command(*arguments, "--reduce", "-o", repro)
    assert result.exit_code == 1
    assert "relu(%conv)" in result.stdout
    assert "conv2d" not in result.stdout
    result = lucid_command("check", repro, "--bisect")
    assert result.exit_code == 1
    assert "emission" in result.stderr


def test_mistakes(lucid_command, net, tmp_path):
    assert lucid_command("check", "resnest_13").exit_code == 1
    assert lucid_command("check", net, "--target", "aarch64").exit_code == 1
    assert lucid_command("check", net, "--disable", "no-pass").exit_code == 2
    assert lucid_command("check", tmp_path / "none.zip").exit_code == 1
    assert lucid_command("check", tmp_path).exit_code == 1  # a folder without graph.lir


def test_a_crash_says_where_its_bundle_is(lucid_command, net, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("no such luck")

    monkeypatch.setenv("LUCID_CRASH_DIR", str(tmp_path / "crashes"))
    lowering = importlib.import_module("lucid.codegen.lowering.lower")
    with monkeypatch.context() as patch:
        patch.setattr(lowering, "plan", fail)
        for arguments in (("bench", net), ("ir", net, "--stage", "scheduled"), ("check", net)):
            result = lucid_command(*arguments)
            assert result.exit_code == 1
            assert "no such luck" in result.stderr
            assert str(tmp_path / "crashes" / "small-") in result.stderr
        folder = next((tmp_path / "crashes").iterdir())
        result = lucid_command("check", folder, "--bisect", "--json")
        assert json.loads(result.stdout)["blame"]["stage"] == "schedule"
    assert lucid_command("check", folder, "--bisect").exit_code == 0
