"""cut-layers: a convolution for each slice of its result."""

import pytest
from pass_checks import after, missed

PASSES = ["cut-layers", "fuse-epilogue", "drop-dead-parameters"]


def graph(stop: int = 16, start: int = 16, weight: str = "f32[24,4,1,1]", more: str = "") -> str:
    rest = 24 - start
    return f"""graph g(%x: f32[N,4,3,3], %r: f32[N,{stop},3,3]) -> f32[N,{stop + rest},3,3] {{
      param @w: {weight}
      param @b: f32[24]
      %c = conv2d(%x, @w, @b) {more} : f32[N,24,3,3] at "c"
      %a = slice(%c) {{axis=1, start=0, stop={stop}}} : f32[N,{stop},3,3]
      %d = slice(%c) {{axis=1, start={start}, stop=24}} : f32[N,{rest},3,3]
      %s = add(%r, %a) : f32[N,{stop},3,3]
      %y = concat(%s, %d) {{axis=1}} : f32[N,{stop + rest},3,3]
      return %y
    }}"""


def test_a_residual_of_some_channels():
    first, second, _ = after(PASSES, graph(), ["conv2d", "fusion", "concat"]).nodes
    assert second.op.anchor.name == "conv2d"
    assert (first.inputs[1].type.shape[0], second.inputs[1].type.shape[0]) == (8, 16)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (graph(stop=12), ["not only slices that follow each other read it"]),
        (graph(start=18, stop=18), ["a part has less than 8 channels"]),
        (graph(weight="f32[24,2,1,1]", more="{groups=2}"), ["it has groups"]),
        (graph().replace("return %y", "return %y, %c").replace(" {", ", f32[N,24,3,3] {", 1), []),
        (graph().replace("add(%r, %a)", "max_pool2d(%a) {kernel=(1,1), stride=(1,1)}"), []),
    ],
)
def test_what_stays(text, reasons):
    assert missed("cut-layers", text) == reasons
