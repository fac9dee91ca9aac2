"""ONNX's convolutions and pools over lines and volumes, where other tests do not read them."""

from __future__ import annotations

import numpy as np
import pytest

from lucid.errors import UnsupportedError
from lucid.frontend.onnx import import_onnx
from lucid.ir import BATCH, Graph, f32, interpret, ops
from lucid.onnx.writer import to_onnx

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto
from onnx_models import array, model, node, run

VOLUME = ("N", 2, 4, 5, 6)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_whole_volumes(p: int) -> None:
    x = array(2, 2, 4, 5, 6)
    y = run(model([node("GlobalLpPool", "x", p=p)], shape=VOLUME), x)
    wanted = (np.abs(x.astype(np.float64)) ** p).sum((2, 3, 4), keepdims=True) ** (1 / p)
    np.testing.assert_allclose(y, wanted)


@pytest.mark.parametrize("order", [0, 1])
def test_places_of_maxima_count_over_the_whole_tensor(order: int) -> None:
    x = array(2, 2, 4, 5, 6)
    pool = node(
        "MaxPool", "x", "y i", kernel_shape=[2, 2, 3], strides=[2, 2, 3], storage_order=order
    )
    graph = import_onnx(model([pool], shape=VOLUME, outputs="y i"))
    y, places = interpret(graph, [x], dtype=np.float64)
    flat = x.reshape(2, 2, -1) if order == 0 else x.transpose(0, 1, 4, 3, 2).reshape(2, 2, -1)
    np.testing.assert_array_equal(flat.reshape(-1)[places], y)
    np.testing.assert_array_equal(y, x[:, :, :, :4].reshape(2, 2, 2, 2, 2, 2, 2, 3).max((3, 5, 7)))


def test_the_largest_of_bytes() -> None:
    proto = model(
        [node("MaxPool", "x", kernel_shape=[2])], shape=("N", 3, 5), dtype=TensorProto.UINT8
    )
    (kind,) = (v.type for v in import_onnx(proto).outputs)
    assert str(kind) == "u8[N,3,4]"


def test_four_axes_are_too_many() -> None:
    proto = model([node("MaxPool", "x", kernel_shape=[1] * 4)], shape=("N", 1, 2, 2, 2, 2))
    with pytest.raises(UnsupportedError, match="over 4 spatial axes"):
        import_onnx(proto)


@pytest.mark.parametrize(
    "op",
    [
        ops.MaxPoolIndices((2, 3), (1, 2), (1, 0, 0, 1), (1, 1), whole=True, column_major=True),
        ops.MaxPoolIndices((2, 3), (2, 2), (0, 1, 1, 1), (1, 1), ceil_mode=True, whole=True),
        ops.AvgPool2d((2, 3), (1, 2), (1, 0, 0, 1), dilation=(2, 1)),
        ops.AvgPool2d((2, 2), (2, 2), (1, 1, 1, 1), True, False, dilation=(1, 2)),
    ],
)
def test_pools_come_back_from_a_file(op: ops.Op) -> None:
    graph = Graph("pool")
    graph.set_outputs([graph.append(op, [graph.add_input(f32(BATCH, 3, 7, 8))]).output])
    x = array(2, 3, 7, 8)
    wanted = interpret(graph, [x], dtype=np.float64)
    found = interpret(import_onnx(to_onnx(graph)), [x], dtype=np.float64)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)


def test_places_in_an_image_are_written_as_the_rest_of_those_in_the_tensor() -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the package is not installed")
    graph = Graph("pool")
    op = ops.MaxPoolIndices((2, 3), (1, 2), (1, 0, 0, 1), (1, 1))
    graph.set_outputs([graph.append(op, [graph.add_input(f32(BATCH, 3, 7, 8), "x")]).output])
    x = array(2, 3, 7, 8)
    session = runtime.InferenceSession(to_onnx(graph).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], op.evaluate(x))
