"""What the workers of a server have in common: which models are to be loaded, and how often anew.

A request to load a model reaches one worker. It loads the file, and then announces a new
generation of the model in memory that all workers share; they look a few times a second, and load
the file too. Each says when it is done and whether it could, and the first answers when all have,
or after a while.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PATIENCE = 5.0
"""Seconds to wait for a worker that holds the lock; it may have died with it."""


class Fleet:
    """The memory that workers share, for models of these names. It travels to a worker when that is
    started. All methods are called from any worker."""

    def __init__(self, names: Sequence[str], workers: int = 1) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.workers = workers
        self._places = {name: place for place, name in enumerate(names)}
        self._generations = spawn.RawArray("q", len(names))
        self._unloaded = spawn.RawArray("b", len(names))
        self._done = spawn.RawArray("q", len(names))
        self._failed = spawn.RawArray("q", len(names))
        self._started = spawn.RawValue("b")
        self._lock = spawn.Lock() if workers > 1 else threading.Lock()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        held = self._lock.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            if held:
                self._lock.release()

    @property
    def has_started(self) -> bool:
        """Whether some worker has loaded all models, so that the server answers."""
        return bool(self._started.value)

    def started(self) -> None:
        """The caller has loaded all models."""
        self._started.value = 1

    def generation(self, name: str) -> int:
        """How often the model was loaded or unloaded by a request."""
        return int(self._generations[self._places[name]])

    def is_wanted(self, name: str) -> bool:
        """Whether it is to be loaded."""
        return not self._unloaded[self._places[name]]

    def announce(self, name: str, wanted: bool) -> int:
        """Tell the others to load or unload the model, as the caller has done; the generation."""
        place = self._places[name]
        with self._locked():
            self._unloaded[place] = not wanted
            self._done[place], self._failed[place] = 1, 0
            self._generations[place] += 1
            return int(self._generations[place])

    def done(self, name: str, generation: int, followed: bool = True) -> None:
        """The caller has followed, or could not."""
        place = self._places[name]
        with self._locked():
            if self._generations[place] == generation:
                self._done[place] += 1
                self._failed[place] += not followed

    def all_have(self, name: str, generation: int) -> bool:
        """Whether all workers have followed or tried, or another generation was announced."""
        place = self._places[name]
        return bool(self._generations[place] != generation or self._done[place] >= self.workers)

    def failures(self, name: str, generation: int) -> int:
        """How many workers could not follow."""
        place = self._places[name]
        return int(self._failed[place]) if self._generations[place] == generation else 0
