"""From numbers to scales: which range of them the integers are to stand for.

Each method gives the range (least, largest) of a histogram; what lies outside is clipped. The wider
it is, the coarser the steps inside it; the narrower, the more is clipped. All ranges hold 0, which
is then an integer itself: padding and what a relu cuts off are exact.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lucid.errors import InputError, UnknownNameError
from lucid.ir.ops.base import Array
from lucid.quantisation.observers import Histogram

LEVELS = 255
"""Steps from the least 8-bit integer to the largest."""
LARGEST_WEIGHT = 127
"""Of weights, which are symmetric: -128 is not used."""
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Scaling:
    """What 8-bit integers stand for: (q - zero_point) * scale, of unsigned ones. The scale is a
    float32 number."""

    scale: float
    zero_point: int

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest number that there is an integer for."""
        return -self.zero_point * self.scale, (LEVELS - self.zero_point) * self.scale


def scaling(least: float, largest: float) -> Scaling:
    """The unsigned integers for numbers from `least` to `largest`, and for 0 in any case. Of a
    range without extent the scale is 1."""
    least, largest = min(least, 0.0), max(largest, 0.0)
    scale = float(np.float32((largest - least) / LEVELS))
    if not TINY <= scale < np.inf:
        return Scaling(1.0, 0)
    return Scaling(scale, min(max(round(-least / scale), 0), LEVELS))


# -- activations ------------------------------------------------------------------------------

Range = tuple[float, float]


@dataclass(frozen=True)
class Method:
    """How ranges of activations are chosen: by one of METHODS. `percentile`: the share of numbers,
    in percent, that the method of that name leaves unclipped at either end."""

    name: str = "mse"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            close = difflib.get_close_matches(str(self.name), METHODS) or list(METHODS)
            raise UnknownNameError(
                f"method is one of {', '.join(METHODS)}, not {self.name!r}; "
                f"did you mean {' or '.join(close)}?"
            )
        if not 50 < self.percentile <= 100:
            raise InputError(
                f"percentile is above 50 and at most 100, such as 99.99, not {self.percentile!r}"
            )

    def scaling(self, seen: Histogram) -> Scaling:
        """The scale and zero point for numbers distributed like these."""
        if not seen.total:
            return Scaling(1.0, 0)
        return scaling(*METHODS[self.name](seen, self.percentile))


def minmax(seen: Histogram, percentile: float) -> Range:
    """Nothing is clipped."""
    return seen.least, seen.largest


def by_percentile(seen: Histogram, percentile: float) -> Range:
    """What lies beyond the percentile at either end is clipped.

    Source: Wu, Judd, Zhang, Isaev, Micikevicius, "Integer quantization for deep learning inference:
    principles and empirical evaluation", 2020, section 3.3.
    """
    return seen.quantile(1 - percentile / 100), seen.quantile(percentile / 100)


SHRINKS = 2.0 ** (-np.arange(64) / 10)
"""What ends of ranges are tried times: down to a hundredth."""


def mse(seen: Histogram, percentile: float) -> Range:
    """The least mean square error of the numbers that come back.

    Each end is brought in by itself, the lower and the upper one in turns, by SHRINKS.
    Source: Nagel, Fournarakis, Amjad, Bondarenko, van Baalen, Blankevoort, "A white paper on neural
    network quantization", 2021, section 3.1.
    """
    used = np.flatnonzero(seen.counts)
    values, weights = seen.centres()[used], seen.counts[used].astype(np.float64)
    least, largest = min(seen.least, 0.0), max(seen.largest, 0.0)
    low, high = least, largest
    for _ in range(2):
        highs = [(low, largest * s) for s in SHRINKS] if largest > 0 else [(low, high)]
        _, high = min(highs, key=lambda r: _square_error(values, weights, r))
        lows = [(least * s, high) for s in SHRINKS] if least < 0 else [(low, high)]
        low, _ = min(lows, key=lambda r: _square_error(values, weights, r))
    return low, high


