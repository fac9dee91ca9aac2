"""The inputs of a compiled model as users give them: by position or by name, arrays or shapes.

What does not fit is refused by the name of the input.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from lucid.codegen.language.dtypes import dtype
from lucid.codegen.program.addressable import require_addressable
from lucid.errors import InputError, kind_of
from lucid.ir.arguments import in_order, takes
from lucid.runtime.arrays import (
    as_array,
    as_scalar,
    axes_advice,
    describe,
    from_proto,
    is_tensor_proto,
    likely_shape,
)
from lucid.runtime.signature import specs

if TYPE_CHECKING:
    from lucid.ir.graph import Value
    from lucid.ir.ops.base import Array
    from lucid.ir.types import ShapeArgument, Shapes
    from lucid.runtime.signature import Port

NUMBER = int | float
"""What an input without axes may be given as."""


class Inputs:
    """What a model of this name takes, in order.

    `dtypes`, `names`: None where they are not known before it is compiled. `values`: those of its
    graph; empty until it is compiled. An input whose dtype is "" is none of its graph's (strings,
    sequences): `apart` gives those as they are, and all that has shapes is about the others.
    """

    def __init__(
        self, model: str, dtypes: Sequence[str] | None, names: Sequence[str] | None
    ) -> None:
        self._apart: list[int] = []
        self.count: int | None = None
        self.values: Sequence[Value | Port] = ()
        self._model = model
        self._names = names
        self.know(dtypes, names)

    def know(self, dtypes: Sequence[str] | None, names: Sequence[str] | None) -> None:
        """Learn what is known of the inputs before there is a graph, which may be nothing again."""
        self._names = names
        self.count = None if dtypes is None else len(dtypes)
        if dtypes is not None:
            self._apart = [i for i, name in enumerate(dtypes) if not name]
            self.dtypes = [dtype(name) for name in dtypes if name]

    def compiled(self, values: Sequence[Value | Port]) -> None:
        """Learn the inputs of the first graph."""
        self.values = values
        if self._apart:  # which the graph does not know of
            return
        self.know([value.type.dtype for value in values], [value.name for value in values])

    def __str__(self) -> str:
        """`net takes 2 inputs (image, scale)`"""
        return takes(self._model, self.count or 0, self._names)

    @property
    def names(self) -> Sequence[str]:
        """Numbers, where names are not known; of one input x."""
        if self._names is not None:
            return self._names
        return ["x"] if self.count == 1 else [f"input {i}" for i in range(self.count or 0)]

    # -- arrays -----------------------------------------------------------------------------

    def in_order(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Inputs by position and by name, in the model's order. Raises InputError."""
        mapping = len(inputs) == 1 and isinstance(inputs[0], Mapping)
        if self._names is None and (named or mapping):
            raise InputError(
                "the model is compiled at its first call, before which inputs have no names: give "
                "them by position"
            )
        return in_order(str(self), self.names, inputs, named)

    def read(self, given: Sequence[Any]) -> list[Array]:
        """The inputs of a call as arrays of their dtypes, as they are stored. Raises InputError."""
        if len({is_tensor_proto(x) for x in given}) > 1:
            raise InputError(
                f"{self}, got TensorProtos and arrays: results are of the kind that all inputs are"
            )
        arrays = []
        for position, x in enumerate(self._taken(given)):
            try:
                if isinstance(x, NUMBER) and self._is_scalar(position):
                    x = as_scalar(x, self.dtypes[position])
                array = as_array(x, self.dtypes[position])
            except InputError as problem:
                raise InputError(f"{self._wanted(position)}, {problem}") from problem
            if array.ndim == 0 and self.values and not self._is_scalar(position):
                raise InputError(f"{self._wanted(position)}, got a single number")
            arrays.append(array)
        return arrays

    def apart(self, given: Sequence[Any]) -> list[Any]:
        """The inputs of a call that no graph takes."""
        found = (given[i] for i in self._apart)
        return [from_proto(x) if is_tensor_proto(x) else x for x in found]

    def _taken(self, given: Sequence[Any]) -> Sequence[Any]:
        """The others."""
        return [x for i, x in enumerate(given) if i not in self._apart] if self._apart else given

    def _is_scalar(self, position: int) -> bool:
        """Whether an input is known to have no axes."""
        return bool(self.values) and self.values[position].type.rank == 0

    def _wanted(self, position: int) -> str:
        """`x wants f32[N,3,224,224] (float32, 4 dimensions)`"""
        name, kind = self._taken(self.names)[position], self.dtypes[position]
        if not self.values:
            return f"{name} wants an array of {kind.numbers}"
        type = self.values[position].type
        rank = f"{type.rank} dimension{'' if type.rank == 1 else 's'}" if type.rank else "a scalar"
        return f"{name} wants {type} ({kind.numbers}, {rank})"

    def advice(self, given: Sequence[Any], arrays: Sequence[Array]) -> str:
        """What to do about inputs that the model does not take, `arrays` once they are read: of the
        first that seems to lack the batch or have its axes in another order. Empty if none does."""
        taken = self._taken(given)
        for position, spec in enumerate(specs(self.values)):
            array = arrays[position]
            advice = axes_advice(taken[position], array.shape, spec.shape)
            if advice:
                return f"{self._wanted(position)}, got {describe(array)}: {advice}"
        return ""

    def compared(self, arrays: Sequence[Array]) -> str:
        """What is wanted, and what is given."""
        pairs = [f"{self._wanted(i)}, got {describe(array)}" for i, array in enumerate(arrays)]
        return "; ".join(pairs)

    # -- shapes -----------------------------------------------------------------------------

    def shapes(self, given: ShapeArgument) -> Shapes:
        """One shape, or one for each input. Raises InputError for what are no shapes."""
        several = isinstance(given, tuple | list) and all(
            isinstance(shape, tuple | list) for shape in given
        )
        alone = not several or (not given and self.count == 1 and not self._apart)
        shapes = tuple(map(_checked_shape, [given] if alone else given))
        if self.count is not None and len(shapes) != self.count - len(self._apart):
            raise InputError(f"{self}, got {len(shapes)} shape{'' if len(shapes) == 1 else 's'}")
        return shapes

    def likely(self, shapes: Shapes) -> str:
        """What may be meant by shapes that the model cannot be compiled for; empty where nothing
        else seems to be meant."""
        if self.count is None:
            return ""
        kinds = [kind.name == "u8" for kind in self.dtypes]
        likely = list(map(likely_shape, shapes, kinds))
        if not any(likely):
            return ""
        meant = tuple(new or old for new, old in zip(likely, shapes, strict=True))
        return f"did you mean the shape{f's {meant}' if len(meant) > 1 else f' {meant[0]}'}?"


def _checked_shape(shape: Any) -> tuple[int, ...]:
    """Raises InputError for what is no shape."""
    try:
        sizes = tuple(operator.index(d) for d in shape)
    except TypeError:
        sizes = (-1,)
    if min(sizes, default=0) < 0:
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
