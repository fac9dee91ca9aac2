"""Convolution of volumes: each slice of the result is an image, made of several slices of x.

A window meets some slices of a volume, one in depth for each of its taps. Side by side, their
channels are those of one wider image, of which the window is flat: the kernels here read their
input so, and are otherwise the kernels of images. A slice outside the volume is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.depthwise import Depthwise, Pattern, Rows
from lucid.codegen.kernels.direct import Direct, DirectEmitter
from lucid.codegen.kernels.winograd import Place, Winograd, WinogradEmitter
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, ints
from lucid.codegen.language.values import Int, Pointer, Vector
from lucid.codegen.target import Target

SLICES = ints("taps_d", "stride_d", "pad_front", "dilation_d", "volume", "out_volume")
"""Taps in depth; slices of a volume of x and of the result."""
CHANNELS = ints("slice_channels")
"""Channels of a group in a slice."""


def _whole(given: Given, images: int, channels: int) -> Extent:
    """The extent of x, for so many slices of the result, and so many channels of a group in all the
    slices that a window meets. Raises ValueError where the last volume lacks slices, or these have
    other channels."""
    if given.taps_d * given.slice_channels != channels:
        raise ValueError(f"{given.taps_d} slices of {given.slice_channels} of {channels} channels")
    size, channels = (given.height, given.width), given.groups * given.slice_channels
    return given.map("", _slices(given, images), size, channels)


def _slices(given: Given, images: int) -> int:
    """How many slices x has where the result has so many `images`."""
    if given.out_volume < 1 or images % given.out_volume:
        raise ValueError(f"{images} slices in volumes of {given.out_volume}")
    return int(images // given.out_volume * given.volume)


def _slice_met(f: Frame, image: Int, tap: Int) -> tuple[Int, Int]:
    """The slice that a tap in depth meets for a slice of the result: its number in its volume,
    which may be outside, and in all of x."""
    volume, number = image // f.out_volume, image % f.out_volume
    depth = number * f.stride_d - f.pad_front + tap * f.dilation_d
    return depth, volume * f.volume + depth


@dataclass(frozen=True)
class DirectSlices(Direct):
    """`Direct` over the slices of volumes. `planes`: taps in depth, where slices have one channel
    and their pixels lie side by side, else 0."""

    family: ClassVar[str] = "direct_slices"

    def arguments(self) -> tuple[Arg, ...]:
        return super().arguments() + SLICES + CHANNELS

    def extents(self, given: Given) -> dict[str, Extent]:
        if self.planes and (given.taps_d, given.groups * given.slice_channels) != (self.planes, 1):
            raise ValueError(f"{given.taps_d} slices as {self.planes} planes")
        whole = _whole(given, given.images_of(given.bands * given.strips), given.channels)
        return super().extents(given) | {"x": whole}

    def emit(self, target: Target) -> ir.Module:
        return _DirectSlices(self, target).emit()


class _DirectSlices(DirectEmitter):
    def _copy(self, image: Int, group: Int, top: Int, left: Int, out: Pointer) -> None:
        """The lines that windows meet, from line `top` on, pixel by pixel: the channels of the
        first tap's slice, then of the next one's."""
        f, k = self.frame, self.kernel
        zeros, skipped, columns = self._margins(left)
        begin, end = zeros * f.channels, (zeros + columns) * f.channels
        with k.loop(0, f.met) as loop:
            inside, part = loop.index % f.part_lines, loop.index // f.part_lines
            line, to = top + part * f.part_step + inside, out + loop.index * self.line_numbers
            self._zero(to, k.int(0), begin)
            self._zero(to, end, self.line_numbers)
            at = line * f.line + skipped * f.pixel
            if self.spec.planes:
                self._planes(image, line, at, to + begin, columns)
            else:
                self._slices(image, line, at, group, to + begin, columns)

    def _slices(
        self, image: Int, line: Int, at: Int, group: Int, out: Pointer, columns: Int
    ) -> None:
        """A line of several slices, from place `at` of each on, pixel by pixel."""
        f, k = self.frame, self.kernel
        with k.loop(0, f.taps_d) as tap:
            depth, number = _slice_met(f, image, tap.index)
            source = f.x + (number * f.image + at + group * f.slice_channels)
            exists = k.both(depth >= 0, depth < f.volume, line >= 0, line < f.height)
            self._pixels(source, out + tap.index * f.slice_channels, columns, exists)

    def _planes(self, image: Int, line: Int, at: Int, out: Pointer, columns: Int) -> None:
        """A line of several slices that have one channel each, from place `at` of each on."""
        f, k = self.frame, self.kernel
        sources, exist = [], []
        for tap in range(self.spec.planes):
            depth, number = _slice_met(f, image, k.int(tap))
            sources.append(f.x + (number * f.image + at))
            exist.append(k.both(depth >= 0, depth < f.volume, line >= 0, line < f.height))
        self._interleave(sources, out, columns, exist)

    def _pixels(self, source: Pointer, out: Pointer, columns: Int, exists: ir.Value) -> None:
        """The channels of one slice in a line, or zeros where there is no such line."""
        f, k = self.frame, self.kernel

        def copied() -> None:
            with k.loop(0, columns) as pixel:
                x, y = source + pixel.index * f.pixel, out + pixel.index * f.channels
                k.each_vector(
                    f.slice_channels, lambda c, m: k.store(k.load(x + c, mask=m), y + c, m)
                )

        def blank() -> None:
            with k.loop(0, columns) as pixel:
                self._zero(out + pixel.index * f.channels, k.int(0), f.slice_channels)

        k.either(exists, copied, blank)


@dataclass(frozen=True)
class WinogradSlices(Winograd):
    """`Winograd` over the slices of volumes."""

    family: ClassVar[str] = "winograd_slices"

    def arguments(self) -> tuple[Arg, ...]:
        return super().arguments() + SLICES + CHANNELS

    def extents(self, given: Given) -> dict[str, Extent]:
        whole = _whole(given, given.images_of(given.image_blocks), given.depth)
        return super().extents(given) | {"x": whole}

    def emit(self, target: Target) -> ir.Module:
        return _WinogradSlices(self, target).emit()


class _WinogradSlices(WinogradEmitter):
    def _input(self, tile: Int, slot: Int, group: Int) -> None:
        """V[:, slot, :] = B^T d B, slice after slice."""
        f, k, place = self.frame, self.kernel, self._place(tile)
        with k.loop(0, f.taps_d) as tap:
            depth, number = _slice_met(f, place.image, tap.index)
            out = self.v + (slot * self.padded + tap.index * f.slice_channels)
            met: Place = replace(place, image=number)

            def transform(met: Place = met, out: Pointer = out) -> None:
                phase = self._phase(self.x, met, group * f.slice_channels)
                self._transform(met, phase, out, f.slice_channels, anywhere=True)

            def blank(out: Pointer = out) -> None:
                with k.loop(0, self.points) as point:
                    at = out + point.index * self.v_point
                    k.each_vector(f.slice_channels, lambda c, m: k.store(k.zero(), at + c, m))

            k.either(k.both(depth >= 0, depth < f.volume), transform, blank)


@dataclass(frozen=True)
class DepthwiseSlices(Depthwise):
    """`Depthwise` over the slices of volumes: weights [tap in depth][tap][input][channel]."""

    family: ClassVar[str] = "depthwise_slices"

    def arguments(self) -> tuple[Arg, ...]:
        return super().arguments() + SLICES

    def extents(self, given: Given) -> dict[str, Extent]:
        found = super().extents(given)
        (images, image), *inside = found["x"]
        (taps, channels), *each = found["weights"]
        found["x"] = ((_slices(given, images), image), *inside)
        found["weights"] = ((taps * given.taps_d, channels), *each)
        return found

    def rows(self, f: Frame, image: Int, line: Int) -> Rows:
        """The same in the first slice that is there; and how many are."""
        depth, number = _slice_met(f, image, f.kernel.int(0))
        first = (0 - depth).maximum(0).ceil_div(f.dilation_d).minimum(f.taps_d)
        last = (f.volume - depth).maximum(0).ceil_div(f.dilation_d).minimum(f.taps_d)
        rows = super().rows(f, number + first * f.dilation_d, line)
        weights = rows.weights + first * self._weights_of_slice(f)
        return replace(rows, weights=weights, slices=last.maximum(first) - first)

    def window(
        self, f: Frame, pattern: Pattern, rows: Rows, totals: Sequence[Vector], mask: Any
    ) -> list[Vector]:
        """The sums after all slices."""
        assert rows.slices is not None
        with f.kernel.loop(0, rows.slices, carry=totals) as taps:
            met = replace(
                rows,
                x=rows.x + taps.index * f.dilation_d * f.image,
                weights=rows.weights + taps.index * self._weights_of_slice(f),
            )
            taps.carry(super().window(f, pattern, met, taps.carried, mask))
        return taps.results

    def _weights_of_slice(self, f: Frame) -> Int:
        channels: Int = f.channels
        return channels * (self.taps[0] * self.taps[1] * self.group)
