"""Parameters and buffers: tensors with a place in the state dict, made when first needed.

A parameter holds something that `numpy.asarray` accepts: an array, a tensor in a weight file that
is read when asked for, or an `Initial`, which computes the values from its key, shape and seed. So
models of any size are built, traced and loaded without touching their weights.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from lucid import random
from lucid.errors import WeightsError
from lucid.frontend import recording
from lucid.frontend.tensor import Tensor
from lucid.ir.ops.base import Array
from lucid.ir.types import TensorType


class Initialiser(Protocol):
    """How the values of a new parameter come about."""

    def __call__(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """float32 values of this shape."""


@dataclass(frozen=True)
class Fill:
    """The same value everywhere."""

    value: float

    def __call__(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return np.full(shape, self.value, np.float32)


@dataclass(frozen=True)
class Uniform:
    """Uniform between -bound and bound."""

    bound: float

    def __call__(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        unit = generator.random(shape, np.float32)
        return (2 * unit - 1) * np.float32(self.bound)


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0 and this standard deviation."""

    deviation: float

    def __call__(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return generator.standard_normal(shape, np.float32) * np.float32(self.deviation)


def fan_in(shape: Sequence[int]) -> int:
    """How many inputs one output of a convolution or linear weight sums over."""
    return max(1, math.prod(shape[1:]))


@dataclass(frozen=True)
class Initial:
    """Values still to be made: they depend on the initialiser, shape, seed and key alone."""

    is_lazy: ClassVar[bool] = True
    initialiser: Initialiser
    shape: tuple[int, ...]
    seed: int
    key: str = ""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        generator = np.random.default_rng([self.seed, zlib.crc32(self.key.encode())])
        return np.asarray(self.initialiser(generator, self.shape), dtype)


class Parameter(Tensor):
    """A learned tensor of a module. `data`: an array, or what `numpy.asarray` accepts."""

    __slots__ = ("_shape", "stored")
    __hash__ = object.__hash__

    def __init__(self, data: Any) -> None:
        if not hasattr(data, "shape") or not hasattr(data, "__array__"):
            data = np.asarray(data, np.float32)
        self._shape = tuple(int(d) for d in data.shape)
        self.stored: Any = data
        if not isinstance(data, Initial):
            self.assign(data)

    @classmethod
    def initial(cls, shape: Sequence[int], initialiser: Initialiser) -> Parameter:
        """A parameter whose values are made when first read."""
        return cls(Initial(initialiser, tuple(shape), random.initial_seed()))

    def initialise(self, initialiser: Initialiser) -> None:
        """Start from this initialiser instead, under the same key and seed."""
        known = self.stored
        origin = known if isinstance(known, Initial) else None
        key, seed = (origin.key, origin.seed) if origin else ("", random.initial_seed())
        self.stored = Initial(initialiser, self._shape, seed, key)

    def adopt(self, name: str) -> None:
        """Put `name` before the key: the module that holds the parameter became part of another."""
        if isinstance(self.stored, Initial):
            key = f"{name}.{self.stored.key}" if self.stored.key else name
            self.stored = dataclasses.replace(self.stored, key=key)

    def assign(self, data: Any) -> None:
        """Take other values, of the same shape. What is read lazily stays so; arrays are copied.

        Raises WeightsError where the shape differs.
        """
        data = data.stored if isinstance(data, Parameter) else data
        if tuple(data.shape) != self._shape:
            raise WeightsError(
                f"a parameter {list(self._shape)} cannot take values {list(data.shape)}"
            )
        if not getattr(data, "is_lazy", False):
            data = np.array(data, np.float32)
            data.flags.writeable = False
        self.stored = data

    @property
    def materialised(self) -> bool:
        """Whether the values are in memory."""
        return isinstance(self.stored, np.ndarray)

    def numpy(self) -> Array:
        """The values, read-only; made or read from the file now, and kept."""
        if recording.active.get() is not None:
            raise recording.refusal(
                f"the forward reads the values of a parameter {list(self._shape)}",
                "they may be swapped after compiling; compute with tensor operations instead",
            )
        if not self.materialised:
            values = np.asarray(self.stored)
            values.flags.writeable = False
            self.stored = values
        result: Array = self.stored
        return result

    @property
    def type(self) -> TensorType:
        return TensorType("f32", self._shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __repr__(self) -> str:
        if self.materialised:
            return f"{type(self).__name__}({super().__repr__()})"
        return f"{type(self).__name__}(shape={self._shape}, not yet read)"


class Buffer(Parameter):
    """A tensor of a module that is not learned, such as a running mean."""

    __slots__ = ()
    __hash__ = object.__hash__
