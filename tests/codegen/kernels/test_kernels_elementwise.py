"""Elementwise kernels against the interpreter: broadcasting, any rank, any layout, any dtype."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples, set_apart
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS, Builder, random_inputs

from lucid.codegen.kernels.body import Body
from lucid.codegen.kernels.strided import Elementwise
from lucid.codegen.language.elements import Access
from lucid.codegen.lowering import lower
from lucid.codegen.program.interpret import ProgramInterpreter
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import UnsupportedError
from lucid.ir import BATCH, Graph, TensorType, Value, f32, interpret, ops
from lucid.ir.ops import Add, Constant, Div, Exp, Maximum, Minimum, Mul, Op, Rsqrt, Sqrt, Sub
from lucid.ir.passes import run_passes

SIZES = [1, 2, 3, 5, 10, 17, 40]


def shapes(draw: Any, low: int = 1, high: int = 4) -> tuple[int, ...]:
    """Dimensions after the batch, at most a few thousand floats."""
    shape = draw(st.lists(st.sampled_from(SIZES), min_size=low, max_size=high))
    while prod(shape) > 4000:
        shape[int(np.argmax(shape))] = 3
    return tuple(shape)


def positive(build: Builder, x: Value) -> Value:
    """x * x + 0.5, so that roots and quotients are tame."""
    half = build.apply(Constant(0.5))
    return build.apply(Add(), build.apply(Mul(), x, x), half)


@pytest.mark.parametrize("op", ACTIVATIONS, ids=lambda op: f"{op}")
def test_unary(op: Op) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 37))
    build.graph.set_outputs([build.apply(op, x)])
    check(build.graph, 3)


@pytest.mark.parametrize("op", [Exp(), Sqrt(), Rsqrt(), ops.Log()], ids=lambda op: op.name)
def test_unary_over_positive_numbers(op: Op) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 37))
    build.graph.set_outputs([build.apply(op, positive(build, x))])
    check(build.graph, 3)


BINARY: list[Op] = [Add(), Sub(), Mul(), Div(), Maximum(), Minimum(), ops.Less(), ops.Prelu()]


@examples(0.4)
@given(st.data())
def test_binary_with_broadcasting(data: st.DataObject) -> None:
    """Operands of any rank, each dimension whole or repeated, or a scalar constant."""
    build = Builder()
    shape = shapes(data.draw, high=5)
    op = data.draw(st.sampled_from(BINARY))
    thin = tuple(data.draw(st.sampled_from([1, d])) for d in shape)
    thin = thin[data.draw(st.integers(0, len(thin) - 1)) :]
    x = build.graph.add_input(f32(BATCH, *shape))
    if data.draw(st.booleans()):
        y = build.weight("w", *thin, positive=True)
    elif len(thin) == len(shape):
        y = positive(build, build.graph.add_input(f32(BATCH, *thin)))
    else:
        y = build.apply(Constant(1.25))
    build.graph.set_outputs([build.apply(op, *((x, y) if data.draw(st.booleans()) else (y, x)))])
    if op == Div() and build.graph.outputs[0].producer.inputs[1] is x:
        build.graph.set_outputs([build.apply(Div(), y, positive(build, x))])
    check(build.graph, data.draw(st.integers(1, 3)))


def operand(draw: Any, build: Builder, shape: tuple[int, ...], number: int) -> Value:
    """An input that broadcasts to (N, *shape) and lies in some order: the dimensions permuted, and
    cut from something larger."""
    order = draw(st.permutations(range(1, len(shape) + 1)))
    thin = [draw(st.sampled_from([1, d, d])) for d in shape]
    step = draw(st.sampled_from([1, 1, 2, 3]))
    axis = draw(st.integers(0, len(shape) - 1))
    lying = [thin[i - 1] for i in order]
    lying[axis] = lying[axis] * step
    x = build.graph.add_input(f32(BATCH, *lying), f"x{number}")
    x = build.apply(ops.Slice(axis + 1, 0, lying[axis], step), x)
    return build.apply(ops.Permute((0, *(order.index(i) + 1 for i in range(1, len(order) + 1)))), x)


@examples(0.6)
@given(st.data())
def test_chains_over_operands_that_lie_in_any_way(data: st.DataObject) -> None:
    """Up to rank 6, with operands read twice and a choice between two."""
    build = Builder()
    shape = shapes(data.draw, 2, 5)
    a, b, c = (operand(data.draw, build, shape, i) for i in range(3))
    total = build.apply(Add(), build.apply(Mul(), a, b), a)
    chosen = build.apply(ops.Where(), build.apply(ops.Less(), b, c), total, c)
    bent = build.apply(data.draw(st.sampled_from(ACTIVATIONS)), chosen)
    build.graph.set_outputs([bent])
    check(build.graph, data.draw(st.integers(0, 3)))


@pytest.mark.parametrize("shape", [(30, 9, 11), (64, 12, 12), (5, 1, 1), (1, 7, 7), (128, 3, 40)])
def test_maps_in_both_orders(shape: tuple[int, int, int]) -> None:
    """A map that lies channels last beside one that lies as the user gives it, and a gate."""
    build = Builder()
    x = build.input(*shape)
    last = build.conv(x, shape[0], bias=True)
    gate = build.apply(ops.Sigmoid(), build.apply(ops.Mean((2, 3), keepdims=True), last))
    both = build.apply(Add(), build.apply(Mul(), last, gate), x)
    build.graph.set_outputs([build.apply(Mul(), both, x), build.apply(ops.Relu(), last)])
    check(build.graph, 2, disable=["fuse-epilogue"])


def test_large_operands_are_brought_in_order_first() -> None:
    """An input that lies planar beside a map that lies channels last is copied, parameters are
    packed: nothing is gathered."""
    build = Builder()
    x = build.input(24, 16, 15)
    y = build.conv(x, 24)
    for parameter in (build.weight("a", 1, 24, 16, 15), build.weight("b", 24, 1, 15), x):
        y = build.apply(Add(), y, parameter)
    build.graph.set_outputs([build.conv(y, 8)])
    fused = check(build.graph, 2, disable=["fuse-epilogue"])
    program = lower(fused, schedule(fused, TARGETS[-1], 2), TARGETS[-1], 2)
    chains = [c.kernel for c in program.calls() if isinstance(c.kernel, Elementwise)]
    assert chains
    assert all(a.kind != "strided" for kernel in chains for a in kernel.accesses)


def test_results_lie_like_their_operands() -> None:
    """Of (N, H, W, C) and (N, heads, length, depth) values no dimension but the last is inside."""
    build = Builder()
    x = build.conv(build.input(3, 6, 7), 20)
    rows = build.apply(ops.Permute((0, 2, 3, 1)), x)
    y = build.apply(ops.Relu(), rows)
    build.graph.set_outputs([build.apply(ops.Exp(), y), build.apply(ops.Sum((3,)), y)])
    program = lower(build.graph, schedule(build.graph, TARGETS[0], 2), TARGETS[0], 2)
    (view,) = (v for c in program.calls() for v in c.writes if v.buffer.startswith("relu"))
    assert view.strides == (840, 140, 20, 1)
    check(build.graph, 2)


def test_more_dimensions_than_a_grid_has() -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 2, 2, 2, 2, 2, 2))
    turned = build.apply(ops.Permute((0, 6, 5, 4, 3, 2, 1)), x)
    build.graph.set_outputs([build.apply(Add(), x, turned)])
    with pytest.raises(UnsupportedError, match="7 dimensions that cannot be merged"):
        lower(build.graph, Schedule({}), TARGETS[0], 2)


# -- dtypes ---------------------------------------------------------------------------------------


def run(graph: Graph, inputs: list[np.ndarray], target: Target) -> list[np.ndarray]:
    """The graph's outputs from generated code, one thread and two alike, in guarded memory; the
    Program's interpreter agrees."""
    graph = run_passes(graph)
    batch = len(inputs[0])
    alone, together = (
        lower(graph, schedule(graph, target, batch), target, batch, threads=t) for t in (1, 2)
    )
    interpreted = ProgramInterpreter(alone, graph.payload).run(inputs)
    set_apart(alone)
    results = Run(alone, target, skew=3).outputs(graph.payload, inputs)
    again = Run(together, target, threads=2).outputs(graph.payload, inputs)
    for one, other, exact in zip(results, again, interpreted, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, exact, rtol=1e-5, atol=1e-5)
    return results


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(5, 7, 3), (16, 16, 3), (33, 31, 1), (6, 5, 4), (4, 4, 9)])
def test_images_of_bytes(shape: tuple[int, int, int], target: Target) -> None:
    """(N, H, W, C) levels to (N, C, H, W) floats, scaled and shifted by channel: one kernel."""
    channels = shape[-1]
    build = Builder()
    x = build.graph.add_input(TensorType("u8", (BATCH, *shape)))
    planes = build.apply(ops.Permute((0, 3, 1, 2)), build.apply(ops.Cast("f32"), x))
    scaled = build.apply(Mul(), planes, build.weight("scale", channels, 1, 1))
    build.graph.set_outputs([build.apply(Add(), scaled, build.weight("shift", channels, 1, 1))])
    levels = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    (value,) = run(build.graph, [levels], target)
    (wanted,) = interpret(build.graph, [levels], dtype=np.float64)
    np.testing.assert_allclose(value, wanted, rtol=3e-7, atol=3e-5)


