"""Values written into the graph: scalars of a forward, and int64 tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.types import DTYPES, Exact, TensorType

Nested = float | int | tuple["Nested", ...]


@op("constant")
class Constant(Op):
    """y = value: a number, or nested tuples of numbers. No operands."""

    images_apart = True

    value: Nested
    dtype: str = "f32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _exact(self.value))

    def infer(self) -> TensorType:
        self.require(self.dtype in DTYPES, f"dtype is one of {', '.join(DTYPES)}")
        try:
            return TensorType(self.dtype, np.shape(self.value))
        except ValueError:
            self.require(False, "the nested tuples must form a full array")
            raise

    def evaluate(self) -> Array:
        return self.array(DTYPES[self.dtype])

    def array(self, floating: np.dtype[Any]) -> Array:
        """The value; a floating one in dtype `floating`, unrounded where that is float64."""
        return np.array(self.value, dtype=floating if self.dtype == "f32" else DTYPES[self.dtype])


def nested(array: Array) -> Any:
    """The elements of an array as the number, or nested tuples of numbers, of a `Constant`."""

    def freeze(item: Any) -> Any:
        return tuple(map(freeze, item)) if isinstance(item, list) else item

    return freeze(array.tolist())


def _exact(value: Nested) -> Nested:
    """The same numbers, floats compared by their bits: equal constants are the same."""
    if isinstance(value, tuple):
        return tuple(_exact(v) for v in value)
    return Exact(value) if isinstance(value, float) else value
