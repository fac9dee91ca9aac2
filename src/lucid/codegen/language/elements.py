"""Numbers in memory and in registers: floats, bytes and 64-bit integers, side by side or apart.

Kernels compute with floats; what they read is converted as it comes in, and what they write as it
goes out. An `Access` says how an operand lies along the dimension that a kernel runs over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import F32, I1, I32, I64, PTR, VOID, Int, Pointer, Vector

ELEMENTS: dict[str, ir.Type] = {"f32": F32, "u8": ir.IntType(8), "i64": I64}
BYTES = {"f32": 4, "u8": 1, "i64": 8}

VECTOR, CONSTANT, STRIDED, EVERY = "vector", "constant", "strided", "every"

MOST_APART = 4
"""The widest even spacing that is loaded whole and sorted out in registers."""


@dataclass(frozen=True)
class Access:
    """How an operand lies along a kernel's inner dimension.

    `kind`: `vector` (contiguous), `constant` (one number), `every` (each `apart`-th number), or
    `strided` (evenly spaced; how far apart is an argument).
    """

    kind: str = VECTOR
    dtype: str = "f32"
    apart: int = 1

    @staticmethod
    def along(stride: int, dtype: str = "f32") -> Access:
        """The access to numbers that are `stride` apart."""
        if stride in (0, 1):
            return Access(VECTOR if stride else CONSTANT, dtype)
        if 1 < stride <= MOST_APART:
            return Access(EVERY, dtype, stride)
        return Access(STRIDED, dtype)

    def step(self, count: int, stride: int) -> int:
        """How far apart `count` numbers are read where the argument says `stride`. Raises
        ValueError where that is another number."""
        step = {VECTOR: 1, CONSTANT: 0, EVERY: self.apart}.get(self.kind, stride)
        if count > 1 and step != stride:
            raise ValueError(f"{count} numbers {stride} apart, read as {self}")
        return step

    def __repr__(self) -> str:
        spacing = str(self.apart) if self.kind == EVERY else ""
        return self.kind + spacing + ("" if self.dtype == "f32" else f" {self.dtype}")

    def at(self, base: Pointer, count: int | Int) -> Pointer:
        """The address of the element `count` elements on."""
        if isinstance(count, int) and count == 0:
            return base
        return base._offset(ELEMENTS[self.dtype], count)


def load(
    k: Kernel, access: Access, base: Pointer, index: Int, stride: Int, lanes: int, mask: Any
) -> Vector:
    """Numbers `index` to `index + lanes` along the inner dimension, as floats; zeros, which are not
    read, where `mask` says no.

    Without mask, `every` reads up to the number before the next one: not to be used at the end.
    """
    return as_floats(k, fetch(k, access, base, index, stride, lanes, mask), access.dtype)


def fetch(
    k: Kernel, access: Access, base: Pointer, index: Int, stride: Int, lanes: int, mask: Any
) -> Any:
    """As `load`, but as they are in memory."""
    element = ELEMENTS[access.dtype]
    kind = ir.VectorType(element, lanes)
    if access.kind == CONSTANT:
        return _splat(k, k.builder.load(base.raw, typ=element, align=BYTES[access.dtype]), kind)
    if access.kind == VECTOR:
        return _contiguous(k, access.at(base, index), kind, BYTES[access.dtype], mask)
    if access.kind == EVERY and mask is None:
        wide = ir.VectorType(element, lanes * access.apart)
        start = access.at(base, index * access.apart)
        every = _contiguous(k, start, wide, BYTES[access.dtype], None)
        chosen = ir.Constant(ir.VectorType(I32, lanes), [i * access.apart for i in range(lanes)])
        return k.builder.shuffle_vector(every, ir.Constant(wide, ir.Undefined), chosen)
    places = _places(k, access, base, index, stride, lanes)
    name = f"llvm.masked.gather.v{lanes}{_name(element)}.v{lanes}p0"
    gather = k.intrinsic(name, kind, [places.type, I32, ir.VectorType(I1, lanes), kind])
    align = ir.Constant(I32, BYTES[access.dtype])
    return k.builder.call(gather, [places, align, _or_all(mask, lanes), _zeros(kind)])


def put(
    k: Kernel, value: Any, access: Access, base: Pointer, index: Int, stride: Int, mask: Any
) -> None:
    """Write elements as they are, a vector of them."""
    kind, align = value.type, BYTES[access.dtype]
    if access.kind == VECTOR:
        address = access.at(base, index)
        if mask is None:
            k.builder.store(value, address.raw, align=align)
            return
        name = f"llvm.masked.store.v{kind.count}{_name(kind.element)}.p0"
        store = k.intrinsic(name, VOID, [kind, PTR, I32, ir.VectorType(I1, kind.count)])
        k.builder.call(store, [value, address.raw, ir.Constant(I32, align), mask])
        return
    places = _places(k, access, base, index, stride, kind.count)
    name = f"llvm.masked.scatter.v{kind.count}{_name(kind.element)}.v{kind.count}p0"
    scatter = k.intrinsic(name, VOID, [kind, places.type, I32, ir.VectorType(I1, kind.count)])
    k.builder.call(scatter, [value, places, ir.Constant(I32, align), _or_all(mask, kind.count)])


def store(
    k: Kernel, value: Vector, access: Access, base: Pointer, index: Int, stride: Int, mask: Any
) -> None:
    """Write floats as the numbers of the access."""
    put(k, from_floats(k, value, access.dtype), access, base, index, stride, mask)


def as_floats(k: Kernel, value: Any, dtype: str) -> Vector:
    """Elements as floats."""
    if dtype == "f32":
        return Vector(k.builder, value)
    kind = ir.VectorType(F32, value.type.count)
    convert = k.builder.uitofp if dtype == "u8" else k.builder.sitofp
    return Vector(k.builder, convert(value, kind))


def from_floats(k: Kernel, value: Vector, dtype: str) -> Any:
    """Floats as elements: integers towards zero, the nearest bound for what is beyond, NaN 0."""
    if dtype == "f32":
        return value.raw
    kind = ir.VectorType(ELEMENTS[dtype], value.lanes)
    name = "llvm.fptoui.sat" if dtype == "u8" else "llvm.fptosi.sat"
    suffix = f".v{value.lanes}{_name(kind.element)}.v{value.lanes}f32"
    convert = k.intrinsic(name + suffix, kind, [value.raw.type])
    return k.builder.call(convert, [value.raw])


def _contiguous(k: Kernel, address: Pointer, kind: ir.VectorType, align: int, mask: Any) -> Any:
    if mask is None:
        return k.builder.load(address.raw, typ=kind, align=align)
    name = f"llvm.masked.load.v{kind.count}{_name(kind.element)}.p0"
    load = k.intrinsic(name, kind, [PTR, I32, ir.VectorType(I1, kind.count), kind])
    return k.builder.call(load, [address.raw, ir.Constant(I32, align), mask, _zeros(kind)])


def _places(k: Kernel, access: Access, base: Pointer, index: Int, stride: Int, lanes: int) -> Any:
    """The addresses of `lanes` elements that are `stride` apart."""
    kind = ir.VectorType(I64, lanes)
    step = _splat(k, stride.raw, kind)
    offsets = k.builder.mul(step, ir.Constant(kind, list(range(lanes))))
    start = access.at(base, index * stride)
    places = k.builder.gep(start.raw, [offsets], source_etype=ELEMENTS[access.dtype])
    places.type = ir.VectorType(PTR, lanes)  # llvmlite knows no vectors of addresses
    return places


def _splat(k: Kernel, scalar: Any, kind: ir.VectorType) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = k.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    everywhere = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return k.builder.shuffle_vector(first, undefined, everywhere)


def _zeros(kind: ir.VectorType) -> ir.Constant:
    zero = 0.0 if kind.element == F32 else 0
    return ir.Constant(kind, [zero] * kind.count)


def _or_all(mask: Any, lanes: int) -> Any:
    return mask if mask is not None else ir.Constant(ir.VectorType(I1, lanes), [1] * lanes)


def _name(element: ir.Type) -> str:
    """The element's name in those of intrinsics."""
    return "f32" if element == F32 else str(element)
