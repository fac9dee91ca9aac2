"""Normalisation by statistics of the image itself: of rows, of groups of channels, of neighbours.

Means and variances are taken in two passes over what lies in a near cache: the second one is about
the mean that the first has found, and mends it by the mean of what is left, so that rounding counts
against the spread of the numbers and not against their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import Body
from lucid.codegen.kernels.reduction import CHAINS, across, add, fold
from lucid.codegen.kernels.strided import Walk, grid, grid_extents, named, operand_names, operands
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.elements import CONSTANT, Access, load, store
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    floats,
    ints,
    share,
)
from lucid.codegen.language.transcendentals import at_least, power
from lucid.codegen.language.values import F32, Int, Pointer, Vector, size_of
from lucid.codegen.target import Target


def _factor(k: Kernel, variance: Vector, eps: Vector) -> Vector:
    """1 / sqrt(variance + eps); a variance that rounding made negative is 0."""
    return 1.0 / k.math("sqrt", at_least(k, variance, 0.0) + eps)


def scratch_bytes(numbers: int) -> int:
    """Scratch for so many sums, means or squares."""
    return size_of(F32) * numbers


# -- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowNorm(KernelSpec):
    """y = body(normalised x, extras), each row along the inner dimension by its own statistics.

    `centred`: less the mean, by the standard deviation (layer norm); else by the root of the mean
    square. `accesses`: those of x, of each extra (weights among them), and of y.
    """

    family: ClassVar[str] = "row_norm"
    streams: ClassVar[bool] = True
    body: Body
    accesses: tuple[Access, ...]
    centred: bool = True

    def arguments(self) -> tuple[Arg, ...]:
        names = operand_names(len(self.accesses) - 1)
        return operands(names, self.accesses) + grid(names) + floats("inverse", "eps")

    def extents(self, given: Given) -> dict[str, Extent]:
        return grid_extents(given, named(self.accesses))

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, named(self.accesses))
        return walk.rows(_Row(self, walk).emit)


class _Row:
    """One row: statistics, then the result."""

    def __init__(self, spec: RowNorm, walk: Walk) -> None:
        self.spec, self.walk = spec, walk
        self.extras = [o for o in walk.accesses if o not in ("x", "y")]

    def emit(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        k, walk = self.walk.kernel, self.walk
        zero = k.int(0)

        def read(operand: str, index: Int, mask: Any) -> Vector:
            access, stride = walk.accesses[operand], walk.stride(operand)
            return load(k, access, at[operand], index, stride, k.vector, mask)

        constants = {o: read(o, zero, None) for o in self.extras if self._is_constant(o)}
        statistics = self._centred if self.spec.centred else self._squares
        normal = statistics(stop, lambda index, mask: read("x", index, mask))

        def write(index: Int, mask: Any) -> None:
            value = normal(read("x", index, mask))
            extras = [constants.get(o) or read(o, index, mask) for o in self.extras]
            result = self.spec.body.emit(k, value, extras)
            store(k, result, walk.accesses["y"], at["y"], index, walk.stride("y"), mask)

        walk.each_vector(zero, stop, write)

    def _is_constant(self, operand: str) -> bool:
        return self.walk.accesses[operand].kind == CONSTANT

    def _centred(
        self, length: Int, read: Callable[[Int, Any], Vector]
    ) -> Callable[[Vector], Vector]:
        """How a vector of the row is normalised."""
        f, k = self.walk.frame, self.walk.kernel

        def about_zero(totals: list[Vector], index: Int, mask: Any) -> list[Vector]:
            return [totals[0] + read(index, mask)]

        (total,) = fold(k, length, [k.zero()], about_zero, add)
        mean = k.splat(across(k, total, add) * f.inverse)

        def about_mean(totals: list[Vector], index: Int, mask: Any) -> list[Vector]:
            distance = read(index, mask) - mean
            if mask is not None:
                distance = k.pick(mask, distance, k.zero())
            return [totals[0] + distance, k.fma(distance, distance, totals[1])]

        left, squares = fold(k, length, [k.zero(), k.zero()], about_mean, add)
        beside = across(k, left, add) * f.inverse
        variance = across(k, squares, add) * f.inverse - beside * beside
        factor, rest = k.splat(_factor(k, variance, f.eps)), k.splat(beside)
        return lambda value: ((value - mean) - rest) * factor

    def _squares(
        self, length: Int, read: Callable[[Int, Any], Vector]
    ) -> Callable[[Vector], Vector]:
        f, k = self.walk.frame, self.walk.kernel

        def square(totals: list[Vector], index: Int, mask: Any) -> list[Vector]:
            value = read(index, mask)
            return [k.fma(value, value, totals[0])]

        (squares,) = fold(k, length, [k.zero()], square, add)
        factor = k.splat(_factor(k, across(k, squares, add) * f.inverse, f.eps))
        return lambda value: value * factor


# -- groups of channels ---------------------------------------------------------------------------


def _require_groups(given: Given) -> None:
    """Raises ValueError unless the groups are all channels."""
    if given.groups * given.width != given.channels:
        raise ValueError(f"{given.groups} groups of {given.width} of {given.channels} channels")


@dataclass(frozen=True)
class Moments(KernelSpec):
    """Mean, what the mean lacks, and the sum of squares about it, of each group of channels of one
    of `parts` parts of an image's pixels: x (channels last) -> y[image][part][3][group]."""

    family: ClassVar[str] = "moments"

    def arguments(self) -> tuple[Arg, ...]:
        sizes = ints("image", "pixel", "pixels", "channels", "groups", "width", "parts")
        return buffers("x", "y") + sizes

    def extents(self, given: Given) -> dict[str, Extent]:
        images = given.tasks_over(given.parts)
        _require_groups(given)
        pixels = ((given.pixels, given.pixel), (given.channels, 1))
        return {
            "x": ((images, given.image), *pixels),
            "y": ((given.tasks, 3 * given.groups), (3 * given.groups, 1)),
        }

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            image, part = task.index // f.parts, task.index % f.parts
            first, stop = share(part, f.pixels, f.parts)
            x = f.x + (image * f.image + first * f.pixel)
            out = f.y + task.index * f.groups * 3
            self._part(f, x, stop - first, out)
        return f.finish()

    def _part(self, f: Frame, x: Pointer, count: Int, out: Pointer) -> None:
        """Scratch holds sums by channel, the means of their groups, and sums of squares."""
        k = f.kernel
        sums, means, squares = (f.scratch.to(F32) + f.channels * i for i in range(3))
        inverse = 1.0 / k.as_float(count * f.width)
        self._by_channel(f, x, count, [sums], lambda value, _: [value], None)
        with k.loop(0, f.groups) as group:
            first = group.index * f.width
            mean = _total(k, sums + first, f.width) * inverse
            k.store(mean, out + group.index)
            everywhere, place = k.splat(mean), means + first
            k.each_vector(f.width, lambda c, m: k.store(everywhere, place + c, m))

        def about_mean(value: Vector, mean: Vector) -> list[Vector]:
            distance = value - mean
            return [distance, distance * distance]

        self._by_channel(f, x, count, [sums, squares], about_mean, means)
        with k.loop(0, f.groups) as group:
            first = group.index * f.width
            left = _total(k, sums + first, f.width)
            beside = left * inverse
            k.store(beside, out + (f.groups + group.index))
            second = _total(k, squares + first, f.width) - left * beside
            k.store(second, out + (f.groups * 2 + group.index))

    @staticmethod
    def _by_channel(
        f: Frame,
        x: Pointer,
        count: Int,
        outs: Sequence[Pointer],
        terms: Callable[[Vector, Vector], list[Vector]],
        means: Pointer | None,
    ) -> None:
        """Sums over `count` pixels of what `terms` makes of a value and its group's mean."""
        k = f.kernel

        def vectors(channel: Int, mask: Any, many: int) -> None:
            places = [channel + i * k.vector for i in range(many)]
            about = [k.load(means + p, mask=mask) if means else k.zero() for p in places]
            with k.loop(0, count, carry=[k.zero()] * (many * len(outs))) as loop:
                at = x + loop.index * f.pixel
                found = []
                for place, mean in zip(places, about, strict=True):
                    found += terms(k.load(at + place, mask=mask), mean)
                loop.carry([a + b for a, b in zip(loop.carried, found, strict=True)])
            for i, total in enumerate(loop.results):
                k.store(total, outs[i % len(outs)] + places[i // len(outs)], mask)

        block = CHAINS * k.vector
        whole = f.channels // block * block
        with k.loop(0, whole, block) as loop:
            vectors(loop.index, None, CHAINS)
        k.each_vector(f.channels - whole, lambda c, mask: vectors(whole + c, mask, 1))


def _total(k: Kernel, numbers: Pointer, count: Int) -> Vector:
    """The sum of contiguous floats."""

    def step(totals: list[Vector], index: Int, mask: Any) -> list[Vector]:
        return [totals[0] + k.load(numbers + index, mask=mask)]

    (total,) = fold(k, count, [k.zero()], step, add)
    return across(k, total, add)


@dataclass(frozen=True)
class GroupNormalise(KernelSpec):
    """y = body(normalised x, extras) of a map (channels last) by the moments of its groups.

    `accesses`: those of x, of each extra and of y along the channels; every operand has a stride
    from image to image and from pixel to pixel. `single`: there is one group. Scratch holds mean,
    rest and factor by group, and by channel where there are several groups.
    """

    family: ClassVar[str] = "group_normalise"
    body: Body
    accesses: tuple[Access, ...]
    single: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        names = operand_names(len(self.accesses) - 1)
        declared = operands(names, self.accesses) + buffers("moments")
        strides = [ints(f"{o}_image", f"{o}_row", f"{o}_inner") for o in names]
        sizes = ints("pixels", "channels", "groups", "width", "parts", "pieces")
        return declared + sum(strides, ()) + sizes + floats("inverse", "eps")

    def extents(self, given: Given) -> dict[str, Extent]:
        images, found = given.tasks_over(given.pieces), {}
        _require_groups(given)
        for o, access in named(self.accesses).items():
            image, row, inner = (getattr(given, f"{o}_{s}") for s in ("image", "row", "inner"))
            channels = (given.channels, access.step(given.channels, inner))
            found[o] = ((images, image), (given.pixels, row), channels)
        return found | {"moments": ((images * given.parts * given.groups * 3, 1),)}

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        accesses = named(self.accesses)
        names = list(accesses)
        with k.loop(f.first, f.last) as task:
            image, piece = task.index // f.pieces, task.index % f.pieces
            self._combine(f, f.moments + image * f.parts * f.groups * 3)
            with k.loop(*share(piece, f.pixels, f.pieces)) as pixel:
                at = {}
                for o in names:
                    offset = image * getattr(f, f"{o}_image")
                    offset = offset + pixel.index * getattr(f, f"{o}_row")
                    at[o] = getattr(f, o) + offset
                self._pixel(f, accesses, at)
        return f.finish()

    def _combine(self, f: Frame, moments: Pointer) -> None:
        """Mean, rest and factor of each group to scratch, a vector of groups at a time: the parts'
        means are compared with the first part's, which is near all of them."""
        k = f.kernel

        def groups(g: Int, mask: Any) -> None:
            def read(part: Int, which: int) -> Vector:
                return k.load(moments + ((part * 3 + which) * f.groups + g), mask=mask)

            def count(part: Int) -> Vector:
                first, stop = share(part, f.pixels, f.parts)
                return k.splat(k.as_float((stop - first) * f.width))

            near = read(k.int(0), 0)

            def beside(part: Int) -> Vector:
                return (read(part, 0) - near) + read(part, 1)

            with k.loop(0, f.parts, carry=[k.zero()]) as loop:
                loop.carry([k.fma(beside(loop.index), count(loop.index), loop.carried[0])])
            inverse = k.splat(f.inverse)
            rest = loop.results[0] * inverse
            with k.loop(0, f.parts, carry=[k.zero()]) as loop:
                apart = beside(loop.index) - rest
                total = loop.carried[0] + read(loop.index, 2)
                loop.carry([k.fma(apart * apart, count(loop.index), total)])
            factor = _factor(k, loop.results[0] * inverse, k.splat(f.eps))
            for i, value in enumerate((near, rest, factor)):
                k.store(value, f.scratch.to(F32) + (f.groups * i + g), mask)

        k.each_vector(f.groups, groups)
        if not self.single:
            self._spread(f)

    def _spread(self, f: Frame) -> None:
        """What scratch holds by group, by channel."""
        k = f.kernel
        with k.loop(0, f.groups) as group:
            for i in range(3):
                value = k.splat(k.load(f.scratch.to(F32) + (f.groups * i + group.index), lanes=1))
                place = self._by_channel(f, i) + group.index * f.width
                _fill(k, value, place, f.width)

    @staticmethod
    def _by_channel(f: Frame, which: int) -> Pointer:
        place: Pointer = f.scratch.to(F32) + (f.groups * 3 + f.channels * which)
        return place

    def _pixel(self, f: Frame, accesses: dict[str, Access], at: dict[str, Pointer]) -> None:
        k = f.kernel
        scratch = f.scratch.to(F32)
        single = [k.splat(k.load(scratch + i, lanes=1)) for i in range(3)] if self.single else []

        def channels(c: Int, mask: Any) -> None:
            def read(o: str) -> Vector:
                return load(k, accesses[o], at[o], c, getattr(f, f"{o}_inner"), k.vector, mask)

            near, rest, factor = single or [
                k.load(self._by_channel(f, i) + c, mask=mask) for i in range(3)
            ]
            value = ((read("x") - near) - rest) * factor
            extras = [read(o) for o in accesses if o not in ("x", "y")]
            result = self.body.emit(k, value, extras)
            store(k, result, accesses["y"], at["y"], c, f.y_inner, mask)

        k.each_vector(f.channels, channels)


def _fill(k: Kernel, value: Vector, place: Pointer, count: Int) -> None:
    """One number `count` times."""
    k.each_vector(count, lambda i, mask: k.store(value, place + i, mask))


# -- neighbouring channels ------------------------------------------------------------------------


@dataclass(frozen=True)
class NeighbourNorm(KernelSpec):
    """y[c] = x[c] / (offset + scale * sum of x[d]^2 over `window` d from c - before on) ** beta,
    along the inner dimension. Scratch holds the squares between as many zeros as the window needs.
    """

    family: ClassVar[str] = "neighbour_norm"
    accesses: tuple[Access, ...]
    beta: float = 0.75

    def arguments(self) -> tuple[Arg, ...]:
        names = operand_names(len(self.accesses) - 1)
        declared = operands(names, self.accesses) + grid(names)
        return declared + ints("window", "before") + floats("scale", "offset")

    def extents(self, given: Given) -> dict[str, Extent]:
        return grid_extents(given, named(self.accesses))

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, named(self.accesses))
        f, k = walk.frame, walk.kernel
        scratch = f.scratch.to(F32)

        def row(at: dict[str, Pointer], start: Int, stop: Int) -> None:
            def read(c: Int, mask: Any) -> Vector:
                return load(k, walk.accesses["x"], at["x"], c, walk.stride("x"), k.vector, mask)

            def square(c: Int, mask: Any) -> None:
                value = read(c, mask)
                k.store(value * value, scratch + (f.before + c), mask)

            _fill(k, k.zero(), scratch, f.before)
            k.each_vector(stop, square)
            _fill(k, k.zero(), scratch + (f.before + stop), f.window - f.before)

            def channels(c: Int, mask: Any) -> None:
                with k.loop(0, f.window, carry=[k.zero()]) as loop:
                    near = k.load(scratch + (c + loop.index), mask=mask)
                    loop.carry([loop.carried[0] + near])
                base = k.fma(loop.results[0], k.splat(f.scale), k.splat(f.offset))
                value = read(c, mask) * self._lowered(k, base)
                store(k, value, walk.accesses["y"], at["y"], c, walk.stride("y"), mask)

            walk.each_vector(k.int(0), stop, channels)

        return walk.rows(row)

    def _lowered(self, k: Kernel, base: Vector) -> Vector:
        """base ** -beta; 3/4, which is what networks use, by roots."""
        if self.beta == 0.75:
            root = k.math("sqrt", base)
            return 1.0 / (root * k.math("sqrt", root))
        return power(k, base, base.like(-self.beta))
