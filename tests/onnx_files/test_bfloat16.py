"""Attention in bfloat16, against the reference of the package onnx, which rounds what each operator
gives."""

from __future__ import annotations

import numpy as np
import pytest

import lucid
from lucid.ir import interpret

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import node

from lucid.frontend.onnx import import_onnx

ml_dtypes = pytest.importorskip("ml_dtypes", reason="the package ml_dtypes is not installed")

BFLOAT16 = TensorProto.BFLOAT16


def numbers(seed, *shape):
    return np.random.default_rng(seed).random(shape, np.float32).astype(ml_dtypes.bfloat16)


def file(nodes, arrays, constants=()):
    tensors = [numpy_helper.from_array(a, n) for n, a in dict(constants).items()]
    inputs = [helper.make_tensor_value_info(n, BFLOAT16, a.shape) for n, a in arrays.items()]
    outputs = [helper.make_tensor_value_info("y", BFLOAT16, None)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])


def exact(array):
    return array.astype(np.float64)


@pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(4, 6, 1), (3, 8, 0), (5, 2, 1), (1, 1, 0)]
)
def test_attention(queries, keys, causal):
    arrays = {
        "q": numbers(0, 2, 3, queries, 8),
        "k": numbers(1, 2, 3, keys, 8),
        "v": numbers(2, 2, 3, keys, 8),
    }
    model = file([node("Attention", "q k v", is_causal=causal)], arrays)
    (right,) = ReferenceEvaluator(model).run(None, arrays)
    compiled = lucid.compile(model, threads=1)
    np.testing.assert_array_equal(compiled(*arrays.values()), right)
    assert not compiled.host_ops


def test_long_rows_stay_in_float32():
    """Where partial sums in bfloat16 are far off."""
    x = numbers(0, 2, 1000)
    model = file([node("Softmax", "x")], {"x": x})
    powers = np.exp(exact(x))
    right = powers / powers.sum(1, keepdims=True)
    result = lucid.compile(model, threads=1)(x)
    np.testing.assert_allclose(exact(result), right, rtol=2**-8)
    (other,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert abs(exact(other) / right - 1).max() > 1


def test_layers_stay_in_float32():
    model = file(
        [node("MatMul", "x w", "a"), node("Relu", "a")],
        {"x": numbers(0, 3, 4)},
        {"w": numbers(1, 4, 5)},
    )
    assert [n.op.name for n in import_onnx(model).nodes].count("cast") == 2


def test_known_numbers_are_rounded():
    """As those that a file holds in this type are."""
    nodes = [
        node("Cast", "c", "d", to=BFLOAT16),
        node("Mul", "x d", "a"),
        node("Cast", "a", to=TensorProto.FLOAT),
    ]
    x = np.array([3.0], ml_dtypes.bfloat16)
    model = file(nodes, {"x": x}, {"c": np.float32(0.5946)})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    (y,) = interpret(import_onnx(model), [x.astype(np.float32)])
    assert y == np.float32(3 * 0.59375)
