"""Loaders: how the rows of a product's left operand are computed.

A loader writes rows of `depth` floats from what lies in memory: the taps of a convolution, the
radix combination of a split attention (averaged over a pool's windows), or the gathered channel
sums. `Product` runs one on each block of rows just before it multiplies them, while they are hot;
`Stage` runs one as a phase of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.body import PLAIN, Body
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
from lucid.codegen.language.values import Int, Pointer, Vector
from lucid.codegen.target import Target

IMAGE = ints("image", "line", "pixel", "height", "width", "out_height", "out_width")
"""Floats from image to image, line to line, pixel to pixel; the map's and the result's size."""
WINDOW = ints("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left")


@dataclass(frozen=True)
class Loader:
    """Base of all loaders. `row` emits the code that writes one row; a loader that does better with
    many at once has `rows` of its own."""

    name: ClassVar[str] = ""

    @property
    def spare_rows(self) -> int:
        """Rows behind its last whose room it uses meanwhile."""
        return 0

    def arguments(self) -> tuple[Arg, ...]:
        raise NotImplementedError

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        """What `rows` rows of so many channels (of all groups) reach in each of its buffers."""
        raise NotImplementedError

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        """Write row number `row` (over all images), from channel `channel` on, to `out`."""
        raise NotImplementedError

    def rows(
        self,
        frame: Frame,
        first: Int,
        count: Int,
        channel: Int,
        depth: Int,
        out: Pointer,
        step: Int,
    ) -> None:
        """Write `count` rows, `step` floats apart."""
        with frame.kernel.loop(0, count) as loop:
            self.row(frame, first + loop.index, channel, depth, out + loop.index * step)

    def __str__(self) -> str:
        options = ",".join(str(getattr(self, f)) for f in self.__dataclass_fields__)
        return f"{self.name}[{options}]" if options else self.name


def images_of(given: Given, rows: int) -> int:
    """How many images have so many pixels. Raises ValueError where that is no whole number."""
    area: int = given.out_height * given.out_width
    if area < 1 or rows % area:
        raise ValueError(f"{rows} rows of {area} pixels an image")
    return rows // area


def position(frame: Frame, row: Int) -> tuple[Int, Int, Int]:
    """Image, line and column of an output pixel."""
    area = frame.out_height * frame.out_width
    inside = row % area
    return row // area, inside // frame.out_width, inside % frame.out_width


TAPS = ints("dilation_h", "dilation_w", "taps_depth")


@dataclass(frozen=True)
class Patch(Loader):
    """The pixels under a convolution's kernel, tap by tap; outside the map they are zero."""

    name: ClassVar[str] = "patch"

    def arguments(self) -> tuple[Arg, ...]:
        return buffers("x") + IMAGE + WINDOW + TAPS

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        inputs = channels // (given.kernel_h * given.kernel_w)
        size = given.height, given.width
        return {"x": given.map("", images_of(given, rows), size, inputs)}

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        """`channel` counts over all taps: the group's first channel is channel / taps."""
        f, k = frame, frame.kernel
        image, line, column = position(f, row)
        source = f.x + (image * f.image + channel // (f.kernel_h * f.kernel_w))
        with k.loop(0, f.kernel_h) as tap_h, k.loop(0, f.kernel_w) as tap_w:
            y = line * f.stride_h - f.pad_top + tap_h.index * f.dilation_h
            x = column * f.stride_w - f.pad_left + tap_w.index * f.dilation_w
            inside = k.both(y >= 0, y < f.height, x >= 0, x < f.width)
            tap = out + (tap_h.index * f.kernel_w + tap_w.index) * f.taps_depth
            at = source + (y * f.line + x * f.pixel)
            k.either(
                inside,
                lambda: k.each_vector(
                    f.taps_depth, lambda c, m: k.store(k.load(at + c, mask=m), tap + c, m)
                ),
                lambda: k.each_vector(f.taps_depth, lambda c, m: k.store(k.zero(), tap + c, m)),
            )


@dataclass(frozen=True)
class Combine(Loader):
    """The radix combination of a split attention, averaged over the windows of a pool.

    `gate`: `"folded"` (radix 2, x1 + s (x0 - x1)), `"weights"` (sum of x_r g_r) or `"none"` (radix
    1: a plain average pool). `pool`: `"none"`, `"fixed"` (each window has the divisor 1 / `scale`),
    `"inside"` (the divisor counts the pixels inside the map) or `"padded"` (those inside the padded
    map, for windows that hang over its end).
    """

    name: ClassVar[str] = "combine"
    radix: int = 1
    gate: str = "none"
    pool: str = "none"

    def arguments(self) -> tuple[Arg, ...]:
        declared = buffers("x") + IMAGE
        if self.gate != "none":
            declared += buffers("gate") + ints("gate_image", "channels")
        if self.pool != "none":
            declared += WINDOW
        if self.pool == "padded":
            declared += ints("pad_bottom", "pad_right")
        return declared + (floats("scale") if self.pool == "fixed" else ())

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        images = images_of(given, rows)
        size = given.height, given.width
        if self.pool == "none":  # every pixel of the map is one of the result
            size = given.out_height, given.out_width
        found = {"x": given.map("", images, size, channels)}
        if self.gate == "none":
            return found
        radix = (self.radix, given.channels)
        found["x"] += (radix,)
        gates = (channels, 1) if self.gate == "folded" else (channels * self.radix, 1)
        if channels != given.channels:
            raise ValueError(f"{channels} channels of splits of {given.channels}")
        return found | {"gate": ((images, given.gate_image), gates)}

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        f, k = frame, frame.kernel
        image, line, column = position(f, row)
        source = f.x + image * f.image + channel
        average = self._window(f, line, column)

        def combine(c: Int, mask: Any) -> None:
            parts = average(source + c, mask)
            if self.gate == "none":
                (result,) = parts
            elif self.gate == "folded":
                gate = k.load(f.gate + image * f.gate_image + channel + c, mask=mask)
                result = k.fma(gate, parts[0] - parts[1], parts[1])
            else:
                result = k.zero()
                for r, part in enumerate(parts):
                    at = image * f.gate_image + channel + f.channels * r + c
                    result = k.fma(k.load(f.gate + at, mask=mask), part, result)
            k.store(result, out + c, mask)

        k.each_vector(depth, combine)

    def _parts(self, f: Frame, at: Pointer, mask: Any) -> list[Vector]:
        k = f.kernel
        return [k.load(at + (f.channels * r if r else 0), mask=mask) for r in range(self.radix)]

    @staticmethod
    def _inverse(f: Frame, count: Int) -> Vector:
        """1 / count; a window wholly in the padding has the sum 0 and keeps it."""
        k = f.kernel
        bounded = count.maximum(1)
        return k.splat_constant(1.0, 1) / k.as_float(bounded)

    def _window(self, f: Frame, line: Int, column: Int) -> Callable[[Pointer, Any], list[Vector]]:
        """How to read one vector of each split at an output pixel."""
        k = f.kernel
        if self.pool == "none":
            offset = line * f.line + column * f.pixel
            return lambda source, mask: self._parts(f, source + offset, mask)
        top, left = line * f.stride_h - f.pad_top, column * f.stride_w - f.pad_left
        y0, y1 = top.maximum(0), (top + f.kernel_h).minimum(f.height)
        x0, x1 = left.maximum(0), (left + f.kernel_w).minimum(f.width)
        if self.pool == "fixed":
            scale = f.scale
        elif self.pool == "inside":
            scale = self._inverse(f, (y1 - y0) * (x1 - x0))
        else:
            bottom = (top + f.kernel_h).minimum(f.height + f.pad_bottom)
            right = (left + f.kernel_w).minimum(f.width + f.pad_right)
            scale = self._inverse(f, (bottom - top) * (right - left))

        def average(source: Pointer, mask: Any) -> list[Vector]:
            with k.loop(y0, y1, carry=[k.zero()] * self.radix) as rows:
                with k.loop(x0, x1, carry=rows.carried) as columns:
                    at = source + (rows.index * f.line + columns.index * f.pixel)
                    parts = self._parts(f, at, mask)
                    columns.carry([a + b for a, b in zip(columns.carried, parts, strict=True)])
                rows.carry(columns.results)
            return [part * k.splat(scale) for part in rows.results]

        return average


@dataclass(frozen=True)
class Mapped(Loader):
    """Rows that lie in memory, through an elementwise body whose extras are floats by channel, such
    as a batch norm and a ReLU before a convolution."""

    name: ClassVar[str] = "mapped"
    body: Body = PLAIN

    def arguments(self) -> tuple[Arg, ...]:
        return buffers("x", *self._names()) + ints("x_row")

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        own: dict[str, Extent] = dict.fromkeys(self._names(), ((channels, 1),))
        return own | {"x": ((rows, given.x_row), (channels, 1))}

    def _names(self) -> list[str]:
        return [f"map{i}" for i in range(len(self.body.extras))]

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        f, k = frame, frame.kernel
        source = f.x + (row * f.x_row + channel)

        def apply(c: Int, mask: Any) -> None:
            extras = [k.load(getattr(f, n) + (channel + c), mask=mask) for n in self._names()]
            k.store(self.body.emit(k, k.load(source + c, mask=mask), extras), out + c, mask)

        k.each_vector(depth, apply)


class _Part:
    """A frame as one part of a `Join` sees it: its own arguments under their plain names."""

    def __init__(self, frame: Frame, number: int) -> None:
        self.kernel = frame.kernel
        self._frame = frame
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, part_name(name, self._number))


