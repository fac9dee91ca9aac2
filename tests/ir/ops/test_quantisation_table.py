"""What quantize and dequantize make of ties, NaN, infinities and what saturates: ONNX Runtime's
results, kept as data, in the interpreter and compiled."""

import numpy as np
import pytest
from data.quantisation import read

import lucid
from lucid.ir import Graph, TensorType
from lucid.ir.ops import Constant, Dequantize, Quantize, Saturate

ROWS = read()
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


@pytest.mark.parametrize("row", ROWS, ids=map(str, ROWS))
def test_the_references_have_onnx_runtimes_results(row):
    y = op_of(row).evaluate(row.x, row.scale, row.zero_point)
    assert y.dtype == row.result.dtype
    np.testing.assert_array_equal(y, row.result)


@pytest.mark.parametrize("row", ROWS, ids=map(str, ROWS))
def test_compiled_code_has_onnx_runtimes_results(row):
    np.testing.assert_array_equal(compiled(op_of(row), row, row.scale, row.zero_point), row.result)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.x.dtype == np.float32 and r.scale == 1], ids=str
)
def test_a_saturate_is_a_quantize_by_1(row):
    op = Saturate(NAMES[row.zero_point.dtype.name], row.zero_point.item())
    np.testing.assert_array_equal(op.evaluate(row.x), row.result)
    np.testing.assert_array_equal(compiled(op, row), row.result)


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
