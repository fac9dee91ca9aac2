"""The symbolic sizes of an exported program, and what they are for inputs of given shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch

from lucid.frontend.torch.refused import DependsOnElements, Refused
from lucid.ir.types import BATCH, Dim, Shape

SAMPLES = (6, 12)
"""Batches for which a size is worked out to see what multiple of the batch it is. Both divide by 2
and 3, so that a batch that is split in two or three shows as what it is, no multiple."""
CHECKED = (1, 2, 3, 5, 8, 12, 16, 64)
"""Batches for which the conditions of a program must hold, for a graph of it to serve any."""

Condition = Any
"""An expression of sympy's over the symbols of a program, which is to be true."""


class Sizes:
    """What the symbols of a program stand for.

    `values`: numbers. `batch`: the symbols that stand for the batch N; none in a graph of fixed
    sizes.
    """

    def __init__(self, values: Mapping[Any, int], batch: Iterable[Any] = ()) -> None:
        self.values = dict(values)
        self.batch = frozenset(batch)
        self._known: dict[tuple[Any, int], Any] = {}

    def bind(self, symbol: Any, value: int) -> None:
        """Let a symbol stand for a number that is known only now."""
        self.values[symbol] = value
        self._known.clear()

    def at(self, size: Any, batch: int) -> Any:
        """A number of torch's for one size of the batch. Raises DependsOnElements where it depends
        on the elements of a tensor."""
        if not isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool):
            return size
        kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(size)]
        return kind(self._value(size.node.expr, batch))

    def _value(self, expression: Any, batch: int) -> Any:
        key = (expression, batch)
        if key not in self._known:
            symbols = getattr(expression, "free_symbols", ())
            unknown = [s for s in symbols if s not in self.values and s not in self.batch]
            if unknown:
                raise DependsOnElements(
                    f"the size {expression} depends on the elements of a tensor"
                )
            numbers = {s: batch if s in self.batch else self.values[s] for s in symbols}
            is_symbol = isinstance(expression, sympy.Symbol)
            self._known[key] = numbers[expression] if is_symbol else expression.subs(numbers)
        return self._known[key]

    def unknown(self, value: Any) -> set[Any]:
        """The symbols in what torch says of a result that have no number yet."""
        if isinstance(value, tuple | list):
            return {symbol for part in value for symbol in self.unknown(part)}
        if isinstance(value, torch.Tensor):
            return self.unknown(tuple(value.shape))
        if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return set()
        known = self.batch | self.values.keys()
        return set(value.node.expr.free_symbols) - known

    def learn(self, value: Any, result: Any) -> None:
        """Bind the symbols in what torch says of a result to what they are in the result itself."""
        if isinstance(value, tuple | list):
            for part, of in zip(value, result, strict=True):
                self.learn(part, of)
        elif isinstance(value, torch.Tensor):
            self.learn(tuple(value.shape), tuple(result.shape))
        elif self.unknown(value) and value.node.expr.is_Symbol:
            self.bind(value.node.expr, result)

    def dimension(self, size: Any) -> int | Dim:
        """A size of torch's as a dimension. Raises Refused unless it is a multiple of the batch."""
        if isinstance(size, int):
            return size
        small, large = (int(self.at(size, batch)) for batch in SAMPLES)
        if small == large:
            return small
        if small * SAMPLES[1] != large * SAMPLES[0] or small % SAMPLES[0]:
            raise Refused(f"the size {size} is no multiple of the batch")
        return BATCH * (small // SAMPLES[0])

    def number(self, value: Any) -> Any:
        """A number of torch's that the batch does not change; a size as a dimension."""
        if isinstance(value, int | torch.SymInt) and not isinstance(value, bool):
            return self.dimension(value)
        first, second = (self.at(value, batch) for batch in SAMPLES)
        if first != second:
            raise Refused(f"the number {value} depends on the batch")
        return first

    def shape_of(self, value: torch.Tensor) -> Shape:
        """The shape of a tensor that torch has exported."""
        return tuple(map(self.dimension, value.shape))


def bound(
    patterns: Sequence[Sequence[Any]], shapes: Sequence[Sequence[int]]
) -> dict[Any, int] | None:
    """What the symbols in the shapes of a program's inputs stand for where those are `shapes`; None
    where they cannot be."""
    if list(map(len, patterns)) != list(map(len, shapes)):
        return None
    dims = [pair for p, s in zip(patterns, shapes, strict=True) for pair in zip(p, s, strict=True)]
    values: dict[Any, int] = {}
    derived = []
    for size, number in dims:
        expression = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
        if isinstance(expression, sympy.Symbol):
            if values.setdefault(expression, number) != number:
                return None
        else:
            derived.append((expression, number))
    for expression, number in derived:
        left = [s for s in expression.free_symbols if s not in values]
        if len(left) == 1:
            solutions = sympy.solve(expression.subs(values) - number, left[0])
            if len(solutions) != 1 or not solutions[0].is_Integer:
                return None
            values[left[0]] = int(solutions[0])
        elif left or int(expression.subs(values)) != number:
            return None
    return values


def hold(conditions: Iterable[Condition], sizes: Sizes, batch: int) -> bool:
    """Whether conditions hold for a size of the batch."""
    return all(_holds(condition, sizes, batch) for condition in conditions)


def _holds(condition: Condition, sizes: Sizes, batch: int) -> bool:
    try:
        return bool(sizes._value(condition, batch))
    except DependsOnElements:  # torch has put an assertion into the program
        return True


def serves_any_batch(conditions: Iterable[Condition], sizes: Sizes) -> bool:
    """Whether the conditions hold for every batch. That a number is not equal to another one, which
    torch notes where it compares two sizes, is left out: it fails for single sizes, of which the
    result is the same as of the others."""
    wanted = [c for c in conditions if not isinstance(c, sympy.Ne)]
    return all(hold(wanted, sizes, batch) for batch in CHECKED)
