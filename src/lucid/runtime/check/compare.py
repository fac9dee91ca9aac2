"""Tolerances of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucid.ir.graph import Graph
from lucid.ir.ops import Fusion, Quantize, Saturate
from lucid.ir.ops.base import Array

EXACT = 1e-8
"""Of the largest value: what two ways to compute the same in float64 may differ by."""
STEPS = 0.1
"""Of the largest value: what two ways to compute a network may differ by that rounds to 8 bits.
A number next to the middle between two integers becomes either; a step is up to 8e-3 of the largest
value, and layers after it add them up (ResNet-18: 1.5e-2). Kernel calls have narrower limits."""


@dataclass(frozen=True)
class Limits:
    """What native code may be off by, of the largest value: one kernel call on given inputs, and a
    whole network."""

    kernel: float
    whole: float


LIMITS = {
    "fast": Limits(2e-5, 1e-4),
    "strict": Limits(5e-6, 5e-5),
    "bf16": Limits(2e-2, 1e-1),
}
"""By precision. Winograd F(4x4), of the fast one, rounds some six times more than a sum; bfloat16
has eight bits: each factor is off by up to 4e-3 of itself."""


def rounds(graph: Graph) -> bool:
    """Whether floats are rounded to integers on the way. What such a graph computes is defined in
    float32: in float64 other numbers lie in the middle between two integers."""
    return any(
        isinstance(n.op, Quantize | Saturate) or (isinstance(n.op, Fusion) and rounds(n.op.body))
        for n in graph.nodes
    )


def rounding_difference(value: Array, exact: Array) -> float:
    """Of integers that floats were rounded to: the mean difference where none is more than a step,
    else the largest, relative to the largest value. Few sums of floats, added up in another order,
    come to the other side of a middle; what is wrong is so in many places or by many steps."""
    if value.shape != exact.shape or value.dtype.kind not in "iu":
        return difference(value, exact)
    steps = np.abs(value.astype(np.float64) - exact.astype(np.float64))
    if steps.max(initial=0.0) > 1:
        return difference(value, exact)
    largest = np.abs(exact.astype(np.float64)).max(initial=1.0)
    return float(steps.mean() / largest) if steps.size else 0.0


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
