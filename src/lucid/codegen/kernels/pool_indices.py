"""Where the largest elements of windows lie, channels last, over one to three axes.

One task is one output line. A vector of channels carries the largest value so far and how far it
lies from the window's first tap: distances in a window are 32-bit integers in the bits of floats,
and the window's own place, which may be any, is added as a 64-bit one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.elements import VECTOR, Access, put
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, KernelSpec, buffers, ints
from lucid.codegen.language.values import F32, I32, I64, Int, Pointer, Vector
from lucid.codegen.target import Target

INDEX = "i64"
AXES = ("d", "h", "w")
EACH = ("size", "out", "kernel", "stride", "pad", "dilation", "count")
"""What is said of each axis; `count`: places from one element to the next."""


def for_axes(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{axis}" for axis in AXES)


@dataclass(frozen=True)
class PoolIndices(KernelSpec):
    """y[n,c,i...] = the place of the largest element of a window, of equal ones the first, of NaNs
    the last. `count_n` and `count_c`: places from one image and channel to the next."""

    family: ClassVar[str] = "pool_indices"

    def arguments(self) -> tuple[Arg, ...]:
        names = sum(map(for_axes, EACH), ())
        steps = ("x_n", *for_axes("x"), "y_n", *for_axes("y"))
        own = ints("channels", "count_n", "count_c", *names, *steps)
        return buffers("x") + buffers("y", dtype=INDEX) + own

    def extents(self, given: Given) -> dict[str, Extent]:
        images = given.tasks_over(given.out_d, given.out_h)

        def extent(operand: str, size: str) -> Extent:
            counts = (images, *(getattr(given, name) for name in for_axes(size)))
            steps = (getattr(given, name) for name in (f"{operand}_n", *for_axes(operand)))
            return (*zip(counts, steps, strict=True), (given.channels, 1))

        return {"x": extent("x", "size"), "y": extent("y", "out")}

    def emit(self, target: Target) -> ir.Module:
        return _PoolIndicesEmitter(self, target).emit()


@dataclass(frozen=True)
class _Span:
    """The taps of a window that lie in x along one axis: `count` from `first` on. `start`: where
    the window's first tap is, which may be outside. `nearest`: how far the first in x is from that
    one; where there is none, the last element of x."""

    start: Int
    first: Int
    count: Int
    nearest: Int


class _PoolIndicesEmitter:
    def __init__(self, spec: PoolIndices, target: Target) -> None:
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            line, rest = task.index % f.out_h, task.index // f.out_h
            plane, image = rest % f.out_d, rest // f.out_d
            outer = [self._span(plane, "d"), self._span(line, "h")]
            x = f.x + image * f.x_n
            y = f.y + (image * f.y_n + plane * f.y_d + line * f.y_h)
            with k.loop(0, f.out_w) as column:
                spans = [*outer, self._span(column.index, "w")]
                counts = [getattr(f, name) for name in for_axes("count")]
                base = image * f.count_n
                for span, count in zip(spans, counts, strict=True):
                    base = base + span.start * count
                self._pixel(x, y + column.index * f.y_w, spans, base)
        return f.finish()

    def _span(self, index: Int, axis: str) -> _Span:
        f = self.frame
        size, kernel, stride, pad, dilation = (
            getattr(f, f"{name}_{axis}") for name in ("size", "kernel", "stride", "pad", "dilation")
        )
        start = index * stride - pad
        first = (0 - start).maximum(0).ceil_div(dilation)
        behind = (size - start).maximum(0).ceil_div(dilation).minimum(kernel)
        nearest = (first * dilation).minimum(size - 1 - start)
        return _Span(start, first, behind - first, nearest)

    def _pixel(self, x: Pointer, y: Pointer, spans: list[_Span], base: Int) -> None:
        """One pixel of the result, all channels."""
        f, k = self.frame, self.kernel

        def block(c: Int, mask: Any) -> None:
            nearest = self._distance([s.nearest for s in spans])
            initial = [k.splat_constant(float("-inf")), nearest]
            _, distance = self._largest(x + c, spans, [], initial, mask)
            bits = k.builder.bitcast(distance.raw, ir.VectorType(I32, k.vector))
            places = k.builder.sext(bits, ir.VectorType(I64, k.vector))
            first = k.every_lane((base + c * f.count_c).raw, k.vector)
            lanes = ir.Constant(places.type, list(range(k.vector)))
            channels = k.builder.mul(k.every_lane(f.count_c.raw, k.vector), lanes)
            places = k.builder.add(k.builder.add(places, first), channels)
            put(k, places, Access(VECTOR, INDEX), y, c, k.int(1), mask)

        k.each_vector(f.channels, block)

    def _largest(
        self, x: Pointer, spans: list[_Span], taps: list[Int], carried: list[Vector], mask: Any
    ) -> list[Vector]:
        """The largest value and its distance, over the axes that `taps` says nothing of."""
        f, k = self.frame, self.kernel
        if len(taps) == len(AXES):
            best, distance = carried
            value = k.load(x, mask=mask)
            unordered = k.builder.fcmp_unordered("uno", value.raw, value.raw)
            better = k.builder.or_(value.compare(">", best), unordered)
            far = [t * getattr(f, f"dilation_{a}") for t, a in zip(taps, AXES, strict=True)]
            own = self._distance(far)
            return [k.pick(better, value, best), k.pick(better, own, distance)]
        axis, span = AXES[len(taps)], spans[len(taps)]
        with k.loop(0, span.count, carry=carried) as loop:
            tap = span.first + loop.index
            at = span.start + tap * getattr(f, f"dilation_{axis}")
            inner = x + at * getattr(f, f"x_{axis}")
            loop.carry(self._largest(inner, spans, [*taps, tap], loop.carried, mask))
        return loop.results

    def _distance(self, far: list[Int]) -> Vector:
        """How far an element is from where its window's first tap lies, as the bits of a float;
        `far`: along each axis."""
        f, k = self.frame, self.kernel
        total = k.int(0)
        for axis, steps in zip(AXES, far, strict=True):
            total = total + steps * getattr(f, f"count_{axis}")
        bits = k.builder.trunc(total.raw, I32)
        return k.splat(Vector(k.builder, k.builder.bitcast(bits, F32)))
