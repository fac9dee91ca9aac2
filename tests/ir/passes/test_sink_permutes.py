"""sink-permutes: layers over channels-last images become channels-first ones."""

import pytest
from pass_checks import after, missed, with_payload

from lucid.ir.passes import run_passes

X, LAST = "f32[N,4,5,6]", "f32[N,5,6,4]"
PASS = "sink-permutes"


def graph(*lines: str, returns: str = "%r", results: str = X, inputs: str = f"%x: {X}") -> str:
    body = "\n".join(lines)
    return f"graph g({inputs}) -> {results} {{\n{body}\nreturn {returns}\n}}"


def last(of: str = "%x", to: str = "%p") -> str:
    return f"{to} = permute({of}) {{axes=(0,2,3,1)}} : {LAST}"


def first(of: str, to: str = "%r") -> str:
    return f"{to} = permute({of}) {{axes=(0,3,1,2)}} : {X}"


def between(*lines: str) -> str:
    """Lines from %p to %y, both channels last, between two permutes."""
    return graph(*lines[:-1], last(), lines[-1], first("%y"))


def test_a_convnext_block():
    text = graph(
        "param @n.weight: f32[4]",
        "param @n.bias: f32[4]",
        "param @up: f32[8,4]",
        "param @up.bias: f32[8]",
        "param @down: f32[4,8]",
        "param @gamma: f32[4]",
        last(),
        f"%n = layer_norm(%p, @n.weight, @n.bias) {{axes=(3)}} : {LAST}",
        "%u = linear(%n, @up, @up.bias) : f32[N,5,6,8]",
        "%g = gelu(%u) : f32[N,5,6,8]",
        f"%d = linear(%g, @down) : {LAST}",
        f"%s = mul(%d, @gamma) : {LAST}",
        first("%s", "%f"),
        f"%r = add(%x, %f) : {X}",
    )
    result = after(PASS, text, ["layer_norm", "conv2d", "gelu", "conv2d", "mul", "add"])
    assert result.nodes[0].op.axes == (1,)
    fused = run_passes(result)
    assert [n.op.name for n in fused.nodes] == ["layer_norm", "fusion", "fusion"]


@pytest.mark.parametrize(
    ("line", "ops"),
    [
        (f"%y = relu(%p) : {LAST}", ["relu"]),
        (f"%y = add(%p, %p) : {LAST}", ["add"]),
        (f"%y = where(%p, %p, %p) : {LAST}", ["where"]),
        (f"%y = softmax(%p) {{axis=3}} : {LAST}", ["softmax"]),
        (f"%y = layer_norm(%p) {{axes=(1,2)}} : {LAST}", ["layer_norm"]),
        (f"%y = rms_norm(%p) {{axes=(3)}} : {LAST}", ["rms_norm"]),
        (f"%m = mean(%p) {{axes=(1,2), keepdims=true}} : f32[N,1,1,4]\n%y = mul(%p, %m) : {LAST}",
         ["mean", "mul"]),
        (f"%h = slice(%p) {{axis=3, start=0, stop=2}} : f32[N,5,6,2]\n"
         f"%y = concat(%h, %h) {{axis=3}} : {LAST}", ["slice", "concat"]),
        (f"%h = slice(%p) {{axis=1, start=1, stop=4}} : f32[N,3,6,4]\n"
         f"%y = pad(%h) {{before=(0,2,0,0), after=(0,0,0,0)}} : {LAST}", ["slice", "pad"]),
    ],
)  # fmt: skip
def test_what_a_permute_passes(line, ops):
    after(PASS, between(line), ops)


@pytest.mark.parametrize("shape", ["4", "1", "6,1", "5,6,4", "1,1,1,4", "1,5,1,1"])
def test_parameters_are_permuted_as_well(shape):
    text = between(f"param @w: f32[{shape}]", f"%y = mul(%p, @w) : {LAST}")
    after(PASS, text, ["mul"])


