"""The trace in progress, as the frontend sees it: the recorder, and the current source line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from lucid.errors import TraceError
from lucid.ir.ops.base import Op

PACKAGE = Path(__file__).resolve().parents[1]
PLUMBING = (
    *(f"{PACKAGE / folder}/" for folder in ("frontend", "nn", "ir", "onnx", "runtime")),
    str(PACKAGE / "compiler.py"),
    str(PACKAGE / "model_source.py"),
    str(PACKAGE / "models" / "registry.py"),
    "<frozen ",
)
"""Files whose frames never count as the user's line: a forward in `lucid/models` does."""


class Recorder(Protocol):
    """What a trace offers while a forward runs."""

    @property
    def path(self) -> str:
        """The path of the module whose forward runs."""

    def records(self, operand: object) -> bool:
        """Whether an op on this operand belongs into the graph."""

    def record(self, op: Op, operands: Sequence[Any]) -> tuple[Any, ...]:
        """Append a node; its results as traced tensors."""

    def scope(self, module: object) -> AbstractContextManager[None]:
        """Until left, nodes originate from this module."""


active: ContextVar[Recorder | None] = ContextVar("lucid_recorder", default=None)
"""The trace under way in this context, if any."""


def user_location() -> str | None:
    """`file:line` of the innermost frame of a model or its user, not of Lucid's plumbing."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PLUMBING):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def where() -> str:
    """` at file:line, in layer1.0`: the end of a message about the line that runs."""
    recorder, location = active.get(), user_location()
    line = f" at {location}" if location else ""
    return line + (f", in {recorder.path}" if recorder is not None and recorder.path else "")


def refusal(what: str, why: str) -> TraceError:
    """The error for what a traced graph cannot express, with the user's line."""
    return TraceError(f"{what}{where()}: {why}")
