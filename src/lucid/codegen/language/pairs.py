"""Products of pairs of 16-bit integers, summed up in 32 bits: a[2i] b[2i] + a[2i+1] b[2i+1]."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I16, I32, Integers, Vector

MULTIPLY_ADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}
"""`pmaddwd` by the vector's lanes, named so that no pass takes it apart."""


def multiply_add(k: Kernel, a: Vector, b: Vector, total: Integers) -> Integers:
    """total + a . b in each 32-bit lane, modulo 2^32; a and b: vectors of pairs, of four bytes."""
    lanes = total.lanes
    pairs, sums = ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, lanes)
    left, right = (k.builder.bitcast(x.raw, pairs) for x in (a, b))
    if k.target.is_x86 and k.target.dot:
        name = f"llvm.x86.avx512.vpdpwssd.{32 * lanes}"
        function = k.intrinsic(name, sums, [sums, pairs, pairs])
        return total.of(k.builder.call(function, [total.raw, left, right]))
    if k.target.is_x86:
        function = k.intrinsic(MULTIPLY_ADD[lanes], sums, [pairs, pairs])
        return total + total.of(k.builder.call(function, [left, right]))
    halves = (_numbers(k, left, first) * _numbers(k, right, first) for first in (0, 1))
    return sum(halves, total)


def _numbers(k: Kernel, pairs: Any, first: int) -> Integers:
    """The first or second number of each pair, in 32 bits: LLVM makes widening multiply-adds of
    products of these."""
    count = pairs.type.count
    half = k.shuffle(Integers(k.builder, pairs, True), range(first, count, 2))
    return half.of(k.builder.sext(half.raw, ir.VectorType(I32, count // 2)))