def test_a_scalar_stays():
    after(
        PASS,
        between(
            "%one = constant() {value=2.0} : f32[]",
            f"%y = add(%p, %one) : {LAST}",
        ),
        ["constant", "add"],
    )


@pytest.mark.parametrize(
    ("axes", "kept", "ops"),
    [("1,2", "f32[N,4]", ["mean", "reshape"]), ("3", "f32[N,5,6]", ["mean"])],
)
def test_axes_that_go_away(axes, kept, ops):
    after(PASS, graph(last(), f"%r = mean(%p) {{axes=({axes})}} : {kept}", results=kept), ops)


def test_axes_that_go_away_and_leave_a_permute():
    line = "%r = sum(%p) {axes=(1)} : f32[N,6,4]"
    after(PASS, graph(last(), line, results="f32[N,6,4]"), ["sum", "permute"])


def test_what_is_read_channels_first_already_is_no_stranger():
    """A residual around a linear, over tokens reshaped to an image, as in EdgeNeXt."""
    text = graph(
        "param @w: f32[4,4]",
        f"%i = reshape(%x) {{shape=(N,5,6,4)}} : {LAST}",
        f"%l = linear(%i, @w) : {LAST}",
        f"%a = add(%i, %l) : {LAST}",
        first("%a"),
        inputs="%x: f32[N,30,4]",
    )
    after(PASS, text, ["reshape", "permute", "conv2d", "add"])


def test_one_pixel():
    """At one pixel the permutes are reshapes already."""
    one, turned = "f32[N,4,1,1]", "f32[N,1,1,4]"
    text = graph(
        "param @w: f32[4,4]",
        f"%p = reshape(%x) {{shape=(N,1,1,4)}} : {turned}",
        f"%l = linear(%p, @w) : {turned}",
        f"%a = relu(%l) : {turned}",
        f"%r = reshape(%a) {{shape=(N,4,1,1)}} : {one}",
        inputs=f"%x: {one}",
        results=one,
    )
    after(PASS, text, ["conv2d", "relu"])


def test_one_user_may_stay_behind():
    text = graph(last(), f"%r = relu(%p) : {LAST}", returns="%r, %p", results=f"{LAST}, {LAST}")
    after(PASS, text, ["permute", "relu", "permute"])


def test_a_stranger_keeps_the_permute_where_it_is():
    text = graph(last(), f"%r = add(%p, %z) : {LAST}", inputs=f"%x: {X}, %z: {LAST}", results=LAST)
    assert missed(PASS, text) == [f"%z: {LAST} is not permuted as its other operand is"]


def test_weights_over_several_axes_stay():
    text = graph(
        "param @w: f32[5,6]",
        last(),
        f"%r = layer_norm(%p, @w) {{axes=(1,2)}} : {LAST}",
        results=LAST,
    )
    assert missed(PASS, text) == ["its weights are over several axes, (1, 2)"]


def test_computed_weights_stay():
    text = graph(f"%r = linear(%x, %w) : {LAST}", inputs=f"%x: {LAST}, %w: f32[4,4]", results=LAST)
    assert missed(PASS, text) == ["its weights are computed, not parameters"]


@pytest.mark.parametrize(
    "line",
    [
        f"%r = layer_norm(%x) {{axes=(3)}} : {X}",  # over the width, for all one knows
        f"%r = relu(%x) : {X}",
        f"%r = permute(%x) {{axes=(0,1,3,2)}} : {X.replace('5,6', '6,5')}",
    ],
)
def test_what_is_no_such_image_stays(line):
    results = line.rsplit(" : ", 1)[1]
    assert missed(PASS, graph(line, results=results)) == []


def test_other_permutes_stay():
    text = graph(
        "%p = permute(%x) {axes=(0,2,1,3)} : f32[N,5,4,6]",
        "%r = relu(%p) : f32[N,5,4,6]",
        results="f32[N,5,4,6]",
    )
    assert missed(PASS, text) == []
    assert str(run_passes(with_payload(text), [PASS])) == str(with_payload(text))
