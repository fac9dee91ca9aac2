"""Tiles: registers of 16 rows of 64 bytes, and their products (Intel's AMX).

LLVM hands none of them out: who writes a kernel numbers them, from 0 to 7. A thread has to
configure them before it uses them, and to release them: as long as they are configured, the system
saves 8 KB wherever the thread is interrupted.
"""

from __future__ import annotations

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I8, I32, I64, PTR, VOID, Int, Pointer, Vector, size_of

TILES, ROWS, ROW_BYTES = 8, 16, 64
COLUMNS = ROW_BYTES // 4
"""Sums in a row of a tile, and pairs of bfloat16."""

WHOLE = [1, 0, 0, 0, *[ROW_BYTES << 16 | ROW_BYTES] * 4, 0, 0, 0, 0, *[0x10101010] * 2, 0, 0]
"""The configuration of eight tiles of all rows and bytes, as 32-bit words: palette 1, the bytes of
a row of each, the rows of each (Intel's Software Developer's Manual, volume 1, chapter 18)."""
assert len(WHOLE) == ROW_BYTES // 4
assert WHOLE[12] == ROWS * 0x01010101


def configure(k: Kernel) -> None:
    """Make all tiles usable on this thread, filled with zeros."""
    room = k.stack(len(WHOLE), I32)
    words = ir.Constant(ir.VectorType(I32, len(WHOLE)), WHOLE)
    k.store(Vector(k.builder, words), room, align=ROW_BYTES)
    k.builder.call(k.intrinsic("llvm.x86.ldtilecfg", VOID, [PTR]), [room.raw])


def release(k: Kernel) -> None:
    """Have none on this thread any more."""
    k.builder.call(k.intrinsic("llvm.x86.tilerelease", VOID, []), [])


def zero(k: Kernel, tile: int) -> None:
    """Fill a tile with zeros."""
    k.builder.call(k.intrinsic("llvm.x86.tilezero", VOID, [I8]), [_number(tile)])


def load(k: Kernel, tile: int, address: Pointer, step: int | Int) -> None:
    """Fill a tile with rows that begin `step` elements of `address` apart."""
    _move(k, "tileloadd64", tile, address, step)


def store(k: Kernel, tile: int, address: Pointer, step: int | Int) -> None:
    """Write a tile's rows, `step` elements of `address` apart."""
    _move(k, "tilestored64", tile, address, step)


def multiply_bf16(k: Kernel, sums: int, rows: int, panel: int) -> None:
    """Add to a tile of float32 the products of two of bfloat16: sums[r, c] += rows[r, 2p] *
    panel[p, 2c] + rows[r, 2p + 1] * panel[p, 2c + 1], over all pairs p. Denormals are zeros; the
    order is the processor's."""
    function = k.intrinsic("llvm.x86.tdpbf16ps", VOID, [I8] * 3)
    k.builder.call(function, [_number(tile) for tile in (sums, rows, panel)])


def _move(k: Kernel, name: str, tile: int, address: Pointer, step: int | Int) -> None:
    function = k.intrinsic(f"llvm.x86.{name}", VOID, [I8, PTR, I64])
    stride = k.int(step) * size_of(address.element)
    k.builder.call(function, [_number(tile), address.raw, stride.raw])


def _number(tile: int) -> ir.Constant:
    assert 0 <= tile < TILES
    return ir.Constant(I8, tile)
