"""recognise-functions: an activation written out in arithmetic becomes one op.

Exporters write x * clip(x + 3, 0, 6) / 6 for a hard swish, and a GELU in half a dozen ways. What is
looked for is what is computed: a few elementwise ops and constants over one value are run on sample
points, in float64, and compared with the ops there are. So any spelling of the same thing matches,
and constants that an exporter rounded to float32 do, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

import numpy as np

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    Activation,
    Array,
    Clip,
    Constant,
    Div,
    Elementwise,
    Elu,
    LeakyRelu,
    Maximum,
    Minimum,
    Mul,
    Op,
    Pow,
    Relu,
    Rsqrt,
    Sqrt,
    declared,
)
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite

recognise_functions = Pass(
    "recognise-functions", "Recognise activations that are written out in arithmetic"
)

MOST_NODES = 12  # of one function: a GELU by tanh has nine
TOLERANCE = 2e-6  # relative: what rounding its constants to float32 changes a GELU by at -4
ROUNDING = 1e-15  # absolute: of 1 + exp(-30)

# Bends at 0 and +-3 and what lies between; tails where results are exact; NaN, which all of them
# let through. Between -4 and -30, 1 + erf(x) is mostly rounding. Bounds lie anywhere: boxes are
# clipped at the size of an image. Far away, spellings that overflow there are not compared.
FAR = 30.0
TAILS = [sign * size for size in (60.0, 1e3, 1e6, 1e30) for sign in (1, -1)]
POINTS = np.array([-FAR, *np.linspace(-4, 4, 27), -3.0, -1.0, 1.0, 3.0, 9.0, FAR, *TAILS, np.nan])


# -- any spelling ---------------------------------------------------------------------------------


@rewrite(recognise_functions, Elementwise)
def function_of_one_value(node: Node, graph: Rewriter) -> None:
    """f(g(x, c), h(x), ...) == op(x), where both agree on sample points

    Several elementwise ops over one value and constants that together are an `Activation`, a leaky
    ReLU or an ELU.

    Fires where nothing in between is read elsewhere or returned: it would be computed all the same.
    """
    if node.output.type.dtype != "f32":
        return
    for x, members in _cones(node, graph):
        if len(members) > 1 and (op := _function(node.output, x, members)) is not None:
            graph.substitute(node, op, [x], fuses=members)
            return


def _cones(node: Node, graph: Rewriter) -> Iterator[tuple[Value, list[Node]]]:
    """The values of which `node` is a function, nearest first, and the nodes that compute it."""
    members, leaves = [node], _variables(node)
    while len(members) <= MOST_NODES:
        if len(leaves) == 1 and leaves[0].type == node.output.type:
            yield leaves[0], members[::-1]
        inner = next((v for v in leaves if _is_inner(v, members, graph)), None)
        if inner is None or inner.producer is None:
            return
        members = [*members, inner.producer]
        others = [v for v in leaves if v is not inner]
        leaves = list(dict.fromkeys([*others, *_variables(inner.producer)]))


def _variables(node: Node) -> list[Value]:
    """The operands of a node that are no numbers, each once."""
    return [v for v in dict.fromkeys(node.inputs) if _number(v) is None]


def _is_inner(value: Value, members: list[Node], graph: Rewriter) -> bool:
    """Whether a value is made by an elementwise op for these nodes alone."""
    if value.producer is None or not isinstance(value.producer.op, Elementwise):
        return False
    return not any(v is value for v in graph.graph.outputs) and all(
        user in members for user in value.users
    )


def _function(result: Value, x: Value, members: list[Node]) -> Op | None:
    """The op that computes `result` of x as these nodes do, in order of their dependence."""
    values: dict[Value, Array] = {x: POINTS}
    with np.errstate(all="ignore"):
        for node in members:
            numbers = {v: n for v in node.inputs if (n := _number(v)) is not None}
            values |= {v: np.asarray(n, np.float64) for v, n in numbers.items()}
            (values[node.output],) = node.op.results(*(values[v] for v in node.inputs))
    given = values[result]
    functions = (op for cls in declared(Activation) for op in cls.examples())
    candidates = chain(functions, _with_slope(given))
    return next((op for op in candidates if _agree(given, _at_points(op))), None)


@lru_cache(256)
def _at_points(op: Op) -> Array:
    with np.errstate(all="ignore"):
        (y,) = op.results(POINTS)
    return y


def _with_slope(given: Array) -> Iterator[Op]:
    """The functions with a parameter, as the samples would have it."""
    at_minus_one, at_minus_thirty = (float(given[p == POINTS][0]) for p in (-1.0, -30.0))
    if at_minus_one < 0 and at_minus_one != -1:
        yield LeakyRelu(-at_minus_one)
    if -np.inf < at_minus_thirty < 0:
        yield Elu(float(f"{-at_minus_thirty:.9g}"))  # alpha * (1 - exp(-30)), as it was written


def _agree(given: Array, wanted: Array) -> bool:
    """Whether samples are equal but for rounding; zeros and NaN have to be just that."""
    if given.shape != wanted.shape:
        return False
    compared = ~(np.abs(POINTS) > FAR) | np.isfinite(given)
    given, wanted = given[compared], wanted[compared]
    if np.any((wanted == 0) & (given != 0)):
        return False
    return bool(np.allclose(given, wanted, rtol=TOLERANCE, atol=ROUNDING, equal_nan=True))


# -- one form for bounds, quotients and powers ----------------------------------------------------


@rewrite(recognise_functions, Maximum, Minimum)
def into_clip(node: Node, graph: Rewriter) -> None:
    """maximum(x, c) == clip{low=c}(x); minimum(x, c) == clip{high=c}(x)

    The maximum or minimum of x and a number is a clip.
    """
    x, other = node.inputs
    bound = _number(other)
    if bound is None or bound != bound or x.type != node.output.type or x.type.dtype != "f32":
        return
    op = Clip(low=bound) if isinstance(node.op, Maximum) else Clip(high=bound)
    graph.substitute(node, op, [x])


@rewrite(recognise_functions, Clip)
def plain_clip(node: Node, graph: Rewriter) -> None:
    """clip{c, d}(clip{a, b}(x)) == clip{e, f}(x); clip{low=0}(x) == relu(x)

    And a clip of a relu is one.
    """
    op, inner = node.op, node.inputs[0].producer
    assert isinstance(op, Clip)
    if op == Clip(low=0.0):
        graph.substitute(node, Relu(), node.inputs)
        return
    if inner is None or graph.only_user(node.inputs[0]) is not node:
        return
    within = Clip(low=0.0) if isinstance(inner.op, Relu) else inner.op
    if not isinstance(within, Clip):
        return
    low, high = _within(within.low, op), _within(within.high, op)
    low, high = (op.low if low is None else low), (op.high if high is None else high)
    graph.substitute(node, Clip(low, high), inner.inputs, fuses=[inner, node])


def _within(bound: float | None, op: Clip) -> float | None:
    """A bound after another clip."""
    if bound is None:
        return None
    raised = bound if op.low is None else max(bound, op.low)
    return raised if op.high is None else min(raised, op.high)


@rewrite(recognise_functions, Div)
def into_product(node: Node, graph: Rewriter) -> None:
    """x / c == x * (1 / c), for a number c; x / sqrt(v) == x * rsqrt(v)"""
    x, divisor = node.inputs
    number, root = _number(divisor), divisor.producer
    if number is not None and number != 0 and np.isfinite(1 / number):
        inverse = graph.insert_before(node, Constant(1 / number), [], inherits=False)
        graph.substitute(node, Mul(), [x, inverse])
    elif root is not None and isinstance(root.op, Sqrt) and graph.only_user(divisor) is node:
        inverse = graph.insert_before(node, Rsqrt(), root.inputs)
        graph.substitute(node, Mul(), [x, inverse], fuses=[root, node])


@rewrite(recognise_functions, Pow)
def plain_power(node: Node, graph: Rewriter) -> None:
    """pow(x, 2) == x * x; pow(x, 3) == x * x * x; pow(x, 0.5) == sqrt(x)

    And x^-0.5 is rsqrt x, x^1 is x. Roots as in PyTorch: -0 and -infinity have the roots' results,
    which are not those of powers.
    """
    x, power = node.inputs
    match _number(power):
        case 1.0:
            graph.replace(node, [x])
        case 2.0:
            graph.substitute(node, Mul(), [x, x])
        case 3.0:
            square = graph.insert_before(node, Mul(), [x, x])
            graph.substitute(node, Mul(), [square, x])
        case 0.5:
            graph.substitute(node, Sqrt(), [x])
        case -0.5:
            graph.substitute(node, Rsqrt(), [x])


def _number(value: Value) -> float | None:
    """The scalar constant that a value is, if it is one."""
    match value.producer:
        case Node(op=Constant(value=float() | int() as number, dtype="f32")):
            return float(number)
    return None
