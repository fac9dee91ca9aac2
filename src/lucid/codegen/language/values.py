"""The values of generated code: integers, vectors, pointers, and the state of a loop.

Operators on them generate instructions through llvmlite's builder, which each value holds, so that
kernel code reads like the loop nest it generates.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from llvmlite import ir

F16 = ir.HalfType()
F32 = ir.FloatType()
F64 = ir.DoubleType()


class BrainFloatType(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """bfloat16, which llvmlite 0.50 has no class for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrainFloatType)

    def __hash__(self) -> int:
        return hash(BrainFloatType)


BF16 = BrainFloatType()
I1 = ir.IntType(1)
I8 = ir.IntType(8)
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
PTR = ir.PointerType()
VOID = ir.VoidType()

FLOATS = {F16: 2, F32: 4, F64: 8}
"""Bytes of the floating types."""


@dataclass(frozen=True)
class PointerTo:
    """The type of an argument that is the address of such elements."""

    element: ir.Type


def size_of(element: ir.Type) -> int:
    """Bytes that an element of this type takes."""
    return element.width // 8 if isinstance(element, ir.IntType) else FLOATS[element]


def constant(kind: ir.Type, value: float) -> ir.Constant:
    """A number of this type, in every lane where it is one of vectors; floats are rounded, and
    integers are those of the same bits."""
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    if isinstance(element, ir.IntType):
        value = (int(value) + (1 << element.width - 1)) % (1 << element.width)
        value -= 1 << element.width - 1
    if element == F32:
        value = struct.unpack("f", struct.pack("f", value))[0]
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


