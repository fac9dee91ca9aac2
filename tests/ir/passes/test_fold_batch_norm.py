"""fold-batch-norm: text before and after, and what it must leave alone."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged

NORM = """
  param @n.weight: f32[4]
  param @n.bias: f32[4]
  param @n.mean: f32[4]
  param @n.var: f32[4]
"""
FOLDED_SOURCES = """
  source @n.weight: f32[4]
  source @n.var: f32[4]
"""
SCALE = "mul(@n.weight, rsqrt(add(@n.var, 1e-05)))"
SHIFT = f"sub(@n.bias, mul(@n.mean, {SCALE}))"


def test_a_batch_norm_joins_the_convolution_without_bias():
    (fired,) = assert_rewrites(
        "fold-batch-norm",
        before=f"""graph g(%x: f32[N,3,5,5]) -> f32[N,4,5,5] {{
          param @c.weight: f32[4,3,1,1]
          {NORM}
          %c = conv2d(%x, @c.weight) : f32[N,4,5,5] at "c"
          %n = batch_norm(%c, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4,5,5] at "n"
          return %n
        }}""",
        after=f"""graph g(%x: f32[N,3,5,5]) -> f32[N,4,5,5] {{
          source @c.weight: f32[4,3,1,1]
          {FOLDED_SOURCES}
          source @n.bias: f32[4]
          source @n.mean: f32[4]
          param @c.weight.folded: f32[4,3,1,1]
            = mul(@c.weight, reshape({SCALE}){{shape=(4,1,1,1)}})
          param @c.bias.folded: f32[4] = {SHIFT}
          %n = conv2d(%x, @c.weight.folded, @c.bias.folded) : f32[N,4,5,5]
            at "c" from ("conv2d c", "batch_norm n")
          return %n
        }}""",
    )
    assert fired.rule == "into_weights"
    assert [line.split(" = ")[1].split("(")[0] for line in fired.before] == ["conv2d", "batch_norm"]
    assert len(fired.after) == 1
    assert fired.line.startswith("lucid/ir/passes/fold_batch_norm.py:")


def test_a_batch_norm_joins_the_linear_with_bias():
    assert_rewrites(
        "fold-batch-norm",
        before=f"""graph g(%x: f32[N,3]) -> f32[N,4] {{
          param @l.weight: f32[4,3]
          param @l.bias: f32[4]
          {NORM}
          %l = linear(%x, @l.weight, @l.bias) : f32[N,4] at "l"
          %n = batch_norm(%l, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4] at "n"
          return %n
        }}""",
        after=f"""graph g(%x: f32[N,3]) -> f32[N,4] {{
          source @l.weight: f32[4,3]
          {FOLDED_SOURCES}
          source @l.bias: f32[4]
          source @n.bias: f32[4]
          source @n.mean: f32[4]
          param @l.weight.folded: f32[4,3] = mul(@l.weight, reshape({SCALE}){{shape=(4,1)}})
          param @l.bias.folded: f32[4] = add(mul(@l.bias, {SCALE}), {SHIFT})
          %n = linear(%x, @l.weight.folded, @l.bias.folded) : f32[N,4]
            at "l" from ("linear l", "batch_norm n")
          return %n
        }}""",
    )


AFTER_ANYTHING_ELSE = f"""
          param @n.weight.folded: f32[4,1,1] = reshape({SCALE}){{shape=(4,1,1)}}
          param @n.bias.folded: f32[4,1,1] = reshape({SHIFT}){{shape=(4,1,1)}}
