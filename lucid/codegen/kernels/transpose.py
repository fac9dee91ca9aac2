"""Turning blocks of numbers round in registers."""

from __future__ import annotations

from llvmlite import ir

from lucid.codegen.emit import Kernel
from lucid.codegen.values import I32, Vector


def transposed(k: Kernel, rows: list[Vector]) -> list[Vector]:
    """The columns of a square of vectors: in step s of log2(n), every second block of s x s
    numbers changes places with the one diagonal to it, one shuffle of two vectors each."""
    size = len(rows)
    step = 1
    while step < size:
        low = [j if not j & step else size + j - step for j in range(size)]
        high = [j + step if not j & step else size + j for j in range(size)]
        swapped = list(rows)
        for i in (i for i in range(size) if not i & step):
            swapped[i] = _shuffle(k, rows[i], rows[i + step], low)
            swapped[i + step] = _shuffle(k, rows[i], rows[i + step], high)
        rows = swapped
        step *= 2
    return rows


def _shuffle(k: Kernel, a: Vector, b: Vector, lanes: list[int]) -> Vector:
    """Lanes of two vectors, those of the second counted on from the first's."""
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return Vector(k, k.builder.shuffle_vector(a.raw, b.raw, mask))
