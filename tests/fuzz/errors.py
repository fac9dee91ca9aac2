"""How far a right result may be off: running error analysis in float64, op by op.

Every value is `Known`: what it is exactly for the inputs given, and by how much float32 arithmetic
may miss it, number by number. For a sum of n terms the bound is t(n) u sum|terms|, with u = 2^-24
and t(n) = min(n, 64 + 12 sqrt n) + 4, whatever the order of summation: the deterministic bound for
short sums, for long ones the probabilistic one of Higham and Mary ("A new approach to probabilistic
rounding error analysis", 2019), its factor large enough for numbers that are all alike. What the
operands are off by is added as it passes through: |w| times it in a product, the spread of f over
x - e and x + e in an elementwise op.

NaN and infinities have to stand where they stand exactly. Numbers whose terms' sizes add up beyond
float32 may come out as anything (`error` is infinite), as may those that share a tile of Winograd's
with what is not finite. Denormal inputs are zeros, denormal results may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucid.ir import Graph, Node, Op, Value, ops
from lucid.ir.graph import Parameter
from lucid.ir.interpret import interpret

from .values import LARGEST, TINY, Array, flushed

U = 2.0**-24
Pair = tuple[Array, Array]
"""A result and its error."""
Rule = Callable[[Any, Sequence["Known"]], Pair | list[Pair]]
"""From an op and its operands to the result and its error, or those of all results."""
RULES: dict[type[Op], Rule] = {}


@dataclass(frozen=True)
class Known:
    """Exact numbers, and how far each may be off: infinitely far where anything may come out, by
    NaN where a number that is not finite may be any other of those."""

    value: Array
    error: Array

    @staticmethod
    def exactly(value: Array) -> Known:
        return Known(value, np.zeros(value.shape))


def rule(*classes: type[Op]) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(classes, function))
        return function

    return register


def rule_of(op_class: type[Op]) -> Rule:
    found = ops.nearest(RULES, op_class)
    assert found is not None, f"what {op_class.name} may be off by is not known"
    return found


def terms(count: int) -> float:
    """What the sizes of `count` terms are to be multiplied by, besides u."""
    return min(count, 64 + 12 * math.sqrt(count)) + 4


# -- whole graphs ---------------------------------------------------------------------------------


def analyse(
    graph: Graph, inputs: Sequence[Array], kernels: Mapping[str, str] | None = None
) -> list[Known]:
    """The outputs of a graph. `kernels`: those of layers, by origin, that round in their own way:
    by whose names `OWN` begins."""
    given = [flushed(np.asarray(a)) for a in inputs]
    known: dict[Value, Known] = {}
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in given]
    known.update((v, Known.exactly(a)) for v, a in zip(graph.inputs, exact, strict=True))

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        operands = [known.get(v) or Known.exactly(_parameter(graph, v)) for v in node.inputs]
        if any(not np.isfinite(o.error).all() or _beyond(o).any() for o in operands):
            lost = [Known(r, np.full(np.shape(r), np.inf)) for r in results]
            known.update(zip(node.outputs, lost, strict=True))
            return
        if all(r.dtype.kind in "iub" for r in results) and not any(o.error.any() for o in operands):
            known.update((v, Known.exactly(r)) for v, r in zip(node.outputs, results, strict=True))
            return
        layer = isinstance(node.op, ops.Convolution | ops.Linear)
        kernel = (kernels or {}).get(node.origin, "") if layer else ""
        own = OWN.get(kernel)
        with np.errstate(all="ignore"):
            if own is not None:
                found: Pair | list[Pair] = own(node.op, operands)
            else:
                op = node.op
                if isinstance(op, ops.Reshape | ops.Expand):  # alone they do not know the batch
                    op = type(op)(results[0].shape)
                found = rule_of(type(op))(op, operands)
        early = _as_bias(node, operands)
        errors = [e + early for _, e in (found if isinstance(found, list) else [found])]
        for output, result, error in zip(node.outputs, results, errors, strict=True):
            value = np.asarray(result)
            error = np.broadcast_to(np.asarray(error, np.float64), value.shape)
            unknown = np.where(np.isfinite(value), np.inf, 0.0)
            error = np.where(np.isnan(error), unknown, error)
            if own is not None:  # a tile in which something is not finite is none of it
                error = np.where(np.isinf(error) & ~np.isfinite(value), np.nan, error)
            known[output] = Known(value, error)

    with np.errstate(all="ignore"):
        interpret(graph, given, dtype=np.float64, observe=observe)
    return [known.get(v) or Known.exactly(_parameter(graph, v)) for v in graph.outputs]


def _as_bias(node: Node, operands: Sequence[Known]) -> Array | float:
    """What else the sum of a layer's result and a parameter may be off by, which passes make the
    layer's bias: its sums begin with it, and each of their terms rounds as much."""
    if not isinstance(node.op, ops.Add):
        return 0.0
    first, second = node.inputs
    for value, other, known in ((first, second, operands[1]), (second, first, operands[0])):
        layer = _layer(value)
        if isinstance(other, Parameter) and layer is not None:
            shape = layer.inputs[1].type.concrete(1)
            return terms(math.prod(shape[1:]) + 1) * U * np.abs(known.value)
    return 0.0


