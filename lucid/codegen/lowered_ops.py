"""Ops that only a Program's regions hold: what kernels leave for one another between anchors.

They are not registered: no graph of a user's has them, and IR text does not know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lucid.ir.ops.base import Array, Op
from lucid.ir.types import TensorType


@dataclass(frozen=True)
class PartialSums(Op):
    """Sums of each channel over the map, in `chunks` parts: x (N, C, H, W) -> (N, chunks, C).

    How a total is spread over its parts is the kernel's choice; the reference puts it in the first.
    """

    name: ClassVar[str] = "partial_sums"
    chunks: int

    def infer(self, x: TensorType) -> TensorType:
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        return x.with_shape((x.shape[0], self.chunks, x.shape[1]))

    def evaluate(self, x: Array) -> Array:
        y = np.zeros((x.shape[0], self.chunks, x.shape[1]), x.dtype)
        y[:, 0] = x.sum(axis=(2, 3))
        return y


@dataclass(frozen=True)
class GatherSums(Op):
    """y[n,c] = scale * sum over parts and radix of x[n, part, r*C + c]: (N, parts, radix*C) ->
    (N, C, 1, 1)."""

    name: ClassVar[str] = "gather_sums"
    radix: int
    scale: float

    def infer(self, x: TensorType) -> TensorType:
        self.require(x.rank == 3, f"x must be (N, parts, radix*C), got {x}")
        width = x.shape[2]
        self.require(
            isinstance(width, int) and width % self.radix == 0, f"{x} has no radix {self.radix}"
        )
        assert isinstance(width, int)
        return x.with_shape((x.shape[0], width // self.radix, 1, 1))

    def evaluate(self, x: Array) -> Array:
        total = x.sum(axis=1).reshape(len(x), self.radix, x.shape[2] // self.radix).sum(axis=1)
        y: Array = (total * total.dtype.type(self.scale))[:, :, None, None]
        return y