class Int:
    """A 64-bit integer of the generated code; operations on constants are done here and now."""

    __slots__ = ("builder", "known", "raw")

    def __init__(self, builder: ir.IRBuilder, raw: Any) -> None:
        self.builder = builder
        self.known: int | None = raw if isinstance(raw, int) else None
        self.raw = ir.Constant(I64, raw) if isinstance(raw, int) else raw

    def _operand(self, value: int | Int) -> Int:
        return value if isinstance(value, Int) else Int(self.builder, value)

    def _binary(self, other: int | Int, emit: str, fold: Callable[[int, int], int]) -> Int:
        right = self._operand(other)
        if self.known is not None and right.known is not None:
            return Int(self.builder, fold(self.known, right.known))
        return Int(self.builder, getattr(self.builder, emit)(self.raw, right.raw))

    def __add__(self, other: int | Int) -> Int:
        if isinstance(other, int) and other == 0:
            return self
        return self._binary(other, "add", lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: int | Int) -> Int:
        return self._binary(other, "sub", lambda a, b: a - b)

    def __rsub__(self, other: int) -> Int:
        return self._operand(other) - self

    def __mul__(self, other: int | Int) -> Int:
        if isinstance(other, int) and other == 1:
            return self
        return self._binary(other, "mul", lambda a, b: a * b)

    __rmul__ = __mul__

    def __floordiv__(self, other: int | Int) -> Int:
        """Quotient of two values that are not negative."""
        return self._binary(other, "udiv", lambda a, b: a // b)

    def __mod__(self, other: int | Int) -> Int:
        """Remainder of two values that are not negative."""
        return self._binary(other, "urem", lambda a, b: a % b)

    def compare(self, sign: str, other: int | Int) -> Any:
        return self.builder.icmp_signed(sign, self.raw, self._operand(other).raw)

    def __lt__(self, other: int | Int) -> Any:
        return self.compare("<", other)

    def __le__(self, other: int | Int) -> Any:
        return self.compare("<=", other)

    def __gt__(self, other: int | Int) -> Any:
        return self.compare(">", other)

    def __ge__(self, other: int | Int) -> Any:
        return self.compare(">=", other)

    def equals(self, other: int | Int) -> Any:
        return self.compare("==", other)

    def minimum(self, other: int | Int) -> Int:
        right = self._operand(other)
        return Int(self.builder, self.builder.select(self < right, self.raw, right.raw))

    def maximum(self, other: int | Int) -> Int:
        right = self._operand(other)
        return Int(self.builder, self.builder.select(self > right, self.raw, right.raw))

    def ceil_div(self, other: int | Int) -> Int:
        return (self + (self._operand(other) - 1)) // other


class Vector:
    """A vector of the generated code, or with one lane a scalar. Arithmetic is that of floats, or
    of doubles where `Kernel.widen` made it."""

    __slots__ = ("builder", "raw")

    def __init__(self, builder: ir.IRBuilder, raw: Any) -> None:
        self.builder = builder
        self.raw = raw

    @property
    def lanes(self) -> int:
        kind = self.raw.type
        return kind.count if isinstance(kind, ir.VectorType) else 1

    def of(self, raw: Any) -> Self:
        """Other numbers of the same kind: the result of a shuffle, a choice, a loop."""
        return type(self)(self.builder, raw)

    def _with(self, other: float | Self, emit: str) -> Self:
        right = self.like(other)
        return self.of(getattr(self.builder, emit)(self.raw, right.raw))

    def like(self, value: float | Self) -> Self:
        """`value` with as many lanes as this vector, of floats or doubles as it has."""
        if isinstance(value, Vector):
            return value
        return self.of(constant(self.raw.type, value))

    def __add__(self, other: float | Self) -> Self:
        return self._with(other, "fadd")

    __radd__ = __add__

    def __sub__(self, other: float | Self) -> Self:
        return self._with(other, "fsub")

    def __rsub__(self, other: float) -> Self:
        return self.like(other) - self

    def __mul__(self, other: float | Self) -> Self:
        return self._with(other, "fmul")

    __rmul__ = __mul__

    def __truediv__(self, other: float | Self) -> Self:
        return self._with(other, "fdiv")

    def __rtruediv__(self, other: float) -> Self:
        return self.like(other) / self

    def __neg__(self) -> Self:
        return self.of(self.builder.fneg(self.raw))

    def compare(self, sign: str, other: float | Self) -> Any:
        """Ordered comparison, one bit a lane: false where either is NaN."""
        return self.builder.fcmp_ordered(sign, self.raw, self.like(other).raw)


class Integers(Vector):
    """A vector of integers of one dtype, or with one lane a scalar. Arithmetic wraps around, and
    does not divide: `integer_math.py` does, which guards against what traps.

    `floats`: the same numbers as floats, where they were made of some: a cast converts nothing.
    """

    __slots__ = ("floats", "signed")

    def __init__(
        self, builder: ir.IRBuilder, raw: Any, signed: bool, floats: Vector | None = None
    ) -> None:
        super().__init__(builder, raw)
        self.signed = signed
        self.floats = floats

    @property
    def width(self) -> int:
        """Bits of each lane."""
        kind = self.raw.type
        bits: int = (kind.element if isinstance(kind, ir.VectorType) else kind).width
        return bits

    def of(self, raw: Any) -> Self:
        return type(self)(self.builder, raw, self.signed)

    def __add__(self, other: float | Self) -> Self:
        return self._with(other, "add")

    def __sub__(self, other: float | Self) -> Self:
        return self._with(other, "sub")

    def __mul__(self, other: float | Self) -> Self:
        return self._with(other, "mul")

    def __neg__(self) -> Self:
        return self.of(self.builder.neg(self.raw))

    def __truediv__(self, other: float | Self) -> Self:
        raise TypeError("integers are divided by integer_math.quotient")

    def compare(self, sign: str, other: float | Self) -> Any:
        """One bit a lane."""
        emit = self.builder.icmp_signed if self.signed else self.builder.icmp_unsigned
        return emit(sign, self.raw, self.like(other).raw)


class Pointer:
    """The address of elements of one type, which its offsets count unless said otherwise."""

    __slots__ = ("builder", "element", "raw")

    def __init__(self, builder: ir.IRBuilder, raw: Any, element: ir.Type) -> None:
        self.builder = builder
        self.raw = raw
        self.element = element

    def __add__(self, count: int | Int) -> Pointer:
        if isinstance(count, int) and count == 0:
            return self
        return self._offset(self.element, count)

    def to(self, element: ir.Type) -> Pointer:
        """The same address, as one of other elements."""
        return Pointer(self.builder, self.raw, element)

    def bytes(self, count: int | Int) -> Pointer:
        """Offset in bytes."""
        return self._offset(I8, count)

    def words(self, count: int | Int) -> Pointer:
        """Offset in 64-bit words."""
        return self._offset(I64, count)

    def _offset(self, element: ir.Type, count: int | Int) -> Pointer:
        index = count if isinstance(count, Int) else Int(self.builder, count)
        moved = self.builder.gep(self.raw, [index.raw], source_etype=element)
        return Pointer(self.builder, moved, self.element)


class Loop:
    """What a `with kernel.loop(...)` block sees: the index, and values carried between rounds."""

    def __init__(self, index: Int, carried: list[Vector]) -> None:
        self.index = index
        self.carried = carried
        self.results: list[Vector] = []

    def carry(self, values: Sequence[Vector]) -> None:
        """What the carried values are in the next round (after the last: in `results`)."""
        self.carried = list(values)
