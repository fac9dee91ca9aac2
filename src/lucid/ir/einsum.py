"""Einstein summation, which importers plan into permutes, products and sums.

    einsum("bij,bjk->bik", [a, b], apply)

Two operands at a time become one, those first whose result has the fewest elements: by a matrix
product where letters are summed over, else elementwise.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from math import prod
from typing import Generic, Protocol, TypeVar

from lucid.errors import ShapeError
from lucid.ir.ops import Linear, MatMul, Mul, Permute, Reshape, Slice, Sum
from lucid.ir.types import Dim, Shape, TensorType, volume


class Typed(Protocol):
    @property
    def type(self) -> TensorType:
        """The type of its elements, and its shape."""


T = TypeVar("T", bound=Typed)
Labels = tuple[str, ...]
"""The names of axes: letters, and `.0`, `.1`, ... for those of an ellipsis, the last one first."""
Term = tuple[Labels, T]
"""The labels of an operand's axes, and the operand."""


def einsum(
    equation: str,
    operands: Sequence[T],
    apply: Callable[..., T],
    is_weight: Callable[[T], bool] = lambda operand: False,
) -> T:
    """The sum of products that an equation says; `apply(op, *operands)` adds an op to a graph.

    Letters name axes; one that is repeated in an operand takes its diagonal. `...` are any axes
    before others, which broadcast. Without `->` the result has the letters that occur once, in
    alphabetical order. A size of 1 broadcasts. `is_weight`: whether an operand is computed of
    weights alone. Raises ShapeError where equation and operands do not fit.
    """
    terms, result = parsed(equation, [o.type.rank for o in operands])
    return _Plan(equation, apply, is_weight).run(list(zip(terms, operands, strict=True)), result)


