"""Histograms that grow: the same whatever the order, and quantiles as NumPy has them."""

import numpy as np
import pytest

from lucid.quantisation.observers import HALF, Histogram

GENERATOR = np.random.default_rng(7)
SAMPLES = {
    "normal": GENERATOR.standard_normal(20000),
    "relu": np.maximum(GENERATOR.standard_normal(20000), 0),
    "skewed": GENERATOR.lognormal(0, 1, 20000),
    "uniform": GENERATOR.uniform(-3, 5, 20000),
    "tiny": GENERATOR.uniform(0, 1e-30, 20000),
    "huge": GENERATOR.standard_normal(20000) * 1e30,
}


def seen(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array.astype(np.float32))
    return histogram


@pytest.mark.parametrize("name", SAMPLES)
def test_quantiles_are_those_of_the_numbers(name: str) -> None:
    numbers = SAMPLES[name].astype(np.float32)
    histogram = seen(*np.split(numbers, 40))
    assert histogram.total == numbers.size
    assert (histogram.least, histogram.largest) == (numbers.min(), numbers.max())
    for share in (0, 0.001, 0.25, 0.5, 0.9, 0.9999, 1):
        exact = np.quantile(numbers, share, method="inverted_cdf")
        assert abs(histogram.quantile(share) - exact) <= 1.001 * histogram.width


@pytest.mark.parametrize("name", SAMPLES)
def test_the_order_of_the_numbers_changes_nothing(name: str) -> None:
    numbers = np.sort(SAMPLES[name])
    upwards, downwards = seen(*np.split(numbers, 50)), seen(*np.split(numbers[::-1], 50))
    at_once = seen(numbers)
    for other in (downwards, at_once):
        np.testing.assert_array_equal(upwards.counts, other.counts)
        assert upwards.width == other.width


def test_counts_are_those_of_bins_of_the_final_width() -> None:
    numbers = SAMPLES["normal"].astype(np.float32)
    histogram = seen(*np.split(numbers, 10))
    edges = np.arange(-HALF, HALF + 1) * histogram.width
    np.testing.assert_array_equal(histogram.counts, np.histogram(numbers, edges)[0])
    np.testing.assert_allclose(histogram.centres(), (edges[1:] + edges[:-1]) / 2)


@pytest.mark.parametrize("pair", [("normal", "huge"), ("huge", "relu"), ("tiny", "uniform")])
def test_merging_is_counting_together(pair: tuple[str, str]) -> None:
    first, second = (seen(SAMPLES[name]) for name in pair)
    first.merge(second)
    together = seen(*(SAMPLES[name] for name in pair))
    np.testing.assert_array_equal(first.counts, together.counts)
    assert (first.least, first.largest) == (together.least, together.largest)
    before = first.counts.copy()
    first.merge(Histogram())
    np.testing.assert_array_equal(first.counts, before)


def test_numbers_that_are_all_one() -> None:
    for value in (0.0, 5.0, -1e-3, 3e38):
        histogram = seen(np.full(100, value))
        assert histogram.total == 100
        assert histogram.quantile(0.5) == pytest.approx(np.float32(value))
    assert seen(np.zeros((0, 3))).total == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(OverflowError):
        seen(np.array([0.0, bad, 1.0]))


def test_memory_does_not_grow() -> None:
    histogram = seen(*(SAMPLES["normal"] * 2.0**k for k in range(40)))
    assert histogram.counts.nbytes == 8 * 2 * HALF
