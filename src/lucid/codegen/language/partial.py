"""The first few elements of a vector, of any dtype and width, without touching those behind them.

Few targets have masks for bytes: elsewhere these go through the stack, in powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import Int, Pointer, Vector, constant, size_of


def each_part(k: Kernel, count: Int, widest: int, body: Callable[[Int, int], None]) -> None:
    """`body(offset, lanes)` for `count` elements: vectors of the widest, a power of two, then the
    rest in ever shorter ones."""
    whole = count // widest * widest
    with k.loop(0, whole, widest) as loop:
        body(loop.index, widest)
    rest, lanes = whole, widest // 2
    while lanes:
        held = (count // lanes) % 2
        with k.when(held.equals(1)):
            body(rest, lanes)
        rest, lanes = rest + held * lanes, lanes // 2


def load_first(k: Kernel, address: Pointer, lanes: int, count: Int | None) -> Any:
    """A vector of elements, of which the first `count`, or all, are read; the others are of no
    meaning."""
    if count is None:
        return k.load(address, lanes).raw
    if k.target.masked:
        return k.load(address, lanes, k.first_lanes(count, lanes)).raw
    room = k.stack(lanes, address.element)
    _copy(k, address, room, count.minimum(lanes), lanes)
    return k.load(room, lanes).raw


def store_first(k: Kernel, value: Any, address: Pointer, count: Int | None) -> None:
    """Write the first `count` elements of a vector, or all."""
    vector, lanes = Vector(k.builder, value), value.type.count
    if count is None:
        k.store(vector, address)
    elif k.target.masked:
        k.store(vector, address, k.first_lanes(count, lanes))
    else:
        room = k.stack(lanes, address.element)
        k.store(vector, room)
        _copy(k, room, address, count.minimum(lanes), lanes)


def store_zeros(k: Kernel, out: Pointer, count: Int) -> None:
    """Write `count` zeros of 16 bits."""

    def part(at: Int, lanes: int) -> None:
        zero = constant(k.vector_type(lanes, out.element), 0)
        k.store(Vector(k.builder, zero), out + at)

    each_part(k, count, 2 * k.vector, part)


def _copy(k: Kernel, source: Pointer, out: Pointer, count: Int, lanes: int) -> None:
    widest = min(lanes, k.aligned // size_of(source.element))

    def part(at: Int, lanes: int) -> None:
        kind: ir.Type = k.vector_type(lanes, source.element)
        align = size_of(source.element)
        value = k.builder.load((source + at).raw, typ=kind, align=align)
        k.builder.store(value, (out + at).raw, align=align)

    each_part(k, count, widest, part)
