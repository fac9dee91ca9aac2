"""Depthwise convolution, and convolution in small groups of channels, vectorised over channels.

One task is a band of output lines of one image, and a chunk of its channels. A line is computed in
blocks of `PIXELS` outputs; a block holds its sums in registers while the taps of its lines pass, so
that each input is loaded once for all the taps of a line that meet it: 12 loads for 21
multiply-adds of a 3x3 window. A group's channels lie side by side in a vector; each of them is
spread over its group by a shuffle, once for all taps it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.elements import numbers
from lucid.codegen.language.kernel import (
    MAP,
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
    strides_of,
)
from lucid.codegen.language.values import Int, Pointer, Vector
from lucid.codegen.target import Target

PIXELS = (8, 7, 6, 5)
"""Outputs of a block: what wastes least at the end of a line, where starting a block costs as much
as an output, the largest first. Eight sums, the weights of a line of seven taps and an input fill
sixteen registers."""


class Pattern(NamedTuple):
    """Blocks that are computed alike: columns `first` to `last` (exclusive) of those under the
    window lie in the map, and `outputs` of the block's pixels in the result."""

    first: int
    last: int
    outputs: int


@dataclass(frozen=True)
class Blocks:
    """A line of outputs cut into blocks: runs of equal patterns, and how many blocks each has."""

    pixels: int
    patterns: tuple[Pattern, ...]
    counts: tuple[int, ...]

    @staticmethod
    def of(width: int, out_width: int, taps: int, stride: int, dilation: int, left: int) -> Blocks:
        """The cut of a line of `out_width` outputs over `width` columns, `left` before them."""
        pixels = min(PIXELS, key=lambda p: -(-out_width // p) * (p + 1))
        reach = (pixels - 1) * stride + (taps - 1) * dilation + 1
        runs: list[tuple[Pattern, int]] = []
        for block in range(-(-out_width // pixels)):
            start = block * pixels * stride - left
            first = min(max(0, -start), reach)
            last = max(first, min(reach, width - start))
            pattern = Pattern(first, last, min(pixels, out_width - block * pixels))
            if runs and runs[-1][0] == pattern:
                runs[-1] = (pattern, runs[-1][1] + 1)
            else:
                runs.append((pattern, 1))
        return Blocks(pixels, tuple(p for p, _ in runs), tuple(n for _, n in runs))


@dataclass(frozen=True)
class Depthwise(KernelSpec):
    """Grouped convolution, `group` channels in and out, or one in and `multiplier` out: weights
    [tap][input][channel], bias, body.

    `patterns` and `pixels` are those of the line's `Blocks`. With `sums` the results of each band
    are summed by channel besides, [image][band][channel], for a split attention. `ahead`: whether
    to ask for what the next block reads first and writes: pixels lie too far apart for the
    processor to see that they are read in turn.
    """

    family: ClassVar[str] = "depthwise"
    body: Body = PLAIN
    taps: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    group: int = 1
    multiplier: int = 1
    pixels: int = PIXELS[0]
    patterns: tuple[Pattern, ...] = ()
    sums: bool = False
    ahead: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        extras = tuple(f"extra{i}" for i in range(len(self.body.extras)))
        results = ("y", "sums") if self.sums else ("y",)
        counts = tuple(f"count{i}" for i in range(len(self.patterns)))
        operands = ("x", "weights", "bias", *results, *extras)
        return (
            sum((buffers(name, dtype=self.dtype_of(name)) for name in operands), ())
            + ints("image", "line", "pixel", "height", "out_height", "pad_top", "pad_left")
            + ints("channels", "chunk", "chunks", "lines", "bands")
            + ints(*counts)
            + sum(map(strides_of, ("y", *self.body.tensors())), ())
        )

    def dtype_of(self, operand: str) -> str:
        """The dtype of a buffer."""
        extras = {f"extra{i}": extra.dtype for i, extra in enumerate(self.body.extras)}
        return extras.get(operand, COMPUTED)

    @property
    def steps(self) -> int:
        """What a tap multiplies for one output: the inputs of a group."""
        return self.group

    @property
    def line_weights(self) -> int:
        """Weights of a line of taps, for one output."""
        return self.taps[1] * self.steps

    def extents(self, given: Given) -> dict[str, Extent]:
        first, last, _ = self._columns(given)
        images, channels = self._images(given), given.channels // self.multiplier
        if first < 0:
            raise ValueError(f"columns from {first} on")
        width = max(last, given.x.shape[3])  # strides may leave some at the end
        x = given.map("", images, (given.height, width), channels)
        return {"x": x} | self.result_extents(given)

    def result_extents(self, given: Given) -> dict[str, Extent]:
        """What a call reaches in its weights, results and the body's operands."""
        images, channels = self._images(given), min(given.channels, given.chunk * given.chunks)
        out = (given.lines_of(given.bands), self._columns(given)[2])
        taps = self.taps[0] * self.line_weights
        found: dict[str, Extent] = {
            "weights": ((taps, given.channels), (channels, 1)),
            "bias": ((channels, 1),),
        }
        found |= {f"extra{i}": ((channels, 1),) for i in range(len(self.body.extras))}
        for name in ("y", *self.body.tensors()):
            found[name] = given.map(f"{name}_", images, out, channels)
        if self.sums:
            found["sums"] = ((images * given.bands, given.channels), (channels, 1))
        return found

    @staticmethod
    def _images(given: Given) -> int:
        return given.tasks_over(given.bands, given.chunks)

    def _columns(self, given: Given) -> tuple[int, int, int]:
        """First and last (exclusive) column that a line of outputs meets, and its outputs."""
        done, first, last, outputs = 0, 0, 0, 0
        for i, pattern in enumerate(self.patterns):
            count = max(1, getattr(given, f"count{i}"))
            step = self.pixels * self.stride[1]
            first = min(first, done * step - given.pad_left + pattern.first)
            done += count
            if pattern.last > pattern.first:
                last = max(last, (done - 1) * step - given.pad_left + pattern.last)
            outputs = (done - 1) * self.pixels + pattern.outputs
        return first, last, outputs

    def emit(self, target: Target) -> ir.Module:
        f = self.frame(target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            image, band, channels = self.place(f, task.index)
            sums = self.sums_of(f, image, band, channels)
            first = band * f.lines
            with k.loop(first, (first + f.lines).minimum(f.out_height)) as lines:
                self.line(f, image, lines.index, channels, sums)
        return f.finish()

    def frame(self, target: Target) -> Frame:
        """The arguments as the code reads them."""
        return Frame(self, target)

    @staticmethod
    def place(f: Frame, task: Int) -> tuple[Int, Int, tuple[Int, Int]]:
        """Image, band and channels of a task."""
        begin = task % f.chunks * f.chunk
        number = task // f.chunks
        channels = (begin, (begin + f.chunk).minimum(f.channels))
        return number // f.bands, number % f.bands, channels

    def sums_of(self, f: Frame, image: Int, band: Int, channels: tuple[Int, Int]) -> Pointer | None:
        """Where the sums of a band's channels go, if there are any: zero so far."""
        if not self.sums:
            return None
        k, (begin, end) = f.kernel, channels
        sums: Pointer = f.sums + (image * f.bands + band) * f.channels
        k.each_vector(end - begin, lambda c, mask: k.store(k.zero(), sums + (begin + c), mask))
        return sums

    def line(
        self, f: Frame, image: Int, line: Int, channels: tuple[Int, Int], sums: Pointer | None
    ) -> None:
        """One line of outputs, block by block."""
        k, rows = f.kernel, self.rows(f, image, line)
        lines, done = Places.of(f, self.body, image, line), k.int(0)
        for i, pattern in enumerate(self.patterns):
            count = getattr(f, f"count{i}")
            with k.loop(done, done + count, never_empty=True) as blocks:
                step = blocks.index * self.pixels
                moved = rows.moved(step * self.stride[1] * f.pixel)
                self._block(f, pattern, moved, lines.moved(step), channels, sums)
            done = done + count

    def rows(self, f: Frame, image: Int, line: Int) -> Rows:
        """The lines of the map that a line of windows meets."""
        top = line * self.stride[0] - f.pad_top
        first, last = inside(top, self.taps[0], self.dilation[0], f.height)
        at = f.x + (image * f.image + (top + first * self.dilation[0]) * f.line)
        return Rows(
            at + (0 - f.pad_left * f.pixel),
            f.weights + first * self.line_weights * f.channels,
            last - first,
        )

    def _block(
        self,
        f: Frame,
        pattern: Pattern,
        rows: Rows,
        places: Places,
        channels: tuple[Int, Int],
        sums: Pointer | None,
    ) -> None:
        """A block's outputs, vector by vector of its channels."""
        k, (begin, end) = f.kernel, channels
        following = self._following(f, pattern, rows, places) if self.ahead else ()

        def vector(along: Int, mask: Any) -> None:
            c = begin + along
            for pixel, written in following:
                k.prefetch(pixel + c, near=True, write=written)
            bias = self._number(f, "bias", f.bias + c, mask)
            own = c // self.multiplier
            if self.group > k.vector:
                own = c // self.group * self.group
            at = replace(rows, x=rows.x + own, weights=rows.weights + c)
            values = self.window(f, pattern, at, [bias] * pattern.outputs, mask)
            total = self.finish(f, values, places, c, mask)
            if sums is not None:
                k.store(k.load(sums + c, mask=mask) + total, sums + c, mask)

        self.each_vector(f, end - begin, vector)

    def _following(
        self, f: Frame, pattern: Pattern, rows: Rows, places: Places
    ) -> list[tuple[Pointer, bool]]:
        """The pixels of the next block: those of the last line of its windows, which no line of
        outputs above met (of a stride of two, the last of two such; of groups, whose products leave
        the time for it, both), and those of its results, which are written."""
        lowest = rows.x + (rows.count - 1).maximum(0) * (self.dilation[0] * f.line)
        first = (self.pixels - 1) * self.stride[1] + (self.taps[1] - 1) * self.dilation[1] + 1
        fresh = min(self.stride[0], self.taps[0]) if self.group > 1 else 1
        read: list[tuple[Pointer, bool]] = []
        for line in range(fresh):
            columns = Columns(lowest + (first * f.pixel - f.line * line), f.pixel)
            read += [(columns[i], False) for i in range(pattern.outputs * self.stride[1])]
        results = places.moved(self.pixels)
        return read + [(results.moved(i)["y"], True) for i in range(pattern.outputs)]

    def each_vector(self, f: Frame, channels: Int, body: Callable[[Int, Any], None]) -> None:
        """`body(offset, mask)` for all channels of a chunk."""
        f.kernel.each_vector(channels, body)

    def window(
        self, f: Frame, pattern: Pattern, rows: Rows, totals: Sequence[Vector], mask: Any
    ) -> list[Vector]:
        """The sums after all lines of taps."""
        k = f.kernel
        with k.loop(0, rows.count, carry=totals) as taps:
            at = rows.x + taps.index * (self.dilation[0] * f.line)
            weights = rows.weights + taps.index * self.line_weights * f.channels
            taps.carry(self.add_taps(f, pattern, (at,), weights, taps.carried, mask))
        return taps.results

    def add_taps(
        self,
        f: Frame,
        pattern: Pattern,
        lines: Sequence[Pointer],
        weights: Pointer,
        totals: Sequence[Vector],
        mask: Any,
    ) -> list[Vector]:
        """The sums after one more step over lines of taps. Each input column is met by several
        taps."""
        sums = list(totals)
        counted = range(self.taps[1] * self.steps)
        held = [self.load(f, weights + n * f.channels, mask) for n in counted]
        columns = self.columns(f, lines)
        for column in range(pattern.first, pattern.last):
            meets = [
                (pixel, tap)
                for tap in range(self.taps[1])
                for pixel in range(pattern.outputs)
                if pixel * self.stride[1] + tap * self.dilation[1] == column
            ]
            if not meets:
                continue
            inputs = self.spread(f, columns(column), mask)
            for i, spread in enumerate(inputs):
                for pixel, tap in meets:
                    weight = held[tap * self.steps + i]
                    sums[pixel] = self.multiply_add(f, spread, weight, sums[pixel])
        return sums

    def columns(self, f: Frame, lines: Sequence[Pointer]) -> Callable[[int], list[Pointer]]:
        """Where the pixels of a column are on these lines."""
        each = [Columns(at, f.pixel) for at in lines]
        return lambda column: [columns[column] for columns in each]

    def multiply_add(self, f: Frame, x: Vector, weight: Vector, total: Vector) -> Vector:
        """total + x * weight."""
        return f.kernel.fma(x, weight, total)

    def spread(self, f: Frame, lines: Sequence[Pointer], mask: Any) -> list[Vector]:
        """For each step of a tap, what a column of these lines (here: one) has for it, in all lanes
        of its group."""
        k, (at,) = f.kernel, lines
        if self.group > k.vector or self.multiplier >= k.vector:  # one input for all lanes
            return [k.splat(k.load(at + i, lanes=1)) for i in range(self.group)]
        if self.multiplier > 1:
            lanes = range(0, k.vector, self.multiplier)
            some = None if mask is None else k.shuffle_mask(mask, lanes)
            single = k.load(at, len(lanes), some)
            return [k.shuffle(single, [lane // self.multiplier for lane in range(k.vector)])]
        whole = k.load(at, mask=mask)
        if self.group == 1:
            return [whole]
        lanes = range(whole.lanes)
        orders = [[lane - lane % self.group + i for lane in lanes] for i in range(self.group)]
        return [k.shuffle(whole, order) for order in orders]

    def finish(
        self, f: Frame, values: Sequence[Vector], places: Places, c: Int, mask: Any
    ) -> Vector:
        """Body and store of a block's outputs; gives the sum of what was stored."""
        total = None
        for pixel, value in enumerate(values):
            here = places.moved(pixel)
            result = self.body.emit(f.kernel, value, self.operands(f, here, c, mask))
            self.store(f, result, here["y"] + c, mask)
            total = result if total is None else total + result
        assert total is not None, "a block has outputs"
        return total

    def operands(self, f: Frame, here: Places, c: Int, mask: Any) -> list[Vector]:
        """What the body reads beside the result."""
        names = [f"extra{e}" for e in range(len(self.body.extras))]
        bases = [
            getattr(f, n) if extra.kind == "channel" else here[n]
            for n, extra in zip(names, self.body.extras, strict=True)
        ]
        return [self._number(f, n, b + c, mask) for n, b in zip(names, bases, strict=True)]

    def _number(self, f: Frame, operand: str, at: Pointer, mask: Any) -> Vector:
        """A vector of an operand, as it is computed with."""
        return numbers(f.kernel, self.load(f, at, mask).raw, self.dtype_of(operand))

    def load(self, f: Frame, at: Pointer, mask: Any) -> Vector:
        """A vector of elements, of which `mask` may leave out some."""
        return f.kernel.load(at, mask=mask)

    def store(self, f: Frame, value: Vector, at: Pointer, mask: Any) -> None:
        """The inverse, of a result."""
        f.kernel.store(value, at, mask)


class Places:
    """A pixel in the result, and in each operand of the body that is shaped like it."""

    def __init__(self, at: dict[str, Pointer], steps: dict[str, Int]) -> None:
        self._at, self._steps = at, steps

    @staticmethod
    def of(f: Frame, body: Body, image: Int, line: Int) -> Places:
        """The first pixel of a line."""
        at, steps = {}, {}
        for name in ("y", *body.tensors()):
            first, below, beside = (getattr(f, f"{name}_{axis}") for axis in MAP)
            at[name] = getattr(f, name) + (image * first + line * below)
            steps[name] = beside
        return Places(at, steps)

    def moved(self, pixels: int | Int) -> Places:
        """The place some pixels along the line."""
        return Places({n: p + pixels * self._steps[n] for n, p in self._at.items()}, self._steps)

    def __getitem__(self, name: str) -> Pointer:
        return self._at[name]


@dataclass(frozen=True)
class Rows:
    """The lines of the map that a window meets: from the first one's column under the first tap of
    the block on, its weights, and how many lines there are."""

    x: Pointer
    weights: Pointer
    count: Int
    slices: Int | None = None  # of a volume: how many of them, with as many lines each

    def moved(self, floats: Int) -> Rows:
        return replace(self, x=self.x + floats)


class Columns:
    """Addresses of columns `pixel` floats apart: every third is a register, the two after it are
    reached by an index, so that many columns take few registers."""

    def __init__(self, at: Pointer, pixel: Int) -> None:
        self.at, self.pixel = at, pixel
        self.bases: dict[int, Pointer] = {}

    def __getitem__(self, column: int) -> Pointer:
        base = self.bases.setdefault(column // 3, self.at + column // 3 * 3 * self.pixel)
        return base + column % 3 * self.pixel if column % 3 else base


def inside(start: Int, size: int, dilation: int, limit: Int) -> tuple[Int, Int]:
    """First and last (exclusive) tap of `size` whose position start + tap * dilation is inside."""
    first = (0 - start).maximum(0).ceil_div(dilation).minimum(size)
    last = (limit - start).maximum(0).ceil_div(dilation).minimum(size)
    return first, last.maximum(first)
