"""Quantised layers after all passes: which fusions there are, and what they compute, to the bit.

Graphs are as ONNX files have them, a dequantize before each op and a quantize after it.
"""

import numpy as np
import pytest
from graph_builder import Builder
from strategies import random_inputs

from lucid.ir import TensorType, interpret
from lucid.ir.ops import (
    Add,
    AvgPool2d,
    Concat,
    Constant,
    Conv2d,
    Dequantize,
    Fusion,
    IntegerConv2d,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Quantize,
    Relu,
    Reshape,
    Sigmoid,
    Softmax,
    Sum,
)
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import BATCH, DTYPES

MIDDLE = {"u8": 131, "i8": -2}
"""What weights hold for 0, about."""


class Network(Builder):
    """A graph in which every tensor is quantised."""

    def quantised_input(self, dtype, *shape):
        return self.graph.add_input(TensorType(dtype, (BATCH, *shape)))

    def table(self, dtype, *shape, least=None, most=None):
        info = np.iinfo(DTYPES[dtype])
        least, most = (info.min if least is None else least), (info.max if most is None else most)
        name = self.next_origin("table")
        self.payload[name] = self.rng.integers(least, most, shape, DTYPES[dtype], endpoint=True)
        return self.graph.add_source(name, TensorType(dtype, shape))

    def scales(self, *shape, most=0.02):
        name = self.next_origin("scales")
        self.payload[name] = self.rng.uniform(most / 4, most, shape).astype(np.float32)
        return self.graph.add_source(name, TensorType("f32", shape))

    def numbers(self, scale, zero_point, dtype):
        scale = float(np.float32(scale))
        return self.apply(Constant(scale)), self.apply(Constant(zero_point, dtype))

    def dequantised(self, x, scale, zero_point):
        return self.apply(Dequantize(), x, *self.numbers(scale, zero_point, x.type.dtype))

    def quantised(self, x, scale, zero_point, dtype="u8"):
        return self.apply(Quantize(dtype), x, *self.numbers(scale, zero_point, dtype))

    def conv_of(self, x, out, per_channel=True, zero_points="", kernel=(3, 3), **fields):
        """A convolution of dequantised weights."""
        dtype = zero_points or "i8"
        op = Conv2d(**fields)
        weights = self.table(dtype, out, x.type.shape[1] // op.groups, *kernel)
        scale = self.scales(out) if per_channel else self.apply(Constant(0.0078125))
        operands = [weights, scale]
        if zero_points:
            shape = (out,) if per_channel else ()
            middle = MIDDLE[dtype]
            zeros = self.table(dtype, *shape, least=middle - 9, most=middle + 9)
            operands.append(zeros if per_channel else self.apply(Constant(middle, dtype)))
        weight = self.apply(Dequantize(), *operands)
        bias = self.weight(self.next_origin("bias"), out)
        return self.apply(op, x, weight, bias, origin=self.next_origin("conv"))


def fused(graph):
    after = run_passes(graph)
    assert parse_graph(print_graph(after)) == after
    return after


def names(graph):
    found = [
        node.op.anchor.name if isinstance(node.op, Fusion) else node.op.name for node in graph.nodes
    ]
    return [name for name in found if name != "constant"]


def assert_close(build, after, steps=1):
    """The graph computes what it did before, but for single steps where numbers are rounded."""
    inputs = random_inputs(build.graph, 3)
    for a, b in zip(interpret(build.graph, inputs), interpret(after, inputs), strict=True):
        assert a.dtype == b.dtype
        off = np.abs(a.astype(np.float64) - b)
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        else:
            assert off.max() <= steps
            assert (off > 0).mean() < 0.01
            assert len(np.unique(a)) > 20  # it is no constant that is compared


# -- a convolution by another formula, in float32 -------------------------------------------------


def sums(x, weight, zero_point, padding):
    """3x3, in integers, by the definition."""
    steps = x.astype(np.int64) - zero_point
    padded = np.pad(steps, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    rows, columns = padded.shape[2] - 2, padded.shape[3] - 2
    total = np.zeros((len(x), len(weight), rows, columns), np.int64)
    for i, j in np.ndindex(3, 3):
        window = padded[:, :, i : i + rows, j : j + columns]
        total += np.einsum("nchw,oc->nohw", window, weight[:, :, i, j].astype(np.int64))
    return total


def rounded(y, zero_point, dtype):
    assert y.dtype == np.float32
    info = np.iinfo(DTYPES[dtype])
    return np.clip(np.rint(y).astype(np.int64) + zero_point, info.min, info.max)


def single(number):
    """A vector of float64 as float32, along the channels; a number as float32."""
    number = np.asarray(number, np.float64).astype(np.float32)
    return number[:, None, None] if number.ndim else number


@pytest.mark.parametrize("dtype", ["u8", "i8"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("zero_points", ["", "u8", "i8"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("residual", ["", "sum", "quantised"])
def test_a_layer_is_one_fusion_and_computes_this(dtype, per_channel, zero_points, relu, residual):
    build = Network(seed=3)
    x = build.quantised_input(dtype, 6, 7, 8)
    step, own, beside, result = (0.0371, 5), (0.093, 17), (0.0517, -9), (0.0471, 3)
    y = build.conv_of(
        build.dequantised(x, *step), 5, per_channel, zero_points, padding=(1, 1, 1, 1)
    )
    if residual:
        other = build.quantised_input("i8", 5, 7, 8)
        if residual == "quantised":
            y = build.dequantised(build.quantised(y, *own, "u8"), *own)
        y = build.apply(Add(), y, build.dequantised(other, *beside))
    if relu:
        y = build.apply(Relu(), y)
    build.graph.set_outputs([build.quantised(y, *result, dtype)])
    after = fused(build.graph)
    (node,) = after.nodes
    assert isinstance(node.op, Fusion)
    assert isinstance(node.op.anchor, IntegerConv2d)
    assert node.op.anchor.zero_point == 5
    assert_close(build, after)

    tensors = build.payload
    weight = next(v for k, v in tensors.items() if v.ndim == 4).astype(np.int64)
    vectors = [v for v in tensors.values() if v.ndim == 1]
    scale = vectors[0].astype(np.float64) if per_channel else np.full(5, 0.0078125)
    if zero_points:
        zeros = vectors[1] if per_channel else np.full(5, MIDDLE[zero_points])
        weight = weight - zeros.astype(np.int64)[:, None, None, None]
    bias = vectors[-1].astype(np.float64)
    inputs = random_inputs(build.graph, 2)
    s_x, s_own, s_beside, s_y = (float(np.float32(s)) for s, _ in (step, own, beside, result))
    first = s_own if residual == "quantised" else s_y
    y = sums(inputs[0], weight, 5, 1).astype(np.float32)
    y = y * single(scale * s_x / first) + single(bias / first)
    if residual == "quantised":
        y = (rounded(y, 17, "u8") - 17).astype(np.float32) * single(s_own / s_y)
    if residual:
        y = y + (inputs[1].astype(np.float32) + np.float32(9)) * single(s_beside / s_y)
    if relu:
        y = np.maximum(y, np.float32(0))
    np.testing.assert_array_equal(interpret(after, inputs)[0], rounded(y, 3, dtype))


# -- whole blocks ---------------------------------------------------------------------------------


def test_a_block_with_a_shortcut_of_its_own():
    """Both branches are quantised before they are added: the later layer takes the sum, the earlier
    one writes 8 bits."""
    build = Network(seed=1)
    x = build.dequantised(build.quantised_input("u8", 6, 8, 8), 0.02, 0)
    a = build.quantised(build.conv_of(x, 4, kernel=(1, 1)), 0.06, 120)
    b = build.quantised(build.conv_of(x, 4, kernel=(1, 1)), 0.05, 110)
    y = build.apply(Add(), build.dequantised(a, 0.06, 120), build.dequantised(b, 0.05, 110))
    build.graph.set_outputs([build.quantised(build.apply(Relu(), y), 0.06, 0)])
    after = fused(build.graph)
    assert names(after) == ["integer_conv2d", "integer_conv2d"]
    assert [n.output.type.dtype for n in after.nodes] == ["u8", "u8"]
    assert_close(build, after)


def test_branches_of_other_scales_are_concatenated_as_bytes():
    build = Network(seed=2)
    x = build.quantised_input("u8", 6, 8, 8)
    d = build.dequantised(x, 0.02, 3)
    a = build.quantised(build.conv_of(d, 4, kernel=(1, 1)), 0.06, 120)
    pool = build.apply(MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)), d)
    parts = [build.dequantised(a, 0.06, 120), build.quantised(pool, 0.02, 3)]
    parts[1] = build.dequantised(parts[1], 0.02, 3)
    build.graph.set_outputs([build.quantised(build.apply(Concat(1), *parts), 0.06, 120)])
    after = fused(build.graph)
    assert names(after) == ["integer_conv2d", "max_pool2d", "lookup", "concat"]
    assert all(n.output.type.dtype == "u8" for n in after.nodes if n.op.name != "constant")
    assert_close(build, after)


def test_squeeze_and_excitation():
    build = Network(seed=4)
    x = build.quantised_input("u8", 6, 8, 8)
    d = build.dequantised(x, 0.02, 3)
    mean = build.quantised(build.apply(Mean((2, 3), keepdims=True), d), 0.02, 3)
    y = build.conv_of(build.dequantised(mean, 0.02, 3), 4, kernel=(1, 1))
    y = build.quantised(build.apply(Relu(), y), 0.03, 0)
    y = build.quantised(build.conv_of(build.dequantised(y, 0.03, 0), 6, kernel=(1, 1)), 0.1, 128)
    gate = build.quantised(build.apply(Sigmoid(), build.dequantised(y, 0.1, 128)), 1 / 255, 0)
    y = build.apply(Mul(), d, build.dequantised(gate, 1 / 255, 0))
    build.graph.set_outputs([build.quantised(y, 0.018, 3)])
    after = fused(build.graph)
    assert [n for n in names(after) if n != "cast"] == [
        *("integer_sum_pool2d", "integer_conv2d", "integer_conv2d", "lookup"),
    ]
    assert_close(build, after)


def test_split_attention():
    build = Network(seed=6)
    x = build.dequantised(build.quantised_input("u8", 8, 6, 6), 0.03, 2)
    splits = build.apply(Reshape((BATCH, 2, 4, 6, 6)), x)
    mean = build.apply(Mean((2, 3), keepdims=True), build.apply(Sum((1,)), splits))
    mean = build.dequantised(build.quantised(mean, 0.03, 0), 0.03, 0)
    y = build.quantised(build.apply(Relu(), build.conv_of(mean, 4, kernel=(1, 1))), 0.03, 0)
    y = build.conv_of(build.dequantised(y, 0.03, 0), 8, kernel=(1, 1))
    gate = build.apply(Softmax(1), build.apply(Reshape((BATCH, 2, 1, 4)), y))
    weighed = build.apply(Mul(), splits, build.apply(Reshape((BATCH, 2, 4, 1, 1)), gate))
    build.graph.set_outputs([build.quantised(build.apply(Sum((1,)), weighed), 0.03, 3)])
    after = fused(build.graph)
    views = ("reshape", "slice")
    assert [n for n in names(after) if n not in views] == [
        *("integer_sum_pool2d", "integer_sum_pool2d", "integer_conv2d", "integer_conv2d"),
        *("softmax", "cast"),
    ]
    images = [n.output.type for n in after.nodes if n.output.type.shape[2:] == (6, 6)]
    assert {t.dtype for t in images} == {"u8"}
    assert_close(build, after)


def test_a_classifier_ends_in_floats():
    build = Network(seed=5)
    x = build.dequantised(build.quantised_input("i8", 6, 8, 8), 0.02, -128)
    pool = build.apply(AvgPool2d((2, 2), (2, 2)), x)
    pool = build.dequantised(build.quantised(pool, 0.0193, -128, "i8"), 0.0193, -128)
    flat = build.apply(Reshape((BATCH, 96)), pool)
    weight = build.apply(Dequantize(), build.table("i8", 10, 96), build.scales(10))
    y = build.apply(Linear(), flat, weight, build.weight("bias", 10), origin="fc")
    build.graph.set_outputs([y])
    after = fused(build.graph)
    assert names(after) == ["integer_sum_pool2d", "reshape", "integer_linear"]
    assert after.outputs[0].type.dtype == "f32"
    assert_close(build, after)


def test_a_layer_that_two_quantise_in_other_scales_is_computed_once():
    build = Network(seed=6)
    x = build.dequantised(build.quantised_input("u8", 6, 8, 8), 0.02, 3)
    y = build.conv_of(x, 4, kernel=(1, 1))
    build.graph.set_outputs([build.quantised(y, 0.06, 120), build.quantised(y, 0.05, 4)])
    after = fused(build.graph)
    assert names(after) == ["integer_conv2d", "div", "div"]
    assert_close(build, after)


def test_a_batch_norm_between_layer_and_quantize_joins_weights():
    build = Network(seed=7)
    x = build.dequantised(build.quantised_input("u8", 6, 8, 8), 0.02, 3)
    y = build.batch_norm(build.conv_of(x, 4, kernel=(1, 1)))
    build.graph.set_outputs([build.quantised(build.apply(Relu(), y), 0.06, 0)])
    after = fused(build.graph)
    assert names(after) == ["integer_conv2d"]
    assert_close(build, after)


def test_the_input_is_quantised_by_a_division():
    build = Network(seed=8)
    x = build.quantised(build.input(6, 8, 8), 0.02, 128)
    y = build.conv_of(build.dequantised(x, 0.02, 128), 4, kernel=(1, 1))
    build.graph.set_outputs([build.quantised(y, 0.06, 120)])
    after = fused(build.graph)
    assert names(after) == ["div", "integer_conv2d"]
    assert_close(build, after)


@pytest.mark.parametrize("scale", [0.0, -0.02, np.nan, np.inf, 1e-40, 1e35])
@pytest.mark.parametrize("where", ["before", "after"])
def test_layers_between_scales_that_are_none_compute_what_the_file_says(scale, where):
    build = Network(seed=9)
    x = build.quantised_input("u8", 3, 5, 5)
    before, after = (scale, 0.06) if where == "before" else (0.02, scale)
    y = build.conv_of(build.dequantised(x, before, 3), 4, kernel=(1, 1))
    build.graph.set_outputs([build.quantised(y, after, 120)])
    inputs = random_inputs(build.graph, 2)
    with np.errstate(all="ignore"):
        (wanted,), (given,) = (interpret(g, inputs) for g in (build.graph, fused(build.graph)))
    np.testing.assert_array_equal(given, wanted)
