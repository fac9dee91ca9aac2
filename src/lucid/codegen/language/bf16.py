"""Products of pairs of bfloat16 numbers, summed up in float32: a[2i] b[2i] + a[2i+1] b[2i+1].

A bfloat16 is the upper half of a float32, so that without an instruction for them a pair is two
floats after a shift and a mask: one multiply-add each.
"""

from __future__ import annotations

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.halves import narrowed
from lucid.codegen.language.values import BF16, F32, I16, Vector, constant

MULTIPLY_ADD = "llvm.x86.avx512bf16.dpbf16ps.{bits}"
"""`vdpbf16ps`. It rounds to nearest, flushes denormals, and asks no control register about it; in
which order it adds two products, vendors' texts do not agree."""


def multiply_add(k: Kernel, a: Vector, b: Vector, total: Vector) -> Vector:
    """total + a . b in each lane of floats; a and b: vectors of pairs, of four bytes."""
    if k.target.bf16:
        sums, pairs = total.raw.type, ir.VectorType(BF16, 2 * total.lanes)
        name = MULTIPLY_ADD.format(bits=32 * total.lanes)
        function = k.intrinsic(name, sums, [sums, pairs, pairs])
        operands = [k.builder.bitcast(x.raw, pairs) for x in (a, b)]
        return total.of(k.builder.call(function, [total.raw, *operands]))
    for left, right in zip(_numbers(k, a), _numbers(k, b), strict=True):
        total = k.fma(left, right, total)
    return total


def _numbers(k: Kernel, pairs: Vector) -> tuple[Vector, Vector]:
    """The first and the second number of each pair, as floats."""
    kind = pairs.raw.type
    first = k.builder.shl(pairs.raw, constant(kind, 16))
    second = k.builder.and_(pairs.raw, constant(kind, 0xFFFF0000))
    floats = ir.VectorType(F32, kind.count)
    first, second = (k.builder.bitcast(bits, floats) for bits in (first, second))
    return Vector(k.builder, first), Vector(k.builder, second)


def rounded(k: Kernel, value: Vector) -> Vector:
    """Floats as bfloat16 numbers, in integers of 16 bits: rounded to the nearest, ties to even; by
    an instruction, where there is one, denormals to zero."""
    if not k.target.bf16:
        return Vector(k.builder, narrowed(k, value, "bf16"))
    bf16, bits = (ir.VectorType(element, value.lanes) for element in (BF16, I16))
    return Vector(k.builder, k.builder.bitcast(k.builder.fptrunc(value.raw, bf16), bits))
