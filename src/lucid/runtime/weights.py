"""Packed parameters: evaluated by their recipes tensor by tensor, laid out, and then shared by all
plans of a model. Another checkpoint is another store; calls in flight keep the one they began with.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lucid.codegen.language.dtypes import dtype
from lucid.os_threads import mapped
from lucid.runtime.memory import ALIGNMENT, Memory
from lucid.runtime.planning import PLANNING
from lucid.runtime.processors import default_threads

if TYPE_CHECKING:
    from lucid.codegen.kernels.packing import Packed
    from lucid.ir.ops.base import Array

SLACK = 1 << 16
"""Bytes after the last array that prefetches may touch."""
PACKERS = 2
"""Threads that pack: NumPy lets go of the interpreter while it copies. Each holds a weight of its
own in float64, and more would wait for memory."""


class Prepared(Protocol):
    """Weights that are packed already, in memory that outlives what asks for them."""

    def address(self, packed: Packed) -> int | None:
        """Where a packed array lies; None where it is not among them."""

    def taps(self, packed: Packed) -> Array | None:
        """What a packed array of panels is made of, where that is kept: [panel][tap][column]."""


class WeightStore:
    """Packed arrays by what they are packed from; `payload` gives the source tensors, `prepared`
    what need not be packed."""

    def __init__(self, payload: Mapping[str, Any], prepared: Prepared | None = None) -> None:
        self.payload = payload
        self._prepared = prepared
        self._addresses: dict[Packed, int] = {}
        self._segments: list[Memory] = []

    def ensure(
        self, parameters: Iterable[Packed], progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        """Pack what is not packed yet, in this order (that of execution), in one segment."""
        with PLANNING:
            missing = [p for p in dict.fromkeys(parameters) if not self._find(p)]
            if not missing:
                return
            offsets, size = [], 0
            for packed in missing:
                offsets.append(size)
                size += -(-packed.bytes // ALIGNMENT) * ALIGNMENT
            segment = Memory(size + SLACK)
            places = [
                segment.array(o, p.elements, p.dtype) for p, o in zip(missing, offsets, strict=True)
            ]
            pairs = list(zip(missing, places, strict=True))
            packed_so_far = mapped(self._pack, pairs, min(PACKERS, default_threads()))
            for done, _ in enumerate(packed_so_far):
                if progress:
                    progress("weights", done, len(missing))
            self._segments.append(segment)
            self._addresses |= {
                p: segment.address + o for p, o in zip(missing, offsets, strict=True)
            }
            if progress:
                progress("weights", len(missing), len(missing))

    def _find(self, packed: Packed) -> bool:
        """Whether an array is packed, here or beforehand."""
        if packed not in self._addresses and self._prepared is not None:
            place = self._prepared.address(packed)
            if place is not None:
                self._addresses[packed] = place
        return packed in self._addresses

    def _pack(self, pair: tuple[Packed, Array]) -> None:
        from lucid.ir import recipe

        packed, place = pair
        if packed.recipe is not None:  # fresh memory is zero
            packed.pack(recipe.evaluate(packed.recipe, self._tensor), place)

    def _tensor(self, name: str) -> Array:
        return np.asarray(self.payload[name])

    def address(self, packed: Packed) -> int:
        """Where a packed array lies."""
        return self._addresses[packed]

    def array(self, packed: Packed) -> Array:
        """A packed array, where it lies."""
        place = (ctypes.c_byte * packed.bytes).from_address(self.address(packed))
        return np.ctypeslib.as_array(place).view(dtype(packed.dtype).storage)

    def taps(self, packed: Packed) -> Array | None:
        """What panels are made of, where it is kept beside them: [panel][tap][column]."""
        return self._prepared.taps(packed) if self._prepared is not None else None

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(s.size for s in self._segments)
