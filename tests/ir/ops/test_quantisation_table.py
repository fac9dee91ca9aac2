"""What quantize and dequantize make of ties, NaN, infinities and what saturates, and products of
what are ties: ONNX Runtime's results, kept as data, in the interpreter and compiled."""

import numpy as np
import pytest
from data.quantisation import LEAST, products, read, versions

import lucid
from lucid.ir import Graph, TensorType, interpret
from lucid.ir.ops import Cast, Constant, Dequantize, IntegerConv2d, Mul, Quantize, Saturate

ROWS = read()
NORMAL = [row for row in ROWS if row.scale >= LEAST]
"""Compiled code takes denormal numbers for 0; files that divide by one are refused."""
PRODUCTS = products()
NAMES = {"float32": "f32", "uint8": "u8", "int8": "i8", "uint16": "u16", "int16": "i16"}


def op_of(row):
    return Quantize(NAMES[row.zero_point.dtype.name]) if row.x.dtype == np.float32 else Dequantize()


def compiled(op, row, *operands):
    """The op on the row, with the scale and the zero point as constants."""
    graph = Graph("row")
    x = graph.add_input(TensorType(NAMES[row.x.dtype.name], row.x.shape))
    constants = [graph.append(Constant(o.item(), NAMES[o.dtype.name]), []).output for o in operands]
    graph.set_outputs([graph.append(op, [x, *constants]).output])
    return lucid.compile(graph)(row.x)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("row", ROWS, ids=map(str, ROWS))
def test_the_references_have_onnx_runtimes_results(row):
    y = op_of(row).evaluate(row.x, row.scale, row.zero_point)
    assert y.dtype == row.result.dtype
    np.testing.assert_array_equal(y, row.result)


@pytest.mark.parametrize("row", NORMAL, ids=map(str, NORMAL))
def test_compiled_code_has_onnx_runtimes_results(row):
    np.testing.assert_array_equal(compiled(op_of(row), row, row.scale, row.zero_point), row.result)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.x.dtype == np.float32 and r.scale == 1], ids=str
)
def test_a_saturate_is_a_quantize_by_1(row):
    op = Saturate(NAMES[row.zero_point.dtype.name], row.zero_point.item())
    np.testing.assert_array_equal(op.evaluate(row.x), row.result)
    np.testing.assert_array_equal(compiled(op, row), row.result)


def test_the_table_says_whose_results_it_has():
    assert set(versions()) == {"onnx", "onnxruntime"}


def test_onnx_differs_only_where_int32_ends():
    for row in ROWS:
        with np.errstate(all="ignore"):
            steps = np.abs(row.x.astype(np.float64) / row.scale)
        other = row.result != row.reference
        assert not (other & (steps < 2**31 - 2**16)).any() or row.x.dtype != np.float32
        assert row.x.dtype == np.float32 or not other.any()


def test_quotients_are_of_f32_wherever_they_are_computed():
    """0.3 / 0.2 is the tie 1.5 in f32, and less in f64."""
    x, scale = np.float32(0.3), np.float32(0.2)
    assert np.float64(x) / np.float64(scale) != x / scale
    for floating in (np.float32, np.float64):
        y = Quantize().evaluate(np.array([x], floating), np.array(scale, floating))
        np.testing.assert_array_equal(y, [2])


# -- products -------------------------------------------------------------------------------------


def product_graph(row):
    """A QLinearConv as it is read: sums, one f32 for each channel, saturation."""
    channels = len(row.weight)
    multiplier = (row.x_scale * row.scale / row.y_scale).reshape(1, channels, 1, 1)
    weight = (row.weight.astype(np.int16) - row.zero).astype(np.int8)
    graph = Graph("product", {})
    x = graph.add_input(TensorType(NAMES[row.x.dtype.name], row.x.shape))
    parameters = []
    for name, array in {"weight": weight, "bias": row.bias, "multiplier": multiplier}.items():
        kind = {"int8": "i8", "int32": "i32", "float32": "f32"}[array.dtype.name]
        graph.payload[name] = array
        parameters.append(graph.add_source(name, TensorType(kind, array.shape)))
    op = IntegerConv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, row.x_zero.item())
    sums = graph.append(Cast("f32"), [graph.append(op, [x, *parameters[:2]]).output]).output
    y = graph.append(Mul(), [sums, parameters[2]]).output
    kind = NAMES[row.y_zero.dtype.name]
    graph.set_outputs([graph.append(Saturate(kind, row.y_zero.item()), [y]).output])
    return graph


@pytest.mark.parametrize("row", PRODUCTS, ids=map(str, PRODUCTS))
def test_products_have_onnx_runtimes_results(row):
    graph = product_graph(row)
    np.testing.assert_array_equal(interpret(graph, [row.x])[0], row.result)
    np.testing.assert_array_equal(lucid.compile(graph, threads=1)(row.x), row.result)


def test_products_of_onnx_differ_by_one_and_at_ties_alone():
    different = 0
    for row in PRODUCTS:
        steps = row.x.astype(np.int64) - row.x_zero
        weight = row.weight.reshape(-1, 1, 1).astype(np.int64) - row.zero
        sums = (steps * weight + row.bias.reshape(-1, 1, 1)).astype(np.float64)
        scale = row.scale.astype(np.float64).reshape(-1, 1, 1)
        exact = sums * (row.x_scale.astype(np.float64) * scale / row.y_scale)
        other = row.result != row.reference
        assert (np.abs(np.abs(exact % 1 - 0.5))[other] < 1e-4).all()
        assert (np.abs(row.result.astype(int) - row.reference)[other] == 1).all()
        different += other.sum()
    assert different
