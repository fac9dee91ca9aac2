"""Operators of quantised tensors, and those of dynamic quantisation: against ONNX Runtime, as files
of its quantiser have them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from data.quantisation import model as row_model
from data.quantisation import products

import lucid
from lucid.errors import HostOpsWarning, ModelFileError, UnsupportedError
from lucid.frontend.onnx import import_onnx
from lucid.ir import interpret, verify

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import helper, numpy_helper

ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

RNG = np.random.default_rng(0)
F32, U8, I8 = np.float32, np.uint8, np.int8
OURS = "com.microsoft"
TIES = products()[::4]


def numbers(kind, *shape):
    """u8; i8 of seven bits: where ONNX Runtime multiplies without VNNI, sums of two products of u8
    and i8 saturate at 16 bits."""
    least, end = (0, 256) if kind == U8 else (-64, 64)
    return RNG.integers(least, end, shape).astype(kind)


def scales(*shape):
    return RNG.uniform(0.01, 0.05, shape).astype(F32)


def model(kind, operands, results="y", **attributes):
    """One operator. Operands: None left out, a tuple (name, array) an input, an array stored."""
    inputs, tensors, names = [], [], []
    for i, operand in enumerate(operands):
        if operand is None:
            names.append("")
        elif isinstance(operand, tuple):
            name, array = operand
            element = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(name, element, array.shape))
            names.append(name)
        else:
            tensors.append(numpy_helper.from_array(np.asarray(operand), f"c{i}"))
            names.append(f"c{i}")
    domain = OURS if kind.startswith("Q") and kind not in ("QLinearConv", "QLinearMatMul") else ""
    node = helper.make_node(kind, names, results.split(), "stem/q", domain=domain, **attributes)
    given = [helper.make_empty_tensor_value_info(name) for name in results.split()]
    graph = helper.make_graph([node], "net", inputs, given, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(OURS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def wanted(proto, given):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, given)


def check(kind, operands, results="y", steps=0, **attributes):
    """The interpreter and compiled code, of graphs as they are read. `steps`: how far they may be
    apart where ONNX Runtime adds up in another order."""
    proto = model(kind, operands, results, **attributes)
    given = {o[0]: o[1] for o in operands if isinstance(o, tuple)}
    right = wanted(proto, given)
    graph = import_onnx(proto)
    verify(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HostOpsWarning)
        compiled = lucid.compile(proto, threads=1)(*given.values())
    compiled = compiled if isinstance(compiled, tuple) else (compiled,)
    for found in (interpret(graph, list(given.values())), compiled):
        for y, its in zip(found, right, strict=True):
            assert (y.dtype, y.shape) == (its.dtype, its.shape)
            assert np.abs(y.astype(np.float64) - its).max() <= steps
    return graph


def zero(kind):
    return kind(100) if kind == U8 else kind(-9)


# -- convolutions ---------------------------------------------------------------------------------

WINDOWS = {
    "padded": {"pads": [1, 0, 1, 2]},
    "dilated": {"dilations": [1, 2]},
    "as large as before": {"strides": [2, 1], "auto_pad": "SAME_UPPER"},
    "grouped": {"group": 2, "kernel_shape": [3, 3]},
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize(
    ("kind", "weight", "channels"), [(U8, I8, True), (U8, U8, False), (I8, I8, True)]
)
def test_convolutions(kind, weight, channels, window):
    groups = window.get("group", 1)
    x = numbers(kind, 1, 4, 7, 6)
    w = numbers(weight, 6, 4 // groups, 3, 3)
    scale = scales(6) if channels else F32(0.02)
    w_zero = np.zeros(6, weight) if channels else zero(weight)
    bias = RNG.integers(-5000, 5000, 6).astype(np.int32)
    step = F32(0.01), zero(kind)
    operands = [("x", x), *step, w, scale, w_zero, F32(0.3), zero(kind), bias]
    graph = check("QLinearConv", operands, **window)
    assert [n.op.name for n in graph.nodes if n.op.name != "constant"] == [
        "integer_conv2d",
        "cast",
        "mul",
        "saturate",
    ]
    check("QLinearConv", operands[:8], **window)


@pytest.mark.parametrize("row", TIES, ids=str)
def test_convolutions_whose_sums_are_ties(row):
    """The table has them all (`tests/ir/ops/test_quantisation_table.py`), as graphs."""
    proto = row_model("QLinearConv", **row.operands)
    np.testing.assert_array_equal(lucid.compile(proto, threads=1)(row.x), row.result)


def test_convolutions_over_lines():
    x, w = numbers(U8, 2, 4, 9), numbers(I8, 3, 4, 3)
    check(
        "QLinearConv",
        [("x", x), F32(0.01), U8(9), w, F32(0.02), I8(0), F32(0.1), U8(128)],
        pads=[2, 1],
        strides=[2],
    )


def test_weights_of_u8_are_held_as_i8_where_they_fit():
    x, w = numbers(U8, 1, 4, 5, 5), numbers(U8, 3, 4, 1, 1)
    graphs = [
        check("ConvInteger", [("x", x), w, U8(3), U8(point)]).parameters for point in (128, 5, 0)
    ]
    assert [p.type.dtype for g in graphs for p in g.values()] == ["i8", "i16", "i16"]


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 0, 1]])
def test_integer_convolutions_with_a_zero_point_that_the_model_computes(pads):
    operands = [("x", numbers(U8, 1, 4, 6, 5)), numbers(U8, 3, 4, 3, 3), ("z", np.array(U8(77)))]
    check("ConvInteger", [*operands, U8(100)], pads=pads)


# -- matrix products ------------------------------------------------------------------------------


def point(kind, computed):
    return ("z", np.array(zero(kind))) if computed else zero(kind)


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize(("left", "right"), [(U8, U8), (U8, I8), (I8, I8)])
def test_integer_products(left, right, computed):
    x, w = numbers(left, 2, 3, 5), numbers(right, 5, 4)
    columns = numbers(right, 4)
    check("MatMulInteger", [("x", x), w, point(left, computed), zero(right)])
    check("MatMulInteger", [("x", x), w, point(left, computed), columns])
    check("MatMulInteger", [("x", x), w, point(left, computed)])
    check("MatMulInteger", [("x", x), w])
    check("MatMulInteger", [("x", x), ("w", w), point(left, computed), zero(right)])
    check("MatMulInteger", [("x", x), ("w", w), zero(left), ("v", np.array(zero(right)))])
    check("MatMulInteger", [("x", x), ("w", w), point(left, computed), ("v", columns)])


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("kind", [U8, I8])
def test_quantised_products(kind, computed):
    x, w = numbers(kind, 3, 6), numbers(I8, 6, 4)
    left = [("x", x), F32(0.02), point(kind, computed)]
    result = [F32(0.1), zero(kind)]
    for weight in (w, ("w", w)):
        check("QLinearMatMul", [*left, weight, F32(0.03), I8(3), *result])
        check("QLinearMatMul", [*left, weight, scales(4), np.zeros(4, I8), *result])


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(transposed):
    x, w = numbers(U8, 3, 6), numbers(I8, *((4, 6) if transposed else (6, 4)))
    bias = RNG.integers(-900, 900, 4).astype(np.int32)
    operands = [("x", x), F32(0.02), U8(7), w, scales(4), np.zeros(4, I8), bias]
    check("QGemm", [*operands, F32(0.1), U8(9)], transB=int(transposed))
    check("QGemm", operands, transB=int(transposed), alpha=0.5, steps=1e-4)
    check("QGemm", [*operands[:6], None, F32(0.1), U8(9)], transB=int(transposed))


# -- layers of floats -----------------------------------------------------------------------------


def tensor(name, kind, *shape):
    return [(name, numbers(kind, *shape)), F32(0.02), zero(kind)]


@pytest.mark.parametrize("kind", [U8, I8])
def test_arithmetic(kind):
    result = [F32(0.05), zero(kind)]
    a, b = tensor("a", kind, 2, 3, 4), tensor("b", kind, 3, 1)
    b[1] = F32(0.07)
    check("QLinearAdd", [*a, *b, *result], steps=1)
    check("QLinearMul", [*a, *b, *result], steps=1)
    stored = [numbers(kind, 4), F32(0.03), zero(kind)]
    check("QLinearAdd", [*a, *stored, *result], steps=1)


@pytest.mark.parametrize("kind", [U8, I8])
def test_layers(kind):
    x, result = tensor("x", kind, 2, 3, 6, 5), [F32(0.015), zero(kind)]
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]}
    check("QLinearSigmoid", [*x, F32(1 / 256), kind(0)], steps=1)
    check("QLinearLeakyRelu", [*x, *result], alpha=0.2)
    check("QLinearGlobalAveragePool", [*x, *result], steps=1)
    check("QLinearAveragePool", [*x, *result], steps=1, **window)
    check("QLinearAveragePool", [*x, *result], steps=1, count_include_pad=1, **window)
    check("QLinearSoftmax", [*x, F32(1 / 256), kind(0)], steps=1, axis=-1, opset=13)


@pytest.mark.parametrize("kind", [U8, I8])
def test_concat(kind):
    a, b = tensor("a", kind, 2, 3, 4), tensor("b", kind, 2, 2, 4)
    b[1] = F32(0.07)
    check("QLinearConcat", [F32(0.05), zero(kind), *a, *b], axis=-2)


def test_where():
    a, b = tensor("a", U8, 3, 4), tensor("b", U8, 3, 4)
    condition = ("c", RNG.integers(0, 2, (3, 4)).astype(bool))
    check("QLinearWhere", [condition, *a, *b, F32(0.05), U8(3)], steps=1)


# -- dynamic --------------------------------------------------------------------------------------

EXTREMES = {
    "any": RNG.normal(size=(3, 4)).astype(F32),
    "above 0": RNG.uniform(3, 4, (3, 4)).astype(F32),
    "below 0": -RNG.uniform(3, 4, (2, 3)).astype(F32),
    "zeros": np.zeros((2, 2), F32),
    "a tie": np.array([0, 0.5, 1.5, 2.5, 255], F32),
}


@pytest.mark.parametrize("x", EXTREMES.values(), ids=EXTREMES)
def test_scales_chosen_when_the_model_runs(x):
    check("DynamicQuantizeLinear", [("x", x)], "y s z")


# -- bad input ------------------------------------------------------------------------------------


def test_bad_operands_name_the_node():
    x, w = numbers(U8, 1, 4, 5, 5), numbers(I8, 3, 4, 1, 1)
    step = F32(0.1), U8(3)

    def refused(kind, operands, message, **attributes):
        with pytest.raises(ModelFileError, match=f"{kind} 'stem/q' .*{message}"):
            import_onnx(model(kind, operands, **attributes))

    conv = [("x", x), *step, w, F32(0.1), I8(0)]
    refused("QLinearConv", [*conv, F32(0), U8(3)], "has the scale 0")
    refused("QLinearConv", [*conv, F32(np.nan), U8(3)], "has the scale nan")
    refused("QLinearConv", [*conv, None, U8(3)], "operand 6 is missing")
    refused("QLinearConv", [*conv, *step], "kernel_shape", kernel_shape=[3, 3])
    for wrong in (np.arange(2), np.zeros(2), np.zeros(0), np.zeros((3, 1))):
        zeros = [("x", x), *step, w, scales(3), wrong.astype(I8), *step]
        refused("QLinearConv", zeros, "zero points")
    one = [("x", x), F32(0.1), np.zeros(2, U8), w[:1], F32(0.1), I8(0), *step]
    refused("QLinearConv", one, "zero points")
    several = [("x", x), *step, w[:1], scales(3), np.zeros(3, I8), *step]
    refused("QLinearConv", several, "zero points")
    row = [("x", numbers(U8, 1, 5)), numbers(I8, 5, 4)]
    refused("MatMulInteger", [*row, np.zeros(3, U8)], "zero points")
    refused("MatMulInteger", [*row, ("z", np.zeros(3, U8))], "zero points")
    refused("MatMulInteger", [*row, U8(0), np.zeros(3, I8)], "zero points")
    add = [("x", x), scales(4), U8(1), ("z", x), *step, *step]
    refused("QLinearAdd", add, "one of a whole tensor")
    refused("QLinearConcat", [*step], "joins nothing", axis=1)


def test_what_is_not_read_is_said():
    x = [("x", numbers(U8, 1, 5, 5, 4)), F32(0.1), U8(3), F32(0.1), U8(3)]
    with pytest.raises(UnsupportedError, match="with channels last"):
        import_onnx(model("QLinearGlobalAveragePool", x, channels_last=1))
