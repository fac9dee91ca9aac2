"""Models that cannot be read: what Lucid has no ops for, what is broken, what is no model."""

import contextlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.errors import (
    InputError,
    LucidError,
    MissingPackageError,
    ModelFileError,
    ShapeError,
    UnsupportedError,
)
from lucid.frontend.onnx import import_onnx
from lucid.ir import BATCH, f32, verify

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper
from onnx_models import FLOAT, array, convolution, kinds, model, node


def test_every_unsupported_operator_is_listed():
    nodes = [
        node("Det", "x", "a", name="/up1/Det"),
        node("Relu", "a", "b"),
        node("Det", "b", "c", name="/up2/Det"),
        node("Unique", "c", "d e", name="values"),
        node("Resize", "x - s", "f", name="steps", mode="steps"),
        helper.make_node("FusedThing", ["f"], ["y"], domain="com.example"),
    ]
    proto = model(nodes, {"s": np.array([1, 1, 2, 2], np.float32)})
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(proto)
    message = str(caught.value)
    assert "net holds 4 operators that Lucid cannot express" in message
    assert "Det x2" in message
    assert ": '/up1/Det' (up1), '/up2/Det' (up2)" in message
    assert "Unique x1: 'values'" in message
    assert "Resize x1 (with mode steps): 'steps'" in message
    assert "com.example.FusedThing x1" in message
    assert "Relu" not in message


def test_results_that_nobody_reads():
    nodes = [node("MaxPool", "x", "y i", kernel_shape=[2, 2])]
    assert kinds(model(nodes)) == ["max_pool2d"]


def test_constants_of_a_negative_size():
    nodes = [node("ConstantOfShape", "n", "one"), node("Add", "x one")]
    with pytest.raises(ModelFileError, match="a negative size: 2x-1"):
        import_onnx(model(nodes, {"n": np.array([2, -1])}))


def test_a_loop_whose_body_is_none():
    body = helper.make_graph([], "body", [], [])
    nodes = [node("Loop", "m c x", body=body)]
    with pytest.raises(ModelFileError, match="Loop 'y': has a body that takes no condition"):
        import_onnx(model(nodes, {"m": np.array(3), "c": np.array(True)}))


@pytest.mark.parametrize("opset", [1, 6, 999])
def test_unknown_versions(opset):
    with pytest.raises(UnsupportedError, match=f"version {opset} of ONNX's operators"):
        import_onnx(model([node("Relu", "x")], opset=opset))


def test_no_version():
    proto = model([node("Relu", "x")])
    del proto.opset_import[:]
    with pytest.raises(ModelFileError, match="does not say which version"):
        import_onnx(proto)


def test_a_cycle_is_shown():
    nodes = [node("Add", "x b", "a", name="first"), node("Relu", "a", "b"), node("Neg", "b")]
    with pytest.raises(ModelFileError, match=r"in a circle: Add 'first' <- Relu 'b' <- Add"):
        import_onnx(model(nodes))


