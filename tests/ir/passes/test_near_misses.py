"""Rules say why they did not fire where a reader would wonder, and nothing elsewhere."""

import pytest

from lucid import models
from lucid.frontend.trace import trace
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph

X = "f32[N,4,8,8]"
NORM = "".join(f"param @{name}: f32[4]\n" for name in ("g", "b", "m", "v"))
CONV = f"param @w: f32[4,4,1,1]\n%c = conv2d(%x, @w) : {X}\n"


def graph(*lines: str, returns: str = "%r", inputs: str = f"%x: {X}", results: str = X):
    body = "\n".join(lines)
    return parse_graph(f"graph g({inputs}) -> {results} {{\n{body}\nreturn {returns}\n}}")


def near_misses(name: str, given):
    misses, log = [], []
    run_passes(given, [name], log=log, misses=misses)
    return [f"{m.op} %{m.value}: {m.reason}" for m in misses]


def test_batch_norms():
    norm = f"%n = batch_norm(%c, @g, @b, @m, @v) : {X}"
    assert near_misses("fold-batch-norm", graph(NORM, CONV, norm, returns="%n")) == []
    twice = graph(NORM, CONV, norm, f"%r = add(%n, %c) : {X}")
    assert near_misses("fold-batch-norm", twice) == ["batch_norm %n: %c is read elsewhere too"]
    first = graph(NORM, norm.replace("%c", "%x"), returns="%n")
    assert near_misses("fold-batch-norm", first) == [
        "batch_norm %n: %x, which it normalises, is made by no conv2d or linear"
    ]


def test_epilogues():
    relu = f"%r = relu(%c) : {X}"
    assert near_misses("fuse-epilogue", graph(CONV, relu)) == []
    assert near_misses("fuse-epilogue", graph(f"%r = relu(%x) : {X}")) == []
    both = graph(CONV, relu, returns="%r, %c", results=f"{X}, {X}")
    assert near_misses("fuse-epilogue", both) == ["relu %r: %c is read elsewhere too"]
    plane = "param @p: f32[8,8]"
    assert near_misses("fuse-epilogue", graph(plane, CONV, f"%r = add(%c, @p) : {X}")) == [
        f"add %r: an epilogue of {X} cannot read @p: f32[8,8] beside it"
    ]
    wide = graph(
        CONV,
        "%r = add(%c, %y) : f32[N,4,8,8]",
        inputs=f"%x: {X}, %y: {X}",
    )
    assert near_misses("fuse-epilogue", wide) == []


def test_divisors():
    weight, conv = "param @w: f32[4,4,1,1]", f"%r = conv2d(%p, @w) : {X}"

    def pool(more: str = "") -> str:
        window = "kernel=(3,3), stride=(1,1), padding=(1,1,1,1)"
        return f"%p = avg_pool2d(%x) {{{window}{more}}} : {X}"

    assert near_misses("fold-scales", graph(weight, pool(), conv)) == []
    assert near_misses("fold-scales", graph(pool(), returns="%p")) == []
    rim = graph(weight, pool(", count_include_pad=false"), conv)
    assert near_misses("fold-scales", rim) == [
        "avg_pool2d %p: padding does not count, so windows at the rim have another divisor"
    ]
    both = graph(weight, pool(), conv, f"%s = add(%r, %p) : {X}", returns="%s")
    assert near_misses("fold-scales", both) == ["avg_pool2d %p: %p is read more than once"]


def test_softmax_over_four_splits():
    captured = trace(models.resnest_50_4s2x40d(), (1, 3, 32, 32))
    fused = run_passes(captured, ["canonicalise", "fold-batch-norm", "fuse-split-attention"])
    found = [m for m in near_misses("fold-scales", fused) if m.startswith("split_attention")]
    assert len(found) == 16
    assert "this is over 4" in found[0]


def test_shortcuts():
    captured = trace(models.resnet_18(), (1, 3, 64, 64))
    misses = []
    run_passes(captured, misses=misses)
    assert {(m.pass_name, m.reason) for m in misses} == {
        ("merge-shortcut", "its own convolution has padding or groups")
    }
    assert [m.origin for m in misses] == [f"layer{i}.0.conv2" for i in (2, 3, 4)]


SE = f"""
param @w1: f32[2,4,1,1]
param @w2: f32[4,2,1,1]
%m = mean(%x) {{axes=(2,3), keepdims=true}} : f32[N,4,1,1]
%h = conv2d(%m, @w1) : f32[N,2,1,1]
%a = relu(%h) : f32[N,2,1,1]
%z = conv2d(%a, @w2) : f32[N,4,1,1]
%s = sigmoid(%z) : f32[N,4,1,1]
%r = mul(%x, %s) : {X}
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", None),
        ("relu(%h)", "mul(%h, %h)", "before it are not mean, fc1, activation and fc2"),
        ("mul(%x, %s)", "mul(%y, %s)", "what it scales is not %x, which is averaged"),
        ("RETURN", "%r, %h", "%h, which is part of it, is read elsewhere too"),
        ("mul(%x, %s)", "mul(%x, %x)", None),  # nothing is gated
    ],
)
def test_gates(old, new, reason):
    returns = new if old == "RETURN" else "%r"
    results = f"{X}, f32[N,2,1,1]" if old == "RETURN" else X
    text = SE.replace(old, new) if old != "RETURN" else SE
    given = graph(text, inputs=f"%x: {X}, %y: {X}", returns=returns, results=results)
    found = near_misses("fuse-split-attention", given)
    assert found == [] if reason is None else found[0].startswith(f"sigmoid %s: {reason}")


def test_a_softmax_that_is_no_gate_is_no_near_miss():
    text = """graph g(%x: f32[N,4]) -> f32[N,3] {
      param @w: f32[3,4]
      %z = linear(%x, @w) : f32[N,3]
      %s = softmax(%z) {axis=1} : f32[N,3]
      return %s
    }"""
    assert near_misses("fuse-split-attention", parse_graph(text)) == []


def test_a_softmax_over_something_else():
    text = str(trace(models.resnest_14(), (1, 3, 32, 32))).replace(
        "softmax(%permute) {axis=1}", "softmax(%permute) {axis=3}"
    )
    misses = []
    run_passes(parse_graph(text), misses=misses)
    (miss,) = [m for m in misses if m.pass_name == "fuse-split-attention"]
    assert miss.origin == "layer1.0.conv2"
    assert miss.reason == "it is no softmax over the 2 splits of each channel"
