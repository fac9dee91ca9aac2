"""fold-quantize: text before and after, what must stay, and why."""

import numpy as np
import pytest
from pass_checks import assert_rewrites, assert_unchanged, computes, missed, with_payload

from lucid.ir import interpret
from lucid.ir.passes import run_passes

NUMBERS = """
  %s = constant() {value=0.5} : f32[]
  %z = constant() {value=3, dtype="u8"} : u8[]
  %t = constant() {value=0.25} : f32[]
  %o = constant() {value=5, dtype="u8"} : u8[]
"""
Y = "f32[N,4,5,5]"
LAYER = f"""
  param @w: i8[4,3,1,1]
  param @m: f32[1,4,1,1]
  param @b: f32[1,4,1,1]
  {NUMBERS}
  %i = integer_conv2d(%x, @w) : i32[N,4,5,5] at "conv"
  %f = cast(%i) : {Y} at "conv"
  %c = mul(%f, @m) : {Y} at "conv"
"""


def behind_a_layer(
    lines: str, inputs: str = "%x: u8[N,3,5,5]", results: str = "u8[N,4,5,5]", returns: str = "%y"
) -> str:
    """%c, which a layer of integers makes, with a multiplier @m, and what is computed of it."""
    return f"graph g({inputs}) -> {results} {{\n{LAYER}\n{lines}\nreturn {returns}\n}}"


# -- quantised once more --------------------------------------------------------------------------


def test_the_same_scale_does_nothing():
    text = f"""graph g(%x: u8[N,3]) -> u8[N,3] {{
      {NUMBERS}
      %d = dequantize(%x, %s, %z) : f32[N,3]
      %y = quantize(%d, %s, %z) : u8[N,3]
      return %y
    }}"""
    assert computes("fold-quantize", text, "").outputs[0].name == "x"


@pytest.mark.parametrize("numbers", ["%t, %z", "%s, %o"])
def test_another_scale_is_a_table(numbers):
    text = f"""graph g(%x: u8[N,3]) -> u8[N,3] {{
      {NUMBERS}
      %d = dequantize(%x, %s, %z) : f32[N,3]
      %y = quantize(%d, {numbers}) : u8[N,3]
      return %y
    }}"""
    computes("fold-quantize", text, "lookup")


def test_floats_are_rounded_all_the_same():
    assert_unchanged(
        "fold-quantize",
        f"""graph g(%x: f32[N,3]) -> f32[N,3] {{
          {NUMBERS}
          %q = quantize(%x, %s, %z) : u8[N,3]
          %y = dequantize(%q, %s, %z) : f32[N,3]
          return %y
        }}""",
    )


CHAINS = [
    "%v = silu(%d) : f32[N,3]",
    "%k = constant() {value=1.7} : f32[]\n%v = pow(%d, %k) : f32[N,3]",
    "%u = sigmoid(%d) : f32[N,3]\n%v = mul(%d, %u) : f32[N,3]",
    "%v = prelu(%d, @p) : f32[N,3]",
    "%v = gelu(%d) : f32[N,3]",
    "%e = dequantize(%x, %t) : f32[N,3]\n%v = add(%d, %e) : f32[N,3]",
    """%n = sigmoid(%d) : f32[N,3]
    %q = quantize(%n, %s, %o) : u8[N,3]
    %e = dequantize(%q, %s, %o) : f32[N,3]
    %v = mul(%d, %e) : f32[N,3]""",
    """%n = tanh(%d) : f32[N,3]
    %q = quantize(%n, %t, %o) : u8[N,3]
    %e = dequantize(%q, %t, %o) : f32[N,3]
    %v = neg(%e) : f32[N,3]""",
]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(("given", "made"), [("u8", "u8"), ("i8", "u8"), ("u8", "i8")])
def test_what_is_computed_of_one_8_bit_tensor_is_a_table(chain, given, made):
    text = f"""graph g(%x: {given}[N,3]) -> {made}[N,3] {{
      param @p: f32[1]
      {NUMBERS}
      %c = constant() {{value=2, dtype="{given}"}} : {given}[]
      %d = dequantize(%x, %s, %c) : f32[N,3]
      {chain}
      %y = quantize(%v, %t) {{dtype="{made}"}} : {made}[N,3]
      return %y
    }}"""
    result = computes("fold-quantize", text, "lookup")
    (table,) = (v for n in result.nodes for v in n.inputs if v.type.shape == (256,))
    assert table.type.dtype == made


