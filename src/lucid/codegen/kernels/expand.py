"""A 1x1 convolution and the depthwise one that reads it, in one kernel: an inverted bottleneck's
expanded map is never stored.

One task is a band of output lines of one image. Panel by panel of the expanded channels, it
multiplies the lines that the band's windows meet into scratch, which stays in L2, and slides the
windows over them. Lines that two bands share are multiplied twice. (Sandler et al., "MobileNetV2",
2018, section 5 describes the same by hand, for memory's sake.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir

from lucid.codegen.kernels.depthwise import Depthwise
from lucid.codegen.kernels.microkernels import TILE_TYPE
from lucid.codegen.kernels.product import RowGroups, pick_tile, require_tiles, tile_arguments
from lucid.codegen.language.kernel import (
    Arg,
    Extent,
    Frame,
    Given,
    KernelSpec,
    buffers,
    ints,
)
from lucid.codegen.language.values import F32, Int, size_of
from lucid.codegen.target import Target

SCRATCH = ("x", "image", "line", "pixel")
"""Arguments of `Depthwise` that here say where the scratch lies."""


def scratch_bytes(lines: int, width: int, panel: int) -> int:
    """Scratch for so many lines of a panel of the expanded map."""
    return size_of(F32) * lines * width * panel


@dataclass(frozen=True)
class ExpandDepthwise(KernelSpec):
    """`depthwise` over a product of the rows of a map, `source`, `source_row` elements apart, and
    `panels` of weights; the product's bias and body are in its tiles."""

    family: ClassVar[str] = "expand_depthwise"
    depthwise: Depthwise

    def arguments(self) -> tuple[Arg, ...]:
        own = tuple(a for a in self.depthwise.arguments() if a.name not in SCRATCH)
        return (
            own
            + buffers("source", "panel_weights", "panel_bias")
            + tile_arguments()
            + ints("source_row", "depth", "width", "panel", "panels")
        )

    def extents(self, given: Given) -> dict[str, Extent]:
        require_tiles(given)
        found = self.depthwise.result_extents(given)
        rows = given.tasks_over(given.bands) * given.height * given.width
        packed = given.panels * given.panel
        return found | {
            "source": ((rows, given.source_row), (given.depth, 1)),
            "panel_weights": ((packed * given.depth, 1),),
            "panel_bias": ((packed, 1),),
        }

    def emit(self, target: Target) -> ir.Module:
        f, spec = Frame(self, target), self.depthwise
        k = f.kernel
        f.set(image=k.int(0), line=f.width * f.panel, pixel=f.panel)
        with k.loop(f.first, f.last) as task:
            band, image = task.index % f.bands, task.index // f.bands
            first = band * f.lines
            last = (first + f.lines).minimum(f.out_height)
            reach = (spec.taps[0] - 1) * spec.dilation[0] + 1
            top = (first * spec.stride[0] - f.pad_top).maximum(0).minimum(f.height)
            bottom = (
                ((last - 1) * spec.stride[0] - f.pad_top + reach).minimum(f.height).maximum(top)
            )
            sums = None
            if spec.sums:
                sums = f.sums + (image * f.bands + band) * f.channels
                spec.clear(f, sums, (k.int(0), f.channels))
            with k.loop(0, f.panels) as panel:
                begin = panel.index * f.panel
                channels = (begin, (begin + f.panel).minimum(f.channels))
                self._expand(f, (image * f.height + top) * f.width, (bottom - top) * f.width, begin)
                f.set(x=f.scratch.to(F32) + (0 - top * f.line - begin))
                with k.loop(first, last) as line:
                    spec.line(f, image, line.index, channels, sums)
        return f.finish()

    @staticmethod
    def _expand(f: Frame, row: Int, count: Int, begin: Int) -> None:
        """`count` rows of the map, from number `row` on, times the panel that starts at channel
        `begin`, into scratch."""
        k = f.kernel
        groups = RowGroups.of(count, f.tile_rows)
        nothing = k.stack(1)
        with k.loop(0, groups.count) as loop:
            offset, rows = groups.place(k, loop.index)
            operands = [
                f.source + (row + offset) * f.source_row,
                f.panel_weights + begin * f.depth,
                f.scratch.to(F32) + offset * f.panel,
                f.depth,
                f.source_row,
                f.panel,
                rows,
                f.channels - begin,
                f.panel_bias + begin,
                f.panel_weights,
                k.int(0),
                nothing,
            ]
            k.call(pick_tile(f, rows), TILE_TYPE, operands)
