"""sink-concats: batch norms and elementwise ops move into the parts of a concatenation."""

import pytest
from pass_checks import after, missed, with_payload

from lucid.ir.passes import run_passes

PASS = "sink-concats"
C = "f32[N,5,4,4]"


def graph(
    *lines: str, results: str = C, returns: str = "%y", second: str = "conv2d(%x, @v)"
) -> str:
    nodes = "\n".join(line if " : " in line else f"{line} : {C}" for line in lines)
    norm = "\n".join(f"param @{name}: f32[5]" for name in ("g", "b", "m", "s"))
    return f"""graph g(%x: f32[N,3,4,4], %r: {C}, %p: f32[N,5,1,1]) -> {results} {{
      param @w: f32[3,1,1,1]
      param @v: f32[2,3,1,1]
      {norm}
      %a = conv2d(%x, @w) {{groups=3}} : f32[N,3,4,4]
      %c = {second} : f32[N,2,4,4]
      %j = concat(%a, %c) {{axis=1}} : {C}
      {nodes}
      return {returns}
    }}"""


NORM = "%n = batch_norm(%j, @g, @b, @m, @s)"


def test_a_mixed_convolution():
    text = graph(NORM, "%y = silu(%n)")
    ops = ["conv2d", "conv2d", "batch_norm", "batch_norm", "silu", "silu", "concat"]
    result = after(PASS, text, ops)
    fused = run_passes(result, ["fold-batch-norm", "fuse-epilogue", "drop-dead-parameters"])
    assert [n.op.name for n in fused.nodes] == ["fusion", "fusion", "concat"]


@pytest.mark.parametrize(
    ("line", "ops"),
    [
        ("add(%j, %r)", ["slice", "add", "slice", "add"]),
        ("sub(%r, %j)", ["slice", "sub", "slice", "sub"]),
        ("mul(%j, %p)", ["slice", "mul", "slice", "mul"]),
        ("mul(%j, @scale)", ["mul", "mul"]),
        ("mul(%j, @row)", ["mul", "mul"]),
        ("mul(%j, %j)", ["mul", "mul"]),
    ],
)
def test_operands_are_cut(line, ops):
    text = graph(f"%y = {line}").replace(
        "param @w:", "param @scale: f32[5,1,1]\nparam @row: f32[4]\nparam @w:"
    )
    after(PASS, text, ["conv2d", "conv2d", *ops, "concat"])


def test_concatenations_cut_alike_meet_part_by_part():
    other = "%k = concat(%e, %f) {axis=1}"
    first = "%e = conv2d(%x, @w) {groups=3} : f32[N,3,4,4]"
    second = "%f = conv2d(%x, @v) : f32[N,2,4,4]"
    text = graph(first, second, other, "%y = add(%j, %k)")
    after(PASS, text, ["conv2d"] * 4 + ["add", "add", "concat"])


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (graph(NORM, "%y = relu(%n)", returns="%y, %j", results=f"{C}, {C}"), []),
        (graph(NORM, returns="%n", second="max(%x) {axes=(1), keepdims=true}")
         .replace("%c = max(%x) {axes=(1), keepdims=true} : f32[N,2,4,4]",
                  "%c = slice(%x) {axis=1, start=0, stop=2} : f32[N,2,4,4]"),
         ["%c is not made by a layer for this alone"]),
        (graph("%y = relu(%j)", returns="%y, %a", results=f"{C}, f32[N,3,4,4]"),
         ["most of %j is not made by layers for this alone"]),
    ],
)  # fmt: skip
def test_what_stays(text, reasons):
    assert missed(PASS, text) == reasons


def test_half_of_a_ghost_module_is_enough():
    """The primary convolution is read by the cheap one as well."""
    text = """graph g(%x: f32[N,3,4,4], %r: f32[N,6,4,4]) -> f32[N,6,4,4] {
      param @w: f32[3,3,1,1]
      param @v: f32[3,1,3,3]
      %a = conv2d(%x, @w) : f32[N,3,4,4]
      %c = conv2d(%a, @v) {groups=3, padding=(1,1,1,1)} : f32[N,3,4,4]
      %j = concat(%a, %c) {axis=1} : f32[N,6,4,4]
      %y = add(%j, %r) : f32[N,6,4,4]
      return %y
    }"""
    after(PASS, text, ["conv2d", "conv2d", "slice", "add", "slice", "add", "concat"])
    fused = run_passes(with_payload(text), [PASS, "fuse-epilogue"])
    assert [n.op.name for n in fused.nodes].count("fusion") == 1
