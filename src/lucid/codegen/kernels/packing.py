"""Packing: how parameters are laid out for the kernels, as weight panels, Winograd points or
vectors.

A packing is a value; together with a parameter's recipe it names one packed array, which all plans
of a model share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lucid.codegen.kernels.winograd_transforms import transform_filter
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
class Flat(Packing):
    """As it is, row-major."""

    def pack(self, array: Array, out: Array) -> None:
        out[:] = array.reshape(-1)

    def elements(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True)
class Panels(Packing):
    """A convolution's or linear layer's weights as a product's right operand.

    (O, I, KH, KW) or (O, I) -> [group][panel][tap, input channel][column], columns padded with
    zeros to whole panels of `width`.
    """

    groups: int
    width: int

    def pack(self, array: Array, out: Array) -> None:
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
class PairPanels(Packing):
    """`Panels` of integers, two steps of k side by side in each column: [group][panel][segment]
    [pair][column][2].

    `segments`: how many runs of taps a row is made of, each of which begins with a new pair, and is
    followed by a zero where its length is odd.
    """

    groups: int
    width: int
    segments: int = 1

    def pack(self, array: Array, out: Array) -> None:
        columns = array.shape[0] // self.groups
        by_tap = array.reshape(self.groups, columns, array.shape[1], -1).swapaxes(2, 3)
        steps = by_tap.reshape(self.groups, columns, self.segments, -1)
        pairs = -(-steps.shape[3] // 2)
        panels = out.reshape(self.groups, -1, self.segments, pairs, self.width, 2)
        for group, panel, first, last in each_panel(self.groups, columns, self.width):
            block = steps[group, first:last].transpose(1, 2, 0)
            for half in (0, 1):
                part = block[:, half::2]
                panels[group, panel, :, : part.shape[1], : last - first, half] = part

    def elements(self, shape: tuple[int, ...]) -> int:
        columns = shape[0] // self.groups
        depth = int(np.prod(shape[1:], dtype=np.int64)) // self.segments
        packed = self.groups * -(-columns // self.width) * self.width
        return packed * self.segments * -(-depth // 2) * 2


@dataclass(frozen=True)
class WinogradPanels(Packing):
    """3x3 filters, transformed: [group][panel][point][input channel][column]."""

    m: int
    groups: int
    width: int

    def pack(self, array: Array, out: Array) -> None:
        columns, inner = array.shape[0] // self.groups, array.shape[1]
        filters = array.reshape(self.groups, columns, inner, 3, 3)
        panels = out.reshape(self.groups, -1, (self.m + 2) ** 2, inner, self.width)
        for group, panel, first, last in each_panel(self.groups, columns, self.width):
            points = transform_filter(filters[group, first:last], self.m)
            panels[group, panel, ..., : last - first] = points.transpose(0, 2, 1)

    def elements(self, shape: tuple[int, ...]) -> int:
        columns = -(-(shape[0] // self.groups) // self.width) * self.width
        return (self.m + 2) ** 2 * self.groups * columns * shape[1]


@dataclass(frozen=True)
class Channels(Packing):
    """One number a channel, padded like the columns of panels: [group][panel * width]."""

    groups: int
    width: int

    def pack(self, array: Array, out: Array) -> None:
        rows = array.reshape(self.groups, -1)
        out.reshape(self.groups, -1)[:, : rows.shape[1]] = rows

    def elements(self, shape: tuple[int, ...]) -> int:
        channels = int(np.prod(shape, dtype=np.int64)) // self.groups
        return self.groups * -(-channels // self.width) * self.width


@dataclass(frozen=True)
class Taps(Packing):
    """Filters of small groups, (C, group, KH, KW) -> [tap][input of the group][channel]."""

    def pack(self, array: Array, out: Array) -> None:
        channels, group = array.shape[:2]
        steps = array.reshape(channels, group, -1)
        out.reshape(-1, group, channels)[:] = steps.transpose(2, 1, 0)

    def elements(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


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
