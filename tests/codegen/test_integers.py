"""Ops of integers, at every dtype and level: exact, bit by bit, and never a trap."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from harness import TARGETS, Run

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, Op, TensorType, interpret, ops
from lucid.ir.types import DTYPES, INTEGERS, f32

UNARY = [ops.Neg(), ops.Abs(), ops.Sign(), ops.BitwiseNot()]
BINARY = [
    *(ops.Add(), ops.Sub(), ops.Mul(), ops.Div(), ops.FloorDiv(), ops.Mod(), ops.Mod(True)),
    *(ops.Maximum(), ops.Minimum(), ops.Pow(), ops.Equal(), ops.Less(), ops.LessEqual()),
    *(ops.BitwiseAnd(), ops.BitwiseOr(), ops.BitwiseXor(), ops.ShiftLeft(), ops.ShiftRight()),
]


def numbers(name: str) -> np.ndarray:
    """The bounds of a dtype, what lies beside them and beside 0, powers of two, and others."""
    info = np.iinfo(DTYPES[name])
    edges = {int(b) + d for b in (info.min, info.max, 0, info.max // 2) for d in range(-3, 4)}
    edges |= {1 << i for i in range(info.bits)} | {info.bits, info.bits - 1, 1000, -1000}
    inside = sorted(v for v in edges if info.min <= v <= info.max)
    random = np.random.default_rng(info.bits).integers(info.min, info.max, 9, DTYPES[name])
    return np.concatenate([np.array(inside, DTYPES[name]), random])


def pairs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Every number beside every other one, as a batch of one row each."""
    some = numbers(name)
    a, b = zip(*product(some, some), strict=True)
    return np.array(a, some.dtype)[None], np.array(b, some.dtype)[None]


def computed(graph: Graph, inputs: list[np.ndarray], target: Target) -> list[np.ndarray]:
    program = lower(graph, Schedule({}), target, len(inputs[0]), threads=2)
    return Run(program, target, threads=2).outputs(graph.payload, inputs)


def of(name: str, applied: list[Op], operands: int, count: int) -> Graph:
    """A graph that returns each op of inputs of one dtype."""
    graph = Graph("integers", {})
    given = [graph.add_input(TensorType(name, (BATCH, count))) for _ in range(operands)]
    graph.set_outputs([graph.append(op, given).output for op in applied])
    return graph


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", INTEGERS)
def test_arithmetic_is_exact(name: str, target: Target) -> None:
    a, b = pairs(name)
    for applied, inputs in ((UNARY, [numbers(name)[None]]), (BINARY, [a, b])):
        graph = of(name, applied, len(inputs), inputs[0].shape[1])
        found = computed(graph, inputs, target)
        for op, value, exact in zip(applied, found, interpret(graph, inputs), strict=True):
            assert value.dtype == exact.dtype, op
            np.testing.assert_array_equal(value, exact, err_msg=str(op))


@pytest.mark.parametrize("name", INTEGERS)
def test_references_are_those_of_whole_numbers(name: str) -> None:
    """Python's integers, which have any number of bits, brought back into range."""
    a, b = pairs(name)
    bits = np.iinfo(DTYPES[name]).bits

    def wrapped(y: int) -> int:
        y %= 1 << bits
        return y - (1 << bits) if DTYPES[name].kind == "i" and y >= 1 << bits - 1 else y

    def power(x: int, y: int) -> int:
        if y >= 0:
            return pow(x, y, 1 << bits)
        return {1: 1, -1: -1 if y % 2 else 1}.get(x, 0)

    def trunc(x: int, y: int) -> int:
        return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)

    exact = {
        ops.Add(): lambda x, y: x + y,
        ops.Sub(): lambda x, y: x - y,
        ops.Mul(): lambda x, y: x * y,
        ops.Div(): lambda x, y: trunc(x, y) if y else 0,
        ops.FloorDiv(): lambda x, y: x // y if y else 0,
        ops.Mod(): lambda x, y: x % y if y else 0,
        ops.Mod(True): lambda x, y: x - y * trunc(x, y) if y else 0,
        ops.Pow(): power,
        ops.ShiftLeft(): lambda x, y: x << y if 0 <= y < bits else 0,
        ops.ShiftRight(): lambda x, y: x >> (y if 0 <= y < bits else bits),
    }
    for op, function in exact.items():
        (found,) = op.results(a, b)
        wanted = [wrapped(function(int(x), int(y))) for x, y in zip(a[0], b[0], strict=True)]
        np.testing.assert_array_equal(found[0], np.array(wanted, DTYPES[name]), err_msg=str(op))