def test_a_table_is_what_the_ops_make_of_every_integer():
    graph = with_payload(
        f"""graph g(%x: i8[N]) -> u8[N] {{
          {NUMBERS}
          %d = dequantize(%x, %t) : f32[N]
          %v = silu(%d) : f32[N]
          %y = quantize(%v, %s, %z) : u8[N]
          return %y
        }}"""
    )
    x = np.arange(-128, 128).astype(np.int8)
    (y,) = interpret(run_passes(graph, ["fold-quantize"]), [x])
    floats = 0.25 * x
    silu = (floats / (1 + np.exp(-floats))).astype(np.float32)  # what a quantize divides
    wanted = np.clip(np.rint(silu / 0.5) + 3, 0, 255)
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("op", ["mul", "add", "maximum", "sub"])
def test_several_tensors_are_computed_with_as_integers_less_their_zero_points(op):
    text = f"""graph g(%a: u8[N,3], %b: u8[N,3]) -> u8[N,3] {{
      {NUMBERS}
      %p = dequantize(%a, %s) : f32[N,3]
      %q = dequantize(%b, %t, %o) : f32[N,3]
      %v = {op}(%p, %q) : f32[N,3]
      %y = quantize(%v, %t, %z) : u8[N,3]
      return %y
    }}"""
    steps = "cast sub cast mul" if op == "mul" else "cast mul cast sub"
    computes("fold-quantize", text, f"{steps} {op} saturate")


def test_tensors_of_other_shapes_have_no_table():
    text = f"""graph g(%x: u8[N,3]) -> u8[N,2,3] {{
      param @p: f32[2,1]
      {NUMBERS}
      %d = dequantize(%x, %s) : f32[N,3]
      %e = reshape(%d) {{shape=(N,1,3)}} : f32[N,1,3]
      %v = mul(%e, @p) : f32[N,2,3]
      %y = quantize(%v, %t, %z) : u8[N,2,3]
      return %y
    }}"""
    computes(["sink-dequantize", "fold-quantize"], text, "reshape cast mul saturate")


# -- a quantize before what moves and compares ----------------------------------------------------


@pytest.mark.parametrize(
    ("op", "size"),
    [
        ("reshape(%c) {shape=(N,100)}", "N,100"),
        ("permute(%c) {axes=(0,2,3,1)}", "N,5,5,4"),
        ("slice(%c) {axis=1, start=1, stop=3}", "N,2,5,5"),
        ("max_pool2d(%c) {kernel=(2,2), stride=(2,2)}", "N,4,2,2"),
        ("pad(%c) {before=(0,0,1,0), after=(0,2,0,3)}", "N,6,6,8"),
        ("pad(%c) {before=(0,0,1,0), after=(0,2,0,3), value=-7.3}", "N,6,6,8"),
        ("resize(%c) {size=(7,9)}", "N,4,7,9"),
        ("concat(%c, %u) {axis=1}", "N,5,5,5"),
    ],
)
def test_what_a_layer_makes_is_quantised_first(op, size):
    name = op.partition("(")[0]
    text = behind_a_layer(
        f"%v = {op} : f32[{size}]\n%y = quantize(%v, %s, %z) : u8[{size}]",
        inputs="%x: u8[N,3,5,5], %u: f32[N,1,5,5]",
        results=f"u8[{size}]",
    )
    parts = "integer_conv2d cast mul saturate"
    computes("fold-quantize", text, f"{parts}{' quantize' if name == 'concat' else ''} {name}")


def test_a_scale_may_be_written_after_what_is_quantised():
    text = behind_a_layer(
        """%v = reshape(%c) {shape=(N,100)} : f32[N,100]
        %scale = constant() {value=0.5} : f32[]
        %y = quantize(%v, %scale, %z) : u8[N,100]""",
        inputs="%x: u8[N,3,5,5]",
        results="u8[N,100]",
    )
    computes("fold-quantize", text, "integer_conv2d cast mul saturate reshape")


