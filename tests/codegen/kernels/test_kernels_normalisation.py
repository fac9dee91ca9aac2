"""Layer, RMS, group and local response norms against the interpreter: layouts, axes, accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder, random_inputs
from test_kernels_elementwise import shapes
from test_kernels_reduction import lying

from lucid.codegen.kernels.normalisation import RowNorm
from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, Op, Value, f32, ops
from lucid.ir.ops import Fusion, GroupNorm, LayerNorm, LocalResponseNorm, RmsNorm

LIMIT = 3e-6


def kernels(program: Program) -> list[str]:
    return [c.kernel.family for c in program.calls()]


def normalised(build: Builder, x: Value, axes: tuple[int, ...], affine: int) -> Value:
    """A layer norm with `affine` parameters (none, a weight, a weight and a bias)."""
    sizes = [x.type.shape[a] for a in axes]
    operands = [x]
    if affine:
        operands.append(build.weight(f"weight{len(build.payload)}", *sizes, positive=True))
    if affine > 1:
        operands.append(build.weight(f"bias{len(build.payload)}", *sizes))
    return build.apply(LayerNorm(axes), *operands)


@examples(0.6)
@given(st.data())
def test_layer_norm_over_any_axes(data: st.DataObject) -> None:
    """Of operands that lie in any order, with and without weights."""
    build = Builder()
    shape = shapes(data.draw, high=4)
    x = lying(data.draw, build, shape)
    axes = data.draw(st.lists(st.integers(1, len(shape)), min_size=1, max_size=3, unique=True))
    build.graph.set_outputs([normalised(build, x, tuple(axes), data.draw(st.integers(0, 2)))])
    check(build.graph, data.draw(st.integers(0, 3)), limit=1e-5)  # rows of two may nearly cancel


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64, 96, 130, 400])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_channels_of_maps(channels: int, kind: str) -> None:
    """As ConvNeXt has it: rows of channels where they lie, one kernel."""
    build = Builder()
    x = build.conv(build.input(5, 4, 7), channels, bias=True)
    weight = build.weight("weight", channels)
    if kind == "layer":
        y = build.apply(LayerNorm((1,)), x, weight, build.weight("bias", channels))
    else:
        y = build.apply(RmsNorm((1,)), x, weight)
    build.graph.set_outputs([build.conv(y, 8)])
    check(build.graph, 2, limit=LIMIT)
    target = TARGETS[-1]
    program = lower(build.graph, schedule(build.graph, target, 2), target, 2)
    assert "row_norm" in kernels(program)
    assert "reduce" not in kernels(program)


def fused(build: Builder, anchor: Op, operands: list[Value]) -> Value:
    """The anchor, and a body with a tensor, a vector by channel, a gate and a constant."""
    x = operands[0]
    channels = x.type.shape[1]
    body = Graph("body")
    y, tensor, vector, gate = (
        body.add_input(kind, "e")
        for kind in (
            x.type,
            x.type,
            f32(1, channels, 1, 1),
            x.type.with_shape((*x.type.shape[:2], 1, 1)),
        )
    )
    half = body.append(ops.Constant(0.5), []).output
    for op, reads in ((ops.Mul(), [vector]), (ops.Gelu(), []), (ops.Mul(), [gate])):
        y = body.append(op, [y, *reads]).output
    y = body.append(ops.Add(), [y, tensor]).output
    body.set_outputs([body.append(ops.Mul(), [y, half]).output])
    extras = [
        build.conv(x, channels),
        build.weight("vector", 1, channels, 1, 1, positive=True),
        build.apply(ops.Mean((2, 3), keepdims=True), x),
    ]
    return build.apply(Fusion(anchor, body), *operands, *extras)


@pytest.mark.parametrize("anchor", [LayerNorm((1,)), GroupNorm(1), GroupNorm(6), RmsNorm((1,))])
@pytest.mark.parametrize("last", [False, True], ids=["planar", "channels_last"])
def test_bodies(anchor: Op, last: bool) -> None:
    build = Builder()
    x = build.input(18, 5, 7)
    x = build.conv(x, 18) if last else x
    operands = [x, build.weight("weight", 18)]
    operands += [] if isinstance(anchor, RmsNorm) else [build.weight("bias", 18)]
    build.graph.set_outputs([fused(build, anchor, operands)])
    check(build.graph, 3, limit=LIMIT)


# -- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 2), (18, 1), (18, 18), (32, 8), (64, 1), (80, 2), (130, 5)]
)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 33)], ids=str)
def test_group_norm_of_maps(channels: int, groups: int, size: tuple[int, int]) -> None:
    build = Builder()
    x = build.conv(build.input(3, *size), channels, bias=True)
    weights = build.weight("weight", channels), build.weight("bias", channels)
    build.graph.set_outputs([build.conv(build.apply(GroupNorm(groups), x, *weights), 5)])
    check(build.graph, 2, limit=LIMIT)
    target = TARGETS[-1]
    program = lower(build.graph, schedule(build.graph, target, 2), target, 2)
    assert kernels(program).count("group_normalise") == 1


@examples(0.4)
@given(st.data())
def test_group_norm_of_anything(data: st.DataObject) -> None:
    build = Builder()
    shape = shapes(data.draw, high=4)
    x = lying(data.draw, build, shape)
    groups = data.draw(st.sampled_from([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
    weights = build.weight("weight", shape[0]), build.weight("bias", shape[0])
    build.graph.set_outputs([build.apply(GroupNorm(groups), x, *weights)])
    check(build.graph, data.draw(st.integers(0, 3)), limit=1e-5)


# -- batches and accuracy -------------------------------------------------------------------------

NORMS: list[Op] = [LayerNorm((1,)), LayerNorm((2, 3)), LayerNorm((1, 2, 3)), RmsNorm((1,))]
NORMS += [GroupNorm(1), GroupNorm(8), GroupNorm(40)]


def operands_of(build: Builder, op: Op, x: Value) -> list[Value]:
    if not isinstance(op, GroupNorm):
        return [x]
    return [x, build.weight("weight", 40, positive=True), build.weight("bias", 40)]


@pytest.mark.parametrize("op", NORMS, ids=str)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "lines"])
def test_a_batch_in_parts(op: Op, part: bool) -> None:
    """Bit by bit the same as image by image, on one thread and on two, also of a part of a map."""
    build = Builder()
    x = build.conv(build.input(3, 40, 41), 40, bias=True)
    x = build.apply(ops.Slice(2, 3, 33, 1), x) if part else x
    build.graph.set_outputs([build.apply(op, *operands_of(build, op, x))])
    target, inputs = TARGETS[-1], random_inputs(build.graph, 3)
    choices = schedule(build.graph, target, 3)

    def outputs(arrays: list[np.ndarray], threads: int) -> np.ndarray:
        program = lower(build.graph, choices, target, len(arrays[0]), threads)
        return Run(program, target, threads).outputs(build.graph.payload, arrays)[0]

    parts = [outputs([a[i : i + 1] for a in inputs], 1) for i in range(3)]
    np.testing.assert_array_equal(outputs(inputs, 2), np.concatenate(parts))


def alone(op: Op, shape: tuple[int, ...], last: bool) -> tuple[Graph, dict[str, np.ndarray]]:
    """The op over an input, which lies channels last or as it is given."""
    build = Builder()
    if last:
        x = build.graph.add_input(f32(BATCH, *shape[1:], shape[0]))
        x = build.apply(ops.Permute((0, 3, 1, 2)), x)
    else:
        x = build.graph.add_input(f32(BATCH, *shape))
    build.graph.set_outputs([build.apply(op, *operands_of(build, op, x))])
    return build.graph, build.payload


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", [n for n in NORMS if not isinstance(n, RmsNorm)], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["planar", "channels_last"])
def test_a_mean_far_from_zero(op: Op, last: bool, target: Target) -> None:
    """Means up to 1e5 times the spread: the error is that of the numbers given, a few ulp."""
    graph, payload = alone(op, (40, 20, 13), last)
    shape = graph.inputs[0].type.concrete(2)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) + rng.choice([1e2, 1e4, 1e5], (2, 1, 1, 1))).astype(np.float32)
    program = lower(graph, Schedule({}), target, 2)
    (value,) = Run(program, target).outputs(payload, [x])
    turned = x.transpose(0, 3, 1, 2) if last else x
    weights = [payload[n].astype(np.float64) for n in ("weight", "bias") if n in payload]
    wanted = np.asarray(op.evaluate(turned.astype(np.float64), *weights))
    np.testing.assert_allclose(value, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", NORMS, ids=str)
def test_constant_rows_and_nan(op: Op, target: Target) -> None:
    """Of equal numbers, however large, nothing is left; NaN and infinity stay among themselves."""
    graph, payload = alone(op, (40, 20, 13), last=True)
    x = np.full(graph.inputs[0].type.concrete(3), 1e10, np.float32)
    x[1] = np.random.default_rng(0).standard_normal(x.shape[1:])
    x[1, 4, 5, 17] = np.nan
    x[1, 7, 3, 20] = np.inf
    x[2] = 0.1
    program = lower(graph, Schedule({}), target, 3)
    (value,) = Run(program, target).outputs(payload, [x])
    turned = x.transpose(0, 3, 1, 2).astype(np.float64)
    weights = [payload[n].astype(np.float64) for n in ("weight", "bias") if n in payload]
    wanted = np.asarray(op.evaluate(turned, *weights))
    np.testing.assert_array_equal(np.isnan(value), np.isnan(wanted))
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_kernels_know_what_they_do() -> None:
    """One kernel for every layer norm of one kind: sizes and weights are arguments."""
    made = set()
    for channels in (24, 96):
        build = Builder()
        x = build.conv(build.input(3, 5, 5), channels)
        y = normalised(build, x, (1,), 2)
        build.graph.set_outputs([build.conv(y, 4)])
        program = lower(build.graph, schedule(build.graph, TARGETS[-1], 1), TARGETS[-1], 1)
        made |= {c.kernel for c in program.calls() if isinstance(c.kernel, RowNorm)}
    assert len(made) == 1


# -- local response -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 30])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "beta": 0.6, "k": 2.0}], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["planar", "channels_last"])
def test_local_response_norm(size: int, options: dict[str, Any], last: bool) -> None:
    build = Builder()
    x = build.input(21, 6, 5)
    x = build.conv(x, 21) if last else x
    build.graph.set_outputs([build.apply(LocalResponseNorm(size, **options), x)])
    check(build.graph, 2, limit=LIMIT)


def test_local_response_norm_of_other_ranks() -> None:
    build = Builder()
    outputs = [
        build.apply(LocalResponseNorm(3, 0.1), build.graph.add_input(f32(BATCH, *shape)))
        for shape in ((9,), (9, 4), (9, 4, 2, 3))
    ]
    build.graph.set_outputs(outputs)
    check(build.graph, 2, limit=LIMIT)
