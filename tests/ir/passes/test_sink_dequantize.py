"""sink-dequantize: text before and after, and what must stay."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged, computes, missed

NUMBERS = """
  %s = constant() {value=0.5} : f32[]
  %z = constant() {value=3, dtype="u8"} : u8[]
"""


def test_a_max_pool_is_of_integers():
    (fired,) = assert_rewrites(
        "sink-dequantize",
        before=f"""graph g(%x: u8[N,3,6,6]) -> f32[N,3,3,3] {{
          {NUMBERS}
          %d = dequantize(%x, %s, %z) : f32[N,3,6,6] at "input"
          %y = max_pool2d(%d) {{kernel=(2,2), stride=(2,2)}} : f32[N,3,3,3] at "pool"
          return %y
        }}""",
        after=f"""graph g(%x: u8[N,3,6,6]) -> f32[N,3,3,3] {{
          {NUMBERS}
          %max_pool2d = max_pool2d(%x) {{kernel=(2,2), stride=(2,2)}} : u8[N,3,3,3] at "pool"
          %y = dequantize(%max_pool2d, %s, %z) : f32[N,3,3,3] at "pool" from ("max_pool2d pool")
          return %y
        }}""",
    )
    assert fired.rule == "below"


@pytest.mark.parametrize(
    ("op", "size"),
    [
        ("reshape(%d) {shape=(N,75)}", "N,75"),
        ("permute(%d) {axes=(0,2,3,1)}", "N,5,5,3"),
        ("slice(%d) {axis=1, start=1, stop=3}", "N,2,5,5"),
        ("max(%d) {axes=(2,3)}", "N,3"),
        ("min(%d) {axes=(1)}", "N,5,5"),
        ("adaptive_max_pool2d(%d) {size=(2,3)}", "N,3,2,3"),
        ("max_pool2d(%d) {kernel=(3,3), stride=(2,2), padding=(1,1,1,1)}", "N,3,3,3"),
        ("max_pool2d(%d) {kernel=(2,2), stride=(2,2), ceil_mode=true}", "N,3,3,3"),
        ("max_pool2d(%d) {kernel=(2,2), stride=(1,1), dilation=(3,3)}", "N,3,2,2"),
        ("resize(%d) {size=(7,9)}", "N,3,7,9"),
        ("pad(%d) {before=(0,0,1,0), after=(0,2,0,3)}", "N,5,6,8"),
        ("pad(%d) {before=(0,0,1,0), after=(0,2,0,3), value=-1.5}", "N,5,6,8"),
        ('pad(%d) {before=(0,0,1,0), after=(0,2,0,3), mode="edge"}', "N,5,6,8"),
    ],
)
@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_what_moves_and_compares_is_of_integers(op, size, dtype):
    result = after(
        "sink-dequantize",
        f"""graph g(%x: {dtype}[N,3,5,5]) -> f32[{size}] {{
          {NUMBERS.replace("u8", dtype)}
          %d = dequantize(%x, %s, %z) : f32[N,3,5,5]
          %y = {op} : f32[{size}]
          return %y
        }}""",
        ["constant", "constant", op.partition("(")[0], "dequantize"],
    )
    assert result.nodes[2].output.type.dtype == dtype


def test_a_border_of_zeros_is_one_of_zero_points():
    result = after(
        "sink-dequantize",
        f"""graph g(%x: u8[N,3]) -> f32[N,4] {{
          {NUMBERS}
          %d = dequantize(%x, %s, %z) : f32[N,3]
          %y = pad(%d) {{before=(0,1), after=(0,0)}} : f32[N,4]
          return %y
        }}""",
        ["constant", "constant", "pad", "dequantize"],
    )
    assert result.nodes[2].op.value == 3


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (
            "pad(%d) {before=(0,0,0,1), after=(0,0,0,0), value=0.25}",
            "no integer stands for 0.25, which it pads with",
        ),
        (
            "pad(%d) {before=(0,0,0,1), after=(0,0,0,0), value=-2.0}",
            "no integer stands for -2, which it pads with",
        ),
        (
            "max_pool2d(%d) {kernel=(2,2), stride=(1,1), padding=(0,2,0,0)}",
            "a window may lie in the padding, which no integer stands for",
        ),
    ],
)
def test_what_no_integer_stands_for_stays(op, why):
    size = "N,3,5,6" if op.startswith("pad") else "N,3,4,6"
    text = f"""graph g(%x: u8[N,3,5,5]) -> f32[{size}] {{
      {NUMBERS}
      %d = dequantize(%x, %s, %z) : f32[N,3,5,5]
      %y = {op} : f32[{size}]
      return %y
    }}"""
    assert missed("sink-dequantize", text) == [why]


@pytest.mark.parametrize(
    ("zero_point", "ops"),
    [(3, ["constant", "constant", "constant", "maximum", "dequantize"]), (0, ["constant"] * 2)],
)
def test_a_relu_compares_with_the_zero_point(zero_point, ops):
    after(
        "sink-dequantize",
        f"""graph g(%x: u8[N,3]) -> f32[N,3] {{
          {NUMBERS.replace("=3", f"={zero_point}")}
          %d = dequantize(%x, %s, %z) : f32[N,3]
          %y = relu(%d) : f32[N,3]
          return %y
        }}""",
        ops if zero_point else [*ops, "dequantize"],
    )


def concat(second: str, scale: str = "%s", zero_point: str = "%z") -> str:
    return f"""graph g(%a: u8[N,3], %b: {second}[N,2]) -> f32[N,5] {{
      {NUMBERS}
      %t = constant() {{value=0.25}} : f32[]
      %o = constant() {{value=3, dtype="{second}"}} : {second}[]
      %p = dequantize(%a, %s, %z) : f32[N,3]
      %q = dequantize(%b, {scale}, {zero_point}) : f32[N,2]
      %y = concat(%p, %q) {{axis=1}} : f32[N,5]
      return %y
    }}"""


def test_parts_of_one_scale_are_concatenated_as_integers():
    for zero_point in ("%z", "%o"):
        text = concat("u8", "%s", zero_point)
        computes("sink-dequantize", text, "concat dequantize")


@pytest.mark.parametrize("given", [("u8", "%t", "%o"), ("i8", "%s", "%o")])
def test_parts_of_several_scales_stay(given):
    assert_unchanged("sink-dequantize", concat(*given))


@pytest.mark.parametrize(
    ("inputs", "dequantize"),
    [
        ("%x: u8[N,3], %t: f32[]", "dequantize(%x, %t)"),
        ("%x: u8[N,3], %t: f32[3]", "dequantize(%x, %t) {axis=1}"),
        ("%x: i16[N,3], %t: f32[]", "dequantize(%x, %s)"),
        ("%x: u8[N,3], %t: u8[]", "dequantize(%x, %s, %t)"),
        ("%x: u8[N,3], %t: f32[]", "dequantize(%x, %tiny)"),
        ("%x: u8[N,3], %t: f32[]", "dequantize(%x, %negative)"),
        ("%x: u8[N,3], %t: f32[]", "dequantize(%x, %nan)"),
    ],
)
def test_what_has_no_scale_known_for_the_whole_tensor_stays(inputs, dequantize):
    constants = {"s": "0.5", "tiny": "1e-35", "negative": "-0.5", "nan": "nan"}
    written = "\n".join(
        f"%{name} = constant() {{value={value}}} : f32[]"
        for name, value in constants.items()
        if f"%{name}" in dequantize
    )
    text = f"""graph g({inputs}) -> f32[3,N] {{
      {written}
      %d = {dequantize} : f32[N,3]
      %y = permute(%d) {{axes=(1,0)}} : f32[3,N]
      return %y
    }}"""
    assert missed("sink-dequantize", text) == []


# -- sums over a few places -----------------------------------------------------------------------


def splits(lines: str, shape: str = "N,2,3,4,4", places: str = "2") -> str:
    """An image of 2 x 3 channels, of which the splits are added up."""
    return f"""graph g(%x: u8[N,6,4,4], %g: u8[N,6,1,1]) -> f32[{shape.replace("2,", "", 1)}] {{
      {NUMBERS}
      %a = reshape(%x) {{shape=({shape})}} : u8[{shape}]
      %d = dequantize(%a, %s, %z) : f32[{shape}]
      {lines}
      %y = sum(%v) {{axes=(1)}} : f32[{shape.replace(f"{places},", "", 1)}]
      return %y
    }}"""


def test_splits_are_added_as_slices_of_the_image():
    text = splits("%v = dequantize(%a, %s, %z) : f32[N,2,3,4,4]")
    result = computes(
        "sink-dequantize", text, "reshape dequantize slice dequantize slice dequantize add"
    )
    assert [n.op.axis for n in result.nodes if n.op.name == "slice"] == [1, 1]


def test_what_is_computed_of_splits_for_their_sum_is_computed_split_by_split():
    text = splits(
        """%h = reshape(%g) {shape=(N,2,3,1,1)} : u8[N,2,3,1,1]
        %e = dequantize(%h, %s) : f32[N,2,3,1,1]
        %m = mul(%d, %e) : f32[N,2,3,4,4]
        %q = quantize(%m, %s) : u8[N,2,3,4,4]
        %v = dequantize(%q, %s) : f32[N,2,3,4,4]"""
    )
    one = "slice dequantize slice dequantize mul quantize dequantize"
    computes("sink-dequantize", text, f"{one} {one} add")
    text = text.replace("-> f32[N,3,4,4]", "-> u8[N,3,4,4]")
    text = text.replace("return %y", "%w = quantize(%y, %s) : u8[N,3,4,4]\n return %w")
    passes = ["sink-dequantize", "fold-quantize", "fuse-epilogue"]
    fused = computes(passes, text, "slice slice slice slice fusion")
    assert [v.type.dtype for v in fused.nodes[-1].inputs] == ["u8"] * 4


def test_splits_times_weights_are_added_split_by_split():
    text = splits("%v = mul(%d, %e) : f32[N,2,3,4,4]").replace("%g: u8", "%g: f32")
    text = text.replace(
        "%v = mul", "%e = reshape(%g) {shape=(N,2,3,1,1)} : f32[N,2,3,1,1]\n %v = mul"
    )
    one = "slice dequantize slice mul"
    computes("sink-dequantize", text, f"{one} {one} add")
    text = text.replace("-> f32[N,3,4,4]", "-> u8[N,3,4,4]")
    text = text.replace("return %y", "%w = quantize(%y, %s) : u8[N,3,4,4]\n return %w")
    passes = ["sink-dequantize", "fold-quantize", "fuse-epilogue"]
    fused = computes(passes, text, "slice slice slice slice fusion")
    assert sorted(v.type.dtype for v in fused.nodes[-1].inputs) == ["f32", "f32", "u8", "u8"]


@pytest.mark.parametrize(
    ("product", "result"),
    [
        ("mul(%d, %f)", "%y"),  # floats of the same size would be read as often
        ("mul(%f, %f)", "%y"),
        ("mul(%d, %e)", "%y, %v"),
    ],
)
def test_a_sum_of_other_products_stays(product, result):
    types = "f32[N,3,4,4], f32[N,2,3,4,4]" if "," in result else "f32[N,3,4,4]"
    assert_unchanged(
        "sink-dequantize",
        f"""graph g(%a: u8[N,2,3,4,4], %e: f32[N,2,3,1,1], %f: f32[N,2,3,4,4]) -> {types} {{
          {NUMBERS}
          %d = dequantize(%a, %s, %z) : f32[N,2,3,4,4]
          %v = {product} : f32[N,2,3,4,4]
          %y = sum(%v) {{axes=(1)}} : f32[N,3,4,4]
          return {result}
        }}""",
    )


def test_a_sum_over_many_places_stays():
    text = f"""graph g(%x: u8[N,6,4,4]) -> f32[N,4,4] {{
      {NUMBERS}
      %d = dequantize(%x, %s, %z) : f32[N,6,4,4]
      %y = sum(%d) {{axes=(1)}} : f32[N,4,4]
      return %y
    }}"""
    assert missed("sink-dequantize", text) == ["6 places along axis 1 are not few"]
