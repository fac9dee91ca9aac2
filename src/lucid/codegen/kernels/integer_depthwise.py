"""Depthwise convolution of 8-bit integers, and convolution in small groups: exact sums in 32 bits.

As that of floats, but each multiply-add is of a pair of 16-bit integers, less the zero point: a
channel on two neighbouring lines, of the last line in two neighbouring columns, or, in groups of
several channels, two channels of one pixel. A pair is one element of four bytes, so sums, weights
and inputs have as many lanes as floats would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.depthwise import Depthwise, Pattern, Places, Rows
from lucid.codegen.language import pairs
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.elements import elements
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, ints
from lucid.codegen.language.partial import load_first, store_first
from lucid.codegen.language.values import I8, I16, I32, Int, Integers, Pointer, Vector, size_of
from lucid.codegen.target import Target


@dataclass(frozen=True)
class IntegerDepthwise(Depthwise):
    """`Depthwise` of integers: weights as `TapPairs` lays them out.

    `x`, `y`: their dtypes. `narrow`: whether the channels are less than a
    vector; no chunk of others may be. `shifted`: whether the zero point is another than 0, which
    behind a relu it seldom is.
    """

    family: ClassVar[str] = "integer_depthwise"
    x: str = "u8"
    y: str = "u8"
    narrow: bool = False
    shifted: bool = True

    def dtype_of(self, operand: str) -> str:
        own = {"x": self.x, "y": self.y, "weights": "i16", "bias": "i32"}
        return own.get(operand) or super().dtype_of(operand)

    @property
    def steps(self) -> int:
        return max(1, self.group // 2)

    @property
    def line_weights(self) -> int:
        beside = 0 if self.group > 1 else -(-self.taps[1] // 2)
        return self.taps[1] * self.steps + beside

    def arguments(self) -> tuple[Arg, ...]:
        return super().arguments() + ints("zero_point")

    def result_extents(self, given: Given) -> dict[str, Extent]:
        found = super().result_extents(given)
        (taps, channels), *each = found["weights"]
        return found | {"weights": ((taps, 2 * channels), *((n, 2 * s) for n, s in each), (2, 1))}

    def frame(self, target: Target) -> Frame:
        f = super().frame(target)
        k = f.kernel
        zero = (f.zero_point if self.shifted else k.int(0)).raw
        f.set(
            weights=f.weights.to(I32),
            zero_bytes=k.every_lane(k.builder.trunc(zero, I8), k.vector),
            zeros=k.every_lane(k.builder.trunc(zero, I16), 2 * max(k.vector, self.group)),
        )
        return f

    def each_vector(self, f: Frame, channels: Int, body: Callable[[Int, Any], None]) -> None:
        """The last vector begins early enough to be whole, and computes some channels again. Where
        there are fewer, `body` is given how many in place of a mask: few machines have one for
        bytes."""
        k = f.kernel
        if self.narrow:
            body(k.int(0), channels)
            return
        with k.loop(0, channels, k.vector, never_empty=True) as loop:
            body(loop.index.minimum(channels - k.vector), None)

    def window(
        self, f: Frame, pattern: Pattern, rows: Rows, totals: Sequence[Vector], mask: Any
    ) -> list[Vector]:
        """Two lines of taps at a time where groups are of one channel, and the last one alone."""
        if self.group > 1:
            return super().window(f, pattern, rows, totals, mask)
        k, below, size = f.kernel, self.dilation[0] * f.line, self.line_weights * f.channels
        twos = rows.count // 2 * 2
        with k.loop(0, twos, 2, carry=totals) as loop:
            at, weights = rows.x + loop.index * below, rows.weights + loop.index * size
            both = (at, at + below)
            loop.carry(self.add_taps(f, pattern, both, weights, loop.carried, mask))

        def last() -> list[Vector]:
            at, weights = rows.x + twos * below, rows.weights + twos * size
            beside = weights + self.taps[1] * f.channels
            return self.add_line(f, pattern, at, beside, loop.results, mask)

        return k.merge((rows.count % 2).equals(1), last, lambda: loop.results)

    def add_line(
        self,
        f: Frame,
        pattern: Pattern,
        at: Pointer,
        weights: Pointer,
        totals: Sequence[Vector],
        mask: Any,
    ) -> list[Vector]:
        """The sums after one line of taps, two of them at a time."""
        sums, step, columns = list(totals), self.dilation[1], self.columns(f, (at,))
        pairs = range(-(-self.taps[1] // 2))
        held = [self.load(f, weights + n * f.channels, mask) for n in pairs]
        meets: dict[int, list[tuple[int, int]]] = {}
        for pair, pixel in product(pairs, range(pattern.outputs)):
            first = pixel * self.stride[1] + 2 * pair * step
            meets.setdefault(first, []).append((pixel, pair))
        alone = self.taps[1] // 2 if self.taps[1] % 2 else None  # the pair that is one tap
        for first in sorted(meets):
            second = first + step if any(pair != alone for _, pair in meets[first]) else -1
            inside = [
                columns(c)[0] if pattern.first <= c < pattern.last else None
                for c in (first, second)
            ]
            if inside == [None, None]:
                continue
            (both,) = self.spread(f, inside, mask)
            for pixel, pair in meets[first]:
                sums[pixel] = self.multiply_add(f, both, held[pair], sums[pixel])
        return sums

    def columns(self, f: Frame, lines: Sequence[Pointer]) -> Callable[[int], list[Pointer]]:
        """Each is reached from the one before it, and the second line from the first: LLVM would
        else keep all their addresses, and has no registers for them."""
        known, below = {0: f.kernel.opaque(lines[0])}, self.dilation[0] * f.line

        def places(column: int) -> list[Pointer]:
            for c in range(max(known) + 1, column + 1):
                known[c] = known[c - 1] + f.pixel
            return [known[column], known[column] + below][: len(lines)]

        return places

    def multiply_add(self, f: Frame, x: Vector, weight: Vector, total: Vector) -> Vector:
        assert isinstance(total, Integers)
        return pairs.multiply_add(f.kernel, x, weight, total)

    def spread(self, f: Frame, lines: Sequence[Pointer | None], mask: Any) -> list[Vector]:
        """Of groups of one the pair of what lies at two places, None where that is nothing."""
        k = f.kernel
        if self.group > 1:
            assert lines[0] is not None
            return self._of_group(f, lines[0], mask)
        inputs = max(1, k.vector // self.multiplier)
        count = mask if mask is None else mask.ceil_div(self.multiplier)
        zero = k.shuffle(Vector(k.builder, f.zero_bytes), range(inputs)).raw
        each = [zero if p is None else _vector(k, load_first(k, p, inputs, count)) for p in lines]
        order = [place for i in range(inputs) for place in (i, inputs + i)]
        both = self._pairs(f, k.builder.shuffle_vector(*each, _order(order)))
        if inputs == k.vector:
            return [both]
        return [k.shuffle(both, [lane // self.multiplier for lane in range(k.vector)])]

    def finish(
        self, f: Frame, values: Sequence[Vector], places: Places, c: Int, mask: Any
    ) -> Vector:
        """Some pixels at a time, which fill a vector where results are bytes; the last one may be
        among them more than once."""
        k, most = f.kernel, size_of(I32) // size_of(f.y.element)
        for first in range(0, len(values), most):
            pixels = range(first, min(first + most, len(values)))
            padded = [*pixels, *([pixels[-1]] if len(pixels) == 3 else [])]
            heres = [places.moved(pixel) for pixel in padded]
            read = zip(*(self.extras(f, here, c, mask) for here in heres), strict=True)
            total = k.joined([values[pixel] for pixel in padded])
            result = self.body.emit(k, total, [k.joined(list(each)) for each in read])
            whole = Vector(k.builder, elements(k, result, self.y))
            for i in range(len(pixels)):
                part = k.shuffle(whole, range(i * k.vector, (i + 1) * k.vector))
                store_first(k, part.raw, heres[i]["y"] + c, mask)
        return values[0]

    def load(self, f: Frame, at: Pointer, mask: Any) -> Vector:
        return Vector(f.kernel.builder, load_first(f.kernel, at, f.kernel.vector, mask))

    def _of_group(self, f: Frame, at: Pointer, mask: Any) -> list[Vector]:
        """Each pair of a group's channels in all lanes of its group."""
        k, lanes = f.kernel, range(f.kernel.vector)
        if self.group > k.vector:  # all lanes are of one group
            whole = self._pairs(f, k.load(at, self.group).raw)
            return [k.shuffle(whole, [i for _ in lanes]) for i in range(self.steps)]
        whole = self._pairs(f, load_first(k, at, k.vector, mask))
        firsts = [lane // self.group * self.steps for lane in lanes]
        return [k.shuffle(whole, [first + i for first in firsts]) for i in range(self.steps)]

    def _pairs(self, f: Frame, raw: Any) -> Vector:
        """Bytes less the zero point, as pairs of 16 bits."""
        k, count = f.kernel, raw.type.count
        widen = k.builder.sext if dtype(self.x).kind == "signed" else k.builder.zext
        wide = widen(raw, ir.VectorType(I16, count))
        zeros = k.shuffle(Vector(k.builder, f.zeros), range(count)).raw
        less = k.builder.sub(wide, zeros)
        return Vector(k.builder, k.builder.bitcast(less, ir.VectorType(I32, count // 2)))


def _vector(k: Kernel, raw: Any) -> Any:
    """A number as a vector of one."""
    return raw if isinstance(raw.type, ir.VectorType) else k.every_lane(raw, 1)


def _order(lanes: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
