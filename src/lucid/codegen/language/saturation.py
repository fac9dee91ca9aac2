"""Floats to integers of a dtype: rounded half to even, and kept within its range."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import DType, dtype
from lucid.codegen.language.transcendentals import MAGIC, at_most, float_bits, integers, rounded
from lucid.codegen.language.values import I32, Integers, Vector, constant

MAGIC_BITS = 0x4B400000
"""`MAGIC` as an integer: the bits of MAGIC + n, less these, are n."""
CONVERT = {4: "llvm.x86.sse2.cvtps2dq", 8: "llvm.x86.avx.cvt.ps2dq.256"}
"""`cvtps2dq` by the vector's lanes: rounds half to even, and makes the least integer of NaN and of
what is beyond its range."""


def saturated(k: Kernel, x: Vector, name: str, zero_point: int) -> Integers:
    """round(x) + zero_point within the range of an integer dtype; its least number for NaN."""
    row = dtype(name)
    bounds = np.iinfo(row.storage)
    low, high = float(int(bounds.min) - zero_point), float(int(bounds.max) - zero_point)
    signed = row.kind == "signed"
    if row.bytes > 2:  # floats do not hold its bounds, doubles do
        near = k.widen(rounded(k, x))
        inside = _clamped(k, near, low, high) + float(zero_point)
        return Integers(k.builder, k.builder.fptosi(inside.raw, _of(I32, x.lanes)), signed)
    # Adding MAGIC rounds to the nearest integer, which then is in the low bits.
    near = _clamped(k, x, low, high) + MAGIC
    if row.bytes == 1 and k.target.is_x86 and k.vector in CONVERT and x.lanes % k.vector == 0:
        raw = _packed(k, at_most(k, x, high), row, zero_point)
    else:
        whole = k.builder.sub(float_bits(k, near), integers(x, MAGIC_BITS - zero_point))
        raw = k.builder.trunc(whole, _of(row.element, x.lanes))
    # Exact, and never -0. Of the two forms LLVM drops the one that nothing reads.
    return Integers(k.builder, raw, signed, near - (MAGIC - zero_point))


def _packed(k: Kernel, x: Vector, row: DType, zero_point: int) -> Any:
    """Bytes of floats below 2^31 or NaN, by instructions that saturate: to 16 bits, where the zero
    point is added, and to 8."""
    parts = [k.shuffle(x, range(at, at + k.vector)).raw for at in range(0, x.lanes, k.vector)]
    convert = k.intrinsic(CONVERT[k.vector], _of(I32, k.vector), [parts[0].type])
    near = k.joined([Integers(k.builder, k.builder.call(convert, [p]), True) for p in parts])
    words = _narrowed(k, near, dtype("i16"))
    kind = words.raw.type
    add = k.intrinsic(f"llvm.sadd.sat.{k.suffix(kind)}", kind, [kind, kind])
    moved = k.builder.call(add, [words.raw, constant(kind, zero_point)])
    return _narrowed(k, words.of(moved), row).raw


def _narrowed(k: Kernel, x: Integers, row: DType) -> Integers:
    """Signed integers within the range of a narrower dtype: LLVM knows this for one instruction."""
    bounds = np.iinfo(row.storage)
    low, high = x.like(int(bounds.min)), x.like(int(bounds.max))
    above = k.pick(x.compare("<", low), low, x)
    inside = k.pick(above.compare(">", high), high, above)
    return x.of(k.builder.trunc(inside.raw, _of(row.element, x.lanes)))


def _of(element: ir.Type, lanes: int) -> ir.Type:
    return ir.VectorType(element, lanes)


def _clamped(k: Kernel, x: Vector, low: float, high: float) -> Vector:
    """x between two bounds, the lower one for NaN; two instructions."""
    above = k.pick(x.compare(">", low), x, x.like(low))
    return k.pick(above.compare("<", high), above, above.like(high))