def part_name(name: str, number: int) -> str:
    """What an argument of part `number` is called among those of a `Join`."""
    return f"{name}_{number}"


@dataclass(frozen=True)
class Join(Loader):
    """Rows of several loaders side by side: a block's last convolution and its shortcut's."""

    name: ClassVar[str] = "join"
    parts: tuple[Loader, ...] = ()

    def arguments(self) -> tuple[Arg, ...]:
        declared: tuple[Arg, ...] = ()
        for i, part in enumerate(self.parts):
            own = (*part.arguments(), Arg("columns"))
            declared += tuple(replace(a, name=part_name(a.name, i)) for a in own)
        return declared

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        found: dict[str, Extent] = {}
        columns = 0
        for i, part in enumerate(self.parts):
            own = given.part(part_name("", i))
            columns += own.columns
            extents = part.extents(own, rows, own.columns)
            found |= {part_name(o, i): extent for o, extent in extents.items()}
        if columns != channels:
            raise ValueError(f"{columns} channels side by side instead of {channels}")
        return found

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        """All channels of all parts; a `Join` has no groups to start in the middle."""
        for i, loader in enumerate(self.parts):
            part: Any = _Part(frame, i)
            loader.row(part, row, channel, part.columns, out)
            out = out + part.columns

    def __str__(self) -> str:
        return f"join[{', '.join(map(str, self.parts))}]"


