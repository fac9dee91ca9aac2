"""Graphs of any signature on the command line: no batch, a batch in some inputs, host ops."""

import json

import numpy as np
import pytest

from lucid.codegen.lowering.context import LOWERINGS
from lucid.errors import HostOpsWarning
from lucid.ir.ops import Softmax

TEXTS = {
    "fixed": "(%x: f32[4,3], %s: f32[]) -> f32[4,3] { %y = mul(%x, %s) : f32[4,3] return %y }",
    "table": "(%x: f32[N,3], %t: f32[3]) -> f32[N,3] { %y = add(%x, %t) : f32[N,3] return %y }",
    "none": "() -> f32[4] { param @w: f32[4] %y = relu(@w) : f32[4] return %y }",
}
COMMANDS = [
    ("explain",),
    ("check",),
    ("ir", "--stage", "scheduled"),
    ("profile", "--runs", 1, "--threads", 1),
    ("memory",),
    ("bench", "--runs", 1, "--threads", 1),
]
ADDED = """<ir_version: 9, opset_import: ["" : 18]>
added (float[N, 3] x, float[N, 3] t) => (float[N, 3] y) { y = Add(x, t) }
"""
HOSTED = """graph hosted(%x: f32[N,3,8,8]) -> f32[N,4,8,8] {
  param @w: f32[4,3,1,1]
  %c = conv2d(%x, @w) : f32[N,4,8,8] at "conv"
  %s = softmax(%c) {axis=1} : f32[N,4,8,8] at "probabilities"
  %y = relu(%s) : f32[N,4,8,8] at "relu"
  return %y
}
"""


@pytest.mark.parametrize("name", TEXTS)
def test_graphs_of_any_signature(lucid_command, tmp_path, name):
    net = tmp_path / "net.lir"
    net.write_text(f"graph {name}{TEXTS[name]}")
    for command, *options in COMMANDS:
        result = lucid_command(command, net, *options)
        assert result.exit_code == 0, (command, result.stderr)
    saved = tmp_path / "net.lucid"
    assert lucid_command("compile", net, "-o", saved, "--random-weights").exit_code == 0
    assert lucid_command("explain", saved).exit_code == 0


def test_how_a_batch_is_run(lucid_command, tmp_path):
    net = tmp_path / "net.lir"
    net.write_text(f"graph table{TEXTS['table']}")
    result = lucid_command("explain", net, "--batch", 5)
    assert result.stdout.startswith("table for 5x3, 3, ")
    assert "batch: rows are independent, run in slices of 16" in result.stdout


def test_host_ops_are_shown(lucid_command, tmp_path, monkeypatch):
    monkeypatch.delitem(LOWERINGS, Softmax)
    net = tmp_path / "net.lir"
    net.write_text(HOSTED)
    assert "host op, by its reference" in lucid_command("explain", net).stdout
    assert lucid_command("ir", net, "--stage", "scheduled").stdout.count("program ") == 2
    assert lucid_command("memory", net).exit_code == 0
    assert "4 of 4 kernel calls" in lucid_command("check", net).stdout
    assert "nothing is wrong" in lucid_command("check", net, "--bisect").stdout
    with pytest.warns(HostOpsWarning, match="softmax in probabilities"):
        result = lucid_command("profile", net, "--runs", 1, "--json")
    calls = json.loads(result.stdout)["calls"]
    assert [call["origin"] for call in calls if call["algorithm"] == "host"] == ["probabilities"]
    page = tmp_path / "net.html"
    assert lucid_command("viz", net, "-o", page).exit_code == 0
    assert "N×4×8×8 host" in page.read_text()


def test_an_onnx_file_of_several_inputs(lucid_command, tmp_path):
    onnx = pytest.importorskip("onnx")
    net = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(ADDED), net)
    for command, *options in COMMANDS:
        for sizes in ((), ("--batch", 3)):
            result = lucid_command(command, net, *options, *sizes)
            assert result.exit_code == 0, (command, result.stderr)
    saved = tmp_path / "net.lucid"
    assert lucid_command("compile", net, "-o", saved).exit_code == 0
    table = tmp_path / "x.npy"
    np.save(table, np.zeros((1, 3), np.float32))
    for model in (net, saved):
        result = lucid_command("run", model, table)
        assert result.exit_code == 1
        assert "has 2 inputs, and `lucid run` gives images to one; call the model" in result.stderr
