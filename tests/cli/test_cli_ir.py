"""`lucid ir` and `lucid opt`: parts, differences, rewrites, JSON, and folders of stages."""

import json

import pytest
from typer.testing import CliRunner

from lucid.cli import command_line
from lucid.ir.passes import PIPELINE
from lucid.ir.text import parse_graph

SMALL = ("resnest_14", "--size", 64)
TEXT = """graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8], f32[N,4,8,8], f32[N,4,8,8] {
  param @w: f32[4,4,3,3]
  param @v: f32[4,4,1,1]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "body.a"
  %r = relu(%c) : f32[N,4,8,8] at "body.b"
  %d = conv2d(%r, @v) : f32[N,4,8,8] at "head"
  %s = tanh(%d) : f32[N,4,8,8] at "head.act"
  %t = add(%s, %d) : f32[N,4,8,8]
  return %t, %s, %d
}
"""


@pytest.fixture
def ir(lucid_command):
    """`ir("--stage", ...)` of the text above, or of a network given first: what it prints."""

    def run(*arguments, code=0):
        of_text = str(arguments[0]).startswith("--")
        start = ("ir", "-") if of_text else ("ir",)
        result = lucid_command(*start, *arguments, input=TEXT if of_text else None)
        assert result.exit_code == code, result.stderr
        return result.stderr if code else result.stdout

    return run


# -- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["captured", "fold-batch-norm", "fused"])
def test_a_part_of_a_graph_is_a_graph(ir, lucid_command, stage):
    text = ir(*SMALL, "--stage", stage, "--op", "layer1.*")
    graph = parse_graph(text)
    assert {n.origin.split(".")[0] for n in graph.nodes} == {"layer1"}
    assert graph.inputs[0].name == "max_pool2d"
    result = lucid_command("opt", "-", input=text)
    assert result.exit_code == 0, result.stderr
    assert "split_attention(" in result.stdout


def test_a_part_of_a_program_and_its_code(ir):
    scheduled = ir(*SMALL, "--stage", "scheduled", "--op", "layer1.0.conv2.fc1")
    assert scheduled.count("tasks=") == 1
    assert '"layer1.0.conv2.fc1"' in scheduled
    assert "conv1.0.weight" not in scheduled.replace("layer1.0", "")
    # what has no call of its own is done by its readers
    assert '"layer1.0.conv3"' in ir(*SMALL, "--stage", "scheduled", "--op", "%concat")
    # what was fused is found by its old name
    assert '"layer1.0.conv1"' in ir(*SMALL, "--stage", "scheduled", "--op", "layer1.0.bn1")
    whole = ir("--stage", "asm")
    part = ir("--stage", "asm", "--op", "head.act")
    assert 0 < part.count("kernel ") < whole.count("kernel ")


def test_a_part_that_is_none(ir):
    message = ir(*SMALL, "--op", "layer9", code=2)
    assert "layer1" in message
    assert "%d" in ir("--op", "%d*")
    assert "fused" not in ir("--stage", "scheduled", "--op", "head")


# -- differences --------------------------------------------------------------------------------


def test_diff_between_stages(ir):
    text = ir("--diff", "captured..fused")
    assert text.startswith("captured -> fused: ")
    assert '  - %r = relu(%c) : f32[N,4,8,8] at "body.b"\n' in text
    assert "%r at body.a: 2 nodes became one" in text
    assert ir("--diff", "..") == text
    assert "\x1b" not in text
    head = ir("--diff", "captured..fused", "--op", "body")
    assert "%t" not in head
    assert ir("--diff", "drop-dead-parameters").endswith("no difference\n")


def test_diff_of_one_pass(ir):
    text = ir(*SMALL, "--diff", "fuse-split-attention")
    before = PIPELINE[PIPELINE.index("fuse-split-attention") - 1]
    assert text.startswith(f"{before} -> fuse-split-attention: ")
    assert text.count("= split_attention(") == 4
    block = ir(*SMALL, "--diff", "fuse-split-attention", "--op", "layer3.0.conv2")
    assert block.count("= split_attention(") == 1


@pytest.mark.parametrize("no_color", [False, True])
def test_diff_in_colours(monkeypatch, no_color):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    arguments = ["ir", "-", "--diff", "captured..fused"]
    result = CliRunner().invoke(command_line(), arguments, input=TEXT, color=True)
    assert ("\x1b[31m  - %r = relu" in result.stdout) is not no_color
    assert ("\x1b[32m  + %r = fusion" in result.stdout) is not no_color


# -- passes -------------------------------------------------------------------------------------


