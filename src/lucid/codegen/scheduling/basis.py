"""What the kernels of a model were chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Basis:
    """What kernels were chosen by. `forced`: kernel names by patterns over module paths. `source`:
    `model` (the cost model), `tuned` (measured), or `given` (a schedule of the user's)."""

    precision: str = "fast"
    forced: Mapping[str, str] = field(default_factory=dict)
    source: str = "model"
