"""Winograd's filters transformed by native code, for loading: the same numbers as those of
`winograd_panels.py`, bit for bit.

It is called by itself, with denormals as they are, and not by the driver, for which they are zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.winograd_panels import TAPS, matrix, multiplied, points
from lucid.codegen.language.elements import numbers
from lucid.codegen.language.kernel import Arg, Frame, KernelSpec, buffers, ints
from lucid.codegen.language.values import Int, Pointer, Vector
from lucid.codegen.target import Target


@dataclass(frozen=True)
class FilterTransform(KernelSpec):
    """G g G^T of panels of filters: [panel][tap][column] -> [panel][point][column], of `columns`
    numbers a tap. A task is one panel. `dtype`: f32, or i16, whose points are exact.
    """

    family: ClassVar[str] = "filter_transform"
    m: int
    dtype: str

    def arguments(self) -> tuple[Arg, ...]:
        return ints("columns") + buffers("taps", "points", dtype=self.dtype)

    def emit(self, target: Target) -> ir.Module:
        return _Emitter(self, target).emit()


class _Emitter:
    def __init__(self, spec: FilterTransform, target: Target) -> None:
        self.spec = spec
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.g = matrix(spec.m, spec.dtype)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        # All of a cache line is written at once: columns are often as many as a way of the cache
        # holds, and then the lines of all points want the same few places.
        lanes = k.line(f.points.element)
        whole = f.columns // lanes * lanes
        with k.loop(f.first, f.last) as panel:
            self.taps = f.taps + panel.index * TAPS * f.columns
            self.points = f.points + panel.index * points(self.spec.m) * f.columns
            with k.loop(0, whole, lanes) as column:
                self._transform(column.index, lanes)
            with k.loop(whole, f.columns) as column:
                self._transform(column.index, 1)
        return f.finish()

    def _transform(self, column: Int, lanes: int) -> None:
        """The filters of some columns."""
        f, side = self.frame, len(self.g)
        places = [self.taps + (f.columns * tap + column) for tap in range(TAPS)]
        taps = [self._load(place, lanes) for place in places]
        lines = [list(multiplied(self.g, taps[3 * i : 3 * i + 3])) for i in range(3)]
        for j in range(side):
            for i, value in enumerate(multiplied(self.g, [line[j] for line in lines])):
                self._store(value, self.points + (f.columns * (side * i + j) + column))

    def _load(self, place: Pointer, lanes: int) -> Vector:
        """Taps as they are computed with: floats as doubles."""
        k, dtype = self.kernel, self.spec.dtype
        value = numbers(k, k.load(place, lanes).raw, dtype)
        return value if dtype == "i16" else k.widen(value)

    def _store(self, value: Vector, place: Pointer) -> None:
        """Points, rounded where they are doubles."""
        k = self.kernel
        k.store(value if self.spec.dtype == "i16" else k.narrow(value), place)
