"""Ops that move elements and compute nothing. Axes count from 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lucid.errors import ShapeError
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import Dim, Shape, TensorType, broadcast, volume


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

    def evaluate(self, x: Array) -> Array:
        symbols = [d.symbol for d in self.shape if isinstance(d, Dim)]
        if symbols and -1 in self.shape:
            kind = self.infer(TensorType("f32", (Dim(1, symbols[0]), *x.shape[1:])))
            return x.reshape(kind.concrete(len(x)))
        return x.reshape(tuple(-1 if isinstance(d, Dim) else d for d in self.shape))


@op("permute")
class Permute(Op):
    """y's axis i is x's axis axes[i]."""

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

    def evaluate(self, *operands: Array) -> Array:
        return np.concatenate(operands, axis=self.axis)


@op("slice")
class Slice(Op):
    """x[..., start:stop:step, ...] along `axis`, which must not be symbolic.

    0 <= start < stop <= the dimension, step > 0.
    """

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


def broadcast_to(shape: Shape, target: Shape) -> bool:
    """Whether `shape` broadcasts to exactly `target`."""
    try:
        return broadcast(shape, target) == target
    except ShapeError:
        return False
