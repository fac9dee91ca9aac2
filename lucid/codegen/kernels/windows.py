"""Kernels that slide a window over each channel: max pooling.

One task is one output line of one image; channels are the vector dimension. (Average pooling is the
`Combine` loader, which the product that reads the result runs; it is a stage of its own where
something else reads it, or where a product split by columns would repeat it.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.base import Arg, Frame, KernelSpec, buffers, ints
from lucid.codegen.kernels.loaders import IMAGE, WINDOW
from lucid.codegen.target import Target
from lucid.codegen.values import Int, Pointer, Vector
from lucid.codegen.vector_math import maximum

GEOMETRY = IMAGE + WINDOW + ints("dilation_h", "dilation_w", "channels")
OUTPUT = ints("y_image", "y_line", "y_pixel")


def _taps(start: Int, size: Int, dilation: Int, limit: Int) -> tuple[Int, Int]:
    """First and last (exclusive) tap of `size` whose position start + tap * dilation is inside."""
    below = (0 - start).maximum(0)
    first = below.ceil_div(dilation)
    above = (limit - start).maximum(0)
    return first, above.ceil_div(dilation).minimum(size)


def _slide(f: Frame, body: Callable[[Int, Int, Pointer, Pointer, Any], None]) -> ir.Module:
    """`body(top, left, image, out, offset)` for each output pixel of the tasks' lines; `offset` is
    the pixel's place in the result."""
    k = f.kernel
    with k.loop(f.first, f.last) as task:
        image, line = task.index // f.out_height, task.index % f.out_height
        top = line * f.stride_h - f.pad_top
        source = f.x + image * f.image
        with k.loop(0, f.out_width) as column:
            left = column.index * f.stride_w - f.pad_left
            offset = image * f.y_image + line * f.y_line + column.index * f.y_pixel
            body(top, left, source, f.y + offset, offset)
    return f.finish()


def _window(
    f: Frame,
    top: Int,
    left: Int,
    initial: Vector,
    step: Callable[[Vector, Int, Int, Int], Vector],
) -> Vector:
    """Fold `step(total, offset, tap_h, tap_w)` over the taps inside the map."""
    k = f.kernel
    rows = _taps(top, f.kernel_h, f.dilation_h, f.height)
    columns = _taps(left, f.kernel_w, f.dilation_w, f.width)
    with k.loop(*rows, carry=[initial]) as h:
        with k.loop(*columns, carry=h.carried) as w:
            y, x = top + h.index * f.dilation_h, left + w.index * f.dilation_w
            w.carry([step(w.carried[0], y * f.line + x * f.pixel, h.index, w.index)])
        h.carry(w.results)
    return h.results[0]


@dataclass(frozen=True)
class MaxPool(KernelSpec):
    """The largest value of each window; NaN where the window holds one."""

    family: ClassVar[str] = "max_pool"

    def arguments(self) -> tuple[Arg, ...]:
        return buffers("x", "y") + GEOMETRY + OUTPUT

    def emit(self, target: Target) -> ir.Module:
        f = Frame(self, target)
        k = f.kernel

        def pixel(top: Int, left: Int, source: Pointer, out: Pointer, offset: Int) -> None:
            def channels(c: Int, mask: Any) -> None:
                def step(total: Vector, at: Int, tap_h: Int, tap_w: Int) -> Vector:
                    return maximum(k, total, k.load(source + (at + c), mask=mask))

                lowest = k.splat_constant(float("-inf"))
                k.store(_window(f, top, left, lowest, step), out + c, mask)

            k.each_vector(f.channels, channels)

        return _slide(f, pixel)
