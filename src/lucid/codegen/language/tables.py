"""Tables of 256 bytes in registers: a vector of bytes is looked up at once.

The table is 16 rows of 16 bytes. `pshufb` finds each byte of x in one row by its low four bits, and
gives 0 where its sign bit is set. Row after row, 16 is subtracted from x, which stays negative from
where it has passed zero: of the first rows up to x's own each adds something, and the rows are kept
as the differences to the ones before them (exclusive or), so that x's own row is what remains.
That does half of the table, 128 numbers without a sign; x with the other sign does the other half,
and what belongs to one half gives 0 in the other.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I8, I32, Pointer, constant

ROW = 16
ROWS = 16
INSTRUCTIONS = {
    16: "llvm.x86.ssse3.pshuf.b.128",
    32: "llvm.x86.avx2.pshuf.b",
    64: "llvm.x86.avx512.pshuf.b.512",
}


class ByteTable:
    """256 bytes at `base`, in registers. For targets with `lookups` only."""

    def __init__(self, k: Kernel, base: Pointer) -> None:
        self.k = k
        self.lanes = k.aligned
        self.kind = ir.VectorType(I8, self.lanes)
        rows = [self._row(base + ROW * i) for i in range(ROWS)]
        half = ROWS // 2
        self.rows = [
            row if i % half == 0 else k.builder.xor(row, rows[i - 1]) for i, row in enumerate(rows)
        ]

    def _row(self, address: Pointer) -> Any:
        """A row in each part of 16 bytes, of which `pshufb` knows nothing else."""
        b = self.k.builder
        row = ir.VectorType(I8, ROW)
        order = [i % ROW for i in range(self.lanes)]
        one = b.load(address.raw, typ=row, align=1)
        undefined = ir.Constant(row, ir.Undefined)
        return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, self.lanes), order))

    def at(self, places: Any) -> Any:
        """The table's bytes at a vector of places, 0 to 255."""
        b, half = self.k.builder, ROWS // 2
        turned = b.xor(places, constant(self.kind, 128))
        return b.or_(self._half(self.rows[:half], places), self._half(self.rows[half:], turned))

    def _half(self, rows: list[Any], places: Any) -> Any:
        k, kind = self.k, self.kind
        shuffle = k.intrinsic(INSTRUCTIONS[self.lanes], kind, [kind, kind])
        less = k.intrinsic(f"llvm.ssub.sat.{k.suffix(kind)}", kind, [kind, kind])
        total = k.builder.call(shuffle, [rows[0], places])
        for row in rows[1:]:
            places = k.builder.call(less, [places, constant(kind, ROW)])
            total = k.builder.xor(total, k.builder.call(shuffle, [row, places]))
        return total
