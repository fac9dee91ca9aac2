"""The values of generated code: integers, vectors, pointers, and the state of a loop.

Operators on them generate instructions through the builder of their kernel, so that kernel code
reads like the loop nest it generates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from lucid.codegen.language.builder import Kernel

F32 = ir.FloatType()
F64 = ir.DoubleType()
I1 = ir.IntType(1)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
PTR = ir.PointerType()
VOID = ir.VoidType()


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


class Int:
    """A 64-bit integer of the generated code; operations on constants are done here and now."""

    __slots__ = ("kernel", "known", "raw")

    def __init__(self, kernel: Kernel, raw: Any) -> None:
        self.kernel = kernel
        self.known: int | None = raw if isinstance(raw, int) else None
        self.raw = _constant(raw) if isinstance(raw, int) else raw

    def _binary(self, other: int | Int, emit: str, fold: Callable[[int, int], int]) -> Int:
        right = self.kernel.int(other)
        if self.known is not None and right.known is not None:
            return Int(self.kernel, fold(self.known, right.known))
        return Int(self.kernel, getattr(self.kernel.builder, emit)(self.raw, right.raw))

    def __add__(self, other: int | Int) -> Int:
        if isinstance(other, int) and other == 0:
            return self
        return self._binary(other, "add", lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: int | Int) -> Int:
        return self._binary(other, "sub", lambda a, b: a - b)

    def __rsub__(self, other: int) -> Int:
        return self.kernel.int(other) - self

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
        return self.kernel.builder.icmp_signed(sign, self.raw, self.kernel.int(other).raw)

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
        right = self.kernel.int(other)
        return Int(self.kernel, self.kernel.builder.select(self < right, self.raw, right.raw))

    def maximum(self, other: int | Int) -> Int:
        right = self.kernel.int(other)
        return Int(self.kernel, self.kernel.builder.select(self > right, self.raw, right.raw))

    def ceil_div(self, other: int | Int) -> Int:
        return (self + (self.kernel.int(other) - 1)) // other


class Vector:
    """A vector of floats (or, with one lane, a scalar float) of the generated code; where
    `Kernel.widen` made it, of doubles."""

    __slots__ = ("kernel", "raw")

    def __init__(self, kernel: Kernel, raw: Any) -> None:
        self.kernel = kernel
        self.raw = raw

    @property
    def lanes(self) -> int:
        kind = self.raw.type
        return kind.count if isinstance(kind, ir.VectorType) else 1

    def _with(self, other: float | Vector, emit: str) -> Vector:
        right = self.like(other)
        return Vector(self.kernel, getattr(self.kernel.builder, emit)(self.raw, right.raw))

    def like(self, value: float | Vector) -> Vector:
        """`value` with as many lanes as this vector, of floats or doubles as it has."""
        if isinstance(value, Vector):
            return value
        kind = self.raw.type
        if kind in (F64, ir.VectorType(F64, self.lanes)):
            many = isinstance(kind, ir.VectorType)
            return Vector(self.kernel, ir.Constant(kind, [value] * self.lanes if many else value))
        return self.kernel.splat_constant(value, self.lanes)

    def __add__(self, other: float | Vector) -> Vector:
        return self._with(other, "fadd")

    __radd__ = __add__

    def __sub__(self, other: float | Vector) -> Vector:
        return self._with(other, "fsub")

    def __rsub__(self, other: float) -> Vector:
        return self.like(other) - self

    def __mul__(self, other: float | Vector) -> Vector:
        return self._with(other, "fmul")

    __rmul__ = __mul__

    def __truediv__(self, other: float | Vector) -> Vector:
        return self._with(other, "fdiv")

    def __rtruediv__(self, other: float) -> Vector:
        return self.like(other) / self

    def __neg__(self) -> Vector:
        return Vector(self.kernel, self.kernel.builder.fneg(self.raw))

    def compare(self, sign: str, other: float | Vector) -> Any:
        """Ordered comparison, one bit a lane: false where either is NaN."""
        return self.kernel.builder.fcmp_ordered(sign, self.raw, self.like(other).raw)


class Pointer:
    """An address; offsets are in floats unless said otherwise."""

    __slots__ = ("kernel", "raw")

    def __init__(self, kernel: Kernel, raw: Any) -> None:
        self.kernel = kernel
        self.raw = raw

    def __add__(self, floats: int | Int) -> Pointer:
        if isinstance(floats, int) and floats == 0:
            return self
        return self._offset(F32, floats)

    def bytes(self, count: int | Int) -> Pointer:
        return self._offset(ir.IntType(8), count)

    def words(self, count: int | Int) -> Pointer:
        """Offset in 64-bit words."""
        return self._offset(I64, count)

    def _offset(self, element: ir.Type, count: int | Int) -> Pointer:
        k = self.kernel
        moved = k.builder.gep(self.raw, [k.int(count).raw], source_etype=element)
        return Pointer(k, moved)


class Loop:
    """What a `with kernel.loop(...)` block sees: the index, and values carried between rounds."""

    def __init__(self, index: Int, carried: list[Vector]) -> None:
        self.index = index
        self.carried = carried
        self.results: list[Vector] = []

    def carry(self, values: Sequence[Vector]) -> None:
        """What the carried values are in the next round (after the last: in `results`)."""
        self.carried = list(values)
