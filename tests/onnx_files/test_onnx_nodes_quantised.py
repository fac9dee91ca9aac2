"""Onnx's own node tests of quantised tensors: those of 8 bits are right; those of other types are
right or refused, and which type that is stands here. The package writes each operator in one
version: the others from 10 to 28 follow, with each granularity that they have, compiled.
"""

from __future__ import annotations

import numpy as np
import pytest

import lucid

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("ml_dtypes", reason="the package ml_dtypes is not installed")
from node_tests import cases, status_of
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

PREFIXES = (
    "test_quantizelinear",
    "test_dequantizelinear",
    "test_dynamicquantizelinear",
    "test_qlinearconv",
    "test_qlinearmatmul",
    "test_convinteger",
    "test_matmulinteger",
)
OTHER = {
    "e4m3fn": "floats of 8 bits",
    "e5m2": "floats of 8 bits",
    "float4e2m1": "floats of 4 bits",
    "int2": "integers of 2 bits",
    "uint2": "integers of 2 bits",
    "int4": "integers of 4 bits",
    "uint4": "integers of 4 bits",
    "int16": "integers of 16 bits",
    "uint16": "integers of 16 bits",
}
"""Parts of a test's name by which it is of another type."""
CASES = [c for c in cases() if c.name.startswith(PREFIXES)]


def other(case):
    """The type that a test is of, where it is none of 8 bits."""
    return next((kind for part, kind in OTHER.items() if part in case.name.split("_")), None)


EIGHT = [c for c in CASES if other(c) is None]
REST = [c for c in CASES if other(c) is not None]


def test_each_operator_has_tests_of_8_bits():
    assert len(EIGHT) >= 25
    assert all(any(c.name.startswith(p) for c in EIGHT) for p in PREFIXES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", EIGHT, ids=lambda c: c.name)
def test_those_of_8_bits_are_right(case):
    assert status_of(case) in ("native", "interpreted", "host")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REST, ids=lambda c: f"{c.name}: {other(c)}")
def test_those_of_other_types_are_right_or_refused(case):
    assert status_of(case) in ("native", "interpreted", "host", "refused")


# -- the other versions ---------------------------------------------------------------------------

F32, U8, I8 = np.float32, np.uint8, np.int8
IMAGE = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(F32)
GRANULARITIES = {
    "tensor": (10, (), {}),
    "axis": (13, (3,), {"axis": 1}),
    "axis from behind": (13, (5,), {"axis": -1}),
    "blocks": (21, (2, 3, 2, 5), {"axis": 2, "block_size": 2}),
    "uneven blocks": (21, (2, 3, 4, 2), {"axis": -1, "block_size": 3}),
}
"""The version from which on there is such a granularity, the shape of scales, attributes."""
OPSETS = (10, 13, 19, 21, 23, 24, 25, 28)
VERSIONS = [(o, name) for name, row in GRANULARITIES.items() for o in OPSETS if o >= row[0]]


def bytes_of(rng, kind, *shape):
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, kind, endpoint=True)


def model(kind, opset, x, constants, results="y", **attributes):
    """One operator over an input x, all else stored."""
    tensors = [numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants)]
    operands = ["x", *(t.name for t in tensors)]
    given = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    node = helper.make_node(kind, operands, results.split(), kind, **attributes)
    found = [helper.make_empty_tensor_value_info(name) for name in results.split()]
    graph = helper.make_graph([node], "net", [given], found, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check(kind, opset, x, constants, results="y", **attributes):
    """Compiled, natively but for blocks, it gives what onnx's reference gives; that one knows the
    two operators from version 19 on, which changes no meaning."""
    proto = model(kind, opset, x, constants, results, **attributes)
    known = model(kind, max(opset, 19), x, constants, results, **attributes)
    wanted = ReferenceEvaluator(known).run(None, {"x": x})
    host_ops = "run" if "block_size" in attributes else "refuse"
    y = lucid.compile(proto, threads=1, options=lucid.CompileOptions(host_ops=host_ops))(x)
    for found, right in zip(y if isinstance(y, tuple) else (y,), wanted, strict=True):
        assert (found.dtype, found.shape) == (right.dtype, right.shape)
        np.testing.assert_array_equal(found, right)


@pytest.mark.filterwarnings("ignore::lucid.HostOpsWarning")
@pytest.mark.parametrize("kind", [U8, I8])
@pytest.mark.parametrize(("opset", "granularity"), VERSIONS)
def test_quantising_and_dequantising_in_every_version(kind, opset, granularity):
    _, shape, attributes = GRANULARITIES[granularity]
    rng = np.random.default_rng(1)
    step = [rng.uniform(0.01, 0.05, shape).astype(F32), bytes_of(rng, kind, *shape)]
    integers = bytes_of(rng, kind, *IMAGE.shape)
    check("QuantizeLinear", opset, IMAGE, step, **attributes)
    check("QuantizeLinear", opset, IMAGE, step[:1], **attributes)
    check("DequantizeLinear", opset, integers, step, **attributes)
    check("DequantizeLinear", opset, integers, step[:1], **attributes)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", [U8, I8])
def test_products_in_every_version(kind, opset):
    rng = np.random.default_rng(2)
    image, zero = bytes_of(rng, kind, 2, 3, 5, 4), kind(7)
    weight = bytes_of(rng, kind, 4, 3, 3, 3)
    window = {"pads": [1, 0, 1, 2], "strides": [1, 2]}
    if kind == U8:  # that of ConvInteger is u8, as onnx's reference has it
        check("ConvInteger", opset, image, [weight, zero, kind(9)], **window)
    step = [F32(0.02), zero, weight, F32(0.03), kind(9), F32(0.917), kind(100)]  # no sum is a tie
    check("QLinearConv", opset, image, step, **window)
    bias = rng.integers(-9999, 9999, 4).astype(np.int32)
    check("QLinearConv", opset, image, [*step, bias], **window)
    rows, columns = bytes_of(rng, kind, 5, 6), bytes_of(rng, kind, 6, 4)
    check("MatMulInteger", opset, rows, [columns, zero, kind(9)])
    check("QLinearMatMul", opset, rows, [*step[:2], columns, *step[3:]])
    if opset > 10:
        check("DynamicQuantizeLinear", opset, IMAGE, [], "y scale zero")
