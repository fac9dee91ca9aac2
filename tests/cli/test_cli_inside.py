"""`lucid ir`, `opt`, `viz` and `bench`."""

import json

import pytest

from lucid.ir.passes import PIPELINE
from lucid.ir.text import parse_graph

SMALL = ("resnest_14", "--size", 64)
TEXT = """graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8] {
  param @w: f32[4,4,3,3]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "a"
  %r = relu(%c) : f32[N,4,8,8] at "b"
  return %r
}
"""


@pytest.mark.parametrize("stage", ["captured", "canonical", *PIPELINE, "fused"])
def test_graph_stages_read_back(lucid_command, stage):
    result = lucid_command("ir", *SMALL, "--stage", stage)
    assert result.exit_code == 0, result.stderr
    graph = parse_graph(result.stdout)
    assert graph.inputs[0].type.shape[1:] == (3, 64, 64)
    assert str(graph) == result.stdout


@pytest.mark.parametrize(
    ("stage", "part"),
    [("scheduled", "phase 0 threads="), ("llvm", "define void"), ("asm", ".globl")],
)
def test_code_stages(lucid_command, stage, part):
    result = lucid_command("ir", "-", "--stage", stage, "--batch", 2, input=TEXT)
    assert result.exit_code == 0, result.stderr
    assert part in result.stdout
    assert stage != "scheduled" or "batch=2" in result.stdout


def test_the_program_of_a_network(lucid_command):
    assert "combine" in lucid_command("ir", *SMALL, "--stage", "scheduled").stdout


def test_code_for_another_machine(lucid_command, tmp_path):
    file = tmp_path / "small.lir"
    file.write_text(TEXT)
    result = lucid_command("ir", file, "--stage", "asm", "--target", "aarch64")
    assert result.exit_code == 0, result.stderr
    assert "fmla" in result.stdout
    result = lucid_command("ir", file, "--target", "z80")
    assert result.exit_code == 1
    assert "aarch64" in result.stderr


def test_print_after(lucid_command):
    result = lucid_command("ir", *SMALL, "--print-after", "all")
    headings = [line for line in result.stdout.splitlines() if line.startswith("# after")]
    assert headings == [f"# after {name}" for name in PIPELINE]
    result = lucid_command("ir", *SMALL, "--print-after", "fold-batch-norm")
    assert "= batch_norm(" not in result.stdout
    assert "= relu(" in result.stdout


def test_disable(lucid_command):
    result = lucid_command("ir", *SMALL, "--disable", "fuse-epilogue")
    assert "= relu(" in result.stdout
    assert "fusion(" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("ir", "resnest_14", "--stage", "fusd"), "did you mean fused"),
        (("ir", "resnest_14", "--print-after", "fold"), "fold-batch-norm"),
        (("ir", "resnest_14", "--disable", "no-pass"), "no pass is named"),
        (("viz", "resnest_14", "-o", "g.dot", "--stage", "asm"), "no stage is named"),
        (("viz", "resnest_14", "-o", "g.gif"), ".svg, .png, .pdf, .html, .dot, .json"),
        (("opt", "x.lir", "-p", "fuse"), "no pass is named"),
    ],
)
def test_unknown_names_are_usage_errors(lucid_command, arguments, part):
    result = lucid_command(*arguments)
    assert result.exit_code == 2
    assert part in result.stderr


def test_opt_reads_and_writes_text(lucid_command, tmp_path):
    result = lucid_command("opt", "-", "-p", "fuse-epilogue", input=TEXT)
    assert result.exit_code == 0, result.stderr
    assert "fusion(%x, @w)" in result.stdout
    assert lucid_command("opt", "-p", "", input=TEXT).stdout == TEXT
    file, out = tmp_path / "a.lir", tmp_path / "b.lir"
    file.write_text(TEXT)
    result = lucid_command("opt", file, "-p", "canonicalise,fuse-epilogue", "-o", out)
    assert result.stdout == ""
    assert "fusion(%x, @w)" in out.read_text()


def test_text_that_is_none(lucid_command, tmp_path):
    result = lucid_command("opt", input="graph broken(")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    file = tmp_path / "binary.lir"
    file.write_bytes(b"\xff\xfe\x00")
    assert "not text" in lucid_command("opt", file).stderr
    undeclared = TEXT.replace("relu(%c)", "relu(%nobody)")
    result = lucid_command("opt", input=undeclared)
    assert result.exit_code == 1
    assert "nobody" in result.stderr


def test_pictures(lucid_command, tmp_path):
    dot, explorer = tmp_path / "g.dot", tmp_path / "g.json"
    assert lucid_command("viz", *SMALL, "-o", dot).exit_code == 0
    assert lucid_command("viz", *SMALL, "-o", explorer, "--stage", "captured").exit_code == 0
    assert dot.read_text().startswith('digraph "resnest_14"')
    assert len(json.loads(explorer.read_text())[0]["nodes"]) > 100
    result = lucid_command("viz", *SMALL, "-o", tmp_path / "no" / "folder.dot")
    assert result.exit_code == 1
    assert "there is no folder" in result.stderr


def test_bench(lucid_command):
    result = lucid_command("bench", *SMALL, "--batch", 2, "--runs", 3, "--threads", 1, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["inputs"] == {"x": [2, 3, 64, 64]}
    assert len(found["times_ms"]) == 3
    assert 0 < found["min_ms"] <= found["median_ms"] <= found["p90_ms"]
    assert sum(a["gflop"] for a in found["algorithms"]) == pytest.approx(found["gflop"])
    assert found["gflops"] / found["peak_gflops"] == pytest.approx(found["share_of_peak"])


def test_bench_for_people(lucid_command, model_file):
    result = lucid_command("bench", f"{model_file}:dense", "--runs", 2)
    assert result.exit_code == 0, result.stderr
    assert "1x5" in result.stdout
    assert "measured peak" in result.stdout
    result = lucid_command("bench", f"{model_file}:dense", "--size", 32)
    assert result.exit_code == 1
    assert "takes vectors" in result.stderr


def test_bench_of_ir_text_generates_weights(lucid_command):
    result = lucid_command("bench", "-", "--runs", 2, "--json", input=TEXT)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["inputs"] == {"x": [1, 4, 8, 8]}
    result = lucid_command("bench", "-", "--size", 16, input=TEXT)
    assert result.exit_code == 1
    assert "one size" in result.stderr
