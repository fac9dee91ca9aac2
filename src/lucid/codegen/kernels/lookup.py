"""Lookup: any function of 8-bit integers as a table of its 256 results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.strided import Walk, grid, grid_extents, named, operands
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.elements import VECTOR, Access
from lucid.codegen.language.kernel import Arg, Extent, Given, KernelSpec, buffers
from lucid.codegen.language.tables import ByteTable
from lucid.codegen.language.values import I64, Int, Pointer, constant
from lucid.codegen.target import Target

PLACES = 256
UNROLL = 4
"""Elements of a round, one at a time: each takes two loads and a store."""


@dataclass(frozen=True)
class Lookup(KernelSpec):
    """y = table[x - least]. `accesses`: those of x, which is u8 or i8, and of y, which is of the
    table's dtype; both `vector` or `strided`."""

    family: ClassVar[str] = "lookup"
    streams: ClassVar[bool] = True
    accesses: tuple[Access, Access]

    def arguments(self) -> tuple[Arg, ...]:
        table = buffers("table", dtype=self.accesses[1].dtype)
        return operands(("x", "y"), self.accesses) + grid(("x", "y")) + table

    def extents(self, given: Given) -> dict[str, Extent]:
        return grid_extents(given, named(self.accesses)) | {"table": ((PLACES, 1),)}

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, named(self.accesses))
        k, table = walk.kernel, walk.frame.table
        signed = dtype(self.accesses[0].dtype).kind == "signed"
        rows = ByteTable(k, table) if target.lookups and self._in_bytes() else None

        def row(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            x, y = at["x"], at["y"]

            def one(index: Int) -> None:
                place = k.builder.load((x + index * walk.stride("x")).raw, typ=x.element, align=1)
                if signed:
                    place = k.builder.xor(place, constant(x.element, 128))
                found = k.load(table + Int(k.builder, k.builder.zext(place, I64)), lanes=1)
                k.store(found, y + index * walk.stride("y"))

            def singly() -> None:
                whole = start + (stop - start) // UNROLL * UNROLL
                with k.loop(start, whole, UNROLL) as loop:
                    for i in range(UNROLL):
                        one(loop.index + i)
                with k.loop(whole, stop) as loop:
                    one(loop.index)

            def vectors(rows: ByteTable) -> None:
                """The last one ends with the row, and does some again."""
                with k.loop(start, stop, rows.lanes) as loop:
                    index = loop.index.minimum(stop - rows.lanes)
                    places = k.load(x + index, rows.lanes)
                    if signed:
                        places = places.of(k.builder.xor(places.raw, constant(rows.kind, 128)))
                    k.store(places.of(rows.at(places.raw)), y + index)

            if rows is None:
                singly()
            else:
                k.either(stop - start >= rows.lanes, lambda: vectors(rows), singly)

        return walk.rows(row)

    def _in_bytes(self) -> bool:
        """Whether both lie side by side in bytes."""
        return all(a.kind == VECTOR and dtype(a.dtype).bytes == 1 for a in self.accesses)
