"""Ops of integers in ONNX: ONNX Runtime finds what Lucid says, where ONNX leaves it open too."""

from __future__ import annotations

import numpy as np
import pytest

from lucid.ir import BATCH, Graph, TensorType, interpret, ops
from lucid.ir.types import DTYPES

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

BINARY = [
    *(ops.Div(), ops.FloorDiv(), ops.Mod(), ops.Mod(True), ops.ShiftLeft(), ops.ShiftRight()),
    *(ops.BitwiseAnd(), ops.BitwiseOr(), ops.BitwiseXor(), ops.Less(), ops.Equal()),
]


@pytest.mark.parametrize("name", ["i32", "i64"])
@pytest.mark.parametrize("op", BINARY, ids=str)
def test_pairs(op: ops.Op, name: str) -> None:
    """Divisors of 0 and -1, the least number, and shifts by more bits than there are."""
    from lucid.onnx.writer import to_onnx

    info = np.iinfo(DTYPES[name])
    some = np.array([0, 1, -1, 2, -2, 7, -7, 31, 33, 64, info.max, info.min], info.dtype)
    a, b = (np.ascontiguousarray(x.reshape(1, -1)) for x in np.meshgrid(some, some))
    graph = Graph("pairs", {})
    given = [graph.add_input(TensorType(name, (BATCH, a.size)), label) for label in "ab"]
    graph.set_outputs([graph.append(op, given).output])
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), None, ["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": a, "b": b})
    np.testing.assert_array_equal(found, interpret(graph, [a, b])[0])
