"""Tensors whose elements are known when a model is read: shapes, axes, scalars.

Exporters compute shapes with operators. What they compute is done here, while reading, by the same
references that run models; a dimension that depends on the batch stays a `Dim` on the way, in an
array of objects. Truth values are float32, as in graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod
from typing import Any

import numpy as np

from lucid.errors import UnsupportedError
from lucid.ir.graph import Value
from lucid.ir.ops import (
    Add,
    Array,
    Cast,
    Ceil,
    Concat,
    Div,
    Equal,
    Expand,
    Floor,
    Gather,
    Less,
    LessEqual,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Op,
    Permute,
    Reshape,
    Slice,
    Sub,
    Where,
)
from lucid.ir.types import BATCH, DTYPES, Dim, Shape, TensorType

NAMES = {
    array: name for name, array in DTYPES.items() if name not in ("f16", "bf16", "f64", "bool")
}
"""The dtypes in graphs of NumPy's: floats and truth values are float32."""

MOST_ELEMENTS = 1 << 22
"""Elements of a tensor that is computed while reading: far more than any shape has."""


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor with its elements: float32, integers, or objects (ints and Dims).

    `step`, where it is not 0, makes the first axis, of size 1 in `array`, the batch: the elements
    for image n are those of `array` plus n * step. Such are the indices that take images apart.
    """

    array: Array
    step: int = 0

    @property
    def type(self) -> TensorType:
        shape = self.array.shape
        return TensorType(_dtype(self.array), (BATCH, *shape[1:]) if self.step else shape)

    @property
    def has_batch(self) -> bool:
        """Whether an element depends on the batch."""
        return self.array.dtype == object or self.step != 0


Operand = Value | Known


@dataclass(frozen=True)
class Items:
    """A sequence: its elements, of which one may be anything that a name can stand for."""

    elements: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Foreign:
    """What graphs have no dtype for (strings, complex and packed numbers), or no way to hold:
    as NumPy has it."""

    value: Any


@dataclass(frozen=True)
class Opaque:
    """What the host has computed and graphs cannot hold, by the name that it was given."""

    name: str


@dataclass(frozen=True)
class Nothing:
    """An optional without a value."""


@dataclass(frozen=True)
class Later:
    """The result of an operator that is deferred."""


Held = Operand | Items | Foreign | Opaque | Nothing | Later
"""What a name of the file stands for."""


def known(elements: Any) -> Known:
    """Python's or NumPy's numbers as a Known, in the dtype that graphs have for them."""
    array = np.asarray(elements)
    if array.dtype == object:
        return Known(array if any(isinstance(d, Dim) for d in array.flat) else _whole(array))
    if array.dtype.kind in "fb":
        return Known(array.astype(np.float32, copy=False))
    return Known(array)


def known_shape(shape: Shape) -> Known:
    """The dimensions as a vector."""
    array = np.empty(len(shape), object)
    array[:] = shape
    return known(array)


def fold(op: Op, operands: Sequence[Known]) -> list[Known]:
    """The results of the op for these elements. Raises ShapeError where they do not fit, and
    UnsupportedError where the batch would have to be a number."""
    if any(operand.step for operand in operands):
        return [_fold_steps(op, operands)]
    arrays = [operand.array for operand in operands]
    symbolic = any(operand.has_batch for operand in operands)
    exact = EXACT.get(type(op))
    whole = exact is not None and all(a.dtype.kind in "iuO" for a in arrays)
    if symbolic or (whole and isinstance(op, Div | Equal | Less | LessEqual)):
        if exact is not None:
            function = np.frompyfunc(exact, len(arrays), 1)
            return [_as_result(op, np.asarray(function(*arrays), object), arrays[-1].dtype)]
        if not isinstance(op, MOVES):
            raise UnsupportedError(f"computes {op.name} of the batch size")
        return [known(result) for result in op.results(*arrays)]
    kinds = op.result_types(*(operand.type for operand in operands))
    largest = max(prod(kind.concrete(1)) for kind in kinds)
    if largest > MOST_ELEMENTS:
        raise UnsupportedError(f"computes a constant of {largest} elements")
    results = zip(op.results(*arrays), kinds, strict=True)
    return [Known(np.asarray(array, DTYPES[kind.dtype])) for array, kind in results]


MOVES = (Reshape, Permute, Concat, Slice, Expand, Gather, Cast, Where)
"""Ops whose references take objects as they take numbers."""


def _fold_steps(op: Op, operands: Sequence[Known]) -> Known:
    """Arithmetic with indices that count images: a multiple, a sum, another shape."""
    first, *others = sorted(operands, key=lambda operand: -abs(operand.step))
    match op, others:
        case Mul(), [Known(array, 0)] if array.size == 1 and array.ndim <= first.array.ndim:
            return Known(first.array * array, first.step * int(array.item()))
        case Add(), [Known(array, step)] if _fits(array, first.array):
            return Known(first.array + array, first.step + step)
        case Reshape(shape), [] if shape[:1] == (BATCH,):
            rest = [d for d in shape[1:] if isinstance(d, int)]
            return Known(first.array.reshape((1, *rest)), first.step)
    raise UnsupportedError(f"computes {op.name} of the numbers of the images in a batch")


def _fits(array: Array, indices: Array) -> bool:
    """Whether broadcasting leaves the batch, the first axis of the indices, alone."""
    return array.ndim < indices.ndim or (array.ndim == indices.ndim and len(array) == 1)


def _as_result(op: Op, array: Array, dtype: np.dtype[Any]) -> Known:
    if isinstance(op, Equal | Less | LessEqual):
        return Known(array.astype(np.float32))
    result = known(array)
    whole = dtype.kind in "iu" and result.array.dtype != object
    return Known(result.array.astype(dtype)) if whole else result


def _dtype(array: Array) -> str:
    return "i64" if array.dtype == object else NAMES[array.dtype]


def _whole(array: Array) -> Array:
    """Objects without a Dim among them as what they are."""
    floats = any(isinstance(d, float) for d in array.flat)
    return array.astype(np.float32 if floats else np.int64)


# -- exact arithmetic over sizes -----------------------------------------------------------------

Size = int | float | Dim


def _add(a: Size, b: Size) -> Size:
    if isinstance(a, Dim) and isinstance(b, Dim) and a.symbol == b.symbol:
        return Dim(a.coefficient + b.coefficient, a.symbol)
    if isinstance(a, Dim) or isinstance(b, Dim):
        if b == 0 or a == 0:
            return a if b == 0 else b
        raise UnsupportedError(f"adds {b} to {a}, a size that depends on the batch")
    return a + b


def _subtract(a: Size, b: Size) -> Size:
    if isinstance(b, Dim):
        if isinstance(a, Dim) and a.symbol == b.symbol and a.coefficient >= b.coefficient:
            left = a.coefficient - b.coefficient
            return Dim(left, a.symbol) if left else 0
        raise UnsupportedError(f"subtracts {b}, which depends on the batch, from {a}")
    return _add(a, -b)


def _multiply(a: Size, b: Size) -> Size:
    if isinstance(b, Dim):
        a, b = b, a
    if not isinstance(a, Dim):
        assert not isinstance(b, Dim)
        return a * b
    if isinstance(b, Dim) or b != int(b) or b < 0:
        raise UnsupportedError(f"multiplies {a}, a size that depends on the batch, by {b}")
    return Dim(a.coefficient * int(b), a.symbol) if b else 0


def _divide(a: Size, b: Size) -> Size:
    """Whole numbers are divided as ONNX does: what is behind the point is dropped."""
    if isinstance(a, Dim) and isinstance(b, Dim) and a.symbol == b.symbol:
        a, b = a.coefficient, b.coefficient
        if a % b == 0:
            return a // b
    elif isinstance(a, Dim) and not isinstance(b, Dim):
        if b == int(b) and b > 0 and a.coefficient % int(b) == 0:
            return Dim(a.coefficient // int(b), a.symbol)
    elif not isinstance(a, Dim) and not isinstance(b, Dim):
        if b == 0:
            raise UnsupportedError("divides a size by 0")
        if isinstance(a, float) or isinstance(b, float):
            return a / b
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    raise UnsupportedError(f"divides {a} by {b}: that depends on the batch")


def _equal(a: Size, b: Size) -> bool:
    """The batch is any number: it equals itself, and nothing that is written down."""
    return a == b


def _less(a: Size, b: Size) -> bool:
    if isinstance(a, Dim) or isinstance(b, Dim):
        lower = b if isinstance(a, Dim) else a
        if isinstance(lower, Dim) or lower > 0:
            raise UnsupportedError(f"compares {a} with {b}: that depends on the batch")
        return isinstance(b, Dim)
    return a < b


def _less_equal(a: Size, b: Size) -> bool:
    return a == b or _less(a, b)


def _maximum(a: Size, b: Size) -> Size:
    """A batch is 1 at least wherever exporters ask."""
    if isinstance(a, Dim) != isinstance(b, Dim):
        dim, other = (a, b) if isinstance(a, Dim) else (b, a)
        if not isinstance(other, Dim) and other <= 1:
            return dim
    return b if a == b or _less(a, b) else a


def _minimum(a: Size, b: Size) -> Size:
    return a if a == b or _less(a, b) else b


EXACT: dict[type[Op], Callable[..., Any]] = {
    Add: _add,
    Sub: _subtract,
    Mul: _multiply,
    Div: _divide,
    Equal: _equal,
    Less: _less,
    LessEqual: _less_equal,
    Maximum: _maximum,
    Minimum: _minimum,
    Floor: lambda a: a if isinstance(a, Dim) else floor(a),
    Ceil: lambda a: a if isinstance(a, Dim) else ceil(a),
    Neg: lambda a: _subtract(0, a),
    Where: lambda condition, a, b: a if condition else b,
}
