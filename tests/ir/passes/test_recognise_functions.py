"""recognise-functions: activations in every spelling, and nothing that only looks like one."""

import pytest
from pass_checks import after, with_payload

from lucid.ir.ops import Clip, Elu, LeakyRelu
from lucid.ir.passes import run_passes

PASSES = ["canonicalise", "recognise-functions", "canonicalise"]
X = "f32[N,3]"


def graph(text: str) -> str:
    """Lines of `name = op(operands) {attributes}`; numbers among the operands are constants."""
    lines, known = [], {}
    for line in text.strip().splitlines():
        name, _, call = (part.strip() for part in line.partition("="))
        op, _, rest = call.partition("(")
        inside, _, attributes = rest.partition(")")
        operands = []
        for operand in (o.strip() for o in inside.split(",")):
            if operand[0] in "-.0123456789":
                if operand not in known:
                    known[operand] = f"%k{len(known)}"
                    lines.append(
                        f"{known[operand]} = constant() {{value={float(operand)!r}}} : f32[]"
                    )
                operands.append(known[operand])
            else:
                operands.append(f"%{operand}")
        lines.append(f"%{name} = {op}({', '.join(operands)}){attributes} : {X}")
    body = "\n".join(lines)
    return f"graph g(%x: {X}) -> {X} {{\n{body}\nreturn %y\n}}"


SPELLINGS = {
    "relu": ["y = maximum(x, 0)", "y = clip(x) {low=0.0}", "a = relu(x)\ny = relu(a)"],
    "silu": ["s = sigmoid(x)\ny = mul(x, s)",
             "n = neg(x)\ne = exp(n)\na = add(e, 1)\ny = div(x, a)"],
    "sigmoid": [
        "n = neg(x)\ne = exp(n)\na = add(1, e)\ny = div(1, a)",
        "h = mul(x, 0.5)\nt = tanh(h)\na = add(t, 1)\ny = mul(a, 0.5)",
    ],
    "hardsigmoid": [
        "a = add(x, 3)\nl = clip(a) {low=0.0}\nh = clip(l) {high=6.0}\ny = div(h, 6)",
        "d = div(x, 6)\na = add(d, 0.5)\ny = clip(a) {low=0.0, high=1.0}",
        "a = add(x, 3)\nl = maximum(a, 0)\nh = minimum(l, 6)\ny = div(h, 6)",
    ],
    "hardswish": [
        "a = add(x, 3)\nh = clip(a) {low=0.0, high=6.0}\nm = mul(x, h)\ny = div(m, 6)",
        "s = hardsigmoid(x)\ny = mul(s, x)",
    ],
    "gelu": [
        "d = div(x, 1.4142135623730951)\ne = erf(d)\na = add(e, 1)\nm = mul(x, a)\ny = mul(m, 0.5)",
        "d = mul(x, 0.7071067811865476)\ne = erf(d)\na = add(e, 1)\nh = mul(x, 0.5)\ny = mul(h, a)",
        "c = mul(x, x)\nk = mul(c, x)\nd = mul(k, 0.044715)\ns = add(x, d)\n"
        "i = mul(s, 0.7978845608028654)\nt = tanh(i)\na = add(t, 1)\nh = mul(x, 0.5)\n"
        "y = mul(h, a)",
        "k = pow(x, 3)\nd = mul(k, 0.044715)\ns = add(x, d)\n"
        "i = mul(s, 0.7978845608028654)\nt = tanh(i)\na = add(t, 1)\nh = mul(x, 0.5)\n"
        "y = mul(h, a)",
    ],
    "mish": ["s = softplus(x)\nt = tanh(s)\ny = mul(x, t)",
             "e = exp(x)\na = add(e, 1)\nl = log(a)\nt = tanh(l)\ny = mul(x, t)"],
    "softplus": ["e = exp(x)\na = add(e, 1)\ny = log(a)"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("op", "spelling"), [(op, text) for op, all_of in SPELLINGS.items() for text in all_of]
)
def test_every_spelling(op, spelling):
    after(PASSES, graph(spelling), [op])


def test_constants_rounded_to_float32_are_meant_too():
    text = graph(
        "d = div(x, 1.4142135381698608)\ne = erf(d)\na = add(e, 1)\nm = mul(x, a)\ny = mul(m, 0.5)"
    )
    assert [n.op.name for n in run_passes(with_payload(text), PASSES).nodes] == ["gelu"]


@pytest.mark.parametrize(
    ("spelling", "op"),
    [
        ("n = mul(x, 0.1)\ny = maximum(x, n)", LeakyRelu(0.1)),
        ("n = mul(x, 0.01)\nl = less(x, 0)\ny = where(l, n, x)", LeakyRelu(0.01)),
        ("e = exp(x)\nm = sub(e, 1)\na = mul(m, 0.7)\nl = less_equal(x, 0)\ny = where(l, a, x)",
         Elu(0.7)),
        ("r = relu(x)\ny = clip(r) {high=6.0}", Clip(0, 6)),
        ("l = clip(x) {low=-1.0}\ny = clip(l) {high=-2.0}", Clip(-2, -2)),
        ("l = maximum(x, -1)\ny = minimum(l, 2)", Clip(-1, 2)),
        ("l = maximum(x, 0)\ny = minimum(l, 320)", Clip(0, 320)),
        ("l = relu(x)\ny = clip(l) {high=1e4}", Clip(0, 1e4)),
    ],
)  # fmt: skip
def test_functions_with_a_parameter(spelling, op):
    result = after(PASSES, graph(spelling), [op.name])
    assert result.nodes[0].op == op


@pytest.mark.parametrize(
    "spelling",
    [
        "s = sigmoid(x)\nm = mul(s, 1.0001)\ny = mul(x, m)",
        "r = relu(x)\ny = add(r, 1e-12)",  # the divisor of something
        "l = less(0, x)\ny = where(l, x, 0)",  # NaN becomes 0
        "s = sigmoid(x)\ny = mul(s, s)",
        "a = add(x, 3)\nh = clip(a) {low=0.0, high=6.0}\nm = mul(x, h)\ny = mul(m, 0.2)",
    ],
)
def test_what_computes_something_else_stays(spelling):
    before = with_payload(graph(spelling))
    counts = [len(run_passes(before, names).nodes) for names in (PASSES[:1], PASSES)]
    assert counts[0] == counts[1]


def test_what_is_read_elsewhere_stays():
    text = graph("e = exp(x)\na = add(e, 1)\ny = log(a)").replace(f"-> {X}", f"-> {X}, {X}")
    text = text.replace("return %y", "return %y, %a")
    after(PASSES, text, ["exp", "constant", "add", "log"])


def test_powers_and_roots():
    after("recognise-functions", graph("y = pow(x, 2)"), ["constant", "mul"][1:])
    text = graph("a = abs(x)\nr = sqrt(a)\ny = div(x, r)")
    after("recognise-functions", text, ["abs", "rsqrt", "mul"])


def test_what_was_fused_is_remembered():
    text = graph("s = softplus(x)\nt = tanh(s)\ny = mul(x, t)")
    (mish,) = run_passes(with_payload(text), PASSES).nodes
    assert mish.fused_from == ("softplus", "tanh", "mul")
