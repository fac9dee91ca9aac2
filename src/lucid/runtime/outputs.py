"""The outputs of a compiled model as users get them: in their own arrays, put together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.codegen.language.dtypes import dtype
from lucid.errors import InputError
from lucid.ir.arguments import in_order, named
from lucid.runtime.arrays import describe, like

if TYPE_CHECKING:
    from lucid.codegen.language.dtypes import DType
    from lucid.ir.graph import Value
    from lucid.ir.ops.base import Array
    from lucid.ir.structure import Structure
    from lucid.runtime.signature import Port


class Outputs:
    """What a model of this name returns.

    `values`: the outputs of its graph, which follow one another as `structure` says, or else are
    one, or a tuple. `known`: whether they are the model's, so that their sizes are known before;
    else `names` are those of the model's.
    """

    def __init__(
        self,
        model: str,
        values: Sequence[Value | Port],
        structure: Structure | None,
        known: bool,
        names: Sequence[str] = (),
    ) -> None:
        self._model = model
        self._names = named(value.name for value in values)
        self._kinds = [dtype(value.type.dtype) for value in values]
        self._structure = structure
        self._known = known
        self._returned = names

    def together(self, results: Sequence[Any]) -> Any:
        """The result of a call from its flat outputs."""
        if self._structure is not None:
            return self._structure(results)
        return results[0] if len(results) == 1 else tuple(results)

    def wrapped(self, example: Any, results: Sequence[Array]) -> Any:
        """The result of a call, whose first input is `example`, in arrays of that kind."""
        if self._known:
            rows = zip(results, self._kinds, self._names, strict=True)
            return self.together([like(example, *row) for row in rows])
        return self.together(
            [_returned(example, r, n) for r, n in zip(results, self._returned, strict=True)]
        )

    def given(self, out: Any, results: Sequence[Array]) -> list[Array]:
        """The arrays in `out`, one for each output: an array where there is one, else a sequence of
        them or a mapping by name. `results`: such as are wanted. Raises InputError."""
        if not self._known:
            raise InputError(
                f"out= is for outputs whose sizes are known before the call; those of {self._model}"
                " are known once it has run"
            )
        who = f"out= takes one array for each of the outputs ({', '.join(self._names)})"
        several = isinstance(out, tuple | list | Mapping)
        if not several and len(results) != 1:
            raise InputError(f"{who}: a sequence of {len(results)}, or a mapping by name")
        if not several:
            return [out]
        by_name = isinstance(out, Mapping)
        return list(in_order(who, self._names, () if by_name else out, out if by_name else {}))

    def stored(self, outs: Sequence[Any], results: Sequence[Array]) -> list[Array]:
        """These arrays, as the program writes to them. Raises InputError where they do not suit."""
        one = len(outs) == 1
        names = ["out"] if one else [f"out of {name}" for name in self._names]
        arrays = [_checked(*pair) for pair in zip(names, outs, results, self._kinds, strict=True)]
        for (i, a), (j, b) in itertools.combinations(enumerate(arrays), 2):
            if np.may_share_memory(a, b):
                raise InputError(f"{names[i]} and {names[j]} share memory: give two arrays")
        return arrays


def _returned(example: Any, result: Any, name: str) -> Any:
    """A result of a model that goes on behind its graph: sequences are lists, and an optional
    without a value is None."""
    if isinstance(result, list):
        return [_returned(example, item, name) for item in result]
    return None if result is None else like(example, *_as_stored(result), name)


def _as_stored(result: Array) -> tuple[Array, DType]:
    """An array of NumPy's dtypes, or ml_dtypes', with its dtype."""
    bits = dtype("bf16")
    if result.dtype.name == bits.numbers:
        return result.view(bits.storage), bits
    return result, dtype("f32")  # or any other that NumPy has


def _checked(name: str, out: Any, result: Array, kind: DType) -> Array:
    """An array of the user's for a result. Raises InputError where it does not suit."""
    wanted = f"{name} wants an array {kind.numbers}{list(result.shape)}, contiguous and writeable"
    if not isinstance(out, np.ndarray):
        raise InputError(f"{wanted}, got {type(out).__name__}")
    same = out.dtype == result.dtype or (kind.is_bits and out.dtype.name == kind.numbers)
    if not same or out.shape != result.shape:
        raise InputError(f"{wanted}, got {describe(out)}")
    if not out.flags.carray:  # contiguous, aligned, writeable
        raise InputError(f"{wanted}; this one is not")
    return out.view(result.dtype)
