"""fuse-split-attention: the spellings it must find, and the near misses it must leave alone."""

import pytest
from pass_checks import assert_rewrites, assert_unchanged, with_payload
from strategies import assert_equivalent

from lucid.ir.ops import SplitAttention
from lucid.ir.passes import run_passes

PASSES = ["canonicalise", "fuse-split-attention"]
PARAMETERS = """
  param @fc1.weight: f32[6,2,1,1]
  param @fc1.bias: f32[6]
  param @fc2.weight: f32[8,3,1,1]
  param @fc2.bias: f32[8]
"""
SPLIT = '%s = reshape(%x) {shape=(N,2,4,3,3)} : f32[N,2,4,3,3] at "a"'
TOTAL = '%t = sum(%s) {axes=(1)} : f32[N,4,3,3] at "a"'
MEAN = '%m = mean(%t) {axes=(2,3), keepdims=true} : f32[N,4,1,1] at "a"'
FC1 = '%h = conv2d(%m, @fc1.weight, @fc1.bias) {groups=2} : f32[N,6,1,1] at "a.fc1"'
RELU = '%r = relu(%h) : f32[N,6,1,1] at "a.relu"'
FC2 = '%z = conv2d(%r, @fc2.weight, @fc2.bias) {groups=2} : f32[N,8,1,1] at "a.fc2"'
GROUPED = '%z4 = reshape(%z) {shape=(N,2,2,2)} : f32[N,2,2,2] at "a"'
SWAPPED = '%zt = permute(%z4) {axes=(0,2,1,3)} : f32[N,2,2,2] at "a"'
SOFTMAX = '%p = softmax(%zt) {axis=1} : f32[N,2,2,2] at "a"'
GATE = '%g = reshape(%p) {shape=(N,2,4,1,1)} : f32[N,2,4,1,1] at "a"'
WEIGHED = '%w = mul(%s, %g) : f32[N,2,4,3,3] at "a"'
SUM = '%y = sum(%w) {axes=(1)} : f32[N,4,3,3] at "a"'
LINES = [
    SPLIT, TOTAL, MEAN, FC1, RELU, FC2, GROUPED, SWAPPED, SOFTMAX, GATE, WEIGHED, SUM
]  # fmt: skip


def block(
    changes: dict[str, str] | None = None,
    parameters: str = PARAMETERS,
    results: str = "%y",
    types: str = "f32[N,4,3,3]",
) -> str:
    """Split attention, with some of its lines in another form."""
    lines = [(changes or {}).get(line, line) for line in LINES]
    body = " ".join([parameters, *lines, f"return {results}"])
    return f"graph g(%x: f32[N,8,3,3]) -> {types} {{ {body} }}"


def test_split_attention_becomes_one_node_that_knows_its_parts():
    (fired,) = assert_rewrites(
        "fuse-split-attention",
        before=block(),
        after=f"""graph g(%x: f32[N,8,3,3]) -> f32[N,4,3,3] {{
          {PARAMETERS}
          %y = split_attention(%x, @fc1.weight, @fc1.bias, @fc2.weight, @fc2.bias)
            {{radix=2, cardinality=2}} : f32[N,4,3,3] at "a" from ("reshape a", "sum a", "mean a",
            "conv2d a.fc1", "relu a.relu", "conv2d a.fc2", "reshape a", "permute a", "softmax a",
            "reshape a", "mul a", "sum a")
          return %y
        }}""",
    )
    assert len(fired.before) == 12


def found(text: str) -> SplitAttention:
    """The split attention that all of a graph becomes."""
    graph = with_payload(text)
    result = run_passes(graph, PASSES)
    assert_equivalent(graph, result)
    assert [n.op.name for n in result.nodes] == ["split_attention"], str(result)
    return result.nodes[0].op


