"""`lucid profile`"""

import json

import pytest

NET = """\
graph small(%x: f32[N,3,12,12]) -> f32[N,8,12,12] {
  param @w: f32[8,3,3,3]
  param @b: f32[8]
  %conv = conv2d(%x, @w, @b) {padding=(1, 1, 1, 1)} : f32[N,8,12,12] at "body.conv"
  %act = relu(%conv) : f32[N,8,12,12] at "body.act"
  return %act
}
"""


@pytest.mark.parametrize("by", ["kernel", "module"])
def test_table_and_trace(lucid_command, tmp_path, by):
    trace = tmp_path / "t.json"
    arguments = ("profile", "resnest_14", "--size", 64, "--threads", 2, "--runs", 2)
    result = lucid_command(*arguments, "--by", by, "--trace", trace)
    assert result.exit_code == 0, result.stderr
    assert "layer1.0.conv2.fc1" in result.stdout
    assert "barriers ms" in result.stdout
    events = json.loads(trace.read_text())["traceEvents"]
    # Who comes late on a busy machine finds nothing to do, be it the caller.
    threads = {e["tid"] for e in events if e["ph"] == "X"}
    assert threads
    assert threads <= {0, 1}


def test_ir_text_as_json(lucid_command, tmp_path):
    net = tmp_path / "net.lir"
    net.write_text(NET)
    result = lucid_command("profile", net, "--runs", 1, "--threads", 1, "--batch", 2, "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["inputs"] == {"x": [2, 3, 12, 12]}
    assert [c["origin"] for c in answer["calls"]] == ["body.conv", "output"]
    assert [m["module"] for m in answer["modules"]] == ["", "body", "body.conv", "output"]


def test_mistakes(lucid_command):
    assert lucid_command("profile", "resnest_13").exit_code == 1
    assert lucid_command("profile", "resnest_14", "--by", "moon").exit_code == 2
    assert lucid_command("profile", "resnest_14", "--runs", 0).exit_code == 2
