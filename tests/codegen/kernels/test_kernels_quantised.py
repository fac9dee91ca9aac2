"""Kernels over 8-bit tensors against the interpreter: the same bits at every level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from harness import TARGETS, Run, set_apart

from lucid.codegen.lowering import lower, lower_parts
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.ir import Graph, TensorType, Value, interpret, ops, verify
from lucid.ir.graph import Parameter
from lucid.ir.ops import Array, Op
from lucid.ir.recipe import Source
from lucid.ir.types import BATCH, DTYPES

EIGHT = ["u8", "i8"]
SIZES = [1, 7, 31, 32, 33, 70, 129]
"""Lengths around those of vectors."""


def levels(dtype: str, shape: Sequence[int], seed: int = 0) -> Array:
    """All integers of a dtype, its bounds more often than others."""
    random, bounds = np.random.default_rng(seed), np.iinfo(DTYPES[dtype])
    drawn = random.integers(bounds.min, bounds.max, shape, DTYPES[dtype], endpoint=True)
    extremes = np.array([bounds.min, bounds.max, 0, 1], DTYPES[dtype])
    return np.where(random.random(shape) < 0.2, random.choice(extremes, shape), drawn)


def inputs_of(graph: Graph, batch: int) -> list[Array]:
    """Arrays for a graph's inputs: integers as `levels`, floats with ties and beyond 8 bits."""
    found = []
    for number, value in enumerate(graph.inputs):
        shape = value.type.concrete(batch)
        if value.type.dtype == "f32":
            random = np.random.default_rng(number)
            halves = random.integers(-600, 600, shape).astype(np.float32) / 2
            found.append(np.where(random.random(shape) < 0.5, halves, random.normal(0, 90, shape)))
            found[-1] = found[-1].astype(np.float32)
        else:
            found.append(levels(value.type.dtype, shape, number))
    return found


def check(graph: Graph, batch: int = 2, inputs: Sequence[Array] | None = None) -> None:
    """Natively computed at every level, bit for bit as interpreted, by one thread and two."""
    verify(graph)
    inputs = inputs_of(graph, batch) if inputs is None else inputs
    wanted = interpret(graph, inputs)
    for target in TARGETS:
        choices = schedule(graph, target, max(1, batch), "strict")
        alone = lower(graph, choices, target, batch, threads=1)
        set_apart(alone)
        results = Run(alone, target, skew=13).outputs(graph.payload, inputs)
        together = lower(graph, choices, target, batch, threads=2)
        again = Run(together, target, threads=2).outputs(graph.payload, inputs)
        for value, other, exact in zip(results, again, wanted, strict=True):
            assert value.dtype == exact.dtype
            np.testing.assert_array_equal(value, exact, err_msg=f"{target.name}\n{graph}")
            np.testing.assert_array_equal(other, exact, err_msg=f"{target.name}, two threads")


class Making:
    """A graph that is being made, and its payload."""

    def __init__(self) -> None:
        self.graph = Graph("quantised", {})

    def input(self, dtype: str, *shape: int) -> Value:
        return self.graph.add_input(TensorType(dtype, (BATCH, *shape)))

    def parameter(self, array: Array, dtype: str) -> Parameter:
        name = f"p{len(self.graph.payload)}"
        self.graph.payload[name] = array
        return self.graph.add_parameter(name, Source(name, TensorType(dtype, array.shape)))

    def apply(self, op: Op, *operands: Value) -> Value:
        return self.graph.append(op, operands).output

    def check(self, *results: Value, batch: int = 2) -> None:
        self.graph.set_outputs(results)
        check(self.graph, batch)


# -- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("result", ["u8", "i8", "f32"])
def test_lookup(dtype: str, result: str) -> None:
    for size in SIZES:
        made = Making()
        x = made.input(dtype, size)
        table = np.random.default_rng(size).integers(-128, 128, 256).astype(DTYPES[result])
        made.check(made.apply(ops.Lookup(), x, made.parameter(table, result)), batch=3)


@pytest.mark.parametrize("result", ["u8", "f32"])
def test_lookup_of_every_number_in_any_order(result: str) -> None:
    """Of a map that is turned, cut, and repeated; by a table that the model computes."""
    made = Making()
    x = made.input("u8", 5, 9, 33)
    table = made.graph.add_input(TensorType("u8", (256,)))
    table = made.apply(ops.Cast(result), table)
    turned = made.apply(ops.Permute((0, 3, 1, 2)), x)
    third = made.apply(ops.Slice(3, 1, 33, 3), x)
    one = made.apply(ops.Slice(2, 0, 1, 1), x)
    repeated = made.apply(ops.Expand((BATCH, 5, 9, 33)), one)
    made.check(*(made.apply(ops.Lookup(), v, table) for v in (x, turned, third, repeated)))


# -- between floats and integers ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*EIGHT, "u16", "i16"])
@pytest.mark.parametrize("axis", [None, 1, 3])
@pytest.mark.parametrize("zeros", [False, True])
def test_quantize_and_dequantize(dtype: str, axis: int | None, zeros: bool) -> None:
    made, shape = Making(), (6, 5, 37)
    count = () if axis is None else (shape[axis - 1],)
    scale = made.parameter(np.random.default_rng(3).uniform(0.01, 3, count).astype("f"), "f32")
    given = [scale, *([made.parameter(levels(dtype, count), dtype)] if zeros else [])]
    x, steps = made.input("f32", *shape), made.input(dtype, *shape)
    made.graph.set_outputs(
        [
            made.apply(ops.Quantize(dtype, axis or 0), x, *given),
            made.apply(ops.Dequantize(axis or 0), steps, *given),
        ]
    )
    floats, *others = inputs_of(made.graph, 2)
    strange = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, -0.0]
    floats[0, :, 0, : len(strange)] = strange
    check(made.graph, 2, [floats, *others])


def test_ties_are_rounded_to_even_and_numbers_divided() -> None:
    """x / 0.1 is not x * 10, and 2.5 becomes 2."""
    made = Making()
    x = made.input("f32", 40)
    for scale in (0.1, 0.5, 3.0):
        weight = made.parameter(np.float32(scale), "f32")
        made.graph.set_outputs([made.apply(ops.Quantize("i8"), x, weight)])
        halves = np.float32(np.arange(-80, 80).reshape(4, 40) / 2 * scale)
        check(made.graph, 4, [halves])


def test_what_has_no_kernel_runs_on_the_host() -> None:
    made = Making()
    x, scale = made.input("f32", 8), made.input("f32", 2)
    blocks = made.apply(ops.Quantize("u8", 1, 4), x, scale)
    made.graph.set_outputs([blocks])
    parts = lower_parts(made.graph, Schedule({}), TARGETS[0], 2)
    assert [type(part).__name__ for part in parts] == ["HostNode"]