SPELLINGS = {
    "as it is": {},
    "mean without keepdims": {
        MEAN: "%m0 = mean(%t) {axes=(2,3)} : f32[N,4]"
        " %m = reshape(%m0) {shape=(N,4,1,1)} : f32[N,4,1,1]"
    },
    "global pool": {MEAN: "%m = avg_pool2d(%t) {kernel=(3,3), stride=(3,3)} : f32[N,4,1,1]"},
    "gate in two steps": {
        GATE: "%g4 = reshape(%p) {shape=(N,-1,1,1)} : f32[N,8,1,1]"
        " %g = reshape(%g4) {shape=(N,2,4,1,1)} : f32[N,2,4,1,1]"
    },
    "softmax before the permute": {
        SWAPPED: "%zs = softmax(%z4) {axis=2} : f32[N,2,2,2]",
        SOFTMAX: "%p = permute(%zs) {axes=(0,2,1,3)} : f32[N,2,2,2]",
    },
    "radix last": {
        SWAPPED: "%zt = permute(%z4) {axes=(0,1,3,2)} : f32[N,2,2,2]",
        SOFTMAX: "%q = softmax(%zt) {axis=3} : f32[N,2,2,2]"
        " %p = permute(%q) {axes=(0,3,1,2)} : f32[N,2,2,2]",
    },
    "operands the other way": {WEIGHED: "%w = mul(%g, %s) : f32[N,2,4,3,3]"},
    "another activation": {RELU: "%r = silu(%h) : f32[N,6,1,1]"},
    "splits as slices": {
        SPLIT: "%s0 = slice(%x) {axis=1, start=0, stop=4} : f32[N,4,3,3]"
        " %s1 = slice(%x) {axis=1, start=4, stop=8} : f32[N,4,3,3]"
        " %zero = constant() {value=0.0} : f32[]",
        TOTAL: "%t0 = add(%zero, %s0) : f32[N,4,3,3] %t = add(%t0, %s1) : f32[N,4,3,3]",
        WEIGHED: "%g0 = slice(%g) {axis=1, start=0, stop=1} : f32[N,1,4,1,1]"
        " %g1 = slice(%g) {axis=1, start=1, stop=2} : f32[N,1,4,1,1]"
        " %h0 = reshape(%g0) {shape=(N,4,1,1)} : f32[N,4,1,1]"
        " %h1 = reshape(%g1) {shape=(N,4,1,1)} : f32[N,4,1,1]"
        " %w0 = mul(%h0, %s0) : f32[N,4,3,3] %w1 = mul(%s1, %h1) : f32[N,4,3,3]",
        SUM: "%y = add(%w1, %w0) : f32[N,4,3,3]",
    },
    "slices of five axes": {
        TOTAL: "%a0 = slice(%s) {axis=1, start=0, stop=1} : f32[N,1,4,3,3]"
        " %a1 = slice(%s) {axis=1, start=1, stop=2} : f32[N,1,4,3,3]"
        " %s0 = reshape(%a0) {shape=(N,4,3,3)} : f32[N,4,3,3]"
        " %s1 = reshape(%a1) {shape=(N,4,3,3)} : f32[N,4,3,3]"
        " %t = add(%s1, %s0) : f32[N,4,3,3]",
    },
}


