"""Operators of ONNX Runtime's own domain, which NumPy runs: against ONNX Runtime."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lucid
from lucid.errors import HostOpsWarning, ModelFileError, UnsupportedError
from lucid.onnx.host import rational

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper

ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

NEAR = {"rtol": 1e-6, "atol": 1e-6}
"""A step of f32 or two: integers add up exactly, and sigmoid and tanh are a few steps off."""


def file(operator, x, constants, outputs, **attributes):
    """A model of one operator. `constants`: operands behind x, None for those left out."""
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    tensors = [numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True) if n]
    node = helper.make_node(
        operator, ["x", *names], outputs.split(), domain="com.microsoft", **attributes
    )
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    given = helper.make_tensor_value_info("x", element, x.shape)
    given_back = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs.split()
    ]
    graph = helper.make_graph([node], "net", [given], given_back, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def compare(proto, x):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HostOpsWarning)
        results = lucid.compile(proto, threads=1)(x)
    results = results if isinstance(results, tuple) else (results,)
    for value, right in zip(results, session.run(None, {"x": x}), strict=True):
        assert (value.dtype, value.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(value, right, **NEAR)


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(seed, kind, *shape):
    """u8; i8 of seven bits: where ONNX Runtime multiplies without VNNI, sums of two products of u8
    and i8 saturate at 16 bits."""
    least, end = (0, 256) if kind == np.uint8 else (-64, 64)
    return np.random.default_rng(seed).integers(least, end, shape).astype(kind)


# -- LSTM ---------------------------------------------------------------------------------------


def layer(x, directions, hidden, kind=np.uint8, given="B", columns=False, **attributes):
    """`given`: B, lengths (L), first states (S) and peepholes (P). `columns`: a scale for each."""
    batch, depth = x.shape[1:]
    shape = (directions, 4 * hidden) if columns else (directions,)
    zero = np.zeros(shape, kind) if columns else weights(5, kind, *shape)
    scales = [
        np.abs(numbers(seed, *shape)) * np.float32(0.01) + np.float32(0.001) for seed in (6, 7)
    ]
    state = directions, batch, hidden
    constants = [
        weights(1, kind, directions, depth, 4 * hidden),
        weights(2, kind, directions, hidden, 4 * hidden),
        numbers(3, directions, 8 * hidden) if "B" in given else None,
        np.array([len(x) - i % len(x) for i in range(batch)], np.int32) if "L" in given else None,
        numbers(4, *state) if "S" in given else None,
        numbers(5, *state) if "S" in given else None,
        numbers(6, directions, 3 * hidden) if "P" in given else None,
        scales[0],
        zero,
        scales[1],
        zero,
    ]
    attributes["hidden_size"] = hidden
    return file("DynamicQuantizeLSTM", x, constants, "y h c", **attributes)


@pytest.mark.parametrize(
    ("shape", "hidden", "options"),
    {
        "forward": ((7, 1, 5), 8, {}),
        "no bias": ((3, 2, 4), 6, {"given": ""}),
        "backward": ((5, 3, 9), 16, {"direction": "reverse"}),
        "both": ((6, 4, 7), 12, {"direction": "bidirectional"}),
        "lengths": ((6, 4, 7), 12, {"direction": "bidirectional", "given": "BL"}),
        "states, peepholes": ((4, 3, 7), 5, {"given": "BSP"}),
        "signed, columns": ((4, 2, 7), 5, {"kind": np.int8, "columns": True, "given": "BLS"}),
        "clipped, coupled": ((4, 2, 7), 5, {"clip": 0.5, "input_forget": 1}),
        "named": ((4, 1, 3), 4, {"activations": ["Sigmoid", "Tanh", "Tanh"]}),
    }.values(),
)
def test_lstm(shape, hidden, options):
    x = numbers(0, *shape)
    directions = 2 if options.get("direction") == "bidirectional" else 1
    compare(layer(x, directions, hidden, **options), x)


def test_an_lstm_of_zeros():
    """Whose scale is 1."""
    x = np.zeros((3, 2, 4), np.float32)
    compare(layer(x, 1, 5), x)


def test_refusals():
    x = numbers(0, 3, 1, 4)
    with pytest.raises(UnsupportedError, match=r"activations Relu, Tanh, Tanh"):
        lucid.compile(layer(x, 1, 5, activations=["Relu", "Tanh", "Tanh"]))
    constants = [weights(1, np.uint8, 4, 5), np.float32(0.1)]
    model = file("DynamicQuantizeMatMul", numbers(0, 3, 4), constants, "y", alpha=1.0)
    with pytest.raises(UnsupportedError, match=r"DynamicQuantizeMatMul x1 \(with alpha\)"):
        lucid.compile(model)
    model = layer(x, 2, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HostOpsWarning)
        compiled = lucid.compile(model)
    with pytest.raises(ModelFileError, match=r"weights for 2 directions, and is forward"):
        compiled(x)


# -- products -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_products(kind, columns, lead):
    x = numbers(0, *lead, 5, 12)
    b = weights(1, kind, 12, 7)
    scale = np.abs(numbers(2, 7)) if columns else np.array([0.02], np.float32)
    zero = weights(3, kind, *scale.shape)
    compare(file("DynamicQuantizeMatMul", x, [b, scale, zero, numbers(4, 7)], "y"), x)
    compare(file("DynamicQuantizeMatMul", x, [b, scale], "y"), x)
    a = weights(5, np.uint8, *lead, 5, 12)
    own = np.float32(0.03), weights(6, np.uint8)
    constants = [b, own[0].reshape(()), scale, own[1].reshape(()), zero, numbers(4, 7)]
    compare(file("MatMulIntegerToFloat", a, constants, "y"), a)
    compare(file("MatMulIntegerToFloat", a, constants[:3], "y"), a)


# -- sigmoid ------------------------------------------------------------------------------------


def quantising(x):
    """A sigmoid that is quantised when the model runs, and one behind that."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["y"]),
        helper.make_node("DynamicQuantizeLinear", ["y"], ["q", "scale", "zero"]),
        helper.make_node("Sigmoid", ["scale"], ["behind"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    types = {"y": TensorProto.FLOAT, "q": TensorProto.UINT8, "behind": TensorProto.FLOAT}
    outputs = [helper.make_tensor_value_info(n, t, None) for n, t in types.items()]
    graph = helper.make_graph(nodes, "net", [given], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_is_quantised_when_the_model_runs_has_the_bits_of_onnx_runtime():
    """Whose kernels have the same polynomials on all machines with FMA."""
    x = numbers(0, 50, 40) * np.float32(5)
    model = quantising(x)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HostOpsWarning)
        compiled = lucid.compile(model, threads=1)
        results = compiled(x)
    wanted = session.run(None, {"x": x})
    for value, right in zip(results[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(value, right)
    assert "Sigmoid" in [op.op for op in compiled.host_ops]
    np.testing.assert_allclose(rational.tanh(x), np.tanh(x), rtol=4e-7, atol=1e-7)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(rational.logistic(x), exact, rtol=4e-7, atol=2e-7)


def test_other_sigmoids_are_native():
    x = numbers(0, 3, 4)
    node = helper.make_node("Sigmoid", ["x"], ["y"])
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape)] for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "net", *infos))
    assert lucid.compile(model, threads=1).host_ops == ()
