"""`x[...]`: basic indexing by slices, integers, None and Ellipsis, as slices and a reshape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lucid.errors import InputError
from lucid.frontend.recording import refusal
from lucid.ir import ops
from lucid.ir.types import Dim, TensorType


def index_ops(kind: TensorType, key: Any) -> Iterator[ops.Op]:
    """The ops that make `x[key]`, one after the other, of an x of this type.

    Raises InputError for keys beyond basic indexing, IndexError out of range.
    """
    shape: list[int | Dim] = []
    axis = 0
    for k in _expand(key if isinstance(key, tuple) else (key,), kind.rank):
        if k is None:
            shape.append(1)
            continue
        part = _slice(kind, axis, k) if isinstance(k, slice) else _pick(kind, axis, k)
        if part is not None:
            yield part
            kind = part.infer(kind)
        if isinstance(k, slice):
            shape.append(kind.shape[axis])
        axis += 1
    if tuple(shape) != kind.shape:
        yield ops.Reshape(tuple(shape))


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


def _length(kind: TensorType, axis: int) -> int:
    length = kind.shape[axis]
    if isinstance(length, Dim):
        raise refusal(
            "the forward takes a part of the batch",
            "the graph serves every batch size; only a full slice `:` may stand for the batch",
        )
    return length


def _slice(kind: TensorType, axis: int, key: slice) -> ops.Slice | None:
    """What a slice takes of an axis; None where that is all of it."""
    if key == slice(None):
        return None
    length = _length(kind, axis)
    start, stop, step = key.indices(length)
    if step < 1:
        raise InputError(f"a slice of a tensor needs a positive step, not {step}")
    if (start, stop, step) == (0, length, 1):
        return None
    return ops.Slice(axis, start, max(start, stop), step)


def _pick(kind: TensorType, axis: int, key: Any) -> ops.Slice:
    """Position `key` of an axis, which stays, of length 1, until the final reshape."""
    position, length = int(key), _length(kind, axis)
    if not -length <= position < length:
        raise IndexError(f"index {position} is out of range for axis {axis} of size {length}")
    return ops.Slice(axis, position % length, position % length + 1)
