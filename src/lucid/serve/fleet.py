"""What the workers of a server have in common: which models are to be loaded, and how often anew.

A request to load a model reaches one worker. It loads the file, and then announces a new
generation of the model in memory that all workers share; they look a few times a second, and load
the file too. Each says when it is done, and the first answers when all have, or after a while.
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
        self._lock = spawn.Lock() if workers > 1 else threading.Lock()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        held = self._lock.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            if held:
                self._lock.release()

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
            self._done[place] = 1
            self._generations[place] += 1
            return int(self._generations[place])

    def done(self, name: str, generation: int) -> None:
        """The caller has followed, or cannot."""
        place = self._places[name]
        with self._locked():
            if self._generations[place] == generation:
                self._done[place] += 1

    def all_have(self, name: str, generation: int) -> bool:
        """Whether all workers have followed, or another generation has been announced."""
        place = self._places[name]
        return bool(self._generations[place] != generation or self._done[place] >= self.workers)
