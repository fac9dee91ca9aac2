"""Tensors as the protocol has them: their datatypes, and their elements in JSON and in binary."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from lucid.errors import InputError
from lucid.runtime.signature import TensorSpec
from lucid.serve.errors import RequestError, require

Array = np.ndarray[Any, np.dtype[Any]]

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The protocol's names of NumPy's dtypes. Its BF16 has none, and its BYTES are no numbers."""
DTYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}
LARGEST_LIST = 1 << 19
"""Elements of an output in JSON: writing them holds up all other requests, by some 200 ms for so
many."""
ANY = -1
"""A size of a dimension that may differ from call to call: the batch."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: `datatype` and `shape` as the protocol writes them."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @staticmethod
    def of(spec: TensorSpec) -> Tensor:
        """Raises InputError for a dtype that the protocol or NumPy does not have."""
        if spec.dtype not in DATATYPES:
            raise InputError(
                f"{spec} cannot be served: the protocol's datatypes that NumPy has are "
                f"{', '.join(DTYPES)}"
            )
        shape = tuple(d if isinstance(d, int) else ANY for d in spec.shape)
        return Tensor(spec.name, DATATYPES[spec.dtype], shape)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape may be given for it. A batch has a row at least."""
        return len(shape) == len(self.shape) and all(
            given == wanted or (wanted == ANY and given >= 1)
            for given, wanted in zip(shape, self.shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.datatype}{list(self.shape)}"


# -- numbers --------------------------------------------------------------------------------


def from_binary(data: memoryview, tensor: Tensor, shape: Sequence[int]) -> Array:
    """The array of little-endian elements in a part of a body: a view, not a copy."""
    dtype = DTYPES[tensor.datatype]
    wanted = prod(shape) * dtype.itemsize
    require(
        len(data) == wanted,
        f"input {tensor.name!r}: {tensor.datatype}{list(shape)} takes {wanted} bytes, got "
        f"{len(data)}",
    )
    if tensor.datatype == "BOOL":
        truth = np.frombuffer(data, np.uint8)
        require(not (truth > 1).any(), f"input {tensor.name!r}: a byte of a BOOL is 0 or 1")
    return np.frombuffer(data, dtype).reshape(shape)


KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}
"""By the kind of a dtype, the kinds of JSON's values that are taken for it."""


def from_json(data: Any, tensor: Tensor, shape: Sequence[int]) -> Array:
    """The array of elements in nested or flat lists of JSON, in row-major order."""
    dtype, what = DTYPES[tensor.datatype], f"input {tensor.name!r}"
    require(isinstance(data, list), f"{what}: `data` is a list of numbers")
    values = _numbers(data, tensor.datatype)
    require(
        values.dtype.kind in KINDS[dtype.kind],
        f"{what}: `data` holds what is no {tensor.datatype}, or lists of several lengths",
    )
    require(
        values.size == prod(shape),
        f"{what}: {tensor.datatype}{list(shape)} takes {prod(shape)} elements, got {values.size}",
    )
    with np.errstate(over="ignore"):
        array = values.astype(dtype).reshape(shape)
    exact = np.isfinite(array).all() if dtype.kind == "f" else (array.ravel() == values.ravel())
    require(bool(np.all(exact)), f"{what}: a number is out of the range of {tensor.datatype}")
    return array


def _numbers(data: list[Any], datatype: str) -> Array:
    """The array of what is in nested lists; an object where that is no numbers, or is ragged."""
    flat = data
    while flat and all(isinstance(element, list) for element in flat):
        flat = list(chain.from_iterable(flat))
    types = set(map(type, flat))
    if not types <= {bool, int, float}:  # NumPy would make all as wide as the longest string
        return np.array(None)
    whole = datatype == "UINT64" and types == {int}  # which NumPy makes floats from 2^63 on
    try:
        return np.array(data, np.uint64 if whole else None)
    except (ValueError, OverflowError, RecursionError):  # ragged, or too deep
        return np.array(None)


def to_json(name: str, array: Array) -> list[Any]:
    """The elements of an output in row-major order. JSON has no NaN and no infinity."""
    if array.size > LARGEST_LIST:
        raise RequestError(
            400,
            f"output {name!r} has {array.size} elements, too many for JSON ({LARGEST_LIST}): ask "
            "for it with the parameter binary_data",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(
            400,
            f"output {name!r} holds NaN or infinity, which JSON cannot: ask for it with the "
            "parameter binary_data",
        )
    elements: list[Any] = array.ravel().tolist()
    return elements


# -- bytes ----------------------------------------------------------------------------------


def strings_from_binary(data: memoryview, name: str, count: int) -> list[memoryview]:
    """The elements of a BYTES tensor: each its length in four bytes, and then so many."""
    found: list[memoryview] = []
    at = 0
    while at < len(data) and len(found) < count:
        length = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    require(
        at == len(data) and len(found) == count,
        f"input {name!r}: {count} elements of BYTES, each with its length in 4 bytes before it, "
        f"do not make up {len(data)} bytes",
    )
    return found


def strings_from_json(data: Any, name: str, count: int) -> list[memoryview]:
    """The elements of a BYTES tensor in JSON: base64."""
    what = f"input {name!r}: `data` of BYTES is a list of {count} base64 strings"
    if isinstance(data, list) and all(isinstance(row, list) for row in data):
        data = [element for row in data for element in row]
    require(isinstance(data, list) and len(data) == count, what)
    try:
        return [memoryview(base64.b64decode(element, validate=True)) for element in data]
    except (TypeError, ValueError, binascii.Error) as error:
        raise RequestError(400, what) from error
