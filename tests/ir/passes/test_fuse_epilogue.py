"""fuse-epilogue: text before and after, and what must stay apart."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged, computes, missed

Y = "f32[N,4,5,5]"
HEAD = f"graph g(%x: f32[N,3,5,5], %r: {Y}) -> {Y}"
CONV = f'%c = conv2d(%x, @c.weight) : {Y} at "c"'
WEIGHT = "param @c.weight: f32[4,3,1,1]"


def test_a_block_becomes_one_region():
    log = assert_rewrites(
        "fuse-epilogue",
        before=f"""{HEAD} {{
          {WEIGHT}
          param @gamma: f32[4,1,1]
          {CONV}
          %k = constant() {{value=0.5}} : f32[] at "block"
          %s = mul(%c, @gamma) : {Y} at "scale"
          %a = add(%r, %s) : {Y} at "block"
          %h = mul(%a, %k) : {Y} at "block"
          %y = silu(%h) : {Y} at "act"
          return %y
        }}""",
        after=f"""{HEAD} {{
          source @gamma: f32[4,1,1]
          {WEIGHT}
          param @gamma.reshaped: f32[1,4,1,1] = reshape(@gamma){{shape=(1,4,1,1)}}
          %y = fusion(%x, @c.weight, @gamma.reshaped, %r) {{anchor=conv2d, body=
            graph body(%y: {Y}, %e: f32[1,4,1,1], %e_1: {Y}) -> {Y} {{
              %mul = mul(%y, %e) : {Y}
              %add = add(%e_1, %mul) : {Y}
              %constant = constant() {{value=0.5}} : f32[]
              %mul_1 = mul(%add, %constant) : {Y}
              %silu = silu(%mul_1) : {Y}
              return %silu
            }}}} : {Y}
            at "c" from ("conv2d c", "mul scale", "add block", "mul block", "silu act")
          return %y
        }}""",
    )
    assert [f.rule for f in log] == ["into_body"] * 4


@pytest.mark.parametrize("operands", ["%a, %b", "%b, %a"])
def test_where_two_convolutions_meet_the_later_one_takes_the_add(operands):
    first, second = (f"%{'y' if o == '%b' else 'e'}" for o in operands.split(", "))
    assert_rewrites(
        "fuse-epilogue",
        before=f"""graph g(%x: f32[N,3,5,5]) -> {Y} {{
          param @a.weight: f32[4,3,1,1]
          param @b.weight: f32[4,3,1,1]
          %a = conv2d(%x, @a.weight) : {Y} at "a"
          %b = conv2d(%x, @b.weight) : {Y} at "b"
          %s = add({operands}) : {Y} at "block"
          %y = relu(%s) : {Y} at "relu"
          return %y
        }}""",
        after=f"""graph g(%x: f32[N,3,5,5]) -> {Y} {{
          param @a.weight: f32[4,3,1,1]
          param @b.weight: f32[4,3,1,1]
          %a = conv2d(%x, @a.weight) : {Y} at "a"
          %y = fusion(%x, @b.weight, %a) {{anchor=conv2d, body=
            graph body(%y: {Y}, %e: {Y}) -> {Y} {{
              %add = add({first}, {second}) : {Y}
              %relu = relu(%add) : {Y}
              return %relu
            }}}} : {Y} at "b" from ("conv2d b", "add block", "relu relu")
          return %y
        }}""",
    )


def test_a_residual_computed_after_the_convolution_comes_before_the_fusion():
    assert_rewrites(
        "fuse-epilogue",
        before=f"""{HEAD} {{
          {WEIGHT}
          {CONV}
          %late = softmax(%r) {{axis=1}} : {Y} at "late"
          %y = add(%c, %late) : {Y} at "add"
          return %y
        }}""",
        after=f"""{HEAD} {{
          {WEIGHT}
          %late = softmax(%r) {{axis=1}} : {Y} at "late"
          %y = fusion(%x, @c.weight, %late) {{anchor=conv2d, body=
            graph body(%y: {Y}, %e: {Y}) -> {Y} {{
              %add = add(%y, %e) : {Y}
              return %add
            }}}} : {Y} at "c" from ("conv2d c", "add add")
          return %y
        }}""",
    )


def test_parameters_by_channel_become_the_bias():
    assert_rewrites(
        "fuse-epilogue",
        before=f"""{HEAD} {{
          {WEIGHT}
          param @shift: f32[1,4,1,1]
          {CONV}
          %y = add(@shift, %c) : {Y} at "s"
          return %y
        }}""",
        after=f"""{HEAD} {{
          source @shift: f32[1,4,1,1]
          {WEIGHT}
          param @c.bias.folded: f32[4] = reshape(@shift){{shape=(4)}}
          %y = conv2d(%x, @c.weight, @c.bias.folded) : {Y} at "c" from ("conv2d c", "add s")
          return %y
        }}""",
    )


def test_a_bias_joins_the_bias_and_one_after_an_activation_does_not():
    assert_rewrites(
        "fuse-epilogue",
        before="""graph g(%x: f32[N,3]) -> f32[N,4] {
          param @l.weight: f32[4,3]
          param @l.bias: f32[4]
          param @more: f32[1,4]
          param @last: f32[1]
          %l = linear(%x, @l.weight, @l.bias) : f32[N,4] at "l"
          %m = add(%l, @more) : f32[N,4] at "m"
          %a = relu(%m) : f32[N,4] at "a"
          %y = add(%a, @last) : f32[N,4] at "y"
          return %y
        }""",
        after="""graph g(%x: f32[N,3]) -> f32[N,4] {
          source @l.bias: f32[4]
          source @more: f32[1,4]
          source @last: f32[1]
          param @l.weight: f32[4,3]
          param @l.bias.folded: f32[4] = add(@l.bias, reshape(@more){shape=(4)})
          param @last.reshaped: f32[4] = expand(reshape(@last){shape=()}){shape=(4)}
          %y = fusion(%x, @l.weight, @l.bias.folded, @last.reshaped) {anchor=linear, body=
            graph body(%y: f32[N,4], %e: f32[4]) -> f32[N,4] {
              %relu = relu(%y) : f32[N,4]
              %add = add(%relu, %e) : f32[N,4]
              return %add
            }} : f32[N,4] at "l" from ("linear l", "add m", "relu a", "add y")
          return %y
        }""",
    )


def test_a_gate_by_image_and_a_square_join():
    assert_rewrites(
        "fuse-epilogue",
        before=f"""graph g(%x: f32[N,3,5,5], %gate: f32[N,4,1,1]) -> {Y} {{
          {WEIGHT}
          {CONV}
          %q = mul(%c, %c) : {Y} at "q"
          %y = mul(%gate, %q) : {Y} at "y"
          return %y
        }}""",
        after=f"""graph g(%x: f32[N,3,5,5], %gate: f32[N,4,1,1]) -> {Y} {{
          {WEIGHT}
          %y = fusion(%x, @c.weight, %gate) {{anchor=conv2d, body=
            graph body(%y: {Y}, %e: f32[N,4,1,1]) -> {Y} {{
              %mul = mul(%y, %y) : {Y}
              %mul_1 = mul(%e, %mul) : {Y}
              return %mul_1
            }}}} : {Y} at "c" from ("conv2d c", "mul q", "mul y")
          return %y
        }}""",
    )


def test_one_residual_read_twice_is_one_extra():
    assert_rewrites(
        "fuse-epilogue",
        before=f"""{HEAD} {{
          {WEIGHT}
          {CONV}
          %a = add(%c, %r) : {Y} at "a"
          %y = mul(%a, %r) : {Y} at "y"
          return %y
        }}""",
        after=f"""{HEAD} {{
          {WEIGHT}
          %y = fusion(%x, @c.weight, %r) {{anchor=conv2d, body=
            graph body(%y: {Y}, %e: {Y}) -> {Y} {{
              %add = add(%y, %e) : {Y}
              %mul = mul(%add, %e) : {Y}
              return %mul
            }}}} : {Y} at "c" from ("conv2d c", "add a", "mul y")
          return %y
        }}""",
    )


@pytest.mark.parametrize(
    ("nodes", "returned"),
    [
        (f"%y = relu(%c) : {Y}", "%y, %c"),  # returned
        (f"%s = sigmoid(%c) : {Y} %y = mul(%c, %s) : {Y}", "%y, %s"),  # read twice
        (f"%y = add(%c, @w) : {Y}", "%y, %r"),  # by column, not by channel
        (f"%m = max(%c) {{axes=(1), keepdims=true}} : f32[N,1,5,5]"
         f" %y = sub(%r, %m) : {Y}", "%y, %r"),  # no elementwise op on the convolution
        (f"%y = add(%c, %v) : {Y}", "%y, %v"),  # by column, and no parameter
    ],
)  # fmt: skip
def test_what_stays_apart(nodes, returned):
    second = "f32[5]" if returned.endswith("%v") else Y
    assert_unchanged(
        "fuse-epilogue",
        f"""graph g(%x: f32[N,3,5,5], %r: {Y}, %v: f32[5]) -> {Y}, {second} {{
          {WEIGHT}
          {"param @w: f32[5]" if "@w" in nodes else ""}
          {CONV}
          {nodes}
          return {returned}
        }}""",
    )


def test_a_result_that_broadcasting_enlarges_stays_apart():
    assert_unchanged(
        "fuse-epilogue",
        f"""graph g(%x: f32[N,3,1,1], %r: {Y}) -> {Y} {{
          {WEIGHT}
          %c = conv2d(%x, @c.weight) : f32[N,4,1,1] at "c"
          %y = add(%r, %c) : {Y} at "y"
          return %y
        }}""",
    )


@pytest.mark.parametrize(
    "op",
    [
        "max_pool2d(%x) {kernel=(3,3), stride=(1,1), padding=(1,1,1,1)}",
        "layer_norm(%x) {axes=(1)}",
        "resize(%x) {size=(5,5), scale=(1.5,1.5)}",
        "matmul(%x, %x)",
        "mul(%x, @shift)",
    ],
)
def test_other_anchors(op):
    """Their bodies may read whatever broadcasts."""
    text = f"""{HEAD.replace("%x: f32[N,3,5,5]", f"%x: {Y}")} {{
      param @shift: f32[5]
      %p = {op} : {Y}
      %a = add(%p, @shift) : {Y}
      %b = relu(%a) : {Y}
      %y = add(%r, %b) : {Y}
      return %y
    }}"""
    (fused,) = after("fuse-epilogue", text, ["fusion"]).nodes
    assert fused.op.anchor.name == op.partition("(")[0]
    assert [n.op.name for n in fused.op.body.nodes] == ["add", "relu", "add"]


def chain(*lines: str) -> str:
    nodes = "\n".join(f"{line} : {Y}" for line in lines)
    return f"""graph g(%x: f32[N,3,5,5], %r: {Y}, %g: f32[N,4,1,1]) -> {Y} {{
      {WEIGHT}
      param @s: f32[4,1,1]
      param @t: f32[4,1,1]
      {nodes}
      return %y
    }}"""


def test_a_scale_a_shift_and_a_relu_are_one():
    text = chain("%m = mul(%r, @s)", "%a = add(%m, @t)", "%y = relu(%a)")
    after(["fuse-epilogue", "drop-dead-parameters"], text, ["fusion"])


@pytest.mark.parametrize(
    "lines",
    [
        ("%s = softplus(%c)", "%t = tanh(%s)", "%y = mul(%c, %t)"),  # a gate of itself
        ("%m = mul(%r, @s)", "%n = exp(%m)", "%y = add(%c, %n)"),  # computed besides
        ("%m = mul(%r, %g)", "%a = add(%c, %m)", "%y = relu(%a)"),
    ],
)
def test_what_meets_again_joins_the_convolution(lines):
    text = chain("%c = conv2d(%x, @c.weight)", *lines)
    (fused,) = after("fuse-epilogue", text, ["fusion"]).nodes
    assert fused.op.anchor.name == "conv2d"


def test_two_chains_that_meet_are_one():
    text = chain("%a = exp(%r)", "%b = tanh(%r)", "%c = relu(%b)", "%y = mul(%a, %c)")
    after("fuse-epilogue", text, ["fusion"])


def test_a_chain_that_a_convolution_cannot_read_stays_beside_it():
    text = chain("%c = conv2d(%x, @c.weight)", "%m = mul(%r, @row)", "%y = add(%c, %m)")
    text = text.replace("param @s", "param @row: f32[5]\n param @s")
    after("fuse-epilogue", text, ["mul", "fusion"])


def test_a_result_that_is_read_elsewhere_begins_a_chain_of_its_own():
    text = chain("%c = conv2d(%x, @c.weight)", "%a = relu(%c)", "%b = neg(%a)", "%y = add(%b, %c)")
    after("fuse-epilogue", text, ["fusion"])
    kept = text.replace(f"-> {Y}", f"-> {Y}, {Y}").replace("return %y", "return %y, %c")
    after("fuse-epilogue", kept, ["conv2d", "fusion"])


def test_bodies_have_an_end():
    text = chain(
        "%a0 = neg(%r)", *(f"%a{i} = neg(%a{i - 1})" for i in range(1, 60)), "%y = neg(%a59)"
    )
    result = after("fuse-epilogue", text, ["fusion", "fusion"])
    assert all(len(n.op.body.nodes) <= 48 for n in result.nodes)


# -- layers of integers ---------------------------------------------------------------------------

SUMS = f"""
  param @q: i8[4,3,1,1]
  param @m: f32[1,4,1,1]
  %i = integer_conv2d(%x, @q) : i32[N,4,5,5] at "conv"
  %f = cast(%i) : {Y} at "conv"
  %c = mul(%f, @m) : {Y} at "conv"
