"""Elementwise ops on vectors: their errors in units in the last place, and the special values.

Every op runs on every target over numbers of all sizes, and is held against its reference in
float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from harness import TARGETS, Run

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, Op, f32, ops

COUNT = 20_000
TINY = 1e-30
"""Below, results may be flushed to zero, and quotients of what was flushed are off."""


def run(op: Op, operands: Sequence[np.ndarray], target: Target) -> np.ndarray:
    """The op as generated code computes it, on vectors of one length."""
    graph = Graph("op", {})
    values = [graph.add_input(f32(BATCH)) for _ in operands]
    graph.set_outputs([graph.append(op, values).output])
    program = lower(graph, Schedule({}), target, len(operands[0]))
    (result,) = Run(program, target).outputs({}, operands)
    return result


def exact(op: Op, operands: Sequence[np.ndarray]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(op.evaluate(*(o.astype(np.float64) for o in operands)))


def spread(low: float, high: float, seed: int = 0) -> np.ndarray:
    """Numbers between bounds: half of them even, half with all orders of magnitude alike."""
    rng = np.random.default_rng(seed)
    even = rng.uniform(low, high, COUNT // 2)
    largest = max(abs(low), abs(high))
    signs = np.where(low < 0, rng.choice([-1.0, 1.0], COUNT // 2), 1.0)
    scaled = signs * np.exp(rng.uniform(math.log(1e-20), math.log(largest), COUNT // 2))
    return np.concatenate([even, np.clip(scaled, low, high)]).astype(np.float32)


def ulps(value: np.ndarray, wanted: np.ndarray) -> float:
    """The largest error, in units in the last place of the right result."""
    with np.errstate(over="ignore"):
        single = wanted.astype(np.float32)
    normal = np.isfinite(single) & (np.abs(wanted) > TINY)
    assert (np.isnan(value) == np.isnan(wanted)).all()
    infinite = np.isinf(single)
    np.testing.assert_array_equal(value[infinite], single[infinite])
    assert (np.abs(value[~normal & np.isfinite(single)]) <= 2 * TINY).all()
    unit = np.spacing(np.abs(single[normal])).astype(np.float64)
    return float((np.abs(value[normal] - wanted[normal]) / unit).max(initial=0.0))


def floating(base: type[ops.Elementwise]) -> list[ops.Elementwise]:
    """Examples of the ops of a class that take floats; for integers, `tests/codegen`."""
    return [op for cls in ops.declared(base) if "f32" in cls.takes for op in cls.examples()]


UNARY = floating(ops.Unary)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", UNARY, ids=str)
def test_errors(op: ops.Elementwise, target: Target) -> None:
    """Within what the op declares, over all of its domain and over what is common of it."""
    low, high = op.domain
    for x in (spread(low, high), spread(max(low, -100), min(high, 100))):
        error = ulps(run(op, [x], target), exact(op, [x]))
        assert error <= op.ulps, f"{op} is off by {error:.2f} ulp"


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_powers(target: Target) -> None:
    a, b = spread(0, 1e4), spread(-30, 30, seed=1)
    b[::5] = np.round(b[::5])
    a[::3] *= -1
    assert ulps(run(ops.Pow(), [a, b], target), exact(ops.Pow(), [a, b])) <= 1
    near = np.random.default_rng(2).uniform(0.99, 1.01, COUNT).astype(np.float32)
    large = b * 200
    assert ulps(run(ops.Pow(), [near, large], target), exact(ops.Pow(), [near, large])) <= 1


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("size", [1e2, 1e9, 1e30])
def test_remainders_are_exact(size: float, target: Target) -> None:
    """Whatever the quotient, of which only the remainder of its last digits counts."""
    a, b = spread(-size, size), spread(-10, 10, seed=1)
    b[::7] *= 1e20
    b = np.where(np.abs(b) < TINY, np.float32(1), b)
    value = run(ops.Mod(True), [a, b], target)
    np.testing.assert_array_equal(value, np.fmod(a, b))
    assert ulps(run(ops.Mod(), [a, b], target), exact(ops.Mod(), [a, b])) <= 0.5


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_gelu_is_right_for_its_size(target: Target) -> None:
    """Where 1 + erf(x) is nearly 0 no digit of it need be right, but it is small."""
    x = spread(-9, 9)
    error = np.abs(run(ops.Gelu(), [x], target) - exact(ops.Gelu(), [x]))
    assert (error <= 3e-7 * np.abs(x) + 1e-37).all()


SPECIAL = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0, 2.5, -2.5, 3.0, -3.0, 1e-30]
SPECIAL += [-1e-30, 9.0, -9.0, 20.5, -20.5, 88.0, -88.0, 104.0, -104.0, 8388607.5, -8388607.5]
SPECIAL += [16777217.0, 1e30, -1e30, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan]

EVERY = [op for op in UNARY if not isinstance(op, ops.Sin | ops.Cos | ops.Tan)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", EVERY, ids=str)
def test_special_values(op: Op, target: Target) -> None:
    """Large, tiny and non-finite numbers, with the signs of zeros."""
    x = np.array(SPECIAL, np.float32)
    with np.errstate(over="ignore"):
        wanted = exact(op, [x]).astype(np.float32)
    value = run(op, [x], target)
    cancelling = 2e-7 if isinstance(op, ops.Gelu) else 1e-30  # 1 + erf(x) where that is nearly 0
    np.testing.assert_allclose(value, wanted, rtol=3e-6, atol=cancelling)
    if isinstance(op, ops.Floor | ops.Ceil | ops.Round | ops.Sign | ops.LeakyRelu):
        np.testing.assert_array_equal(np.signbit(value), np.signbit(wanted))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_sine_of_special_values(target: Target) -> None:
    """The infinities have none; of what is too large to be reduced it is still between -1 and 1."""
    x = np.array([np.inf, -np.inf, np.nan, 0.0, 1e30, -3e38], np.float32)
    for op in (ops.Sin(), ops.Cos()):
        value = run(op, [x], target)
        assert np.isnan(value[:3]).all()
        assert value[3] == (1.0 if op == ops.Cos() else 0.0)


BINARY = floating(ops.Binary)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
def test_pairs_of_special_values(op: Op, target: Target) -> None:
    pairs = np.array([(a, b) for a in SPECIAL for b in SPECIAL], np.float32)
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    with np.errstate(over="ignore"):
        wanted = exact(op, [a, b]).astype(np.float32)
    value = run(op, [a, b], target)
    np.testing.assert_array_equal(np.isnan(value), np.isnan(wanted))
    np.testing.assert_allclose(value, wanted, rtol=max(2, op.ulps) * 2**-23, atol=1.2e-38)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_where(target: Target) -> None:
    """Whatever is not zero is true, and what is chosen passes as it is."""
    condition = np.array([0.0, -0.0, 1.0, -3.0, np.nan, np.inf, 0.5], np.float32)
    a = np.array([1.0, 2.0, np.nan, np.inf, 5.0, 6.0, -0.0], np.float32)
    b = np.array([np.inf, -2.0, 3.0, 4.0, np.nan, 6.0, 7.0], np.float32)
    value = run(ops.Where(), [condition, a, b], target)
    np.testing.assert_array_equal(value, np.where(condition != 0, a, b))


def test_every_elementwise_op_is_here() -> None:
    others = set(ops.declared(ops.Elementwise)) - {type(op) for op in (*UNARY, *BINARY)}
    assert {cls for cls in others if "f32" in cls.takes} == {ops.Where, ops.Saturate}
