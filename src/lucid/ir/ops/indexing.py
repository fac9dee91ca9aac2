"""Elements taken from, and put to, places that are told by tensors of indices. Axes count from 0.

Indices are i64, and below 0 count from the end. A reference raises InputError for one outside its
axis. Compiled code can raise nothing, and stays within its operands: what it takes from outside is
the element nearest to there, what it would put outside it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lucid.errors import InputError
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import Dim, Shape, TensorType


def counted(op: Op, indices: Array, size: int) -> Array:
    """Indices counted from the start of an axis of `size`. Raises InputError for one outside."""
    outside = (indices < -size) | (indices >= size)
    if outside.any():
        wrong = indices[outside][0]
        raise InputError(f"{op.name}: index {wrong} is outside {-size}..{size - 1}")
    return np.where(indices < 0, indices + size, indices)


def _fits(part: Shape, whole: Shape, axis: int) -> bool:
    """Whether a part has no more elements than the whole along all other axes."""
    return len(part) == len(whole) and all(
        i == axis or a == b or (isinstance(a, int) and isinstance(b, int) and a <= b)
        for i, (a, b) in enumerate(zip(part, whole, strict=True))
    )


def _along(axis: int, indices: Array) -> tuple[Array, ...]:
    """The places (one array for each axis) that indices along one axis stand for."""
    places = list(np.ogrid[tuple(slice(d) for d in indices.shape)])
    places[axis] = indices
    return tuple(places)


@op("gather_elements")
class GatherElements(Op):
    """y[i, j, k] = x[i, indices[i, j, k], k], here along axis 1: torch.gather.

    x: (A..., S, B...) of any dtype, indices: i64 (a..., K, b...), no longer than x along any other
    axis -> x's dtype, the shape of the indices.
    """

    axis: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        within = 0 <= self.axis < x.rank
        self.require(within, f"axis must be within 0..{x.rank - 1}, got {self.axis}")
        self.require(indices.dtype == "i64", f"indices must be i64, got {indices}")
        fits = _fits(indices.shape, x.shape, self.axis)
        self.require(fits, f"{indices} indices do not fit {x} along axis {self.axis}")
        empty = x.shape[self.axis] == 0 and not indices.empty
        self.require(not empty, f"there is nothing to take along axis {self.axis} of {x}")
        return x.with_shape(indices.shape)

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return self.axis not in operands[0].batch_axes()

    def evaluate(self, x: Array, indices: Array) -> Array:
        indices = counted(self, indices, x.shape[self.axis])
        y: Array = x[_along(self.axis, indices)]
        return y


@op("gather_nd")
class GatherND(Op):
    """y[b, i, ...] = x[b, indices[b, i, 0], indices[b, i, 1], ...]: whole slices, each place told
    by several indices.

    x: (B..., S1, ..., Sd, R...) of any dtype, indices: i64 (B..., I..., d) -> (B..., I..., R...);
    `batch_dims` is how many axes B are.
    """

    batch_dims: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        own, depth = self.batch_dims, self._depth(x, indices)
        same = indices.shape[:own] == x.shape[:own]
        self.require(same, f"{x} and {indices} differ in the first {own} axes")
        taken = x.shape[own : own + depth]
        empty = 0 in taken and not indices.empty
        self.require(not empty, f"there is nothing to take along {taken} of {x}")
        return x.with_shape((*indices.shape[:-1], *x.shape[own + depth :]))

    def _depth(self, x: TensorType, indices: TensorType) -> int:
        """How many indices tell a place."""
        self.require(indices.dtype == "i64", f"indices must be i64, got {indices}")
        most = min(x.rank, indices.rank) - 1
        legal = indices.rank > 0 and 0 <= self.batch_dims <= most
        self.require(legal, f"{self.batch_dims} batch_dims of {x} and {indices}")
        (depth,) = self.integers(indices.shape[-1])
        fits = 0 < depth <= x.rank - self.batch_dims
        self.require(fits, f"{depth} indices for each place of {x}")
        return depth

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        x, indices = operands
        own, depth = self.batch_dims, indices.shape[-1]
        assert isinstance(depth, int)
        return not any(own <= axis < own + depth for axis in x.batch_axes())

    def evaluate(self, x: Array, indices: Array) -> Array:
        own, depth = self.batch_dims, indices.shape[-1]
        parts = [counted(self, indices[..., j], x.shape[own + j]) for j in range(depth)]
        images = np.ogrid[tuple(slice(d) for d in x.shape[:own])] if own else []
        spread = (...,) + (None,) * (indices.ndim - 1 - own)
        y: Array = x[(*(image[spread] for image in images), *parts)]
        return y


# -- putting --------------------------------------------------------------------------------------

REDUCTIONS: dict[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
"""What becomes of an element and what is put to its place, by the name of the reduction."""


class Scatter(Op):
    """Base of the ops that put elements to places: `reduction` is what becomes of them."""

    reduction: str

    def require_operands(self, data: TensorType, indices: TensorType, updates: TensorType) -> None:
        known = self.reduction == "none" or self.reduction in REDUCTIONS
        kinds = ", ".join(["none", *REDUCTIONS])
        self.require(known, f"reduction is one of {kinds}, got {self.reduction!r}")
        self.require(indices.dtype == "i64", f"indices must be i64, got {indices}")
        same = data.dtype == updates.dtype
        self.require(same, f"data and updates must have one dtype, got {data} and {updates}")
        if self.reduction != "none":
            self.require_computed(data=data)

    def put(self, y: Array, places: tuple[Array, ...], updates: Array) -> Array:
        """y, changed at these places one after the other, in the order of the updates."""
        with np.errstate(all="ignore"):
            if self.reduction != "none":
                REDUCTIONS[self.reduction].at(y, places, updates)
                return y
        y[places] = updates  # of one place NumPy keeps what comes last
        return y


@op("scatter_elements")
class ScatterElements(Scatter):
    """y = data, and then y[i, indices[i, j, k], k] = updates[i, j, k], here along axis 1, one after
    the other: torch.scatter. Of several to one place the last one wins, or (`reduction` add, mul,
    max, min; NaN wins) all are combined with what stood there, in order.

    data: (A..., S, B...) of any dtype, indices: i64 (a..., K, b...), no longer than data along any
    other axis, updates: as the indices, of data's dtype -> as data.
    """

    axis: int
    reduction: str = "none"

    def infer(self, data: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        within = 0 <= self.axis < data.rank
        self.require(within, f"axis must be within 0..{data.rank - 1}, got {self.axis}")
        self.require_operands(data, indices, updates)
        same = indices.shape == updates.shape
        self.require(same, f"indices and updates differ in shape: {indices} and {updates}")
        fits = _fits(indices.shape, data.shape, self.axis)
        self.require(fits, f"{indices} indices do not fit {data} along axis {self.axis}")
        return data

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return not any(self.axis in kind.batch_axes() for kind in operands)

    def evaluate(self, data: Array, indices: Array, updates: Array) -> Array:
        places = _along(self.axis, counted(self, indices, data.shape[self.axis]))
        return self.put(data.copy(), places, updates)


@op("scatter_nd")
class ScatterND(Scatter):
    """y = data, and then y[indices[i, 0], indices[i, 1], ...] = updates[i], whole slices, one after
    the other; several to one place as for `scatter_elements`.

    data: (S1, ..., Sd, R...) of any dtype, indices: i64 (I..., d), updates: (I..., R...) of data's
    dtype -> as data.
    """

    reduction: str = "none"

    def infer(self, data: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        self.require_operands(data, indices, updates)
        self.require(indices.rank > 0, f"indices must have an axis for each place, got {indices}")
        (depth,) = self.integers(indices.shape[-1])
        self.require(0 < depth <= data.rank, f"{depth} indices for each place of {data}")
        wanted = (*indices.shape[:-1], *data.shape[depth:])
        fits = updates.shape == wanted
        self.require(fits, f"updates must be {data.with_shape(wanted)}, got {updates}")
        return data

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        data, indices, _ = operands
        depth = indices.shape[-1]
        assert isinstance(depth, int)
        taken = any(isinstance(d, Dim) for d in data.shape[:depth])
        return not taken and not indices.batch_axes()

    def evaluate(self, data: Array, indices: Array, updates: Array) -> Array:
        depth = indices.shape[-1]
        places = [counted(self, indices[..., j], data.shape[j]) for j in range(depth)]
        return self.put(data.copy(), tuple(places), updates)