def _layer(value: Value) -> Node | None:
    """The convolution or product that a value is the result of, parameters added to it."""
    node = value.producer
    while node is not None and isinstance(node.op, ops.Add):
        summands = [v for v in node.inputs if not isinstance(v, Parameter)]
        node = summands[0].producer if len(summands) == 1 else None
    is_layer = node is not None and isinstance(node.op, ops.Convolution | ops.Linear)
    return node if is_layer else None


def _beyond(known: Known) -> Array:
    """Where numbers are finite and beyond float32: infinite, for whoever reads them there."""
    if known.value.dtype.kind != "f":
        return np.zeros(known.value.shape, bool)
    return np.isfinite(known.value) & (np.abs(known.value) + known.error > LARGEST * (1 - 2 * U))


def _parameter(graph: Graph, value: Value) -> Array:
    assert isinstance(value, Parameter)
    return np.asarray(graph.payload[value.name]).astype(np.float64)


def excess(value: Array, known: Known) -> Array:
    """The error of each number as a share of what is allowed; infinite where a NaN or an infinity
    is wrong. At most 1 is right."""
    if value.dtype.kind != "f":
        wrong = (value != known.value) & ~np.isinf(known.error)
        return np.where(wrong, np.inf, 0.0)
    y, error = known.value.astype(np.float64), known.error + TINY
    with np.errstate(all="ignore"):
        found = value.astype(np.float64)
        finite, free = np.isfinite(y), np.isinf(error)
        share = np.where(finite, np.abs(found - y) / error, 0.0)
        over = finite & np.isinf(found) & (np.abs(y) + known.error >= LARGEST * (1 - 2 * U))
        share = np.where(over & (np.sign(found) == np.sign(y)), 0.0, share)
        share = np.where(finite & np.isnan(share), np.inf, share)
        same = (found == y) | (np.isnan(found) & np.isnan(y))
        same |= np.isnan(error) & ~np.isfinite(found)
        share = np.where(~finite & ~same, np.inf, share)
        return np.where(free, 0.0, share)


def of_sum(value: Array, sizes: Array, error: Array) -> tuple[Array, Array]:
    """The error of a sum whose finite terms have these sizes in all; anything where they overflow,
    even where an infinity is added to them."""
    return value, np.where(sizes > LARGEST / 4, np.inf, error)


def size_of(x: Array) -> Array:
    """How large numbers are; those that are not finite count nothing."""
    return np.where(np.isfinite(x), np.abs(x), 0.0)


# -- what moves numbers ---------------------------------------------------------------------------


