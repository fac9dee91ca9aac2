"""The inputs of a call, given by position and by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lucid.errors import InputError


def in_order(
    who: str, names: Sequence[str], inputs: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Inputs by position and by name, or in one mapping, in the order of `names`. Raises InputError
    that begins with `who`, such as `net takes 2 inputs (image, scale)`."""
    if len(inputs) == 1 and not named and isinstance(inputs[0], Mapping):
        return in_order(who, names, (), inputs[0])
    given = {**dict(zip(names, inputs, strict=False)), **named}
    if len(inputs) + len(named) == len(names) and given.keys() == set(names):
        return tuple(given[name] for name in names)
    told = [f"{len(inputs)} by position"] if inputs or not named else []
    told += [f"{', '.join(map(str, named))} by name"] if named else []
    advice = "; an array for the result is out=" if len(inputs) > len(names) else ""
    raise InputError(f"{who}, got {' and '.join(told)}{advice}")


def takes(model: str, count: int, names: Sequence[str] | None) -> str:
    """`net takes 2 inputs (image, scale)`"""
    told = f" ({', '.join(names)})" if names else ""
    return f"{model} takes {count} input{'' if count == 1 else 's'}{told}"


def named(names: Iterable[str]) -> list[str]:
    """Names of outputs, each once: a value that is returned twice has another the second time."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += "'"
        found.append(name)
    return found
