"""The settings of a compilation that users name: threads, precision, target."""

from __future__ import annotations

import operator

from lucid.codegen.target import Target
from lucid.errors import InputError, UnknownNameError
from lucid.runtime.processors import default_threads

PRECISIONS = ("fast", "strict")


def check_threads(threads: int | None) -> int:
    """How many threads a model is to run on. Raises InputError."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not hasattr(threads, "__index__") or threads < 1:
        raise InputError(f"threads must be a positive integer, got {threads!r}")
    return operator.index(threads)


def check_precision(precision: str) -> None:
    """Raises UnknownNameError unless there is such a class of accuracy."""
    if precision not in PRECISIONS:
        raise UnknownNameError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")


def runnable_target(name: str) -> Target:
    """The target of this name. Raises UnknownNameError where this machine cannot run it."""
    target = Target.named(name)
    if not target.runs_here():
        raise UnknownNameError(f"this machine ({Target.host().name}) cannot run {target.name}")
    return target
