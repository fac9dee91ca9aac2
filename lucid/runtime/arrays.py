"""Arrays in and out: whatever speaks `__array__` or DLPack comes in, and its kind goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lucid.errors import InputError
from lucid.ir.ops.base import Array

CONVERTERS: dict[type, Callable[[Array], Any]] = {}
"""How to wrap a result for callers who gave an object of this type; the front registers its own."""


def register_converter(kind: type, convert: Callable[[Array], Any]) -> None:
    """Let results be `convert(array)` for callers who gave a `kind`."""
    CONVERTERS[kind] = convert


def as_array(x: Any, name: str) -> Array:
    """`x` as a C-contiguous float32 array, without a copy where it is one. Raises InputError."""
    if isinstance(x, np.ndarray):
        array = x
    elif hasattr(x, "__dlpack__"):
        try:
            array = np.from_dlpack(x)
        except (BufferError, TypeError, RuntimeError, ValueError) as problem:
            raise InputError(f"{name}: this {type(x).__name__} cannot be read: {problem}") from None
    elif hasattr(x, "__array__"):
        array = np.asarray(x)
    else:
        raise InputError(f"{name} must be a float32 array, got {type(x).__name__}")
    if array.dtype != np.float32:
        raise InputError(
            f"{name} must be float32, got {array.dtype}; convert it with x.astype('float32')"
        )
    return np.ascontiguousarray(array)


def like(x: Any, result: Array) -> Any:
    """The result as the kind of array that `x` is."""
    if isinstance(x, np.ndarray):
        return result
    for kind, convert in CONVERTERS.items():
        if isinstance(x, kind):
            return convert(result)
    module = type(x).__module__.partition(".")[0]
    if module == "torch":
        import torch

        return torch.from_numpy(result)
    return result
