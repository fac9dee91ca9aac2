"""Tolerances of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucid.ir.ops.base import Array

EXACT = 1e-8
"""Of the largest value: what two ways to compute the same in float64 may differ by."""


@dataclass(frozen=True)
class Limits:
    """What native code may be off by, of the largest value: one kernel call on given inputs, and a
    whole network."""

    kernel: float
    whole: float


LIMITS = {"fast": Limits(2e-5, 1e-4), "strict": Limits(5e-6, 5e-5)}
"""By precision. Winograd F(4x4), of the fast one, rounds some six times more than a sum."""


def difference(value: Array, exact: Array) -> float:
    """The largest difference, relative to the largest value; infinite where one is a NaN or
    infinite and the other is not the same."""
    if value.shape != exact.shape:
        return np.inf
    if not exact.size:
        return 0.0
    finite = np.isfinite(exact)
    if not (np.isfinite(value) == finite).all():
        return np.inf
    if not np.array_equal(value[~finite], exact[~finite], equal_nan=True):
        return np.inf
    values, exacts = value[finite].astype(np.float64), exact[finite].astype(np.float64)
    largest = float(np.abs(exacts).max(initial=0.0))
    error = float(np.abs(values - exacts).max(initial=0.0))
    return error / largest if largest else error


def worst(values: Sequence[Array], exact: Sequence[Array]) -> float:
    """The largest `difference` of several results."""
    return max((difference(v, e) for v, e in zip(values, exact, strict=True)), default=0.0)
