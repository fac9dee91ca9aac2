"""Numbers in memory and in registers, of any dtype, side by side or apart.

Kernels compute with floats; what they read is converted as it comes in, and what they write as it
goes out. An `Access` says how an operand lies along the dimension that a kernel runs over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.values import (
    F32,
    I1,
    I32,
    I64,
    PTR,
    VOID,
    Int,
    Pointer,
    Vector,
    constant,
    size_of,
)
from lucid.errors import UnsupportedError

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
    """Numbers `index` to `index + lanes` along the inner dimension, as floats; zeros, which are not
    read, where `mask` says no.

    Without mask, `every` reads up to the number before the next one: not to be used at the end.
    """
    return as_floats(k, fetch(k, access, base, index, stride, lanes, mask), access.dtype)


def fetch(
    k: Kernel, access: Access, base: Pointer, index: Int, stride: Int, lanes: int, mask: Any
) -> Any:
    """As `load`, but as they are in memory."""
    element = base.element
    kind, size = ir.VectorType(element, lanes), size_of(element)
    if access.kind == CONSTANT:
        return _splat(k, k.builder.load(base.raw, typ=element, align=size), kind)
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
    """Write floats as the numbers of the access."""
    put(k, from_floats(k, value, access.dtype), access, base, index, stride, mask)


def as_floats(k: Kernel, value: Any, name: str) -> Vector:
    """Elements of a dtype as floats. Raises UnsupportedError for one of other floats."""
    if name == COMPUTED:
        return Vector(k.builder, value)
    signed = _integral(name) == "signed"
    convert = k.builder.sitofp if signed else k.builder.uitofp
    return Vector(k.builder, convert(value, ir.VectorType(F32, value.type.count)))


def from_floats(k: Kernel, value: Vector, name: str) -> Any:
    """Floats as elements of a dtype: integers towards zero, the nearest bound for what is beyond,
    NaN 0; truth is what is not 0. Raises UnsupportedError for one of other floats."""
    if name == COMPUTED:
        return value.raw
    kind = ir.VectorType(dtype(name).element, value.lanes)
    meaning = _integral(name)
    if meaning == "bool":
        return k.builder.zext(k.builder.fcmp_unordered("!=", value.raw, value.like(0.0).raw), kind)
    convert = "llvm.fptosi.sat" if meaning == "signed" else "llvm.fptoui.sat"
    suffixes = f"{k.suffix(kind)}.{k.suffix(value.raw.type)}"
    function = k.intrinsic(f"{convert}.{suffixes}", kind, [value.raw.type])
    return k.builder.call(function, [value.raw])


def is_integer(name: str) -> bool:
    """Whether a dtype's numbers are integers; truth values are none."""
    return dtype(name).kind in ("signed", "unsigned")


def converted(k: Kernel, value: Any, source: str, target: str) -> Any:
    """Integers of one dtype as those of another; what is out of range becomes the nearest bound."""
    if source == target:
        return value
    before, after = dtype(source), dtype(target)
    own, wanted = np.iinfo(before.storage), np.iinfo(after.storage)
    compare = k.builder.icmp_signed if before.kind == "signed" else k.builder.icmp_unsigned
    for sign, bound in (("<", max(own.min, wanted.min)), (">", min(own.max, wanted.max))):
        if bound not in (own.min, own.max):
            limit = constant(value.type, int(bound))
            value = k.builder.select(compare(sign, value, limit), limit, value)
    kind = ir.VectorType(after.element, value.type.count)
    if after.bytes < before.bytes:
        return k.builder.trunc(value, kind)
    if after.bytes == before.bytes:
        return value
    return (k.builder.sext if before.kind == "signed" else k.builder.zext)(value, kind)


def _integral(name: str) -> str:
    """The kind of a dtype whose numbers are integers."""
    kind = dtype(name).kind
    if kind == "float":
        raise UnsupportedError(f"kernels compute with {COMPUTED}, and do not convert {name}")
    return kind


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
    step = _splat(k, stride.raw, kind)
    offsets = k.builder.mul(step, ir.Constant(kind, list(range(lanes))))
    start = base + index * stride
    places = k.builder.gep(start.raw, [offsets], source_etype=base.element)
    places.type = ir.VectorType(PTR, lanes)  # llvmlite knows no vectors of addresses
    return places


def _splat(k: Kernel, scalar: Any, kind: ir.VectorType) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = k.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    everywhere = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return k.builder.shuffle_vector(first, undefined, everywhere)


def _or_all(mask: Any, lanes: int) -> Any:
    return mask if mask is not None else ir.Constant(ir.VectorType(I1, lanes), [1] * lanes)
