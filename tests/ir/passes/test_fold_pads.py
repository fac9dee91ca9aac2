"""fold-pads: padding becomes that of the convolution or pool after it."""

import pytest
from pass_checks import after, missed

PASS = "fold-pads"
X = "f32[N,2,6,6]"


def padded(reader: str, size: str, sides="1,2", value="0.0", mode="", before="") -> str:
    """%x, padded by (top, left) and (bottom, right) 0, and what reads it."""
    top, left = map(int, sides.split(","))
    kind = f"f32[N,2,{6 + top},{6 + left}]"
    more = f', mode="{mode}"' if mode else ""
    return f"""graph g(%x: {X}) -> f32[N,2,{size}] {{
      param @w: f32[2,2,3,3]
      {before or f"%r = add(%x, %x) : {X}"}
      %p = pad(%r) {{before=(0,0,{sides}), after=(0,0,0,0), value={value}{more}}} : {kind}
      %y = {reader} : f32[N,2,{size}]
      return %y
    }}"""


CONV = "conv2d(%p, @w) {padding=(0,0,1,0)}"
RELU = f"%r = relu(%x) : {X}"


def test_convolutions():
    result = after(PASS, padded(CONV, "6,6"), ["add", "conv2d"])
    assert result.nodes[-1].op.padding == (1, 2, 1, 0)


def test_two_pads_are_one():
    text = f"""graph g(%x: {X}) -> f32[N,3,9,6] {{
      %a = pad(%x) {{before=(0,0,1,0), after=(0,0,0,0), value=2.0}} : f32[N,2,7,6]
      %b = pad(%a) {{before=(0,0,0,0), after=(0,1,2,0), value=2.0}} : f32[N,3,9,6]
      return %b
    }}"""
    after(PASS, text, ["pad"])
    other = text.replace("(0,1,2,0), value=2.0", "(0,1,2,0), value=1.0")
    assert missed(PASS, other) == ["the padding before it is by another value"]


MAX = "max_pool2d(%p) {kernel=(3,3), stride=(2,2)}"


def test_max_pools():
    infinite = padded(MAX, "3,3", value="-inf")
    assert after(PASS, infinite, ["add", "max_pool2d"]).nodes[-1].op.padding == (1, 2, 0, 0)
    after(PASS, padded(MAX, "3,3", before=RELU), ["relu", "max_pool2d"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (padded(MAX, "3,3"), "%r may be negative, and zeros around it count"),
        (padded(MAX.replace("3,3", "2,2", 1), "3,4", before=RELU),
         "windows lie in the padding alone"),
        (padded(MAX.replace("}", ", padding=(1,1,1,1)}"), "4,4", before=RELU),
         "it pads by itself too, with minus infinity where there are zeros now"),
        (padded(MAX.replace("}", ", ceil_mode=true}"), "3,4", value="-inf"),
         "with ceil_mode, a window may start in an operand's padding only"),
        (padded(CONV, "6,6", value="1.0"), "%p is padded by 1.0"),
        (padded(CONV, "6,6", mode="reflect"), "%p is padded in mode reflect"),
    ],
)  # fmt: skip
def test_what_stays(text, reason):
    assert missed(PASS, text) == [reason]


def test_channels_are_no_part_of_the_image():
    text = f"""graph g(%x: {X}) -> f32[N,1,4,4] {{
      param @w: f32[1,3,3,3]
      %p = pad(%x) {{before=(0,1,0,0), after=(0,0,0,0)}} : f32[N,3,6,6]
      %y = conv2d(%p, @w) : f32[N,1,4,4]
      return %y
    }}"""
    assert missed(PASS, text) == ["channels are padded, not the image alone"]


def test_average_pools():
    pool = "avg_pool2d(%p) {kernel=(2,2), stride=(1,1), count_include_pad=false}"
    result = after(PASS, padded(pool, "6,7"), ["add", "avg_pool2d"])
    assert result.nodes[-1].op.count_include_pad
    own = "avg_pool2d(%p) {kernel=(2,2), stride=(1,1), padding=(1,1,1,1)MORE}"
    after(PASS, padded(own.replace("MORE", ""), "8,9"), ["add", "avg_pool2d"])
    rim = padded(own.replace("MORE", ", count_include_pad=false"), "8,9")
    assert missed(PASS, rim) == ["its own padding does not count, and an operand's does"]


def test_a_pad_with_another_reader_stays_for_that():
    text = padded(CONV, "6,6").replace("f32[N,2,6,6] {", "f32[N,2,6,6], f32[N,2,7,8] {", 1)
    after(PASS, text.replace("return %y", "return %y, %p"), ["add", "pad", "conv2d"])
