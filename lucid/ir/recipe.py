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
from lucid.ir.types import TensorType


@dataclass(frozen=True)
class Source:
    """One tensor of the state dict."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Literal:
    """A scalar, such as a batch norm's epsilon or a pool's 1/9."""

    value: float

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
    """The recipe's value in float64 (integers stay int64); `tensor` gives a source by its name."""
    match recipe:
        case Source(name, kind):
            array = np.asarray(tensor(name))
            return array if kind.dtype == "i64" else array.astype(np.float64)
        case Literal(value):
            return np.float64(value)  # type: ignore[return-value]  # a 0-d array
        case Apply(Constant() as constant):
            return constant.array(np.dtype(np.float64))
        case Apply(operation, arguments):
            (result,) = operation.results(*(evaluate(a, tensor) for a in arguments))
            return result
