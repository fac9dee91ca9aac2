"""fold-shuffles: convolutions of shuffled channels permute their weights instead."""

import pytest
from pass_checks import after, missed

PASS = "fold-shuffles"
X = "f32[N,6,3,3]"


def shuffled(of: str = "%x", to: str = "%p", groups: int = 2) -> str:
    rest = 6 // groups
    return f"""
      {to}1 = reshape({of}) {{shape=(N,{groups},{rest},3,3)}} : f32[N,{groups},{rest},3,3]
      {to}2 = permute({to}1) {{axes=(0,2,1,3,4)}} : f32[N,{rest},{groups},3,3]
      {to} = reshape({to}2) {{shape=(N,6,3,3)}} : {X}"""


def graph(*lines: str, results: str = X, returns: str = "%y") -> str:
    body = "\n".join(lines)
    return f"""graph g(%x: {X}, %z: f32[N,3,3,3]) -> {results} {{
      param @w: f32[6,6,1,1]
      param @h: f32[6,3,3,3]
      param @d: f32[6,1,3,3]
      param @b: f32[6]
      {body}
      return {returns}
    }}"""


POINT = f"%y = conv2d(%p, @w, @b) : {X}"


@pytest.mark.parametrize("groups", [2, 3])
def test_a_shuffle_before_a_convolution(groups):
    after([PASS, "canonicalise"], graph(shuffled(groups=groups), POINT), ["conv2d"])


def half(start: int, to: str) -> str:
    return f"%{to} = slice(%p) {{axis=1, start={start}, stop={start + 3}}} : f32[N,3,3,3]"


def test_half_of_what_was_joined_and_shuffled():
    """As in ShuffleNetV2: no channel is moved, the convolution reads two slices."""
    text = graph(
        "%c = slice(%x) {axis=1, start=0, stop=3} : f32[N,3,3,3]",
        f"%j = concat(%z, %c) {{axis=1}} : {X}",
        shuffled("%j"),
        half(3, "s"),
        f"%y = conv2d(%s, @h) {{padding=(1,1,1,1)}} : {X}",
    )
    result = after([PASS, "canonicalise"], text, ["slice", "slice", "concat", "conv2d"])
    cuts = [(n.op.start, n.op.stop) for n in result.nodes[:2]]
    assert sorted(cuts) == [(1, 3), (2, 3)]


def test_all_that_read_the_same_channels_share_them():
    other = f"%v = conv2d(%p, @w) : {X}"
    join = "%j = concat(%z, %z2) {axis=1}".replace("%z2", "%m") + f" : {X}"
    make = "%m = max_pool2d(%z) {kernel=(1,1), stride=(1,1)} : f32[N,3,3,3]"
    text = graph(make, join, shuffled("%j"), POINT, other, returns="%y, %v", results=f"{X}, {X}")
    after([PASS, "drop-dead-parameters"], text, ["max_pool2d", "concat", "conv2d", "conv2d"])


DEPTHWISE = f"%e = conv2d(%p, @d, @b) {{padding=(1,1,1,1), groups=6}} : {X}"


def test_a_depthwise_convolution_passes_the_shuffle_on():
    text = graph(shuffled(), DEPTHWISE, f"%y = conv2d(%e, @w, @b) : {X}")
    after([PASS, "canonicalise"], text, ["conv2d", "conv2d"])


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (graph(shuffled(), DEPTHWISE, f"%y = relu(%e) : {X}"),
         ["not only convolutions without groups read its result"]),
        (graph(shuffled(), half(0, "s"),
               "%j = concat(%s, %s) {axis=1} : " + X, POINT.replace("%p,", "%j,")),
         ["it reads a channel twice"]),
        (graph(f"%p = concat(%z, %z) {{axis=1}} : {X}", POINT), []),
        (graph(f"%p = permute(%x) {{axes=(0,1,3,2)}} : {X}", POINT), []),
        (graph(shuffled(), f"%y = relu(%p) : {X}"), []),
    ],
)  # fmt: skip
def test_what_stays(text, reasons):
    assert missed(PASS, text) == reasons
