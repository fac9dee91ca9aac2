"""Winograd convolution whose products are of bfloat16: transforms in float32, rounded in the end.

As that of floats, but V holds pairs of channels. Of F(2x2) alone: its transforms add up four
numbers, each of which is off by 2^-8 of itself as those of a direct sum are; F(4x4) subtracts much
larger ones from each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.arithmetic import ARITHMETIC, Arithmetic
from lucid.codegen.kernels.winograd import Winograd, WinogradEmitter, skewed
from lucid.codegen.language.bf16 import rounded
from lucid.codegen.language.kernel import Extent, Given
from lucid.codegen.language.values import F32, I16, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target


def scratch_bytes(
    m: int, tiles: int, channels: int, panel: int, vector: int, rows_beyond: int = 0
) -> int:
    """Scratch a task needs: V in pairs, M and a pixel of zeros, or the rows after V that are read
    with its last."""
    points = (m + 2) ** 2
    padded = -(-channels // (2 * vector)) * vector
    products = points * (skewed(tiles * padded) + skewed(tiles * panel))
    return size_of(F32) * (products + max(2, rows_beyond) * padded)


@dataclass(frozen=True)
class Bf16Winograd(Winograd):
    """`Winograd` with weights and transformed inputs of bfloat16."""

    family: ClassVar[str] = "winograd_bf16"

    def dtype_of(self, operand: str) -> str:
        return "bf16" if operand == "weights" else super().dtype_of(operand)

    def extents(self, given: Given) -> dict[str, Extent]:
        packed = given.groups * given.panels * given.panel * (self.m + 2) ** 2
        weights: Extent = ((packed * 2 * -(-given.depth // 2), 1),)
        return super().extents(given) | {"weights": weights}

    def emit(self, target: Target) -> ir.Module:
        return _Emitter(self, target).emit()


class _Emitter(WinogradEmitter):
    arithmetic: ClassVar[Arithmetic] = ARITHMETIC["bf16"]

    def _point(self, row: Pointer, channel: Int) -> Pointer:
        return row.to(I16) + channel

    def _store_point(self, value: Vector, place: Pointer, mask: Any, anywhere: bool) -> None:
        k = self.kernel
        k.store(rounded(k, value), place, align=self.bytes // 2)