def test_print_after_changed(ir):
    headings = [line for line in ir("--print-after", "changed").splitlines() if line[0] == "#"]
    assert headings == ["# after fuse-epilogue"]
    text = ir(*SMALL, "--print-after", "all", "--op", "%reshape_1")
    assert text.count("nothing is left of %reshape_1") == len(PIPELINE)


def test_trace_rewrites(ir):
    text = ir("--trace-rewrites")
    assert "fuse-epilogue: 1 rewrite, 2 near misses" in text
    assert "1. into_body (lucid/ir/passes/fuse_epilogue.py:" in text
    assert "? tanh %s at head.act: %d is read elsewhere too" in text
    found = json.loads(ir("--trace-rewrites", "--format", "json", "--op", "head"))
    assert found["rewrites"] == []
    assert [m["value"] for m in found["near_misses"]] == ["s"]
    found = json.loads(ir(*SMALL, "--trace-rewrites", "--format", "json"))
    rules = {(r["pass_name"], r["rule"]) for r in found["rewrites"]}
    assert {("fold-batch-norm", "into_weights"), ("fuse-epilogue", "into_body")} < rules
    assert all("with ceil_mode" in m["reason"] for m in found["near_misses"])


# -- JSON, folders ------------------------------------------------------------------------------


def test_json(ir):
    graph = json.loads(ir("--stage", "captured", "--format", "json"))
    assert [n["op"] for n in graph["nodes"]] == ["conv2d", "relu", "conv2d", "tanh", "add"]
    program = json.loads(ir("--stage", "scheduled", "--format", "json", "--batch", 2))
    assert program["batch"] == 2
    assert [c["origin"] for c in program["calls"]][:2] == ["body.a", "head"]
    code = json.loads(ir("--stage", "llvm", "--format", "json", "--op", "head.act"))
    assert "define void" in code[0]["code"]
    after = json.loads(ir("--print-after", "changed", "--format", "json"))
    assert list(after) == ["fuse-epilogue"]
    changes = json.loads(ir("--diff", "fuse-epilogue", "--format", "json"))["changes"]
    assert [c["kind"] for c in changes] == ["fused"]


@pytest.mark.parametrize(("form", "suffix"), [("text", "lir"), ("json", "json")])
def test_every_stage_in_a_folder(ir, tmp_path, form, suffix):
    folder = tmp_path / "new" / "stages"
    ir("--dump-dir", folder, "--format", form, "--op", "body")
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == f"00-captured.{suffix}"
    assert [n.partition(".")[0][3:] for n in names[-4:]] == ["fused", "scheduled", "llvm", "asm"]
    if form == "text":
        assert str(parse_graph((folder / names[0]).read_text())) == (folder / names[0]).read_text()
        assert names[-1].endswith("asm.s")
    else:
        assert all(json.loads(path.read_text()) for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--diff", "captured..asm"), "no stage is named"),
        (("--diff", "captured"), "is no pass"),
        (("--diff", "a..b", "--stage", "fused"), "different questions"),
        (("--print-after", "change"), "did you mean changed"),
        (("--format", "yaml"), "json"),
        (("--trace-rewrites", "--op", "nobody"), "nothing matches"),
        (("--dump-dir", "x", "--op", "nobody"), "nothing matches"),
    ],
)
def test_mistakes(ir, arguments, part):
    assert part in ir(*arguments, code=2)


# -- lucid opt ----------------------------------------------------------------------------------


def test_opt_through_a_pipe(ir, lucid_command):
    captured = ir(*SMALL, "--stage", "captured")
    result = lucid_command("opt", "-", "-p", "fold-batch-norm,fuse-epilogue", input=captured)
    assert result.exit_code == 0, result.stderr
    assert "= batch_norm(" not in result.stdout
    assert "fusion(" in result.stdout
    again = lucid_command("opt", "-p", "", input=result.stdout)
    assert again.stdout == result.stdout


def test_opt_reports(lucid_command, tmp_path):
    out = tmp_path / "out.lir"
    result = lucid_command("opt", "--diff", "-o", out, input=TEXT)
    assert result.stdout.startswith("before -> after: 2 nodes fused into 1")
    assert "fusion(" in out.read_text()
    result = lucid_command("opt", "-p", "fuse-epilogue", "--trace-rewrites", input=TEXT)
    assert result.stdout.startswith("fuse-epilogue: 1 rewrite, 2 near misses")
    arguments = ("opt", "-p", "fuse-epilogue", "--format", "json")
    found = json.loads(lucid_command(*arguments, "--trace-rewrites", input=TEXT).stdout)
    assert found["passes"] == ["fuse-epilogue"]
    assert json.loads(lucid_command(*arguments, input=TEXT).stdout)["nodes"][0]["op"] == "fusion"
    result = lucid_command("opt", "--diff", "--trace-rewrites", input=TEXT)
    assert result.exit_code == 2
