"""How parameters lie in memory for the kernels: panels of weights, Winograd's points, vectors.

A packing is a value; together with a parameter's recipe it names one packed array, which all plans
of a model share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucid.codegen.winograd import transform_filter
from lucid.ir.ops.base import Array
from lucid.ir.recipe import Recipe


@dataclass(frozen=True)
class Packing:
    """Base: `pack` takes the parameter in float64 and gives the array the kernels read."""

    def pack(self, array: Array) -> Array:
        raise NotImplementedError

    def floats(self, shape: tuple[int, ...]) -> int:
        """How many float32 numbers the packed array of a parameter of this shape has."""
        raise NotImplementedError


@dataclass(frozen=True)
class Flat(Packing):
    """As it is, row-major."""

    def pack(self, array: Array) -> Array:
        return np.ascontiguousarray(array, np.float32)

    def floats(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True)
class Panels(Packing):
    """A convolution's or linear layer's weights as a product's right operand.

    (O, I, KH, KW) or (O, I) -> [group][panel][tap, input channel][column], columns padded with
    zeros to whole panels of `width`. `planar`: [input channel, tap] instead.
    """

    groups: int
    width: int
    planar: bool = False

    def pack(self, array: Array) -> Array:
        steps = array.reshape(*array.shape[:2], -1)
        if not self.planar:
            steps = steps.transpose(0, 2, 1)
        rows = steps.reshape(self.groups, array.shape[0] // self.groups, -1)
        return np.ascontiguousarray(in_panels(rows, self.width), np.float32)

    def floats(self, shape: tuple[int, ...]) -> int:
        columns = shape[0] // self.groups
        depth = int(np.prod(shape[1:], dtype=np.int64))
        return self.groups * -(-columns // self.width) * self.width * depth


@dataclass(frozen=True)
class WinogradPanels(Packing):
    """3x3 filters, transformed: [group][panel][point][input channel][column]."""

    m: int
    groups: int
    width: int

    def pack(self, array: Array) -> Array:
        points = transform_filter(array, self.m).astype(np.float32)
        count, outputs, inputs = points.shape
        grouped = points.reshape(count * self.groups, outputs // self.groups, inputs)
        panels = in_panels(grouped, self.width)
        split = panels.reshape(count, self.groups, *panels.shape[1:])
        return np.ascontiguousarray(split.transpose(1, 2, 0, 3, 4))

    def floats(self, shape: tuple[int, ...]) -> int:
        columns = -(-(shape[0] // self.groups) // self.width) * self.width
        return (self.m + 2) ** 2 * self.groups * columns * shape[1]


@dataclass(frozen=True)
class Channels(Packing):
    """One float a channel, padded like the columns of panels: [group][panel * width]."""

    groups: int
    width: int

    def pack(self, array: Array) -> Array:
        rows = array.reshape(self.groups, -1)
        pad = -rows.shape[1] % self.width
        return np.pad(rows, ((0, 0), (0, pad))).astype(np.float32)

    def floats(self, shape: tuple[int, ...]) -> int:
        channels = int(np.prod(shape, dtype=np.int64)) // self.groups
        return self.groups * -(-channels // self.width) * self.width


@dataclass(frozen=True)
class Taps(Packing):
    """Depthwise filters, (C, 1, KH, KW) -> [tap][channel]."""

    def pack(self, array: Array) -> Array:
        return np.ascontiguousarray(array.reshape(array.shape[0], -1).T, np.float32)

    def floats(self, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64))


def in_panels(rows: Array, width: int) -> Array:
    """(G, O, K) -> (G, panels, K, width), zeros beyond the last row."""
    groups, outputs, depth = rows.shape
    panels = -(-outputs // width)
    if outputs % width:
        rows = np.pad(rows, ((0, 0), (0, panels * width - outputs), (0, 0)))
    return rows.reshape(groups, panels, width, depth).transpose(0, 1, 3, 2)


@dataclass(frozen=True)
class Packed:
    """One packed parameter: its recipe and its packing. Equal ones are packed once.

    `recipe` None stands for zeros (the bias of a layer that has none), `shape` is the parameter's.
    """

    recipe: Recipe | None
    packing: Packing
    shape: tuple[int, ...]

    @property
    def floats(self) -> int:
        return self.packing.floats(self.shape)

    def pack(self, value: Array) -> Array:
        """The packed array, flat, in float32; `value` is the recipe's value in float64."""
        return self.packing.pack(np.asarray(value).reshape(self.shape)).reshape(-1)