"""


def test_a_batch_norm_after_anything_else_is_a_scale_and_a_shift():
    assert_rewrites(
        "fold-batch-norm",
        before=f"""graph g(%x: f32[N,4,5,5]) -> f32[N,4,5,5] {{
          {NORM}
          %n = batch_norm(%x, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4,5,5] at "n"
          return %n
        }}""",
        after=f"""graph g(%x: f32[N,4,5,5]) -> f32[N,4,5,5] {{
          {FOLDED_SOURCES}
          source @n.bias: f32[4]
          source @n.mean: f32[4]
          {AFTER_ANYTHING_ELSE}
          %mul = mul(%x, @n.weight.folded) : f32[N,4,5,5] at "n"
          %n = add(%mul, @n.bias.folded) : f32[N,4,5,5] at "n" from ("batch_norm n")
          return %n
        }}""",
    )


@pytest.mark.parametrize("returned", ["%n, %c", "%n, %r"], ids=["an output", "another reader"])
def test_a_convolution_read_elsewhere_stays(returned):
    relu = "%r = relu(%c) : f32[N,4,5,5]"
    assert_rewrites(
        "fold-batch-norm",
        before=f"""graph g(%x: f32[N,3,5,5]) -> f32[N,4,5,5], f32[N,4,5,5] {{
          param @c.weight: f32[4,3,1,1]
          {NORM}
          %c = conv2d(%x, @c.weight) : f32[N,4,5,5] at "c"
          {relu if "%r" in returned else ""}
          %n = batch_norm(%c, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4,5,5] at "n"
          return {returned}
        }}""",
        after=f"""graph g(%x: f32[N,3,5,5]) -> f32[N,4,5,5], f32[N,4,5,5] {{
          {FOLDED_SOURCES}
          source @n.bias: f32[4]
          source @n.mean: f32[4]
          param @c.weight: f32[4,3,1,1]
          {AFTER_ANYTHING_ELSE}
          %c = conv2d(%x, @c.weight) : f32[N,4,5,5] at "c"
          {relu if "%r" in returned else ""}
          %mul = mul(%c, @n.weight.folded) : f32[N,4,5,5] at "n"
          %n = add(%mul, @n.bias.folded) : f32[N,4,5,5] at "n" from ("batch_norm n")
          return {returned}
        }}""",
    )


def test_a_linear_over_tokens_stays_for_axis_1_is_not_its_features():
    fired = assert_rewrites(
        "fold-batch-norm",
        before=f"""graph g(%x: f32[N,4,3]) -> f32[N,4,5] {{
          param @l.weight: f32[5,3]
          {NORM}
          %l = linear(%x, @l.weight) : f32[N,4,5] at "l"
          %n = batch_norm(%l, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4,5] at "n"
          return %n
        }}""",
        after=f"""graph g(%x: f32[N,4,3]) -> f32[N,4,5] {{
          {FOLDED_SOURCES}
          source @n.bias: f32[4]
          source @n.mean: f32[4]
          param @l.weight: f32[5,3]
          param @n.weight.folded: f32[4,1] = reshape({SCALE}){{shape=(4,1)}}
          param @n.bias.folded: f32[4,1] = reshape({SHIFT}){{shape=(4,1)}}
          %l = linear(%x, @l.weight) : f32[N,4,5] at "l"
          %mul = mul(%l, @n.weight.folded) : f32[N,4,5] at "n"
          %n = add(%mul, @n.bias.folded) : f32[N,4,5] at "n" from ("batch_norm n")
          return %n
        }}""",
    )
    assert [f.rule for f in fired] == ["into_scale_and_shift"]


def test_statistics_that_are_computed_stay():
    assert_unchanged(
        "fold-batch-norm",
        """graph g(%x: f32[N,4,5,5], %mean: f32[4]) -> f32[N,4,5,5] {
          param @n.weight: f32[4]
          param @n.bias: f32[4]
          param @n.var: f32[4]
          %n = batch_norm(%x, @n.weight, @n.bias, %mean, @n.var) : f32[N,4,5,5] at "n"
          return %n
        }""",
    )


@pytest.mark.parametrize(
    ("reader", "results"),
    [
        ("conv2d(%n, @w) {groups=2, stride=(2,2)}", "f32[N,6,2,2]"),
        ("conv2d(%n, @w, @c) {groups=2}", "f32[N,6,3,4]"),
    ],
)
def test_before_a_convolution_the_columns_are_scaled(reader, results):
    text = f"""graph g(%x: f32[N,4,4,4]) -> {results} {{
      {NORM}
      param @w: f32[6,2,2,1]
      param @c: f32[6]
      %n = batch_norm(%x, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4,4,4]
      %y = {reader} : {results}
      return %y
    }}"""
    after("fold-batch-norm", text, ["conv2d"])


def test_before_a_linear():
    text = f"""graph g(%x: f32[N,4]) -> f32[N,3], f32[N,2] {{
      {NORM}
      param @w: f32[3,4]
      param @u: f32[2,4]
      param @c: f32[3]
      %n = batch_norm(%x, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4]
      %y = linear(%n, @w, @c) : f32[N,3]
      %z = linear(%n, @u) : f32[N,2]
      return %y, %z
    }}"""
    after("fold-batch-norm", text, ["linear", "linear"])


@pytest.mark.parametrize(("padding", "returns"), [("(0,0,1,0)", "%y"), ("(0,0,0,0)", "%y, %n")])
def test_before_what_pads_or_where_it_is_read_elsewhere_it_stays(padding, returns):
    rows = 5 if padding == "(0,0,1,0)" else 4
    kinds = f"f32[N,4,{rows},4]" + (", f32[N,4,4,4]" if "%n" in returns else "")
    text = f"""graph g(%x: f32[N,4,4,4]) -> {kinds} {{
      {NORM}
      param @w: f32[4,4,1,1]
      %n = batch_norm(%x, @n.weight, @n.bias, @n.mean, @n.var) : f32[N,4,4,4]
      %y = conv2d(%n, @w) {{padding={padding}}} : f32[N,4,{rows},4]
      return {returns}
    }}"""
    after("fold-batch-norm", text, ["mul", "add", "conv2d"])
