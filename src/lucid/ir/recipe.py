"""Parameters are recipes: a short expression over named source tensors, evaluated in float64.

Passes build recipes and never read a float value, so generated code depends on shapes only and a
checkpoint can be swapped without compiling. The expressions are ordinary ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lucid.ir.ops.base import Array, Op
from lucid.ir.ops.constant import Constant
from lucid.ir.ops.shape import Concat, Expand, Gather, Pad, Permute, Reshape, Slice
from lucid.ir.types import Exact, TensorType


@dataclass(frozen=True)
class Source:
    """One tensor of the state dict."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Literal:
    """A scalar, such as a batch norm's epsilon or a pool's 1/9."""

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", Exact(self.value))

    @property
    def type(self) -> TensorType:
        return TensorType("f32", ())


@dataclass(frozen=True)
class Apply:
    """An op of one result over other recipes."""

    op: Op
    arguments: tuple[Recipe, ...] = field(default=())

    @cached_property
    def type(self) -> TensorType:
        (result,) = self.op.result_types(*(a.type for a in self.arguments))
        return result


Recipe = Source | Literal | Apply


def sources(recipe: Recipe) -> Iterator[Source]:
    """The source tensors a recipe reads, in order of first use, each once."""
    seen: dict[Source, None] = {}

    def walk(r: Recipe) -> None:
        match r:
            case Source():
                seen.setdefault(r)
            case Apply():
                for a in r.arguments:
                    walk(a)

    walk(recipe)
    return iter(seen)


def evaluate(recipe: Recipe, tensor: Callable[[str], Array]) -> Array:
    """The recipe's value; `tensor` gives a source by its name.

    Everything is computed in float64. Sources that are only moved about stay as they are, which is
    exact and spares large weights a copy of twice their size.
    """
    match recipe:
        case Source(name):
            return np.asarray(tensor(name))
        case Literal(value):
            return np.float64(value)  # type: ignore[return-value]  # a 0-d array
        case Apply(Constant() as constant):
            return constant.array(np.dtype(np.float64))
        case Apply(operation, arguments):
            values = [evaluate(a, tensor) for a in arguments]
            if not isinstance(operation, MOVES) and not any(v.dtype == np.float64 for v in values):
                values = _with_one_double(values)
            (result,) = operation.results(*values)
            return result


MOVES = (Reshape, Permute, Concat, Slice, Expand, Pad, Gather)
"""Ops that compute nothing."""


def _with_one_double(values: list[Array]) -> list[Array]:
    """The smallest float32 operand as float64, which makes NumPy compute in float64."""
    floats = [i for i, v in enumerate(values) if v.dtype == np.float32]
    if not floats:
        return values
    smallest = min(floats, key=lambda i: values[i].size)
    return [v.astype(np.float64) if i == smallest else v for i, v in enumerate(values)]
