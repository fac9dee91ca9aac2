"""`lucid explain`"""

import json
import re

import pytest

NET = """\
graph small(%x: f32[N,3,12,12]) -> f32[N,8,12,12] {
  param @w: f32[8,3,3,3]
  %conv = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,8,12,12] at "body.conv"
  %act = relu(%conv) : f32[N,8,12,12] at "body.act"
  return %act
}
"""


def test_a_block_for_people(lucid_command):
    arguments = ("explain", "resnest_14", "--size", 64, "--threads", 2, "--op", "layer2.0")
    result = lucid_command(*arguments)
    assert result.exit_code == 0, result.stderr
    first, *lines = result.stdout.splitlines()
    assert first.startswith("resnest_14 for 1x3x64x64, ")
    assert "2 threads" in first
    headings = [line for line in lines if line.startswith("layer")]
    assert all(line.startswith("layer2.0.") for line in headings)
    assert len(headings) == 7
    assert "with ceil_mode" in result.stdout
    assert "fused in  batch_norm layer2.0.bn1, relu layer2.0.relu" in result.stdout


def test_json_of_ir_text_for_another_target(lucid_command, tmp_path):
    file, out = tmp_path / "net.lir", tmp_path / "why.json"
    file.write_text(NET)
    result = lucid_command("explain", file, "--json", "--target", "aarch64", "-o", out)
    assert result.exit_code == 0, result.stderr
    found = json.loads(out.read_text())
    assert found["target"] == "aarch64"
    (node,) = found["nodes"]
    assert node["fused"] == ["relu body.act"]
    assert set(node["kernel"]["modelled"]) == {"direct", "winograd2x2", "winograd4x4"}


def test_forced_kernels_and_schedules(lucid_command, tmp_path):
    forced = lucid_command("explain", "-", "--kernel", "body.*=winograd2x2", input=NET)
    assert re.search(r"kernel    winograd2x2, \d+ tiles: forced by .* 'body\.\*'", forced.stdout)
    schedule = tmp_path / "schedule.json"
    schedule.write_text('{"act": {"kernel": "direct"}}')
    given = lucid_command("explain", "-", "--schedule", schedule, input=NET)
    assert "kernel    direct: the given schedule says so" in given.stdout


@pytest.mark.parametrize(
    ("arguments", "part", "code"),
    [
        (("--op", "nobody"), "nothing matches", 2),
        (("--kernel", "direct"), "PATTERN=NAME", 2),
        (("--kernel", "body.*=winograd"), "did you mean winograd", 2),
        (("--kernel", "body.*=pointwise"), "it may have direct", 1),
        (("--precision", "sloppy"), "precision is one of", 1),
        (("--schedule", "nowhere.json"), "No such file", 1),
    ],
)
def test_mistakes(lucid_command, arguments, part, code):
    result = lucid_command("explain", "-", *arguments, input=NET)
    assert result.exit_code == code
    assert part in result.stderr


def test_threads_are_a_number_or_auto(lucid_command, tmp_path, monkeypatch):
    file = tmp_path / "net.lir"
    file.write_text(NET)
    monkeypatch.setenv("LUCID_NUM_THREADS", "3")
    assert "3 threads" in lucid_command("explain", file, "--threads", "auto").stdout
    for wrong in ("0", "-1", "many", "1.5"):
        result = lucid_command("explain", file, f"--threads={wrong}")
        assert result.exit_code == 2
        assert "neither a positive number nor 'auto'" in result.stderr
