"""The dtypes of memory: one table of their sizes, NumPy types and LLVM types.

Names are those of the IR (`lucid/ir/types.py`), which need not know all of them. Whatever counts
bytes, in a program's buffers and plan, in packed weights or in generated code, asks this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import UnknownNameError

if TYPE_CHECKING:  # to load a model takes the sizes alone
    from llvmlite import ir

    from lucid.ir.ops.base import Array


@dataclass(frozen=True)
class DType:
    """One type of number. `kind`: `float`, `signed`, `unsigned` or `bool` (a byte, 0 or 1).

    `storage`: what NumPy keeps it in, `element`: what LLVM does, `llvm` by its name in `values.py`.
    Both hold bits alone where they have no such numbers: bf16 is the upper half of a float32.
    """

    name: str
    bytes: int
    kind: str
    storage: np.dtype[Any]
    llvm: str

    @property
    def element(self) -> ir.Type:
        from lucid.codegen.language import values

        return getattr(values, self.llvm)

    @property
    def is_bits(self) -> bool:
        """Whether NumPy has no such numbers, and arrays hold their bits."""
        return self.kind == "float" and self.storage.kind != "f"

    @property
    def numbers(self) -> str:
        """What NumPy, or the package ml_dtypes, calls such numbers: `float32`, `bfloat16`."""
        return "bfloat16" if self.is_bits else str(self.storage)

    def encode(self, array: Array) -> Array:
        """Numbers as they are stored: rounded to the nearest float, ties to even; those that NumPy
        lacks by way of float32."""
        if not self.is_bits:
            with np.errstate(over="ignore"):
                return array.astype(self.storage, copy=False)
        bits = np.asarray(array, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(np.isnan(array), bits >> 16 | 0x40, rounded).astype(self.storage)

    def decode(self, array: Array) -> Array:
        """What is stored, as numbers; floats that NumPy lacks as float32."""
        if not self.is_bits:
            return array
        return (array.astype(np.uint32) << 16).view(np.float32)


def _row(name: str, kind: str, storage: type[np.generic], llvm: str) -> DType:
    kept = np.dtype(storage)
    return DType(name, kept.itemsize, kind, kept, llvm)


DTYPES: dict[str, DType] = {
    row.name: row
    for row in (
        _row("f32", "float", np.float32, "F32"),
        _row("f16", "float", np.float16, "F16"),
        _row("bf16", "float", np.uint16, "I16"),
        _row("f64", "float", np.float64, "F64"),
        _row("i8", "signed", np.int8, "I8"),
        _row("i16", "signed", np.int16, "I16"),
        _row("i32", "signed", np.int32, "I32"),
        _row("i64", "signed", np.int64, "I64"),
        _row("u8", "unsigned", np.uint8, "I8"),
        _row("u16", "unsigned", np.uint16, "I16"),
        _row("u32", "unsigned", np.uint32, "I32"),
        _row("u64", "unsigned", np.uint64, "I64"),
        _row("bool", "bool", np.bool_, "I8"),
    )
}


COMPUTED = "f32"
"""The dtype that kernels compute with where nothing else is said."""


def dtype(name: str) -> DType:
    """The type called `name`. Raises UnknownNameError."""
    if name not in DTYPES:
        raise UnknownNameError(f"no dtype is named {name!r}; there are {', '.join(DTYPES)}")
    return DTYPES[name]


def is_integer(name: str) -> bool:
    """Whether a dtype's numbers are integers; truth values are none."""
    return dtype(name).kind in ("signed", "unsigned")
