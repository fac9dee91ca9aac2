"""QuantizeLinear and DequantizeLinear: every granularity and version, against onnx's own reference;
what of them becomes constants, parameters and errors."""

from __future__ import annotations

import numpy as np
import pytest

from lucid.errors import LucidError, ModelFileError, ShapeError, UnsupportedError
from lucid.frontend.onnx import import_onnx
from lucid.ir import interpret, verify

pytest.importorskip("onnx", reason="the package onnx is not installed")
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import node

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
THREE = np.array([0.01, 0.02, 0.5], np.float32)
BLOCKS = RNG.uniform(0.01, 0.1, (2, 3, 2, 5)).astype(np.float32)
F32 = np.float32


def model(nodes, x, constants=None, opset=21, outputs="y", domain=""):
    """Nodes over an input x like this array."""
    tensors = [
        t if isinstance(t, TensorProto) else numpy_helper.from_array(np.asarray(t), name)
        for name, t in (constants or {}).items()
    ]
    given = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    results = [helper.make_empty_tensor_value_info(name) for name in outputs.split()]
    graph = helper.make_graph(nodes, "net", [given], results, tensors)
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def check(proto, x, exact=True):
    """Against onnx's reference, which knows versions from 19 on: the meaning is one."""
    newer = onnx.ModelProto()
    newer.CopyFrom(proto)
    newer.opset_import[0].version = max(19, proto.opset_import[0].version)
    wanted = ReferenceEvaluator(newer).run(None, {"x": x})
    graph = import_onnx(proto)
    verify(graph)
    for found, right in zip(interpret(graph, [x]), wanted, strict=True):
        assert (found.dtype, found.shape) == (right.dtype, right.shape)
        if exact:
            np.testing.assert_array_equal(found, right)
        else:
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6 * np.abs(right).max())
    return graph


QUANTISED = {
    "one scale": (10, "x s", {"s": F32(0.02)}, {}),
    "one scale of one axis": (10, "x s z", {"s": [F32(0.02)], "z": np.array([7], np.int8)}, {}),
    "u8": (13, "x s z", {"s": F32(0.02), "z": np.uint8(100)}, {}),
    "i8": (13, "x s z", {"s": F32(0.01), "z": np.int8(-100)}, {}),
    "channels": (13, "x s z", {"s": THREE, "z": np.array([1, 2, 250], np.uint8)}, {"axis": 1}),
    "channels from behind": (19, "x s", {"s": THREE}, {"axis": -3, "saturate": 0}),
    "zero points of 0": (13, "x s z", {"s": THREE, "z": np.zeros(3, np.int8)}, {}),
    "u16": (21, "x s z", {"s": F32(1e-5), "z": np.uint16(40000)}, {}),
    "i16": (21, "x s", {"s": F32(1e-5)}, {"output_dtype": TensorProto.INT16}),
    "blocks": (21, "x s", {"s": BLOCKS}, {"axis": 2, "block_size": 2}),
    "blocks from behind": (
        23,
        "x s z",
        {"s": BLOCKS, "z": RNG.integers(-9, 9, BLOCKS.shape).astype(np.int8)},
        {"axis": -2, "block_size": 2, "precision": TensorProto.FLOAT},
    ),
    "the newest": (28, "x s z", {"s": F32(0.02), "z": np.uint8(3)}, {"output_dtype": 2}),
}


@pytest.mark.parametrize("row", QUANTISED.values(), ids=QUANTISED)
def test_quantising(row):
    opset, operands, constants, given = row
    quantise = node("QuantizeLinear", operands, "q", **given)
    back = {k: v for k, v in given.items() if k in ("axis", "block_size")}
    dequantise = node("DequantizeLinear", operands.replace("x", "q"), **back)
    check(model([quantise, dequantise], IMAGE, constants, opset, "q y"), IMAGE)


def test_integers_are_quantised_as_floats():
    x = np.array([[-300, 3, 5, 70000]], np.int32)
    check(model([node("QuantizeLinear", "x s")], x, {"s": F32(2)}, 10), x)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.int32])