@rule(ops.Reshape, ops.Permute, ops.Slice, ops.Expand, ops.Concat, ops.AdaptiveMaxPool2d)
def _moved(op: Op, x: Sequence[Known]) -> tuple[Array, Array]:
    return op.results(*(k.value for k in x))[0], op.results(*(k.error for k in x))[0]


@rule(ops.Constant)
def _constant(op: ops.Constant, x: Sequence[Known]) -> tuple[Array, Array]:
    value = op.array(np.dtype(np.float64))
    return value, np.abs(value) * U


@rule(ops.Gather)
def _gather(op: ops.Gather, x: Sequence[Known]) -> tuple[Array, Array]:
    indices = x[1].value.astype(np.int64)
    return op.evaluate(x[0].value, indices), op.evaluate(x[0].error, indices)


@rule(ops.Pad)
def _pad(op: ops.Pad, x: Sequence[Known]) -> tuple[Array, Array]:
    border = ops.Pad(op.before, op.after, abs(op.value) * U, op.mode)
    return op.evaluate(x[0].value), border.evaluate(x[0].error)


@rule(ops.Cast)
def _cast(op: ops.Cast, x: Sequence[Known]) -> tuple[Array, Array]:
    """To an integer, a number that is off may fall on the other side of one; integers and numbers
    of more bits are rounded."""
    value = op.evaluate(x[0].value)
    if op.dtype in ("f32", "f64"):
        rounded = 0.0 if x[0].value.dtype.kind == "f" else np.abs(value.astype(np.float64)) * U
        return value, x[0].error + rounded
    if op.dtype == "f16":
        step = np.where(np.abs(value) > 65000, np.inf, np.abs(value) * 2.0**-10 + 2.0**-24)
        return value, np.where(x[0].error > 0, x[0].error + step, np.abs(value) * 2.0**-10)
    return value, np.where(x[0].error > 0, np.inf, 0.0)


@rule(ops.Max, ops.Min)
def _extreme(op: ops.Max | ops.Min, x: Sequence[Known]) -> tuple[Array, Array]:
    largest = ops.Max(op.axes, op.keepdims)
    return op.evaluate(x[0].value), largest.evaluate(x[0].error)


@rule(ops.MaxPool2d)
def _max_pool(op: ops.MaxPool2d, x: Sequence[Known]) -> tuple[Array, Array]:
    return op.evaluate(x[0].value), np.maximum(op.evaluate(x[0].error), 0.0)


@rule(ops.MaxPoolIndices)
def _max_pool_indices(op: ops.MaxPoolIndices, x: Sequence[Known]) -> tuple[Array, Array]:
    """Where numbers are off, another one of a window may be the largest."""
    return op.evaluate(x[0].value), np.where(x[0].error.any(), np.inf, 0.0)


@rule(ops.ArgMax, ops.ArgMin)
def _arg_max(op: ops.ArgMax | ops.ArgMin, x: Sequence[Known]) -> tuple[Array, Array]:
    value = op.evaluate(x[0].value)
    off = ops.Max((op.axis,), op.keepdims).evaluate(x[0].error)
    return value, np.where(off > 0, np.inf, 0.0)


# -- elementwise ----------------------------------------------------------------------------------

LARGEST_ANGLE = 1.3e8
"""Beyond it sines are numbers between -1 and 1."""


