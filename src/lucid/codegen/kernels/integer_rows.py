"""8-bit integers less their zero point, as the pairs of 16-bit ones that register tiles take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.loaders import IMAGE, Loader, images_of, position
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import Arg, Extent, Frame, Given, buffers, ints
from lucid.codegen.language.partial import each_part
from lucid.codegen.language.values import I16, Int, Pointer


@dataclass(frozen=True)
class Shifted(Loader):
    """Rows of `dtype`, as many as there are pixels; `strided`: of every few pixels of a map.

    An odd number of `channels` is followed by a zero.
    """

    name: ClassVar[str] = "shifted"
    dtype: str = "u8"
    strided: bool = False

    def arguments(self) -> tuple[Arg, ...]:
        lie = IMAGE + ints("stride_h", "stride_w") if self.strided else ints("x_row")
        return buffers("x", dtype=self.dtype) + lie + ints("channels", "zero_point")

    def extents(self, given: Given, rows: int, channels: int) -> dict[str, Extent]:
        if given.depth != -(-given.channels // 2):
            raise ValueError(f"{given.channels} channels in {given.depth} pairs")
        inputs = given.groups * given.channels
        if not self.strided:
            return {"x": ((rows, given.x_row), (inputs, 1))}
        return {"x": given.map("", images_of(given, rows), (given.height, given.width), inputs)}

    def row(self, frame: Frame, row: Int, channel: Int, depth: Int, out: Pointer) -> None:
        """`channel` and `depth` count pairs."""
        f, k = frame, frame.kernel
        first, numbers = f.x + channel // depth * f.channels, out.to(I16)
        if self.strided:
            image, line, column = position(f, row)
            at = line * f.stride_h * f.line + column * f.stride_w * f.pixel
            source = first + (image * f.image + at)
        else:
            source = first + row * f.x_row
        shift(k, source, numbers, f.channels, self.dtype, f.zero_point)
        with k.when((f.channels % 2).equals(1)):
            k.builder.store(ir.Constant(I16, 0), (numbers + f.channels).raw, align=2)


def shift(k: Kernel, source: Pointer, out: Pointer, count: Int, name: str, zero_point: Int) -> None:
    """Write `count` integers of an 8-bit dtype, less their zero point, as 16-bit ones."""
    b = k.builder
    widen = b.sext if dtype(name).kind == "signed" else b.zext
    zero = b.trunc(zero_point.raw, I16)

    def part(at: Int, lanes: int) -> None:
        kind = k.vector_type(lanes, I16)
        wide = widen(k.load(source + at, lanes).raw, kind)
        less = b.sub(wide, k.every_lane(zero, lanes) if lanes > 1 else zero)
        b.store(less, (out + at).raw, align=2)

    each_part(k, count, 2 * k.vector, part)
