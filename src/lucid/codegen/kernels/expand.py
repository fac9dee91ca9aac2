"""A 1x1 convolution and the depthwise one that reads it, in one kernel: an inverted bottleneck's
expanded map is never stored.

One task is a band of output lines of one image, and a chunk of its channels. Some panels of the
expanded channels at a time, it multiplies the lines that the band's windows meet into scratch,
which stays in L2, and slides the windows over them. Small maps are one band, and a task has some of
their panels; of large ones a task has all panels of a band, and lines that two bands share are
multiplied twice. (Sandler et al., "MobileNetV2", 2018, section 5 describes the same by hand, for
memory's sake.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.depthwise import Depthwise
from lucid.codegen.kernels.microkernels import TILE_TYPE
from lucid.codegen.kernels.product import (
    Prefetch,
    RowGroups,
    pick_tile,
    require_tiles,
    tile_arguments,
)
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
)
from lucid.codegen.language.values import F32, Int, Pointer, size_of
from lucid.codegen.target import Target

SCRATCH = ("x", "image", "line", "pixel")
"""Arguments of `Depthwise` that here say where the scratch lies."""


def scratch_bytes(lines: int, width: int, wide: int) -> int:
    """Scratch for so many lines of `wide` channels of the expanded map."""
    return size_of(F32) * lines * width * wide


@dataclass(frozen=True)
class ExpandDepthwise(KernelSpec):
    """`depthwise` over a product of the rows of a map, `source`, `source_row` elements apart, and
    `panels` of weights; the product's bias and body are in its tiles. `wide`: channels, whole
    panels, that are made before windows slide over them; `prefetch`: whether panels are asked for
    while the one before is used."""

    family: ClassVar[str] = "expand_depthwise"
    depthwise: Depthwise

    def arguments(self) -> tuple[Arg, ...]:
        own = tuple(a for a in self.depthwise.arguments() if a.name not in SCRATCH)
        return (
            own
            + buffers("source", "panel_weights", "panel_bias")
            + tile_arguments()
            + ints("source_row", "depth", "width", "panel", "panels", "wide", "prefetch")
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        require_tiles(given)
        found = self.depthwise.result_extents(given)
        rows = given.tasks_over(given.bands, given.chunks) * given.height * given.width
        sizes = given.chunk, given.wide
        if min(given.panel, *sizes) < 1 or any(size % given.panel for size in sizes):
            raise ValueError(f"{given.wide} of {given.chunk} channels in panels of {given.panel}")
        packed = given.panels * given.panel
        return found | {
            "source": ((rows, given.source_row), (given.depth, 1)),
            "panel_weights": ((packed * given.depth, 1),),
            "panel_bias": ((packed, 1),),
        }

    def emit(self, target: Target) -> ir.Module:
        f, spec = Frame(self, target), self.depthwise
        k = f.kernel
        f.set(image=k.int(0), line=f.width * f.wide, pixel=f.wide)
        with k.loop(f.first, f.last) as task:
            image, band, (begin, end) = spec.place(f, task.index)
            first = band * f.lines
            last = (first + f.lines).minimum(f.out_height)
            reach = (spec.taps[0] - 1) * spec.dilation[0] + 1
            top = (first * spec.stride[0] - f.pad_top).maximum(0).minimum(f.height)
            bottom = (
                ((last - 1) * spec.stride[0] - f.pad_top + reach).minimum(f.height).maximum(top)
            )
            row, count = (image * f.height + top) * f.width, (bottom - top) * f.width
            sums = spec.sums_of(f, image, band, (begin, end))
            with k.loop(begin, end, f.wide) as part:
                channels = (part.index, (part.index + f.wide).minimum(end))
                with k.loop(*channels, f.panel) as panel:
                    out = f.scratch.to(F32) + (panel.index - part.index)
                    self._expand(f, row, count, panel.index, out)
                f.set(x=f.scratch.to(F32) + (0 - top * f.line - part.index))
                with k.loop(first, last) as line:
                    spec.line(f, image, line.index, channels, sums)
        return f.finish()

    @staticmethod
    def _expand(f: Frame, row: Int, count: Int, begin: Int, out: Pointer) -> None:
        """`count` rows of the map, from number `row` on, times the panel that starts at channel
        `begin`, into scratch; the next panel is asked for meanwhile."""
        k = f.kernel
        groups = RowGroups.of(count, f.tile_rows)
        prefetch = Prefetch.of(f, groups.count, f.depth)
        weights, nothing = f.panel_weights + begin * f.depth, k.stack(1)
        with k.loop(0, groups.count) as loop:
            offset, rows = groups.place(k, loop.index)
            ahead, lines = prefetch.share(k, loop.index)
            operands = [
                f.source + (row + offset) * f.source_row,
                weights,
                out + offset * f.wide,
                f.depth,
                f.source_row,
                f.wide,
                rows,
                f.channels - begin,
                f.panel_bias + begin,
                weights + (prefetch.size + ahead),
                lines,
                nothing,
            ]
            k.call(pick_tile(f, rows), TILE_TYPE, operands)