def parsed(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the result. Raises ShapeError."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise ShapeError(f"einsum: {equation!r} takes {len(parts)} operands, got {len(ranks)}")
    terms = [_labels(equation, part, rank) for part, rank in zip(parts, ranks, strict=True)]
    spread = max((sum(label[0] == "." for label in term) for term in terms), default=0)
    dots = tuple(f".{i}" for i in reversed(range(spread)))
    counts = Counter(label for term in terms for label in term)
    if arrow:
        head, dotted, tail = right.partition("...")
        result = (*head, *(dots if dotted else ()), *tail)
    else:
        once = sorted(label for label, n in counts.items() if n == 1 and label[0] != ".")
        result = (*dots, *once)
    unknown = [label for label in result if label not in counts]
    if unknown or len(set(result)) < len(result):
        raise ShapeError(
            f"einsum: the result of {equation!r} names an axis twice, or an unknown one"
        )
    return terms, result


def _labels(equation: str, part: str, rank: int) -> Labels:
    head, dotted, tail = part.partition("...")
    count = rank - len(head) - len(tail)
    letters = all(c in string.ascii_letters for c in head + tail)
    if not letters or count < 0 or (count and not dotted):
        raise ShapeError(f"einsum: {part!r} of {equation!r} does not fit an operand of {rank} axes")
    return (*head, *(f".{i}" for i in reversed(range(count))), *tail)


class _Plan(Generic[T]):
    """The terms of an equation as they become one: pairs of labels and an operand."""

    def __init__(
        self, equation: str, apply: Callable[..., T], is_weight: Callable[[T], bool]
    ) -> None:
        self.equation, self.apply, self.is_weight = equation, apply, is_weight
        self.sizes: dict[str, int | Dim] = {}

    def run(self, terms: list[Term[T]], result: Labels) -> T:
        for labels, operand in terms:
            self._note(labels, operand.type.shape)
        left = [self._plain(*term) for term in terms]
        while len(left) > 1:
            pairs = list(combinations(range(len(left)), 2))
            i, j = min(pairs, key=lambda pair: self._elements(left, pair, result))
            kept = self._kept(left, (i, j), result)
            one = self._product(self._summed(left[i], {*kept, *left[j][0]}), left[j], kept)
            left = [one if n == i else term for n, term in enumerate(left) if n != j]
        labels, operand = self._summed(left[0], set(result))
        if labels == result:
            return operand
        return self.apply(Permute(tuple(labels.index(label) for label in result)), operand)

    def _note(self, labels: Labels, shape: Shape) -> None:
        """The size of each label: what is not 1."""
        for label, size in zip(labels, shape, strict=True):
            known = self.sizes.setdefault(label, size)
            if known == 1:
                self.sizes[label] = size
            elif size not in (1, known):
                raise ShapeError(f"einsum: {label!r} of {self.equation!r} is {known} and {size}")

    # -- one operand ------------------------------------------------------------------------

    def _plain(self, labels: Labels, operand: T) -> Term[T]:
        """Diagonals for repeated labels; without axes of size 1 that are to broadcast."""
        for label, count in Counter(labels).items():
            for _ in range(count - 1):
                labels, operand = self._diagonal(labels, operand, label)
        shape = operand.type.shape
        kept = [i for i, label in enumerate(labels) if shape[i] == self.sizes[label]]
        operand = self._reshaped(operand, tuple(shape[i] for i in kept))
        return tuple(labels[i] for i in kept), operand

    def _diagonal(self, labels: Labels, operand: T, label: str) -> Term[T]:
        """The first two axes of a label as one, the last."""
        first = labels.index(label)
        second = labels.index(label, first + 1)
        rest = [i for i in range(len(labels)) if i not in (first, second)]
        rows, columns = (operand.type.shape[i] for i in (first, second))
        if not isinstance(rows, int) or rows != columns:
            raise ShapeError(f"einsum: {label!r} of {self.equation!r} is {rows} and {columns}")
        turned = self.apply(Permute((*rest, first, second)), operand)
        shape = tuple(operand.type.shape[i] for i in rest)
        flat = self._reshaped(turned, (*shape, rows * rows))
        if rows > 1:
            flat = self.apply(Slice(len(rest), 0, rows * rows, rows + 1), flat)
        return (*(labels[i] for i in rest), label), flat

    def _summed(self, term: Term[T], kept: set[str]) -> Term[T]:
        """The sum over all labels but those that are kept."""
        labels, operand = term
        axes = tuple(i for i, label in enumerate(labels) if label not in kept)
        if axes:
            operand = self.apply(Sum(axes), operand)
        return tuple(label for label in labels if label in kept), operand

    def _reshaped(self, operand: T, shape: Shape) -> T:
        return operand if operand.type.shape == shape else self.apply(Reshape(shape), operand)

    # -- two operands -----------------------------------------------------------------------

    def _kept(self, terms: Sequence[Term[T]], pair: tuple[int, int], result: Labels) -> Labels:
        """The labels of a pair that the result or another operand has."""
        others = {label for n, (own, _) in enumerate(terms) if n not in pair for label in own}
        both = dict.fromkeys((*terms[pair[0]][0], *terms[pair[1]][0]))
        return tuple(label for label in both if label in others or label in result)

    def _elements(self, terms: Sequence[Term[T]], pair: tuple[int, int], result: Labels) -> int:
        return self._count(self._kept(terms, pair, result))

    def _count(self, labels: Labels) -> int:
        sizes = (self.sizes[label] for label in labels)
        return prod(d.coefficient if isinstance(d, Dim) else d for d in sizes)

    def _product(self, a: Term[T], b: Term[T], kept: Labels) -> Term[T]:
        """Two operands as one that has the labels kept."""
        b = self._summed(b, {*kept, *a[0]})
        shared = [label for label in a[0] if label in b[0]]
        batch = tuple(label for label in shared if label in kept)
        inner = tuple(label for label in shared if label not in kept)
        rows, columns = (
            tuple(label for label in own if label not in shared) for own in (a[0], b[0])
        )
        whole = all(isinstance(self.sizes[label], int) for label in inner)
        floats = a[1].type.dtype == b[1].type.dtype == "f32"
        if inner and whole and floats:
            return (*batch, *rows, *columns), self._matrices(a, b, batch, rows, columns, inner)
        labels = (*batch, *rows, *columns, *inner)
        product = self.apply(Mul(), self._spread(a, labels), self._spread(b, labels))
        return self._summed((labels, product), set(kept))

    def _matrices(
        self,
        a: Term[T],
        b: Term[T],
        batch: Labels,
        rows: Labels,
        columns: Labels,
        inner: Labels,
    ) -> T:
        depth = (self._count(inner),)
        outer, height, width = (self._shape(labels) for labels in (batch, rows, columns))
        left = self._reshaped(
            self._turned(a, (*batch, *rows, *inner)), (*outer, *_one(height), *depth)
        )
        if not batch and self.is_weight(b[1]):
            right = self._reshaped(self._turned(b, (*columns, *inner)), (*_one(width), *depth))
            product = self.apply(Linear(), left, right)
        else:
            turned = self._turned(b, (*batch, *inner, *columns))
            right = self._reshaped(turned, (*outer, *depth, *_one(width)))
            product = self.apply(MatMul(), left, right)
        return self._reshaped(product, (*outer, *height, *width))

    def _shape(self, labels: Labels) -> Shape:
        return tuple(self.sizes[label] for label in labels)

    def _turned(self, term: Term[T], labels: Labels) -> T:
        own, operand = term
        if own == labels:
            return operand
        return self.apply(Permute(tuple(own.index(label) for label in labels)), operand)

    def _spread(self, term: Term[T], labels: Labels) -> T:
        """An operand with all these axes, of size 1 where it lacks one."""
        own = tuple(label for label in labels if label in term[0])
        shape = tuple(self.sizes[label] if label in own else 1 for label in labels)
        return self._reshaped(self._turned(term, own), shape)


def _one(shape: Shape) -> Shape:
    """All axes as one. Raises ShapeError where several depend on the batch."""
    count, symbols = volume(shape)
    if len(symbols) > 1:
        raise ShapeError(f"einsum: {len(symbols)} axes that depend on the batch would be one")
    return (Dim(count, symbols[0]) if symbols else count,)
