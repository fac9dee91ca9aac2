"""Reductions over any strided arrays: sums, extremes, where extremes lie, and softmax.

Each kernel comes in two forms. Where the numbers that are reduced lie apart, vectors lie along the
inner dimension of those that are kept, several at once, each lane with a total of its own. Where
they are contiguous (`along`), vectors lie along them, and their lanes are put together at the end.
Either way the order of a sum depends on the reduced dimensions only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from llvmlite import ir

from lucid.codegen.kernels.strided import Walk, grid, grid_extents, named, numbered, operands
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype, is_integer
from lucid.codegen.language.elements import (
    STRIDED,
    VECTOR,
    Access,
    cast,
    load,
    splat_number,
    store,
)
from lucid.codegen.language.kernel import Arg, Extent, Given, KernelSpec, floats, ints
from lucid.codegen.language.transcendentals import exp_below
from lucid.codegen.language.values import I32, Int, Integers, Pointer, Vector
from lucid.codegen.language.vector_math import maximum, minimum
from lucid.codegen.target import Target

REDUCED = 3
"""Reduced dimensions of these kernels, the contiguous one of the `along` form among them."""
CHAINS = 4
"""Vectors that are worked on at once, so that one sum need not wait for another."""

Combine = Callable[[Kernel, Vector, Vector], Vector]


def add(k: Kernel, a: Vector, b: Vector) -> Vector:
    return a + b


def multiply(k: Kernel, a: Vector, b: Vector) -> Vector:
    return a * b


COMBINE: dict[str, Combine] = {
    "sum": add,
    "squares": add,
    "product": multiply,
    "max": maximum,
    "min": minimum,
}
"""How two totals become one."""


def total_of_none(kind: str, name: str) -> float:
    """What stands for a total of no numbers of a dtype."""
    match kind:
        case "max":
            return least(name)
        case "min":
            whole = is_integer(name)
            return int(np.iinfo(dtype(name).storage).max) if whole else float("inf")
    return 1.0 if kind == "product" else 0.0


def least(name: str) -> float:
    """The number of a dtype that is smaller than all others."""
    return int(np.iinfo(dtype(name).storage).min) if is_integer(name) else float("-inf")


def across(k: Kernel, value: Vector, combine: Combine) -> Vector:
    """The lanes of a vector combined into a scalar, halves at a time."""
    while value.lanes > 1:
        half = value.lanes // 2
        undefined = ir.Constant(value.raw.type, ir.Undefined)
        parts = [
            value.of(k.builder.shuffle_vector(value.raw, undefined, _lanes(first, half)))
            for first in (0, half)
        ]
        value = combine(k, *parts)
    if isinstance(value.raw.type, ir.VectorType):
        return value.of(k.builder.extract_element(value.raw, ir.Constant(I32, 0)))
    return value


def _lanes(first: int, count: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))


def fold(
    k: Kernel,
    length: Int,
    none: Sequence[Vector],
    step: Callable[[list[Vector], Int, Any], list[Vector]],
    combine: Combine,
) -> list[Vector]:
    """`step(totals, index, mask)` over vectors along `length` numbers, from `none` on (what changes
    no total), in several chains that are combined in the end. `step` has to see to it that what
    `mask` leaves out changes no total."""
    vector, many = k.vector, len(none)
    chained = list(none) * CHAINS
    whole = length // (vector * CHAINS) * (vector * CHAINS)
    with k.loop(0, whole, vector * CHAINS, carry=chained) as loop:
        following = []
        for chain in range(CHAINS):
            own = loop.carried[chain * many : (chain + 1) * many]
            following += step(own, loop.index + chain * vector, None)
        loop.carry(following)
    for distance in (2, 1):  # CHAINS is 4
        chained = [
            combine(k, loop.results[i], loop.results[i + distance * many])
            for i in range(distance * many)
        ]
        loop.results = chained
    rest = length // vector * vector
    with k.loop(whole, rest, vector, carry=chained) as loop:
        loop.carry(step(loop.carried, loop.index, None))
    ended = loop.results

    def tail() -> list[Vector]:
        return step(ended, rest, k.first_lanes(length - rest))

    return k.merge(rest < length, tail, lambda: ended)


@dataclass(frozen=True)
class Reduce(KernelSpec):
    """y[kept] = scale * (sum, sum of squares, product, max or min over the reduced dimensions of
    x). Integers have no scale.

    `centred`: of x - centre[kept] instead. `accesses`: those of x, of the centre where there is
    one, and of y, along the inner kept dimension. Each line of the innermost reduced dimension is
    summed by itself and then added, which keeps the chains, and so the rounding errors, short.
    """

    family: ClassVar[str] = "reduce"
    streams: ClassVar[bool] = True
    kind: str
    accesses: tuple[Access, ...]
    along: bool = False
    centred: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return ("x", "centre", "y") if self.centred else ("x", "y")

    def arguments(self) -> tuple[Arg, ...]:
        reduced = ints(*numbered("reduced", REDUCED), *numbered("x_reduced", REDUCED))
        return operands(self.names, self.accesses) + grid(self.names) + reduced + floats("scale")

    def extents(self, given: Given) -> dict[str, Extent]:
        found = grid_extents(given, dict(zip(self.names, self.accesses, strict=True)))
        for i in range(REDUCED):
            access = Access(VECTOR if self.along and i == REDUCED - 1 else STRIDED)
            count, step = getattr(given, f"reduced{i}"), getattr(given, f"x_reduced{i}")
            found["x"] += ((count, access.step(count, step)),)
        return found

    def emit(self, target: Target) -> ir.Module:
        emitter = _Along if self.along else _Apart
        return emitter(self, target).emit()


class _Reducer:
    """What both forms of a reduction have in common."""

    def __init__(self, spec: Reduce, target: Target) -> None:
        self.spec = spec
        self.accesses = dict(zip(spec.names, spec.accesses, strict=True))
        self.walk = Walk(spec, target, self.accesses)
        self.dtype = self.accesses["x"].dtype
        self.combine = COMBINE[spec.kind]
        self.none = splat_number(self.walk.kernel, total_of_none(spec.kind, self.dtype), self.dtype)
        self.summed = self.combine is add

    def emit(self) -> ir.Module:
        return self.walk.rows(self.row)

    def row(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        raise NotImplementedError

    def term(self, value: Vector, centre: Vector | None, mask: Any) -> Vector:
        """What is added up for one vector of x; nothing where `mask` says so."""
        k = self.walk.kernel
        if centre is not None:
            value = value - centre
        if self.spec.kind == "squares":
            value = value * value
        if mask is None or (centre is None and self.summed):
            return value  # what was not read is zero
        return k.pick(mask, value, self.none)

    def scaling(self, lanes: int | None = None) -> Callable[[Vector], Vector]:
        """What a total becomes: that times the factor, which integers have none of."""
        if isinstance(self.none, Integers):
            return lambda total: total
        scale = self.walk.kernel.splat(self.walk.frame.scale, lanes)
        return lambda total: total * scale

    def nest(
        self,
        x: Pointer,
        totals: list[Vector],
        depth: int,
        innermost: Callable[[Pointer, list[Vector]], list[Vector]],
    ) -> list[Vector]:
        """One loop for each reduced dimension but those that `innermost` does; the totals of each
        level are summed by themselves."""
        f, k = self.walk.frame, self.walk.kernel
        if depth == (REDUCED - 1 if self.spec.along else REDUCED):
            return innermost(x, totals)
        initial = [t.like(0.0) for t in totals] if self.summed else totals
        with k.loop(0, getattr(f, f"reduced{depth}"), carry=initial) as loop:
            at = x + loop.index * getattr(f, f"x_reduced{depth}")
            loop.carry(self.nest(at, loop.carried, depth + 1, innermost))
        if not self.summed:
            return loop.results
        return [a + b for a, b in zip(totals, loop.results, strict=True)]


class _Apart(_Reducer):
    """Vectors along what is kept."""

    def row(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        k = self.walk.kernel
        if self.accesses["x"].kind == VECTOR:
            block = CHAINS * k.vector
            whole = start + (stop - start) // block * block
            with k.loop(start, whole, block) as loop:
                self._vectors(at, loop.index, None, CHAINS)
            start = whole
        self.walk.each_vector(start, stop, lambda i, mask: self._vectors(at, i, mask, 1))

    def _vectors(self, at: dict[str, Pointer], index: Int, mask: Any, count: int) -> None:
        """`count` vectors of results from `index` on."""
        k, walk = self.walk.kernel, self.walk
        places = [index + i * k.vector for i in range(count)]
        centres: list[Vector | None] = [None] * count
        if self.spec.centred:
            own, stride = self.accesses["centre"], walk.stride("centre")
            centres = [load(k, own, at["centre"], i, stride, k.vector, mask) for i in places]

        def innermost(x: Pointer, totals: list[Vector]) -> list[Vector]:
            values = [
                load(k, self.accesses["x"], x, i, walk.stride("x"), k.vector, mask) for i in places
            ]
            terms = [self.term(v, c, mask) for v, c in zip(values, centres, strict=True)]
            return [self.combine(k, t, v) for t, v in zip(totals, terms, strict=True)]

        totals = self.nest(at["x"], [self.none] * count, 0, innermost)
        scaled = self.scaling()
        for place, total in zip(places, totals, strict=True):
            store(k, scaled(total), self.accesses["y"], at["y"], place, walk.stride("y"), mask)


class _Along(_Reducer):
    """Vectors along what is reduced, one result after the other."""

    def row(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        f, k, walk = self.walk.frame, self.walk.kernel, self.walk
        length = getattr(f, f"reduced{REDUCED - 1}")
        none, access = [self.none], Access(VECTOR, self.dtype)
        with k.loop(start, stop) as loop:
            centre = None
            if self.spec.centred:
                centre = k.splat(k.load(at["centre"] + loop.index * walk.stride("centre"), 1))

            def step(totals: list[Vector], x: Pointer, index: Int, mask: Any) -> list[Vector]:
                value = load(k, access, x, index, k.int(1), k.vector, mask)
                term = self.term(value, centre, mask)
                return [self.combine(k, totals[0], term)]

            def innermost(x: Pointer, totals: list[Vector]) -> list[Vector]:
                line = fold(k, length, none, lambda t, i, m: step(t, x, i, m), self.combine)
                return [self.combine(k, totals[0], line[0])]

            x = at["x"] + loop.index * walk.stride("x")
            (total,) = self.nest(x, none, 0, innermost)
            result = self.scaling(1)(across(k, total, self.combine))
            k.store(result, at["y"] + loop.index * walk.stride("y"))


@dataclass(frozen=True)
class ArgMax(KernelSpec):
    """y[kept] = where along an axis of `length`, `x_axis` numbers apart, the maximum lies, or the
    minimum (`least`): of equal ones the first, or the `last`, and NaN before all numbers. Places
    are counted in 32 bits."""

    family: ClassVar[str] = "arg_max"
    accesses: tuple[Access, ...]
    along: bool = False
    least: bool = False
    last: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        return operands(("x", "y"), self.accesses) + grid(("x", "y")) + ints("length", "x_axis")

    def extents(self, given: Given) -> dict[str, Extent]:
        found = grid_extents(given, named(self.accesses))
        access = Access(VECTOR if self.along else STRIDED)
        found["x"] += ((given.length, access.step(given.length, given.x_axis)),)
        return found

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, named(self.accesses))
        return walk.rows(_Places(self, walk).along if self.along else _Places(self, walk).apart)


class _Places:
    """Both forms of `ArgMax`, whose minimum is the maximum of numbers in the opposite order."""

    def __init__(self, spec: ArgMax, walk: Walk) -> None:
        self.spec, self.walk = spec, walk
        self.accesses = walk.accesses
        self.dtype = self.accesses["x"].dtype

    def apart(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        """Vectors along what is kept."""
        f, k, walk = self.walk.frame, self.walk.kernel, self.walk

        def step(index: Int, mask: Any) -> None:
            def read(place: Int) -> Vector:
                base, stride = at["x"] + place * f.x_axis, walk.stride("x")
                return self._read(self.accesses["x"], base, index, stride, mask)

            initial = [read(k.int(0)), self._place(0), self._place(1)]
            with k.loop(1, f.length, carry=initial) as loop:
                best, place, number = loop.carried
                value = read(loop.index)
                better = self._better(value, best)
                moved = [k.pick(better, value, best), k.pick(better, number, place)]
                loop.carry([*moved, number + 1])
            place = cast(k, loop.results[1], self.accesses["y"].dtype)
            store(k, place, self.accesses["y"], at["y"], index, walk.stride("y"), mask)

        walk.each_vector(start, stop, step)

    def along(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        """Vectors along what is reduced, one result after the other."""
        k, walk = self.walk.kernel, self.walk
        name = self.accesses["y"].dtype
        with k.loop(start, stop) as loop:
            place = self._along(at["x"] + loop.index * walk.stride("x"))
            kind = ir.VectorType(I32, 1)
            first = ir.Constant(I32, 0)
            one = place.of(
                k.builder.insert_element(ir.Constant(kind, ir.Undefined), place.raw, first)
            )
            y = at["y"] + loop.index * walk.stride("y")
            store(k, cast(k, one, name), Access(VECTOR, name), y, k.int(0), k.int(0), None)

    def _along(self, x: Pointer) -> Vector:
        """The place of the maximum among contiguous numbers: first lane by lane, then of lanes."""
        f, k = self.walk.frame, self.walk.kernel
        lanes, access = k.vector, Access(VECTOR, self.dtype)
        none, nowhere = splat_number(k, least(self.dtype), self.dtype), self._place(-1)

        def read(index: Int, mask: Any) -> Vector:
            return k.pick(mask, self._read(access, x, index, k.int(1), mask), none)

        first = k.first_lanes(f.length)
        counted = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        places = nowhere.of(counted)
        initial = [read(k.int(0), first), k.pick(first, places, nowhere), places + lanes]
        with k.loop(lanes, f.length, lanes, carry=initial) as loop:
            mask = k.first_lanes(f.length - loop.index)
            value = read(loop.index, mask)
            best, place, number = loop.carried
            better = k.both(mask, self._better(value, best))
            moved = [k.pick(better, value, best), k.pick(better, number, place)]
            loop.carry([*moved, number + lanes])
        best, place = loop.results[:2]
        largest = k.splat(across(k, best, maximum))
        is_largest = best.compare("==", largest)
        if not isinstance(best, Integers):
            is_largest = k.either_of(k.builder.not_(best.compare("ord", best)), is_largest)
        if self.spec.last:
            return across(k, k.pick(is_largest, place, nowhere), maximum)
        real = k.both(is_largest, place.compare(">=", 0))
        return across(k, k.pick(real, place, self._place((1 << 31) - 1)), minimum)

    def _read(self, access: Access, base: Pointer, index: Int, stride: Int, mask: Any) -> Vector:
        """Numbers whose maximum is looked for."""
        k = self.walk.kernel
        value = load(k, access, base, index, stride, k.vector, mask)
        if not self.spec.least:
            return value
        return -value - 1 if isinstance(value, Integers) else -value  # all bits: the order turns

    def _better(self, value: Vector, best: Vector) -> Any:
        """Where a later value takes the place of the best: it is larger (of the `last` ones, as
        large), or NaN, which no number replaces."""
        k, sign = self.walk.kernel, "<" if self.spec.last else "<="
        if isinstance(value, Integers) and isinstance(best, Integers):
            return value.compare(">=" if self.spec.last else ">", best)
        better = k.both(best.compare("ord", best), k.builder.not_(value.compare(sign, best)))
        if not self.spec.last:
            return better
        return k.either_of(better, k.builder.not_(value.compare("ord", value)))

    def _place(self, place: int) -> Vector:
        return splat_number(self.walk.kernel, place, "i32")


@dataclass(frozen=True)
class Softmax(KernelSpec):
    """Softmax along one axis of `length`, `x_axis` floats apart; the radix softmax of a split
    attention is one, with other strides for what it writes. With `along`, the axis is the inner
    dimension, contiguous in x and y."""

    family: ClassVar[str] = "softmax"
    streams: ClassVar[bool] = True
    accesses: tuple[Access, ...] = (Access(), Access())
    along: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        axis = () if self.along else ints("length", "x_axis", "y_axis")
        return operands(("x", "y"), self.accesses) + grid(("x", "y")) + axis

    def extents(self, given: Given) -> dict[str, Extent]:
        found = grid_extents(given, named(self.accesses))
        if self.along:
            return found
        return {o: (*e, (given.length, getattr(given, f"{o}_axis"))) for o, e in found.items()}

    def emit(self, target: Target) -> ir.Module:
        walk = Walk(self, target, named(self.accesses))
        return walk.rows(_SoftmaxAlong(walk).row if self.along else _SoftmaxApart(walk).row)


class _SoftmaxApart:
    """Vectors along what is kept: each lane has an axis of its own."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def row(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        self.walk.each_vector(start, stop, lambda index, mask: self._lanes(at, index, mask))

    def _lanes(self, at: dict[str, Pointer], index: Int, mask: Any) -> None:
        f, k = self.walk.frame, self.walk.kernel

        def read(operand: str, place: Int) -> Vector:
            base = at[operand] + place * getattr(f, f"{operand}_axis")
            access, stride = self.walk.accesses[operand], self.walk.stride(operand)
            return load(k, access, base, index, stride, k.vector, mask)

        def write(value: Vector, place: Int) -> None:
            base = at["y"] + place * f.y_axis
            store(k, value, self.walk.accesses["y"], base, index, self.walk.stride("y"), mask)

        with k.loop(0, f.length, carry=[k.splat_constant(float("-inf"))]) as loop:
            loop.carry([maximum(k, loop.carried[0], read("x", loop.index))])
        (largest,) = loop.results
        with k.loop(0, f.length, carry=[k.zero()]) as loop:
            power = exp_below(k, read("x", loop.index) - largest)
            write(power, loop.index)
            loop.carry([loop.carried[0] + power])
        inverse = 1.0 / loop.results[0]
        with k.loop(0, f.length) as loop:
            write(read("y", loop.index) * inverse, loop.index)


class _SoftmaxAlong:
    """Vectors along the axis."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def row(self, at: dict[str, Pointer], start: Int, stop: Int) -> None:
        k = self.walk.kernel
        x, y, length = at["x"], at["y"], stop

        def larger(totals: list[Vector], index: Int, mask: Any) -> list[Vector]:
            value = k.load(x + index, mask=mask)
            if mask is not None:
                value = k.pick(mask, value, value.like(float("-inf")))
            return [maximum(k, totals[0], value)]

        (lanes,) = fold(k, length, [k.splat_constant(float("-inf"))], larger, maximum)
        largest = k.splat(across(k, lanes, maximum))

        def power(totals: list[Vector], index: Int, mask: Any) -> list[Vector]:
            value = exp_below(k, k.load(x + index, mask=mask) - largest)
            k.store(value, y + index, mask)
            if mask is not None:
                value = k.pick(mask, value, k.zero())
            return [totals[0] + value]

        (lanes,) = fold(k, length, [k.zero()], power, add)
        inverse = k.splat(1.0 / across(k, lanes, add))

        def scale(index: Int, mask: Any) -> None:
            k.store(k.load(y + index, mask=mask) * inverse, y + index, mask)

        k.each_vector(length, scale)