def test_of_floats_the_largest_is_found_first():
    """For it may be NaN, of which a quantize makes the least."""
    assert_unchanged(
        "fold-quantize",
        f"""graph g(%x: f32[N,3,4,4]) -> u8[N,3,2,2] {{
          {NUMBERS}
          %p = max_pool2d(%x) {{kernel=(2,2), stride=(2,2)}} : f32[N,3,2,2]
          %y = quantize(%p, %s, %z) : u8[N,3,2,2]
          return %y
        }}""",
    )


def test_what_is_read_elsewhere_too_is_quantised_where_it_is():
    assert_unchanged(
        "fold-quantize",
        f"""graph g(%x: f32[N,3]) -> u8[3,N], f32[3,N] {{
          {NUMBERS}
          %p = permute(%x) {{axes=(1,0)}} : f32[3,N]
          %y = quantize(%p, %s, %z) : u8[3,N]
          return %y, %p
        }}""",
    )


# -- the scale ------------------------------------------------------------------------------------


def test_the_scale_joins_multiplier_and_bias():
    (fired,) = assert_rewrites(
        "fold-quantize",
        before=behind_a_layer(
            f"""%a = add(%c, @b) : {Y} at "conv"
            %r = relu(%a) : {Y} at "relu"
            %y = quantize(%r, %s, %z) : u8[N,4,5,5] at "q" """
        ),
        after=f"""graph g(%x: u8[N,3,5,5]) -> u8[N,4,5,5] {{
          source @m: f32[1,4,1,1]
          source @b: f32[1,4,1,1]
          param @w: i8[4,3,1,1]
          param @m.steps: f32[1,4,1,1] = div(@m, 0.5)
          param @b.steps: f32[1,4,1,1] = div(@b, 0.5)
          %t = constant() {{value=0.25}} : f32[]
          %o = constant() {{value=5, dtype="u8"}} : u8[]
          %i = integer_conv2d(%x, @w) : i32[N,4,5,5] at "conv"
          %f = cast(%i) : {Y} at "conv"
          %mul = mul(%f, @m.steps) : {Y} at "conv"
          %add = add(%mul, @b.steps) : {Y} at "conv"
          %relu = relu(%add) : {Y} at "relu"
          %y = saturate(%relu) {{zero_point=3}} : u8[N,4,5,5] at "q" from ("quantize q")
          return %y
        }}""",
    )
    assert fired.rule == "into_factors"


@pytest.mark.parametrize(
    ("lines", "ops"),
    [
        (f"%v = clip(%c) {{low=-1.5, high=20.0}} : {Y}", "clip"),
        (f"%v = leaky_relu(%c) {{slope=0.25}} : {Y}", "leaky_relu"),
        (f"%v = neg(%c) : {Y}", "neg"),
        (f"%v = abs(%c) : {Y}", "abs"),
        (f"%v = maximum(%c, @b) : {Y}", "maximum"),
        (f"%v = sub(%c, @b) : {Y}", "sub"),
        (f"%k = constant() {{value=1.7}} : f32[]\n%v = add(%c, %k) : {Y}", "add"),
        (f"%v = add(%c, %u) : {Y}", "mul add"),
        (f"%v = div(%c, %u) : {Y}", "div"),
        (f"%v = mul(%c, %u) : {Y}", "mul"),
        (f"%v = where(%u, %c, @b) : {Y}", "where"),
        (f"%v = prelu(%c, @b) : {Y}", "prelu"),
        (f"%v = silu(%c) : {Y}", "silu mul"),
        (f"%a = add(%c, @b) : {Y}\n%v = hardswish(%a) : {Y}", "add hardswish mul"),
        (f"%e = dequantize(%q, %t, %o) : {Y}\n%v = add(%c, %e) : {Y}", "cast sub mul add"),
        (f"%e = dequantize(%q, %s, %o) : {Y}\n%v = sub(%e, %c) : {Y}", "sub"),
    ],
)
def test_the_scale_joins_through(lines, ops):
    text = behind_a_layer(
        f"{lines}\n%y = quantize(%v, %s, %z) : u8[N,4,5,5]",
        inputs=f"%x: u8[N,3,5,5], %u: {Y}, %q: u8[N,4,5,5]",
    )
    if lines.endswith(f"sub(%e, %c) : {Y}"):
        computes("fold-quantize", text, "integer_conv2d cast mul cast sub sub saturate")
    else:
        computes("fold-quantize", text, f"integer_conv2d cast mul {ops} saturate")