@rule(ops.Elementwise)
def elementwise(op: ops.Elementwise, x: Sequence[Known]) -> tuple[Array, Array]:
    (value,) = op.results(*(k.value for k in x))
    spread = np.zeros(value.shape)
    if any(k.error.any() for k in x):
        corners = [
            [k.value - k.error, k.value + k.error] if k.error.any() else [k.value] * 2 for k in x
        ]
        for number in range(2 ** len(x)):
            chosen = [c[number >> i & 1] for i, c in enumerate(corners)]
            (other,) = op.results(*chosen)
            same = (other == value) | (np.isnan(other) & np.isnan(value))
            spread = np.maximum(spread, np.where(same, 0.0, np.abs(other - value)))
    if value.dtype.kind != "f":
        return value, np.where(spread > 0, np.inf, 0.0)
    size = np.abs(value)
    rounding = 2 * U * op.ulps * size + np.where(size < 2 * TINY, size, 0.0)
    error = spread + rounding + _own(op, x[0].value)
    changes = ~(spread == 0)  # of what is not finite: to another sign, or to NaN
    error = np.where(np.isfinite(value), error, np.where(changes, np.inf, 0.0))
    return value, np.where(_either(op, x), np.inf, error)


def _either(op: Op, x: Sequence[Known]) -> Array | bool:
    """Where a result has two forms that differ: powers of 0.5 and -0.5 are roots, as PyTorch's
    are, and roots of -0 and of -infinity have other signs, or are NaN. A remainder that is denormal
    may be none, and then is not moved to the divisor's side."""
    if isinstance(op, ops.Mod) and not op.truncated:
        rest = np.abs(np.fmod(*(k.value for k in x)))
        denormal: Array = (rest > 0) & (rest < TINY)
        return denormal
    if not isinstance(op, ops.Pow):
        return False
    base, power = np.broadcast_arrays(*(k.value for k in x))
    edge = np.signbit(base) & ((base == 0) | np.isinf(base))
    found: Array = edge & (np.abs(power) == 0.5)
    return found


def _own(op: Op, x: Array) -> Array | float:
    """What an op may be off by beside a share of its result."""
    match op:
        case ops.Gelu(approximate="tanh"):  # the error of the exponent, and a sigmoid of nearly 0
            bend = 2 * math.sqrt(2 / math.pi) * np.abs(x + 0.044715 * x**3)
            share = np.where(np.isfinite(bend), 8 * U * np.minimum(bend, 200), 0.0)
            cancelled = 2.0**-50 * np.minimum(np.abs(x), 40)  # in the reference: 1 + tanh
            return np.abs(op.evaluate(x)) * share + TINY * np.abs(x) + cancelled
        case ops.Gelu():  # 1 + erf(x) where that is nearly 0
            return 4 * U * np.minimum(np.abs(x), 8)
        case ops.Silu() | ops.Mish():  # the factor beside x may be denormal
            return TINY * np.abs(x)
        case ops.Sin() | ops.Cos() | ops.Tan():
            return np.where(np.isfinite(x) & (np.abs(x) > LARGEST_ANGLE), np.inf, 0.0)
    return 0.0


# -- sums of products -----------------------------------------------------------------------------


def products(apply: Callable[..., Array], x: Known, w: Known, bias: Known | None, n: int) -> Any:
    """y = apply(x, w) + bias, n products each."""
    value, sizes = apply(x.value, w.value), apply(size_of(x.value), size_of(w.value))
    passed = apply(x.error, size_of(w.value)) if x.error.any() else 0.0
    if w.error.any():
        passed = passed + apply(size_of(x.value) + x.error, w.error)
    if bias is not None:
        value, sizes = value + bias.value, sizes + size_of(bias.value)
    return of_sum(value, sizes, passed + terms(n) * U * sizes + n * TINY)


@rule(ops.Convolution)
def _conv(op: ops.Convolution, x: Sequence[Known]) -> tuple[Array, Array]:
    bias = None
    if len(x) == 3:
        bias = Known.exactly(x[2].value.reshape(-1, *(1,) * op.axes))
    found: tuple[Array, Array] = products(op.evaluate, x[0], x[1], bias, x[1].value[0].size + 1)
    return found


WINOGRAD = {2: 6.0, 4: 40.0}
"""By what Winograd's sums round more than direct ones, where each number counts as the largest of
the input tile that it is in."""
OUTPUT_GAIN = {2: 9.0, 4: 361.0}
"""How often the size of a tile's products counts in a number of the result: the square of the
largest sum of a row of the output transform (1 + 1 + 1, and 1 + 1 + 8 + 8 + 1)."""


