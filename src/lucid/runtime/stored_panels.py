"""Packed weights of a file, with Winograd's panels that it has only the taps of.

Panels are made once on a host: they go to the cache on disk, as a container that all processes map,
under the hash of what they are made of and by. Where that cannot be, each process makes its own.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from math import prod
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from lucid.artifact.container import Container, Writer
from lucid.artifact.tensors import Declaration, Tensors, write_tensors
from lucid.codegen.kernels.winograd_panels import TAPS, points, transform
from lucid.codegen.language.dtypes import dtype
from lucid.errors import ModelFileError
from lucid.os_threads import mapped
from lucid.runtime.cache import generator_hash
from lucid.runtime.memory import Memory
from lucid.runtime.processors import default_threads
from lucid.runtime.stored import padded
from lucid.runtime.weights import PACKERS

if TYPE_CHECKING:
    from lucid.artifact.contents import Artifact, ForTarget
    from lucid.ir.ops.base import Array
    from lucid.runtime.cache import ObjectCache

FORMAT = "lucid panels 1"
KINDS = {np.dtype(np.float32): "f32", np.dtype(np.int16): "i16"}
"""What taps and panels may be of."""


class PackedWeights(Mapping[str, "Array"]):
    """What a file has for a target, by the keys of packed weights: arrays in mapped memory, checked
    when the first of them is read. Raises ModelFileError, MemoryError."""

    def __init__(self, artifact: Artifact, made: ForTarget, cache: ObjectCache | None) -> None:
        container = artifact.container
        self._held: Mapping[str, Array] = Tensors(container, made.packed) if made.packed else {}
        self._taps = Taps(container, made.taps) if made.taps else None
        self._cache = cache

    @functools.cached_property
    def _panels(self) -> Mapping[str, Array]:
        if self._taps is None:
            return {}
        shared = None if self._cache is None else _shared(self._taps, self._cache)
        return _own(self._taps) if shared is None else shared

    def __getitem__(self, key: str) -> Array:
        return self._panels[key] if key in self._panels else self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._held, *self._panels))

    def __len__(self) -> int:
        return len(self._held) + len(self._panels)

    def __contains__(self, key: object) -> bool:
        return key in self._held or key in self._panels


class Panels(NamedTuple):
    """What is to be made of some taps, [panel][tap][column]."""

    m: int
    number: int
    columns: int
    dtype: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """[panel][point][column]."""
        return self.number, points(self.m), self.columns

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * dtype(self.dtype).bytes


class Taps:
    """A file's section of taps. `name`: what the panels made of them are called. Raises
    ModelFileError."""

    def __init__(self, container: Container, section: str) -> None:
        told = container.sections.get(section)
        if told is None:
            container.fail(f"it has no section {section!r}")
        made_of = f"{FORMAT}\n{told.checksum}\n{told.size}\n{generator_hash()}"
        self.name = f"panels-{hashlib.sha256(made_of.encode()).hexdigest()}"
        self._container, self._section = container, section
        self._tensors = Tensors(container, section)

    @functools.cached_property
    def panels(self) -> Mapping[str, Panels]:
        """By the keys of packed weights."""
        return {key: self._panels(key) for key in self._tensors}

    def _panels(self, key: str) -> Panels:
        taps, m = self._tensors[key], self._tensors.metadata.get(key, "")
        is_known = m in ("2", "4") and taps.dtype in KINDS
        if not is_known or taps.ndim != 3 or taps.shape[1] != TAPS:
            self._container.fail(f"{key!r} of its section {self._section!r} are no filters")
        return Panels(int(m), len(taps), taps.shape[2], KINDS[taps.dtype])

    def made(self, places: Mapping[str, Array]) -> Mapping[str, Array]:
        """Make panels where these arrays of zeros are, which may be longer."""

        def make(key: str) -> None:
            panels = self.panels[key]
            flat = places[key][: panels.elements]
            transform(self._tensors[key], panels.m, flat.reshape(panels.shape))

        deque(mapped(make, list(places), min(PACKERS, default_threads())), maxlen=0)
        return places

    @property
    def bytes(self) -> int:
        """Of all panels."""
        return sum(panels.bytes for panels in self.panels.values())


# -- for all processes ----------------------------------------------------------------------------


def _shared(taps: Taps, cache: ObjectCache) -> Mapping[str, Array] | None:
    """Panels in the cache, which are made where there are none; None where it cannot hold them."""
    found = _found(taps, cache)
    if found is None:
        cache.write(taps.name, taps.bytes, functools.partial(_write, taps))
        found = _found(taps, cache)
    return found


def _found(taps: Taps, cache: ObjectCache) -> Mapping[str, Array] | None:
    file = cache.open(taps.name)
    if file is None:
        return None
    with file:
        try:
            panels = Tensors(Container.of(file, taps.name), taps.name)
            panels.check()
        except (ModelFileError, OSError):
            cache.discard(taps.name)
            return None
    return panels


def _write(taps: Taps, file: IO[bytes]) -> None:
    """Write panels as a container, a few of them at a time."""
    writer = Writer(file)
    declared = {
        key: Declaration((padded(panels),), dtype(panels.dtype).storage)
        for key, panels in taps.panels.items()
    }
    with writer.section(taps.name) as sink:
        write_tensors(sink, declared, _one_by_one(taps))
    writer.finish()


def _one_by_one(taps: Taps) -> Iterator[Array]:
    keys = list(taps.panels)
    for first in range(0, len(keys), PACKERS):
        few = {k: taps.panels[k] for k in keys[first : first + PACKERS]}
        yield from taps.made({key: _zeros(panels) for key, panels in few.items()}).values()


# -- for this one ---------------------------------------------------------------------------------


def _own(taps: Taps) -> Mapping[str, Array]:
    """Panels in memory of the process."""
    return taps.made({key: _zeros(panels) for key, panels in taps.panels.items()})


# -- places ---------------------------------------------------------------------------------------


def _zeros(panels: Panels) -> Array:
    """A place for panels that goes back to the system when nobody holds it."""
    count = padded(panels)
    return Memory(count * dtype(panels.dtype).bytes).array(0, count, panels.dtype)
