"""Floats of other sizes as float32 and back: f16, bf16 and f64.

Where a target has no instructions for f16, LLVM would call a function that the object does not
have: the bits are then moved by integer arithmetic (as in Giesen, "Half to float done quick", 2012,
which relies on denormals; here they are zeros, so that no step makes one).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import F16, F32, F64, I16, I32, Vector, constant

SIGN, MAGNITUDE = 0x8000, 0x7FFF
INFINITE = 0x7C00
"""The bits of an f16 that is infinite; NaN has larger ones."""
LEAST_NORMAL = 0x0400
REBIAS = 112 << 23
"""How much larger the exponent of a float32 is than that of the same f16."""


def widened(k: Kernel, value: Any, name: str) -> Vector:
    """Elements of a float dtype as float32; doubles are rounded."""
    kind = ir.VectorType(F32, value.type.count)
    if name == "f64":
        return Vector(k.builder, k.builder.fptrunc(value, kind))
    if name == "bf16":
        return _floats(k, _shifted(k, k.builder.zext(value, _words(value)), "shl", 16))
    if k.target.halves:
        return Vector(k.builder, k.builder.fpext(value, kind))
    return _from_half(k, k.builder.bitcast(value, ir.VectorType(I16, value.type.count)))


def narrowed(k: Kernel, value: Vector, name: str) -> Any:
    """Float32 as elements of a float dtype, rounded to the nearest, ties to even."""
    raw, lanes = value.raw, value.lanes
    if name == "f64":
        return k.builder.fpext(raw, ir.VectorType(F64, lanes))
    if name == "bf16":
        return _to_brain(k, value)
    half = ir.VectorType(F16, lanes)
    if k.target.halves:
        return k.builder.fptrunc(raw, half)
    return k.builder.bitcast(_to_half(k, value), half)


def _from_half(k: Kernel, bits: Any) -> Vector:
    b, words = k.builder, _words(bits)
    wide = b.zext(bits, words)
    magnitude = b.and_(wide, constant(words, MAGNITUDE))
    rebias = constant(words, REBIAS)
    normal = b.add(_shifted(k, magnitude, "shl", 13), rebias)
    special = b.icmp_unsigned(">=", magnitude, constant(words, INFINITE))
    finite = b.select(special, b.add(normal, rebias), normal)
    small = b.icmp_unsigned("<", magnitude, constant(words, LEAST_NORMAL))
    fraction = Vector(b, b.sitofp(magnitude, ir.VectorType(F32, bits.type.count))) * 2.0**-24
    positive = b.select(small, b.bitcast(fraction.raw, words), finite)
    sign = _shifted(k, b.and_(wide, constant(words, SIGN)), "shl", 16)
    return _floats(k, b.or_(positive, sign))


def _to_half(k: Kernel, value: Vector) -> Any:
    b, words = k.builder, _words(value.raw)
    bits = b.bitcast(value.raw, words)
    magnitude = b.and_(bits, constant(words, 0x7FFFFFFF))
    rebiased = b.sub(_rounded(k, magnitude, 13), constant(words, REBIAS >> 13))
    infinite = constant(words, INFINITE)
    finite = b.select(b.icmp_unsigned(">", rebiased, infinite), infinite, rebiased)
    # Next to 0.5, the last bit of a float32 is worth as much as that of the smallest f16.
    counted = (_floats(k, magnitude) + 0.5).raw
    half = b.bitcast(constant(value.raw.type, 0.5), words)
    small = b.icmp_unsigned("<", magnitude, constant(words, REBIAS + (1 << 23)))
    finite = b.select(small, b.sub(b.bitcast(counted, words), half), finite)
    payload = b.and_(_shifted(k, magnitude, "lshr", 13), constant(words, 0x1FF))
    nan = b.or_(payload, constant(words, INFINITE | 0x200))
    is_nan = b.icmp_unsigned(">", magnitude, constant(words, 0x7F800000))
    positive = b.select(is_nan, nan, finite)
    sign = b.and_(_shifted(k, bits, "lshr", 16), constant(words, SIGN))
    return b.trunc(b.or_(positive, sign), ir.VectorType(I16, value.lanes))


def _to_brain(k: Kernel, value: Vector) -> Any:
    b, words = k.builder, _words(value.raw)
    bits = b.bitcast(value.raw, words)
    nan = b.or_(_shifted(k, bits, "lshr", 16), constant(words, 0x40))
    is_nan = b.fcmp_unordered("uno", value.raw, value.raw)
    return b.trunc(b.select(is_nan, nan, _rounded(k, bits, 16)), ir.VectorType(I16, value.lanes))


def _rounded(k: Kernel, bits: Any, count: int) -> Any:
    """Without the last `count` bits, rounded to the nearest, ties to even."""
    b, words = k.builder, bits.type
    odd = b.and_(_shifted(k, bits, "lshr", count), constant(words, 1))
    below_half = constant(words, (1 << count - 1) - 1)
    return _shifted(k, b.add(b.add(bits, below_half), odd), "lshr", count)


def _shifted(k: Kernel, bits: Any, direction: str, count: int) -> Any:
    return getattr(k.builder, direction)(bits, constant(bits.type, count))


def _words(value: Any) -> ir.VectorType:
    """The type of a 32-bit integer for each lane."""
    return ir.VectorType(I32, value.type.count)


def _floats(k: Kernel, bits: Any) -> Vector:
    return Vector(k.builder, k.builder.bitcast(bits, ir.VectorType(F32, bits.type.count)))
