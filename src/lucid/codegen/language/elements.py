"""Numbers in memory and in registers, of any dtype, side by side or apart.

Kernels compute with float32, whatever floats they read and write, and with integers of each size.
An `Access` says how an operand lies along the dimension that a kernel runs over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from lucid.codegen.language import halves
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED, DType, dtype
from lucid.codegen.language.values import (
    F32,
    I1,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    Int,
    Integers,
    Pointer,
    Vector,
    constant,
    size_of,
)

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
    dtype: str = COMPUTED
    apart: int = 1

    @staticmethod
    def along(stride: int, dtype: str = COMPUTED) -> Access:
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
        return self.kind + spacing + ("" if self.dtype == COMPUTED else f" {self.dtype}")


def load(
    k: Kernel, access: Access, base: Pointer, index: Int, stride: Int, lanes: int, mask: Any
) -> Vector:
    """Numbers `index` to `index + lanes` along the inner dimension, as they are computed with;
    zeros, which are not read, where `mask` says no.

    Without mask, `every` reads up to the number before the next one: not to be used at the end.
    """
    return numbers(k, fetch(k, access, base, index, stride, lanes, mask), access.dtype)


def fetch(
    k: Kernel, access: Access, base: Pointer, index: Int, stride: Int, lanes: int, mask: Any
) -> Any:
    """As `load`, but as they are in memory."""
    element = base.element
    kind, size = ir.VectorType(element, lanes), size_of(element)
    if access.kind == CONSTANT:
        return k.every_lane(k.builder.load(base.raw, typ=element, align=size), kind.count)
    if access.kind == VECTOR:
        return _contiguous(k, base + index, kind, mask)
    if access.kind == EVERY and mask is None:
        wide = ir.VectorType(element, lanes * access.apart)
        every = _contiguous(k, base + index * access.apart, wide, None)
        chosen = ir.Constant(ir.VectorType(I32, lanes), [i * access.apart for i in range(lanes)])
        return k.builder.shuffle_vector(every, ir.Constant(wide, ir.Undefined), chosen)
    return _from_places(k, _places(k, base, index, stride, lanes), kind, mask)


def gather(k: Kernel, base: Pointer, offsets: Any, mask: Any = None) -> Vector:
    """The elements that lie so many (a vector of integers) behind `base`; zeros, which are not
    read, where `mask` says no."""
    lanes = offsets.type.count
    places = k.builder.gep(base.raw, [offsets], source_etype=base.element)
    places.type = ir.VectorType(PTR, lanes)  # llvmlite knows no vectors of addresses
    return Vector(k.builder, _from_places(k, places, ir.VectorType(base.element, lanes), mask))


def _from_places(k: Kernel, places: Any, kind: ir.VectorType, mask: Any) -> Any:
    """The elements at a vector of addresses."""
    name = f"llvm.masked.gather.{k.suffix(kind)}.v{kind.count}p0"
    function = k.intrinsic(name, kind, [places.type, I32, ir.VectorType(I1, kind.count), kind])
    align = ir.Constant(I32, size_of(kind.element))
    every = _or_all(mask, kind.count)
    return k.builder.call(function, [places, align, every, constant(kind, 0)])


def put(
    k: Kernel, value: Any, access: Access, base: Pointer, index: Int, stride: Int, mask: Any
) -> None:
    """Write elements as they are, a vector of them."""
    kind, align = value.type, size_of(base.element)
    if access.kind == VECTOR:
        address = base + index
        if mask is None:
            k.builder.store(value, address.raw, align=align)
            return
        name = f"llvm.masked.store.{k.suffix(kind)}.p0"
        store = k.intrinsic(name, VOID, [kind, PTR, I32, ir.VectorType(I1, kind.count)])
        k.builder.call(store, [value, address.raw, ir.Constant(I32, align), mask])
        return
    places = _places(k, base, index, stride, kind.count)
    name = f"llvm.masked.scatter.{k.suffix(kind)}.v{kind.count}p0"
    scatter = k.intrinsic(name, VOID, [kind, places.type, I32, ir.VectorType(I1, kind.count)])
    k.builder.call(scatter, [value, places, ir.Constant(I32, align), _or_all(mask, kind.count)])


def store(
    k: Kernel, value: Vector, access: Access, base: Pointer, index: Int, stride: Int, mask: Any
) -> None:
    """Write numbers as those of the access: floats as floats of its size, or as integers."""
    put(k, elements(k, value, access.dtype), access, base, index, stride, mask)


def numbers(k: Kernel, value: Any, name: str) -> Vector:
    """Elements of a dtype as they are computed with: all floats as float32 (rounded where they have
    more bits), integers as `Integers` of their own size, and truth values as 0 and 1 of a byte."""
    row = dtype(name)
    if name == COMPUTED:
        return Vector(k.builder, value)
    if row.kind == "float":
        return halves.widened(k, value, name)
    return Integers(k.builder, value, row.kind == "signed")


def splat_number(k: Kernel, value: float, name: str, lanes: int | None = None) -> Vector:
    """A number of a dtype in every lane."""
    row = dtype(name)
    if row.kind == "float":
        return k.splat_constant(value, lanes)
    raw = constant(k.vector_type(lanes, row.element), value)
    return Integers(k.builder, raw, row.kind == "signed")


def elements(k: Kernel, value: Vector, name: str) -> Any:
    """The inverse of `numbers`: what is stored, of numbers that were cast to the dtype, or of
    floats, which are."""
    if isinstance(value, Integers) or name == COMPUTED:
        return value.raw
    if dtype(name).kind == "float":
        return halves.narrowed(k, value, name)
    return cast(k, value, name).raw


def cast(k: Kernel, value: Vector, name: str) -> Vector:
    """Numbers as those of another dtype: of floats, integers towards zero, the nearest bound for
    what is beyond, NaN 0; of integers, those that do not fit wrap around. Truth is what is not 0.
    Floats are rounded to those of fewer bits, and stay float32."""
    row = dtype(name)
    if row.kind == "bool":
        return _truth(k, value)
    if isinstance(value, Integers):
        return _resized(k, value, row) if row.kind != "float" else cast(k, _floats(k, value), name)
    if row.kind != "float":
        return _whole(k, value, row)
    if name in ROUNDED:
        return halves.widened(k, halves.narrowed(k, value, name), name)
    return value


ROUNDED = ("f16", "bf16")
"""Dtypes of floats that have fewer bits than those that are computed with."""


def _truth(k: Kernel, value: Vector) -> Integers:
    zero = value.like(0).raw
    if isinstance(value, Integers):
        holds = k.builder.icmp_unsigned("!=", value.raw, zero)
    else:
        holds = k.builder.fcmp_unordered("!=", value.raw, zero)  # NaN is true
    return Integers(k.builder, k.builder.zext(holds, ir.VectorType(I8, value.lanes)), False)


def _whole(k: Kernel, value: Vector, row: DType) -> Integers:
    kind, signed = ir.VectorType(row.element, value.lanes), row.kind == "signed"
    convert = "llvm.fptosi.sat" if signed else "llvm.fptoui.sat"
    suffixes = f"{k.suffix(kind)}.{k.suffix(value.raw.type)}"
    function = k.intrinsic(f"{convert}.{suffixes}", kind, [value.raw.type])
    return Integers(k.builder, k.builder.call(function, [value.raw]), signed)


def _floats(k: Kernel, value: Integers) -> Vector:
    if value.floats is not None:
        return value.floats
    convert = k.builder.sitofp if value.signed else k.builder.uitofp
    return Vector(k.builder, convert(value.raw, ir.VectorType(F32, value.lanes)))


def _resized(k: Kernel, value: Integers, row: DType) -> Integers:
    kind, width = ir.VectorType(row.element, value.lanes), 8 * row.bytes
    raw = value.raw
    if width < value.width:
        raw = k.builder.trunc(raw, kind)
    elif width > value.width:
        raw = (k.builder.sext if value.signed else k.builder.zext)(raw, kind)
    return Integers(k.builder, raw, row.kind == "signed")


def _contiguous(k: Kernel, address: Pointer, kind: ir.VectorType, mask: Any) -> Any:
    align = size_of(address.element)
    if mask is None:
        return k.builder.load(address.raw, typ=kind, align=align)
    load = k.intrinsic(
        f"llvm.masked.load.{k.suffix(kind)}.p0",
        kind,
        [PTR, I32, ir.VectorType(I1, kind.count), kind],
    )
    arguments = [address.raw, ir.Constant(I32, align), mask, constant(kind, 0)]
    return k.builder.call(load, arguments)


def _places(k: Kernel, base: Pointer, index: Int, stride: Int, lanes: int) -> Any:
    """The addresses of `lanes` elements that are `stride` apart."""
    kind = ir.VectorType(I64, lanes)
    step = k.every_lane(stride.raw, lanes)
    offsets = k.builder.mul(step, ir.Constant(kind, list(range(lanes))))
    start = base + index * stride
    places = k.builder.gep(start.raw, [offsets], source_etype=base.element)
    places.type = ir.VectorType(PTR, lanes)  # llvmlite knows no vectors of addresses
    return places


def _or_all(mask: Any, lanes: int) -> Any:
    return mask if mask is not None else ir.Constant(ir.VectorType(I1, lanes), [1] * lanes)
