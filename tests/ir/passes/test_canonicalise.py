"""canonicalise: text before and after for each rule, and what must stay."""

import pytest
from pass_checks import after, assert_rewrites, assert_unchanged, with_payload
from strategies import assert_equivalent

from lucid.ir.graph import Parameter
from lucid.ir.passes import run_passes


def lines(x: str, y: str, *nodes: str, head: str = "", result: str = "%y") -> str:
    """A graph from x to y with these lines."""
    return f"graph g(%x: {x}) -> {y} {{ {head} {chr(10).join(nodes)} return {result} }}"


IMAGE = "f32[N,4,6,6]"


@pytest.mark.parametrize(
    "node",
    [
        "reshape(%x) {shape=(N,4,-1,6)}",
        "permute(%x) {axes=(0,1,2,3)}",
        "expand(%x) {shape=(-1,4,6,6)}",
        "slice(%x) {axis=1, start=0, stop=4}",
        "concat(%x) {axis=1}",
        "clip(%x)",
        "max_pool2d(%x) {kernel=(1,1), stride=(1,1)}",
        "avg_pool2d(%x) {kernel=(1,1), stride=(1,1), ceil_mode=true, count_include_pad=false}",
    ],
)
def test_what_does_nothing_goes(node):
    before = lines(IMAGE, IMAGE, f"%i = {node} : {IMAGE}", f"%y = relu(%i) : {IMAGE}")
    assert_rewrites("canonicalise", before, lines(IMAGE, IMAGE, f"%y = relu(%x) : {IMAGE}"))


@pytest.mark.parametrize(
    "node",
    [
        "permute(%x) {axes=(0,1,3,2)}",
        "clip(%x) {low=0.0}",
        "avg_pool2d(%x) {kernel=(1,1), stride=(1,1), divisor=2}",
        "avg_pool2d(%x) {kernel=(3,3), stride=(1,1), padding=(1,1,1,1)}",
        "max_pool2d(%x) {kernel=(3,3), stride=(1,1), padding=(1,1,1,1)}",
    ],
)
def test_what_does_something_stays(node):
    assert_unchanged("canonicalise", lines(IMAGE, IMAGE, f"%y = {node} : {IMAGE}"))


@pytest.mark.parametrize(
    ("op", "value", "operands", "gone"),
    [
        ("add", 0.0, "%x, %k", True),
        ("add", 0.0, "%k, %x", True),
        ("sub", 0.0, "%x, %k", True),
        ("mul", 1.0, "%k, %x", True),
        ("div", 1.0, "%x, %k", True),
        ("sub", 0.0, "%k, %x", False),
        ("div", 1.0, "%k, %x", False),
        ("mul", 0.0, "%x, %k", False),
        ("add", 1.0, "%x, %k", False),
    ],
)
def test_neutral_constants(op, value, operands, gone):
    constant = f"%k = constant() {{value={value}}} : f32[]"
    text = lines(IMAGE, IMAGE, constant, f"%y = {op}({operands}) : {IMAGE}")
    if gone:
        assert_rewrites("canonicalise", text, lines(IMAGE, IMAGE, result="%x"))
    else:
        assert_unchanged("canonicalise", text)


def test_dead_nodes_go_and_equal_ones_merge():
    assert_rewrites(
        "canonicalise",
        lines(
            IMAGE,
            IMAGE,
            f"%dead = exp(%x) : {IMAGE}",
            f"%worse = abs(%dead) : {IMAGE}",
            f'%a = relu(%x) : {IMAGE} at "a"',
            f'%b = relu(%x) : {IMAGE} at "b"',
            f"%c = tanh(%a) : {IMAGE}",
            f"%d = tanh(%b) : {IMAGE}",
            f"%y = mul(%c, %d) : {IMAGE}",
        ),
        lines(
            IMAGE,
            IMAGE,
            f'%a = relu(%x) : {IMAGE} at "a"',
            f"%c = tanh(%a) : {IMAGE}",
            f"%y = mul(%c, %c) : {IMAGE}",
        ),
    )


def test_constants_of_either_sign_of_zero_are_not_equal():
    assert_unchanged(
        "canonicalise",
        lines(
            IMAGE,
            IMAGE,
            "%p = constant() {value=0.0} : f32[]",
            "%n = constant() {value=-0.0} : f32[]",
            f"%a = div(%x, %p) : {IMAGE}",
            f"%b = div(%x, %n) : {IMAGE}",
            f"%y = maximum(%a, %b) : {IMAGE}",
        ),
    )


def test_integers_are_computed_and_floats_are_recipes():
    assert_rewrites(
        "canonicalise",
        lines(
            "i64[3]",
            "i64[3]",
            '%a = constant() {value=(1,2,3), dtype="i64"} : i64[3]',
            '%b = constant() {value=2, dtype="i64"} : i64[]',
            "%c = mul(%a, %b) : i64[3]",
            "%y = add(%x, %c) : i64[3]",
        ),
        lines(
            "i64[3]",
            "i64[3]",
            '%c = constant() {value=(2,4,6), dtype="i64"} : i64[3]',
            "%y = add(%x, %c) : i64[3]",
        ),
    )
    number = ["%a = constant() {value=0.5} : f32[]", "%b = exp(%a) : f32[]"]
    after("canonicalise", lines(IMAGE, IMAGE, *number, f"%y = mul(%x, %b) : {IMAGE}"), ["mul"])


