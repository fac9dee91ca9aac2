"""Kernels over any strided arrays: elementwise chains, copies, reductions and softmax.

They do what no fused kernel took up: up to four outer dimensions, then one inner one that is
vectorised where every operand is contiguous (or constant) along it, and scalar otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.body import Body
from lucid.codegen.kernels.base import Arg, Frame, KernelSpec, buffers, floats, ints
from lucid.codegen.target import Target
from lucid.codegen.transcendentals import exp
from lucid.codegen.values import Int, Pointer, Vector
from lucid.codegen.vector_math import maximum

OUTER = 4
"""Outer dimensions of these kernels; the lowering merges dimensions to get there."""
REDUCED = 3


def _names(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}{i}" for i in range(count))


def _grid(operands: Sequence[str]) -> tuple[Arg, ...]:
    """Sizes and strides of the outer dimensions; one task is one outer index by one piece."""
    declared = ints(*_names("size", OUTER), "inner", "pieces")
    for operand in operands:
        declared += ints(*_names(f"{operand}_stride", OUTER), f"{operand}_inner")
    return declared


class _Strided:
    """Walks the grid: for each task, the operands' addresses and a piece of the inner dimension."""

    def __init__(self, spec: KernelSpec, target: Target, operands: Sequence[str]) -> None:
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.operands = operands

    def tasks(self, body: Any) -> ir.Module:
        """`body(addresses, start, stop)` for each task."""
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            piece, rest = task.index % f.pieces, task.index // f.pieces
            at = {o: getattr(f, o) for o in self.operands}
            for i in reversed(range(OUTER)):
                size = getattr(f, f"size{i}")
                index = rest % size
                rest = rest // size
                for o in self.operands:
                    at[o] = at[o] + index * getattr(f, f"{o}_stride{i}")
            width = f.inner.ceil_div(f.pieces * k.vector) * k.vector
            start = (piece * width).minimum(f.inner)
            body(at, start, (start + width).minimum(f.inner))
        return f.finish()

    def along(self, start: Int, stop: Int, scalar: bool, body: Any) -> None:
        """`body(index, lanes, mask)` along the inner dimension."""
        k = self.kernel
        if scalar:
            with k.loop(start, stop) as loop:
                body(loop.index, 1, None)
            return
        k.each_vector(stop - start, lambda c, mask: body(start + c, k.vector, mask))


@dataclass(frozen=True)
class Elementwise(KernelSpec):
    """y = body(x, extras): a chain of elementwise ops, or (with no steps) a copy.

    `kinds`: for x and each extra, `"vector"` (contiguous along the inner dimension) or `"constant"`
    along it; with `scalar` every operand has a stride of its own there.
    """

    family: ClassVar[str] = "elementwise"
    body: Body
    kinds: tuple[str, ...]
    scalar: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        names = ("x", *_names("extra", len(self.kinds) - 1), "y")
        return buffers(*names) + _grid(names)

    def emit(self, target: Target) -> ir.Module:
        names = ("x", *_names("extra", len(self.kinds) - 1))
        walk = _Strided(self, target, (*names, "y"))
        f, k = walk.frame, walk.kernel

        def task(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            def step(index: Int, lanes: int, mask: Any) -> None:
                read = []
                for name, kind in zip(names, self.kinds, strict=True):
                    if self.scalar:
                        read.append(k.load(at[name] + index * getattr(f, f"{name}_inner"), 1))
                    elif kind == "constant":
                        read.append(k.splat(k.load(at[name], lanes=1)))
                    else:
                        read.append(k.load(at[name] + index, mask=mask))
                result = self.body.emit(k, read[0], read[1:])
                offset = index * f.y_inner if self.scalar else index
                k.store(result, at["y"] + offset, mask)

            walk.along(start, stop, self.scalar, step)

        return walk.tasks(task)


@dataclass(frozen=True)
class Reduce(KernelSpec):
    """y[outer, inner] = scale * (sum or max over the reduced dimensions of x), ascending order."""

    family: ClassVar[str] = "reduce"
    kind: str = "sum"
    scalar: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        reduced = ints(*_names("reduced", REDUCED), *_names("x_reduced", REDUCED))
        return buffers("x", "y") + _grid(("x", "y")) + reduced + floats("scale")

    def emit(self, target: Target) -> ir.Module:
        walk = _Strided(self, target, ("x", "y"))
        f, k = walk.frame, walk.kernel

        def task(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            def step(index: Int, lanes: int, mask: Any) -> None:
                x = at["x"] + (index * f.x_inner if self.scalar else index)
                initial = k.splat_constant(0.0 if self.kind == "sum" else float("-inf"), lanes)
                total = self._nest(f, x, lanes, mask, initial, 0)
                offset = index * f.y_inner if self.scalar else index
                k.store(total * k.splat(f.scale, lanes), at["y"] + offset, mask)

            walk.along(start, stop, self.scalar, step)

        return walk.tasks(task)

    def _nest(
        self, f: Frame, x: Pointer, lanes: int, mask: Any, total: Vector, depth: int
    ) -> Vector:
        """One loop for each reduced dimension. Each line is summed by itself and then added, which
        keeps the chains, and so the rounding errors, short."""
        k = f.kernel
        if depth == REDUCED:
            value = k.load(x, lanes, mask)
            return total + value if self.kind == "sum" else maximum(k, total, value)
        initial = k.zero(lanes) if self.kind == "sum" else total
        with k.loop(0, getattr(f, f"reduced{depth}"), carry=[initial]) as loop:
            at = x + loop.index * getattr(f, f"x_reduced{depth}")
            loop.carry([self._nest(f, at, lanes, mask, loop.carried[0], depth + 1)])
        return total + loop.results[0] if self.kind == "sum" else loop.results[0]


@dataclass(frozen=True)
class Softmax(KernelSpec):
    """Softmax along one axis of `length`, `x_axis` floats apart; the radix softmax of a split
    attention is one, with other strides for what it writes."""

    family: ClassVar[str] = "softmax"
    scalar: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        return buffers("x", "y") + _grid(("x", "y")) + ints("length", "x_axis", "y_axis")

    def emit(self, target: Target) -> ir.Module:
        walk = _Strided(self, target, ("x", "y"))
        f, k = walk.frame, walk.kernel

        def task(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            def step(index: Int, lanes: int, mask: Any) -> None:
                x = at["x"] + (index * f.x_inner if self.scalar else index)
                y = at["y"] + (index * f.y_inner if self.scalar else index)
                with k.loop(0, f.length, carry=[k.splat_constant(float("-inf"), lanes)]) as loop:
                    value = k.load(x + loop.index * f.x_axis, lanes, mask)
                    loop.carry([maximum(k, loop.carried[0], value)])
                (largest,) = loop.results
                with k.loop(0, f.length, carry=[k.zero(lanes)]) as loop:
                    power = exp(k, k.load(x + loop.index * f.x_axis, lanes, mask) - largest)
                    k.store(power, y + loop.index * f.y_axis, mask)
                    loop.carry([loop.carried[0] + power])
                inverse = 1.0 / loop.results[0]
                with k.loop(0, f.length) as loop:
                    place = y + loop.index * f.y_axis
                    k.store(k.load(place, lanes, mask) * inverse, place, mask)

            walk.along(start, stop, self.scalar, step)

        return walk.tasks(task)
