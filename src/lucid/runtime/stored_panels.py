"""Packed weights of a file, with Winograd's panels that it has only the taps of.

Panels are made once on a host: they go to the cache on disk, as a container that all processes map,
under the hash of what they are made of and by. Where that cannot be, each process makes its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import numpy as np

from lucid.artifact.container import Container, Writer
from lucid.artifact.tensors import Declaration, Layout, Tensors, layout
from lucid.codegen.language.dtypes import dtype
from lucid.errors import ModelFileError
from lucid.runtime.memory import ALIGNMENT, Memory
from lucid.runtime.processors import default_threads
from lucid.runtime.stored import packed_key, padded
from lucid.runtime.taps import Block, Panels, Taps, each_block
from lucid.runtime.weights import PACKERS

if TYPE_CHECKING:
    from lucid.artifact.contents import Artifact, ForTarget
    from lucid.codegen.kernels.packing import Packed
    from lucid.codegen.target import Target
    from lucid.ir.ops.base import Array
    from lucid.runtime.cache import ObjectCache


class PackedWeights(Mapping[str, "Array"]):
    """What a file has for a target, by the keys of packed weights: arrays in mapped memory, checked
    when the first of them is read. `target`: this machine's, where the file's code may be run.
    Raises ModelFileError, MemoryError, CompileError."""

    def __init__(
        self,
        artifact: Artifact,
        made: ForTarget,
        cache: ObjectCache | None,
        target: Target | None = None,
    ) -> None:
        container = self.container = artifact.container
        self._held: Mapping[str, Array] = Tensors(container, made.packed) if made.packed else {}
        self._taps = Taps(container, made, target) if made.taps else None
        self._cache = cache

    @functools.cached_property
    def _panels(self) -> Mapping[str, Array]:
        if self._taps is None:
            return {}
        shared = None if self._cache is None else _shared(self._taps, self._cache)
        return _own(self._taps) if shared is None else shared

    def taps(self, key: str) -> Array | None:
        """What the file has in place of panels, [panel][tap][column]; None where it has none."""
        return self._taps.get(key) if self._taps else None

    def __getitem__(self, key: str) -> Array:
        return self._panels[key] if key in self._panels else self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._held, *self._panels))

    def __len__(self) -> int:
        return len(self._held) + len(self._panels)

    def __contains__(self, key: object) -> bool:
        return key in self._held or key in self._panels


class StoredWeights:
    """Packed weights where they lie in mapped files, which other processes map as well."""

    def __init__(self, stored: PackedWeights) -> None:
        self._stored = stored

    def address(self, packed: Packed) -> int | None:
        """Where a packed weight lies; None where the file does not have it. Raises ModelFileError
        where the file is damaged, or has other numbers under its name."""
        name = packed_key(packed)
        if name not in self._stored:
            return None
        array, wanted = self._stored[name], (dtype(packed.dtype).storage, padded(packed))
        if (array.dtype, array.size) != wanted:
            held, read = f"{array.size} {array.dtype}", f"{wanted[1]} {wanted[0]}"
            self._stored.container.fail(
                f"what it has packed of {_sources(packed)} is {held}, and kernels read {read}"
            )
        place = int(array.ctypes.data)
        return place if place % ALIGNMENT == 0 else None

    def taps(self, packed: Packed) -> Array | None:
        """What a packed weight is made of in the file; None where it is there itself, or not at
        all. Raises ModelFileError where the file is damaged."""
        return self._stored.taps(packed_key(packed))


def _sources(packed: Packed) -> str:
    """What a message calls a packed weight: the tensors that it is made of."""
    from lucid.ir.recipe import sources

    names = () if packed.recipe is None else (source.name for source in sources(packed.recipe))
    return ", ".join(names) or "constants alone"


# -- for all processes ----------------------------------------------------------------------------


def _shared(taps: Taps, cache: ObjectCache) -> Mapping[str, Array] | None:
    """Panels in the cache, which are made where there are none; None where it cannot hold them."""
    found = _found(taps, cache)
    if found is None:
        with suppress(ModelFileError):  # somebody else changed the file meanwhile
            found = cache.write(taps.name, taps.bytes, functools.partial(_written, taps))
    return _found(taps, cache) if found is None else found


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


def _written(taps: Taps, file: IO[bytes]) -> Mapping[str, Array]:
    """Panels as a container in this file, where they then are. They are made in memory of each
    thread's own, and written from there: memory of the file itself would end the process where the
    disk is full."""
    writer = Writer(file)
    declared = {
        key: Declaration((padded(panels),), dtype(panels.dtype).storage)
        for key, panels in taps.panels.items()
    }
    laid = layout(declared)
    blocks = [(_start(block, laid), block) for block in taps.blocks()]

    def fill(chunk: memoryview, offset: int) -> None:
        out = np.frombuffer(chunk, np.uint8)
        out[:] = 0
        head = laid.header[offset : offset + out.size]
        out[: len(head)] = np.frombuffer(head, np.uint8)
        for start, block in blocks:
            if start < offset + out.size and offset < start + block.bytes:
                _fill(out, start - offset, block)

    writer.made(taps.name, laid.size, fill, min(PACKERS, default_threads()))
    writer.finish()
    file.flush()
    return Tensors(Container.of(file, taps.name, checked=[taps.name]), taps.name)


def _start(block: Block, laid: Layout) -> int:
    """Where a block begins in a section."""
    start, kind = laid.places[block.key]
    return start + int(block.elements.start) * kind.itemsize


def _fill(out: Array, start: int, block: Block) -> None:
    """Make a block of panels from this byte of a chunk on, which may have only a part of them."""
    end = start + block.bytes
    if start >= 0 and end <= out.size:
        block.make(out[start:end].view(block.storage))
        return
    whole = np.empty(block.bytes, np.uint8)
    block.make(whole.view(block.storage))
    first, last = max(start, 0), min(end, out.size)
    out[first:last] = whole[first - start : last - start]


# -- for this one ---------------------------------------------------------------------------------


def _own(taps: Taps) -> Mapping[str, Array]:
    """Panels in memory of the process."""
    places = {key: _zeros(panels) for key, panels in taps.panels.items()}
    each_block(lambda block: block.make(places[block.key][block.elements]), taps.blocks())
    return places


def _zeros(panels: Panels) -> Array:
    """A place for panels that goes back to the system when nobody holds it."""
    count = padded(panels)
    return Memory(count * dtype(panels.dtype).bytes).array(0, count, panels.dtype)
