"""A loop of multiply-adds, which measures the peak rate that other kernels are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.language.kernel import Arg, Frame, KernelSpec, buffers, ints
from lucid.codegen.target import Target

UNROLL = 4
"""Rounds of all chains in one trip, so that counting trips costs nothing."""


@dataclass(frozen=True)
class Peak(KernelSpec):
    """q <- q * x + y in independent chains of the widest vectors; one task is `trips` trips.

    `data` holds the vectors x and y, and room for a third, the sum of all chains.
    """

    family: ClassVar[str] = "peak"

    def arguments(self) -> tuple[Arg, ...]:
        return ints("trips") + buffers("data")

    def emit(self, target: Target) -> ir.Module:
        frame = Frame(self, target)
        k, data = frame.kernel, frame.data
        x, y = k.load(data), k.load(data + target.vector)
        trips = frame.trips * (frame.last - frame.first)
        with k.loop(0, trips, carry=[x] * chains(target)) as loop:
            values = loop.carried
            for _ in range(UNROLL):
                values = [k.fma(q, x, y) for q in values]
            loop.carry(values)
        total, *rest = loop.results
        for q in rest:  # all of them are used, or all but one would be dead code
            total = total + q
        k.store(total, data + 2 * target.vector)
        return frame.finish()


def chains(target: Target) -> int:
    """Independent chains: more than latency times units (8 to 10), fewer than registers."""
    return target.registers * 3 // 4


def operations(target: Target) -> int:
    """Floating operations of one trip on one thread, 2 for a multiply-add."""
    return 2 * target.vector * chains(target) * UNROLL
