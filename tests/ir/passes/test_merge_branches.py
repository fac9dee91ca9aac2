"""merge-branches: sums of parallel convolutions of one tensor become one convolution."""

import pytest
from pass_checks import after, assert_unchanged

PASSES = ["fold-batch-norm", "merge-branches", "drop-dead-parameters"]
X = "f32[N,4,6,6]"
NORM = "\n".join(f"param @{name}: f32[4]" for name in ("g", "b", "m", "v"))
FULL = "conv2d(%x, @w3, @b3) {padding=(1,1,1,1)}"
POINT = "conv2d(%x, @w1)"


def graph(*lines: str, groups: int = 1, returns: str = "%y", inputs: str = "") -> str:
    depth = 4 // groups
    results = ", ".join([X] * len(returns.split(",")))
    nodes = "\n".join(f"{line} : {X}" for line in lines)
    return f"""graph g(%x: {X}{inputs}) -> {results} {{
      param @w3: f32[4,{depth},3,3]
      param @b3: f32[4]
      param @w1: f32[4,{depth},1,1]
      param @s: f32[4,1,1]
      param @t: f32[1,4,1,1]
      {NORM}
      {nodes}
      return {returns}
    }}"""


def grouped(op: str, groups: int) -> str:
    more = f"groups={groups}"
    return op.replace("}", f", {more}}}") if "{" in op else f"{op} {{{more}}}"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_repvgg(groups):
    text = graph(
        f"%a = {grouped(FULL, groups)}",
        f"%c = {grouped(POINT, groups)}",
        "%n = batch_norm(%x, @g, @b, @m, @v)",
        "%s = add(%a, %c)",
        "%z = add(%s, %n)",
        "%y = relu(%z)",
        groups=groups,
    )
    conv, _ = after(PASSES, text, ["conv2d", "relu"]).nodes
    assert conv.inputs[1].type.shape == (4, 4 // groups, 3, 3)
    assert len(conv.inputs) == 3


@pytest.mark.parametrize("groups", [1, 4])
def test_the_branches_of_mobileone(groups):
    """A norm of x and a convolution, or several convolutions of one window."""
    one = grouped(POINT, groups)
    text = graph(f"%a = {one}", "%n = batch_norm(%x, @g, @b, @m, @v)", "%y = add(%a, %n)",
                 groups=groups)  # fmt: skip
    after(PASSES, text, ["conv2d"])
    many = graph(
        f"%a = {one}",
        f"%b = {grouped('conv2d(%x, @w1, @b3)', groups)}",
        "%c = add(%b, %a)",
        "%d = add(%c, @b3_)".replace("@b3_", "@t"),
        f"%e = {one}",
        "%y = add(%d, %e)",
        groups=groups,
    )
    after(PASSES, many, ["conv2d"])


def test_the_mixer_of_fastvit():
    """x + gamma * (sum of depthwise branches of x - norm(x))."""
    text = graph(
        f"%a = {grouped(FULL, 4)}",
        f"%c = {grouped(POINT, 4)}",
        "%n = batch_norm(%x, @g, @b, @m, @v)",
        "%k = add(%a, %c)",
        "%d = sub(%k, %n)",
        "%e = mul(@s, %d)",
        "%y = add(%x, %e)",
        groups=4,
    )
    after(PASSES, text, ["conv2d"])


def test_other_terms_are_added_to_the_convolution():
    text = graph(
        f"%a = {FULL}",
        "%q = mul(%z, @s)",
        "%b = sub(%a, %q)",
        f"%c = {POINT}",
        "%d = add(%b, %c)",
        "%y = add(%r, %d)",
        inputs=f", %z: {X}, %r: {X}",
    )
    after(PASSES, text, ["conv2d", "mul", "add", "add"])


def test_strides_and_windows_off_centre():
    text = """graph g(%x: f32[N,3,7,8]) -> f32[N,4,4,4] {
      param @a.weight: f32[4,3,5,3]
      param @b.weight: f32[4,3,1,2]
      param @b.bias: f32[4]
      %a = conv2d(%x, @a.weight) {stride=(2,2), padding=(2,0,2,1)} : f32[N,4,4,4]
      %b = conv2d(%x, @b.weight, @b.bias) {stride=(2,2)} : f32[N,4,4,4]
      %y = add(%b, %a) : f32[N,4,4,4]
      return %y
    }"""
    after(PASSES, text, ["conv2d"])


def test_a_depthwise_convolution_takes_its_residual_in():
    residual = "%y = add(%x, %a)"
    after(PASSES, graph(f"%a = {grouped(FULL, 4)}", residual, groups=4), ["conv2d"])
    assert_unchanged("merge-branches", graph(f"%a = {FULL}", residual))


def test_x_may_be_a_convolution_itself():
    lines = (f"%c = {grouped(POINT, 4)}", f"%a = {grouped(FULL.replace('%x', '%c'), 4)}")
    after(PASSES, graph(*lines, "%y = add(%a, %c)", groups=4), ["conv2d", "conv2d"])


@pytest.mark.parametrize(
    ("lines", "returns"),
    [
        ((f"%a = {FULL}", "%b = conv2d(%z, @w1)", "%y = add(%a, %b)"), "%y"),  # of another tensor
        ((f"%a = {FULL}", f"%b = {POINT}", "%y = add(%a, %b)"), "%y, %b"),  # read elsewhere
        (("%a = conv2d(%x, @w3) {padding=(2,2,2,2), dilation=(2,2)}", f"%b = {POINT}",
          "%y = add(%a, %b)"), "%y"),  # the middle alone would do, but no padding of a kernel
        ((f"%a = {FULL}", f"%b = {POINT}", "%y = mul(%a, %b)"), "%y"),
    ],
)  # fmt: skip
def test_what_stays(lines, returns):
    assert_unchanged("merge-branches", graph(*lines, returns=returns, inputs=f", %z: {X}"))


def test_groups_that_differ_stay():
    text = f"""graph g(%x: {X}) -> {X} {{
      param @a.weight: f32[4,1,3,3]
      param @b.weight: f32[4,4,1,1]
      %a = conv2d(%x, @a.weight) {{padding=(1,1,1,1), groups=4}} : {X}
      %b = conv2d(%x, @b.weight) : {X}
      %y = add(%a, %b) : {X}
      return %y
    }}"""
    assert_unchanged("merge-branches", text)


def test_windows_that_do_not_hold_each_other_stay():
    text = f"""graph g(%x: {X}) -> {X} {{
      param @a.weight: f32[4,4,1,3]
      param @b.weight: f32[4,4,3,1]
      %a = conv2d(%x, @a.weight) {{padding=(0,1,0,1)}} : {X}
      %b = conv2d(%x, @b.weight) {{padding=(1,0,1,0)}} : {X}
      %y = add(%a, %b) : {X}
      return %y
    }}"""
    assert_unchanged("merge-branches", text)
