"""Numbers that arrays are filled with: tame ones, and those at which arithmetic is not.

Generated code takes denormal numbers for zeros, so inputs that hold some are compared with what
zeros in their place give (`flushed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lucid.ir.types import DTYPES

from .draw import Draw

Array = np.ndarray[Any, np.dtype[Any]]

TINY = float(np.finfo(np.float32).tiny)
"""The smallest normal number."""
LARGEST = float(np.finfo(np.float32).max)

KINDS = ["normal"] * 8 + ["integers", "integers", "wide", "offset", "equal", "zeros"]
"""Of what is finite and of moderate size, so that each sum of it is, too."""
WILD = ["strange", "strange", "nan", "infinite", "denormal", "huge"]

SPECIAL = np.array(
    [
        *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, -3.0, 88.5, -104.0),
        *(1e-40, -1e-40, 1e-45, TINY, -TINY, 1e-30, 1e30, -1e30, 3.4e38, -3.4e38, 1e20, 16777217),
    ],
    np.float32,
)


def fill(draw: Draw, shape: Sequence[int], kind: str = "normal") -> Array:
    """A float32 array of one kind of numbers."""
    rng = draw.arrays
    normal = rng.standard_normal(shape, np.float32)
    match kind:
        case "normal":
            return normal
        case "positive":
            return np.abs(normal) + np.float32(0.25)
        case "integers":
            return rng.integers(-3, 4, shape).astype(np.float32)
        case "wide":
            return normal * np.exp(rng.uniform(-20, 20, shape)).astype(np.float32)
        case "offset":
            return normal + np.float32(draw.pick([-30.0, 100.0]))
        case "equal":
            return np.full(shape, draw.pick([0.1, -1.7, 33.3]), np.float32)
        case "zeros":
            return np.zeros(shape, np.float32)
        case "huge":
            return normal * np.float32(1e37)
        case "denormal":
            return normal * np.float32(1e-38)
    strange = {"nan": [np.nan], "infinite": [np.inf, -np.inf, 3.0]}.get(kind, SPECIAL)
    some = rng.random(shape) < draw.pick([0.002, 0.02, 0.3])
    chosen = rng.choice(np.asarray(strange, np.float32), shape)
    return np.where(some, chosen, normal).astype(np.float32)


def whole(draw: Draw, shape: Sequence[int], dtype: str) -> Array:
    """Integers of a dtype: small ones, its bounds and what lies beside them, and any."""
    kind, rng = DTYPES[dtype], draw.arrays
    info = np.iinfo(kind)
    least, most = int(info.min), int(info.max)
    edges = np.array([least, least + 1, most, most - 1, most // 2, 0, 1, 2, info.bits], kind)
    small = rng.integers(-3 if least else 0, 4, shape).astype(kind)
    drawn = rng.integers(least, most, shape, kind, endpoint=True)
    chosen = draw.pick([0.0, 0.1, 0.5])
    some = np.where(rng.random(shape) < chosen, rng.choice(edges, shape), small)
    return np.where(rng.random(shape) < draw.pick([0.0, 0.5, 1.0]), drawn, some)


def flushed(array: Array) -> Array:
    """The array with zeros for denormal numbers."""
    if array.dtype != np.float32:
        return array
    return np.where(np.abs(array) < TINY, np.copysign(np.float32(0), array), array)
