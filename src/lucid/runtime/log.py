"""Logging: LUCID_LOG=passes,schedule,kernels, and LUCID_DUMP=folder.

Topics are Python loggers (`lucid.passes`, ...) at level DEBUG; LUCID_LOG only sends them to stderr.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lucid.errors import UnknownNameError

if TYPE_CHECKING:
    from lucid.ir.types import Shapes

TOPICS = ("passes", "schedule", "kernels")


def enable(topics: Iterable[str] = ()) -> None:
    """Log these topics, and those in LUCID_LOG, to stderr. Raises UnknownNameError."""
    asked = [t.strip() for t in os.environ.get("LUCID_LOG", "").split(",")]
    for topic in filter(None, (*topics, *asked)):
        if topic not in TOPICS:
            raise UnknownNameError(
                f"there is no log of {topic!r}: LUCID_LOG and debug take {', '.join(TOPICS)}"
            )
        logger = logging.getLogger(f"lucid.{topic}")
        logger.setLevel(logging.DEBUG)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
            logger.addHandler(handler)


class Staged(Protocol):
    """What has text at every stage."""

    def stages(self) -> list[str]: ...

    def ir(self, stage: str, shape: Shapes | None) -> str: ...


def dump(model: Staged, name: str, shapes: Shapes) -> None:
    """Where LUCID_DUMP names a folder: write every stage of the model for this input size there."""
    folder = os.environ.get("LUCID_DUMP")
    if not folder:
        return
    from lucid.ir.types import size_text

    Path(folder).mkdir(parents=True, exist_ok=True)
    stem = "-".join([name, *map(size_text, shapes)])
    for number, stage in enumerate(model.stages()):
        path = Path(folder) / f"{stem}-{number:02}-{stage}.txt"
        path.write_text(model.ir(stage, shapes))