def test_dequantising_weights(kind):
    """Weights and their zero points become parameters of their own dtype."""
    bounds = np.iinfo(kind)
    weight = RNG.integers(bounds.min, bounds.max, (4, 3, 2, 2), endpoint=True).astype(kind)
    constants = {"w": weight, "s": RNG.uniform(0.1, 1, 4).astype(F32)}
    operands = "w s"
    if kind != np.int32:
        constants["z"] = RNG.integers(1, 9, 4).astype(kind)
        operands = "w s z"
    nodes = [node("DequantizeLinear", operands, "f", axis=-4), node("Conv", "x f")]
    graph = check(model(nodes, IMAGE, constants, 21), IMAGE, exact=False)
    assert {n: p.type.dtype for n, p in graph.parameters.items()} == {
        name: {"u": "u", "i": "i", "f": "f"}[np.asarray(a).dtype.kind]
        + str(8 * np.asarray(a).dtype.itemsize)
        for name, a in constants.items()
    }


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_four_bits_are_held_as_eight(kind):
    numbers = np.arange(-8, 8) if kind == TensorProto.INT4 else np.arange(16)
    weight = helper.make_tensor("w", kind, (4, 4), numbers)
    zero = helper.make_tensor("z", kind, (4, 2), numbers[4:12])
    scale = RNG.uniform(0.1, 1, (4, 2)).astype(F32)
    dequantise = node("DequantizeLinear", "w s z", "f", axis=1, block_size=2)
    x = RNG.normal(size=(2, 4)).astype(F32)
    proto = model([dequantise, node("MatMul", "x f")], x, {"w": weight, "z": zero, "s": scale})
    check(proto, x, exact=False)


def test_weights_that_two_nodes_read_are_one_parameter():
    constants = {"w": np.ones((3, 3, 1, 1), np.int8), "s": F32(0.5)}
    nodes = [
        node("DequantizeLinear", "w s", "a"),
        node("DequantizeLinear", "w s", "b"),
        node("Conv", "x a", "c"),
        node("Conv", "c b"),
    ]
    graph = check(model(nodes, IMAGE, constants), IMAGE)
    assert list(graph.parameters) == ["w"]


def test_one_scale_is_a_constant_and_zero_points_of_0_of_channels_are_none():
    constants = {"s": F32(0.5), "z": np.uint8(3), "t": THREE, "o": np.zeros(3, np.int8)}
    nodes = [node("QuantizeLinear", "x s z", "a"), node("QuantizeLinear", "x t o", "b")]
    graph = import_onnx(model(nodes, IMAGE, constants, outputs="a b"))
    first, second = (n for n in graph.nodes if n.op.name == "quantize")
    assert [v.producer.op.value for v in first.inputs[1:]] == [0.5, 3]
    assert [v.name for v in second.inputs] == ["x", "t"]
    assert second.op.dtype == "i8"


def test_microsofts_own_are_read_alike():
    constants = {"s": F32(0.001), "z": np.uint16(3)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], domain="com.microsoft"),
    ]
    graph = import_onnx(model(nodes, IMAGE, constants, 17, domain="com.microsoft"))
    (y,) = interpret(graph, [IMAGE])
    np.testing.assert_allclose(y, np.maximum(IMAGE, F32(-0.003)), atol=0.0006)


# -- bad input ------------------------------------------------------------------------------------


