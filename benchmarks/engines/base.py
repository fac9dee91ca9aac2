"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from job import Job

Outputs = np.ndarray | Sequence[np.ndarray]
Caller = Callable[[np.ndarray], Outputs]


class Engine(ABC):
    """A way to run the model. Lives in a worker process; imports what it needs when it needs it.

    `package`: the distribution whose version is reported. `processes`: whether callers at the same
    time need a process each, because calls hold Python's lock.
    """

    registry: ClassVar[dict[str, type[Engine]]] = {}
    package: ClassVar[str]
    processes: ClassVar[bool] = False

    def __init_subclass__(cls, *, name: str, package: str) -> None:
        cls.registry[name] = cls
        cls.package = package

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        """What the engine reports about itself once it is loaded."""

    @classmethod
    def environment(cls, job: Job) -> dict[str, str]:
        """Environment variables its process is started with."""
        return {}

    def prepare(self, job: Job) -> dict[str, Any]:
        """Convert the model, fill caches: what happens once, in a process of its own, before the
        engine is loaded. Facts to report about it."""
        return {}

    @abstractmethod
    def load(self, job: Job) -> None:
        """Make the model ready to run on `job.threads` threads for each of `job.callers`."""

    @abstractmethod
    def run(self, images: np.ndarray) -> Outputs:
        """The model's output, or all of them, for its input."""

    def caller(self) -> Caller:
        """`run`, for one of several threads that call at the same time."""
        return self.run
