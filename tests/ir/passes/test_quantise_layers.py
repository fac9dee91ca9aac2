"""quantise-layers: text before and after, what must stay, and why."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged, computes, missed

from lucid.ir.ops import IntegerSumPool2d

NUMBERS = """
  %sx = constant() {value=0.5} : f32[]
  %zx = constant() {value=3, dtype="u8"} : u8[]
"""
SCALED = "reshape(mul(@s, 0.5)){shape=(1,4,1,1)}"
WEIGHTS = "param @w: f32[4,3,1,1] = dequantize(@q, @s)"
SOURCES = "source @q: i8[4,3,1,1]\nsource @s: f32[4]"
HEAD = "graph g(%x: u8[N,3,5,5]) -> f32[N,4,5,5]"
TURN = "{axes=(1,0,2,3)}"
X = "%d = dequantize(%x, %sx, %zx) : f32[N,3,5,5]"


def test_a_convolution_sums_integers():
    (fired,) = assert_rewrites(
        "quantise-layers",
        before=f"""{HEAD} {{
          {SOURCES}
          {WEIGHTS}
          {NUMBERS}
          {X}
          %c = conv2d(%d, @w) {{stride=(1,1)}} : f32[N,4,5,5] at "conv"
          return %c
        }}""",
        after=f"""{HEAD} {{
          source @s: f32[4]
          param @q: i8[4,3,1,1]
          param @w.scale: f32[1,4,1,1] = {SCALED}
          %integer_conv2d = integer_conv2d(%x, @q) {{zero_point=3}} : i32[N,4,5,5] at "conv"
          %cast = cast(%integer_conv2d) : f32[N,4,5,5] at "conv"
          %c = mul(%cast, @w.scale) : f32[N,4,5,5] at "conv" from ("conv2d conv")
          return %c
        }}""",
    )
    assert fired.rule == "of_integers"


def test_a_bias_of_floats_is_added_to_floats():
    assert_rewrites(
        "quantise-layers",
        before=f"""{HEAD} {{
          {SOURCES}
          {WEIGHTS}
          param @c.bias: f32[4]
          {NUMBERS}
          {X}
          %c = conv2d(%d, @w, @c.bias) : f32[N,4,5,5] at "conv"
          return %c
        }}""",
        after=f"""{HEAD} {{
          source @s: f32[4]
          source @c.bias: f32[4]
          param @q: i8[4,3,1,1]
          param @w.scale: f32[1,4,1,1] = {SCALED}
          param @w.bias.reshaped: f32[1,4,1,1] = reshape(@c.bias){{shape=(1,4,1,1)}}
          %integer_conv2d = integer_conv2d(%x, @q) {{zero_point=3}} : i32[N,4,5,5] at "conv"
          %cast = cast(%integer_conv2d) : f32[N,4,5,5] at "conv"
          %mul = mul(%cast, @w.scale) : f32[N,4,5,5] at "conv"
          %c = add(%mul, @w.bias.reshaped) : f32[N,4,5,5] at "conv" from ("conv2d conv")
          return %c
        }}""",
    )


@pytest.mark.parametrize(
    ("bias", "joins"),
    [
        ("dequantize(@b, mul(@s, 0.5))", True),
        ("dequantize(@b, mul(0.5, @s))", True),
        ("dequantize(@b, @s)", False),
        ("dequantize(@b, 0.5)", False),
        ("dequantize(@b, mul(@s, 0.25))", False),
    ],
)
def test_a_bias_in_the_scale_of_the_sums_joins_them(bias, joins):
    result = after(
        "quantise-layers",
        f"""{HEAD} {{
          {SOURCES}
          {WEIGHTS}
          source @b: i32[4]
          param @c.bias: f32[4] = {bias}
          {NUMBERS}
          {X}
          %c = conv2d(%d, @w, @c.bias) : f32[N,4,5,5]
          return %c
        }}""",
        ["integer_conv2d", "cast", "mul", *([] if joins else ["add"])],
    )
    assert len(result.nodes[0].inputs) == (3 if joins else 2)


@pytest.mark.parametrize(("scale", "joins"), [("0.03125", True), ("0.03", False)])
def test_a_bias_whose_scale_is_the_product_as_a_number_joins_the_sums(scale, joins):
    after(
        "quantise-layers",
        f"""{HEAD} {{
          source @q: i8[4,3,1,1]
          source @b: i32[4]
          param @w: f32[4,3,1,1] = dequantize(@q, 0.0625)
          param @c.bias: f32[4] = dequantize(@b, {scale})
          {NUMBERS}
          {X}
          %c = conv2d(%d, @w, @c.bias) : f32[N,4,5,5]
          return %c
        }}""",
        ["integer_conv2d", "cast", "mul", *([] if joins else ["add"])],
    )


@pytest.mark.parametrize(
    ("weights", "kind", "operand"),
    [
        ("dequantize(@q, 0.5)", "i8", "i8"),
        ("dequantize(@q, @s)", "i8", "i8"),
        ('dequantize(@q, 0.5, constant(){value=0, dtype="i8"})', "i8", "i8"),
        ('dequantize(@q, 0.5, constant(){value=-3, dtype="i8"})', "i8", "i16"),
        ('dequantize(@q, 0.5, constant(){value=128, dtype="u8"})', "u8", "i8"),
        ('dequantize(@q, 0.5, constant(){value=127, dtype="u8"})', "u8", "i16"),
        ("dequantize(@q, 0.5)", "u8", "i16"),
        ("dequantize(@q, @s, @z)", "i8", "i16"),
        ("mul(dequantize(@q, @s), reshape(@t){shape=(4,1,1,1)})", "i8", "i8"),
        ("mul(dequantize(@q, @s), 2.5)", "i8", "i8"),
        (
            "permute(dequantize(permute(@q){axes=(1,0,2,3)}, @s){axis=1}){axes=(1,0,2,3)}",
            "i8",
            "i8",
        ),
        ("reshape(dequantize(reshape(@q){shape=(4,3)}, @s)){shape=(4,3,1,1)}", "i8", "i8"),
        (
            "concat(dequantize(slice(@q){axis=0, start=0, stop=3}, 0.5),"
            " dequantize(slice(@q){axis=0, start=3, stop=4}, 0.25)){axis=0}",
            "i8",
            "i8",
        ),
    ],
)
def test_weights_are_8_bit_integers_less_a_zero_point(weights, kind, operand):
    others = "\n".join(
        f"source @{name}: {dtype}[4]"
        for name, dtype in (("s", "f32"), ("t", "f32"), ("z", kind))
        if f"@{name}" in weights
    )
    result = after(
        "quantise-layers",
        f"""{HEAD} {{
          source @q: {kind}[4,3,1,1]
          {others}
          param @w: f32[4,3,1,1] = {weights}
          {NUMBERS}
          {X}
          %c = conv2d(%d, @w) : f32[N,4,5,5]
          return %c
        }}""",
        ["integer_conv2d", "cast", "mul"],
    )
    assert result.nodes[0].inputs[1].type.dtype == operand


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ("dequantize(@q, @t){axis=1}", "not dequantised from 8 bits, with one scale or one for"),
        ("dequantize(@q, @u){axis=1, block=2}", "not dequantised from 8 bits, with one scale"),
        ("relu(dequantize(@q, @s))", "not dequantised from 8 bits"),
    ],
)
def test_other_weights_stay(weights, why):
    others = "\n".join(
        f"source @{name}: f32[{shape}]"
        for name, shape in (("s", "4"), ("t", "3"), ("u", "4,2,1,1"))
        if f"@{name}" in weights
    )
    text = f"""{HEAD} {{
      source @q: i8[4,3,1,1]
      {others}
      param @w: f32[4,3,1,1] = {weights}
      {NUMBERS}
      {X}
      %c = conv2d(%d, @w) : f32[N,4,5,5]
      return %c
    }}"""
    (reason,) = missed("quantise-layers", text)
    assert reason.startswith(f"its weights are {why}")


@pytest.mark.parametrize(
    ("x", "inputs", "why"),
    [
        ("%d = relu(%f) : f32[N,3,5,5]", "%f: f32[N,3,5,5]", "%d is not dequantised"),
        (
            "%d = dequantize(%x, %s) : f32[N,3,5,5]",
            "%x: u8[N,3,5,5], %s: f32[]",
            "%d is dequantised by what is no number known for the whole tensor",
        ),
        (
            "%d = dequantize(%x, %sx) : f32[N,3,5,5]",
            "%x: i16[N,3,5,5]",
            "%d is dequantised by what is no number",
        ),
    ],
)
def test_what_is_no_quantised_tensor_stays(x, inputs, why):
    text = f"""graph g({inputs}) -> f32[N,4,5,5] {{
      {SOURCES}
      {WEIGHTS}
      %sx = constant() {{value=0.5}} : f32[]
      {x}
      %c = conv2d(%d, @w) : f32[N,4,5,5]
      return %c
    }}"""
    (reason,) = missed("quantise-layers", text)
    assert reason.startswith(f"its weights are integers, but {why}")


def test_layers_of_floats_are_no_near_misses():
    text = """graph g(%x: f32[N,3,5,5]) -> f32[N,4,5,5] {
      param @w: f32[4,3,1,1]
      %c = conv2d(%x, @w) : f32[N,4,5,5]
      return %c
    }"""
    assert missed("quantise-layers", text) == []


@pytest.mark.parametrize(("depth", "fits"), [(66_576, True), (66_577, False)])
def test_sums_that_may_leave_32_bits_stay(depth, fits):
    """252 steps lie between the zero point and 255, and weights are at most 128."""
    text = f"""graph g(%x: u8[1,{depth}]) -> f32[1,2] {{
      source @q: i8[2,{depth}]
      param @w: f32[2,{depth}] = dequantize(@q, 0.5)
      {NUMBERS}
      %d = dequantize(%x, %sx, %zx) : f32[1,{depth}]
      %y = linear(%d, @w) : f32[1,2]
      return %y
    }}"""
    if fits:
        after("quantise-layers", text, ["integer_linear", "cast", "mul"])
    else:
        (reason,) = missed("quantise-layers", text)
        assert reason == f"sums of {depth} products may need more than 32 bits"


def test_a_linear_with_all_around_it():
    assert_rewrites(
        "quantise-layers",
        before=f"""graph g(%x: u8[N,7,3]) -> f32[N,7,4] {{
          source @q: i8[4,3]
          param @w: f32[4,3] = dequantize(@q, 0.25)
          param @b: f32[4]
          {NUMBERS}
          %d = dequantize(%x, %sx, %zx) : f32[N,7,3]
          %y = linear(%d, @w, @b) : f32[N,7,4] at "fc"
          return %y
        }}""",
        after="""graph g(%x: u8[N,7,3]) -> f32[N,7,4] {
          param @b: f32[4]
          param @q: i8[4,3]
          param @w.scale: f32[4] = mul(expand(0.25){shape=(4)}, 0.5)
          %integer_linear = integer_linear(%x, @q) {zero_point=3} : i32[N,7,4] at "fc"
          %cast = cast(%integer_linear) : f32[N,7,4] at "fc"
          %mul = mul(%cast, @w.scale) : f32[N,7,4] at "fc"
          %y = add(%mul, @b) : f32[N,7,4] at "fc" from ("linear fc")
          return %y
        }""",
    )


def test_a_product_of_two_tensors():
    after(
        "quantise-layers",
        f"""graph g(%a: u8[N,3,5], %b: i8[N,5,4]) -> f32[N,3,4] {{
          {NUMBERS}
          %sb = constant() {{value=0.25}} : f32[]
          %zb = constant() {{value=-7, dtype="i8"}} : i8[]
          %p = dequantize(%a, %sx, %zx) : f32[N,3,5]
          %q = dequantize(%b, %sb, %zb) : f32[N,5,4]
          %y = matmul(%p, %q) : f32[N,3,4]
          return %y
        }}""",
        ["integer_matmul", "cast", "constant", "mul"],
    )


def test_a_product_of_one_quantised_tensor_stays():
    text = f"""graph g(%a: u8[N,3,5], %b: f32[N,5,4]) -> f32[N,3,4] {{
      {NUMBERS}
      %p = dequantize(%a, %sx, %zx) : f32[N,3,5]
      %y = matmul(%p, %b) : f32[N,3,4]
      return %y
    }}"""
    assert missed("quantise-layers", text) == ["%b is not dequantised"]


# -- pools and resizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "size", "ops"),
    [
        ("mean(%d) {axes=(2,3), keepdims=true}", "1,1", "constant"),
        ("avg_pool2d(%d) {kernel=(2,3), stride=(2,1)}", "2,3", "constant"),
        ("avg_pool2d(%d) {kernel=(3,3), stride=(2,2), padding=(1,1,1,1)}", "3,3", "constant"),
        ("avg_pool2d(%d) {kernel=(2,2), stride=(1,1), divisor=3}", "4,4", "constant"),
        (
            "avg_pool2d(%d) {kernel=(3,3), stride=(2,2), padding=(1,1,1,1),"
            " count_include_pad=false}",
            "3,3",
            "",
        ),
        (
            "avg_pool2d(%d) {kernel=(2,2), stride=(2,2), padding=(0,1,0,0), ceil_mode=true}",
            "3,3",
            "",
        ),
        (
            "avg_pool2d(%d) {kernel=(2,2), stride=(2,2), ceil_mode=true, count_include_pad=false}",
            "3,3",
            "",
        ),
    ],
)
def test_pools_are_sums(op, size, ops):
    after(
        "quantise-layers",
        f"""graph g(%x: u8[N,3,5,5]) -> f32[N,3,{size}] {{
          {NUMBERS}
          {X}
          %y = {op} : f32[N,3,{size}]
          return %y
        }}""",
        ["integer_sum_pool2d", "cast", *ops.split(), "mul"],
    )


def total(lines: str, result: str = "%m") -> str:
    """The mean of a sum of bytes and floats."""
    types = "f32[N,3,1,1], f32[N,3,5,5]" if "," in result else "f32[N,3,1,1]"
    return f"""graph g(%x: u8[N,3,5,5], %y: u8[N,3,5,5], %f: f32[N,3,5,5]) -> {types} {{
      {NUMBERS}
      %s = constant() {{value=0.25}} : f32[]
      {X}
      %e = dequantize(%y, %s) : f32[N,3,5,5]
      {lines}
      %m = mean(%t) {{axes=(2,3), keepdims=true}} : f32[N,3,1,1]
      return {result}
    }}"""


@pytest.mark.parametrize(
    ("lines", "terms"),
    [
        ("%t = add(%d, %e) : f32[N,3,5,5]", 2),
        ("%a = add(%d, %e) : f32[N,3,5,5]\n%t = add(%d, %a) : f32[N,3,5,5]", 3),
    ],
)
def test_the_mean_of_a_sum_sums_integers(lines, terms):
    result = computes(
        "quantise-layers",
        total(lines),
        "integer_sum_pool2d cast mul " * terms + "add " * (terms - 1),
    )
    assert all(n.inputs[0].type.dtype == "u8" for n in result.find(IntegerSumPool2d))


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        ("%t = add(%d, %f) : f32[N,3,5,5]", "%m"),
        ("%t = add(%d, %e) : f32[N,3,5,5]", "%m, %t"),
        ("%a = add(%d, %e) : f32[N,3,5,5]\n%t = add(%f, %a) : f32[N,3,5,5]", "%m"),
    ],
)
def test_the_mean_of_another_sum_stays(lines, result):
    assert_unchanged("quantise-layers", total(lines, result))


def test_means_over_other_axes_stay():
    text = f"""graph g(%x: u8[N,3,5,5]) -> f32[N,1,5,5] {{
      {NUMBERS}
      {X}
      %y = mean(%d) {{axes=(1), keepdims=true}} : f32[N,1,5,5]
      return %y
    }}"""
    assert missed("quantise-layers", text) == ["a mean over (1,) is none over height and width"]


def test_a_resize_weighs_integers():
    text = f"""graph g(%x: u8[N,3,5,5]) -> f32[N,3,10,10] {{
      {NUMBERS}
      {X}
      %y = resize(%d) {{size=(10,10), mode="bilinear"}} : f32[N,3,10,10]
      return %y
    }}"""
    after("quantise-layers", text, ["resize", "constant", "sub", "constant", "mul"])
    assert missed("quantise-layers", text.replace("bilinear", "bicubic")) == [
        "it weighs more than two neighbours, or pixels beyond the image"
    ]
    assert_unchanged("quantise-layers", text.replace("bilinear", "nearest"))
