"""Non-maximum suppression: the boxes that are kept of each class, and all of them in one list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.box_strips import Box, Strips, higher, lower
from lucid.codegen.kernels.box_strips import scratch_bytes as bytes_of_strips
from lucid.codegen.kernels.ranks import Ranks
from lucid.codegen.kernels.ranks import scratch_bytes as bytes_of_ranks
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    floats,
    ints,
)
from lucid.codegen.language.values import I1, Int, Pointer, Vector
from lucid.codegen.target import Target


def scratch_bytes(count: int, vector: int) -> int:
    """Scratch for `count` boxes."""
    return bytes_of_ranks("f32", count) + bytes_of_strips(count, vector)


@dataclass(frozen=True)
class Suppress(KernelSpec):
    """Of each class of each image, the indices of the boxes that are kept and how many they are:
    `lucid.ir.ops.NonMaxSuppression`. `form` is the op's; `bounded`: only scores above `least` take
    part.

    boxes: [image][box][4], scores: [image][class][box] -> kept: [image][class][most], the rest -1,
    and counts: [image][class]. A task is one class of one image: its ranks are sorted, and each box
    is compared with those kept so far, as far as they are near, a vector of them at a time.
    """

    family: ClassVar[str] = "suppress"
    form: str
    bounded: bool

    def arguments(self) -> tuple[Arg, ...]:
        operands = buffers("boxes", "scores") + buffers("kept", "counts", dtype="i64")
        return operands + ints("classes", "count", "most") + floats("share", "least")

    def extents(self, given: Given) -> dict[str, Extent]:
        images = given.tasks_over(given.classes)
        return {
            "boxes": ((images * given.count * 4, 1),),
            "scores": ((given.tasks * given.count, 1),),
            "kept": ((given.tasks * given.most, 1),),
            "counts": ((given.tasks, 1),),
        }

    def emit(self, target: Target) -> ir.Module:
        return _Emitter(self, target).emit()


class _Emitter:
    def __init__(self, spec: Suppress, target: Target) -> None:
        self.spec = spec
        self.frame = f = Frame(spec, target)
        self.kernel = k = f.kernel
        self.ranks = Ranks(k, "f32", True, f.scratch, f.count)
        self.strips = Strips(k, self.ranks.end, f.count)

    def emit(self) -> ir.Module:
        f, k = self.frame, self.kernel
        with k.loop(f.first, f.last) as task:
            boxes = f.boxes + task.index // f.classes * (f.count * 4)
            kept = f.kept + task.index * f.most
            found = self._ranked(f.scores + task.index * f.count)
            ordered = self.ranks.sorted(found, in_order=True)
            count = self._select(boxes, ordered, found, kept)
            k.store_int(count, f.counts + task.index)
            with k.loop(count, f.most) as rest:
                k.store_int(-1, kept + rest.index)
        return f.finish()

    def _ranked(self, scores: Pointer) -> Int:
        """The ranks of all boxes that take part; how many there are."""
        f, k, r = self.frame, self.kernel, self.ranks
        with k.loop(0, f.count, carry=[Vector(k.builder, k.int(0).raw)]) as loop:
            place = Int(k.builder, loop.carried[0].raw)
            r.store(r.of(scores, loop.index), r.ranks + place)  # there is room for one too many
            following = place + 1
            if self.spec.bounded:
                above = k.load(scores + loop.index, lanes=1).compare(">", f.least)
                following = k.select(above, following, place)
            loop.carry([Vector(k.builder, following.raw)])
        return Int(k.builder, loop.results[0].raw)

    def _select(self, boxes: Pointer, ordered: Pointer, found: Int, kept: Pointer) -> Int:
        """Take the boxes in order; how many are kept."""
        f, k, b, r = self.frame, self.kernel, self.kernel.builder, self.ranks

        def numbered(number: Int) -> tuple[Int, Box]:
            index = r.index_of(r.load(ordered + number))
            return index, self._box(boxes + index * 4)

        # Below 0, boxes that have nothing in common overlap as well.
        apart = f.share.compare(">=", 0.0)
        self.strips.lay_out(found, lambda number: numbered(number)[1], apart)

        def left(values: list[Any]) -> Any:
            number, count = (Int(b, value) for value in values)
            return k.both(number < found, count < f.most)

        def step(values: list[Any]) -> list[Any]:
            number, count = (Int(b, value) for value in values)
            index, box = numbered(number)
            strip = self.strips.of(box)
            over = self._overlaps(box, strip)
            with k.when(k.negated(over)):
                self.strips.keep(box, strip)
                k.store_int(index, kept + count)
            return [(number + 1).raw, k.select(over, count, count + 1).raw]

        zero = k.int(0).raw
        _, count = k.repeat([zero, zero], left, step)
        return Int(b, count)

    def _box(self, at: Pointer) -> Box:
        """The sides of a box, lower ones first, and its area."""
        k = self.kernel
        a, b, c, d = (k.load(at + i, lanes=1) for i in range(4))
        if self.spec.form == "centre":
            half, other = c / 2.0, d / 2.0
            a, b, c, d = a - half, b - other, a + half, b + other
        elif self.spec.form == "corners":
            a, b, c, d = lower(k, a, c), lower(k, b, d), higher(k, a, c), higher(k, b, d)
        return [a, b, c, d, (c - a) * (d - b)]

    def _overlaps(self, box: Box, strip: Int) -> Any:
        """Whether a box of a strip overlaps one that is kept by more than the share."""
        k, b = self.kernel, self.kernel.builder
        own = [k.splat(value) for value in box]

        def going(values: list[Any]) -> Any:
            near, over = values
            return b.and_(Int(b, near) <= strip + 1, b.not_(over))

        def step(values: list[Any]) -> list[Any]:
            near = Int(b, values[0])
            return [(near + 1).raw, self._overlaps_some(own, *self.strips.kept(near))]

        _, over = k.repeat([(strip - 1).raw, ir.Constant(I1, 0)], going, step)
        return over

    def _overlaps_some(self, own: Box, start: Int, stop: Int) -> Any:
        """Whether a box, in all lanes, overlaps one of those kept from `start` to `stop`."""
        k, b = self.kernel, self.kernel.builder

        def going(values: list[Any]) -> Any:
            place, over = values
            return b.and_(Int(b, place) < stop, b.not_(over))

        def step(values: list[Any]) -> list[Any]:
            place = Int(b, values[0])
            lanes = k.both(self._above(self.strips.at(place), own), k.first_lanes(stop - place))
            bits = ir.IntType(k.vector)
            some = b.icmp_unsigned("!=", b.bitcast(lanes, bits), ir.Constant(bits, 0))
            return [(place + k.vector).raw, some]

        _, over = k.repeat([start.raw, ir.Constant(I1, 0)], going, step)
        return over

    def _above(self, a: list[Vector], b: list[Vector]) -> Any:
        """Where the share that two boxes have in common is above the threshold."""
        f, k = self.frame, self.kernel
        strict = self.spec.form != "sides"
        width = lower(k, a[2], b[2]) - higher(k, a[0], b[0])
        height = lower(k, a[3], b[3]) - higher(k, a[1], b[1])
        if not strict:
            width, height = (higher(k, k.zero(), size) for size in (width, height))
        shared = width * height
        union = a[4] + b[4] - shared
        over = (shared / union).compare(">", k.splat(f.share))
        if strict:
            positive = [v.compare(">", 0.0) for v in (width, height, shared, a[4], b[4], union)]
            return k.both(over, *positive)
        return over


@dataclass(frozen=True)
class Listed(KernelSpec):
    """What `Suppress` keeps as one list: rows (image, class, box), the rest -1, and how many there
    are. One task."""

    family: ClassVar[str] = "listed"

    def arguments(self) -> tuple[Arg, ...]:
        operands = buffers("kept", "counts", "rows", "total", dtype="i64")
        return operands + ints("images", "classes", "most")

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(1)
        pairs = given.images * given.classes
        return {
            "kept": ((pairs * given.most, 1),),
            "counts": ((pairs, 1),),
            "rows": ((pairs * given.most * 3, 1),),
            "total": (),
        }

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k, b = f.kernel, f.kernel.builder
        zero = Vector(b, k.int(0).raw)
        with k.loop(0, f.images * f.classes, carry=[zero]) as pair:
            start = Int(b, pair.carried[0].raw)
            count = k.load_int(f.counts + pair.index)
            with k.loop(0, count) as loop:
                row = f.rows + (start + loop.index) * 3
                box = k.load_int(f.kept + (pair.index * f.most + loop.index))
                for i, value in enumerate((pair.index // f.classes, pair.index % f.classes, box)):
                    k.store_int(value, row + i)
            pair.carry([Vector(b, (start + count).raw)])
        total = Int(b, pair.results[0].raw)
        with k.loop(total * 3, f.images * f.classes * f.most * 3) as rest:
            k.store_int(-1, f.rows + rest.index)
        k.store_int(total, f.total)
        return f.finish()
