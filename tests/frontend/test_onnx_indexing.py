"""Operators of order, places and running totals, against onnx's reference and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

import lucid
from lucid.errors import ModelFileError, ShapeError

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import helper
from onnx_models import array, model, node, run

from lucid.frontend.onnx import import_onnx
from lucid.ir import interpret

IMAGE = array(2, 4, 6, 5)
THREE = {"k": np.array([3])}
OLD_TOP = node("TopK", "x", "v i", axis=1, k=3)
TOP = node("TopK", "x k", "v i", axis=1)


def float_of(name: str) -> Any:
    """A node that makes the result y, floats, of integers."""
    return node("Cast", name, to=1)


CASES: dict[str, tuple[int, list[Any], dict[str, Any]]] = {
    "top k, attribute": (9, [OLD_TOP, node("Relu", "v")], {}),
    "top k, operand": (10, [TOP, node("Relu", "v")], THREE),
    "top k, places": (11, [TOP, float_of("i")], THREE),
    "top k, the smallest": (
        11,
        [node("TopK", "x k", "v i", largest=0), float_of("i")],
        {"k": np.array([5])},
    ),
    "gather elements": (13, [TOP, node("GatherElements", "x i", axis=1)], THREE),
    "gather elements, from the end": (
        13,
        [TOP, node("Sub", "i c", "b"), node("GatherElements", "x b", axis=1)],
        THREE | {"c": np.array(4)},
    ),
    "gather, computed": (
        13,
        [
            node("ReduceMean", "x", "m", axes=[0, 2, 3], keepdims=0),
            node("TopK", "m k", "v i"),
            node("Gather", "x i", axis=1),
        ],
        THREE,
    ),
    "gather nd, computed": (
        13,
        [
            node("ReduceMean", "x", "m", axes=[0, 2, 3], keepdims=0),
            node("TopK", "m k", "v i"),
            node("Transpose", "x", "t", perm=[1, 2, 3, 0]),
            node("Unsqueeze", "i a", "u"),
            node("GatherND", "t u"),
        ],
        THREE | {"a": np.array([1])},
    ),
    "scatter, old": (9, [OLD_TOP, node("Scatter", "x i v", axis=1)], {}),
    "scatter elements": (
        11,
        [TOP, node("Neg", "v", "n"), node("ScatterElements", "x i n", axis=1)],
        THREE,
    ),
    "scatter elements, added": (
        16,
        [TOP, node("ScatterElements", "x i v", axis=1, reduction="add")],
        THREE,
    ),
    "scatter elements, the largest": (
        18,
        [TOP, node("Abs", "v", "n"), node("ScatterElements", "x i n", axis=1, reduction="max")],
        THREE,
    ),
    "scatter nd": (
        16,
        [
            node("Transpose", "x", "t", perm=[1, 2, 3, 0]),
            node("Slice", "t s e", "u"),
            node("ScatterND", "t i u", reduction="mul"),
        ],
        {"s": [1], "e": [3], "i": [[3], [3]]},
    ),
    "cumulative sum, exclusive": (11, [node("CumSum", "x a", exclusive=1)], {"a": np.array(-1)}),
    "trilu": (14, [node("Trilu", "x k", upper=0)], {"k": np.array(-1)}),
    "trilu, above": (14, [node("Trilu", "x")], {}),
    "one hot": (
        11,
        [node("ArgMax", "x", "i", axis=1), node("OneHot", "i d v", axis=1)],
        {"d": np.array(4), "v": np.array([-1.0, 2.5], np.float32)},
    ),
    "eye like": (
        9,
        [
            node("Flatten", "w", "f", axis=1),
            node("EyeLike", "f", "e", k=1, dtype=1),
            node("Add", "x e"),
        ],
        {"w": array(6, 5)},
    ),
    "reverse sequence": (
        10,
        [
            node("Transpose", "x", "t", perm=[1, 2, 0, 3]),
            node("ReverseSequence", "t n", batch_axis=1, time_axis=0),
        ],
        {"n": np.array([1, 2, 3, 4, 4, 2])},
    ),
    "compress": (11, [node("Compress", "x c", axis=2)], {"c": np.array([0, 1, 0, 1, 1], bool)}),
    "hardmax": (13, [node("Hardmax", "x", axis=1)], {}),
    "hardmax, over the rest": (11, [node("Hardmax", "x", axis=1)], {}),
    "arg max, the last": (
        12,
        [
            node("Floor", "x", "f"),
            node("ArgMax", "f", "i", axis=1, select_last_index=1),
            float_of("i"),
        ],
        {},
    ),
    "einsum": (12, [node("Einsum", "x x", equation="nchw,nkhw->nck")], {}),
    "einsum, a weight": (
        12,
        [node("Einsum", "x w", equation="bhwc, hkc -> bhwk")],
        {"w": array(4, 7, 5)},
    ),
}


@pytest.mark.parametrize(("opset", "nodes", "constants"), CASES.values(), ids=list(CASES))
def test_cases(opset: int, nodes: list[Any], constants: dict[str, Any]) -> None:
    """By onnx's reference where it has them so, by ONNX Runtime where that takes them."""
    proto = model(nodes, constants, IMAGE.shape, opset=opset)
    proto.ir_version = 8
    found = run(proto, IMAGE)
    judges = [judge for judge in (_reference(proto), _runtime(proto)) if judge is not None]
    assert judges
    for wanted in judges:
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def _reference(proto: Any) -> Any:
    from onnx.reference import ReferenceEvaluator

    if proto.opset_import[0].version < 10 or "Hardmax" in str(proto):
        return None  # it has neither
    return ReferenceEvaluator(proto).run(None, {"x": IMAGE})[0]


