"""The section of a file with the taps of Winograd's filters, and what panels are made of them: by
native code where the file has it for this machine, else by NumPy, with the same bits.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lucid.artifact.tensors import Tensors
from lucid.codegen.kernels.winograd_panels import TAPS, points, transform, transform_name
from lucid.codegen.language.dtypes import dtype
from lucid.os_threads import mapped
from lucid.runtime.cache import generator_hash
from lucid.runtime.library import KERNEL_TYPE, library
from lucid.runtime.processors import default_threads
from lucid.runtime.weights import PACKERS

if TYPE_CHECKING:
    from lucid.artifact.container import Container
    from lucid.artifact.contents import ForTarget
    from lucid.codegen.language.names import KernelName
    from lucid.codegen.target import Target
    from lucid.ir.ops.base import Array
    from lucid.runtime.library import Code

FORMAT = "lucid panels 1"
KINDS = {np.dtype(np.float32): "f32", np.dtype(np.int16): "i16", np.dtype(np.int8): "i16"}
"""What taps may be of, and the panels that are made of these."""
BLOCK_BYTES = 1 << 18
"""Bytes that are made at a time, at least; where a panel has more, one. They fit a core's cache."""

Transform = Callable[["Array", int, "Array"], None]
"""As `winograd_panels.transform`."""


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


class Block(NamedTuple):
    """Some panels of a weight, which are made at a time of these taps. `elements`: which they are
    of the weight's."""

    key: str
    elements: slice
    taps: Array
    m: int
    transform: Transform

    @property
    def storage(self) -> np.dtype[Any]:
        """What the panels are of."""
        return dtype(KINDS[self.taps.dtype]).storage

    @property
    def bytes(self) -> int:
        return int(self.elements.stop - self.elements.start) * self.storage.itemsize

    def make(self, out: Array) -> None:
        """Write the panels to an array of that many elements."""
        panels, _, columns = self.taps.shape
        taps = self.taps.astype(self.storage, copy=False)
        self.transform(taps, self.m, out.reshape(panels, points(self.m), columns))


class Taps:
    """A file's section of taps, and the code to make panels. `target`: this machine's, where the
    file's code may be run. `name`: what the panels are called. Raises ModelFileError."""

    def __init__(self, container: Container, made: ForTarget, target: Target | None) -> None:
        assert made.taps is not None
        told = container.sections.get(made.taps)
        if told is None:
            container.fail(f"it has no section {made.taps!r}")
        made_of = f"{FORMAT}\n{told.checksum}\n{told.size}\n{generator_hash()}"
        self.name = f"panels-{hashlib.sha256(made_of.encode()).hexdigest()}"
        self._container, self._section = container, made.taps
        self._tensors = Tensors(container, made.taps)
        self._objects = Tensors(container, made.objects) if made.objects else None
        self._target = target

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

    @property
    def bytes(self) -> int:
        """Of all panels."""
        return sum(panels.bytes for panels in self.panels.values())

    def get(self, key: str) -> Array | None:
        """What a weight is made of, [panel][tap][column]; None where it is not among them."""
        if key not in self._tensors:
            return None
        return self._tensors[key]

    # -- making panels ----------------------------------------------------------------------

    def blocks(self) -> list[Block]:
        """All panels, in blocks of BLOCK_BYTES at least. Raises CompileError."""
        return [block for key, panels in self.panels.items() for block in self._blocks(key, panels)]

    def _blocks(self, key: str, panels: Panels) -> Iterator[Block]:
        taps, transform = self._tensors[key], self._transform(panels.m, panels.dtype)
        each = points(panels.m) * panels.columns
        step = -(-BLOCK_BYTES // max(1, each * dtype(panels.dtype).bytes))
        for first in range(0, panels.number, step):
            some = taps[first : first + step]
            elements = slice(first * each, (first + len(some)) * each)
            yield Block(key, elements, some, panels.m, transform)

    def _transform(self, m: int, kind: str) -> Transform:
        """The file's own code, if it may be run here, else NumPy's."""
        name = transform_name(m, kind)
        key = self._tensors.metadata.get(name.text)
        if self._target is None or self._objects is None or key is None:
            return transform
        objects = {name: self._objects[key].data}
        return _Native(library(self._target).take([name], objects), name)


class _Native:
    """`transform` by native code, which stays in memory as long as this."""

    def __init__(self, code: Code, name: KernelName) -> None:
        self._code = code
        self._kernel = KERNEL_TYPE(code.address(name))

    def __call__(self, taps: Array, m: int, out: Array) -> None:
        words = np.array([taps.shape[2], 0, 0, 1, 0], np.int64)  # columns, and two buffers
        buffers = np.array([taps.ctypes.data, out.ctypes.data], np.int64)
        self._kernel(words.ctypes.data, buffers.ctypes.data, 0, len(taps), None)


def each_block(work: Callable[[Block], None], blocks: Sequence[Block]) -> None:
    """Call `work` for all blocks, on up to PACKERS threads."""
    deque(mapped(work, blocks, min(PACKERS, default_threads())), maxlen=0)
