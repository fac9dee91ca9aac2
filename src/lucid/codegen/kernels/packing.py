"""Packing: how parameters are laid out for the kernels, as weight panels, Winograd points or
vectors.

A packing is a value; together with a parameter's recipe it names one packed array, which all plans
of a model share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lucid.codegen.kernels.byte_products import GROUP_BYTES, limits
from lucid.codegen.kernels.matrix_tile import BLOCK, PARTS, blocks_of
from lucid.codegen.kernels.winograd_panels import TAPS, points, transform
from lucid.codegen.kernels.winograd_transforms import exact_below
from lucid.codegen.language.dtypes import dtype
from lucid.errors import InputError
from lucid.ir.ops.base import Array
from lucid.ir.recipe import Recipe


@dataclass(frozen=True)
class Packing:
    """Base: `pack` writes the parameter, given in float64, as the kernels read it.

    `out` is flat, of the packed dtype and zero; rounding happens as it is written, without a copy
    in between.
    """

    def pack(self, array: Array, out: Array) -> None:
        raise NotImplementedError

    def elements(self, shape: tuple[int, ...]) -> int:
        """How many numbers the packed array of a parameter of this shape has."""
        raise NotImplementedError


@dataclass(frozen=True)
class Arrangement(Packing):
    """Base of packings that compute nothing: numbers as they are, in another order, with zeros in
    between."""

    def pack(self, array: Array, out: Array) -> None:
        self.arrange(array, out)

    def arrange(self, array: Array, out: Array) -> None:
        """`pack`, of any numbers."""
        raise NotImplementedError


@dataclass(frozen=True)
class Flat(Arrangement):
    """As it is, row-major."""

    def arrange(self, array: Array, out: Array) -> None:
        out[:] = array.reshape(-1)

    def elements(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True)
class Panels(Arrangement):
    """A convolution's or linear layer's weights as a product's right operand.

    (O, I, KH, KW) or (O, I) -> [group][panel][tap, input channel][column], columns padded with
    zeros to whole panels of `width`.
    """

    groups: int
    width: int

    def arrange(self, array: Array, out: Array) -> None:
        columns = array.shape[0] // self.groups
        steps = array.reshape(self.groups, columns, array.shape[1], -1)  # taps last
        taps, inner = steps.shape[3], steps.shape[2]
        panels = out.reshape(self.groups, -1, taps, inner, self.width)
        for group, panel, first, last in each_panel(self.groups, columns, self.width):
            block = steps[group, first:last]
            panels[group, panel, ..., : last - first] = block.transpose(2, 1, 0)

    def elements(self, shape: tuple[int, ...]) -> int:
        columns = shape[0] // self.groups
        depth = int(np.prod(shape[1:], dtype=np.int64))
        return self.groups * -(-columns // self.width) * self.width * depth


@dataclass(frozen=True)
class PanelsOfGroups(Panels):
    """`Panels` of a convolution whose groups are taken `together`, so many as one of `groups`, with
    zeros for what they do not read of each other."""

    together: int

    def arrange(self, array: Array, out: Array) -> None:
        super().arrange(self._joined(array), out)

    def _joined(self, array: Array) -> Array:
        """The weights of the groups that are left."""
        outputs, *rest = array.shape
        own = array.reshape(self.groups, self.together, -1, *rest)
        joined = np.zeros((*own.shape[:3], self.together, *rest), array.dtype)
        for number in range(self.together):
            joined[:, number, :, number] = own[:, number]
        return joined.reshape(outputs, self.together * rest[0], *rest[1:])

    def elements(self, shape: tuple[int, ...]) -> int:
        return super().elements(shape) * self.together


@dataclass(frozen=True)
class PairPanels(Arrangement):
    """`Panels` of integers, two steps of k side by side in each column: [group][panel][segment]
    [pair][column][2].

    `segments`: how many runs of taps a row is made of, each of which begins with a new pair, and is
    followed by a zero where its length is odd.
    """

    groups: int
    width: int
    segments: int = 1
    together: ClassVar[int] = 2
    """Steps of k side by side."""

    def arrange(self, array: Array, out: Array) -> None:
        columns = array.shape[0] // self.groups
        by_tap = array.reshape(self.groups, columns, array.shape[1], -1).swapaxes(2, 3)
        steps = by_tap.reshape(self.groups, columns, self.segments, -1)
        elements = self.elements_of(steps.shape[3])
        shape = (self.groups, -1, self.segments, elements, self.width, self.together)
        panels = out.reshape(shape)
        for group, panel, first, last in each_panel(self.groups, columns, self.width):
            block = steps[group, first:last].transpose(1, 2, 0)
            for number in range(self.together):
                part = block[:, number :: self.together]
                panels[group, panel, :, : part.shape[1], : last - first, number] = part

    def elements(self, shape: tuple[int, ...]) -> int:
        columns = shape[0] // self.groups
        depth = int(np.prod(shape[1:], dtype=np.int64)) // self.segments
        packed = self.groups * -(-columns // self.width) * self.width
        return packed * self.segments * self.elements_of(depth) * self.together

    def elements_of(self, depth: int) -> int:
        """How many elements a segment of so many steps has in each column."""
        return -(-depth // self.together)


@dataclass(frozen=True)
class BlockPanels(PairPanels):
    """The same for tiles of matrices, which take whole blocks of pairs."""

    def elements_of(self, depth: int) -> int:
        return blocks_of(super().elements_of(depth))


@dataclass(frozen=True)
class PartPanels(Packing):
    """Floats as the sums of bfloat16 parts: [group][panel][block][part][pair of a block][column][2]
    in the order of `BlockPanels`."""

    groups: int
    width: int

    def pack(self, array: Array, out: Array) -> None:
        bf16, rest = dtype("bf16"), array.astype(np.float32)
        blocks = out.reshape(-1, PARTS, BLOCK * self.width * 2)
        for number in range(PARTS):
            part = bf16.decode(bf16.encode(rest))
            with np.errstate(invalid="ignore"):  # an infinity less itself
                rest = rest - part
            panels = np.zeros(blocks[:, number].size, np.float32)
            self._panels.arrange(part, panels)
            blocks[:, number] = panels.reshape(len(blocks), -1)

    def elements(self, shape: tuple[int, ...]) -> int:
        return PARTS * self._panels.elements(shape)

    @property
    def _panels(self) -> BlockPanels:
        return BlockPanels(self.groups, self.width)


@dataclass(frozen=True)
class FilterPairs(PairPanels):
    """The same of filters that are to be transformed, whose points 16 bits hold."""

    def pack(self, array: Array, out: Array) -> None:
        """Raises InputError for weights of more than eight bits and a sign."""
        least, largest = array.min(initial=0), array.max(initial=0)
        if least < -255 or largest > 255:
            raise InputError(
                f"weights from {least:.0f} to {largest:.0f}: Winograd's convolution of integers"
                " takes those that are 8-bit ones less a zero point, within -255..255; choose the"
                " kernel direct for this layer"
            )
        super().pack(array, out)


@dataclass(frozen=True)
class QuadPanels(PairPanels):
    """The same with four steps of k side by side."""

    together: ClassVar[int] = 4


@dataclass(frozen=True)
class ByteLimits(Packing):
    """How large the rows that meet `QuadPanels` may be for products in 16 bits: [group][panel]
    [group of steps]."""

    groups: int
    width: int

    def pack(self, array: Array, out: Array) -> None:
        """Of weights (O, I, 1, 1) or (O, I), whose I is a multiple of GROUP_BYTES."""
        columns, depth = array.shape[0] // self.groups, array.shape[1]
        by_step = array.reshape(self.groups, columns, -1, QuadPanels.together)
        found = out.reshape(self.groups, -1, depth // GROUP_BYTES)
        for group, panel, first, last in each_panel(self.groups, columns, self.width):
            steps = by_step[group, first:last].astype(np.float64).swapaxes(0, 1)
            found[group, panel] = limits(steps[np.newaxis])[0]

    def elements(self, shape: tuple[int, ...]) -> int:
        panels = -(-(shape[0] // self.groups) // self.width)
        return self.groups * panels * (shape[1] // GROUP_BYTES)


@dataclass(frozen=True)
class Winograd(Packing):
    """Base: 3x3 filters, packed as `taps` says in the dtype of the panels, and then transformed:
    [panel][point][column], of [panel][tap][column]."""

    m: int
    groups: int
    width: int
    dtype: ClassVar[str]

    @property
    def taps(self) -> Arrangement:
        raise NotImplementedError

    def columns(self, shape: tuple[int, ...]) -> int:
        """Numbers that a panel has of each point."""
        raise NotImplementedError

    def pack(self, array: Array, out: Array) -> None:
        taps = np.zeros(self.taps.elements(array.shape), dtype(self.dtype).storage)
        self.taps.pack(array, taps)
        columns = self.columns(array.shape)
        transform(taps.reshape(-1, TAPS, columns), self.m, out.reshape(-1, points(self.m), columns))

    def elements(self, shape: tuple[int, ...]) -> int:
        return self.taps.elements(shape) // TAPS * points(self.m)


@dataclass(frozen=True)
class WinogradPanels(Winograd):
    """[group][panel][point][input channel][column]. `together`: as `PanelsOfGroups` has it."""

    together: int = 1
    dtype: ClassVar[str] = "f32"

    @property
    def taps(self) -> Arrangement:
        return PanelsOfGroups(self.groups, self.width, self.together)

    def columns(self, shape: tuple[int, ...]) -> int:
        return shape[1] * self.together * self.width


@dataclass(frozen=True)
class WinogradPairPanels(Winograd):
    """Of integers: [group][panel][point][pair of input channels][column][2]."""

    dtype: ClassVar[str] = "i16"

    @property
    def taps(self) -> Arrangement:
        return FilterPairs(self.groups, self.width, TAPS)

    def columns(self, shape: tuple[int, ...]) -> int:
        return -(-shape[1] // 2) * self.width * 2


@dataclass(frozen=True)
class WinogradBf16Panels(WinogradPairPanels):
    """The same of floats, transformed as such, for products of bfloat16."""

    dtype: ClassVar[str] = "f32"

    @property
    def taps(self) -> Arrangement:
        return PairPanels(self.groups, self.width, TAPS)


LARGEST_SUM = 9 * 255 * 255
"""What a channel adds to a result of a 3x3 window, at most."""


def most_parts(depth: int, m: int) -> int:
    """Parts that `WinogradParts` may make of so many channels: each has as many pairs as are
    certain to be exact."""
    certain = (exact_below(m) - 1) // (2 * LARGEST_SUM)
    return -(-depth // (2 * certain))


@dataclass(frozen=True)
class WinogradParts(Packing):
    """Into which parts a group's channels are split so that Winograd's sums over each are exact:
    how many there are, where the first begins, and where each ends, in pairs of channels.

    `largest`: of |x - zero point|. For each output the products of a part are less than
    `exact_below(m)`, whatever x is.
    """

    m: int
    largest: int

    def pack(self, array: Array, out: Array) -> None:
        sums = np.abs(array.astype(np.float64)).sum((2, 3)) * self.largest
        pairs = np.pad(sums, ((0, 0), (0, sums.shape[1] % 2))).reshape(len(sums), -1, 2).sum(2)
        ends = [0]
        while ends[-1] < pairs.shape[1]:
            along = np.cumsum(pairs[:, ends[-1] :], axis=1).max(axis=0)
            ends.append(ends[-1] + int(np.searchsorted(along, exact_below(self.m))))
        out[0], out[1 : 1 + len(ends)] = len(ends) - 1, ends

    def elements(self, shape: tuple[int, ...]) -> int:
        return 2 + most_parts(shape[1], self.m)


@dataclass(frozen=True)
class Channels(Arrangement):
    """One number a channel, padded like the columns of panels: [group][panel * width]."""

    groups: int
    width: int

    def arrange(self, array: Array, out: Array) -> None:
        rows = array.reshape(self.groups, -1)
        out.reshape(self.groups, -1)[:, : rows.shape[1]] = rows

    def elements(self, shape: tuple[int, ...]) -> int:
        channels = int(np.prod(shape, dtype=np.int64)) // self.groups
        return self.groups * -(-channels // self.width) * self.width


@dataclass(frozen=True)
class Taps(Arrangement):
    """Filters of small groups, (C, group, KH, KW) -> [tap][input of the group][channel]."""

    def arrange(self, array: Array, out: Array) -> None:
        channels, group = array.shape[:2]
        steps = array.reshape(channels, group, -1)
        out.reshape(-1, group, channels)[:] = steps.transpose(2, 1, 0)

    def elements(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True)
class TapPairs(Arrangement):
    """The same as pairs of numbers that are multiplied together: (C, group, KH, KW) ->
    [tap][pair of inputs][channel][2]. For groups of one, [line of taps][pair][channel][2]: each
    weight and the one below it, then the line's first two, its third and fourth, and so on; 0 for
    those that are not there."""

    def arrange(self, array: Array, out: Array) -> None:
        channels, group, height, width = array.shape
        if group > 1:
            steps = array.reshape(channels, group // 2, 2, -1)
            out.reshape(-1, group // 2, channels, 2)[:] = steps.transpose(3, 1, 0, 2)
            return
        lines, pairs = array[:, 0].transpose(1, 2, 0), out.reshape(height, -1, channels, 2)
        pairs[:, :width, :, 0], pairs[:-1, :width, :, 1] = lines, lines[1:]
        beside = pairs[:, width:]
        beside[..., 0], beside[:, : width // 2, :, 1] = lines[:, ::2], lines[:, 1::2]

    def elements(self, shape: tuple[int, ...]) -> int:
        channels, group, height, width = shape
        if group > 1:
            return int(np.prod(shape, dtype=np.int64))
        return 2 * channels * height * (width + -(-width // 2))


@dataclass(frozen=True)
class Indices(Packing):
    """Places along an axis of `size`, counted from its start."""

    size: int

    def pack(self, array: Array, out: Array) -> None:
        """Raises InputError where an index is outside the axis."""
        flat = array.reshape(-1)
        outside = (flat < -self.size) | (flat >= self.size)
        if outside.any():
            raise InputError(
                f"index {int(flat[outside][0])} is outside {-self.size}..{self.size - 1}"
            )
        out[:] = np.where(flat < 0, flat + self.size, flat)

    def elements(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


def each_panel(groups: int, columns: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Group, panel, and first and last (exclusive) column of every panel, in order."""
    for group in range(groups):
        for panel, first in enumerate(range(0, columns, width)):
            yield group, panel, first, min(first + width, columns)


@dataclass(frozen=True)
class Packed:
    """One packed parameter: its recipe, its packing and its dtype. Equal ones are packed once.

    `recipe` None stands for zeros (the bias of a layer that has none), `shape` is the parameter's.
    """

    recipe: Recipe | None
    packing: Packing
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many numbers the packed array has."""
        return self.packing.elements(self.shape)

    @property
    def bytes(self) -> int:
        """The memory that the packed array takes."""
        return self.elements * dtype(self.dtype).bytes

    def pack(self, value: Array, out: Array) -> None:
        """Write the packed array to `out`, flat, zero and as it is stored; `value` is the recipe's,
        in float64."""
        row, array = dtype(self.dtype), np.asarray(value).reshape(self.shape)
        if not row.is_bits:
            self.packing.pack(array, out)
            return
        numbers = np.zeros(out.shape, np.float32)  # which NumPy can compute with
        self.packing.pack(array, numbers)
        out[:] = row.encode(numbers)