def _runtime(proto: Any) -> Any:
    ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": IMAGE})[0]


@pytest.mark.parametrize(
    ("nodes", "constants", "error", "message"),
    [
        ([TOP, node("Relu", "v")], {"k": np.array([5])}, ShapeError, r"k must be within 0\.\.4"),
        ([TOP, node("Relu", "v")], {"k": np.array([-1])}, ModelFileError, "has the k -1"),
        ([node("GatherElements", "x i")], {"i": [[1]]}, ShapeError, "do not fit"),
        ([node("GatherND", "x i")], {"i": [[9, 9]]}, ShapeError, "takes places outside"),
        ([node("Einsum", "x", equation="ab->a")], {}, ShapeError, "operand of 4 axes"),
        (
            [node("Transpose", "x", "t", perm=[1, 0, 2, 3]), node("ScatterND", "t i t")],
            {"i": [[1]]},
            ShapeError,
            "updates must be",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    nodes: list[Any], constants: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(model(nodes, constants, IMAGE.shape), IMAGE)


def test_rows_of_a_cache_are_written_from_a_place_of_their_own() -> None:
    """TensorScatter, in a straight line and around the end."""
    x = array(2, 3, 8, 4)
    update = array(1, 3, 2, 4)
    for mode, start in (("linear", 5), ("circular", 7)):
        nodes = [
            node("Mul", "x zero", "z"),
            node("Slice", "z a b c", "part"),
            node("Add", "part u", "update"),
            node("ReduceSum", "z d", "s", keepdims=0),
            node("Add", "s w", "f"),
            node("Cast", "f", "at", to=7),
            node("TensorScatter", "x update at", mode=mode),
        ]
        constants = {"zero": np.float32(0), "a": [0], "b": [2], "c": [2], "u": update}
        constants |= {"d": [1, 2, 3], "w": np.float32(start)}
        y = run(model(nodes, constants, x.shape, opset=24), x)
        wanted = x.copy()
        for step in range(2):
            wanted[:, :, (start + step) % 8] = update[:, :, step]
        np.testing.assert_allclose(y, wanted, rtol=1e-6)


@pytest.mark.parametrize("centre", [0, 1])
def test_boxes_as_onnx_runtime_keeps_them(centre: int) -> None:
    """Of the padded form, the first rows; boxes that touch, scores that are equal."""
    ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    rng = np.random.default_rng(centre)
    low = rng.integers(0, 6, (1, 50, 2))
    boxes = np.concatenate([low, low + rng.integers(-1, 4, low.shape)], -1).astype(np.float32)
    scores = rng.integers(0, 8, (1, 2, 50)).astype(np.float32) / 8
    limits = {"m": np.array([9]), "i": np.float32([0.25]), "t": np.float32([0.3])}
    operands = ["s", "m", "i", "t"]
    kept = helper.make_node("NonMaxSuppression", ["x", *operands], ["y"], center_point_box=centre)
    whole = model([kept], limits | {"s": scores}, boxes.shape)
    whole.ir_version, whole.graph.output[0].type.tensor_type.elem_type = 8, 7
    session = ort.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": boxes})
    kept.op_type, kept.domain = "PaddedNonMaxSuppression", "lucid"
    kept.output.append("n")
    padded = model([kept], limits | {"s": scores}, boxes.shape, outputs="y n")
    padded.opset_import.append(helper.make_opsetid("lucid", 1))
    rows, count = interpret(import_onnx(padded, input_shape=boxes.shape), [boxes])
    assert count == len(wanted) > 9
    np.testing.assert_array_equal(rows[:count], wanted)
    assert (rows[count:] == -1).all()


def test_boxes_are_kept_without_the_host() -> None:
    """The rows of the padded form are cut at the count, which may be another in each call."""
    limits = {"m": np.array([2**63 - 1]), "i": np.float32([0.25]), "t": np.float32([0.3])}
    kept = helper.make_node("NonMaxSuppression", ["x", "s", "m", "i", "t"], ["y"])
    scores = np.linspace(0, 1, 6, dtype=np.float32).reshape(1, 1, 6)
    whole = model([kept], limits | {"s": scores}, (1, 6, 4))
    whole.graph.output[0].type.tensor_type.elem_type = 7
    fast = lucid.compile(whole, options=lucid.CompileOptions(host_ops="refuse"))
    low = np.arange(6, dtype=np.float32).reshape(1, 6, 1).repeat(2, 2)
    for size, wanted in ((1, [5, 4, 3, 2]), (3, [5, 3])):
        rows = fast(np.concatenate([low, low + size], -1))
        np.testing.assert_array_equal(rows[:, 2], wanted)
