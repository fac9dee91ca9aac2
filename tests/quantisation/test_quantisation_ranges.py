"""Ranges and scales: each method on distributions whose answer is known."""

import numpy as np
import pytest

from lucid.errors import InputError, UnknownNameError
from lucid.quantisation.observers import Histogram
from lucid.quantisation.ranges import (
    METHODS,
    Method,
    Scaling,
    quantised_weight,
    scaling,
    weight_scales,
)

GENERATOR = np.random.default_rng(3)
UNIFORM = GENERATOR.uniform(-1, 3, 50000).astype(np.float32)
NORMAL = GENERATOR.standard_normal(50000).astype(np.float32)
OUTLIERS = np.concatenate([np.maximum(NORMAL, 0), np.array([400.0], np.float32)])


def seen(numbers: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(numbers)
    return histogram


def error(numbers: np.ndarray, chosen: Scaling) -> float:
    """The mean square error of what comes back."""
    steps = np.clip(np.rint(numbers / chosen.scale) + chosen.zero_point, 0, 255)
    return float(np.mean(((steps - chosen.zero_point) * chosen.scale - numbers) ** 2))


@pytest.mark.parametrize(
    ("ends", "scale", "zero"),
    [
        ((0.0, 255.0), 1.0, 0),
        ((-1.0, 1.55), 2.55 / 255, 100),
        ((-255.0, 0.0), 1.0, 255),
        ((2.0, 5.1), 5.1 / 255, 0),  # holds 0
        ((-5.1, -2.0), 5.1 / 255, 255),
        ((0.0, 0.0), 1.0, 0),  # no extent
        ((0.0, 1e-42), 1.0, 0),  # nothing that float32 would divide by
    ],
)
def test_scales_and_zero_points(ends: tuple[float, float], scale: float, zero: int) -> None:
    found = scaling(*ends)
    assert found.scale == np.float32(scale)
    assert found.zero_point == zero


@pytest.mark.parametrize("name", METHODS)
def test_a_uniform_distribution_is_kept_whole(name: str) -> None:
    least, largest = Method(name).scaling(seen(UNIFORM)).range
    assert least == pytest.approx(-1, abs=0.05)
    assert largest == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_relu_leaves_has_zero_point_0(name: str) -> None:
    assert Method(name).scaling(seen(np.maximum(NORMAL, 0))).zero_point == 0


@pytest.mark.parametrize("name", ["percentile", "entropy"])
def test_outliers_are_clipped(name: str) -> None:
    _, largest = Method(name).scaling(seen(OUTLIERS)).range
    assert 2 < largest < 60


def test_minmax_clips_nothing() -> None:
    assert Method("minmax").scaling(seen(OUTLIERS)).range[1] == pytest.approx(400)


def test_percentiles() -> None:
    least, largest = Method("percentile", 99).scaling(seen(NORMAL)).range
    assert largest == pytest.approx(np.quantile(NORMAL, 0.99), abs=0.02)
    assert least == pytest.approx(np.quantile(NORMAL, 0.01), abs=0.02)


@pytest.mark.parametrize("numbers", [UNIFORM, NORMAL, NORMAL**3, np.abs(NORMAL)])
def test_mse_has_the_least_square_error(numbers: np.ndarray) -> None:
    own = error(numbers, Method("mse").scaling(seen(numbers)))
    for name in METHODS:
        assert own <= 1.02 * error(numbers, Method(name).scaling(seen(numbers)))
    ends = float(numbers.min()), float(numbers.max())
    for low in np.linspace(0.1, 1, 10):
        for high in np.linspace(0.1, 1, 10):
            assert own <= 1.02 * error(numbers, scaling(ends[0] * low, ends[1] * high))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [0.0, 2.5, -4.0])
def test_one_value_alone(name: str, value: float) -> None:
    found = Method(name).scaling(seen(np.full(64, value, np.float32)))
    assert error(np.array([value]), found) < (abs(value) / 100) ** 2 + 1e-12
    assert value or found == Scaling(1.0, 0)


def test_nothing_seen() -> None:
    assert Method("mse").scaling(Histogram()) == Scaling(1.0, 0)


@pytest.mark.parametrize("method", ["mse", "minmax"])
def test_scales_of_weights(method: str) -> None:
    weight = GENERATOR.standard_normal((6, 4, 3, 3)).astype(np.float32) * np.arange(6)[
        :, None, None, None
    ].astype(np.float32)
    scales = weight_scales(weight, method)
    assert scales.dtype == np.float32
    assert scales[0] == 1  # all zeros
    steps = quantised_weight(weight, scales)
    assert steps.dtype == np.int8
    assert steps.min() >= -127
    whole = np.abs(weight).reshape(6, -1).max(1) / 127
    whole[0] = 1
    off = np.abs(steps * scales[:, None, None, None] - weight).reshape(6, -1)
    if method == "minmax":
        np.testing.assert_allclose(scales[1:], whole[1:], rtol=1e-6)
        assert (off.max(1) <= 0.501 * scales).all()
    else:
        plain = quantised_weight(weight, whole) * whole[:, None, None, None] - weight
        assert ((off**2).sum(1)[1:] <= (plain.reshape(6, -1) ** 2).sum(1)[1:] * 1.0001).all()


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean minmax"):
        Method("minmx")
    with pytest.raises(InputError, match="above 50"):
        Method("percentile", 0.999)
