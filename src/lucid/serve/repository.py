"""The models of a server by name and version; loading, replacing and unloading them.

A model is replaced by one assignment on the event loop: requests that have begun hold the old one,
and finish on it; it ends with the last of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lucid.errors import LucidError
from lucid.serve.errors import RequestError
from lucid.serve.fleet import Fleet
from lucid.serve.model import Model
from lucid.serve.sources import Source

log = logging.getLogger("lucid.serve")

Loader = Callable[[Path], Model]
"""What makes a model of a file; called on a thread of its own."""
OTHERS = 60.0
"""Seconds for which an answer waits for the other workers to load a model too, else 503."""
LOOK = 0.2
"""Seconds between looks at what the other workers have announced."""


@dataclass(frozen=True)
class Served:
    """What a request found under a name and a version."""

    entry: Entry
    version: str
    model: Model


@dataclass(eq=False)
class Entry:
    """A name. `models`: by version; replaced, never changed. `reason`: why there are none, or why
    the last attempt to load them failed. `held`: requests that wait or run."""

    source: Source
    generation: int
    models: Mapping[str, Model] = field(default_factory=dict)
    reason: str = "not loaded yet"
    held: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextmanager
    def slot(self, queue: int) -> Iterator[None]:
        """Hold one of so many places. Raises RequestError where none is free."""
        if self.held >= queue:
            raise RequestError(
                429, f"{self.held} requests for {self.source.name} wait already", retry_after=1
            )
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1


class Repository:
    """All models. Its methods are called on one event loop. `loaded`: told of each attempt to load
    a model by name, and whether it succeeded; `leaving`: of an entry whose models are about to be
    replaced."""

    def __init__(
        self,
        sources: Sequence[Source],
        fleet: Fleet,
        loader: Loader,
        loaded: Callable[[str, bool], None],
        leaving: Callable[[Entry], None],
    ) -> None:
        self.entries = {s.name: Entry(s, fleet.generation(s.name)) for s in sources}
        self._fleet, self._loader = fleet, loader
        self._loaded, self._leaving = loaded, leaving

    async def start(self) -> None:
        """Load all models that are wanted and not there yet. Raises what loading raises."""
        for name, entry in self.entries.items():
            if not entry.models:
                generation = self._fleet.generation(name)
                await self._as_wanted(entry)
                entry.generation = generation
                self._fleet.done(name, generation)  # it was announced while this worker started
        self._fleet.started()

    # -- finding ----------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether all models that are wanted are there."""
        wanted = (entry for name, entry in self.entries.items() if self._fleet.is_wanted(name))
        return all(entry.models for entry in wanted)

    def entry(self, name: str) -> Entry:
        """Raises RequestError where the server has no model of this name."""
        if name not in self.entries:
            raise RequestError(404, f"there is no model {name[:80]!r}")
        return self.entries[name]

    def find(self, name: str, version: str | None) -> Served:
        """The model of a version, the newest where none is given. Raises RequestError."""
        entry = self.entry(name)
        models = entry.models
        if not models:
            raise RequestError(503, f"{name} is not loaded: {entry.reason}", retry_after=1)
        if version is None:
            version = max(models, key=int)
        if version not in models:
            raise RequestError(
                404, f"{name} has no version {version[:20]!r}: it has {', '.join(models)}"
            )
        return Served(entry, version, models[version])

    def index(self, ready: bool) -> list[dict[str, str]]:
        """All models, or those that are `ready`, as the repository extension lists them."""
        rows = []
        for name, entry in self.entries.items():
            for version in entry.models:
                rows.append({"name": name, "version": version, "state": "READY", "reason": ""})
            if not entry.models and not ready:
                state = {"version": "", "state": "UNAVAILABLE", "reason": entry.reason}
                rows.append({"name": name, **state})
        return rows

    # -- changing ---------------------------------------------------------------------------

    async def load(self, name: str) -> None:
        """Read the files of a model anew, here and in the other workers. Raises RequestError where
        that fails; what was loaded before stays."""
        entry = self.entry(name)
        async with entry.changing:
            try:
                await self._read(entry)
            except (LucidError, OSError) as error:
                raise RequestError(400, f"{name} cannot be loaded: {error}") from error
            entry.generation = self._fleet.announce(name, wanted=True)
        await self._others(entry)

    async def unload(self, name: str) -> None:
        """Answer no more requests for a model, here and in the other workers."""
        entry = self.entry(name)
        async with entry.changing:
            self._replace(entry, {}, "unloaded")
            entry.generation = self._fleet.announce(name, wanted=False)
        await self._others(entry)

    async def follow(self) -> None:
        """Load and unload what other workers have announced."""
        for name, entry in self.entries.items():
            if entry.generation == self._fleet.generation(name):
                continue
            async with entry.changing:
                generation = self._fleet.generation(name)
                if entry.generation == generation:  # by a request that came here meanwhile
                    continue
                followed = True
                try:
                    await self._as_wanted(entry)
                except Exception as error:  # MemoryError too; not tried again unless asked for
                    log.error("%s stays as it was: %s: %s", name, type(error).__name__, error)
                    followed = False
                entry.generation = generation
                self._fleet.done(name, generation, followed)

    async def _as_wanted(self, entry: Entry) -> None:
        """Load or unload it, as the workers have agreed. Raises what loading raises."""
        if self._fleet.is_wanted(entry.source.name):
            await self._read(entry)
        else:
            self._replace(entry, {}, "unloaded")

    def _replace(self, entry: Entry, models: Mapping[str, Model], reason: str = "") -> None:
        self._leaving(entry)
        entry.models, entry.reason = models, reason

    async def _read(self, entry: Entry) -> None:
        try:
            models = {
                version: await asyncio.to_thread(self._loader, path)
                for version, path in entry.source.versions().items()
            }
        except Exception as error:
            entry.reason = str(error) or type(error).__name__
            self._loaded(entry.source.name, False)
            raise
        self._replace(entry, models)
        self._loaded(entry.source.name, True)

    async def _others(self, entry: Entry) -> None:
        """Wait until the other workers have followed. Raises RequestError where one has not."""
        name, generation = entry.source.name, entry.generation
        deadline = asyncio.get_running_loop().time() + OTHERS
        while not self._fleet.all_have(name, generation):
            if asyncio.get_running_loop().time() > deadline:
                raise RequestError(
                    503, f"{name}: not all workers have followed after {OTHERS:g} s", retry_after=1
                )
            await asyncio.sleep(LOOK / 4)
        failures = self._fleet.failures(name, generation)
        if failures:
            raise RequestError(
                500,
                f"{name}: {failures} of {self._fleet.workers} workers could not load it, and stay "
                "as they were: the log says why; load it again",
            )