def test_integers_of_each_image_are_left_alone():
    table = '%t = constant() {value=(1,2), dtype="i64"} : i64[2]'
    each = "%y = expand(%t) {shape=(N,2)} : i64[N,2]"
    after("canonicalise", lines(IMAGE, "i64[N,2]", table, each), ["constant", "expand"])


def test_ops_over_parameters_become_recipes():
    assert_rewrites(
        "canonicalise",
        lines(
            IMAGE,
            "f32[N,2,6,6]",
            "%k = constant() {value=2.0} : f32[]",
            "%m = mean(@w) {axes=(1), keepdims=true} : f32[2,1]",
            "%s = sub(@w, %m) : f32[2,4]",
            "%d = mul(%k, %s) : f32[2,4]",
            "%r = reshape(%d) {shape=(2,4,1,1)} : f32[2,4,1,1]",
            "%y = conv2d(%x, %r) : f32[N,2,6,6]",
            head="param @w: f32[2,4]",
        ),
        lines(
            IMAGE,
            "f32[N,2,6,6]",
            "%y = conv2d(%x, @w.folded_1) : f32[N,2,6,6]",
            head="""source @w: f32[2,4]
            param @w.folded_1: f32[2,4,1,1] = reshape(
              mul(2.0, sub(@w, mean(@w){axes=(1), keepdims=true}))){shape=(2,4,1,1)}""",
        ),
    )


def test_a_parameter_expanded_to_the_batch_is_no_recipe():
    assert_unchanged(
        "canonicalise",
        lines(
            "f32[N,4]",
            "f32[N,8]",
            "%e = expand(@w) {shape=(N,4)} : f32[N,4]",
            "%y = concat(%x, %e) {axis=1} : f32[N,8]",
            head="param @w: f32[4]",
        ),
    )


def test_recipes_stay_short():
    """They are trees: 40 doublings of one value would be a recipe of 2^40 additions."""
    doubling = [f"%a{i + 1} = add(%a{i}, %a{i}) : f32[4]" for i in range(40)]
    text = lines(
        "f32[N,4]",
        "f32[N,4]",
        "%a0 = relu(@w) : f32[4]",
        *doubling,
        "%y = mul(%x, %a40) : f32[N,4]",
        head="param @w: f32[4]",
    )
    graph = with_payload(text)
    result = run_passes(graph, ["canonicalise"])
    assert_equivalent(graph, result)
    assert len(result.nodes) == 41 - 7  # relu and six doublings are in the recipe


def test_reshapes_and_permutes_have_one_form():
    assert_rewrites(
        "canonicalise",
        lines(
            "f32[N,4,6,6]",
            "f32[N,144]",
            "%a = reshape(%x) {shape=(N,2,2,-1)} : f32[N,2,2,36]",
            "%b = reshape(%a) {shape=(-1,4,36)} : f32[N,4,36]",
            "%c = permute(%b) {axes=(1,0,2)} : f32[4,N,36]",
            "%d = permute(%c) {axes=(1,2,0)} : f32[N,36,4]",
            "%y = reshape(%d) {shape=(N,-1)} : f32[N,144]",
        ),
        lines(
            "f32[N,4,6,6]",
            "f32[N,144]",
            "%b = reshape(%x) {shape=(N,4,36)} : f32[N,4,36]",
            "%d = permute(%b) {axes=(0,2,1)} : f32[N,36,4]",
            "%y = reshape(%d) {shape=(N,144)} : f32[N,144]",
        ),
    )


def test_a_permute_of_ones_is_a_reshape():
    assert_rewrites(
        "canonicalise",
        lines("f32[N,1,2,3]", "f32[N,2,1,3]", "%y = permute(%x) {axes=(0,2,1,3)} : f32[N,2,1,3]"),
        lines("f32[N,1,2,3]", "f32[N,2,1,3]", "%y = reshape(%x) {shape=(N,2,1,3)} : f32[N,2,1,3]"),
    )


@pytest.mark.parametrize(
    "pool",
    [
        ["%y = mean(%x) {axes=(3,2)} : f32[N,4]"],
        ["%y = mean(%x) {axes=(2,3)} : f32[N,4]"],
        [
            "%m = avg_pool2d(%x) {kernel=(6,6), stride=(1,1)} : f32[N,4,1,1]",
            "%y = reshape(%m) {shape=(N,-1)} : f32[N,4]",
        ],
    ],
)
def test_global_averages_have_one_form(pool):
    log = assert_rewrites(
        "canonicalise",
        lines(IMAGE, "f32[N,4]", *pool),
        lines(
            IMAGE,
            "f32[N,4]",
            f"%{'m' if len(pool) == 2 else 'mean'} = mean(%x) {{axes=(2,3), keepdims=true}}"
            " : f32[N,4,1,1]",
            "%y = reshape(%" + ("m" if len(pool) == 2 else "mean") + ") {shape=(N,4)} : f32[N,4]",
        ),
    )
    assert log


