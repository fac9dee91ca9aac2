"""pool-early: an average before a 1x1 convolution, where it does not matter."""

import pytest
from pass_checks import after, missed


def graph(
    conv: str = "conv2d(%x, @w, @b)", pool: str = "", weight: str = "f32[2,4,1,1]", returns="%p"
) -> str:
    more = ", f32[N,2,7,7]" if "," in returns else ""
    size = "3,3" if "padding" not in pool and "ceil" not in pool else "4,4"
    return f"""graph g(%x: f32[N,4,7,7]) -> f32[N,2,{size}]{more} {{
      param @w: {weight}
      param @b: f32[2]
      %c = {conv} : f32[N,2,7,7]
      %p = avg_pool2d(%c) {{kernel=(2,2), stride=(2,2){pool}}} : f32[N,2,{size}]
      return {returns}
    }}"""


@pytest.mark.parametrize(
    "text",
    [
        graph(),
        graph(pool=", ceil_mode=true"),
        graph("conv2d(%x, @w) {groups=2}", weight="f32[2,2,1,1]"),
    ],
)
def test_the_pool_comes_first(text):
    pool, conv = after("pool-early", text, ["avg_pool2d", "conv2d"]).nodes
    assert conv.inputs[0] is pool.output


OTHER = "its divisor is not the number of pixels that it adds up"


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (graph(pool=", padding=(1,1,0,0)"), [OTHER]),
        (graph(pool=", divisor=3"), [OTHER]),
        (graph(returns="%p, %c"), ["%c is read elsewhere too"]),
        (graph("conv2d(%x, @w, @b) {padding=(1,1,1,1)}", weight="f32[2,4,3,3]"), []),
    ],
)
def test_what_stays(text, reasons):
    assert missed("pool-early", text) == reasons