def test_a_result_that_was_quantised_before_the_add_is_rounded_twice():
    text = behind_a_layer(
        f"""%p = quantize(%c, %t, %o) : u8[N,4,5,5]
        %d = dequantize(%p, %t, %o) : {Y}
        %e = dequantize(%q, %t) : {Y}
        %v = add(%d, %e) : {Y}
        %r = relu(%v) : {Y}
        %y = quantize(%r, %s) : u8[N,4,5,5]""",
        inputs="%x: u8[N,3,5,5], %q: u8[N,4,5,5]",
    )
    chain = "cast sub mul cast mul add saturate"
    computes("fold-quantize", text, f"integer_conv2d cast mul saturate {chain}")


@pytest.mark.parametrize(
    ("simple", "ops"),
    [
        ("%v = relu(%d)", "cast sub mul relu saturate"),
        ("%v = leaky_relu(%d) {slope=0.25}", "cast sub mul leaky_relu saturate"),
        ("%v = silu(%d)", "lookup"),
    ],
)
def test_a_few_simple_ops_behind_a_layer_join_it_instead_of_a_table(simple, ops):
    text = behind_a_layer(
        f"""%p = quantize(%c, %t, %o) : u8[N,4,5,5]
        %d = dequantize(%p, %t, %o) : {Y}
        {simple} : {Y}
        %y = quantize(%v, %s, %z) : u8[N,4,5,5]"""
    )
    computes("fold-quantize", text, f"integer_conv2d cast mul saturate {ops}")
    twice = text.replace("-> u8[N,4,5,5]", "-> u8[N,4,5,5], u8[N,4,5,5]")
    twice = twice.replace("return %y", "return %y, %p")
    computes("fold-quantize", twice, "integer_conv2d cast mul saturate lookup")


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("%v = relu(%c)", "relu"),
        ("%v = clip(%c) {low=-1.5, high=126.0}", ""),
        ("%v = clip(%c) {low=-1.0, high=126.0}", "clip"),
        ("%v = clip(%c) {low=-1.5, high=3.0}", "clip"),
    ],
)
def test_bounds_beyond_those_of_the_dtype_go_away(lines, left):
    """From (0 - 3) / 2 to (255 - 3) / 2."""
    text = behind_a_layer(f"{lines} : {Y}\n%y = quantize(%v, %s, %z) : u8[N,4,5,5]")
    result = computes("fold-quantize", text, f"integer_conv2d cast mul {left} saturate")
    bounds = [(n.op.low, n.op.high) for n in result.nodes if n.op.name == "clip"]
    assert bounds in ([], [(-2.0, None)], [(None, 6.0)])
    text = behind_a_layer(f"%v = relu(%c) : {Y}\n%y = quantize(%v, %s) : u8[N,4,5,5]")
    computes("fold-quantize", text, "integer_conv2d cast mul saturate")


def test_a_quantize_of_floats_divides():
    assert_unchanged(
        "fold-quantize",
        f"""graph g(%x: f32[N,3]) -> u8[N,3] {{
          {NUMBERS}
          %v = relu(%x) : f32[N,3]
          %y = quantize(%v, %s, %z) : u8[N,3]
          return %y
        }}""",
    )


def test_a_layer_that_is_read_elsewhere_too_stays():
    text = behind_a_layer(
        f"""%a = add(%c, @b) : {Y}
        %y = quantize(%a, %s, %z) : u8[N,4,5,5]
        %e = silu(%a) : {Y}""",
        results=f"u8[N,4,5,5], {Y}",
        returns="%y, %e",
    )
    assert missed("fold-quantize", text) == ["%a is read elsewhere too"]


@pytest.mark.parametrize("numbers", ["%n", "%h"])
def test_a_scale_that_is_no_number_known_for_the_whole_stays(numbers):
    kind = "f32[]" if numbers == "%n" else "f32[4]"
    axis = "" if numbers == "%n" else " {axis=1}"
    text = behind_a_layer(
        f"%y = quantize(%c, {numbers}){axis} : u8[N,4,5,5]",
        inputs=f"%x: u8[N,3,5,5], {numbers}: {kind}",
    )
    assert_unchanged("fold-quantize", text)
