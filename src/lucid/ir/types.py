"""The types of values: a dtype and a shape whose dimensions are ints or multiples of the batch."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucid.errors import ParseError, ShapeError

DTYPES: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.float32),  # which holds all of its numbers; NumPy has no bfloat16
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "f64": np.dtype(np.float64),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
}
"""What NumPy computes the values of each dtype in. How they lie in memory is the business of code
generation (`codegen/language/dtypes.py`)."""

INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
"""The dtypes of integers, of which truth values are none."""
FLOATS = ("f32",)
"""What floats are computed in, whatever a model's inputs and outputs are."""
NUMBERS = (*FLOATS, *INTEGERS)


def is_float(dtype: str) -> bool:
    """Whether a dtype is one of floats, which references compute in float32 or float64."""
    return DTYPES[dtype].kind == "f"


def held(dtype: str, floating: np.dtype[Any]) -> np.dtype[Any]:
    """What interpreters hold numbers as: floats as what they compute in, unless those are f64."""
    return floating if is_float(dtype) and dtype != "f64" else DTYPES[dtype]


@dataclass(frozen=True, slots=True)
class Dim:
    """`coefficient` times the symbolic batch `symbol`; prints as `N` or `2N`."""

    coefficient: int = 1
    symbol: str = "N"

    def __mul__(self, factor: int) -> Dim:
        return Dim(self.coefficient * factor, self.symbol)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.symbol if self.coefficient == 1 else f"{self.coefficient}{self.symbol}"


class Exact(float):
    """A constant that equals another number only bit by bit: 0.0 is not -0.0, and NaN is itself."""

    __slots__ = ()

    def _bits(self) -> bytes:
        return struct.pack("<d", self)

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, int | float) and self._bits() == struct.pack("<d", other)
        except OverflowError:  # an integer that no float is
            return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._bits())


Shape = tuple["int | Dim", ...]
BATCH = Dim()


Shapes = tuple[tuple[int, ...], ...]
"""The sizes of a graph's inputs: one shape each, in order."""

ShapeArgument = Sequence[int] | Sequence[Sequence[int]]
"""What users give for them: the shape of the one input, or a sequence of shapes."""


def size_text(shape: Iterable[int]) -> str:
    """`1x3x224x224`; `scalar` where there are no axes."""
    return "x".join(map(str, shape)) or "scalar"


def sizes_text(shapes: Iterable[Iterable[int]]) -> str:
    """`1x3x224x224, 1x10`"""
    return ", ".join(map(size_text, shapes))


def concrete(shape: Shape, batch: int) -> tuple[int, ...]:
    """The shape with the symbolic batch replaced by `batch`."""
    return tuple(d.coefficient * batch if isinstance(d, Dim) else d for d in shape)


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of an elementwise op over both, by NumPy's rules. Raises ShapeError."""
    rank = max(len(a), len(b))
    result: list[int | Dim] = []
    for x, y in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if x != y and x != 1 and y != 1:
            shapes = f"({','.join(map(str, a))}) and ({','.join(map(str, b))})"
            raise ShapeError(f"shapes {shapes} cannot be broadcast: {x} and {y} differ")
        result.append(y if x == 1 else x)
    return tuple(result)


def volume(shape: Shape) -> tuple[int, tuple[str, ...]]:
    """The number of elements: the product of all coefficients, and the symbols it is times."""
    count, symbols = 1, []
    for d in shape:
        count *= d.coefficient if isinstance(d, Dim) else d
        if isinstance(d, Dim):
            symbols.append(d.symbol)
    return count, tuple(sorted(symbols))


def parse_dim(text: str) -> int | Dim:
    """`7` -> 7, `N` -> Dim(1), `2N` -> Dim(2). Raises ParseError."""
    match = re.fullmatch(r"(\d*)([A-Za-z_]\w*)?", text.strip())
    if not match or not match.group(0):
        raise ParseError(f"{text!r} is not a dimension: expected an integer, N or a multiple of N")
    digits, symbol = match.groups()
    return Dim(int(digits or 1), symbol) if symbol else int(digits)


@dataclass(frozen=True, slots=True)
class TensorType:
    """The type of a value: `f32[N,3,224,224]`. Layout is no part of it: shapes are logical NCHW."""

    dtype: str
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def empty(self) -> bool:
        """Whether it has no elements, however large the batch is."""
        return 0 in self.shape

    def concrete(self, batch: int) -> tuple[int, ...]:
        """The shape for one size of the batch."""
        return concrete(self.shape, batch)

    def batch_axes(self) -> list[int]:
        """The axes whose size depends on the batch."""
        return [i for i, d in enumerate(self.shape) if isinstance(d, Dim)]

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def parse(text: str) -> TensorType:
        """The inverse of `str`. Raises ParseError."""
        match = re.fullmatch(r"\s*(\w+)\[([^\]]*)\]\s*", text)
        if not match or match.group(1) not in DTYPES:
            raise ParseError(f"{text!r} is not a tensor type such as f32[N,3,224,224]")
        dims = [d for d in match.group(2).split(",") if d.strip()]
        return TensorType(match.group(1), tuple(parse_dim(d) for d in dims))


def f32(*shape: int | Dim) -> TensorType:
    """Shorthand for a float32 tensor type."""
    return TensorType("f32", shape)


def batch_of(types: Sequence[TensorType], shapes: Shapes) -> int | None:
    """The size of the batch N for which values of these types have these shapes: 1 where no type
    depends on it, None where there is no such size."""
    batch: int | None = None
    if len(types) != len(shapes) or any(
        t.rank != len(s) for t, s in zip(types, shapes, strict=True)
    ):
        return None
    for kind, shape in zip(types, shapes, strict=True):
        for dim, size in zip(kind.shape, shape, strict=True):
            if not isinstance(dim, Dim):
                if size != dim:
                    return None
                continue
            number, left = divmod(size, dim.coefficient)
            if left or batch not in (None, number):
                return None
            batch = number
    return 1 if batch is None else batch
