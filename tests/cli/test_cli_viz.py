"""`lucid viz` in every form, on networks and on IR text."""

import json

import pytest

SMALL = ("resnest_14", "--size", 64)
TEXT = """graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8] {
  param @w: f32[4,4,3,3]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "a"
  %r = relu(%c) : f32[N,4,8,8] at "b"
  return %r
}
"""


def drawn(lucid_command, path, *arguments, **options):
    result = lucid_command("viz", *arguments, "-o", path, **options)
    assert result.exit_code == 0, result.stderr
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", ["svg", "html", "dot", "json"])
def test_every_form_of_text_and_of_a_network(lucid_command, tmp_path, ending):
    assert "conv2d" in drawn(lucid_command, tmp_path / f"t.{ending}", "-", input=TEXT)
    assert "split_attention" in drawn(lucid_command, tmp_path / f"n.{ending}", *SMALL)


def test_a_part_at_a_stage(lucid_command, tmp_path):
    arguments = (*SMALL, "--op", "layer1.0", "--stage", "captured")
    text = drawn(lucid_command, tmp_path / "g.svg", *arguments)
    assert "resnest_14: layer1.0, captured" in text
    assert "batch_norm" in text
    assert "layer2" not in text.replace("to layer2.0", "")
    text = drawn(lucid_command, tmp_path / "h.svg", *SMALL, "--op", "*.bn1")  # by what it came from
    assert "conv2d + relu" in text


def test_a_slide(lucid_command, tmp_path):
    arguments = (*SMALL, "--depth", "2", "--direction", "right")
    text = drawn(lucid_command, tmp_path / "g.svg", *arguments)
    assert "layer1.0" in text
    assert "split_attention" not in text
    assert "rankdir=LR" in drawn(lucid_command, tmp_path / "g.dot", *SMALL, "--direction", "right")
    assert '"depth":2' in drawn(lucid_command, tmp_path / "g.html", *SMALL, "--depth", "2")


@pytest.mark.parametrize(
    ("ending", "option"),
    [("json", "--depth=1"), ("dot", "--depth=1"), ("html", "--direction=right")],
)
def test_options_that_a_form_does_not_know(lucid_command, tmp_path, ending, option):
    result = lucid_command("viz", *SMALL, "-o", tmp_path / f"g.{ending}", option)
    assert result.exit_code == 2
    assert option.partition("=")[0] in result.stderr


def test_a_pattern_that_matches_nothing(lucid_command, tmp_path):
    result = lucid_command("viz", *SMALL, "--op", "layer9", "-o", tmp_path / "g.html")
    assert result.exit_code == 2
    assert "layer4" in result.stderr


def test_times(lucid_command, tmp_path):
    profile = tmp_path / "p.json"
    profile.write_text(json.dumps({"calls": [{"origin": "layer1.0.conv2.fc1", "ms": 0.25}]}))
    arguments = (*SMALL, "--profile", profile)
    assert "0.25 ms" in drawn(lucid_command, tmp_path / "g.svg", *arguments)
    assert "0.25 ms" in drawn(lucid_command, tmp_path / "g.html", *arguments)
    profile.write_text("no profile")
    result = lucid_command("viz", *arguments, "-o", tmp_path / "g.svg")
    assert result.exit_code == 1
    assert "a profile is JSON" in result.stderr


def test_a_real_profile(lucid_command, tmp_path):
    result = lucid_command("profile", *SMALL, "--json")
    assert result.exit_code == 0, result.stderr
    profile = tmp_path / "p.json"
    profile.write_text(result.stdout)
    text = drawn(lucid_command, tmp_path / "g.svg", *SMALL, "--profile", profile)
    assert text.count(" us</text>") + text.count(" ms</text>") > 15


def test_the_page_opens_at_the_stage(lucid_command, tmp_path):
    text = drawn(lucid_command, tmp_path / "g.html", *SMALL, "--stage", "fold-batch-norm")
    assert '"first":2' in text
    arguments = (*SMALL, "--disable", "fold-scales", "--stage", "fold-scales")
    assert lucid_command("viz", *arguments, "-o", tmp_path / "g.html").exit_code == 2


def test_what_cannot_be_compiled_is_drawn(lucid_command, tmp_path):
    text = "graph g(%x: f32[N,4], %y: f32[N,4]) -> f32[N,4] {\n"
    text += "  %z = add(%x, %y) : f32[N,4]\n  return %z\n}\n"
    assert "add" in drawn(lucid_command, tmp_path / "g.html", "-", input=text)
