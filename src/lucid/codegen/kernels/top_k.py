"""The k largest of each row, or the smallest, and where they lie: also the kernel of all sorting.

An element and its index become one unsigned number, a *rank*: a key that grows as elements do, or
falls where the largest come first, and below it the index. Ranks in ascending order are elements in
the order wanted, equal ones by their indices, whatever way they are sorted: by a radix sort, or,
where few of many are asked for, by a heap of the best ones so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.dtypes import dtype
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
from lucid.codegen.language.values import I1, I32, I64, Int, Pointer, constant, size_of
from lucid.codegen.target import Target

INDEX_BITS = 32
DIGIT_BITS = 8
DIGITS = 1 << DIGIT_BITS
FEW = 32
"""Ranks that are sorted by insertion: clearing and adding up the counts of a radix sort takes
longer."""

OPERANDS = ("x", "values", "places")


def key_bits(name: str) -> int:
    """Bits of a key for elements of a dtype."""
    return 64 if dtype(name).bytes == 8 else 32


def rank_bytes(name: str) -> int:
    """Bytes of a rank for elements of a dtype."""
    return 8 if key_bits(name) == 32 else 16


def scratch_bytes(name: str, count: int) -> int:
    """Scratch for sorting `count` ranks: two arrays of them, and the counts of all digits."""
    bits = key_bits(name) + INDEX_BITS
    return 2 * (count + 1) * rank_bytes(name) + bits // DIGIT_BITS * DIGITS * 8


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
        self.frame = Frame(spec, target)
        self.kernel = self.frame.kernel
        self.key = ir.IntType(key_bits(spec.dtype))
        self.rank = ir.IntType(8 * rank_bytes(spec.dtype))
        self.bits = key_bits(spec.dtype) + INDEX_BITS

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        ranks = f.scratch.to(self.rank)
        room = (f.length if self.spec.whole else f.k) + 1
        other = ranks + room
        counts = (other + room).to(I64)
        with k.loop(f.first, f.last) as task, k.loop(*share(task.index, f.rows, f.parts)) as row:
            x, values, indices = places(f, row.index, *OPERANDS)
            if self.spec.whole:
                self._all(x, ranks)
                count = f.length
            else:
                self._best(x, ranks)
                count = f.k
            found = self._sorted(ranks, other, counts, count)
            with k.loop(0, f.k) as place:
                rank = self._load(found + place.index)
                index = self._index_of(rank)
                element = k.builder.load((x + index).raw, typ=x.element, align=size_of(x.element))
                at = values + place.index * f.values_axis
                k.builder.store(element, at.raw, align=size_of(x.element))
                k.store_int(index, indices + place.index * f.places_axis)
        return f.finish()

    # -- ranks ------------------------------------------------------------------------------

    def _load(self, at: Pointer) -> Any:
        return self.kernel.builder.load(at.raw, typ=self.rank, align=8)

    def _store(self, rank: Any, at: Pointer) -> None:
        self.kernel.builder.store(rank, at.raw, align=8)

    def _below(self, a: Any, b: Any) -> Any:
        return self.kernel.builder.icmp_unsigned("<", a, b)

    def _index_of(self, rank: Any) -> Int:
        b = self.kernel.builder
        return Int(b, b.zext(b.trunc(rank, I32), I64))

    def _rank(self, x: Pointer, index: Int) -> Any:
        """The rank of one element."""
        b = self.kernel.builder
        key = self._keys(x + index, 1)
        high = b.shl(b.zext(key, self.rank), ir.Constant(self.rank, INDEX_BITS))
        low = index.raw if self.rank == I64 else b.zext(index.raw, self.rank)
        return b.or_(high, low)

    def _keys(self, at: Pointer, lanes: int) -> Any:
        """The keys of elements side by side."""
        b, name = self.kernel.builder, self.spec.dtype
        wide = self.key if lanes == 1 else ir.VectorType(self.key, lanes)
        kind = at.element if lanes == 1 else ir.VectorType(at.element, lanes)
        element = b.load(at.raw, typ=kind, align=size_of(at.element))
        top = constant(wide, -1 << (self.key.width - 1))
        every = constant(wide, -1)
        if dtype(name).kind == "float":
            zero = b.fadd(element, constant(kind, 0.0))  # -0.0 and denormals become 0.0
            bits = b.bitcast(zero, wide)
            sign = b.ashr(bits, constant(wide, self.key.width - 1))
            key = b.select(
                b.fcmp_unordered("uno", zero, zero), every, b.xor(bits, b.or_(sign, top))
            )
        elif dtype(name).kind == "signed":
            key = b.xor(element if kind == wide else b.sext(element, wide), top)
        else:
            key = element if kind == wide else b.zext(element, wide)
        return b.xor(key, every) if self.spec.largest else key

    def _all(self, x: Pointer, ranks: Pointer) -> None:
        with self.kernel.loop(0, self.frame.length) as loop:
            self._store(self._rank(x, loop.index), ranks + loop.index)

    # -- the best ---------------------------------------------------------------------------

    def _best(self, x: Pointer, heap: Pointer) -> None:
        """The `k` lowest ranks, the highest of them first, each no lower than those below it. Whole
        vectors of elements are compared with that one at once."""
        f, k, b = self.frame, self.kernel, self.kernel.builder
        with k.loop(0, f.k) as loop:
            self._store(constant(self.rank, -1), heap + loop.index)
        self._store(constant(self.rank, 0), heap + f.k)  # what is below the last ones
        lanes = k.vector
        whole = f.length // lanes * lanes
        with k.loop(0, whole, lanes) as loop:
            keys = self._keys(x + loop.index, lanes)
            worst = b.trunc(b.lshr(self._load(heap), ir.Constant(self.rank, INDEX_BITS)), self.key)
            better = b.icmp_unsigned("<", keys, self._splat(worst, lanes))
            some = b.icmp_unsigned("!=", b.bitcast(better, ir.IntType(lanes)), _none(lanes))
            with k.when(some), k.loop(0, lanes) as lane:
                self._offer(heap, x, loop.index + lane.index)
        with k.loop(whole, f.length) as loop:
            self._offer(heap, x, loop.index)

    def _splat(self, key: Any, lanes: int) -> Any:
        b, kind = self.kernel.builder, ir.VectorType(self.key, lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        first = b.insert_element(undefined, key, ir.Constant(I32, 0))
        return b.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        )

    def _offer(self, heap: Pointer, x: Pointer, index: Int) -> None:
        """Take an element's rank in for the highest one, if it is lower."""
        f, k, b = self.frame, self.kernel, self.kernel.builder
        rank = self._rank(x, index)

        def child(place: Any) -> tuple[Any, Any]:
            """The higher one of the two below a place, and where it is."""
            left = (Int(b, place) * 2 + 1).minimum(f.k)
            right = (left + 1).minimum(f.k)
            one, other = self._load(heap + left), self._load(heap + right)
            first = self._below(other, one)
            return b.select(first, one, other), b.select(first, left.raw, right.raw)

        def step(values: Sequence[Any]) -> Sequence[Any]:
            hole, higher, place = values
            self._store(higher, heap + Int(b, hole))
            return (place, *child(place))

        with k.when(self._below(rank, self._load(heap))):
            start = k.int(0).raw
            hole, *_ = k.repeat((start, *child(start)), lambda v: self._below(rank, v[1]), step)
            self._store(rank, heap + Int(b, hole))

    # -- sorting ----------------------------------------------------------------------------

    def _sorted(self, ranks: Pointer, other: Pointer, counts: Pointer, count: Int) -> Pointer:
        """Where the ranks are after they have been sorted: in place, or in the other array."""
        k, b = self.kernel, self.kernel.builder
        moved = k.stack(1, I64)
        k.store_int(0, moved)
        k.either(
            count <= FEW,
            lambda: self._by_insertion(ranks, count),
            lambda: self._by_digits(ranks, other, counts, count, moved),
        )
        return k.choose(b.trunc(k.load_int(moved).raw, I1), other, ranks)

    def _by_insertion(self, ranks: Pointer, count: Int) -> None:
        k, b = self.kernel, self.kernel.builder
        with k.loop(1, count) as loop:
            rank = self._load(ranks + loop.index)

            def before(place: Any) -> Pointer:
                return ranks + (Int(b, place) - 1).maximum(0)

            def higher(values: Sequence[Any], rank: Any = rank) -> Any:
                (place,) = values
                return b.and_(Int(b, place) > 0, self._below(rank, self._load(before(place))))

            def step(values: Sequence[Any]) -> Sequence[Any]:
                (place,) = values
                self._store(self._load(before(place)), ranks + Int(b, place))
                return ((Int(b, place) - 1).raw,)

            (place,) = k.repeat([loop.index.raw], higher, step)
            self._store(rank, ranks + Int(b, place))

    def _by_digits(
        self, ranks: Pointer, other: Pointer, counts: Pointer, count: Int, moved: Pointer
    ) -> None:
        """By each digit of 8 bits, the lowest first, whatever keeps the order of equal ones; one
        that is the same in all ranks is passed over. Indices need none where all stand in order."""
        k, b = self.kernel, self.kernel.builder
        first = INDEX_BITS if self.spec.whole else 0
        shifts = range(first, self.bits, DIGIT_BITS)
        with k.loop(0, len(shifts) * DIGITS) as loop:
            k.store_int(0, counts + loop.index)
        with k.loop(0, count) as loop:
            rank = self._load(ranks + loop.index)
            for number, shift in enumerate(shifts):
                at = counts + (self._digit(rank, shift) + number * DIGITS)
                k.store_int(k.load_int(at) + 1, at)
        for number, shift in enumerate(shifts):
            own = counts + number * DIGITS
            swapped = b.trunc(k.load_int(moved).raw, I1)
            source, target = k.choose(swapped, other, ranks), k.choose(swapped, ranks, other)
            same = k.load_int(own + self._digit(self._load(source), shift)).equals(count)
            with k.when(k.negated(same)):
                self._pass(source, target, own, count, shift)
                k.store_int(1 - k.load_int(moved), moved)

    def _pass(self, source: Pointer, target: Pointer, own: Pointer, count: Int, shift: int) -> None:
        k, b = self.kernel, self.kernel.builder

        def total(values: Sequence[Any]) -> Sequence[Any]:
            digit, before = (Int(b, value) for value in values)
            here = k.load_int(own + digit)
            k.store_int(before, own + digit)
            return (digit + 1).raw, (before + here).raw

        zero = k.int(0).raw
        k.repeat([zero, zero], lambda v: Int(b, v[0]) < DIGITS, total)
        with k.loop(0, count) as loop:
            rank = self._load(source + loop.index)
            at = own + self._digit(rank, shift)
            place = k.load_int(at)
            self._store(rank, target + place)
            k.store_int(place + 1, at)

    def _digit(self, rank: Any, shift: int) -> Int:
        b = self.kernel.builder
        moved = b.lshr(rank, ir.Constant(self.rank, shift))
        low = moved if self.rank == I64 else b.trunc(moved, I64)
        return Int(b, b.and_(low, ir.Constant(I64, DIGITS - 1)))


def _none(lanes: int) -> ir.Constant:
    return ir.Constant(ir.IntType(lanes), 0)
