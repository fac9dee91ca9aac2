"""Where a resize samples: by ONNX's formulas, one number at a time."""

import math

import numpy as np
import pytest

from lucid.ir.ops import Pad, Resize
from lucid.ir.ops.resize import COORDINATES, ROUNDING
from lucid.ir.ops.windows import adaptive_bounds

SIZES = [(5, 9), (7, 4), (4, 4), (3, 1), (1, 4), (6, 12), (10, 33), (2, 5)]
ROUND = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
}


def coordinate(op, place, size):
    """As the table of ONNX's Resize has it."""
    out = op.size[0]
    scale = op.scale[0] if op.scale else out / size
    match op.coordinates:
        case "align_corners":
            return 0 if out == 1 else place * (size - 1) / (out - 1)
        case "asymmetric":
            return place / scale
        case "align_scaled_corners":
            return place * (size - 1) / (scale * size - 1) if scale * size != 1 else 0
        case "tf_half_pixel_for_nn":
            return (place + 0.5) / scale
        case "tf_crop_and_resize":
            return place * (size - 1) / (out - 1) if out > 1 else (size - 1) / 2
        case "half_pixel_symmetric":
            offset = size / 2 * (1 - out / (scale * size))
            return offset + (place + 0.5) / scale - 0.5
        case "pytorch_half_pixel" if out == 1:
            return 0
    return (place + 0.5) / scale - 0.5


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(("size", "out"), SIZES)
def test_coordinates_are_those_of_onnx(size, out, coordinates, scaled):
    scale = (out / size + 0.003, 1.0) if scaled else None
    op = Resize((out, 1), "bilinear", coordinates, scale=scale)
    source = [coordinate(op, i, size) for i in range(out)]
    left, right, share = op.linear_index(0, size)
    clipped = np.clip(source, 0, size - 1)
    np.testing.assert_allclose(left * (1 - share) + right * share, clipped, atol=1e-12)
    assert left.dtype == right.dtype == np.int64
    assert share.dtype == np.float64
    assert ((share >= 0) & (share <= 1) & (left >= 0) & (left <= right) & (right < size)).all()
    for rounding in ROUNDING:
        op = Resize((out, 1), "nearest", coordinates, rounding, scale)
        if coordinates == "half_pixel_symmetric" and out % 2 and scaled:
            continue  # its middle falls on an integer, but for the rounding of float64
        wanted = [min(max(ROUND[rounding](s), 0), size - 1) for s in source]
        assert op.nearest_index(0, size).tolist() == wanted


def test_nearest_rounds_in_float32_as_torch_does():
    """41 times the float32 of 1/41 lies below 1."""
    assert Resize((82, 1), coordinates="asymmetric").nearest_index(0, 2).tolist() == (
        [0] * 42 + [1] * 40
    )
    exact = Resize((41, 1), rounding="round_prefer_ceil")  # 20.5 * 2 / 41 lies below 1, too
    assert exact.nearest_index(0, 2).tolist() == [0] * 21 + [1] * 20


def test_where_padding_comes_from():
    def sources(mode):
        return Pad((2,), (3,), mode=mode).sources(0, 4).tolist()

    assert sources("constant") == [-1, -1, 0, 1, 2, 3, -1, -1, -1]
    assert sources("edge") == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert sources("reflect") == [2, 1, 0, 1, 2, 3, 2, 1, 0]


def test_windows_of_adaptive_pools():
    starts, ends = adaptive_bounds(7, 3)
    assert (starts.tolist(), ends.tolist()) == ([0, 2, 4], [3, 5, 7])
    starts, ends = adaptive_bounds(2, 3)
    assert (starts.tolist(), ends.tolist()) == ([0, 0, 1], [1, 2, 2])