def test_reductions_over_ones_are_reshapes_but_not_the_global_average():
    assert_rewrites(
        "canonicalise",
        lines(
            "f32[N,1,4,1,1]",
            "f32[N,4,1,1]",
            "%s = sum(%x) {axes=(1)} : f32[N,4,1,1]",
            "%y = mean(%s) {axes=(2,3), keepdims=true} : f32[N,4,1,1]",
        ),
        lines(
            "f32[N,1,4,1,1]",
            "f32[N,4,1,1]",
            "%s = reshape(%x) {shape=(N,4,1,1)} : f32[N,4,1,1]",
            "%y = mean(%s) {axes=(2,3), keepdims=true} : f32[N,4,1,1]",
        ),
    )


def test_an_expand_that_broadcasting_does_anyway_goes():
    assert_rewrites(
        "canonicalise",
        lines(
            IMAGE,
            IMAGE,
            "%m = max(%x) {axes=(2,3), keepdims=true} : f32[N,4,1,1]",
            f"%e = expand(%m) {{shape=(N,4,6,6)}} : {IMAGE}",
            f"%y = mul(%e, %x) : {IMAGE}",
        ),
        lines(
            IMAGE,
            IMAGE,
            "%m = max(%x) {axes=(2,3), keepdims=true} : f32[N,4,1,1]",
            f"%y = mul(%m, %x) : {IMAGE}",
        ),
    )


def test_an_expand_of_both_operands_keeps_one():
    assert_rewrites(
        "canonicalise",
        lines(
            "f32[N,1]",
            "f32[N,4]",
            "%e = expand(%x) {shape=(N,4)} : f32[N,4]",
            "%y = mul(%e, %e) : f32[N,4]",
        ),
        lines(
            "f32[N,1]",
            "f32[N,4]",
            "%e = expand(%x) {shape=(N,4)} : f32[N,4]",
            "%y = mul(%x, %e) : f32[N,4]",
        ),
    )


def test_known_operands_come_last_where_they_commute():
    assert_rewrites(
        "canonicalise",
        lines(
            "f32[N,4]",
            "f32[N,4]",
            "%a = mul(@w, %x) : f32[N,4]",
            "%y = sub(@w, %a) : f32[N,4]",
            head="param @w: f32[4]",
        ),
        lines(
            "f32[N,4]",
            "f32[N,4]",
            "%a = mul(%x, @w) : f32[N,4]",
            "%y = sub(@w, %a) : f32[N,4]",
            head="param @w: f32[4]",
        ),
    )


def test_swish_is_silu_where_its_sigmoid_serves_nothing_else():
    gate = f'%s = sigmoid(%x) : {IMAGE} at "s"'
    product = f'%y = mul(%s, %x) : {IMAGE} at "m"'
    assert_rewrites(
        "canonicalise",
        lines(IMAGE, IMAGE, gate, product),
        lines(IMAGE, IMAGE, f'%y = silu(%x) : {IMAGE} at "s" from ("sigmoid s", "mul m")'),
    )
    both = lines(IMAGE, f"{IMAGE}, {IMAGE}", gate, product, result="%y, %s")
    assert_unchanged("canonicalise", both)


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("conv2d", ["f32[2,4,1,1]"]),
        ("conv2d", ["f32[2,4,1,1]", "f32[2]"]),
        ("linear", ["f32[5,6]", "f32[5]"]),
        ("batch_norm", ["f32[4]"] * 4),
        ("group_norm {groups=2}", ["f32[4]"] * 2),
        ("layer_norm {axes=(3)}", ["f32[6]"] * 2),
        ("rms_norm {axes=(3)}", ["f32[6]"]),
    ],
)
def test_constant_weights_are_parameters(op, constants):
    """Written out, or a number expanded."""
    name, _, attributes = op.partition(" ")
    y = {"conv2d": "f32[N,2,6,6]", "linear": "f32[N,4,6,5]"}.get(name, IMAGE)
    makers = ["%half = constant() {value=0.5} : f32[]"]
    for i, type in enumerate(constants):
        shape = type.removeprefix("f32[").removesuffix("]")
        makers.append(f"%w{i} = expand(%half) {{shape=({shape})}} : {type}")
    operands = ", ".join(f"%w{i}" for i in range(len(constants)))
    last = f"%y = {name}(%x, {operands}) {attributes} : {y}"
    text = lines(IMAGE, y, *makers, last)
    (node,) = after("canonicalise", text, [name]).nodes
    assert all(isinstance(v, Parameter) for v in node.inputs[1:])


def test_weights_written_out_are_parameters():
    table = "%w = constant() {value=((((1.0))),(((2.0))),(((3.0))),(((4.0))))} : f32[4,1,1,1]"
    text = lines("f32[N,1,6,6]", IMAGE, table, f"%y = conv2d(%x, %w) : {IMAGE}")
    (node,) = after("canonicalise", text, ["conv2d"]).nodes
    assert isinstance(node.inputs[1], Parameter)
