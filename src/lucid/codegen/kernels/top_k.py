"""The k largest of each row, or the smallest, and where they lie: also the kernel of all sorting.

All ranks of a row are sorted or, where few of many elements are asked for, those of a heap of the
best ones so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.ranks import INDEX_BITS, Ranks
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    places,
    repeated,
    repeated_extents,
    share,
)
from lucid.codegen.language.values import Int, Pointer, constant, size_of
from lucid.codegen.target import Target

OPERANDS = ("x", "values", "places")


@dataclass(frozen=True)
class TopK(KernelSpec):
    """values, places = the first `k` of each row of x by size, and their indices.

    A row is `length` elements side by side; results are `values_axis` and `places_axis` apart. A
    task is a share of the `rows`, over all outer dimensions. `whole`: all elements are sorted.
    """

    family: ClassVar[str] = "top_k"
    dtype: str
    largest: bool
    whole: bool

    def arguments(self) -> tuple[Arg, ...]:
        operands = buffers("x", "values", dtype=self.dtype) + buffers("places", dtype="i64")
        sizes = ints("rows", "parts", "length", "k", "values_axis", "places_axis")
        return operands + repeated(*OPERANDS) + sizes

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.parts)
        found = repeated_extents(given, given.rows, *OPERANDS)
        found["x"] += ((given.length, 1),)
        for name in ("values", "places"):
            found[name] += ((given.k, getattr(given, f"{name}_axis")),)
        return found

    def emit(self, target: Target) -> ir.Module:
        return _Emitter(self, target).emit()


class _Emitter:
    def __init__(self, spec: TopK, target: Target) -> None:
        self.spec = spec
        self.frame = f = Frame(spec, target)
        self.kernel = f.kernel
        room = f.length if spec.whole else f.k
        self.ranks = Ranks(self.kernel, spec.dtype, spec.largest, f.scratch, room)

    def emit(self) -> ir.Module:
        f, k, r = self.frame, self.kernel, self.ranks
        with k.loop(f.first, f.last) as task, k.loop(*share(task.index, f.rows, f.parts)) as row:
            x, values, indices = places(f, row.index, *OPERANDS)
            if self.spec.whole:
                with k.loop(0, f.length) as loop:
                    r.store(r.of(x, loop.index), r.ranks + loop.index)
                found = r.sorted(f.length, in_order=True)
            else:
                self._best(x, r.ranks)
                found = r.sorted(f.k, in_order=False)
            with k.loop(0, f.k) as place:
                index = r.index_of(r.load(found + place.index))
                element = k.builder.load((x + index).raw, typ=x.element, align=size_of(x.element))
                at = values + place.index * f.values_axis
                k.builder.store(element, at.raw, align=size_of(x.element))
                k.store_int(index, indices + place.index * f.places_axis)
        return f.finish()

    def _best(self, x: Pointer, heap: Pointer) -> None:
        """The `k` lowest ranks, the highest of them first, each no lower than those below it. Whole
        vectors of elements are compared with that one at once, once all `k` are of elements: the
        highest key there is also that of an element."""
        f, k, b, r = self.frame, self.kernel, self.kernel.builder, self.ranks
        with k.loop(0, f.k) as loop:
            r.store(constant(r.kind, -1), heap + loop.index)
        r.store(constant(r.kind, 0), heap + f.k)  # what is below the last ones
        with k.loop(0, f.k) as loop:
            self._offer(heap, x, loop.index)
        lanes = k.vector
        whole = f.k + (f.length - f.k) // lanes * lanes
        with k.loop(f.k, whole, lanes) as loop:
            keys = r.keys(x + loop.index, lanes)
            worst = b.trunc(b.lshr(r.load(heap), ir.Constant(r.kind, INDEX_BITS)), r.key)
            better = b.icmp_unsigned("<", keys, k.every_lane(worst, lanes))
            some = b.icmp_unsigned("!=", b.bitcast(better, ir.IntType(lanes)), _none(lanes))
            with k.when(some), k.loop(0, lanes) as lane:
                self._offer(heap, x, loop.index + lane.index)
        with k.loop(whole, f.length) as loop:
            self._offer(heap, x, loop.index)

    def _offer(self, heap: Pointer, x: Pointer, index: Int) -> None:
        """Take an element's rank in for the highest one, if it is lower."""
        f, k, b, r = self.frame, self.kernel, self.kernel.builder, self.ranks
        rank = r.of(x, index)

        def child(place: Any) -> tuple[Any, Any]:
            """The higher one of the two below a place, and where it is."""
            left = (Int(b, place) * 2 + 1).minimum(f.k)
            right = (left + 1).minimum(f.k)
            one, other = r.load(heap + left), r.load(heap + right)
            first = r.below(other, one)
            return b.select(first, one, other), b.select(first, left.raw, right.raw)

        def step(values: Sequence[Any]) -> Sequence[Any]:
            hole, higher, place = values
            r.store(higher, heap + Int(b, hole))
            return (place, *child(place))

        with k.when(r.below(rank, r.load(heap))):
            start = k.int(0).raw
            hole, *_ = k.repeat((start, *child(start)), lambda v: r.below(rank, v[1]), step)
            r.store(rank, heap + Int(b, hole))


def _none(lanes: int) -> ir.Constant:
    return ir.Constant(ir.IntType(lanes), 0)
