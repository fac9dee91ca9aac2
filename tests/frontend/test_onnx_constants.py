"""Weights that a file computes of constants serve as those that it stores, in compiled models."""

import numpy as np
import pytest

import lucid

pytest.importorskip("onnx", reason="the package onnx is not installed")
import onnx
from onnx_models import array, model, node

X = array(2, 4, 6, 5)
TWO = onnx.numpy_helper.from_array(np.array([2], np.float32))


def constant(name, elements, dtype=np.float32):
    tensor = onnx.numpy_helper.from_array(np.asarray(elements, dtype))
    return onnx.helper.make_node("Constant", [], [name], value=tensor)


def sizes(*numbers):
    """A constant `n`."""
    return constant("n", numbers, np.int64)


FILTER, KERNEL = array(1, 1, 3, 3), array(3, 4, 3, 3)
CASES = {
    "Conv, a Constant": [constant("w", KERNEL), node("Conv", "x w")],
    "Conv, one filter for all channels": [
        *(constant("k", FILTER), sizes(4, 1, 3, 3), node("Expand", "k n", "w")),
        node("Conv", "x w", group=4),
    ],
    "Conv, a scalar for all": [
        *(constant("k", 0.25), sizes(4, 1, 3, 3), node("Expand", "k n", "w")),
        node("Conv", "x w", group=4),
    ],
    "Conv, filled": [sizes(3, 4, 2, 2), node("ConstantOfShape", "n", "w"), node("Conv", "x w")],
    "Conv, copies": [
        *(constant("k", KERNEL), sizes(2, 1, 1, 1), node("Tile", "k n", "w")),
        *(constant("b", [0.5]), constant("six", [6], np.int64), node("Expand", "b six", "c")),
        node("Conv", "x w c"),
    ],
    "Conv, cast from integers": [
        *(constant("k", np.arange(-54, 54).reshape(3, 4, 3, 3), np.int64),),
        *(node("Cast", "k", "w", to=1), node("Conv", "x w")),
    ],
    "ConvTranspose": [
        *(constant("k", FILTER), sizes(4, 1, 3, 3), node("Expand", "k n", "w")),
        node("ConvTranspose", "x w", group=4, strides=[2, 2]),
    ],
    "BatchNormalization": [
        *(sizes(4), node("ConstantOfShape", "n", "two", value=TWO)),
        *(node("ConstantOfShape", "n", "zero"), constant("k", array(4)), node("Exp", "k", "v")),
        node("BatchNormalization", "x two k zero v"),
    ],
    "LayerNormalization": [
        *(sizes(5), node("ConstantOfShape", "n", "two", value=TWO)),
        node("LayerNormalization", "x two"),
    ],
    "Gemm": [
        *(sizes(4, 7), node("ConstantOfShape", "n", "w", value=TWO)),
        *(node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "f"), node("Gemm", "f w")),
    ],
}


@pytest.mark.parametrize("nodes", CASES.values(), ids=list(CASES))
def test_weights_of_constants(nodes):
    from onnx.reference import ReferenceEvaluator

    proto = model(nodes, {}, ("N", *X.shape[1:]))
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": X})
    compiled = lucid.compile(proto, X.shape, threads=1)
    np.testing.assert_allclose(compiled(X), wanted, rtol=1e-4, atol=1e-4)
