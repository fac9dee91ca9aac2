"""Products of four unsigned bytes and four signed ones, summed up in 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from llvmlite import ir

from lucid.codegen.language import pairs
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I8, I16, I32, Integers, Vector, constant

MULTIPLY_BYTES = {
    8: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.avx512.pmaddubs.w.512",
}
"""`pmaddubsw` by the vector's lanes: a[2i] b[2i] + a[2i+1] b[2i+1] in 16 bits, which saturate."""
SIGNED_DOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"
"""`sdot`, whose bytes are both signed."""


def less_offset(k: Kernel, quads: Integers) -> Integers:
    """Unsigned bytes less the target's offset: of 128, signed ones."""
    offset = k.target.byte_offset * 0x01010101
    return quads.of(k.builder.xor(quads.raw, constant(quads.raw.type, offset))) if offset else quads


def multiply_add(k: Kernel, a: Vector, b: Vector, total: Integers) -> Integers:
    """total + a . b in each 32-bit lane, modulo 2^32, whatever the bytes are; a: `less_offset`."""
    lanes = total.lanes
    if k.target.dot:
        kind, sums = ir.VectorType(I8, 4 * lanes), ir.VectorType(I32, lanes)
        left, right = (k.builder.bitcast(x.raw, kind) for x in (a, b))
        if k.target.is_x86:
            name, operands = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", (left, right)
        else:
            name, operands = SIGNED_DOT, (right, left)  # the second may be a lane of a vector
        function = k.intrinsic(name, sums, [sums, kind, kind])
        return total.of(k.builder.call(function, [total.raw, *operands]))
    for left, right in zip(_halves(k, a, False), _halves(k, b, True), strict=True):
        total = pairs.multiply_add(k, left, right, total)
    return total


def _halves(k: Kernel, quads: Vector, signed: bool) -> tuple[Vector, Vector]:
    """The even and the odd bytes of each lane, as pairs of 16-bit numbers."""
    build, kind = k.builder, ir.VectorType(I16, 2 * quads.lanes)
    odd_above_even, eight = build.bitcast(quads.raw, kind), constant(kind, 8)
    widen = build.ashr if signed else build.lshr
    even = widen(build.shl(odd_above_even, eight), eight)
    return Vector(build, even), Vector(build, widen(odd_above_even, eight))


def add_products(k: Kernel, a: Sequence[Vector], b: Sequence[Vector], total: Integers) -> Integers:
    """total + a . b over vectors whose products add up to less than 2^15 in each half of a lane."""
    lanes = total.lanes
    quads, halves = ir.VectorType(I8, 4 * lanes), ir.VectorType(I16, 2 * lanes)
    function = k.intrinsic(MULTIPLY_BYTES[lanes], halves, [quads, quads])

    def product(left: Vector, right: Vector) -> Any:
        operands = [k.builder.bitcast(x.raw, quads) for x in (left, right)]
        return k.builder.call(function, operands)

    whole = reduce(k.builder.add, map(product, a, b))
    ones = Vector(k.builder, constant(halves, 1))
    return pairs.multiply_add(k, Vector(k.builder, whole), ones, total)