def test_nodes_in_any_order():
    nodes = [node("Neg", "b"), node("Relu", "a", "b"), node("Abs", "x", "a")]
    assert kinds(model(nodes)) == ["abs", "relu", "neg"]


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Add", "x w")], {}, "Add 'y' reads 'w', which nothing in the model gives"),
        ([node("Relu", "x"), node("Abs", "x")], {}, "two values of the model are named 'y'"),
        ([node("Relu", "x", "x")], {}, "two values of the model are named 'x'"),
        ([node("Relu", "x", "z")], {}, "an output of the model reads 'y'"),
        ([node("Relu", "x", "w"), node("Abs", "w")], {"w": array(2)}, "are named 'w'"),
        ([node("Concat", "x x")], {}, "Concat 'y': has no axis"),
        ([node("Concat", "x x", axis=7)], {}, "axis 7 is not one of 4"),
        ([node("Concat", "x x", axis=1.5)], {}, "attribute axis is of another type"),
        ([node("Conv", "x")], {}, "operand 1 is missing"),
        ([node("MaxPool", "x", kernel_shape=[2])], {}, "has a kernel (2,)"),
        ([node("Slice", "x s e")], {"s": [0], "e": [1, 2]}, "of unlike lengths"),
        ([node("Reshape", "x s")], {"s": [[1]]}, "should be a vector"),
    ],
)
def test_broken_models(nodes, constants, message):
    with pytest.raises(ModelFileError) as caught:
        import_onnx(model(nodes, constants))
    assert message in str(caught.value)
    assert str(caught.value).startswith("net: ")


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Conv", "x w", name="/a/Conv")], {"w": array(2, 4, 1, 1)}, "Conv '/a/Conv' (a): "),
        ([node("Reshape", "x s")], {"s": [7, -1]}, "cannot be reshaped to 7x-1"),
        ([node("Add", "x w")], {"w": array(5)}, "shapes (N,3,8,8) and (5) cannot be broadcast"),
        ([node("Gather", "x i", axis=1)], {"i": [3]}, "takes [3] of axis 1"),
    ],
)
def test_operands_that_do_not_fit(nodes, constants, message):
    with pytest.raises(ShapeError) as caught:
        import_onnx(model(nodes, constants))
    assert message in str(caught.value)


def test_lying_shapes_are_not_believed():
    """Neither those of values between, nor those of outputs; a tensor's own must be true."""
    proto = model([node("GlobalAveragePool", "x", "p"), node("Flatten", "p")])
    proto.graph.value_info.append(helper.make_tensor_value_info("p", FLOAT, (1, 99)))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, (7, 7, 7)))
    assert import_onnx(proto).outputs[0].type == f32(BATCH, 3)
    proto = convolution(array(4, 3, 1, 1))
    proto.graph.initializer[0].dims[0] = 5
    with pytest.raises(ModelFileError, match=r"tensor 'w' has the shape \[5, 3, 1, 1\]"):
        import_onnx(proto)


def test_inputs_that_are_no_tensors():
    proto = model([node("Relu", "x")])
    proto.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", FLOAT, None))
    with pytest.raises(UnsupportedError, match=r"Relu x1 \(takes what is no tensor of numbers\)"):
        import_onnx(proto)
    proto = model([node("Relu", "x")], dtype=TensorProto.STRING)
    with pytest.raises(UnsupportedError, match=r"takes what is no tensor of numbers"):
        import_onnx(proto)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(ModelFileError, match="No such file"):
        import_onnx(path)
    path.write_bytes(b"\x89PNG\r\n" * 100)
    with pytest.raises(ModelFileError, match="not a whole ONNX file"):
        import_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        import_onnx(str(path))
    with pytest.raises(ModelFileError):
        import_onnx(tmp_path)
    with pytest.raises(InputError, match="takes a path"):
        import_onnx(7)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match="pip install onnx"):
        import_onnx(b"")


WHOLE = model(
    [
        node("Conv", "x w b", "c", name="/stem/Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c b b b v", "n"),
        node("Clip", "n low high", "r"),
        node("Shape", "r", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Unsqueeze", "batch vector", "first"),
        node("Concat", "first rest", "target", axis=0),
        node("Resize", "r - scales", "u", mode="linear"),
        node("AveragePool", "u", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "p target", "f"),
        node("Gemm", "f g", "y", transB=1),
    ],
    {
        "w": array(2, 3, 3, 3),
        "b": array(2),
        "v": array(2) ** 2,
        "low": np.float32(0),
        "high": np.float32(6),
        "zero": np.array(0),
        "vector": [0],
        "rest": [-1],
        "scales": np.array([1, 1, 2, 2], np.float32),
        "g": array(3, 32),
    },
).SerializeToString()


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_raise_errors_of_lucid_only(data):
    """Bytes flipped and files cut: a graph, or an error that says what is wrong."""
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(WHOLE) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(WHOLE))) :]
    with contextlib.suppress(LucidError):
        verify(import_onnx(bytes(damaged)))
