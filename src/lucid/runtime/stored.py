"""The object code and packed weights of an artifact for one target: what they are stored under.

Both are found by a hash of all that they depend on. What is not found, because another version of
Lucid made the file, is made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from lucid.artifact.contents import ir_hash
from lucid.artifact.tensors import Tensors
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.target import Target
from lucid.errors import LucidError
from lucid.runtime.cache import generator_hash, key_text
from lucid.runtime.memory import ALIGNMENT

if TYPE_CHECKING:
    from lucid.artifact.contents import Artifact, ForTarget
    from lucid.codegen.kernels.packing import Packed
    from lucid.codegen.language.kernel import KernelSpec
    from lucid.ir.ops.base import Array
    from lucid.runtime.cache import ObjectCache


CACHES = ("l1", "l2", "line", "half_units")
"""The fields of a target that say what the schedule counts on: sizes, and 1 where it does so."""


def loaded_target(made: ForTarget) -> Target | None:
    """The target that a file's code is for; None for one that is not known here."""
    try:
        target = Target.named(made.name)
    except LucidError:
        return None
    known: Any = {name: size for name, size in made.caches.items() if name in CACHES}
    if known.pop("half_units", 0):
        target = target.on_half_units()
    return dataclasses.replace(target, **known)


def object_key(kernel: KernelSpec, target: Target) -> str:
    """What a kernel's object code is stored under."""
    return hashlib.sha256(key_text(kernel, target).encode()).hexdigest()


def packed_key(packed: Packed) -> str:
    """What a packed weight is stored under: its recipe, and how it is packed, by which Lucid."""
    from lucid.ir.printer import print_recipe

    recipe = "zeros" if packed.recipe is None else print_recipe(packed.recipe)
    parts = [
        recipe,
        repr(packed.packing),
        repr(packed.shape),
        packed.dtype,
        ir_hash(),
        generator_hash(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Measured(Protocol):
    """What has so many elements of a dtype, in all so many bytes."""

    @property
    def elements(self) -> int: ...

    @property
    def dtype(self) -> str: ...

    @property
    def bytes(self) -> int: ...


def padded(packed: Measured) -> int:
    """Elements that a packed weight takes in a file, so that each begins at a cache line."""
    return -(-packed.bytes // ALIGNMENT) * ALIGNMENT // dtype(packed.dtype).bytes


class StoredObjects:
    """Object code from an artifact, else from the cache."""

    def __init__(self, artifact: Artifact, made: ForTarget, cache: ObjectCache | None) -> None:
        name = made.objects
        self._stored: Mapping[str, Array] = Tensors(artifact.container, name) if name else {}
        self._cache = cache

    def get(self, kernel: KernelSpec, target: Target) -> bytes | None:
        """As `ObjectCache.get`. Raises ModelFileError where the file is damaged."""
        key = object_key(kernel, target)
        if key in self._stored:
            return self._stored[key].tobytes()
        return self._cache.get(kernel, target) if self._cache else None

    def put(self, kernel: KernelSpec, target: Target, code: bytes) -> None:
        """As `ObjectCache.put`."""
        if self._cache:
            self._cache.put(kernel, target, code)
