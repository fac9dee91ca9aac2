"""The inputs of a compiled model as users give them: by position or by name, arrays or shapes.

What does not fit is refused by the name of the input.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from lucid.codegen.language.dtypes import dtype
from lucid.codegen.program.plan import require_addressable
from lucid.errors import InputError, kind_of
from lucid.ir.graph import Value
from lucid.ir.ops.base import Array
from lucid.ir.types import ShapeArgument, Shapes
from lucid.runtime.arrays import as_array, axes_advice, describe, likely_shape
from lucid.runtime.signature import specs


class Inputs:
    """What a model of this name takes, in order.

    `values`: those of its graph, which name the inputs; empty until it is compiled.
    """

    def __init__(self, model: str, dtypes: Sequence[str]) -> None:
        self.dtypes = [dtype(name).storage for name in dtypes]
        self.values: Sequence[Value] = ()
        self._model = model

    def __len__(self) -> int:
        return len(self.dtypes)

    def __str__(self) -> str:
        """`net takes 2 inputs (image, scale)`"""
        names = f" ({', '.join(self._names())})" if self.values else ""
        return f"{self._model} takes {_count(len(self), 'input')}{names}"

    def _names(self) -> list[str]:
        """Numbers, until names are known; of one input x."""
        if self.values:
            return [value.name for value in self.values]
        return ["x"] if len(self) == 1 else [f"input {i}" for i in range(len(self))]

    # -- arrays -----------------------------------------------------------------------------

    def in_order(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Inputs by position and by name, in the model's order. Raises InputError."""
        if named and not self.values:
            raise InputError(
                "the model is compiled at its first call, before which inputs have no names: give "
                "them by position"
            )
        names = self._names()
        given = {**dict(zip(names, inputs, strict=False)), **named}
        if len(inputs) + len(named) != len(names) or set(given) != set(names):
            told = [f"{len(inputs)} by position"] if inputs or not named else []
            told += [f"{', '.join(named)} by name"] if named else []
            raise InputError(
                f"{self}, got {' and '.join(told)}"
                + ("; an array for the result is out=" if len(inputs) > len(names) else "")
            )
        return tuple(given[name] for name in names)

    def read(self, given: Sequence[Any]) -> list[Array]:
        """The inputs of a call as arrays of their dtypes. Raises InputError."""
        arrays = []
        for position, x in enumerate(given):
            try:
                array = as_array(x, self.dtypes[position])
            except InputError as problem:
                raise InputError(f"{self._wanted(position)}, {problem}") from problem
            if array.ndim == 0:
                raise InputError(f"{self._wanted(position)}, got a single number")
            arrays.append(array)
        return arrays

    def _wanted(self, position: int) -> str:
        """`x wants f32[N,3,224,224] (float32, 4 dimensions)`"""
        name, kind = self._names()[position], self.dtypes[position]
        if not self.values:
            return f"{name} wants a {kind} array, the batch first"
        type = self.values[position].type
        return f"{name} wants {type} ({kind}, {type.rank} dimensions)"

    def advice(self, given: Sequence[Any], arrays: Sequence[Array]) -> str:
        """What to do about inputs that the model does not take, `arrays` once they are read: of the
        first that seems to lack the batch or have its axes in another order. Empty if none does."""
        for position, spec in enumerate(specs(self.values)):
            array = arrays[position]
            advice = axes_advice(given[position], array.shape, spec.shape)
            if advice:
                return f"{self._wanted(position)}, got {describe(array)}: {advice}"
        return ""

    def compared(self, arrays: Sequence[Array]) -> str:
        """What is wanted, and what is given."""
        pairs = [f"{self._wanted(i)}, got {describe(array)}" for i, array in enumerate(arrays)]
        return "; ".join(pairs)

    # -- shapes -----------------------------------------------------------------------------

    def shapes(self, given: ShapeArgument) -> Shapes:
        """One shape, or one for each input. Raises InputError for what are no shapes of a batch."""
        several = isinstance(given, tuple | list) and all(
            isinstance(shape, tuple | list) for shape in given
        )
        shapes = tuple(map(_checked_shape, given if several and given else [given]))
        if len(shapes) != len(self):
            raise InputError(f"{self}, got {_count(len(shapes), 'shape')}")
        self.require_one_batch(shapes)
        return shapes

    def require_one_batch(self, shapes: Shapes) -> None:
        """Raises InputError where the batches differ."""
        batches = [shape[0] for shape in shapes]
        if len(set(batches)) > 1:
            told = ", ".join(f"{b} of {n}" for n, b in zip(self._names(), batches, strict=True))
            raise InputError(f"the inputs of a call have one batch, got {told}")

    def likely(self, shapes: Shapes) -> str:
        """What may be meant by shapes that the model cannot be compiled for; empty where nothing
        else seems to be meant."""
        kinds = [kind == np.uint8 for kind in self.dtypes]
        likely = list(map(likely_shape, shapes, kinds))
        if not any(likely):
            return ""
        meant = tuple(new or old for new, old in zip(likely, shapes, strict=True))
        return f"did you mean the shape{f's {meant}' if len(meant) > 1 else f' {meant[0]}'}?"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _checked_shape(shape: Any) -> tuple[int, ...]:
    """Raises InputError for what is no shape of a batch."""
    try:
        sizes = tuple(operator.index(d) for d in shape)
    except TypeError:
        sizes = ()
    if not sizes or min(sizes) < 0:
        raise InputError(
            "a shape must be integers, batch first, such as (1, 3, 224, 224); got "
            + _instead_of_a_shape(shape)
        )
    require_addressable(f"an input of {sizes}", prod(sizes))
    return sizes


def _instead_of_a_shape(given: Any) -> str:
    """What was given; of an example what its shape would have been."""
    alone = given[0] if isinstance(given, tuple | list) and len(given) == 1 else given
    if isinstance(getattr(alone, "shape", None), tuple):
        sizes = tuple(map(int, alone.shape))
        return f"{kind_of(alone)}: give tuple(x.shape), which is {sizes}"
    return reprlib.repr(given)
