"""spell-quantize: text before and after, what must stay, and that kernels take the result in."""

import numpy as np
from pass_checks import assert_rewrites, assert_unchanged

from lucid.ir import interpret
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph

SCALES = """
  %s = constant() {value=0.5} : f32[]
  %z = constant() {value=3, dtype="u8"} : u8[]
"""


def test_a_quantize_is_a_quotient_that_saturates():
    assert_rewrites(
        "spell-quantize",
        before=f"""graph g(%x: f32[N,3]) -> u8[N,3] {{
          {SCALES}
          %q = quantize(%x, %s, %z) : u8[N,3]
          return %q
        }}""",
        after="""graph g(%x: f32[N,3]) -> u8[N,3] {
          %constant = constant() {value=0.5} : f32[]
          %div = div(%x, %constant) : f32[N,3]
          %q = saturate(%div) {zero_point=3} : u8[N,3]
          return %q
        }""",
    )


def test_bytes_are_moved_and_not_floats():
    assert_rewrites(
        "spell-quantize",
        before=f"""graph g(%x: f32[N,4,6]) -> u8[N,6,2,2] {{
          {SCALES}
          %p = permute(%x) {{axes=(0,2,1)}} : f32[N,6,4]
          %r = reshape(%p) {{shape=(N,6,2,2)}} : f32[N,6,2,2]
          %q = quantize(%r, %s, %z) : u8[N,6,2,2]
          return %q
        }}""",
        after="""graph g(%x: f32[N,4,6]) -> u8[N,6,2,2] {
          %constant = constant() {value=0.5} : f32[]
          %div = div(%x, %constant) : f32[N,4,6]
          %quantize_1 = saturate(%div) {zero_point=3} : u8[N,4,6]
          %quantize = permute(%quantize_1) {axes=(0,2,1)} : u8[N,6,4]
          %q = reshape(%quantize) {shape=(N,6,2,2)} : u8[N,6,2,2]
          return %q
        }""",
    )


def test_a_dequantize_is_a_difference_and_a_product():
    assert_rewrites(
        "spell-quantize",
        before=f"""graph g(%x: u8[N,3]) -> f32[N,3] {{
          {SCALES}
          %f = dequantize(%x, %s, %z) : f32[N,3]
          return %f
        }}""",
        after="""graph g(%x: u8[N,3]) -> f32[N,3] {
          %cast = cast(%x) : f32[N,3]
          %constant = constant() {value=3.0} : f32[]
          %sub = sub(%cast, %constant) : f32[N,3]
          %constant_1 = constant() {value=0.5} : f32[]
          %f = mul(%sub, %constant_1) : f32[N,3]
          return %f
        }""",
    )


def test_scales_of_channels_are_left_to_the_kernels():
    assert_unchanged(
        "spell-quantize",
        """graph g(%x: f32[N,3]) -> u8[N,3] {
          param @s: f32[3]
          %q = quantize(%x, @s) {axis=1} : u8[N,3]
          return %q
        }""",
    )


def test_each_reader_has_its_own():
    """Two elementwise chains over one 8-bit tensor read bytes, and a softmax the floats."""
    graph = parse_graph(f"""graph g(%x: u8[N,3], %b: f32[N,3]) -> u8[N,3], f32[N,3], f32[N,3] {{
      {SCALES}
      %f = dequantize(%x, %s, %z) : f32[N,3]
      %a = add(%f, %b) : f32[N,3]
      %q = quantize(%a, %s, %z) : u8[N,3]
      %m = mul(%f, %b) : f32[N,3]
      %t = softmax(%f) {{axis=1}} : f32[N,3]
      return %q, %m, %t
    }}""")
    fused = run_passes(graph)
    chains = [n for n in fused.nodes if n.op.name == "fusion"]
    assert len(chains) == 3
    assert sum(graph.inputs[0].name in [v.name for v in n.inputs] for n in chains) == 3
    random = np.random.default_rng(0)
    inputs = [random.integers(0, 256, (5, 3)).astype("u1"), random.normal(0, 9, (5, 3)).astype("f")]
    for value, exact in zip(interpret(fused, inputs), interpret(graph, inputs), strict=True):
        np.testing.assert_array_equal(value, exact)