REDUCTIONS = [
    *(ops.Sum((1,)), ops.Prod((1,)), ops.Max((1,)), ops.Min((1,))),
    *(ops.Sum((2,)), ops.Prod((2,)), ops.Max((2,)), ops.Min((2,))),
    *(ops.ArgMax(1), ops.ArgMin(1), ops.ArgMax(1, last=True), ops.ArgMin(1, last=True)),
    *(ops.ArgMax(2), ops.ArgMin(2), ops.ArgMax(2, last=True), ops.ArgMin(2, last=True)),
]


def rows(name: str) -> np.ndarray:
    """Arrays of few different numbers, so that extremes are there several times; some of the bounds
    of the dtype alone."""
    kind, random = DTYPES[name], np.random.default_rng(3)
    x = random.choice(numbers(name), (4, 19, 37))
    bounds = np.array([np.iinfo(kind).min, np.iinfo(kind).max], kind)
    x[1] = random.choice(bounds, x[1].shape)
    x[2] = np.iinfo(kind).min
    x[3] = np.iinfo(kind).max
    return x


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", INTEGERS)
def test_reductions_are_exact(name: str, target: Target) -> None:
    x = rows(name)
    graph = Graph("reductions", {})
    given = graph.add_input(TensorType(name, (BATCH, *x.shape[1:])))
    graph.set_outputs([graph.append(op, [given]).output for op in REDUCTIONS])
    found = computed(graph, [x], target)
    for op, value, exact in zip(REDUCTIONS, found, interpret(graph, [x]), strict=True):
        assert value.dtype == exact.dtype, op
        np.testing.assert_array_equal(value, exact, err_msg=str(op))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_places_of_floats(target: Target) -> None:
    """Of equal numbers the first or the last; NaN and the infinities among them."""
    x = np.random.default_rng(0).choice(np.float32([1, 2, -np.inf, np.inf]), (5, 19, 37))
    x[0, 3:6, 5:9] = np.nan
    x[1] = -np.inf
    x[2] = np.inf
    applied = [op for op in REDUCTIONS if isinstance(op, ops.ArgMax | ops.ArgMin)]
    graph = Graph("places", {})
    given = graph.add_input(f32(BATCH, *x.shape[1:]))
    graph.set_outputs([graph.append(op, [given]).output for op in applied])
    found = computed(graph, [x], target)
    for op, value, exact in zip(applied, found, interpret(graph, [x]), strict=True):
        np.testing.assert_array_equal(value, exact, err_msg=str(op))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["i8", "i64", "u32"])
def test_parts_of_a_sum_of_integers(name: str, target: Target) -> None:
    """So long that it is cut into parts, which are put together."""
    x = np.random.default_rng(1).integers(0, 256, (2, 96, 90, 60)).astype(DTYPES[name])
    graph = Graph("parts", {})
    given = graph.add_input(TensorType(name, (BATCH, *x.shape[1:])))
    sums = [ops.Sum((1, 2, 3)), ops.Max((1, 2, 3), True), ops.Prod((1, 2))]
    graph.set_outputs([graph.append(op, [given]).output for op in sums])
    for value, exact in zip(computed(graph, [x], target), interpret(graph, [x]), strict=True):
        np.testing.assert_array_equal(value, exact)
