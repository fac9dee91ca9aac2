"""Arrays in and out: whatever speaks `__array__` or DLPack comes in, and its kind goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lucid.errors import InputError
from lucid.ir.ops.base import Array

CONVERTERS: dict[type, Callable[[Array], Any]] = {}
"""How to wrap a result for callers who gave an object of this type; the front registers its own."""


FLOAT = np.dtype(np.float32)


def register_converter(kind: type, convert: Callable[[Array], Any]) -> None:
    """Let results be `convert(array)` for callers who gave a `kind`."""
    CONVERTERS[kind] = convert


def describe(array: Array) -> str:
    """`float64[1,3,224,224]`"""
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def as_array(x: Any, dtype: np.dtype[Any] = FLOAT) -> Array:
    """`x` as an aligned, C-contiguous array of `dtype`, without a copy where it is one.

    Raises InputError, which says what `x` is: `got float64[1,3,224,224]; ...`.
    """
    array = x if isinstance(x, np.ndarray) else _foreign(x)
    if array.dtype != dtype:
        raise InputError(f"got {describe(array)}; {_advice(array.dtype, dtype)}")
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")


def _advice(given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """What to do about an array of another dtype."""
    if wanted == np.uint8:
        return (
            "give images as levels 0..255 (lucid.vision's Preprocess.to_uint8_nhwc makes them), or "
            "compile without input='uint8_nhwc'"
        )
    advice = f"convert it with x.astype('{wanted}')"
    return f"{advice}, or compile with input='uint8_nhwc'" if given == np.uint8 else advice


def _foreign(x: Any) -> Array:
    """An array of another library, or what becomes one, as NumPy's."""
    kind = type(x).__name__
    try:
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        if hasattr(x, "__array__"):
            return np.asarray(x)
    except (BufferError, TypeError, RuntimeError, ValueError) as problem:
        raise InputError(f"got a {kind} that cannot be read: {problem}") from problem
    raise InputError(f"got {kind}; give an array: NumPy's, or one with __array__ or DLPack")


def like(x: Any, result: Array) -> Any:
    """The result as the kind of array that `x` is."""
    if isinstance(x, np.ndarray):
        return result
    for kind, convert in CONVERTERS.items():
        if isinstance(x, kind):
            return convert(result)
    if type(x).__module__.partition(".")[0] == "torch":
        import torch

        return torch.from_numpy(result)
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    return result
