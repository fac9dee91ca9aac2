"""`lucid memory`"""

import json

NET = """\
graph small(%x: f32[N,3,12,12]) -> f32[N,4,12,12] {
  param @v: f32[8,3,3,3]
  param @w: f32[4,8,1,1]
  %wide = conv2d(%x, @v) {padding=(1,1,1,1)} : f32[N,8,12,12] at "body.wide"
  %narrow = conv2d(%wide, @w) : f32[N,4,12,12] at "body.narrow"
  return %narrow
}
"""


def test_text_and_picture(lucid_command, tmp_path):
    plan = tmp_path / "plan.svg"
    result = lucid_command("memory", "resnest_14", "--size", 64, "--threads", 2, "-o", plan)
    assert result.exit_code == 0, result.stderr
    assert "lower bound" in result.stdout
    assert "layer1.0.conv2.fc1" in result.stdout
    assert plan.read_text().startswith("<svg")


def test_json_for_another_target(lucid_command, tmp_path):
    net = tmp_path / "net.lir"
    net.write_text(NET)
    result = lucid_command("memory", net, "--target", "aarch64", "--batch", 2, "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["peak"] == answer["bound"]
    sizes = {place["origin"]: place["bytes"] for place in answer["places"]}
    assert sizes["body.wide"] == 4 * 2 * 8 * 144
    assert ["body.narrow"] in [phase["origins"] for phase in answer["phases"]]


def test_mistakes(lucid_command):
    result = lucid_command("memory", "resnest_14", "-o", "plan.png")
    assert result.exit_code == 2
    assert ".svg" in result.stderr
    assert lucid_command("memory", "resnest_13").exit_code == 1
    assert lucid_command("memory", "resnest_14", "--target", "pdp-11").exit_code == 1
