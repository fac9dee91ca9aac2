"""The settings of a compilation that users name: threads, precision, target."""

from __future__ import annotations

import operator
from typing import Literal

from lucid.codegen.target import Target
from lucid.errors import InputError, UnknownNameError
from lucid.runtime.processors import default_threads

PRECISIONS = ("fast", "strict", "bf16")


Threads = int | Literal["auto"] | None
"""The most threads that a model is to run on; `"auto"`, or None: as many as the process may use."""


def check_threads(threads: Threads) -> int:
    """The most threads that a model is to run on, as a number. Raises InputError."""
    asked = asked_threads(threads)
    return default_threads() if asked is None else asked


def asked_threads(threads: Threads) -> int | None:
    """The number that was asked for; None where it was left to Lucid. Raises InputError."""
    if threads is None or (isinstance(threads, str) and threads == "auto"):
        return None
    if isinstance(threads, bool | str) or not hasattr(threads, "__index__") or threads < 1:
        raise InputError(f"threads must be a positive integer or 'auto', got {threads!r}")
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
