"""The tensors of a model: read on demand, from the model's memory or its files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import Array
from lucid.ir.types import DTYPES

if TYPE_CHECKING:
    import onnx

External = Callable[[str, int, int | None], Array]
"""The bytes of a file next to the model: its name, where they start, how many they are."""

EXTERNAL = 1
"""The `data_location` of a tensor whose elements lie in a file of their own."""


class Kind(NamedTuple):
    """How elements are stored: raw, and in which field where not raw."""

    name: str
    raw: np.dtype[Any]
    field: str


KINDS = {
    1: Kind("float32", np.dtype("<f4"), "float_data"),
    2: Kind("uint8", np.dtype("u1"), "int32_data"),
    3: Kind("int8", np.dtype("i1"), "int32_data"),
    4: Kind("uint16", np.dtype("<u2"), "int32_data"),
    5: Kind("int16", np.dtype("<i2"), "int32_data"),
    6: Kind("int32", np.dtype("<i4"), "int32_data"),
    7: Kind("int64", np.dtype("<i8"), "int64_data"),
    9: Kind("bool", np.dtype("?"), "int32_data"),
    10: Kind("float16", np.dtype("<f2"), "int32_data"),
    11: Kind("float64", np.dtype("<f8"), "double_data"),
    12: Kind("uint32", np.dtype("<u4"), "uint64_data"),
    13: Kind("uint64", np.dtype("<u8"), "uint64_data"),
    16: Kind("bfloat16", np.dtype("<u2"), "int32_data"),  # the bits it has
}
"""The element types that are read, by their numbers in ONNX."""


BFLOAT16 = 16

INPUTS = {
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "float64": "f64",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "bool": "bool",
}
"""The dtypes of inputs and outputs of graphs, by the names of element types."""


def is_numeric(number: int) -> bool:
    """Whether graphs have a dtype for an element type: not for strings, complex and packed ones."""
    return number in KINDS


def outer_dtype(number: int) -> str:
    """The dtype of an input or output of this element type. Raises UnsupportedError."""
    if number not in KINDS:
        raise UnsupportedError(f"elements of type {number} (strings, complex or packed numbers)")
    return INPUTS[KINDS[number].name]


def graph_dtype(number: int) -> str:
    """The dtype that graphs compute an element type in: floats and truth values in f32, integers in
    their own. Raises UnsupportedError."""
    dtype = outer_dtype(number)
    return "f32" if dtype in ("f16", "bf16", "f64", "bool") else dtype


@cache
def element_of(dtype: np.dtype[Any]) -> int:
    """ONNX's number of the element type that NumPy holds like this."""
    from onnx import TensorProto
    from onnx.helper import np_dtype_to_tensor_dtype

    if dtype.kind in "OSUT":
        return int(TensorProto.STRING)
    return int(np_dtype_to_tensor_dtype(dtype))


def as_stored(array: Array) -> Array:
    """An array as compiled graphs take it: bfloat16, which NumPy lacks, in its bits."""
    is_bfloat16 = array.dtype.kind == "V" and array.dtype.name == "bfloat16"
    return array.view(np.uint16) if is_bfloat16 else array


def as_elements(array: Array, number: int) -> Array:
    """An array that a graph has computed as one of an element type of the file."""
    dtype = numpy_dtype(number)
    if array.dtype == dtype:
        return array
    if number == BFLOAT16 and array.dtype == np.uint16:  # as graphs store them
        return array.view(dtype)
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False)


@cache
def numpy_dtype(number: int) -> np.dtype[Any]:
    """What NumPy, or the package ml_dtypes, holds an element type in."""
    from onnx.helper import tensor_dtype_to_np_dtype

    return np.dtype(tensor_dtype_to_np_dtype(number))


def as_computed(array: Array, number: int) -> Array:
    """An array of an element type of the file as graphs compute with it."""
    with np.errstate(all="ignore"):
        return array.astype(DTYPES[graph_dtype(number)], copy=False)


def foreign_elements(proto: onnx.TensorProto) -> Array:
    """The elements of a tensor of strings, complex or packed numbers."""
    from onnx.numpy_helper import to_array

    return np.asarray(to_array(proto))


class StoredTensor:
    """One tensor of a model, which `numpy.asarray` reads: all floating kinds as float32.

    Nothing is copied before; the model's own memory, or the file mapped, is where the elements lie.
    Raises ModelFileError where there are more or fewer of them than the shape says.
    """

    is_lazy: ClassVar[bool] = True

    def __init__(self, proto: onnx.TensorProto, external: External) -> None:
        if proto.data_type not in KINDS:
            raise UnsupportedError(f"tensor {proto.name!r} has elements of type {proto.data_type}")
        self.kind = KINDS[proto.data_type]
        self.shape = tuple(proto.dims)
        self._proto, self._external = proto, external
        if min(self.shape, default=0) < 0:
            raise ModelFileError(f"tensor {proto.name!r} has the shape {list(self.shape)}")
        if proto.HasField("segment"):
            raise UnsupportedError(f"tensor {proto.name!r} is stored in segments")
        stored, wanted = self._stored().size, prod(self.shape)
        if stored != wanted:
            raise ModelFileError(
                f"tensor {proto.name!r} has the shape {list(self.shape)}, {wanted} elements, but"
                f" {stored} are stored"
            )

    def is_of(self, proto: onnx.TensorProto) -> bool:
        """Whether it is this tensor of a file."""
        return self._proto is proto

    @property
    def dtype(self) -> str:
        """What it reads as: `float32` for all floating kinds."""
        return "float32" if self.is_floating else self.kind.name

    @property
    def is_floating(self) -> bool:
        return "float" in self.kind.name

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._stored().reshape(self.shape)
        if self.kind.name == "bfloat16":
            array = np.asarray(array.astype(np.uint32) << 16, np.uint32).view(np.float32)
        if self.is_floating:
            array = array.astype(np.float32, copy=False)
        return array if dtype is None else array.astype(dtype, copy=False)

    def exact(self) -> Array:
        """The elements in the file's own type."""
        array = self._stored().reshape(self.shape)
        if self.kind.name != "bfloat16":
            return array
        return as_elements(np.ascontiguousarray(array, np.uint16), BFLOAT16)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.array, (np.asarray(self),)

    def _stored(self) -> Array:
        """The elements as they are stored, in one row."""
        proto, kind = self._proto, self.kind
        if proto.data_location == EXTERNAL:
            return self._from_file()
        if not proto.HasField("raw_data"):
            values = getattr(proto, kind.field)
            if kind.name == "float16":
                return np.array(values, np.uint16).view(np.float16)
            return np.array(values, kind.raw)
        return self._elements(np.frombuffer(proto.raw_data, np.uint8))

    def _from_file(self) -> Array:
        entries = {entry.key: entry.value for entry in self._proto.external_data}
        numbers = {k: v for k, v in entries.items() if k in ("offset", "length")}
        if "location" not in entries or not all(v.isdecimal() for v in numbers.values()):
            raise ModelFileError(
                f"tensor {self._proto.name!r} does not say where its elements lie: {entries}"
            )
        length = int(numbers["length"]) if "length" in numbers else None
        if length is None:
            length = prod(self.shape) * self.kind.raw.itemsize
        data = self._external(entries["location"], int(numbers.get("offset", 0)), length)
        return self._elements(data)

    def _elements(self, data: Array) -> Array:
        if data.size % self.kind.raw.itemsize:
            raise ModelFileError(
                f"tensor {self._proto.name!r} has {data.size} bytes, which are no"
                f" {self.kind.name} numbers"
            )
        return data.view(self.kind.raw)
