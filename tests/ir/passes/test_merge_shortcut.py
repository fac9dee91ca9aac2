"""merge-shortcut: text before and after, and what it must leave alone."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged

BODY = """body=graph body(%y: f32[N,8,4,4], %e: f32[N,8,4,4]) -> f32[N,8,4,4] {
      %s = add(%y, %e) : f32[N,8,4,4]
      %r = relu(%s) : f32[N,8,4,4]
      return %r
    }"""


def block(shortcut: str = "", weight: str = "f32[8,5,1,1]", size: int = 4, body: str = BODY) -> str:
    """A 1x1 convolution that adds the result of another."""
    return f"""graph g(%a: f32[N,3,4,4], %b: f32[N,5,{size},{size}]) -> f32[N,8,4,4] {{
      param @w: f32[8,3,1,1]
      param @w.bias: f32[8]
      param @v: {weight}
      param @v.bias: f32[8]
      %short = conv2d(%b, @v, @v.bias) {shortcut} : f32[N,8,4,4] at "down"
      %out = fusion(%a, @w, @w.bias, %short) {{anchor=conv2d, {body}}} : f32[N,8,4,4] at "conv3"
      return %out
    }}"""


MERGED = """graph g(%a: f32[N,3,4,4], %b: f32[N,5,{size},{size}]) -> f32[N,8,4,4] {{
      source @w: f32[8,3,1,1]
      source @v: f32[8,5,1,1]
      source @w.bias: f32[8]
      source @v.bias: f32[8]
      param @w.joined: f32[8,8,1,1] = concat(@w, @v){{axis=1}}
      param @w.bias.joined: f32[8] = add(@w.bias, @v.bias)
      {sample}
      %concat = concat(%a, {second}) {{axis=1}} : f32[N,8,4,4] at "conv3"
      %out = fusion(%concat, @w.joined, @w.bias.joined) {{anchor=conv2d,
        body=graph body(%y: f32[N,8,4,4]) -> f32[N,8,4,4] {{
          %r = relu(%y) : f32[N,8,4,4]
          return %r
        }}
      }} : f32[N,8,4,4] at "conv3" from ("fusion conv3", "conv2d down")
      return %out
    }}"""


def test_two_convolutions_that_are_added_become_one():
    fired = assert_rewrites(
        "merge-shortcut", before=block(), after=MERGED.format(size=4, sample="", second="%b")
    )
    assert [f.rule for f in fired] == ["into_one_convolution"]


def test_the_stride_of_a_shortcut_becomes_a_pool_of_single_pixels():
    sample = """%avg_pool2d = avg_pool2d(%b) {kernel=(1,1), stride=(2,2)} : f32[N,5,4,4] at "conv3"
    """
    assert_rewrites(
        "merge-shortcut",
        before=block("{stride=(2,2)}", size=8),
        after=MERGED.format(size=8, sample=sample, second="%avg_pool2d"),
    )


@pytest.mark.parametrize(
    "text",
    [
        block("{padding=(1,1,1,1)}", "f32[8,5,3,3]"),  # no 1x1 convolution
        block(body=BODY.replace("add(%y, %e)", "mul(%y, %e)")),
        block(body=BODY.replace("relu(%s)", "add(%s, %e)")),  # read twice
        block()
        .replace("return %out", "return %out, %short")
        .replace(
            "-> f32[N,8,4,4] {\n      param", "-> f32[N,8,4,4], f32[N,8,4,4] {\n      param", 1
        ),
    ],
)
def test_what_is_no_shortcut_of_this_kind_stays(text):
    assert_unchanged("merge-shortcut", text)


def test_a_strided_convolution_may_be_the_one_that_adds():
    """As where the shortcut is computed last."""
    text = block(size=4).replace("%a: f32[N,3,4,4]", "%a: f32[N,3,8,8]")
    strided = text.replace("{anchor=conv2d, ", "{anchor=conv2d{stride=(2,2)}, ")
    pool, _, fused = after("merge-shortcut", strided, ["avg_pool2d", "concat", "fusion"]).nodes
    assert pool.op.stride == (2, 2)
    assert fused.op.anchor.stride == (1, 1)
