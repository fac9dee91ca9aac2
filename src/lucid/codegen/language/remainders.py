"""Remainders of a division of floats, exact whatever the quotient is."""

from __future__ import annotations

import math

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.transcendentals import (
    WIDE_MAGIC,
    float_bits,
    integer_type,
    integers,
)
from lucid.codegen.language.values import I32, I64, Int, Vector, constant

QUOTIENT_BITS = 27
"""Binary digits of a quotient that one step of a remainder takes off: with the 24 of the divisor,
the product of both is a double without rounding."""


def remainder(k: Kernel, a: Vector, b: Vector) -> Vector:
    """a - b * trunc(a / b), exactly, with the sign of a, as C's fmod: long division in doubles.

    Each step subtracts the divisor times the leading digits of the quotient. The product is exact,
    and so is the difference of two numbers as close as that (Sterbenz, 1974). A quotient that was
    rounded up leaves a rest below 0, which counts on.
    """
    size, divisor = k.widen(k.math("fabs", a)), k.widen(k.math("fabs", b))
    with k.loop(0, _steps(k, a, b), carry=[size], never_empty=True) as loop:
        loop.carry([_reduced(k, loop.carried[0], divisor)])
    (rest,) = loop.results
    rest = k.narrow(k.pick(rest.compare("<", 0.0), rest + divisor, rest))
    rest = k.pick(k.math("fabs", b).compare("==", math.inf), a, k.math("copysign", rest, a))
    legal = k.both(k.math("fabs", a).compare("<", math.inf), b.compare("!=", 0.0))
    return k.pick(legal, rest, a.like(math.nan))


def _steps(k: Kernel, a: Vector, b: Vector) -> Int:
    """How many steps the lane with the largest quotient takes."""
    builder, kind = k.builder, integer_type(a)
    sizes = [float_bits(k, k.math("fabs", x)) for x in (a, b)]
    apart = builder.sub(*(builder.lshr(bits, integers(a, 23)) for bits in sizes))
    if a.lanes > 1:
        name = f"llvm.vector.reduce.smax.{k.suffix(kind)}"
        apart = builder.call(k.intrinsic(name, I32, [kind]), [apart])
    return Int(builder, builder.sext(apart, I64)).maximum(0) // QUOTIENT_BITS + 2


def _reduced(k: Kernel, rest: Vector, divisor: Vector) -> Vector:
    """One step of a long division."""
    builder = k.builder
    quotient = rest / divisor
    words = I64 if rest.lanes == 1 else ir.VectorType(I64, rest.lanes)
    digits = constant(words, -(1 << 52 - QUOTIENT_BITS))
    leading = builder.and_(builder.bitcast(quotient.raw, words), digits)
    near = (quotient + WIDE_MAGIC) - WIDE_MAGIC
    floor = k.pick(near.compare(">", quotient), near - 1.0, near)
    large = k.math("fabs", quotient).compare(">", float(1 << QUOTIENT_BITS))
    taken = k.pick(large, Vector(builder, builder.bitcast(leading, rest.raw.type)), floor)
    return rest - taken * divisor


def with_sign_of(k: Kernel, rest: Vector, b: Vector) -> Vector:
    """A remainder by b with b's sign, as Python's %."""
    differ = k.builder.xor(rest.compare("<", 0.0), b.compare("<", 0.0))
    moved = k.pick(differ, rest + b, rest)
    zero = k.math("copysign", rest.like(0.0), b)
    return k.pick(rest.compare("==", 0.0), zero, moved)
