"""Floats to integers of a dtype: rounded half to even, and kept within its range."""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.transcendentals import MAGIC, float_bits, integers, rounded
from lucid.codegen.language.values import I32, Integers, Vector

MAGIC_BITS = 0x4B400000
"""`MAGIC` as an integer: the bits of MAGIC + n, less these, are n."""


def saturated(k: Kernel, x: Vector, name: str, zero_point: int) -> Integers:
    """round(x) + zero_point within the range of an integer dtype; its least number for NaN."""
    row = dtype(name)
    bounds = np.iinfo(row.storage)
    low, high = float(int(bounds.min) - zero_point), float(int(bounds.max) - zero_point)
    if row.bytes > 2:  # floats do not hold its bounds, doubles do
        near = k.widen(rounded(k, x))
        inside = _clamped(k, near, low, high) + float(zero_point)
        whole = k.builder.fptosi(inside.raw, ir.VectorType(I32, x.lanes))
        return Integers(k.builder, whole, row.kind == "signed")
    # Adding MAGIC rounds to the nearest integer, which then is in the low bits.
    bits = float_bits(k, _clamped(k, x, low, high) + MAGIC)
    whole = k.builder.sub(bits, integers(x, MAGIC_BITS - zero_point))
    small = k.builder.trunc(whole, ir.VectorType(row.element, x.lanes))
    return Integers(k.builder, small, row.kind == "signed")


def _clamped(k: Kernel, x: Vector, low: float, high: float) -> Vector:
    """x between two bounds, the lower one for NaN; two instructions."""
    above = k.pick(x.compare(">", low), x, x.like(low))
    return k.pick(above.compare("<", high), above, above.like(high))
