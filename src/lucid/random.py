"""Random tensors, and the seed of all random numbers in Lucid.

The state is the process's: the same calls after the same `seed` (0 at the start) give the same
numbers, and modules made under the same seed the same initial parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lucid.frontend.tensor import Tensor

__all__ = ["initial_seed", "rand", "randn", "seed"]


class _State:
    """The generator, and the seed it was started from."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = np.random.default_rng(seed)


_state = _State(0)


def seed(value: int) -> None:
    """Start over from `value`, for random tensors and for parameters of modules made from now."""
    global _state
    _state = _State(value)


def initial_seed() -> int:
    """The seed given last."""
    return _state.seed


def randn(*shape: Any) -> Tensor:
    """Standard normal float32 numbers; `randn(2, 3)` and `randn((2, 3))` mean the same."""
    return Tensor(_state.generator.standard_normal(_shape(shape), np.float32))


def rand(*shape: Any) -> Tensor:
    """Uniform float32 numbers of [0, 1); `rand(2, 3)` and `rand((2, 3))` mean the same."""
    return Tensor(_state.generator.random(_shape(shape), np.float32))


def _shape(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    if len(arguments) == 1 and isinstance(arguments[0], tuple | list):
        return tuple(arguments[0])
    return arguments
