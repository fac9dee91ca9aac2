"""Text form: what is printed parses back to an equal graph, and errors point at the fault."""

import re

import pytest
from hypothesis import given
from strategies import graphs

from lucid.errors import ParseError
from lucid.ir import (
    BATCH,
    Apply,
    Dim,
    Graph,
    Literal,
    Source,
    f32,
    interpret,
    parse_graph,
    print_graph,
    verify,
)
from lucid.ir.ops import (
    Add,
    Clip,
    Constant,
    Conv2d,
    Fusion,
    Mul,
    Relu,
    Reshape,
    Rsqrt,
    SplitAttention,
)
from lucid.ir.text import parse_op, print_op

SMALL = """\
graph small(%x: f32[N,3,8,8]) -> f32[N,4] {
  source @bn.var: f32[4]
  param @conv.weight: f32[4,3,3,3]
  param @conv.weight.folded: f32[4,3,3,3] = mul(@conv.weight, \
reshape(rsqrt(add(@bn.var, 1e-05))){shape=(4,1,1,1)})
  %c = conv2d(%x, @conv.weight.folded) {stride=(2,2), padding=(1,1,1,1)} : f32[N,4,4,4] at "conv"
  %f = fusion(%c, %c) {anchor=max_pool2d{kernel=(1,1), stride=(1,1)}, \
body=graph body(%y: f32[N,4,4,4], %z: f32[N,4,4,4]) -> f32[N,4,4,4] {
    %r = clip(%y) {low=0.0, high=6.0} : f32[N,4,4,4]
    %a = add(%r, %z) : f32[N,4,4,4]
    return %a
  }} : f32[N,4,4,4] at "pool" from ("max_pool2d pool", "clip act", "add")
  %m = mean(%f) {axes=(2,3)} : f32[N,4]
  %twice = reshape(%m) {shape=(2N,2)} : f32[2N,2]
  %back = reshape(%twice) {shape=(N,-1)} : f32[N,4]
  return %back
}
"""


def test_prints_what_it_parsed():
    graph = parse_graph(SMALL)
    verify(graph)
    assert print_graph(graph) == SMALL
    assert graph == parse_graph(SMALL)
    assert hash(graph) == hash(parse_graph(SMALL))
    assert graph.nodes[0].origin == "conv"
    assert graph.nodes[1].fused_from == ("max_pool2d pool", "clip act", "add")


@given(graphs())
def test_round_trip_of_random_graphs(graph):
    text = print_graph(graph)
    again = parse_graph(text)
    verify(again)
    assert print_graph(again) == text
    assert print_graph(graph.clone()) == text


def test_names_that_need_quotes():
    graph = Graph('odd "name"')
    x = graph.add_input(f32(BATCH, 2), "x")
    weight = graph.add_source("layer-1/w ü", f32(2))
    y = graph.append(Add(), [x, weight], names=["a b"], origin='say "hi"\n').output
    graph.set_outputs([y])
    again = parse_graph(str(graph))
    assert again == graph
    assert (again.name, again.nodes[0].origin) == (graph.name, 'say "hi"\n')
    assert list(again.parameters) == ["layer-1/w ü"]


def test_recipes_may_name_sources_declared_after_them():
    graph = Graph()
    graph.set_outputs([graph.add_input(f32(BATCH))])
    w = Source("w", f32(2))
    graph.add_parameter("a", Apply(Mul(), (w, Apply(Rsqrt(), (Literal(2),)))))
    graph.add_parameter("w", w)
    again = parse_graph(str(graph))
    assert again == graph
    assert "source" not in str(graph)
    assert again.parameters["a"].recipe == graph.parameters["a"].recipe


def test_a_parameter_may_hide_its_source():
    text = (
        "graph g() -> f32[2] {\n  source @w: f32[2]\n"
        "  param @w: f32[2] = mul(@w, 0.5)\n  return @w\n}\n"
    )
    graph = parse_graph(text)
    assert str(graph) == text
    assert interpret(graph, [], {"w": [2, 4]})[0].tolist() == [1, 2]


def test_several_outputs_comments_and_line_breaks():
    graph = parse_graph("""
        # two outputs
        graph g(%x: f32[N], %y: i64[])
          -> f32[N], i64[] { %a = relu(%x)
            : f32[N]   # broken over lines
          return %a, %y }
    """)
    assert [str(v.type) for v in graph.outputs] == ["f32[N]", "i64[]"]
    assert parse_graph("graph empty() -> () {}") == Graph("empty")


