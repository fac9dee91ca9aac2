"""Ranks: numbers by which elements are sorted, and how they are.

An element and its index become one unsigned number: a key that grows as elements do, or falls where
the largest come first, and below it the index. Ranks in ascending order are elements in the order
wanted, equal ones by their indices, whatever way they are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.values import I1, I32, I64, Int, Pointer, constant, size_of

INDEX_BITS = 32
DIGIT_BITS = 8
DIGITS = 1 << DIGIT_BITS
FEW = 48
"""Ranks that are sorted by insertion: clearing and adding up the counts of a radix sort takes
longer. Rows of 32 took 0.28 us by insertion and 1.1 us by digits, of 48 0.79 and 1.2, of 64 the
same (an AMD EPYC with AVX2)."""


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


class Ranks:
    """Makes and sorts the ranks of elements of a dtype, from scratch with room for `count` (one
    more is there to be used). `ranks`: the array that they are written to."""

    def __init__(
        self, kernel: Kernel, name: str, descending: bool, scratch: Pointer, count: Int
    ) -> None:
        self.kernel, self.name, self.descending = kernel, name, descending
        self.key = ir.IntType(key_bits(name))
        self.kind = ir.IntType(8 * rank_bytes(name))
        self.ranks = scratch.to(self.kind)
        self._other = self.ranks + (count + 1)
        self._counts = (self._other + (count + 1)).to(I64)

    @property
    def end(self) -> Pointer:
        """Where the scratch ends that it uses."""
        bits = self.key.width + INDEX_BITS
        end: Pointer = self._counts + bits // DIGIT_BITS * DIGITS
        return end

    def load(self, at: Pointer) -> Any:
        return self.kernel.builder.load(at.raw, typ=self.kind, align=8)

    def store(self, rank: Any, at: Pointer) -> None:
        self.kernel.builder.store(rank, at.raw, align=8)

    def below(self, a: Any, b: Any) -> Any:
        return self.kernel.builder.icmp_unsigned("<", a, b)

    def index_of(self, rank: Any) -> Int:
        b = self.kernel.builder
        return Int(b, b.zext(b.trunc(rank, I32), I64))

    def of(self, x: Pointer, index: Int) -> Any:
        """The rank of one element."""
        b = self.kernel.builder
        key = self.keys(x + index, 1)
        high = b.shl(b.zext(key, self.kind), ir.Constant(self.kind, INDEX_BITS))
        low = index.raw if self.kind == I64 else b.zext(index.raw, self.kind)
        return b.or_(high, low)

    def keys(self, at: Pointer, lanes: int) -> Any:
        """The keys of elements side by side."""
        b, name = self.kernel.builder, self.name
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
        return b.xor(key, every) if self.descending else key

    def sorted(self, count: Int, in_order: bool) -> Pointer:
        """Where the first `count` ranks are after they have been sorted. `in_order`: those of equal
        elements stand by their indices already."""
        k, b = self.kernel, self.kernel.builder
        moved = k.stack(1, I64)
        k.store_int(0, moved)
        k.either(
            count <= FEW,
            lambda: self._by_insertion(self.ranks, count),
            lambda: self._by_digits(count, in_order, moved),
        )
        return k.choose(b.trunc(k.load_int(moved).raw, I1), self._other, self.ranks)

    def _by_insertion(self, ranks: Pointer, count: Int) -> None:
        k, b = self.kernel, self.kernel.builder
        with k.loop(1, count) as loop:
            rank = self.load(ranks + loop.index)

            def before(place: Any) -> Pointer:
                return ranks + (Int(b, place) - 1).maximum(0)

            def higher(values: Sequence[Any], rank: Any = rank) -> Any:
                (place,) = values
                return b.and_(Int(b, place) > 0, self.below(rank, self.load(before(place))))

            def step(values: Sequence[Any]) -> Sequence[Any]:
                (place,) = values
                self.store(self.load(before(place)), ranks + Int(b, place))
                return ((Int(b, place) - 1).raw,)

            (place,) = k.repeat([loop.index.raw], higher, step)
            self.store(rank, ranks + Int(b, place))

    def _by_digits(self, count: Int, in_order: bool, moved: Pointer) -> None:
        """By each digit of 8 bits, the lowest first, whatever keeps the order of equal ones; one
        that is the same in all ranks is passed over. Indices need none where all stand in order."""
        k, b = self.kernel, self.kernel.builder
        ranks, other, counts = self.ranks, self._other, self._counts
        first = INDEX_BITS if in_order else 0
        shifts = range(first, INDEX_BITS + self.key.width, DIGIT_BITS)
        with k.loop(0, len(shifts) * DIGITS) as loop:
            k.store_int(0, counts + loop.index)
        with k.loop(0, count) as loop:
            rank = self.load(ranks + loop.index)
            for number, shift in enumerate(shifts):
                at = counts + (self._digit(rank, shift) + number * DIGITS)
                k.store_int(k.load_int(at) + 1, at)
        for number, shift in enumerate(shifts):
            own = counts + number * DIGITS
            swapped = b.trunc(k.load_int(moved).raw, I1)
            source, target = k.choose(swapped, other, ranks), k.choose(swapped, ranks, other)
            same = k.load_int(own + self._digit(self.load(source), shift)).equals(count)
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
            rank = self.load(source + loop.index)
            at = own + self._digit(rank, shift)
            place = k.load_int(at)
            self.store(rank, target + place)
            k.store_int(place + 1, at)

    def _digit(self, rank: Any, shift: int) -> Int:
        b = self.kernel.builder
        moved = b.lshr(rank, ir.Constant(self.kind, shift))
        low = moved if self.kind == I64 else b.trunc(moved, I64)
        return Int(b, b.and_(low, ir.Constant(I64, DIGITS - 1)))