"""


def integers(lines: str, inputs: str = "", results: str = "u8[N,4,5,5]") -> str:
    return f"graph g(%x: u8[N,3,5,5]{inputs}) -> {results} {{\n{SUMS}\n{lines}\nreturn %y\n}}"


def test_sums_of_integers_become_floats_and_8_bits_in_the_body():
    assert_rewrites(
        "fuse-epilogue",
        before=integers('%y = saturate(%c) {zero_point=3} : u8[N,4,5,5] at "q"'),
        after=f"""graph g(%x: u8[N,3,5,5]) -> u8[N,4,5,5] {{
          param @q: i8[4,3,1,1]
          param @m: f32[1,4,1,1]
          %y = fusion(%x, @q, @m) {{anchor=integer_conv2d, body=
            graph body(%y: i32[N,4,5,5], %e: f32[1,4,1,1]) -> u8[N,4,5,5] {{
              %cast = cast(%y) : {Y}
              %mul = mul(%cast, %e) : {Y}
              %saturate = saturate(%mul) {{zero_point=3}} : u8[N,4,5,5]
              return %saturate
            }}}} : u8[N,4,5,5]
            at "conv" from ("integer_conv2d conv", "cast conv", "mul conv", "saturate q")
          return %y
        }}""",
    )


def test_a_residual_of_8_bits_is_read_as_it_is():
    text = integers(
        f"""%o = constant() {{value=3.0}} : f32[]
        %g = cast(%r) : {Y}
        %s = sub(%g, %o) : {Y}
        %a = add(%s, %c) : {Y}
        %y = saturate(%a) : u8[N,4,5,5]""",
        inputs=", %r: i8[N,4,5,5]",
    )
    (fusion,) = computes("fuse-epilogue", text, "fusion").nodes
    assert {str(v.type) for v in fusion.inputs[2:]} == {"f32[1,4,1,1]", "i8[N,4,5,5]"}


@pytest.mark.parametrize(
    ("behind", "ops"),
    [
        (f"%y = cast(%u) : {Y}", "fusion cast"),
        (f"%g = cast(%u) : {Y}\n%y = relu(%g) : {Y}", "fusion fusion"),
        (f"%g = cast(%u) : {Y}\n%h = relu(%g) : {Y}\n%y = saturate(%h) : u8[N,4,5,5]", "fusion"),
        ('%k = constant() {value=3, dtype="u8"} : u8[]\n%y = maximum(%u, %k) : u8[N,4,5,5]',
         "fusion maximum"),
    ],
)  # fmt: skip
def test_what_follows_8_bits_joins_if_it_ends_in_8_bits(behind, ops):
    result = Y if ops in ("fusion cast", "fusion fusion") else "u8[N,4,5,5]"
    text = integers(f"%u = saturate(%c) : u8[N,4,5,5]\n{behind}", results=result)
    computes("fuse-epilogue", text, ops)


def test_a_chain_of_casts_is_one_kernel_that_reads_8_bits():
    text = f"""graph g(%a: u8[N,4,5,5], %b: i8[N,4,5,5], %c: u8[N,4,1,1]) -> u8[N,4,5,5] {{
      %f = cast(%a) : {Y}
      %g = cast(%b) : {Y}
      %h = cast(%c) : f32[N,4,1,1]
      %s = sub(%f, %g) : {Y}
      %m = mul(%s, %h) : {Y}
      %t = saturate(%m) {{dtype="i8"}} : i8[N,4,5,5]
      %u = cast(%t) : {Y}
      %v = add(%u, %u) : {Y}
      %y = saturate(%v) : u8[N,4,5,5]
      return %y
    }}"""
    (fusion,) = computes("fuse-epilogue", text, "fusion").nodes
    assert {v.type.dtype for v in fusion.inputs} == {"u8", "i8"}


def test_several_that_read_a_cast_of_8_bits_have_one_each():
    text = f"""graph g(%a: u8[N,4,5,5], %b: {Y}) -> {Y}, {Y} {{
      %f = cast(%a) : {Y}
      %y = mul(%f, %b) : {Y}
      %z = relu(%f) : {Y}
      return %y, %z
    }}"""
    result = computes("fuse-epilogue", text, "fusion fusion")
    assert all(n.inputs[0] is result.inputs[0] for n in result.nodes)


def test_layers_of_floats_end_in_floats():
    text = f"""graph g(%x: f32[N,3,5,5]) -> u8[N,4,5,5] {{
      {WEIGHT}
      {CONV}
      %y = saturate(%c) : u8[N,4,5,5]
      return %y
    }}"""
    assert missed("fuse-epilogue", text) == [f"it makes u8[N,4,5,5] of %c, which is {Y}"]
