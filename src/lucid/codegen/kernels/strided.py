"""Kernels over any strided arrays: the grid they walk, and chains of elementwise ops.

A grid has four outer dimensions, one of rows, and an inner one, along which vectors lie; every
operand has a stride for each of them. One task is one outer index by a share of the rows by a
piece of the inner dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import Body
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.elements import (
    CONSTANT,
    EVERY,
    VECTOR,
    Access,
    fetch,
    load,
    put,
    store,
)
from lucid.codegen.language.kernel import (
    OUTER,
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    repeated,
    repeated_extents,
    share,
)
from lucid.codegen.language.values import Int, Pointer
from lucid.codegen.target import Target

FLOAT = dtype(COMPUTED).bytes


def numbered(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}{i}" for i in range(count))


def operand_names(count: int) -> tuple[str, ...]:
    """`x`, `extra0`, `extra1`, ..., `y`: `count` operands and the result."""
    return ("x", *numbered("extra", count - 1), "y")


def named(accesses: Sequence[Access]) -> dict[str, Access]:
    """The accesses of operands and result by `operand_names`."""
    return dict(zip(operand_names(len(accesses) - 1), accesses, strict=True))


def operands(names: Sequence[str], accesses: Sequence[Access]) -> tuple[Arg, ...]:
    """The declared operands, each of the dtype of its access."""
    pairs = zip(names, accesses, strict=True)
    return tuple(arg for name, access in pairs for arg in buffers(name, dtype=access.dtype))


def grid(operands: Sequence[str]) -> tuple[Arg, ...]:
    """The arguments of a grid: sizes, into how many parts to cut, and the operands' strides."""
    declared = repeated(*operands) + ints("rows", "inner", "parts", "pieces")
    for operand in operands:
        declared += ints(f"{operand}_row", f"{operand}_inner")
    return declared


def grid_extents(given: Given, accesses: Mapping[str, Access]) -> dict[str, Extent]:
    """What a call with a grid reaches in each operand."""
    number = given.tasks_over(given.parts, given.pieces)
    outer = repeated_extents(given, number, *accesses)
    for o, access in accesses.items():
        along = access.step(given.inner, getattr(given, f"{o}_inner"))
        outer[o] += ((given.rows, getattr(given, f"{o}_row")), (given.inner, along))
    return outer


class Walk:
    """Walks a grid: for each row of each task, the operands' addresses."""

    def __init__(self, spec: KernelSpec, target: Target, accesses: Mapping[str, Access]) -> None:
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.accesses = accesses

    def rows(self, body: Callable[[dict[str, Pointer], Int, Int], None]) -> ir.Module:
        """`body(addresses, start, stop)` for each row: where its operands begin, and a piece of
        the inner dimension."""
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            piece, rest = task.index % f.pieces, task.index // f.pieces
            part, rest = rest % f.parts, rest // f.parts
            at = {o: getattr(f, o) for o in self.accesses}
            for i in reversed(range(OUTER)):
                size = getattr(f, f"size{i}")
                index = rest % size
                rest = rest // size
                for o in self.accesses:
                    at[o] = at[o] + index * getattr(f, f"{o}_stride{i}")
            width = f.inner.ceil_div(f.pieces * k.vector) * k.vector
            start = (piece * width).minimum(f.inner)
            stop = (start + width).minimum(f.inner)
            with k.loop(*share(part, f.rows, f.parts)) as row:
                here = {o: at[o] + row.index * getattr(f, f"{o}_row") for o in self.accesses}
                body(here, start, stop)
        return f.finish()

    def stride(self, operand: str) -> Int:
        """How far apart an operand's numbers lie along the inner dimension."""
        stride: Int = getattr(self.frame, f"{operand}_inner")
        return stride

    def each_vector(self, start: Int, stop: Int, body: Callable[[Int, Any], None]) -> None:
        """`body(index, mask)` along a piece of the inner dimension: whole vectors without mask,
        then the rest. At the very end even a whole vector has a mask where loads that sort out
        every n-th number would run over it."""
        k = self.kernel
        spare = 1 if any(a.kind == EVERY for a in self.accesses.values()) else 0
        whole = start + (stop - start - spare).maximum(0) // k.vector * k.vector
        with k.loop(start, whole, k.vector) as loop:
            body(loop.index, None)
        with k.when(whole < stop):
            body(whole, k.first_lanes(stop - whole))


@dataclass(frozen=True)
class Elementwise(KernelSpec):
    """y = body(x, extras): a chain of elementwise ops, or (with no steps) a copy.

    `accesses`: those of x, of each extra, and of y.
    """

    family: ClassVar[str] = "elementwise"
    streams: ClassVar[bool] = True
    body: Body
    accesses: tuple[Access, ...]

    def arguments(self) -> tuple[Arg, ...]:
        names = operand_names(len(self.accesses) - 1)
        return operands(names, self.accesses) + grid(names)

    def extents(self, given: Given) -> dict[str, Extent]:
        return grid_extents(given, named(self.accesses))

    def emit(self, target: Target) -> ir.Module:
        accesses = named(self.accesses)
        names = [o for o in accesses if o != "y"]
        walk = Walk(self, target, accesses)
        k = walk.kernel

        wide = self._lanes(target)

        def row(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            zero = k.int(0)
            constants = {
                (o, lanes): load(k, accesses[o], at[o], zero, zero, lanes, None)
                for o in names
                for lanes in {wide, k.vector}
                if accesses[o].kind == CONSTANT and not self._moves()
            }

            def step(index: Int, lanes: int, mask: Any) -> None:
                if self._moves():
                    arguments = (at["x"], index, walk.stride("x"), lanes, mask)
                    elements = fetch(k, accesses["x"], *arguments)
                    put(k, elements, accesses["y"], at["y"], index, walk.stride("y"), mask)
                    return
                read = [
                    constants.get((o, lanes))
                    or load(k, accesses[o], at[o], index, walk.stride(o), lanes, mask)
                    for o in names
                ]
                result = self.body.emit(k, read[0], read[1:])
                store(k, result, accesses["y"], at["y"], index, walk.stride("y"), mask)

            if wide > k.vector:
                k.each_piece(start, stop, wide, step)
            else:
                walk.each_vector(start, stop, lambda index, mask: step(index, wide, mask))

        return walk.rows(row)

    def _lanes(self, target: Target) -> int:
        """Numbers that are worked on at once: where some are of fewer bytes than floats, and all
        lie side by side, as many as fill a vector of those."""
        read = [a for a in self.accesses if a.kind != CONSTANT]
        sizes = [dtype(a.dtype).bytes for a in read]
        if any(a.kind != VECTOR for a in read) or max(sizes) > FLOAT:
            return target.vector
        return target.vector * FLOAT // min(sizes)

    def _moves(self) -> bool:
        """Whether elements go from x to y as they are: computing with them could change bits."""
        return self.body.returned() == 0 and self.accesses[0].dtype == self.accesses[-1].dtype
