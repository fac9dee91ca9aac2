"""The boxes that are kept of many, by where they begin: a box is compared with those near to it.

The plane is cut into strips that are wider than any of the boxes, so that two of them have
something in common only where they begin in the same strip, or in neighbours. Detectors move the
boxes of each class to a place of their own, and so suppress all classes at once: 27,000 boxes of 90
classes, of which 5,760 are kept, take 2 ms so, and 48 where each is compared with all of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import F32, I64, Int, Pointer, Vector

STRIPS = 512
"""How many strips there are at most; before the first and behind the last is one without boxes."""
MARGIN = 0.9
"""The widest box as a part of a strip: rounding moves no box by more than the rest."""
KEPT = 5
"""Numbers that are known of each box that is kept: its four sides, and its area."""

Box = list[Vector]
"""The lower sides, the upper ones, and the area."""


def scratch_bytes(count: int, vector: int) -> int:
    """Scratch for the strips of `count` boxes."""
    return 2 * (STRIPS + 2) * 8 + KEPT * (count + vector) * 4


class Strips:
    """Strips in scratch, with room for as many kept boxes as there are boxes (`count`). Each strip
    has room for those that begin there: `starts`, and how many are kept so far: `counts`."""

    def __init__(self, kernel: Kernel, scratch: Pointer, count: Int) -> None:
        self.kernel = kernel
        self._starts = scratch.to(I64)
        self._counts = self._starts + (STRIPS + 2)
        self._sides = (self._counts + (STRIPS + 2)).to(F32)
        self._room = count + kernel.vector

    def lay_out(self, found: Int, box: Callable[[Int], Box], apart: object) -> None:
        """Cut the plane for `found` boxes, none of them kept yet; into one strip unless `apart`, or
        where sides are not finite."""
        k = self.kernel
        ends = [k.splat_constant(v, 1) for v in (float("inf"), float("-inf"), 0.0)]
        with k.loop(0, found, carry=ends) as loop:
            first, _, last, *_ = box(loop.index)
            low, high, width = loop.carried
            loop.carry(
                [lower(k, low, first), higher(k, high, first), higher(k, width, last - first)]
            )
        self._low, high, width = loop.results
        widest = k.splat_constant(MARGIN, 1) / width
        finest = k.splat_constant(STRIPS - 1.0, 1) / (high - self._low)
        self._factor = k.pick(apart, lower(k, widest, finest), k.zero(1))
        with k.loop(0, STRIPS + 2) as strip:
            k.store_int(0, self._counts + strip.index)
        with k.loop(0, found) as loop:
            self._count(self.of(box(loop.index)))
        with k.loop(0, STRIPS + 2, carry=[Vector(k.builder, k.int(0).raw)]) as strip:
            start = Int(k.builder, strip.carried[0].raw)
            following = start + k.load_int(self._counts + strip.index)
            k.store_int(start, self._starts + strip.index)
            k.store_int(0, self._counts + strip.index)
            strip.carry([Vector(k.builder, following.raw)])

    def of(self, box: Box) -> Int:
        """The strip that a box begins in."""
        k = self.kernel
        place = (box[0] - self._low) * self._factor
        place = k.pick(place.compare(">", 0.0), place, k.zero(1))  # NaN is 0
        place = lower(k, place, k.splat_constant(STRIPS - 1.0, 1))
        return Int(k.builder, k.builder.fptosi(place.raw, I64)) + 1

    def kept(self, strip: Int) -> tuple[Int, Int]:
        """From which place to which the boxes lie that are kept in a strip."""
        k = self.kernel
        start = k.load_int(self._starts + strip)
        return start, start + k.load_int(self._counts + strip)

    def at(self, place: Int) -> list[Vector]:
        """A vector of kept boxes, from this place on."""
        k = self.kernel
        return [k.load(self._sides + (self._room * i + place)) for i in range(KEPT)]

    def keep(self, box: Sequence[Vector], strip: Int) -> None:
        """One more box is kept."""
        k = self.kernel
        _, place = self.kept(strip)
        for i, value in enumerate(box):
            k.store(value, self._sides + (self._room * i + place))
        self._count(strip)

    def _count(self, strip: Int) -> None:
        k, at = self.kernel, self._counts + strip
        k.store_int(k.load_int(at) + 1, at)


def lower(k: Kernel, a: Vector, b: Vector) -> Vector:
    """The lower of two numbers, a where either is NaN."""
    return k.pick(b.compare("<", a), b, a)


def higher(k: Kernel, a: Vector, b: Vector) -> Vector:
    """The higher of two numbers, a where either is NaN."""
    return k.pick(a.compare("<", b), b, a)
