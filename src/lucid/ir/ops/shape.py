"""Ops that move elements and compute nothing. Axes count from 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from lucid.errors import InputError, ShapeError
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import Dim, Exact, Shape, TensorType, broadcast, volume


@op("reshape")
class Reshape(Op):
    """The elements of x in the same order, in another shape of as many elements.

    One dimension may be -1: whatever is left (an int, or a multiple of the batch). Evaluated alone
    the op does not know the batch: a symbolic dimension is then what is left, or, next to a -1, a
    multiple of the first dimension of x.
    """

    shape: Shape

    def infer(self, x: TensorType) -> TensorType:
        count, symbols = volume(x.shape)
        given, given_symbols = volume(tuple(d for d in self.shape if d != -1))
        mismatch = f"{x} cannot be reshaped to {'x'.join(map(str, self.shape))}"
        if self.shape.count(-1) == 0:
            self.require((count, symbols) == (given, given_symbols), mismatch)
            return x.with_shape(self.shape)
        self.require(self.shape.count(-1) == 1, f"only one dimension may be -1, got {self.shape}")
        left = len(symbols) - len(given_symbols)
        self.require(given > 0 and count % given == 0 and left in (0, 1), mismatch)
        self.require(symbols[: len(given_symbols)] == given_symbols, mismatch)
        rest = count // given if left == 0 else Dim(count // given, symbols[-1])
        return x.with_shape(tuple(rest if d == -1 else d for d in self.shape))

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        """Not where the batch joins axes before it: the images' rows then interleave."""
        before, after = _batch_place(operands[0]), _batch_place(result)
        return before == after or (before[0] == 1 and after[0] == 1)

    def evaluate(self, x: Array) -> Array:
        symbols = [d.symbol for d in self.shape if isinstance(d, Dim)]
        if symbols and -1 in self.shape:
            kind = self.infer(TensorType("f32", (Dim(1, symbols[0]), *x.shape[1:])))
            return x.reshape(kind.concrete(len(x)))
        return x.reshape(tuple(-1 if isinstance(d, Dim) else d for d in self.shape))


@op("permute")
class Permute(Op):
    """y's axis i is x's axis axes[i]."""

    images_apart = True  # what follows is told by the axis that the batch is moved to

    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        legal = sorted(self.axes) == list(range(x.rank))
        self.require(legal, f"axes must be a permutation of 0..{x.rank - 1}, got {self.axes}")
        return x.with_shape(tuple(x.shape[a] for a in self.axes))

    def evaluate(self, x: Array) -> Array:
        return np.transpose(x, self.axes)


@op("concat")
class Concat(Op):
    """The operands one after the other along `axis`; they agree in all other dimensions."""

    axis: int

    def infer(self, first: TensorType, *others: TensorType) -> TensorType:
        self.require(
            0 <= self.axis < first.rank,
            f"axis must be within 0..{first.rank - 1}, got {self.axis}",
        )
        total = first.shape[self.axis]
        for x in others:
            fits = x.dtype == first.dtype and x.rank == first.rank
            same = fits and all(
                a == b or i == self.axis
                for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True))
            )
            self.require(same, f"{x} does not fit {first} along axis {self.axis}")
            total = self._added(total, x.shape[self.axis])
        shape = first.shape
        return first.with_shape((*shape[: self.axis], total, *shape[self.axis + 1 :]))

    def _added(self, a: int | Dim, b: int | Dim) -> int | Dim:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, Dim) and isinstance(b, Dim) and a.symbol == b.symbol:
            return Dim(a.coefficient + b.coefficient, a.symbol)
        raise ShapeError(f"{self.name}: cannot add dimensions {a} and {b}")

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return not any(self.axis in x.batch_axes() for x in operands)

    def evaluate(self, *operands: Array) -> Array:
        return np.concatenate(operands, axis=self.axis)


