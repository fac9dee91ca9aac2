"""Elementwise ops on vectors of integers: exact, wrapping around, and without anything that traps.

Ops that are the same of floats are in `vector_math.py` alone.

Division is an instruction that stops the process where the divisor is 0, or the quotient is one too
large (the least integer by -1): such divisors are replaced by 1 first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lucid.codegen.language.builder import Kernel, V
from lucid.codegen.language.values import Integers, Vector
from lucid.ir import ops
from lucid.ir.ops.base import Op

Lowering = Callable[[Kernel, Any, Sequence[Integers]], Vector]
LOWERINGS: dict[type[Op], Lowering] = {}


def lowers(op_class: type[Op]) -> Callable[[Lowering], Lowering]:
    """Register the decorated function as the lowering of an op of integers."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS[op_class] = function
        return function

    return register


def bits(k: Kernel, emit: str, a: V, b: V) -> V:
    """An instruction of two operands that treats integers as bits."""
    return a.of(getattr(k.builder, emit)(a.raw, b.raw))


# -- arithmetic -----------------------------------------------------------------------------------


@lowers(ops.Abs)
def _abs(k: Kernel, op: ops.Abs, x: Sequence[Integers]) -> Vector:
    return k.pick(x[0].compare("<", 0), -x[0], x[0])


@lowers(ops.Sign)
def _sign(k: Kernel, op: ops.Sign, x: Sequence[Integers]) -> Vector:
    negative = k.pick(x[0].compare("<", 0), x[0].like(-1), x[0])
    return k.pick(x[0].compare(">", 0), x[0].like(1), negative)


# -- division -------------------------------------------------------------------------------------


def quotient(k: Kernel, a: Integers, b: Integers) -> Integers:
    """a / b rounded towards zero; 0 where b is 0, and -a, which wraps around, where it is -1."""
    trapping = b.compare("==", 0)
    if a.signed:
        trapping = k.either_of(trapping, b.compare("==", -1))
    divisor = k.pick(trapping, b.like(1), b)
    result = bits(k, "sdiv" if a.signed else "udiv", a, divisor)
    if a.signed:
        result = k.pick(b.compare("==", -1), -a, result)
    return k.pick(b.compare("==", 0), b.like(0), result)


def remainder(k: Kernel, a: Integers, b: Integers) -> Integers:
    """a - b * trunc(a / b), and 0 where b is 0."""
    return k.pick(b.compare("==", 0), b.like(0), a - quotient(k, a, b) * b)


def _crosses(k: Kernel, rest: Integers, b: Integers) -> Any:
    """Where a remainder is not 0 and has another sign than the divisor."""
    differ = k.builder.xor(rest.compare("<", 0), b.compare("<", 0))
    return k.both(differ, rest.compare("!=", 0))


@lowers(ops.Div)
def _div(k: Kernel, op: ops.Div, x: Sequence[Integers]) -> Vector:
    return quotient(k, x[0], x[1])


@lowers(ops.FloorDiv)
def _floor_div(k: Kernel, op: ops.FloorDiv, x: Sequence[Integers]) -> Vector:
    a, b = x
    towards_zero = quotient(k, a, b)
    if not a.signed:
        return towards_zero
    crosses = _crosses(k, remainder(k, a, b), b)
    return k.pick(crosses, towards_zero - 1, towards_zero)


@lowers(ops.Mod)
def _mod(k: Kernel, op: ops.Mod, x: Sequence[Integers]) -> Vector:
    a, b = x
    rest = remainder(k, a, b)
    if op.truncated or not a.signed:
        return rest
    return k.pick(_crosses(k, rest, b), rest + b, rest)


@lowers(ops.Pow)
def _pow(k: Kernel, op: ops.Pow, x: Sequence[Integers]) -> Vector:
    """By squaring, once for each bit of the exponent."""
    a, b = x
    one, zero = a.like(1), a.like(0)
    with k.loop(0, a.width, carry=[one, a, b], never_empty=True) as loop:
        result, base, exponent = loop.carried
        odd = bits(k, "and_", exponent, one).compare("!=", 0)
        halved = bits(k, "lshr", exponent, one)
        loop.carry([k.pick(odd, result * base, result), base * base, halved])
    power = loop.results[0]
    if not a.signed:
        return power
    odd = bits(k, "and_", b, one).compare("!=", 0)
    units = k.pick(a.compare("==", -1), k.pick(odd, one.like(-1), one), zero)
    units = k.pick(a.compare("==", 1), one, units)
    return k.pick(b.compare("<", 0), units, power)


# -- bits -----------------------------------------------------------------------------------------


@lowers(ops.BitwiseAnd)
def _and(k: Kernel, op: ops.BitwiseAnd, x: Sequence[Integers]) -> Vector:
    return bits(k, "and_", x[0], x[1])


@lowers(ops.BitwiseOr)
def _or(k: Kernel, op: ops.BitwiseOr, x: Sequence[Integers]) -> Vector:
    return bits(k, "or_", x[0], x[1])


@lowers(ops.BitwiseXor)
def _xor(k: Kernel, op: ops.BitwiseXor, x: Sequence[Integers]) -> Vector:
    return bits(k, "xor", x[0], x[1])


@lowers(ops.BitwiseNot)
def _not(k: Kernel, op: ops.BitwiseNot, x: Sequence[Integers]) -> Vector:
    return -x[0] - 1


def _within(k: Kernel, a: Integers, b: Integers) -> tuple[Any, Integers]:
    """Where a can be shifted by b, and b there, which else is undefined."""
    inside = k.builder.icmp_unsigned("<", b.raw, b.like(b.width).raw)
    return inside, k.pick(inside, b, b.like(0))


@lowers(ops.ShiftLeft)
def _shift_left(k: Kernel, op: ops.ShiftLeft, x: Sequence[Integers]) -> Vector:
    inside, count = _within(k, x[0], x[1])
    return k.pick(inside, bits(k, "shl", x[0], count), x[0].like(0))


@lowers(ops.ShiftRight)
def _shift_right(k: Kernel, op: ops.ShiftRight, x: Sequence[Integers]) -> Vector:
    a, b = x
    inside, count = _within(k, a, b)
    beyond = k.pick(a.compare("<", 0), a.like(-1), a.like(0))
    return k.pick(inside, bits(k, "ashr" if a.signed else "lshr", a, count), beyond)
