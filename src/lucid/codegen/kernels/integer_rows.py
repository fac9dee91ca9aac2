"""8-bit integers as register tiles take them: less their zero point as pairs of 16-bit ones, or as
they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.loaders import IMAGE, Loader, images_of, position
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, buffers, ints
from lucid.codegen.language.partial import each_part
from lucid.codegen.language.values import I16, Int, Integers, Pointer


@dataclass(frozen=True)
class Shifted(Loader):
    """Rows of `dtype`, as many as there are pixels; `strided`: of every few pixels of a map.

    What follows an odd number of `channels` is of no meaning: its weights are 0.
    """

    name: ClassVar[str] = "shifted"
    dtype: str = "u8"
    strided: bool = False
    together: ClassVar[int] = 2
    """Channels of a step."""

    def arguments(self) -> tuple[Arg, ...]:
        lie = IMAGE + ints("stride_h", "stride_w") if self.strided else ints("x_row")
        return buffers("x", dtype=self.dtype) + lie + ints("channels", "zero_point")

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        if given.depth != -(-given.channels // self.together):
            raise ValueError(f"{given.channels} channels in {given.depth} steps")
        inputs = given.groups * given.channels
        if not self.strided:
            return {"x": ((rows, given.x_row), (inputs, 1))}
        return {"x": given.map("", images_of(given, rows), (given.height, given.width), inputs)}

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        """`channel` and `depth` count steps."""
        f = frame
        source = f.x + channel // depth * f.channels + self._place(f, row)
        self._write(f, source, out)

    def _place(self, f: Frame, row: Int) -> Any:
        """Where the numbers of a row begin."""
        if not self.strided:
            return row * f.x_row
        image, line, column = position(f, row)
        return image * f.image + line * f.stride_h * f.line + column * f.stride_w * f.pixel

    def _write(self, f: Frame, source: Pointer, out: Pointer) -> None:
        shift(f.kernel, source, out.to(I16), f.channels, self.dtype, f.zero_point)


@dataclass(frozen=True)
class Copied(Shifted):
    """The same as they are, for products of bytes; their number is a multiple of GROUP_BYTES."""

    name: ClassVar[str] = "copied"
    together: ClassVar[int] = 4

    def _write(self, f: Frame, source: Pointer, out: Pointer) -> None:
        k, numbers = f.kernel, out.to(f.x.element)

        def part(at: Int, lanes: int) -> None:
            k.store(k.load(source + at, lanes), numbers + at)

        each_part(k, f.channels, 4 * k.vector, part)


def shift_planes(
    k: Kernel, planes: Sequence[Pointer], out: Pointer, count: Int, name: str, zero_point: Int
) -> None:
    """`shift` of a line of a planar map, channels last: `count` pixels of every plane."""
    zero = k.builder.trunc(zero_point.raw, I16)
    depth = len(planes)

    def part(at: Int, lanes: int) -> None:
        whole = k.joined([_less(k, plane + at, lanes, name, zero) for plane in planes])
        order = [p * lanes + pixel for pixel in range(lanes) for p in range(depth)]
        k.store(k.shuffle(whole, order), out + at * depth)

    each_part(k, count, k.vector, part)


def shift(k: Kernel, source: Pointer, out: Pointer, count: Int, name: str, zero_point: Int) -> None:
    """Write `count` integers of an 8-bit dtype, less their zero point, as 16-bit ones."""
    zero = k.builder.trunc(zero_point.raw, I16)

    def part(at: Int, lanes: int) -> None:
        k.store(_less(k, source + at, lanes, name, zero), out + at)

    each_part(k, count, 2 * k.vector, part)


def _less(k: Kernel, source: Pointer, lanes: int, name: str, zero: Any) -> Integers:
    """Integers of an 8-bit dtype less their zero point, in 16 bits."""
    signed = dtype(name).kind == "signed"
    kind = ir.VectorType(I16, lanes)
    raw = k.builder.load(source.raw, typ=ir.VectorType(source.element, lanes), align=1)
    wide = (k.builder.sext if signed else k.builder.zext)(raw, kind)
    return Integers(k.builder, k.builder.sub(wide, k.every_lane(zero, lanes)), True)