@op("slice")
class Slice(Op):
    """x[..., start:stop:step, ...] along `axis`, which must not be symbolic.

    0 <= start < stop <= the dimension, step > 0.
    """

    images_apart = True

    axis: int
    start: int
    stop: int
    step: int = 1

    def infer(self, x: TensorType) -> TensorType:
        self.require(
            0 <= self.axis < x.rank, f"axis must be within 0..{x.rank - 1}, got {self.axis}"
        )
        size = x.shape[self.axis]
        if not isinstance(size, int):
            raise ShapeError(f"{self.name}: axis {self.axis} of {x} depends on the batch")
        legal = 0 <= self.start < self.stop <= size and self.step > 0
        asked = f"{self.start}:{self.stop}:{self.step}"
        self.require(legal, f"{asked} is not a range within 0:{size} (axis {self.axis} of {x})")
        length = -(-(self.stop - self.start) // self.step)
        return x.with_shape((*x.shape[: self.axis], length, *x.shape[self.axis + 1 :]))

    def evaluate(self, x: Array) -> Array:
        return x[(slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)]


@op("expand")
class Expand(Op):
    """x broadcast to `shape` by NumPy's rules. A dimension of -1 is x's own.

    Evaluated alone the op does not know the batch: a symbolic dimension is then x's own.
    """

    images_apart = True

    shape: Shape

    def infer(self, x: TensorType) -> TensorType:
        self.require(len(self.shape) >= x.rank, f"{x} has more axes than {self.shape}")
        shape = self._filled(x.shape, lambda d: d == -1)
        fits = broadcast_to(x.shape, shape)
        self.require(fits, f"{x} cannot be broadcast to {'x'.join(map(str, shape))}")
        return x.with_shape(shape)

    def evaluate(self, x: Array) -> Array:
        shape = self._filled(x.shape, lambda d: d == -1 or isinstance(d, Dim))
        return np.broadcast_to(x, tuple(d for d in shape if isinstance(d, int)))

    def _filled(self, operand: Shape, missing: Callable[[int | Dim], bool]) -> Shape:
        """The shape with its missing dimensions taken from the operand's."""
        own: Shape = (1,) * (len(self.shape) - len(operand)) + operand
        return tuple(o if missing(d) else d for d, o in zip(self.shape, own, strict=True))


PAD_MODES = ("constant", "reflect", "edge", "wrap")


@op("pad")
class Pad(Op):
    """x with before[i] elements more before and after[i] after it along each axis i.

    mode "constant": they are `value`; "edge": the element at the border; "reflect": x mirrored at
    the border element, which is not repeated; "wrap": x again, from its other end
    (torch.nn.functional.pad, numpy.pad). A reflection is shorter than the axis. A symbolic axis is
    not padded.
    """

    images_apart = True

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0
    mode: str = "constant"

    def __post_init__(self) -> None:  # so that equal pads are equal bit by bit, NaN included
        object.__setattr__(self, "value", Exact(self.value))

    def infer(self, x: TensorType) -> TensorType:
        known = self.mode in PAD_MODES
        self.require(known, f"mode is one of {', '.join(PAD_MODES)}, got {self.mode!r}")
        self.require(
            len(self.before) == len(self.after) == x.rank,
            f"before and after need one number for each axis of {x}, got {self.before}"
            f" and {self.after}",
        )
        return x.with_shape(tuple(self._extent(axis, x) for axis in range(x.rank)))

    def _extent(self, axis: int, x: TensorType) -> int | Dim:
        size, pads = x.shape[axis], (self.before[axis], self.after[axis])
        self.require(min(pads) >= 0, f"padding must not be negative, got {pads} on axis {axis}")
        if not any(pads):
            return size
        if not isinstance(size, int):
            raise ShapeError(f"{self.name}: axis {axis} of {x} depends on the batch")
        some = max(pads) if size else 0
        most = {"reflect": size - 1, "edge": some, "wrap": some}.get(self.mode, max(pads))
        fits = f"axis {axis} of {x} is too short for {self.mode} padding of {pads}"
        self.require(max(pads) <= most, fits)
        return size + sum(pads)

    def evaluate(self, x: Array) -> Array:
        pads = list(zip(self.before, self.after, strict=True))
        if self.mode != "constant":
            for axis in (a for a, p in enumerate(pads) if any(p)):
                x = np.take(x, self.sources(axis, x.shape[axis]), axis)
            return x
        shape = tuple(d + sum(p) for d, p in zip(x.shape, pads, strict=True))
        y = np.full(shape, self.value, dtype=x.dtype)
        y[tuple(slice(b, b + d) for (b, _), d in zip(pads, x.shape, strict=True))] = x
        return y

    def sources(self, axis: int, size: int) -> Array:
        """For each place along `axis` of the result, which of the `size` elements of x stands
        there: int64, -1 where it is `value`."""
        place = np.arange(-self.before[axis], size + self.after[axis], dtype=np.int64)
        if self.mode == "edge":
            place = place.clip(0, size - 1)
        elif self.mode == "reflect":
            place = size - 1 - np.abs(size - 1 - np.abs(place))
        elif self.mode == "wrap":
            place %= max(1, size)
        else:
            place[(place < 0) | (place >= size)] = -1
        return place


@op("gather")
class Gather(Op):
    """y[..., i, ...] = x[..., indices[i], ...]: the axis is replaced by the indices' axes.

    x: (A..., S, B...), indices: i64, any shape (I...) -> (A..., I..., B...). As np.take: an index
    below 0 counts from the end. One outside -S..S-1 raises InputError; compiled code, where the
    model computes it, takes the element nearest to there.
    """

    axis: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        within = 0 <= self.axis < x.rank
        self.require(within, f"axis must be within 0..{x.rank - 1}, got {self.axis}")
        self.require(indices.dtype == "i64", f"indices must be i64, got {indices}")
        return x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return self.axis not in operands[0].batch_axes()

    def evaluate(self, x: Array, indices: Array) -> Array:
        size = x.shape[self.axis]
        outside = (indices < -size) | (indices >= size)
        if outside.any():
            raise InputError(
                f"{self.name}: index {indices[outside][0]} is outside {-size}..{size - 1}"
                f" (axis {self.axis} of an array of shape {x.shape})"
            )
        return np.take(x, indices, axis=self.axis)


def broadcast_to(shape: Shape, target: Shape) -> bool:
    """Whether `shape` broadcasts to exactly `target`."""
    try:
        return broadcast(shape, target) == target
    except ShapeError:
        return False


def _batch_place(kind: TensorType) -> tuple[int, int]:
    """How many elements the axes before the batch have, and the batch's coefficient."""
    for axis, dim in enumerate(kind.shape):
        if isinstance(dim, Dim):
            return prod(d for d in kind.shape[:axis] if isinstance(d, int)), dim.coefficient
    return 1, 0
