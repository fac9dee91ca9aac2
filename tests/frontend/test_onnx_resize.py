"""Resize and Upsample: sizes and places by scales, against what ONNX Runtime computes."""

from itertools import product

import numpy as np
import pytest

from lucid.frontend.onnx import import_onnx
from lucid.ir import BATCH, Graph, f32, interpret
from lucid.ir.ops import Resize
from lucid.onnx.writer import to_onnx

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx_models import model, node, run

SCALES = [0.3, 0.6, 0.7, 0.9, 1.0, 1.1, 1.3, 1.9, 2.0, 2.3, 2.9]
COORDINATES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def by_scales(height, width, scales, opset=13, **attributes):
    """A model that resizes (1, 1, height, width) by two scales."""
    kind, operands = ("Upsample", "x s") if opset < 10 else ("Resize", "x s")
    nodes = [node(kind, operands if opset < 11 else "x roi s", **attributes)]
    constants = {"s": np.array([1, 1, *scales], np.float32), "roi": np.zeros(0, np.float32)}
    if opset < 11:
        del constants["roi"]
    proto = model(nodes, constants, (1, 1, height, width), opset=opset)
    proto.ir_version = 8
    return proto


def places(size, scale, coordinates, rounding):
    """Which of `size` columns each column of the result takes."""
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    return run(by_scales(1, size, (1, scale), mode="nearest", **attributes), x).ravel().tolist()


@pytest.mark.parametrize(
    ("size", "scale", "coordinates", "rounding", "wanted"),
    [
        (10, 0.7, "asymmetric", "floor", [0, 1, 2, 4, 5, 7, 8]),
        (20, 0.6, "asymmetric", "floor", [0, 1, 3, 5, 6, 8, 10, 11, 13, 14, 16, 18]),
        (7, 1.1, "asymmetric", "ceil", [0, 1, 2, 3, 4, 5, 6]),
        (9, 1.1, "asymmetric", "floor", [0, 0, 1, 2, 3, 4, 5, 6, 7]),
        (10, 0.7, "half_pixel", "round_prefer_floor", [0, 2, 3, 4, 6, 7, 9]),
        (10, 0.7, "half_pixel", "round_prefer_ceil", [0, 2, 3, 5, 6, 7, 9]),
        (28, 0.3, "pytorch_half_pixel", "round_prefer_ceil", [1, 5, 8, 11, 15, 18, 21, 24]),
        (5, 1.6, "tf_half_pixel_for_nn", "floor", [0, 0, 1, 2, 2, 3, 4, 4]),
        (4, 1.3, "half_pixel_symmetric", "floor", [0, 0, 1, 2, 3]),
    ],
)
def test_places_that_onnx_runtime_takes(size, scale, coordinates, rounding, wanted):
    """A table of what it computed, but for the two of one size, which it copies."""
    assert places(size, scale, coordinates, rounding) == wanted


@pytest.mark.parametrize("opset", [9, 10])
def test_old_versions_round_up_where_the_image_shrinks(opset):
    x = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10)
    assert run(by_scales(1, 10, (1, 0.7), opset), x).ravel().tolist() == [0, 2, 3, 5, 6, 8, 9]
    wanted = [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9]
    assert run(by_scales(1, 10, (1, 1.3), opset), x).ravel().tolist() == wanted


def test_a_scale_that_keeps_the_size_still_moves_the_samples():
    """7 x 9 by 1.1 is 7 x 9: no identity, as onnx's own reference says too."""
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(0).standard_normal((1, 1, 7, 9)).astype(np.float32)
    for mode in ("nearest", "linear"):
        proto = by_scales(7, 9, (1.1, 1.1), mode=mode)
        (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
        found = run(proto, x)
        assert found.shape == x.shape
        assert not np.array_equal(found, x)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert not import_onnx(by_scales(7, 9, (1, 1), mode="cubic")).nodes


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_any_axis_by_weights(mode):
    """The channels and the depth of volumes, one after the other; ONNX Runtime does not."""
    from onnx.reference import ReferenceEvaluator

    nodes = [node("Resize", "x - - z", mode=mode, axes=[1, 3], antialias=1)]
    x = np.random.default_rng(0).standard_normal((1, 6, 2, 3, 4)).astype(np.float32)
    proto = model(nodes, {"z": np.array([4, 7])}, x.shape)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(run(proto, x), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "out", "scale"),
    [(10, 7, float(np.float32(0.7))), (100, 28, 0.29), (9, 9, 1.1)],
)
def test_scales_survive_being_written(size, out, scale):
    """100 by 0.29 is 28 in PyTorch, whose scales are float64, and 29 in ONNX."""
    graph = Graph()
    x = graph.add_input(f32(BATCH, 1, 1, size))
    op = Resize((1, out), coordinates="asymmetric", scale=(1.0, scale))
    graph.set_outputs([graph.append(op, [x]).output])
    values = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    (wanted,) = interpret(graph, [values])
    np.testing.assert_array_equal(run(to_onnx(graph), values), wanted)


CASES = [
    *(("linear", coordinates, None) for coordinates in COORDINATES[:3]),
    *(("nearest", *pair) for pair in product(COORDINATES[:3], ROUNDINGS)),
]


@pytest.mark.parametrize(("mode", "coordinates", "rounding"), CASES)
def test_onnx_runtime_computes_the_same_for_many_sizes(mode, coordinates, rounding):
    ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    ort.set_default_logger_severity(4)
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode}
    if rounding:
        attributes["nearest_mode"] = rounding
    rng = np.random.default_rng(len(coordinates))
    for scales in rng.permutation(list(product(SCALES, SCALES)))[:12]:
        height, width = (int(size) for size in rng.integers(4, 40, 2))
        proto = by_scales(height, width, scales, **attributes)
        x = rng.standard_normal((1, 1, height, width)).astype(np.float32)
        (wanted,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
        if wanted.shape == x.shape:  # which ONNX Runtime copies, whatever the scales
            continue
        found = run(proto, x)
        assert found.shape == wanted.shape, f"{height} x {width} by {scales}"
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=f"{height, width} {scales}")
