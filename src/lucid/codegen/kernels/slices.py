"""Convolution of volumes: each slice of the result is an image, made of several slices of x.

A window meets some slices of a volume, one in depth for each of its taps. Side by side, their
channels are those of one wider image, of which the window is flat: the kernels here read their
input so, and are otherwise the kernels of images. A slice outside the volume is zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.direct import Direct, DirectEmitter
from lucid.codegen.kernels.winograd import Place, Winograd, WinogradEmitter
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, ints
from lucid.codegen.language.values import Int, Pointer
from lucid.codegen.target import Target

SLICES = ints(
    *("taps_d", "stride_d", "pad_front", "dilation_d"),
    *("volume", "out_volume", "slice_channels"),
)
"""Taps in depth; slices of a volume of x and of the result; channels of a group in a slice."""


def _whole(given: Given, images: int) -> Extent:
    """The extent of x, for so many slices of the result. Raises ValueError where the last volume
    lacks some."""
    if given.out_volume < 1 or images % given.out_volume:
        raise ValueError(f"{images} slices in volumes of {given.out_volume}")
    slices = images // given.out_volume * given.volume
    channels = given.groups * given.slice_channels
    return given.map("", slices, (given.height, given.width), channels)


def _slice_met(f: Frame, image: Int, tap: Int) -> tuple[Int, Int]:
    """The slice that a tap in depth meets for a slice of the result: its number in its volume,
    which may be outside, and in all of x."""
    volume, number = image // f.out_volume, image % f.out_volume
    depth = number * f.stride_d - f.pad_front + tap * f.dilation_d
    return depth, volume * f.volume + depth


@dataclass(frozen=True)
class DirectSlices(Direct):
    """`Direct` over the slices of volumes."""

    family: ClassVar[str] = "direct_slices"

    def arguments(self) -> tuple[Arg, ...]:
        return super().arguments() + SLICES

    def extents(self, given: Given) -> dict[str, Extent]:
        return super().extents(given) | {"x": _whole(given, given.images_of(given.bands))}

    def emit(self, target: Target) -> ir.Module:
        return _DirectSlices(self, target).emit()


class _DirectSlices(DirectEmitter):
    def _copy(self, image: Int, group: Int, top: Int, out: Pointer) -> None:
        """The lines that windows meet, from line `top` on, pixel by pixel: the channels of the
        first tap's slice, then of the next one's."""
        f, k = self.frame, self.kernel
        columns = (f.padded_width - f.pad_left).minimum(f.width).maximum(0)
        left = f.pad_left.minimum(f.padded_width) * f.channels
        with k.loop(0, f.met) as loop:
            inside, part = loop.index % f.part_lines, loop.index // f.part_lines
            line, to = top + part * f.part_step + inside, out + loop.index * self.line_floats
            self._zero(to, k.int(0), left)
            self._zero(to, left + columns * f.channels, self.line_floats)
            with k.loop(0, f.taps_d) as tap:
                depth, number = _slice_met(f, image, tap.index)
                source = f.x + (number * f.image + line * f.line + group * f.slice_channels)
                place = to + (left + tap.index * f.slice_channels)
                exists = k.both(depth >= 0, depth < f.volume, line >= 0, line < f.height)
                self._pixels(source, place, columns, exists)

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
        return super().arguments() + SLICES

    def extents(self, given: Given) -> dict[str, Extent]:
        return super().extents(given) | {"x": _whole(given, given.images_of(given.image_blocks))}

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
