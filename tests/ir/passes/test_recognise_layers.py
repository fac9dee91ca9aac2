"""recognise-layers: linears and norms that are written out."""

import pytest
from pass_checks import after, missed

PASS = "recognise-layers"
X = "f32[N,5,4]"
NORM = f"""
%m = mean(%x) {{axes=(AXES), keepdims=true}} : MEAN
%d = sub(%x, %m) : {X}
%q = mul(%d, %d) : {X}
%v = mean(%q) {{axes=(AXES), keepdims=true}} : MEAN
%e = constant() {{value=1e-06}} : f32[]
%s = add(%v, %e) : MEAN
%i = rsqrt(%s) : MEAN
%n = mul(%d, %i) : {X}
"""


def graph(text: str, returns: str = "%n", axes: str = "2", mean: str = "f32[N,5,1]") -> str:
    results = ", ".join([X] * len(returns.split(",")))
    text = text.replace("AXES", axes).replace("MEAN", mean)
    return f"graph g(%x: {X}) -> {results} {{\n{text}\nreturn {returns}\n}}"


def test_layer_norms():
    result = after(PASS, graph(NORM), ["layer_norm"])
    assert (result.nodes[0].op.axes, result.nodes[0].op.eps) == ((2,), 1e-6)
    after(PASS, graph(NORM, axes="1,2", mean="f32[N,1,1]"), ["layer_norm"])


def test_weights():
    affine = "param @w: f32[4]\nparam @b: f32[4]\n" + NORM
    both = affine + f"%w = mul(%n, @w) : {X}\n%b = add(%w, @b) : {X}"
    (norm,) = after(PASS, graph(both, "%b"), ["layer_norm"]).nodes
    assert len(norm.inputs) == 3
    shift = affine + f"%b = add(%n, @b) : {X}"
    (norm,) = after(PASS, graph(shift, "%b"), ["layer_norm"]).nodes
    assert len(norm.inputs) == 3
    along = "param @w: f32[5,1]\n" + NORM + f"%w = mul(%n, @w) : {X}"
    after(PASS, graph(along, "%w"), ["layer_norm", "mul"])


def test_weights_over_several_axes():
    text = "param @w: f32[5,4]\n" + NORM + f"%w = mul(%n, @w) : {X}"
    after(PASS, graph(text, "%w", axes="1,2", mean="f32[N,1,1]"), ["layer_norm"])


def test_rms_norms():
    text = f"""
    %q = mul(%x, %x) : {X}
    %v = mean(%q) {{axes=(2), keepdims=true}} : f32[N,5,1]
    %e = constant() {{value=1e-06}} : f32[]
    %s = add(%v, %e) : f32[N,5,1]
    %i = rsqrt(%s) : f32[N,5,1]
    %n = mul(%i, %x) : {X}
    """
    after(PASS, graph(text), ["rms_norm"])
    weighed = "param @w: f32[4]\n" + text + f"%w = mul(%n, @w) : {X}"
    after(PASS, graph(weighed, "%w"), ["rms_norm"])


def test_a_mean_over_other_axes_is_no_layer_norm():
    text = NORM.replace("AXES", "1", 1).replace("MEAN", "f32[N,1,4]", 1)
    result = after(PASS, graph(text), ["mean", "sub", "rms_norm"])
    assert result.nodes[-1].op.axes == (2,)


@pytest.mark.parametrize(
    ("axes", "mean"), [("0", "f32[1,5,4]"), ("0,1,2", "f32[1,1,1]"), ("0,2", "f32[1,5,1]")]
)
def test_statistics_of_the_batch_are_no_norm(axes, mean):
    assert missed(PASS, graph(NORM, axes=axes, mean=mean)) == [
        "its statistics are those of the batch, and a norm's of one image"
    ]


def test_what_is_read_elsewhere_stays():
    assert missed(PASS, graph(NORM, "%n, %q")) == [
        "%q, which is part of the norm, is read elsewhere too"
    ]


@pytest.mark.parametrize(
    ("op", "ops"),
    [
        ("matmul(%x, @w)", ["linear"]),
        ("matmul(%x, %x)", ["matmul"]),
        ("matmul(@w, %x)", ["matmul"]),
    ],
)
def test_products(op, ops):
    text = f"""graph g(%x: f32[N,4,4]) -> f32[N,4,4] {{
      param @w: f32[4,4]
      %y = {op} : f32[N,4,4]
      return %y
    }}"""
    after([PASS, "drop-dead-parameters"], text, ops)


def test_sums_of_squares():
    text = f"%q = mul(%x, %x) : {X}\n%s = sum(%q) {{axes=(1), keepdims=true}} : f32[N,1,4]\n"
    after(PASS, graph(text + f"%n = add(%x, %s) : {X}"), ["sum_squares", "add"])
    after(PASS, graph(text + f"%n = add(%q, %s) : {X}"), ["mul", "sum", "add"])
