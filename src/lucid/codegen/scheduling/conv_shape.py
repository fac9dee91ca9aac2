"""Layers as the schedule sees them: convolutions and linear layers in numbers, and which nodes they
are."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lucid.codegen.kernels.live_taps import SPARSE, AxisWindows, sparse_share
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.scheduling.planes import Plane
from lucid.codegen.target import Target
from lucid.ir.graph import Graph, Node
from lucid.ir.ops import Conv2d, Convolution, Fusion, IntegerConv2d, Linear, Op
from lucid.ir.types import TensorType

GROUPS = (1, 2, 4, 8)
"""Channels of a group that the depthwise kernel makes, of as many or of one."""

PAIRED = 8
"""Channels of groups, as many as a vector of AVX2 has, whose products Winograd takes in pairs of
groups, half of them with zeros: 256 channels at 28x28 take 0.45 ms by F(4x4) so, and 0.77 as
vectors. Groups of four at 56x56 would take 1.0, and take 0.55 as vectors."""


@dataclass(frozen=True)
class ConvShape:
    """A convolution in numbers; sizes are those of the batch and image compiled for, and of images
    where it is over one or three axes (`Plane`). `slices`: its input channels are those of so many
    slices of a volume; 0 where they are an image's own. `integer`: whether integers are summed up,
    which kernels multiply as pairs of 16-bit ones. `linear`: whether it is a linear layer: over the
    rows of images, which are then one pixel wide, or of other rank, one pixel high."""

    batch: int
    channels: int
    columns: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    op: Conv2d
    itemsize: int  # bytes of a number, in maps and weights
    slices: int = 0
    integer: bool = False
    linear: bool = False

    @property
    def depth(self) -> int:
        """Input channels of a group."""
        return self.channels // self.op.groups

    @property
    def group_columns(self) -> int:
        return self.columns // self.op.groups

    @property
    def products(self) -> int:
        """Multiply-adds of the direct sum."""
        taps = self.kernel[0] * self.kernel[1]
        pixels = self.batch * self.out_height * self.out_width
        return pixels * self.columns * self.depth * taps

    @property
    def map_bytes(self) -> int:
        """About what the input takes, of one image."""
        pixels = self.out_height * self.out_width * math.prod(self.op.stride)
        return self.itemsize * self.channels * pixels

    @property
    def live_taps(self) -> float:
        """The share of the windows' taps that the direct kernel has to compute: those of far
        dilated windows on small maps mostly meet padding."""
        op, size = self.op, (self.out_height, self.out_width)
        axes = []
        for i in (0, 1):
            reach = (self.kernel[i] - 1) * op.dilation[i] + 1
            pixels = (size[i] - 1) * op.stride[i] + reach - op.padding[i] - op.padding[2 + i]
            fields = op.stride[i], op.padding[i], op.dilation[i], self.kernel[i], pixels
            axes.append(AxisWindows(size[i], *fields))
        share = sparse_share(*axes)
        return share if share < SPARSE else 1.0

    @property
    def is_halved(self) -> bool:
        """Whether the weights of a 1x1 layer of floats are a matrix of 2 by 2 quarters."""
        even = self.channels % 2 == 0 and self.columns % 2 == 0
        rows = not self.linear or (self.out_width == 1 < self.out_height)
        return even and rows and self.op.groups == 1 and not self.integer

    @property
    def pairs(self) -> int:
        """Strassen's pairs of rows."""
        return self.batch * -(-self.out_height * self.out_width // 2)

    def together(self, target: Target) -> ConvShape:
        """The convolution as Winograd's products take it."""
        count = groups_together(self.op.groups, self.depth, self.group_columns, target)
        if count == 1 or self.integer or self.slices:
            return self
        groups = self.op.groups // count
        return dataclasses.replace(self, op=dataclasses.replace(self.op, groups=groups))

    def tiles(self, m: int) -> int:
        """Winograd's tiles of m x m outputs in an image."""
        phase = phase_tiles((self.out_height, self.out_width), self.op.dilation, m)
        return math.prod(phase) * math.prod(self.op.dilation)

    @staticmethod
    def of(node: Node, batch: int) -> ConvShape:
        op = anchor_of(node)
        if isinstance(op, Linear):
            return ConvShape._of_linear(node, batch)
        integer = isinstance(op, IntegerConv2d)
        op = op.of_floats() if isinstance(op, IntegerConv2d) else op
        assert isinstance(op, Convolution)
        x, weight, y = (v.type.concrete(batch) for v in (*node.inputs[:2], node.output))
        plane = Plane.of(op, x, weight, y)
        columns, depth, *kernel = plane.weight
        n, _, height, width = plane.y
        itemsize = dtype("i16" if integer else node.inputs[0].type.dtype).bytes
        sizes, channels = (kernel[0], kernel[1]), depth * op.groups
        slices = 0 if plane.slices is None else plane.slices.taps
        numbers = (n, channels, columns, height, width)
        return ConvShape(*numbers, sizes, plane.op, itemsize, slices, integer)

    @staticmethod
    def _of_linear(node: Node, batch: int) -> ConvShape:
        x, weight = (v.type.concrete(batch) for v in node.inputs[:2])
        size = (x[1], 1) if len(x) == 3 else (1, math.prod(x[1:-1]))
        numbers = (x[0], x[-1], weight[0], *size)
        itemsize = dtype(node.inputs[0].type.dtype).bytes
        return ConvShape(*numbers, (1, 1), Conv2d(), itemsize, linear=True)


def groups_together(groups: int, depth: int, columns: int, target: Target) -> int:
    """How many of a convolution's groups of floats are one of Winograd's."""
    return 2 if are_paired(groups, depth, columns) and target.vector == PAIRED else 1


def are_paired(groups: int, depth: int, columns: int) -> bool:
    return depth == columns == PAIRED and groups % 2 == 0


def phase_tiles(size: tuple[int, int], dilation: tuple[int, int], m: int) -> tuple[int, int]:
    """Winograd's tiles in the height and width of a phase: outputs whose dilated windows meet the
    same pixels, one in so many lines and columns."""
    height, width = (-(-s // d) for s, d in zip(size, dilation, strict=True))
    return -(-height // m), -(-width // m)


def convolutions(graph: Graph) -> list[Node]:
    """The convolution nodes of a graph, fused or not."""
    return [n for n in graph.nodes if isinstance(anchor_of(n), Convolution | IntegerConv2d)]


def matrices(graph: Graph) -> list[Node]:
    """The linear layers of floats over features or rows of images (N, ..., channels), fused or
    not."""
    found = [n for n in graph.nodes if type(anchor_of(n)) is Linear]
    return [n for n in found if _is_matrix(n.inputs[0].type)]


def anchor_of(node: Node) -> Op:
    return node.op.anchor if isinstance(node.op, Fusion) else node.op


def scheduled_layers(graph: Graph) -> list[Node]:
    """The nodes that a schedule may have a choice for."""
    return [*convolutions(graph), *matrices(graph)]


def _is_matrix(x: TensorType) -> bool:
    """Whether the axes between count what belongs to one image, whatever the batch."""
    inner = all(isinstance(size, int) for size in x.shape[1:-1])
    return x.rank >= 2 and inner and x.dtype == COMPUTED
