"""Running totals along one axis of strided arrays: sums and products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.strided import Walk, grid, grid_extents, operands
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.elements import Access, fetch, put
from lucid.codegen.language.kernel import Arg, Extent, Given, KernelSpec, ints
from lucid.codegen.language.values import Int, Pointer, Vector, constant, size_of
from lucid.codegen.target import Target

NAMES = ("x", "y")


@dataclass(frozen=True)
class Scan(KernelSpec):
    """y = the sum or product (`kind` add, mul) of the elements of x up to each along an axis of
    `length`, one after the other; `exclusive`: of those before it, `reverse`: from the end on.

    Vectors lie along what is kept; with `along`, where the axis is contiguous, there are none.
    """

    family: ClassVar[str] = "scan"
    kind: str
    exclusive: bool
    reverse: bool
    accesses: tuple[Access, ...]
    along: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        return operands(NAMES, self.accesses) + grid(NAMES) + ints("length", "x_axis", "y_axis")

    def extents(self, given: Given) -> dict[str, Extent]:
        found = grid_extents(given, dict(zip(NAMES, self.accesses, strict=True)))
        return {o: (*e, (given.length, getattr(given, f"{o}_axis"))) for o, e in found.items()}

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, dict(zip(NAMES, self.accesses, strict=True)))
        k = walk.kernel
        (x, y), element = self.accesses, dtype(self.accesses[0].dtype).element

        def vectors(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            def step(index: Int, mask: Any) -> None:
                self._scan(
                    walk,
                    at,
                    ir.VectorType(element, k.vector),
                    lambda p: fetch(k, x, p, index, walk.stride("x"), k.vector, mask),
                    lambda v, p: put(k, v, y, p, index, walk.stride("y"), mask),
                )

            walk.each_vector(start, stop, step)

        def singly(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            align = size_of(element)
            with k.loop(start, stop) as loop:
                here = {o: at[o] + loop.index * walk.stride(o) for o in NAMES}
                self._scan(
                    walk,
                    here,
                    element,
                    lambda p: k.builder.load(p.raw, typ=element, align=align),
                    lambda v, p: k.builder.store(v, p.raw, align=align),
                )

        return walk.rows(singly if self.along else vectors)

    def _scan(
        self,
        walk: Walk,
        at: dict[str, Pointer],
        kind: ir.Type,
        load: Callable[[Pointer], Any],
        store: Callable[[Any, Pointer], None],
    ) -> None:
        """The totals of one vector of axes, or of one axis."""
        f, k = walk.frame, walk.kernel
        none = Vector(k.builder, constant(kind, 0 if self.kind == "add" else 1))
        with k.loop(0, f.length, carry=[none]) as loop:
            place = f.length - 1 - loop.index if self.reverse else loop.index
            (before,) = loop.carried
            total = self._combined(k, before.raw, load(at["x"] + place * f.x_axis))
            store(before.raw if self.exclusive else total, at["y"] + place * f.y_axis)
            loop.carry([Vector(k.builder, total)])

    def _combined(self, k: Kernel, total: Any, value: Any) -> Any:
        floating = dtype(self.accesses[0].dtype).kind == "float"
        return getattr(k.builder, f"f{self.kind}" if floating else self.kind)(total, value)