def _square_error(values: Array, weights: Array, wanted: Range) -> float:
    chosen = scaling(*wanted)
    low, high = -chosen.zero_point, LEVELS - chosen.zero_point
    steps = np.clip(np.rint(values / chosen.scale), low, high)
    difference = steps * chosen.scale - values
    return float(np.dot(weights, difference * difference))


BINS = 2048
"""Of the distributions that `entropy` compares."""


def entropy(seen: Histogram, percentile: float) -> Range:
    """The least Kullback-Leibler divergence of the integers' distribution from the numbers'.

    Both ends are brought in together. Source: Migacz, "8-bit inference with TensorRT", 2017.
    """
    least, largest = min(seen.least, 0.0), max(seen.largest, 0.0)
    if least == largest:
        return least, largest
    counts = _resampled(seen, least, largest)
    zero = round(-least / (largest - least) * BINS)
    best, chosen = np.inf, (0, BINS)
    for kept in np.linspace(1, LEVELS / BINS, 120):
        low, high = round(zero * (1 - kept)), round(zero + (BINS - zero) * kept)
        divergence = _divergence(counts, low, max(high, low + 1))
        if divergence < best:
            best, chosen = divergence, (low, max(high, low + 1))
    step = (largest - least) / BINS
    return least + chosen[0] * step, least + chosen[1] * step


def _resampled(seen: Histogram, least: float, largest: float) -> Array:
    """The counts in BINS bins from `least` to `largest`."""
    used = np.flatnonzero(seen.counts)
    places = (seen.centres()[used] - least) / (largest - least) * BINS
    inside = np.clip(places.astype(np.int64), 0, BINS - 1)
    return np.bincount(inside, seen.counts[used], BINS)


def _divergence(counts: Array, low: int, high: int) -> float:
    """Of what is left where only the bins from `low` to `high` are kept: there P has the outliers
    in its outermost bins, and Q is as even within each step as the integers know it to be."""
    kept = counts[low:high]
    p = kept.copy()
    p[0] += counts[:low].sum()
    p[-1] += counts[high:].sum()
    step = np.arange(len(kept)) * (LEVELS + 1) // len(kept)
    occupied = p > 0
    sums = np.bincount(step, kept, LEVELS + 1)
    sharing = np.maximum(np.bincount(step, occupied, LEVELS + 1), 1)
    q = (sums / sharing)[step] * occupied
    p, q = p / p.sum(), q / max(q.sum(), 1)
    floor = 1e-9  # of a bin that holds outliers alone, which q knows nothing of
    terms = p[occupied] * np.log(p[occupied] / np.maximum(q[occupied], floor))
    return float(terms.sum())


METHODS: dict[str, Callable[[Histogram, float], Range]] = {
    "mse": mse,
    "minmax": minmax,
    "percentile": by_percentile,
    "entropy": entropy,
}
"""Every method by its name."""


# -- weights ----------------------------------------------------------------------------------

CHANNEL_SHRINKS = np.linspace(1, 0.5, 26)


def weight_scales(weight: Array, method: str) -> Array:
    """The scale of each output channel of a weight (O, ...): float32 (O), symmetric.

    By "mse" the one of the least square error among CHANNEL_SHRINKS of the largest magnitude; by
    any other method the largest magnitude itself. 1 where a channel has nothing but zeros.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    whole = _row_scales(np.abs(rows).max(axis=1, initial=0.0))
    if method != "mse":
        return whole
    best, least = whole, np.full(len(rows), np.inf)
    for shrink in CHANNEL_SHRINKS:
        scales = _row_scales(whole.astype(np.float64) * LARGEST_WEIGHT * shrink)
        difference = quantised_weight(rows, scales) * scales[:, None].astype(np.float64) - rows
        error = (difference * difference).sum(axis=1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def _row_scales(largest: Array) -> Array:
    scales = (largest / LARGEST_WEIGHT).astype(np.float32)
    return np.where(scales >= TINY, scales, np.float32(1))


def quantised_weight(weight: Array, scales: Array) -> Array:
    """int8: the weight (O, ...) in steps of each output channel's scale."""
    steps = np.rint(weight / scales.reshape(-1, *(1,) * (weight.ndim - 1)))
    return np.clip(steps, -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)
