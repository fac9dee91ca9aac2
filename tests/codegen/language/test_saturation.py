"""Floats to integers, rounded half to even and saturated, against the op's reference."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS, Run

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.ir import Graph, TensorType, f32, interpret, ops
from lucid.ir.ops.quantisation import QUANTISED
from lucid.ir.types import DTYPES


def difficult(name: str, zero_point: int) -> np.ndarray:
    """Ties, and numbers beside them and beside the bounds; what is no number, or beyond any."""
    bounds = np.iinfo(DTYPES[name])
    around = [0, *(b - zero_point for b in (int(bounds.min), int(bounds.max)))]
    steps = np.arange(-8, 9) / 4
    near = (np.array(around, np.float64)[:, None] + steps).astype(np.float32).ravel()
    sides = [np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)]
    wide = [np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2**23 + 1, 1e-42, -0.0]
    return np.concatenate([near, *sides, np.array(wide, np.float32)])


def zero_points(name: str) -> list[int]:
    bounds = np.iinfo(DTYPES[name])
    wanted = (0, 3, int(bounds.min), int(bounds.max))
    return [z for z in wanted if bounds.min <= z <= bounds.max]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", QUANTISED)
def test_saturate_is_exact(name: str, target: Target) -> None:
    for zero_point in zero_points(name):
        x = difficult(name, zero_point)
        graph = Graph("g", {})
        given = graph.add_input(f32(x.size), "x")
        graph.set_outputs([graph.append(ops.Saturate(name, zero_point), [given]).output])
        program = lower(graph, Schedule({}), target, 1)
        (found,) = Run(program, target).outputs({}, [x])
        np.testing.assert_array_equal(found, *interpret(graph, [x]), err_msg=f"{zero_point}")


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", QUANTISED)
def test_what_was_saturated_as_floats_again(name: str, target: Target) -> None:
    """Bit for bit, which tells 0 from -0: no integers are in between where floats will do."""
    for zero_point in zero_points(name):
        x = difficult(name, zero_point)
        body = Graph("body", {})
        given = body.add_input(TensorType(name, (x.size,)), "y")
        body.set_outputs([body.append(ops.Cast("f32"), [given]).output])
        graph = Graph("g", {})
        fused = ops.Fusion(ops.Saturate(name, zero_point), body)
        graph.set_outputs([graph.append(fused, [graph.add_input(f32(x.size), "x")]).output])
        program = lower(graph, Schedule({}), target, 1)
        (found,) = Run(program, target).outputs({}, [x])
        (wanted,) = interpret(graph, [x])
        np.testing.assert_array_equal(found.view(np.int32), wanted.view(np.int32))
