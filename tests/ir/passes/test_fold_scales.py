"""fold-scales: text before and after, and what it must leave alone."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged, missed


def pooled(pool: str, *, weight: str = "@c.weight", sources: str = "", padding: str = "") -> str:
    return f"""graph g(%x: f32[N,3,6,6]) -> f32[N,4,3,3] {{
      {sources or "param @c.weight: f32[4,3,1,1]"}
      {"" if sources else "param @c.bias: f32[4]"}
      %p = avg_pool2d(%x) {{kernel=(3,3), stride=(2,2), {pool}}} : f32[N,3,3,3] at "pool"
      %c = conv2d(%p, {weight}, @c.bias) {padding} : f32[N,4,3,3] at "c"
      return %c
    }}"""


def test_the_divisor_of_a_padded_pool_moves_into_the_weights():
    assert_rewrites(
        "fold-scales",
        before=pooled("padding=(1,1,1,1)"),
        after=pooled(
            "padding=(1,1,1,1), divisor=1",
            weight="@c.weight.scaled",
            sources="""source @c.weight: f32[4,3,1,1]
            param @c.bias: f32[4]
            param @c.weight.scaled: f32[4,3,1,1] = mul(@c.weight, 0.1111111111111111)""",
        ),
    )


def test_a_divisor_given_is_folded_too():
    fired = assert_rewrites(
        "fold-scales",
        before=pooled("padding=(1,1,1,1), count_include_pad=false, divisor=4"),
        after=pooled(
            "padding=(1,1,1,1), count_include_pad=false, divisor=1",
            weight="@c.weight.scaled",
            sources="""source @c.weight: f32[4,3,1,1]
            param @c.bias: f32[4]
            param @c.weight.scaled: f32[4,3,1,1] = mul(@c.weight, 0.25)""",
        ),
    )
    assert [f.rule for f in fired] == ["divisor_into_weights"]


@pytest.mark.parametrize(
    "pool",
    [
        "padding=(1,1,1,1), count_include_pad=false",  # the divisor differs at the border
        "padding=(1,1,0,0), ceil_mode=true",  # at some sizes a window hangs over
        "padding=(1,1,1,1), divisor=1",  # folded already
        "padding=(0,0,0,0), ceil_mode=true, count_include_pad=false",  # ResNeSt's shortcut pool
        "padding=(0,0,0,0), ceil_mode=true",
    ],
)
def test_a_divisor_that_may_depend_on_the_size_stays(pool):
    assert_unchanged("fold-scales", pooled(pool))


def test_a_pool_without_padding_stays_for_it_may_be_global_at_another_size():
    assert_unchanged(
        "fold-scales",
        """graph g(%x: f32[N,3,6,6]) -> f32[N,4,3,3] {
          param @c.weight: f32[4,3,1,1]
          %p = avg_pool2d(%x) {kernel=(2,2), stride=(2,2)} : f32[N,3,3,3] at "pool"
          %c = conv2d(%p, @c.weight) : f32[N,4,3,3] at "c"
          return %c
        }""",
    )


def test_a_pool_with_another_reader_stays():
    assert_unchanged(
        "fold-scales",
        """graph g(%x: f32[N,3,6,6]) -> f32[N,4,3,3], f32[N,3,3,3] {
          param @c.weight: f32[4,3,1,1]
          %p = avg_pool2d(%x) {kernel=(3,3), stride=(2,2), padding=(1,1,1,1)} : f32[N,3,3,3]
          %c = conv2d(%p, @c.weight) : f32[N,4,3,3]
          return %c, %p
        }""",
    )


def attention(operands: str, attributes: str, sources: str) -> str:
    return f"""graph g(%x: f32[N,8,3,3]) -> f32[N,4,3,3] {{
      {sources}
      %y = split_attention(%x, @fc1.weight, @fc1.bias, {operands}) {{{attributes}}}
        : f32[N,4,3,3] at "a" from ("sum a", "softmax a")
      return %y
    }}"""


def test_a_softmax_of_two_becomes_a_sigmoid_of_the_difference():
    before = """param @fc1.weight: f32[6,2,1,1]
      param @fc1.bias: f32[6]
      param @fc2.weight: f32[8,3,1,1]
      param @fc2.bias: f32[8]"""

    def rows(of: str, shape: str) -> str:
        first, second = (
            f"slice(reshape(@fc2.{of}){{shape={shape}}}){{axis=1, start={k}, stop={k + 1}}}"
            for k in (0, 1)
        )
        return f"sub({first}, {second})"

    after = f"""source @fc2.weight: f32[8,3,1,1]
      source @fc2.bias: f32[8]
      param @fc1.weight: f32[6,2,1,1]
      param @fc1.bias: f32[6]
      param @fc2.weight.difference: f32[4,3,1,1]
        = reshape({rows("weight", "(2,2,2,3,1,1)")}){{shape=(4,3,1,1)}}
      param @fc2.bias.difference: f32[4] = reshape({rows("bias", "(2,2,2)")}){{shape=(4)}}"""
    assert_rewrites(
        "fold-scales",
        attention("@fc2.weight, @fc2.bias", "radix=2, cardinality=2", before),
        attention(
            "@fc2.weight.difference, @fc2.bias.difference",
            "radix=2, cardinality=2, folded=true",
            after,
        ),
    )


@pytest.mark.parametrize(("radix", "gate"), [(1, '"sigmoid"'), (4, '"softmax"')])
def test_other_radices_stay(radix, gate):
    assert_unchanged(
        "fold-scales",
        f"""graph g(%x: f32[N,8,3,3]) -> f32[N,{8 // radix},3,3] {{
          param @fc1.weight: f32[6,{8 // radix},1,1]
          param @fc1.bias: f32[6]
          param @fc2.weight: f32[8,6,1,1]
          param @fc2.bias: f32[8]
          %y = split_attention(%x, @fc1.weight, @fc1.bias, @fc2.weight, @fc2.bias)
            {{radix={radix}, gate={gate}}} : f32[N,{8 // radix},3,3] at "a"
          return %y
        }}""",
    )


Y = "f32[N,4,5,5]"


def scaled(line: str, layer: str = "conv2d(%x, @w, @b)", kind: str = Y, more: str = "") -> str:
    x = kind.replace("4", "3", 1)
    weight = "f32[4,3,1,1]" if "conv2d" in layer else "f32[4,3]"
    if "linear" in layer:
        x, weight = kind[:-2] + "3]", "f32[4,3]"
    return f"""graph g(%x: {x}, %z: f32[1,4,1,1]) -> {kind}{", " + kind if more else ""} {{
      param @w: {weight}
      param @b: f32[4]
      param @s: f32[1,4,1,1]
      param @t: f32[1]
      param @l: f32[4]
      %k = constant() {{value=0.5}} : f32[]
      %c = {layer} : {kind}
      %y = {line} : {kind}
      return %y{more}
    }}"""


@pytest.mark.parametrize("line", ["mul(%c, @s)", "mul(@s, %c)", "mul(%c, %k)", "mul(%c, @t)"])
@pytest.mark.parametrize("layer", ["conv2d(%x, @w, @b)", "conv2d(%x, @w)"])
def test_layer_scales(line, layer):
    after(["fold-scales", "canonicalise"], scaled(line, layer), ["conv2d"])


def test_linear_scales():
    text = scaled("mul(%c, @l)", "linear(%x, @w, @b)", "f32[N,5,4]")
    after(["fold-scales", "canonicalise"], text, ["linear"])


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (scaled("mul(%c, %z)"), []),
        (scaled("add(%c, @s)"), []),
        (scaled("mul(%c, @s)", more=", %c"), ["%c is read elsewhere too"]),
    ],
)
def test_factors_that_stay(text, reasons):
    assert missed("fold-scales", text) == reasons


@pytest.mark.parametrize("operands", ["%s, %b", "%b, %s"])
def test_the_scale_of_queries(operands):
    text = f"""graph g(%a: f32[N,4,4], %b: f32[N,4,4]) -> f32[N,4,4] {{
      %k = constant() {{value=0.25}} : f32[]
      %s = mul(%a, %k) : f32[N,4,4]
      %y = matmul({operands}) : f32[N,4,4]
      return %y
    }}"""
    after("fold-scales", text, ["constant", "matmul", "mul"])
    after(["fold-scales", "fuse-epilogue", "canonicalise"], text, ["fusion"])
    square = text.replace(operands, "%s, %s")
    after("fold-scales", square, ["constant", "mul", "matmul"])