SUMMED = 4
"""Numbers of the input that F(2x2) adds up to one that is multiplied."""


def _winograd(op: Any, x: Sequence[Known], m: int, rounded: float = 0.0) -> tuple[Array, Array]:
    """`rounded`: what transformed numbers are off by, of their size, besides."""
    value, error = _conv(op, x)
    reach, dilation = 2 * m + 3, op.dilation[-2:]
    beside = ((m + 1) * dilation[0], (m + 1) * dilation[1])
    pool = ops.MaxPool2d((reach, reach), (1, 1), beside * 2, dilation=dilation)

    def around(image: Array) -> Array:
        """Of each slice, where there are several."""
        slices = math.prod(image.shape[1:-2])
        maps = image.reshape(len(image), slices, *image.shape[-2:])
        return pool.evaluate(maps).reshape(image.shape)

    sides = zip(op.padding[: op.axes], op.padding[op.axes :], strict=True)
    border = ((0, 0), (0, 0), *sides)  # its taps round like all the others
    inside = type(op)(op.stride, (0,) * len(op.padding), op.dilation, op.groups)
    largest = around(np.pad(size_of(x[0].value), border))
    sizes = inside.evaluate(largest, np.abs(x[1].value)) + size_of(value)
    error = error + WINOGRAD[m] * terms(x[1].value[0].size) * U * sizes
    error = error + OUTPUT_GAIN[m] * SUMMED * 2 * rounded * sizes
    weights = np.abs(x[1].value).sum(tuple(range(1, x[1].value.ndim)))
    weights = weights.reshape(-1, *(1,) * op.axes)
    # A transformed number that is flushed is missing from its products, and so is one of these.
    error = error + OUTPUT_GAIN[m] * TINY * (x[1].value[0].size + weights)
    error = np.where(sizes > LARGEST / 1e4, np.inf, error)
    strange = around(np.pad((~np.isfinite(x[0].value)).astype(np.float64), border))
    ones = np.ones_like(x[1].value)
    return value, np.where(inside.evaluate(strange, ones) > 0, np.inf, error)


STRASSEN = 4.0
"""The most of Strassen's products that a number of the result is summed up of."""


