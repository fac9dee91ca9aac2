"""What a job's network gives, and how far another answer is from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from job import Job, written


def outputs(job: Job) -> list[np.ndarray]:
    """What the network gives for the job's images."""
    with np.load(job.reference) as data:
        others = sorted(key for key in data.files if key.startswith("output"))
        return [data[key] for key in ("logits", *others)]


def write(job: Job, values: Sequence[np.ndarray], flops: float) -> None:
    """Keep all outputs, and the operations of one run."""
    first, *others = values
    named = {f"output{i}": value for i, value in enumerate(others, 1)}
    with written(job.reference) as path, path.open("wb") as file:
        np.savez(file, logits=first, flops=flops, **named)


def error(found: Sequence[Any], expected: Sequence[np.ndarray]) -> float:
    """The largest absolute error of any output, divided by that output's largest magnitude.
    Infinite where counts, shapes or non-finite numbers do not agree."""
    if len(found) != len(expected):
        return float("inf")
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a = np.asarray(a, np.float64)
        if a.shape != b.shape or not np.isfinite(a).all():
            return float("inf")
        if a.size:
            worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), LEAST)))
    return worst


LEAST = 1e-30
"""What an output of zeros is divided by."""


def leaves(result: object) -> list[Any]:
    """The tensors or arrays of a result: one, a sequence, or a mapping by name, in order."""
    if isinstance(result, dict):
        return [leaf for value in result.values() for leaf in leaves(value)]
    if isinstance(result, tuple | list):
        return [leaf for value in result for leaf in leaves(value)]
    return [result]