@pytest.mark.parametrize("changes", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(changes):
    op = found(block(changes))
    assert (op.radix, op.cardinality, op.gate, op.folded) == (2, 2, "softmax", False)
    assert op.activation.name == ("silu" if RELU in changes else "relu")


def test_linear_layers_and_missing_biases():
    changes = {
        FC1: "%f = reshape(%m) {shape=(N,4)} : f32[N,4] %h = linear(%f, @l1.weight) : f32[N,6]",
        RELU: "%r = relu(%h) : f32[N,6]",
        FC2: "%z = linear(%r, @l2.weight, @fc2.bias) : f32[N,8]",
        GROUPED: "",
        SWAPPED: "%zt = reshape(%z) {shape=(N,2,2,2)} : f32[N,2,2,2]",
    }
    parameters = """param @l1.weight: f32[6,4]
      param @l2.weight: f32[8,6]
      param @fc2.bias: f32[8]"""
    op = found(block(changes, parameters))
    assert (op.radix, op.cardinality) == (2, 1)


NEAR_MISSES = {
    "the wrong order of the groups": {
        GROUPED: "",
        SWAPPED: "%zt = reshape(%z) {shape=(N,2,2,2)} : f32[N,2,2,2]",
    },
    "softmax over the channels": {SOFTMAX: "%p = softmax(%zt) {axis=3} : f32[N,2,2,2]"},
    "softmax over the groups": {SOFTMAX: "%p = softmax(%zt) {axis=2} : f32[N,2,2,2]"},
    "another kind of pooling": {
        MEAN: "%m = max(%t) {axes=(2,3), keepdims=true} : f32[N,4,1,1]",
    },
    "no activation": {RELU: "%r = permute(%h) {axes=(0,1,3,2)} : f32[N,6,1,1]"},
    "gates swapped": {
        GATE: "%q0 = slice(%p) {axis=1, start=1, stop=2} : f32[N,1,2,2]"
        " %q1 = slice(%p) {axis=1, start=0, stop=1} : f32[N,1,2,2]"
        " %q = concat(%q0, %q1) {axis=1} : f32[N,2,2,2]"
        " %g = reshape(%q) {shape=(N,2,4,1,1)} : f32[N,2,4,1,1]"
    },
    "one split twice": {
        TOTAL: "%s0 = slice(%x) {axis=1, start=0, stop=4} : f32[N,4,3,3]"
        " %t = add(%s0, %s0) : f32[N,4,3,3]"
    },
    "other groups": {
        FC1: "%h = conv2d(%m, @l1.weight) : f32[N,6,1,1]",
    },
    "another tensor weighed": {
        WEIGHED: "%o = exp(%s) : f32[N,2,4,3,3] %w = mul(%o, %g) : f32[N,2,4,3,3]"
    },
    "the maximum at the end": {SUM: "%y = max(%w) {axes=(1)} : f32[N,4,3,3]"},
}


@pytest.mark.parametrize("changes", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_near_misses(changes):
    parameters = PARAMETERS + "param @l1.weight: f32[6,4,1,1]"
    assert_unchanged("fuse-split-attention", block(changes, parameters))


@pytest.mark.parametrize(
    ("value", "kind"), [("%z", "f32[N,8,1,1]"), ("%p", "f32[N,2,2,2]"), ("%w", "f32[N,2,4,3,3]")]
)
def test_a_value_needed_elsewhere_keeps_the_block_apart(value, kind):
    text = block(results=f"%y, {value}", types=f"f32[N,4,3,3], {kind}")
    assert_unchanged("fuse-split-attention", text)


def test_a_view_of_x_needed_elsewhere_does_not():
    text = block(results="%y, %s", types="f32[N,4,3,3], f32[N,2,4,3,3]")
    result = run_passes(with_payload(text), ["fuse-split-attention"])
    assert [n.op.name for n in result.nodes] == ["reshape", "split_attention"]


# -- squeeze and excitation -------------------------------------------------------------------


def excitation(gate: str = "sigmoid", *, scaled: str = "%x", mean_of: str = "%x") -> str:
    return f"""graph g(%x: f32[N,4,3,3], %o: f32[N,4,3,3]) -> f32[N,4,3,3] {{
      param @fc1.weight: f32[2,4,1,1]
      param @fc1.bias: f32[2]
      param @fc2.weight: f32[4,2,1,1]
      %m = mean({mean_of}) {{axes=(2,3), keepdims=true}} : f32[N,4,1,1] at "se"
      %h = conv2d(%m, @fc1.weight, @fc1.bias) : f32[N,2,1,1] at "se.fc1"
      %r = silu(%h) : f32[N,2,1,1] at "se.act"
      %z = conv2d(%r, @fc2.weight) : f32[N,4,1,1] at "se.fc2"
      %g = {gate}(%z) : f32[N,4,1,1] at "se.gate"
      %y = mul({scaled}, %g) : f32[N,4,3,3] at "se"
      return %y
    }}"""


@pytest.mark.parametrize("gate", ["sigmoid", "hardsigmoid"])
def test_squeeze_and_excitation_is_radix_1(gate):
    assert_rewrites(
        "fuse-split-attention",
        excitation(gate),
        f"""graph g(%x: f32[N,4,3,3], %o: f32[N,4,3,3]) -> f32[N,4,3,3] {{
          param @fc1.weight: f32[2,4,1,1]
          param @fc1.bias: f32[2]
          param @fc2.weight: f32[4,2,1,1]
          param @fc2.bias.zero: f32[4] = expand(0.0){{shape=(4)}}
          %y = split_attention(%x, @fc1.weight, @fc1.bias, @fc2.weight, @fc2.bias.zero)
            {{radix=1, activation=silu, gate="{gate}"}} : f32[N,4,3,3] at "se" from ("mean se",
            "conv2d se.fc1", "silu se.act", "conv2d se.fc2", "{gate} se.gate", "mul se")
          return %y
        }}""",
    )


@pytest.mark.parametrize(
    "text",
    [
        excitation("tanh"),
        excitation(scaled="%o"),
        excitation(mean_of="%o"),
        excitation().replace("mul(%x, %g)", "add(%x, %g)"),
    ],
    ids=["another gate", "another tensor scaled", "another tensor averaged", "added"],
)
def test_what_is_no_squeeze_and_excitation(text):
    assert_unchanged("fuse-split-attention", text)