def _strassen(op: Any, x: Sequence[Known]) -> tuple[Array, Array]:
    """Each number counts as the sum of all quarters of the pair of rows and of the weights that it
    is in."""
    value, error = rule_of(type(op))(op, x)
    linear = isinstance(op, ops.Linear)
    last = x[0].value if linear else np.moveaxis(x[0].value, 1, -1)
    images, *size, depth = last.shape
    rows, half = math.prod(size), depth // 2
    flat = np.pad(last.reshape(images, rows, depth), ((0, 0), (0, rows % 2), (0, 0)))
    pairs = flat.reshape(images, -(-rows // 2), 2, 2, half)
    weights = x[1].value.reshape(2, -1, 2, half)
    left, right = size_of(pairs).sum((2, 3)), np.abs(weights).sum((0, 2))
    sizes = left @ right.T
    own = STRASSEN * (terms(half) + 3) * U * sizes
    own = own + STRASSEN * TINY * (depth + left.sum(-1, keepdims=True) + right.sum(-1))
    strange = ~np.isfinite(pairs).all((2, 3, 4))
    own = np.where((sizes > LARGEST / 1e4) | strange[..., None], np.inf, own)
    both = np.tile(np.repeat(own, 2, axis=1), (1, 1, 2))[:, :rows]
    return value, error + (both if linear else both.swapaxes(1, 2)).reshape(value.shape)


BF16_UNIT = 2.0**-8
"""What a number is off by, of its size, once it is rounded to bfloat16."""
LARGEST_BF16 = 2.0**128 * (1 - BF16_UNIT)
"""From here on numbers may round to an infinity."""


def _of_bf16(op: Any, x: Sequence[Known]) -> tuple[Array, Array]:
    """Products of operands rounded to bfloat16, whose denormals are zeros."""
    rounded = []
    for operand in x[:2]:
        size = size_of(operand.value) + operand.error
        off = np.where(size < LARGEST_BF16, BF16_UNIT * size + TINY, np.inf)
        rounded.append(Known(operand.value, operand.error + off))
    found: tuple[Array, Array] = rule_of(type(op))(op, [*rounded, *x[2:]])
    return found


OWN: dict[str, Callable[[Any, Sequence[Known]], tuple[Array, Array]]] = {
    "winograd2x2": lambda op, x: _winograd(op, x, 2),
    "winograd4x4": lambda op, x: _winograd(op, x, 4),
    "strassen": _strassen,
    "pointwise_bf16": _of_bf16,
    "direct_bf16": _of_bf16,
    "winograd2x2_bf16": lambda op, x: _winograd(op, x, 2, BF16_UNIT),
}
"""What kernels may be off by that sum up other products than an op's own."""


@rule(ops.Linear)
def _linear(op: ops.Linear, x: Sequence[Known]) -> tuple[Array, Array]:
    bias = x[2] if len(x) == 3 else None
    found: tuple[Array, Array] = products(op.evaluate, x[0], x[1], bias, x[1].value.shape[1] + 1)
    return found


@rule(ops.MatMul)
def _matmul(op: ops.MatMul, x: Sequence[Known]) -> tuple[Array, Array]:
    found: tuple[Array, Array] = products(op.evaluate, *x, None, x[0].value.shape[-1])
    return found


def summed(op: Op, x: Known, count: int) -> tuple[Array, Array]:
    """An op that is a sum of its operand's numbers, or a mean."""
    (value,), (sizes,) = op.results(x.value), op.results(size_of(x.value))
    (passed,) = op.results(x.error)
    return of_sum(value, sizes * count, passed + terms(count) * U * sizes + count * TINY)


@rule(ops.Sum, ops.Mean)
def _sum(op: ops.Sum, x: Sequence[Known]) -> tuple[Array, Array]:
    return summed(op, x[0], math.prod(x[0].value.shape[a] for a in op.axes))


@rule(ops.SumSquares)
def _squares(op: ops.SumSquares, x: Sequence[Known]) -> tuple[Array, Array]:
    size = size_of(x[0].value)
    off = (2 * size + x[0].error) * x[0].error
    inner = Known(x[0].value ** 2, off + 2 * U * size**2)
    return summed(ops.Sum(op.axes, op.keepdims), inner, x[0].value.size)


@rule(ops.Prod)
def _product(op: ops.Prod, x: Sequence[Known]) -> tuple[Array, Array]:
    """Anything where the product of some of the numbers may be too large, or too small."""
    value, size, total = op.evaluate(x[0].value), size_of(x[0].value), ops.Sum(op.axes, op.keepdims)
    reach = total.evaluate(np.abs(np.log2(np.where(size > 0, size, 1.0))))
    share = np.where(size > 0, x[0].error / size, np.where(x[0].error > 0, np.inf, 0.0))
    count = math.prod(x[0].value.shape[a] for a in op.axes)
    error = np.abs(value) * (2 * U * (count + 4) + 2 * total.evaluate(share))
    return value, np.where(reach > 120, np.inf, error)


@rule(ops.AvgPool2d)
def _avg_pool(op: ops.AvgPool2d, x: Sequence[Known]) -> tuple[Array, Array]:
    return summed(op, x[0], math.prod(op.kernel) + 1)


@rule(ops.AdaptiveAvgPool2d)
def _adaptive(op: ops.AdaptiveAvgPool2d, x: Sequence[Known]) -> tuple[Array, Array]:
    return summed(op, x[0], math.prod(x[0].value.shape[2:]))


@rule(ops.RadixMean)
def _radix_mean(op: ops.RadixMean, x: Sequence[Known]) -> tuple[Array, Array]:
    return summed(op, x[0], op.radix * math.prod(x[0].value.shape[2:]))


# -- attention ------------------------------------------------------------------------------------


@rule(ops.Softmax)
def _softmax(op: ops.Softmax, x: Sequence[Known]) -> tuple[Array, Array]:
    """exp(x - max): the difference is rounded, and so its exponential off by as much."""
    value, axis = op.evaluate(x[0].value), op.axis
    largest = np.max(x[0].value, axis, keepdims=True, initial=-np.inf)
    distance = np.abs(x[0].value - largest)
    weighed = np.sum(np.where(value > 0, distance * value, 0.0), axis, keepdims=True)
    share = 2 * U * (np.minimum(distance, 120) + weighed + terms(value.shape[axis]) + 6)
    passed = 2 * np.max(x[0].error, axis, keepdims=True, initial=0.0)
    return value, value * (share + np.minimum(passed, 1e3)) + TINY


@rule(ops.RadixSoftmax)
def _radix_softmax(op: ops.RadixSoftmax, x: Sequence[Known]) -> tuple[Array, Array]:
    def split(a: Array) -> Array:
        shape = (len(a), op.cardinality, op.radix, -1)
        inner = a.shape[1] // (op.cardinality * op.radix)
        return a.reshape(*shape[:3], inner).transpose(0, 2, 1, 3)

    parts = Known(split(x[0].value), split(x[0].error))
    value, error = _softmax(ops.Softmax(1), [parts])
    return value.reshape(x[0].value.shape), error.reshape(x[0].value.shape)


@rule(ops.RadixCombine)
def _combine(op: ops.RadixCombine, x: Sequence[Known]) -> tuple[Array, Array]:
    data, gate = x
    plain = ops.RadixCombine(op.radix)
    value, off, gates = op.evaluate(data.value, gate.value), gate.error, size_of(gate.value)
    if op.folded:  # the gates are g and 1 - g
        gates = np.concatenate([gates, 1 + gates], 1)
        off = np.concatenate([off, off], 1)
    sizes = plain.evaluate(size_of(data.value), gates)
    passed = plain.evaluate(data.error, gates) + plain.evaluate(size_of(data.value), off)
    return of_sum(value, sizes, passed + terms(op.radix + 2) * U * sizes + op.radix * TINY)


@rule(ops.SplitAttention)
def _split_attention(op: ops.SplitAttention, x: Sequence[Known]) -> tuple[Array, Array]:
    parts, (data, w1, b1, w2, b2) = op.parts(), x

    def run(one: Op, *operands: Known) -> Known:
        value, error = rule_of(type(one))(one, operands)
        return Known(value, np.broadcast_to(error, value.shape))

    hidden = run(parts.activation, run(parts.fc1, run(parts.mean, data), w1, b1))
    logits = run(parts.fc2, hidden, w2, b2)
    gate = run(parts.gate, logits)
    found = run(parts.combine, data, gate)
    error = found.error
    if op.radix == 2:  # a softmax of two is the sigmoid g of their difference, and 1 - g
        ones = np.ones_like(gate.value)
        error = error + 4 * U * parts.combine.evaluate(size_of(data.value), ones)
        infinite = parts.combine.evaluate(np.isinf(data.value).astype(float), ones)
        error = np.where(infinite, np.inf, error)  # x1 + g (x0 - x1) may be inf - inf
    lost = any(np.isinf(k.error).any() for k in (hidden, gate)) or np.isinf(logits.value).any()
    return found.value, np.full(found.value.shape, np.inf) if lost else error


# -- norms ----------------------------------------------------------------------------------------


@rule(ops.BatchNorm)
def _batch_norm(op: ops.BatchNorm, x: Sequence[Known]) -> tuple[Array, Array]:
    """Computed as x * scale + shift, both of which are rounded."""
    data, weight, bias, mean, var = (k.value for k in x)
    channel = (-1,) + (1,) * (data.ndim - 2)
    scale = np.abs(weight / np.sqrt(var + op.eps)).reshape(channel)
    shift = scale * np.abs(mean).reshape(channel) + np.abs(bias).reshape(channel)
    sizes = size_of(data) * scale + shift
    error = x[0].error * scale + 5 * U * sizes + TINY
    return of_sum(op.evaluate(data, weight, bias, mean, var), sizes, error)


def _standardised(op: Op, x: Sequence[Known], axes: tuple[int, ...], data: Array) -> Any:
    """The result of a norm, and its error, where `data` is x with `axes` sharing statistics."""
    value = op.results(*(k.value for k in x))[0]
    count = math.prod(data.shape[a] for a in axes)
    centred = isinstance(op, ops.LayerNorm | ops.GroupNorm)
    mean = np.mean(data, axes, keepdims=True) if centred else np.zeros(1)
    distance, t = np.abs(data - mean), terms(count)
    deviation = np.sqrt(np.mean(distance**2, axes, keepdims=True) + op.eps)
    average = np.mean(distance, axes, keepdims=True)
    sizes = np.mean(np.abs(data), axes, keepdims=True) + np.abs(data)
    off = t * U * (distance + average) + (t * U) ** 2 * sizes + 2 * U * sizes * U * count
    off = np.maximum(off, TINY) / deviation
    overflow = np.max(distance, axes, keepdims=True, initial=0.0) ** 2 * count > LARGEST / 4
    if centred:  # the mean's sum
        overflow |= np.sum(size_of(data), axes, keepdims=True) > LARGEST / 4
    return value, np.where(overflow & np.isfinite(data), np.inf, off)


@rule(ops.LayerNorm, ops.RmsNorm)
def _layer_norm(op: Any, x: Sequence[Known]) -> tuple[Array, Array]:
    value, off = _standardised(op, x, op.axes, x[0].value)
    return _affine(value, off, [_spread(k.value, op.axes, value.ndim) for k in x[1:]])


@rule(ops.GroupNorm)
def _group_norm(op: ops.GroupNorm, x: Sequence[Known]) -> tuple[Array, Array]:
    data = x[0].value
    grouped = data.reshape(len(data), op.groups, data.shape[1] // op.groups, *data.shape[2:])
    value, off = _standardised(op, x, tuple(range(2, grouped.ndim)), grouped)
    off = off.reshape(data.shape)
    return _affine(value, off, [_spread(k.value, (1,), value.ndim) for k in x[1:]])


def _affine(value: Array, off: Array, weights: Sequence[Array]) -> tuple[Array, Array]:
    """The error of a normalised value once it is scaled and shifted."""
    scale = np.abs(weights[0]) if weights else 1.0
    shift = np.abs(weights[1]) if len(weights) > 1 else 0.0
    error = np.where(np.isinf(off), np.inf, off * scale)
    return value, error + 8 * U * (np.abs(value) + 2 * shift) + TINY


def _spread(values: Array, axes: Sequence[int], rank: int) -> Array:
    ascending = np.transpose(values, np.argsort(axes))
    return np.expand_dims(ascending, [a for a in range(rank) if a not in axes])


@rule(ops.LocalResponseNorm)
def _local_response(op: ops.LocalResponseNorm, x: Sequence[Known]) -> tuple[Array, Array]:
    value, data = op.evaluate(x[0].value), x[0].value
    share = 2 * U * (terms(op.size) + 8) * (1 + op.beta)
    sizes = size_of(data)
    overflow = np.max(sizes, 1, keepdims=True, initial=0.0) ** 2 * op.size > LARGEST / 4
    return value, np.where(overflow & np.isfinite(data), np.inf, np.abs(value) * share + TINY)
