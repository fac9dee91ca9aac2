"""Every argument of every operator of PyTorch's is read by its emitter, or may be ignored."""

import dis
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from lucid.frontend.torch.importer import FAMILIES  # noqa: E402  # needs torch
from lucid.frontend.torch.writer import EMITTERS, Writer  # noqa: E402  # needs torch

ANYWHERE = {}


def schema(name: str) -> Any:
    """Of the overload that is registered as `name`."""
    namespace, packet, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload)._schema


def instructions(code: CodeType) -> Iterator[Any]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from instructions(constant)


def names_read(function: Callable[..., Any]) -> set[str]:
    """The names of local variables whose values a function looks at."""
    found: set[str] = set()
    for step in instructions(function.__code__):
        if step.opname.startswith("LOAD_") and isinstance(step.argval, str | tuple):
            found |= {step.argval} if isinstance(step.argval, str) else set(step.argval)
    return found


def unread(name: str) -> list[str]:
    function = EMITTERS[name]
    parameters = list(inspect.signature(function).parameters.values())[1:]
    read = names_read(function)
    out = []
    for i, argument in enumerate(schema(name).arguments):
        p = parameters[min(i, len(parameters) - 1)]
        if i >= len(parameters):
            assert p.kind is p.VAR_POSITIONAL, name
        if p.name not in read:
            out.append(argument.name)
    return out
