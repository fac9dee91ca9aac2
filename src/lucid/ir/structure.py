"""How the flat outputs of a model are put together: a tree of lists, tuples, mappings and named
tuples, which is plain data."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Key = str | int | float | bool | None
"""A key of a mapping, or a constant: what JSON can say."""


@dataclass(frozen=True)
class Structure:
    """One node of the tree. `kind`:

    - `output`: the flat output number `value`
    - `constant`: `value` itself, such as the None of a module that returns `(y, None)`
    - `list`, `tuple`: of `parts`
    - `mapping`: a dict of `parts` by `keys`
    - `named`: a named tuple of the type `value` and the fields `keys`
    """

    kind: str
    parts: tuple[Structure, ...] = ()
    keys: tuple[Key, ...] = ()
    value: Key = None

    @staticmethod
    def of(nested: Any, is_output: Callable[[Any], bool]) -> Structure:
        """The structure of nested outputs, which are numbered in order of their leaves; what is
        neither an output nor nested stays as it is, where it is None, a number or a text. Raises
        TypeError for anything else."""
        count = 0

        def built(part: Any) -> Structure:
            nonlocal count
            if is_output(part):
                count += 1
                return Structure("output", value=count - 1)
            if isinstance(part, Mapping):
                return Structure("mapping", tuple(map(built, part.values())), tuple(part))
            if isinstance(part, tuple) and hasattr(part, "_fields"):
                return Structure(
                    "named", tuple(map(built, part)), part._fields, type(part).__name__
                )
            if isinstance(part, list | tuple):
                kind = "list" if isinstance(part, list) else "tuple"
                return Structure(kind, tuple(map(built, part)))
            if part is None or isinstance(part, str | int | float):
                return Structure("constant", value=part)
            raise TypeError(f"an output of the type {type(part).__name__}")

        return built(nested)

    def __call__(self, outputs: Sequence[Any]) -> Any:
        """The outputs, put together."""
        match self.kind:
            case "output":
                assert isinstance(self.value, int)
                return outputs[self.value]
            case "constant":
                return self.value
            case "list":
                return [part(outputs) for part in self.parts]
            case "tuple":
                return tuple([part(outputs) for part in self.parts])
            case "mapping":
                return {k: part(outputs) for k, part in zip(self.keys, self.parts, strict=True)}
        return self._type(*(part(outputs) for part in self.parts))

    @cached_property
    def _type(self) -> Any:
        """The type of a named tuple, made anew: that of the model may not be importable."""
        return namedtuple(str(self.value), [str(key) for key in self.keys])

    def outputs(self) -> list[int]:
        """The numbers of the outputs in it, in order."""
        if self.kind == "output":
            assert isinstance(self.value, int)
            return [self.value]
        return [number for part in self.parts for number in part.outputs()]

    def __str__(self) -> str:
        """`{boxes: 0, scores: (1, 2)}`"""
        parts = list(map(str, self.parts))
        named = ", ".join(f"{k}: {p}" for k, p in zip(self.keys, parts, strict=False))
        match self.kind:
            case "output" | "constant":
                return str(self.value)
            case "list":
                return f"[{', '.join(parts)}]"
            case "mapping":
                return f"{{{named}}}"
            case "named":
                return f"{self.value}({named})"
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        row: dict[str, Any] = {"kind": self.kind, "value": self.value}
        return row | {"keys": list(self.keys), "parts": [part.to_json() for part in self.parts]}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Structure:
        """The inverse of `to_json`. Raises ValueError, TypeError, KeyError, AttributeError."""
        kind, value, keys = row["kind"], row["value"], tuple(row["keys"])
        parts = tuple(map(Structure.from_json, row["parts"]))
        if kind not in ("output", "constant", "list", "tuple", "mapping", "named"):
            raise ValueError(f"{kind!r} is no kind of structure")
        if kind == "output" and (type(value) is not int or value < 0):
            raise ValueError(f"{value!r} is no number of an output")
        if kind in ("mapping", "named") and len(keys) != len(parts):
            raise ValueError(f"{len(keys)} keys of {len(parts)} parts")
        if kind == "named":
            namedtuple(str(value), [str(key) for key in keys])
        return Structure(kind, parts, keys, value)