FLOATS = [0.0, -0.4, 0.6, 1.5, 2.5, 254.7, 255.0, 256.0, -1.0, -300.0, 1e9, 3e18, -3e18, 1e30]
FLOATS += [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ["u8", "i64"])
def test_casts_to_integers(kind: str, target: Target) -> None:
    build = Builder()
    x = build.graph.add_input(f32(BATCH, 5, 19))
    build.graph.set_outputs([build.apply(ops.Cast(kind), x)])
    array = np.resize(np.array(FLOATS, np.float32), (2, 5, 19))
    (value,) = run(build.graph, [array], target)
    np.testing.assert_array_equal(value, ops.Cast(kind).evaluate(array))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("given_kind", ["u8", "i64"])
@pytest.mark.parametrize("kind", ["u8", "i64", "f32"])
def test_casts_of_integers(given_kind: str, kind: str, target: Target) -> None:
    """From the user's array as it is and in parts, also where numbers lie apart."""
    build = Builder()
    x = build.graph.add_input(TensorType(given_kind, (BATCH, 6, 35)))
    turned = build.apply(ops.Permute((0, 2, 1)), x)
    every = build.apply(ops.Slice(2, 1, 35, 3), x)
    build.graph.set_outputs([build.apply(ops.Cast(kind), v) for v in (x, turned, every)])
    numbers = np.random.default_rng(0).integers(-(2**40), 2**40, (3, 6, 35))
    array = numbers.astype(np.uint8 if given_kind == "u8" else np.int64)
    values = run(build.graph, [array], target)
    for value, wanted in zip(values, interpret(build.graph, [array]), strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_doubles_are_moved_but_not_computed_with() -> None:
    build = Builder()
    condition = build.input(6)
    x = build.graph.add_input(TensorType("f64", (BATCH, 6)))
    build.graph.set_outputs([build.apply(ops.Where(), condition, x, x)])
    with pytest.raises(UnsupportedError, match="where gives f64"):
        lower(build.graph, Schedule({}), TARGETS[0], 2)


def test_what_kernels_are_called() -> None:
    """Code depends on the body and on how operands lie, in readable words."""
    body = Body((), ((ops.Relu(), (0,)),))
    kernel = Elementwise(body, (Access(), Access("constant"), Access("every", "u8", 3)))
    assert str(kernel) == "elementwise(body=relu(y), accesses=(vector, constant, every3 u8))"


# -- batches --------------------------------------------------------------------------------------


def test_a_batch_in_parts() -> None:
    """Kernels may walk a batch otherwise than one image: results are the same, bit by bit."""
    build = Builder()
    x = build.conv(build.input(3, 9, 10), 24, bias=True)
    means = build.apply(ops.Mean((2, 3), keepdims=True), x)
    build.graph.set_outputs([build.apply(ops.Mish(), build.apply(Mul(), x, means))])
    graph, target = run_passes(build.graph), TARGETS[-1]
    inputs = random_inputs(graph, 3)
    choices = schedule(graph, target, 3)

    def outputs(arrays: list[np.ndarray]) -> np.ndarray:
        program = lower(graph, choices, target, len(arrays[0]))
        return Run(program, target).outputs(graph.payload, arrays)[0]

    parts = [outputs([a[i : i + 1] for a in inputs]) for i in range(3)]
    np.testing.assert_array_equal(outputs(inputs), np.concatenate(parts))
