"""Kernels over 8-bit tensors against the interpreter: the same bits at every level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, set_apart

from lucid.codegen.lowering import lower, lower_parts
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.ir import Graph, TensorType, Value, interpret, ops, verify
from lucid.ir.graph import Parameter
from lucid.ir.ops import Array, Fusion, Op
from lucid.ir.passes import run_passes
from lucid.ir.recipe import Source
from lucid.ir.text import parse_graph
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


# -- bytes that are moved -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EIGHT)
def test_bytes_are_turned_in_squares(dtype: str) -> None:
    for channels, height, width in ((8, 3, 5), (16, 4, 4), (33, 7, 7), (130, 5, 13), (3, 9, 20)):
        made = Making()
        x = made.input(dtype, channels, height, width)
        last = made.apply(ops.Permute((0, 2, 3, 1)), x)
        flat = made.apply(ops.Reshape((BATCH, channels * height * width)), last)
        least = np.iinfo(DTYPES[dtype]).min
        table = made.parameter(np.arange(256).astype(DTYPES[dtype]) + least, dtype)
        made.check(last, flat, made.apply(ops.Lookup(), flat, table))


# -- pools ----------------------------------------------------------------------------------------

CHANNELS = [1, 3, 8, 20, 37, 64, 130]
WINDOWS: list[dict[str, Any]] = [
    {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)},
    {"kernel": (2, 2), "stride": (2, 2)},
    {"kernel": (2, 3), "stride": (2, 1), "padding": (0, 1, 1, 0), "ceil_mode": True},
    {"kernel": (5, 7), "stride": (1, 1)},
    {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 0, 2, 1), "dilation": (2, 3)},
    {"kernel": (3, 3), "stride": (1, 1), "padding": (3, 3, 4, 3)},
]


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: "x".join(map(str, w["kernel"])))
def test_pools_of_integers(window: dict[str, Any], dtype: str) -> None:
    """Padding never wins, and adds nothing; some windows lie in it alone."""
    for channels in CHANNELS:
        made = Making()
        x = made.input(dtype, channels, 5, 7)
        sums = made.apply(ops.IntegerSumPool2d(**window, zero_point=99), x)
        made.check(made.apply(ops.MaxPool2d(**window), x), sums)


@pytest.mark.parametrize("dtype", EIGHT)
def test_adaptive_max_pool_of_integers(dtype: str) -> None:
    made = Making()
    x = made.input(dtype, 37, 5, 7)
    made.check(*(made.apply(ops.AdaptiveMaxPool2d(s), x) for s in ((1, 1), (2, 3), (6, 7))))


def requantised(anchor: Op, x: Value, dtype: str, *extras: Value) -> Fusion:
    """saturate(anchor(x) * extra + ...): what follows a sum of integers, in one kernel."""
    body = Graph("body")
    (kind,) = anchor.result_types(x.type)
    y, *others = (body.add_input(t) for t in (kind, *(e.type for e in extras)))
    y = body.append(ops.Cast("f32"), [y]).output
    for other in others:
        if other.type.dtype != "f32":
            other = body.append(ops.Cast("f32"), [other]).output
            y = body.append(ops.Add(), [y, other]).output
        else:
            y = body.append(ops.Mul(), [y, other]).output
    body.set_outputs([body.append(ops.Saturate(dtype, 3), [y]).output])
    return Fusion(anchor, body)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("anchor", [ops.IntegerSumPool2d, ops.MaxPool2d])
def test_pools_with_a_body(anchor: type[Op], channels: int) -> None:
    """A factor for each channel, one for each window (padding that does not count), a residual and
    a gate of bytes."""
    made, random = Making(), np.random.default_rng(channels)
    x = made.input("u8", channels, 5, 7)
    op = anchor((3, 3), (2, 2), (1, 1, 1, 1))
    by_channel = made.parameter(random.uniform(0, 0.1, (channels, 1, 1)).astype("f"), "f32")
    by_window = made.parameter(random.uniform(0, 1, (1, 1, 3, 4)).astype("f"), "f32")
    residual, gate = made.input("i8", channels, 3, 4), made.input("u8", channels, 1, 1)
    fusion = requantised(op, x, "i8", by_channel, residual, by_window, gate)
    made.check(made.apply(fusion, x, by_channel, residual, by_window, gate))


@pytest.mark.parametrize("channels", [4, 31, 32])
def test_splits_are_averaged_and_weighed_as_bytes(channels: int) -> None:
    """Slices of one image, read where they lie by each kernel."""
    c, half = 2 * channels, f"N,{channels}"
    graph = parse_graph(f"""graph g(%x: u8[N,{c},5,7], %g: f32[N,2,{channels},1,1])
      -> f32[{half},1,1], u8[{half},5,7] {{
        %s = constant() {{value=0.5}} : f32[]
        %z = constant() {{value=3, dtype="u8"}} : u8[]
        %d = dequantize(%x, %s, %z) : f32[N,{c},5,7]
        %r = reshape(%d) {{shape=(N,2,{channels},5,7)}} : f32[N,2,{channels},5,7]
        %t = sum(%r) {{axes=(1)}} : f32[{half},5,7]
        %m = mean(%t) {{axes=(2,3), keepdims=true}} : f32[{half},1,1]
        %p = mul(%r, %g) : f32[N,2,{channels},5,7]
        %u = sum(%p) {{axes=(1)}} : f32[{half},5,7]
        %y = quantize(%u, %s, %z) : u8[{half},5,7]
        return %m, %y
      }}""")
    fused = run_passes(graph)
    assert not fused.find(ops.Sum) + fused.find(ops.Mean)
    check(fused)


def test_pools_of_floats_end_in_bytes() -> None:
    made = Making()
    x = made.input("f32", 37, 5, 7)
    factor = made.parameter(np.float32(1.7), "f32")
    op = ops.MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1))
    made.check(made.apply(requantised(op, x, "u8", factor), x, factor))


# -- resizing, padding, gathering -----------------------------------------------------------------

RESIZES = [
    ops.Resize((10, 14)),
    ops.Resize((3, 9), coordinates="asymmetric", rounding="ceil"),
    ops.Resize((10, 14), "bilinear"),
    ops.Resize((3, 9), "bilinear", "align_corners"),
    ops.Resize((8, 6), "bilinear", scale=(1.7, 0.9)),
]


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("op", RESIZES, ids=lambda op: f"{op.mode}-{op.size}")
def test_resizes_of_integers(op: ops.Resize, dtype: str) -> None:
    """Blends are the same bits as the reference's, too."""
    for channels in CHANNELS:
        made = Making()
        x = made.input(dtype, channels, 5, 7)
        factor = made.parameter(np.float32(0.9), "f32")
        fusion = made.apply(requantised(op, x, "u8", factor), x, factor)
        made.check(made.apply(op, x), fusion)


