"""Ops that occur only in a Program's regions: intermediate results that kernels pass to each other.

They are not registered: no graph of a user's has them, and IR text does not know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from lucid.codegen.kernels.strassen import LEFT, RESULT, RIGHT, combined
from lucid.ir.ops import NonMaxSuppression
from lucid.ir.ops.base import Array, Op
from lucid.ir.ops.recurrent import Recurrent
from lucid.ir.types import TensorType


@dataclass(frozen=True)
class PartialSums(Op):
    """Sums of each channel over the map, in `chunks` parts: x (N, C, H, W) -> (N, chunks, C).

    How a total is spread over its parts is the kernel's choice; the reference puts it in the first.
    """

    name: ClassVar[str] = "partial_sums"
    chunks: int

    def infer(self, x: TensorType) -> TensorType:
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        return x.with_shape((x.shape[0], self.chunks, x.shape[1]))

    def evaluate(self, x: Array) -> Array:
        y = np.zeros((x.shape[0], self.chunks, x.shape[1]), x.dtype)
        y[:, 0] = x.sum(axis=(2, 3))
        return y


@dataclass(frozen=True)
class GatherSums(Op):
    """y[n,c] = scale * sum over parts and radix of x[n, part, r*C + c]: (N, parts, radix*C) ->
    (N, C, 1, 1)."""

    name: ClassVar[str] = "gather_sums"
    radix: int
    scale: float

    def infer(self, x: TensorType) -> TensorType:
        self.require(x.rank == 3, f"x must be (N, parts, radix*C), got {x}")
        width = x.shape[2]
        self.require(
            isinstance(width, int) and width % self.radix == 0, f"{x} has no radix {self.radix}"
        )
        assert isinstance(width, int)
        return x.with_shape((x.shape[0], width // self.radix, 1, 1))

    def evaluate(self, x: Array) -> Array:
        total = x.sum(axis=1).reshape(len(x), self.radix, x.shape[2] // self.radix).sum(axis=1)
        y: Array = (total * total.dtype.type(self.scale))[:, :, None, None]
        return y


@dataclass(frozen=True)
class GroupMoments(Op):
    """Mean, what the mean lacks to the exact one, and the sum of squares about the mean, of each
    group of channels over each of `parts` parts of the map: (N, C, H, W) -> (N, parts, 3, groups).

    The reference's means lack nothing.
    """

    name: ClassVar[str] = "group_moments"
    groups: int
    parts: int

    def infer(self, x: TensorType) -> TensorType:
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        return x.with_shape((x.shape[0], self.parts, 3, self.groups))

    def evaluate(self, x: Array) -> Array:
        n, channels, height, width = x.shape
        pixels = height * width
        grouped = x.reshape(n, self.groups, channels // self.groups, pixels)
        y = np.zeros((n, self.parts, 3, self.groups), x.dtype)
        for part in range(self.parts):
            places = slice(part * pixels // self.parts, (part + 1) * pixels // self.parts)
            with np.errstate(over="ignore", invalid="ignore"):
                mean = grouped[..., places].mean(axis=(2, 3), keepdims=True)
                y[:, part, 0] = mean[:, :, 0, 0]
                y[:, part, 2] = ((grouped[..., places] - mean) ** 2).sum(axis=(2, 3))
        return y


@dataclass(frozen=True)
class Standardise(Op):
    """y = (x - mean) / sqrt(var + eps) by the moments of each group's parts: x (N, C, H, W),
    moments (N, parts, 3, groups) -> as x."""

    name: ClassVar[str] = "standardise"
    eps: float

    def infer(self, x: TensorType, moments: TensorType) -> TensorType:
        self.require(x.rank == 4 and moments.rank == 4, f"got {x} and {moments}")
        return x

    def evaluate(self, x: Array, moments: Array) -> Array:
        n, channels, height, width = x.shape
        parts, _, groups = moments.shape[1:]
        pixels = height * width
        ends = np.arange(parts + 1) * pixels // parts
        counts = (np.diff(ends) * (channels // groups)).astype(x.dtype)[:, None]
        total = counts.sum()
        with np.errstate(over="ignore", invalid="ignore"):
            means = moments[:, :, 0] + moments[:, :, 1]
            mean = (means * counts).sum(axis=1, keepdims=True) / total
            squares = moments[:, :, 2] + counts * (means - mean) ** 2
            factor = 1 / np.sqrt(squares.sum(axis=1) / total + self.eps)
            grouped = x.reshape(n, groups, channels // groups, height, width)
            shape = (n, groups, 1, 1, 1)
            y: Array = (grouped - mean.reshape(shape)) * factor.reshape(shape)
        return y.reshape(x.shape)


@dataclass(frozen=True)
class RecurrentSteps(Op):
    """The steps of a recurrent layer, from the products of its input: products (N, T, D*G*H), the
    states (N, D, H), then lengths and the parameters that there are -> as the layer's results.

    `ends`, `peephole`: whether lengths and peephole weights are among the operands.
    """

    name: ClassVar[str] = "recurrent_steps"
    cell: Recurrent
    ends: bool
    peephole: bool

    def infer(self, products: TensorType, *operands: TensorType) -> tuple[TensorType, ...]:
        states = operands[: self.cell.states]
        batch, time, _ = products.shape
        hidden = states[0].shape[2]
        assert isinstance(hidden, int)
        y = products.with_shape((batch, time, self.cell.directions * hidden))
        return (y, *states)

    def evaluate(self, products: Array, *operands: Array) -> tuple[Array, ...]:
        given = iter(operands)
        states = [next(given) for _ in range(self.cell.states)]
        lengths = next(given) if self.ends else None
        recurrent = next(given)
        peephole = next(given) if self.peephole else None
        late = np.zeros(recurrent.shape[:2], products.dtype)
        if self.cell.adds_late:
            late[:, -recurrent.shape[2] :] = next(given)
        return self.cell.steps(products, recurrent, late, states, lengths, peephole)


@dataclass(frozen=True)
class SuppressClasses(Op):
    """What a `NonMaxSuppression` keeps of each class of each image: boxes (B, S, 4), scores
    (B, C, S) -> i64 (B, C, most), the indices of boxes and then -1, and i64 (B, C), how many."""

    name: ClassVar[str] = "suppress_classes"
    suppression: NonMaxSuppression

    def infer(self, boxes: TensorType, scores: TensorType) -> tuple[TensorType, TensorType]:
        self.suppression.result_types(boxes, scores)
        images, classes, count = scores.shape
        (most,) = self.integers(count)
        kept = TensorType("i64", (images, classes, min(most, self.suppression.max_boxes)))
        return kept, TensorType("i64", (images, classes))

    def evaluate(self, boxes: Array, scores: Array) -> tuple[Array, Array]:
        images, classes, count = scores.shape
        kept = np.full((images, classes, min(count, self.suppression.max_boxes)), -1, np.int64)
        counts = np.zeros((images, classes), np.int64)
        for image, number in np.ndindex(images, classes):
            found = self.suppression.kept(boxes[image], scores[image, number])
            kept[image, number, : len(found)] = found
            counts[image, number] = len(found)
        return kept, counts


@dataclass(frozen=True)
class ListKept(Op):
    """What `SuppressClasses` keeps as rows (image, class, box), the rest -1, and how many there
    are: i64 (B, C, most), (B, C) -> i64 (B * C * most, 3), ()."""

    name: ClassVar[str] = "list_kept"

    def infer(self, kept: TensorType, counts: TensorType) -> tuple[TensorType, TensorType]:
        self.require(kept.rank == 3 and counts.rank == 2, f"got {kept} and {counts}")
        rows = TensorType("i64", (prod(self.integers(*kept.shape)), 3))
        return rows, TensorType("i64", ())

    def evaluate(self, kept: Array, counts: Array) -> tuple[Array, Array]:
        there = np.arange(kept.shape[2]) < counts[..., None]
        rows = np.full((kept.size, 3), -1, np.int64)
        found = np.argwhere(there)
        found[:, 2] = kept[there]
        rows[: len(found)] = found
        return rows, np.asarray(len(found), np.int64)


@dataclass(frozen=True)
class StrassenFactors(Op):
    """The left factors of Strassen's products: rows (N, T, K) of which two and two of an image, the
    last one perhaps with zeros, are a matrix of 2 by 2 quarters -> (7, N * ceil(T / 2), K / 2)."""

    name: ClassVar[str] = "strassen_factors"

    def infer(self, x: TensorType) -> TensorType:
        self.require(x.rank == 3, f"x must be (N, T, K), got {x}")
        images, rows, depth = self.integers(*x.shape)
        self.require(depth % 2 == 0, f"{x} has no halves")
        return x.with_shape((len(LEFT), images * -(-rows // 2), depth // 2))

    def evaluate(self, x: Array) -> Array:
        images, rows, depth = x.shape
        padded = np.concatenate([x, np.zeros((images, rows % 2, depth), x.dtype)], axis=1)
        quarters = padded.reshape(-1, 4, depth // 2).swapaxes(0, 1)
        return np.stack([combined(terms, quarters.__getitem__) for terms in LEFT])


@dataclass(frozen=True)
class StrassenProduct(Op):
    """The product that left factors stand for: v (7, P, K / 2), weights (O, K) or (O, K, 1, 1) and
    maybe a bias (O) -> a result of `shape`, (N, T, O) or (N, O, H, W)."""

    name: ClassVar[str] = "strassen_product"
    shape: tuple[int, ...]

    def infer(self, v: TensorType, weight: TensorType, *bias: TensorType) -> TensorType:
        self.require(v.rank == 3 and v.shape[0] == len(LEFT), f"got factors {v}")
        return v.with_shape(self.shape)

    def evaluate(self, v: Array, weight: Array, *bias: Array) -> Array:
        images, outputs = self.shape[0], len(weight)
        rows = self.shape[1] if len(self.shape) == 3 else prod(self.shape[2:])
        quarters = weight.reshape(2, outputs // 2, 2, v.shape[2]).transpose(2, 0, 3, 1)
        right = quarters.reshape(4, v.shape[2], outputs // 2)
        products = [
            factor @ combined(terms, right.__getitem__)
            for factor, terms in zip(v, RIGHT, strict=True)
        ]
        both = np.stack([combined(terms, products.__getitem__) for terms in RESULT], axis=1)
        y: Array = both.reshape(images, -1, outputs)[:, :rows]
        for vector in bias:
            y = y + vector
        return y if len(self.shape) == 3 else y.swapaxes(1, 2).reshape(self.shape)
