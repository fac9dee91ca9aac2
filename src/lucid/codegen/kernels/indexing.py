"""Kernels that take elements from places, or put them to places, which tensors of indices tell.

Indices are i64, and below 0 count from the end; what they would reach outside is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.strided import Walk, grid, grid_extents, numbered, operands
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.elements import CONSTANT, Access, fetch, put
from lucid.codegen.language.kernel import Arg, Extent, Given, KernelSpec, ints
from lucid.codegen.language.values import Int, Pointer, Vector, size_of
from lucid.codegen.language.vector_math import maximum, minimum
from lucid.codegen.target import Target

TAKE = ("x", "indices", "y")
PUT = ("data", "indices", "updates", "y")


def counted(k: Kernel, index: Int, size: Int) -> Int:
    """An index counted from the start of an axis; one outside stays so."""
    return k.select(index < 0, index + size, index)


@dataclass(frozen=True)
class Take(KernelSpec):
    """y[g] = x[g, i_0, i_1, ...] over a grid: each index i_j = indices[g, j] counts along an axis
    of `length{j}` elements, `x_axis{j}` apart; one outside takes the element nearest to it.

    `accesses`: those of x, of the indices, which lie `index_step` apart for one place, and of y.
    """

    family: ClassVar[str] = "take"
    depth: int
    accesses: tuple[Access, ...]

    def arguments(self) -> tuple[Arg, ...]:
        axes = ints(*numbered("length", self.depth), *numbered("x_axis", self.depth), "index_step")
        return operands(TAKE, self.accesses) + grid(TAKE) + axes

    def extents(self, given: Given) -> dict[str, Extent]:
        found = grid_extents(given, dict(zip(TAKE, self.accesses, strict=True)))
        found["x"] += _axes(given, "x", self.depth)
        found["indices"] += ((self.depth, given.index_step),)
        return found

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, dict(zip(TAKE, self.accesses, strict=True)))
        f, k = walk.frame, walk.kernel

        def source(x: Pointer, indices: Pointer) -> Pointer:
            for j in range(self.depth):
                length = getattr(f, f"length{j}")
                index = counted(k, k.load_int(indices + f.index_step * j), length)
                x = x + index.maximum(0).minimum(length - 1) * getattr(f, f"x_axis{j}")
            return x

        def row(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            if walk.accesses["indices"].kind == CONSTANT:
                _move(walk, at | {"x": source(at["x"], at["indices"])}, start, stop)
                return
            with k.loop(start, stop) as loop:
                here = {o: at[o] + loop.index * walk.stride(o) for o in TAKE}
                element = _element(k, source(here["x"], here["indices"]))
                k.builder.store(element, here["y"].raw, align=size_of(here["y"].element))

        return walk.rows(row)


def _move(walk: Walk, at: Mapping[str, Pointer], start: Int, stop: Int, x: str = "x") -> None:
    """A piece of a row from an operand to y."""
    k = walk.kernel

    def step(index: Int, mask: Any) -> None:
        elements = fetch(k, walk.accesses[x], at[x], index, walk.stride(x), k.vector, mask)
        put(k, elements, walk.accesses["y"], at["y"], index, walk.stride("y"), mask)

    walk.each_vector(start, stop, step)


def _element(k: Kernel, at: Pointer) -> Any:
    return k.builder.load(at.raw, typ=at.element, align=size_of(at.element))


def _axes(given: Given, operand: str, depth: int) -> Extent:
    """The axes of an operand that indices count along."""
    lengths = (getattr(given, f"length{j}") for j in range(depth))
    steps = (getattr(given, f"{operand}_axis{j}") for j in range(depth))
    return tuple(zip(lengths, steps, strict=True))


# -- putting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Put(KernelSpec):
    """y = data, and then y[g, i_0, i_1, ...] = updates[g, t] for t = 0, 1, ... over a grid, or what
    `reduction` makes of both. Each index i_j = indices[g, t, j] counts along an axis of `length{j}`
    elements; where one is outside nothing is put.

    What lies at different places of the grid is independent, so that tasks change no result.
    `accesses`: those of data, of the indices, of the updates and of y. `flat`: the grid is of one
    place, and data and y are contiguous along the last axis.
    """

    family: ClassVar[str] = "put"
    depth: int
    reduction: str
    accesses: tuple[Access, ...]
    flat: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        axes = ints(*numbered("length", self.depth), "count", "index_step")
        axes += ints(*numbered("data_axis", self.depth), *numbered("y_axis", self.depth))
        steps = ints("indices_count", "updates_count")
        return operands(PUT, self.accesses) + grid(PUT) + axes + steps

    def extents(self, given: Given) -> dict[str, Extent]:
        found = grid_extents(given, dict(zip(PUT, self.accesses, strict=True)))
        found["data"] += _axes(given, "data", self.depth)
        found["y"] += _axes(given, "y", self.depth)
        found["indices"] += ((given.count, given.indices_count), (self.depth, given.index_step))
        found["updates"] += ((given.count, given.updates_count),)
        return found

    def emit(self, target: Target) -> ir.Module:
        return _PutEmitter(self, target).emit()


class _PutEmitter:
    def __init__(self, spec: Put, target: Target) -> None:
        self.spec = spec
        self.walk = Walk(spec, target, dict(zip(PUT, spec.accesses, strict=True)))
        self.frame, self.kernel = self.walk.frame, self.walk.kernel

    def emit(self) -> ir.Module:
        return self.walk.rows(self.row)

    def row(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        f, k, walk = self.frame, self.kernel, self.walk
        self._copied(at, start, stop, 0)
        whole = walk.accesses["indices"].kind == CONSTANT and self.spec.reduction == "none"
        with k.loop(0, f.count) as loop:
            here = dict(at)
            for name in ("indices", "updates"):
                here[name] = at[name] + loop.index * getattr(f, f"{name}_count")
            if whole:
                y, inside = self._place(here["indices"], here["y"])
                with k.when(inside):
                    _move(walk, here | {"y": y}, start, stop, "updates")
            else:
                self._singly(here, start, stop)

    def _singly(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        """One of the updates for each place of a row, by indices of its own."""
        k, walk = self.kernel, self.walk
        with k.loop(start, stop) as loop:
            here = {o: at[o] + loop.index * walk.stride(o) for o in PUT}
            y, inside = self._place(here["indices"], here["y"])
            with k.when(inside):
                element = _element(k, here["updates"])
                if self.spec.reduction != "none":
                    element = self._combined(_element(k, y), element)
                k.builder.store(element, y.raw, align=size_of(y.element))

    def _copied(self, at: dict[str, Pointer], start: Int, stop: Int, axis: int) -> None:
        """y = data over all axes from this one on."""
        f, k = self.frame, self.kernel
        if axis == self.spec.depth - 1 and self.spec.flat:
            size = getattr(f, f"length{axis}")
            flat = Access("vector", self.spec.accesses[0].dtype)

            def step(index: Int, mask: Any) -> None:
                elements = fetch(k, flat, at["data"], index, k.int(1), k.vector, mask)
                put(k, elements, flat, at["y"], index, k.int(1), mask)

            k.each_vector(size, step)
        elif axis == self.spec.depth:
            _move(self.walk, at, start, stop, "data")
        else:
            with k.loop(0, getattr(f, f"length{axis}")) as loop:
                steps = {o: getattr(f, f"{o}_axis{axis}") for o in ("data", "y")}
                moved = {o: at[o] + loop.index * step for o, step in steps.items()}
                self._copied(at | moved, start, stop, axis + 1)

    def _place(self, indices: Pointer, y: Pointer) -> tuple[Pointer, Any]:
        """The place in y that the indices tell, and whether it is one."""
        f, k = self.frame, self.kernel
        inside = []
        for j in range(self.spec.depth):
            length = getattr(f, f"length{j}")
            index = counted(k, k.load_int(indices + f.index_step * j), length)
            inside += [index >= 0, index < length]
            y = y + index * getattr(f, f"y_axis{j}")
        return y, k.both(*inside)

    def _combined(self, a: Any, b: Any) -> Any:
        k, kind = self.kernel, dtype(self.spec.accesses[0].dtype).kind
        if kind == "float":
            one, other = Vector(k.builder, a), Vector(k.builder, b)
            functions: dict[str, Callable[[], Vector]] = {
                "add": lambda: one + other,
                "mul": lambda: one * other,
                "max": lambda: maximum(k, one, other),
                "min": lambda: minimum(k, one, other),
            }
            return functions[self.spec.reduction]().raw
        if self.spec.reduction in ("add", "mul"):
            return getattr(k.builder, self.spec.reduction)(a, b)
        compare = k.builder.icmp_signed if kind == "signed" else k.builder.icmp_unsigned
        sign = ">" if self.spec.reduction == "max" else "<"
        return k.builder.select(compare(sign, a, b), a, b)