BAD = {
    "a scale of 0": ("QuantizeLinear", {"s": F32(0)}, {}, "has the scale 0"),
    "a negative scale": ("QuantizeLinear", {"s": F32(-1)}, {}, "has the scale -1"),
    "NaN": ("QuantizeLinear", {"s": F32(np.nan)}, {}, "has the scale nan"),
    "infinity": ("QuantizeLinear", {"s": F32(np.inf)}, {}, "has the scale inf"),
    "a denormal scale": ("QuantizeLinear", {"s": F32(1e-40)}, {}, "has the scale 9.99995e-41"),
    "one of several": (
        "QuantizeLinear",
        {"s": np.array([1, -2, 3], F32)},
        {},
        "has the scale -2: a scale is a positive number",
    ),
    "NaN the other way": ("DequantizeLinear", {"s": F32(np.nan)}, {}, "has the scale nan"),
    "too few scales": ("QuantizeLinear", {"s": THREE[:2]}, {}, r"scale must have shape \(3,\)"),
    "an axis too many": ("QuantizeLinear", {"s": THREE}, {"axis": 4}, "axis 4 is not one of 4"),
    "no axis": ("QuantizeLinear", {"s": THREE[None]}, {}, "neither one, nor for an axis"),
    "blocks that do not fit": (
        "QuantizeLinear",
        {"s": BLOCKS},
        {"axis": 2, "block_size": 4},
        "4 numbers share a scale",
    ),
    "a zero point of another shape": (
        "QuantizeLinear",
        {"s": THREE, "z": np.ones(2, np.uint8)},
        {},
        r"zero points u8\[2\] for scales f32\[3\]",
    ),
    "too few zero points, all of them 0": (
        "QuantizeLinear",
        {"s": THREE, "z": np.zeros(2, np.uint8)},
        {},
        r"zero points u8\[2\] for scales f32\[3\]",
    ),
    "too many zero points the other way, all of them 0": (
        "DequantizeLinear",
        {"s": THREE, "z": np.zeros(4, np.uint8)},
        {},
        r"zero points u8\[4\] for scales f32\[3\]",
    ),
    "no zero points at all": (
        "DequantizeLinear",
        {"s": F32(1), "z": np.zeros(0, np.uint8)},
        {},
        r"zero points u8\[0\] for scales f32\[\]",
    ),
    "zero points of 0 for one scale": (
        "DequantizeLinear",
        {"s": F32(1), "z": np.zeros(3, np.uint8)},
        {},
        r"zero points u8\[3\] for scales f32\[\]",
    ),
    "zero points for one scale": (
        "QuantizeLinear",
        {"s": F32(1), "z": np.ones(3, np.uint8)},
        {},
        r"zero points u8\[3\] for scales f32\[\]",
    ),
    "a zero point of another dtype": (
        "QuantizeLinear",
        {"s": F32(1), "z": np.uint8(1)},
        {"output_dtype": TensorProto.INT8},
        "gives i8, and has a zero point of u8",
    ),
    "a zero point of floats": (
        "QuantizeLinear",
        {"s": F32(1), "z": F32(1)},
        {},
        "dtype is one of u8, i8, u16, i16, i32, got 'f32'",
    ),
    "a zero point unlike its operand": (
        "DequantizeLinear",
        {"s": F32(1), "z": np.int8(1)},
        {},
        "zero point of another element type",
    ),
    "no scale": ("QuantizeLinear", {}, {}, "operand 1 is missing"),
}


@pytest.mark.parametrize(("kind", "constants", "given", "message"), BAD.values(), ids=BAD)
def test_bad_operands_name_the_node(kind, constants, given, message):
    x = IMAGE if kind == "QuantizeLinear" else IMAGE.astype(np.uint8)
    operands = "x s z" if "z" in constants else "x s" if constants else "x"
    proto = model([node(kind, operands, name="stem/q", **given)], x, constants)
    with pytest.raises((ModelFileError, ShapeError), match=f"{kind} 'stem/q' .*{message}"):
        import_onnx(proto)


def test_scales_of_channels_need_opset_13():
    with pytest.raises(ModelFileError, match="one for each channel came with opset 13"):
        import_onnx(model([node("QuantizeLinear", "x s")], IMAGE, {"s": THREE}, 10))


def test_a_scale_of_0_dequantises_to_0():
    """As the weights of a channel that is pruned have it."""
    x = IMAGE.astype(np.uint8)
    check(model([node("DequantizeLinear", "x s")], x, {"s": F32(0)}), x)


FOREIGN = {
    "divisions of halves": {"precision": TensorProto.FLOAT16},
    "four bits": {"output_dtype": TensorProto.INT4},
    "floats of eight bits": {"output_dtype": TensorProto.FLOAT8E4M3FN},
}


@pytest.mark.parametrize("given", FOREIGN.values(), ids=FOREIGN)
def test_what_graphs_have_no_meaning_for_is_left_to_the_host(given):
    proto = model([node("QuantizeLinear", "x s", **given)], IMAGE, {"s": F32(1)}, 23)
    with pytest.raises(UnsupportedError, match="QuantizeLinear"):
        import_onnx(proto)


def test_missing_operands_are_no_crash():
    with pytest.raises(LucidError, match="DequantizeLinear"):
        import_onnx(model([node("DequantizeLinear", "- s")], IMAGE, {"s": F32(1)}))
