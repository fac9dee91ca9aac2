"""`x[...]`: basic indexing by slices, integers, None and Ellipsis, as slices and a reshape."""

from __future__ import annotations

from typing import Any

import numpy as np

from lucid.errors import InputError
from lucid.frontend.recording import refusal
from lucid.frontend.tensor import Tensor, apply
from lucid.ir import ops
from lucid.ir.types import Dim


def index(x: Tensor, key: Any) -> Tensor:
    """`x[key]`. Raises InputError for keys beyond basic indexing, IndexError out of range."""
    keys = _expand(key if isinstance(key, tuple) else (key,), x.ndim)
    shape: list[int | Dim] = []
    axis = 0
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        if isinstance(k, slice):
            x = _slice(x, axis, k)
            shape.append(x.type.shape[axis])
        else:
            x = _pick(x, axis, k)
        axis += 1
    return x if tuple(shape) == x.type.shape else apply(ops.Reshape(tuple(shape)), x)


def _expand(keys: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
    """The keys with Ellipsis, or its absence at the end, spelt out as full slices."""
    for k in keys:
        known = k is None or k is Ellipsis or isinstance(k, slice | int | np.integer)
        if not known or isinstance(k, bool):
            raise InputError(f"a tensor is indexed by ints, slices, None and ..., not {k!r}")
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > rank:
        raise IndexError(f"{used} indices for a tensor of rank {rank}")
    if not any(k is Ellipsis for k in keys):
        keys = (*keys, Ellipsis)
    at = next(i for i, k in enumerate(keys) if k is Ellipsis)
    return (*keys[:at], *[slice(None)] * (rank - used), *keys[at + 1 :])


def _length(x: Tensor, axis: int) -> int:
    length = x.type.shape[axis]
    if isinstance(length, Dim):
        raise refusal(
            "the forward takes a part of the batch",
            "the graph serves every batch size; only a full slice `:` may stand for the batch",
        )
    return length


def _slice(x: Tensor, axis: int, key: slice) -> Tensor:
    if key == slice(None):
        return x
    length = _length(x, axis)
    start, stop, step = key.indices(length)
    if step < 1:
        raise InputError(f"a slice of a tensor needs a positive step, not {step}")
    if (start, stop, step) == (0, length, 1):
        return x
    return apply(ops.Slice(axis, start, max(start, stop), step), x)


def _pick(x: Tensor, axis: int, key: Any) -> Tensor:
    """Position `key` of an axis, which stays, of length 1, until the final reshape."""
    position, length = int(key), _length(x, axis)
    if not -length <= position < length:
        raise IndexError(f"index {position} is out of range for axis {axis} of size {length}")
    return apply(ops.Slice(axis, position % length, position % length + 1), x)