@pytest.mark.parametrize(
    "op",
    [
        Constant(float("inf")),
        Constant(-1e-30),
        Constant(((1, 2), (3, 4)), "i64"),
        Constant((), "i64"),
        Fusion(Relu(), parse_graph(SMALL)),
        Reshape((Dim(2), -1, 3)),
        Clip(0, 6),
        Clip(high=float("-inf")),
        SplitAttention(2, activation=Clip(0, 6), folded=True),
        SplitAttention(1, gate="sigmoid"),
    ],
    ids=lambda op: type(op).__name__,
)
def test_attributes_come_back_equal(op):
    assert parse_op(print_op(op)) == op


def test_defaults_are_left_out():
    assert print_op(Conv2d()) == "conv2d"
    assert print_op(Conv2d(groups=2)) == "conv2d{groups=2}"
    assert print_op(SplitAttention(2, activation=Relu())) == "split_attention{radix=2}"
    assert print_op(SplitAttention(2, activation=Clip(0, 6))) == (
        "split_attention{radix=2, activation=clip{low=0.0, high=6.0}}"
    )


def test_equality_of_ops_sees_the_body():
    def fused(op):
        body = Graph("body")
        x = body.add_input(f32(BATCH, Dim(1)), "y")
        body.set_outputs([body.append(op, [x], names=["r"]).output])
        return Fusion(Relu(), body)

    assert fused(Relu()) == fused(Relu())
    assert fused(Relu()) != fused(Clip(0, 6))


@pytest.mark.parametrize(
    ("old", "new", "line", "pointed", "message"),
    [
        ("= conv2d(", "= conv2(", 5, "conv2(", "no op is named 'conv2'; did you mean 'conv2d'?"),
        ("{stride=(2,2), p", "{stide=(2,2), p", 5, "conv2d", "has no attribute 'stide'; it has"),
        ("{stride=(2,2), p", "{stride=2, p", 5, "conv2d(", "wrong kind"),
        ("{stride=(2,2), p", "{padding=(), p", 5, "padding=(1", "'padding' is given twice"),
        ("kernel=(1,1), ", "", 6, "max_pool2d{", "max_pool2d needs the attribute 'kernel'"),
        ("(%x, @conv", "(%x, @con", 5, "@con.", "is not defined; did you mean 'conv.weight"),
        ("(%x, @", "(%x @", 5, "@conv", "expected ',' or ')', found '@conv.weight.folded'"),
        ("%m = mean", "%c = mean", 11, "%c =", "%c is defined twice"),
        ("%m = mean", "%m, %m = mean", 11, "%m =", "%m is defined twice"),
        ("%m = mean", "%m, %k = mean", 11, "%m,", "mean has 1 results, 2 are named"),
        ("f32[2N,2]", "f32[2N,3]", 12, "reshape(", "reshape gives f32[2N,2] here"),
        ("f32[2N,2]", "f8[2N,2]", 12, "f8", "'f8' is no dtype; those are f32, i64"),
        ("f32[2N,2]", "f32[2N,-2]", 12, "-2]", "expected a dimension such as 7, N or 2N"),
        ("(@bn.var", "(@bn.std", 4, "@bn.std", "no source is named @bn.std; declare it"),
        ("rsqrt(add", "linear(add", 4, "linear(", "linear: takes 2 or 3 operands, got 1"),
        ("folded: f32[4,", "folded: f32[5,", 4, "@conv", "gives f32[4,3,3,3], not f32[5,3,3,3]"),
        ("  param @conv.weight:", "  param @bn.var:", 3, "@bn.var", "is declared twice"),
        ("mean(%f)", "mean(%y)", 11, "%y)", "%y is not defined"),
        ("(2,3)} : f32[N,4]", "(2,9)} : f32[N,4]", 11, "mean(", "axes must be distinct and"),
        ('at "conv"', 'at "conv', 5, '"conv', "unexpected character"),
        ('at "conv"', r'at "co\nv\x"', 5, r'"co\nv', "is no string as in JSON: Invalid"),
        ('at "conv"', 'at "co\tnv"', 5, '"co', "is no string as in JSON: Invalid control"),
        (" : f32[N,4]\n  %t", "\n  %t", 12, "%twice", "expected ':' and the type of the result"),
        ("  return %back\n", "", 1, "f32[N,4]", "other types than it returns (nothing)"),
        ("%back\n}\n", "%back\n", 15, "", "expected a node (%name = op(...)), 'return' or '}'"),
        ("%back\n}\n", "%back\n} }\n", 15, "}", "expected nothing more after the graph"),
        ("graph small", "grape small", 1, "grape", "expected 'graph', found 'grape'"),
    ],
)
def test_errors_point_at_the_fault(old, new, line, pointed, message):
    assert old in SMALL
    with pytest.raises(ParseError, match=re.escape(message)) as caught:
        parse_graph(SMALL.replace(old, new, 1))
    first, source, marker = str(caught.value).split("\n")
    column = int(re.findall(rf"^line {line}, column (\d+)", first)[0])
    assert source[marker.index("^") :].startswith(pointed)
    assert marker.index("^") == column + 1