@pytest.mark.parametrize("dtype", [*EIGHT, "i16", "u32", "i64"])
def test_borders_of_integers(dtype: str) -> None:
    pads = [((0, 0, 1, 2), (0, 0, 3, 1)), ((0, 2, 0, 0), (0, 0, 0, 1))]
    for channels in (1, 3, 20, 37, 66):
        made = Making()
        x = made.input(dtype, channels, 5, 7)
        first = made.apply(ops.Lookup(), x, _identity(made, dtype)) if dtype in EIGHT else x
        borders = [made.apply(ops.Pad(*p, value=99.0), v) for p in pads for v in (x, first)]
        mirrored = made.apply(ops.Pad(*pads[0], mode="reflect"), first)
        made.check(*borders, mirrored)


def _identity(made: Making, dtype: str) -> Parameter:
    least = np.iinfo(DTYPES[dtype]).min
    return made.parameter((np.arange(256) + least).astype(DTYPES[dtype]), dtype)


@pytest.mark.parametrize("dtype", EIGHT)
def test_bytes_are_gathered_joined_and_cut(dtype: str) -> None:
    """As of a ShuffleNet: channels split, shuffled, and joined again."""
    for channels in (4, 6, 40, 66, 232):
        made = Making()
        x = made.input(dtype, channels, 5, 7)
        copied = made.apply(ops.Lookup(), x, _identity(made, dtype))
        half = channels // 2
        order = np.random.default_rng(0).permutation(channels)
        indices = made.apply(ops.Constant(tuple(map(int, order)), "i64"))
        halves = [made.apply(ops.Slice(1, i, i + half, 1), copied) for i in (0, half)]
        joined = made.apply(ops.Concat(1), halves[1], halves[0], copied)
        pairs = made.apply(ops.Reshape((BATCH, 2, half, 5, 7)), copied)
        shuffled = made.apply(ops.Permute((0, 2, 1, 3, 4)), pairs)
        whole = made.apply(ops.Reshape((BATCH, channels, 5, 7)), shuffled)
        made.check(made.apply(ops.Gather(1), copied, indices), joined, whole)


@pytest.mark.parametrize("dtype", [*EIGHT, "f32", "i64"])
def test_few_planes_become_pixels(dtype: str) -> None:
    for channels, height, width in ((2, 4, 5), (3, 3, 5), (3, 7, 9), (4, 40, 61), (5, 8, 8)):
        made = Making()
        x = made.input(dtype, channels, height, width)
        last = made.apply(ops.Permute((0, 2, 3, 1)), x)
        flat = made.apply(ops.Reshape((BATCH, channels * height * width)), last)
        made.check(last, flat)
        check(made.graph, 0)


def test_channels_are_shuffled_in_one_copy() -> None:
    made = Making()
    x = made.input("u8", 5, 7, 60)
    pairs = made.apply(ops.Reshape((BATCH, 3, 20, 5, 7)), made.apply(ops.Permute((0, 3, 1, 2)), x))
    shuffled = made.apply(ops.Permute((0, 2, 1, 3, 4)), pairs)
    y = made.apply(ops.Reshape((BATCH, 60, 5, 7)), shuffled)
    made.check(made.apply(ops.MaxPool2d((2, 2), (1, 1)), y))
    program = lower(made.graph, Schedule({}), TARGETS[-1], 2)
    families = [call.kernel.family for call in program.calls()]
    assert families == ["interleave", "pool", "transpose"]  # the result as the user wants it
