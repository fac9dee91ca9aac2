"""`lucid quantize`."""

import json

import numpy as np
import pytest
from PIL import Image

NET = """graph net(%x: f32[N,1,8,8]) -> f32[N,4] {
  param @conv.weight: f32[6,1,3,3]
  param @fc.weight: f32[4,6]
  %c = conv2d(%x, @conv.weight) {padding=(1,1,1,1)} : f32[N,6,8,8] at "conv"
  %r = relu(%c) : f32[N,6,8,8] at "act"
  %m = mean(%r) {axes=(2,3)} : f32[N,6]
  %y = linear(%m, @fc.weight) : f32[N,4] at "fc"
  return %y
}
"""


@pytest.fixture
def net(tmp_path):
    """A small network in a file, and a folder of images for it."""
    path, images = tmp_path / "net.lir", tmp_path / "images"
    path.write_text(NET)
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        pixels = generator.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    return path, images


def test_a_summary_and_the_report(lucid_command, net):
    result = lucid_command("quantize", *net, "--random-weights", "--report")
    assert result.exit_code == 0
    assert "2 of 2 layers multiply int8" in result.stdout
    assert {"conv", "fc"} <= {line.split()[0] for line in result.stdout.splitlines() if line}
    assert not result.stderr


def test_json_and_a_page(lucid_command, net, tmp_path):
    page = tmp_path / "page.html"
    result = lucid_command("quantize", *net, "--random-weights", "--json", "--page", page)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert [layer["origin"] for layer in told["layers"]] != []
    assert " dB" in page.read_text(encoding="utf-8")
    report = tmp_path / "report.json"
    report.write_text(result.stdout)
    drawn = tmp_path / "net.svg"
    assert lucid_command("viz", net[0], "-o", drawn, "--noise", report).exit_code == 0
    assert " dB" in drawn.read_text(encoding="utf-8")


def test_budget_and_ignored_layers(lucid_command, net):
    result = lucid_command(
        "quantize", *net, "--random-weights", "--json", "--ignore", "fc", "--budget", "snr>=300"
    )
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert [(row["origin"], row["dtype"]) for row in told["layers"]] == [("conv", "float32")]
    assert told["float_work"] == 1


def test_a_compiled_file(lucid_command, net, tmp_path):
    output = tmp_path / "net.lucid"
    result = lucid_command("quantize", *net, "--random-weights", "-o", output)
    assert result.exit_code == 0
    image = net[1] / "0.png"
    runs = [lucid_command("run", m, image, "--random-weights", "--json") for m in (net[0], output)]
    first, second = (json.loads(run.stdout)["images"][0]["top"] for run in runs)
    assert first[0]["class"] == second[0]["class"]
    assert first[0]["probability"] == pytest.approx(second[0]["probability"], abs=0.02)


def test_a_file_of_onnx(lucid_command, net, tmp_path):
    """From a file to a file, which is run as it is."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    plain, small = tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    assert lucid_command("export", net[0], "-o", plain, "--random-weights").exit_code == 0
    result = lucid_command("quantize", plain, net[1], "-o", small, "--random-weights")
    assert result.exit_code == 0
    assert str(small) in result.stderr
    operators = [node.op_type for node in onnx.load(small).graph.node]
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= set(operators)
    run = lucid_command("run", small, net[1] / "0.png", "--random-weights", "--json")
    assert run.exit_code == 0
    again = lucid_command("quantize", small, net[1], "--random-weights")
    assert again.exit_code == 1
    assert "quantised already" in again.stderr


def test_images_that_cannot_be_read_are_named(lucid_command, net):
    (net[1] / "broken.png").write_bytes(b"no image")
    result = lucid_command("quantize", *net, "--random-weights")
    assert result.exit_code == 0
    assert result.stderr.count("broken.png") == 1
    for path in net[1].glob("[0-9].png"):
        path.unlink()
    result = lucid_command("quantize", *net, "--random-weights")
    assert result.exit_code == 1
    assert "batches is empty" in result.stderr
    assert "broken.png" in result.stderr


def test_random_weights_are_told(lucid_command, net):
    assert "means nothing" in lucid_command("quantize", *net).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("-o", "net.txt"), 2, ".onnx or .lucid"),
        (("--page", "page.svg"), 2, ".html"),
        (("--method", "mean"), 1, "method is one of"),
        (("--budget", "good"), 1, "budget is"),
        (("--ignore", "layer9"), 1, "no module matches 'layer9'"),
        (("--preprocess", "mean"), 2, "KEY=VALUE"),
    ],
)
def test_what_is_refused(lucid_command, net, arguments, code, says):
    result = lucid_command("quantize", *net, "--random-weights", *arguments)
    assert result.exit_code == code
    assert says in result.stderr


def test_models_of_several_inputs_are_refused(lucid_command, net, tmp_path):
    path = tmp_path / "two.lir"
    path.write_text(
        "graph two(%a: f32[N,4], %b: f32[N,4]) -> f32[N,4] {\n"
        "  %y = add(%a, %b) : f32[N,4]\n  return %y\n}\n"
    )
    result = lucid_command("quantize", path, net[1])
    assert result.exit_code == 1
    assert "has 2 inputs" in result.stderr