@dataclass(frozen=True)
class Sums(Loader):
    """One row an image: the mean over the map of each channel, summed over the radix.

    x holds partial sums, [image][part][radix * channels]; they are added in ascending order.
    """

    name: ClassVar[str] = "sums"
    radix: int = 1

    def arguments(self) -> tuple[Arg, ...]:
        return buffers("x") + ints("parts", "channels") + floats("scale")

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        width = given.channels * self.radix
        splits = ((self.radix, given.channels), (channels, 1))
        return {"x": ((rows, given.parts * width), (given.parts, width), *splits)}

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        f, k = frame, frame.kernel
        width = f.channels * self.radix
        source = f.x + row * f.parts * width + channel

        def gather(c: Int, mask: Any) -> None:
            with k.loop(0, f.parts, carry=[k.zero()]) as part:
                (total,) = part.carried
                for r in range(self.radix):
                    at = source + (part.index * width + f.channels * r + c)
                    total = total + k.load(at, mask=mask)
                part.carry([total])
            k.store(part.results[0] * k.splat(f.scale), out + c, mask)

        k.each_vector(depth, gather)


@dataclass(frozen=True)
class Stage(KernelSpec):
    """A loader as a kernel of its own: rows into a buffer. One task is one block of rows."""

    family: ClassVar[str] = "stage"
    streams: ClassVar[bool] = True
    loader: Loader

    def arguments(self) -> tuple[Arg, ...]:
        return self.loader.arguments() + buffers("y") + ints("y_row", "rows", "depth", "blocks")

    def extents(self, given: Given) -> dict[str, Extent]:
        given.require_tasks(given.blocks)
        rows, depth = given.rows, given.depth
        return self.loader.extents(given, rows, depth) | {"y": ((rows, given.y_row), (depth, 1))}

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel
        with k.loop(f.first, f.last) as task:
            start, stop = share(task.index, f.rows, f.blocks)
            out = f.y + start * f.y_row
            self.loader.rows(f, start, stop - start, k.int(0), f.depth, out, f.y_row)
        return f.finish()
