"""Sampling at places that are computed: grids, deformed windows.

A sample is a sum over neighbours, axis by axis: `Neighbours` says which they are, how much each
counts, and whether it lies in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.windows import Padding, Pair, extent
from lucid.ir.types import TensorType

SAMPLING = ("bilinear", "nearest", "bicubic")
BORDERS = ("zeros", "border", "reflection")
CUBIC = -0.75
"""The coefficient of the cubic convolution."""
MARGIN = 4
"""How far beyond the border coordinates count: what lies further away has no neighbour inside."""

MOST_PIXELS = 1 << 24
"""Pixels of the longest axis that is sampled: beyond, not each of them has a float32."""


@dataclass(frozen=True)
class Neighbours:
    """One neighbour on one axis of each sample: its place (int64, within the source), its weight,
    and whether it is there; else it is 0."""

    place: Array
    weight: Array
    inside: Array


def require_exact(op: Op, x: TensorType, sizes: Sequence[int]) -> None:
    """Raise ShapeError where an axis has pixels that coordinates in float32 cannot tell apart."""
    op.require(
        max(sizes) <= MOST_PIXELS,
        f"coordinates are float32, which {MOST_PIXELS} pixels of an axis have at most, got {x}",
    )


def sampled(x: Array, axes: Sequence[Sequence[Neighbours]]) -> Array:
    """x (N, C, *size) at samples (N, *out), by their neighbours on each spatial axis:
    (N, C, *out)."""
    shape = axes[0][0].place.shape
    image = np.arange(len(x)).reshape(-1, *(1,) * (len(shape) - 1))
    y = np.zeros((*shape, x.shape[1]), x.dtype)
    for corner in product(*axes):
        index: Any = (image, slice(None), *(n.place for n in corner))
        read = x[index]
        weight = np.asarray(prod(n.weight for n in corner), x.dtype)
        inside = np.logical_and.reduce([n.inside for n in corner])
        with np.errstate(invalid="ignore"):
            y += np.where(inside[..., None], read, 0) * weight[..., None]
    return np.moveaxis(y, -1, 1)


def linear_neighbours(source: Array, size: int, everywhere: bool = False) -> list[Neighbours]:
    """The two whole places beside each coordinate. `everywhere`: it lies in the source, and what
    has the weight 0 counts, too."""
    source = _within(source, -MARGIN, size - 1 + MARGIN)
    left = np.floor(source)
    share = source - left
    if everywhere:
        right = np.minimum(left + 1, size - 1)
        return [_neighbour(left, 1 - share, size), _neighbour(right, share, size)]
    return [_neighbour(left, 1 - share, size), _neighbour(left + 1, share, size)]


def _neighbour(place: Array, weight: Array, size: int) -> Neighbours:
    inside = (place >= 0) & (place <= size - 1)
    return Neighbours(np.clip(place, 0, size - 1).astype(np.int64), weight, inside)


def _within(x: Array, low: float, high: float) -> Array:
    """Clipped to a range; NaN is its lower end."""
    return np.minimum(np.where(x > low, x, low), high)


@op("grid_sample")
class GridSample(Op):
    """y[n,c,i,j] = x[n,c] sampled at the row grid[n,i,j,1] and the column grid[n,i,j,0].

    x: (N, C, H, W), grid: (N, OH, OW, 2) -> (N, C, OH, OW); with three axes, x: (N, C, D, H, W),
    grid: (N, OD, OH, OW, 3), whose last axis is (column, row, depth), -> (N, C, OD, OH, OW).
    Coordinates of -1 and 1 are the outer edges of the first and last pixel, or their middles with
    `align_corners`.

    mode "bilinear" weighs the neighbours on each axis, "nearest" takes the nearest one (halves go
    to the even one), "bicubic" (of two axes) weighs four by the cubic of -0.75. `padding`: what
    lies beyond the border is 0 ("zeros"), the pixel at the border ("border"), or x mirrored at it
    ("reflection"). A coordinate that is NaN lies before the first pixel.
    torch.nn.functional.grid_sample, ONNX's GridSample.
    """

    images_apart = True

    mode: str = "bilinear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self, x: TensorType, grid: TensorType) -> TensorType:
        self.require_float(x=x, grid=grid)
        for name, value, known in (
            ("mode", self.mode, SAMPLING),
            ("padding", self.padding, BORDERS),
        ):
            self.require(value in known, f"{name} is one of {', '.join(known)}, got {value!r}")
        self.require(x.rank in (4, 5), f"x must be (N, C, H, W) or (N, C, D, H, W), got {x}")
        self.require(x.rank == 4 or self.mode != "bicubic", f"bicubic is for images, got {x}")
        sizes = self.integers(*x.shape[2:])
        self.require(min(sizes) > 0, f"there is nothing to sample in {x}")
        require_exact(self, x, sizes)
        fits = grid.rank == x.rank and grid.shape[0] == x.shape[0] and grid.shape[-1] == x.rank - 2
        self.require(fits, f"the grid for {x} is (N, ..., {x.rank - 2}), got {grid}")
        return x.with_shape((*x.shape[:2], *grid.shape[1:-1]))

    def evaluate(self, x: Array, grid: Array) -> Array:
        sizes = x.shape[2:]
        with np.errstate(invalid="ignore", over="ignore"):
            axes = [self.neighbours(grid[..., -1 - a], d) for a, d in enumerate(sizes)]
        return sampled(x, axes)

    def neighbours(self, coordinate: Array, size: int) -> list[Neighbours]:
        """The neighbours on an axis of so many pixels."""
        source = self.source(coordinate, size)
        if self.mode == "bicubic":
            return self._cubic(source, size)
        source = self._moved_inside(source, size)
        if self.mode == "bilinear":
            return linear_neighbours(source, size, self.padding != "zeros")
        place = np.rint(_within(source, -MARGIN, size - 1 + MARGIN))
        return [_neighbour(place, np.ones_like(source), size)]

    def source(self, coordinate: Array, size: int) -> Array:
        """Where a coordinate lies among the pixels of an axis."""
        if self.align_corners:
            return (coordinate + 1) * ((size - 1) / 2)
        return ((coordinate + 1) * size - 1) / 2

    def _cubic(self, source: Array, size: int) -> list[Neighbours]:
        source = self._near(source, size)
        left = np.floor(source)
        t = source - left
        found = []
        for i, weight in enumerate((_far(t + 1), _close(t), _close(1 - t), _far(2 - t))):
            found.append(_neighbour(self._moved_inside(left + (i - 1), size), weight, size))
        return found

    def _near(self, source: Array, size: int) -> Array:
        """Coordinates whose neighbours are to be moved inside, no further away than matters."""
        if self.padding == "reflection":
            return np.where(np.isfinite(source), source, -MARGIN)
        return _within(source, -MARGIN, size - 1 + MARGIN)

    def _moved_inside(self, source: Array, size: int) -> Array:
        """What lies beyond the border where the padding says that it is."""
        if self.padding == "zeros":
            return source
        if self.padding == "reflection":
            source = self._mirrored(source, size)
        return _within(source, 0, size - 1)

    def _mirrored(self, source: Array, size: int) -> Array:
        low = 0.0 if self.align_corners else -0.5
        span = size - 1 - 2 * low
        if span == 0:
            return np.zeros_like(source)
        distance = np.abs(source - low)
        turns = np.floor(distance / span)
        rest = distance - turns * span
        return np.where(turns % 2 == 0, rest, span - rest) + low


def _close(x: Array) -> Array:
    """The cubic's weight of what lies x away, at most 1."""
    return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1


def _far(x: Array) -> Array:
    """The same from 1 to 2."""
    return ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC


@op("deform_columns")
class DeformColumns(Op):
    """The columns of a deformable convolution: x sampled at each tap of each window, moved by an
    offset. A 1x1 convolution of them is the whole.

    x: (N, C, H, W), offset: (N, G 2 K, OH, OW), K = KH KW taps, the rows' and the columns' offset
    of each, for G groups of channels; mask: (N, G K, OH, OW), what samples are multiplied by
    -> (N, K C, OH, OW). Channels of the result are ordered by group of the convolution (`groups`),
    tap, and channel within the group. Samples are bilinear, and x is 0 beyond its border.
    Padding is (top, left, bottom, right). (Dai et al., "Deformable Convolutional Networks", 2017;
    the mask is of Zhu et al., "Deformable ConvNets v2", 2019.)
    """

    images_apart = True

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def infer(
        self, x: TensorType, offset: TensorType, mask: TensorType | None = None
    ) -> TensorType:
        self.require_float(x=x, offset=offset, mask=mask)
        self.require(x.rank == offset.rank == 4, f"x must be (N, C, H, W), got {x} and {offset}")
        self.require(
            min(*self.kernel, *self.stride, *self.dilation, self.groups) > 0,
            "kernel, stride, dilation and groups must be positive",
        )
        channels, height, width = self.integers(*x.shape[1:])
        count, *out = self.integers(*offset.shape[1:])
        taps = prod(self.kernel)
        parts = count // (2 * taps)
        whole = parts > 0 and count == 2 * taps * parts and channels % parts == 0
        self.require(whole, f"{offset} is no offset of {taps} taps for {channels} channels")
        self.require(channels % self.groups == 0, f"{self.groups} groups of {channels} channels")
        top, left, bottom, right = self.padding
        wanted = [
            extent(size, self.kernel[a], self.stride[a], pads, self.dilation[a])
            for a, (size, pads) in enumerate(((height, (top, bottom)), (width, (left, right))))
        ]
        self.require(out == wanted, f"{offset} is for windows of {x}, of which there are {wanted}")
        self.require(min(out) > 0 and min(height, width) > 0, f"no window lies in {x}")
        require_exact(self, x, (height, width))
        self.require(offset.shape[0] == x.shape[0], f"{x} and {offset} are of different batches")
        shape = (offset.shape[0], taps * parts, *out)
        fits = mask is None or mask.shape == shape
        self.require(fits, f"the mask for {offset} is {shape}, got {mask}")
        return x.with_shape((x.shape[0], taps * channels, *out))

    def evaluate(self, x: Array, offset: Array, mask: Array | None = None) -> Array:
        n, channels, height, width = x.shape
        taps, out = prod(self.kernel), offset.shape[2:]
        parts = offset.shape[1] // (2 * taps)
        moved = offset.reshape(n, parts, taps, 2, *out)
        y = np.empty((n, channels, taps, *out), x.dtype)
        inner = channels // parts
        for part in range(parts):
            of_part = slice(part * inner, (part + 1) * inner)
            for tap in range(taps):
                axes = [
                    linear_neighbours(self.places(a, tap, out[a]) + moved[:, part, tap, a], size)
                    for a, size in enumerate((height, width))
                ]
                y[:, of_part, tap] = sampled(x[:, of_part], axes)
        if mask is not None:
            factors = mask.reshape(n, parts, taps, *out)
            y = y * np.repeat(factors, inner, axis=1)
        grouped = y.reshape(n, self.groups, channels // self.groups, taps, *out)
        return grouped.swapaxes(2, 3).reshape(n, taps * channels, *out)

    def places(self, axis: int, tap: int, count: int) -> Array:
        """Where a tap of each window lies on an axis, before it is moved: (OH, 1) or (OW,)."""
        step = divmod(tap, self.kernel[1])[axis] * self.dilation[axis]
        first = step - self.padding[axis]
        place = np.arange(count, dtype=np.float64) * self.stride[axis] + first
        return place.reshape((-1, 1) if axis == 0 else (-1,))

    def run(self, channels: int, parts: int) -> int:
        """How many channels share offsets and lie side by side in the result."""
        return gcd(channels // self.groups, channels // parts)


@op("roi_align")
class RoiAlign(Op):
    """Parts of images, resized: y[k,c,i,j] is the mean over samples of bin (i, j) of box k.

    x: (N, C, H, W), boxes: (K, 5), each the number of its image and (left, top, right, bottom)
    -> (K, C, *size). Boxes are multiplied by `scale`; with `half_pixel`, 0.5 is subtracted, else
    they are at least 1 pixel high and wide. Each bin has `samples` by `samples` of them, evenly
    spaced (0: as many as it has pixels, rounded up, on each axis; at most MOST_SAMPLES). They are
    bilinear; x beyond its border is the border up to 1 pixel away, then 0. With mode "max" y is the
    largest of all samples' four neighbours times their weights. A box of no image of x gives 0.
    torchvision.ops.roi_align, ONNX's RoiAlign. (He et al., "Mask R-CNN", 2017.)
    """

    size: Pair
    scale: float = 1.0
    samples: int = 0
    half_pixel: bool = False
    mode: str = "avg"

    def infer(self, x: TensorType, boxes: TensorType) -> TensorType:
        self.require_float(x=x, boxes=boxes)
        self.require(self.mode in ("avg", "max"), f'mode is "avg" or "max", got {self.mode!r}')
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        channels, height, width = self.integers(*x.shape[1:])
        self.require(min(height, width) > 0, f"there is nothing to align in {x}")
        require_exact(self, x, (height, width))
        fits = boxes.rank == 2 and boxes.shape[1] == 5
        self.require(fits, f"boxes are (K, 5), got {boxes}")
        self.require(min(self.size) > 0, f"size must be positive, got {self.size}")
        return x.with_shape((boxes.shape[0], channels, *self.size))

    def evaluate(self, x: Array, boxes: Array) -> Array:
        y = np.zeros((len(boxes), x.shape[1], *self.size), x.dtype)
        for box, out in zip(boxes, y, strict=True):
            if -1 < box[0] < len(x):
                out[...] = self._aligned(x[int(box[0])], box[1:])
        return y

    def _aligned(self, image: Array, box: Array) -> Array:
        """(C, H, W) -> (C, *size)."""
        with np.errstate(invalid="ignore", over="ignore"):
            rows, columns = (
                self.neighbours(box[1 - a], box[3 - a], self.size[a], image.shape[1 + a])
                for a in (0, 1)
            )
            if not rows[0].place.size or not columns[0].place.size:
                return np.zeros((len(image), *self.size), image.dtype)
            if self.mode == "max":
                return self._largest(image, rows, columns)
            return _means(_means(image, rows, 1), columns, 2)

    def _largest(
        self, image: Array, rows: Sequence[Neighbours], columns: Sequence[Neighbours]
    ) -> Array:
        found = np.full((len(image), *self.size), -np.inf, image.dtype)
        for r, c in product(rows, columns):
            read = image[:, r.place[:, None, :, None], c.place[None, :, None, :]]
            weight = (r.weight * r.inside)[:, None, :, None] * (c.weight * c.inside)[:, None]
            found = np.maximum(found, (read * weight.astype(image.dtype)).max((3, 4)))
        return found

    def neighbours(self, first: float, last: float, bins: int, size: int) -> list[Neighbours]:
        """The two neighbours of each sample along an axis of `size`, (bins, samples)."""
        half = 0.5 if self.half_pixel else 0.0
        start, end = first * self.scale - half, last * self.scale - half
        length = end - start
        if not self.half_pixel:
            length = length if length > 1 else 1.0
        each = length / bins
        count = self.samples or (int(min(np.ceil(each), MOST_SAMPLES)) if each > 0 else 0)
        steps = np.arange(bins)[:, None] + (np.arange(count) + 0.5) / max(1, count)
        source = start + steps * each
        near = (source >= -1) & (source <= size)
        source = _within(source, 0, size - 1)
        left = np.floor(source)
        right, share = np.minimum(left + 1, size - 1), source - left
        return [
            Neighbours(place.astype(np.int64), weight, near)
            for place, weight in ((left, 1 - share), (right, share))
        ]


MOST_SAMPLES = 4096
"""Samples on one axis of a bin: as many as pixels of a bin that is as large as any image."""


def _means(x: Array, neighbours: Sequence[Neighbours], axis: int) -> Array:
    """The mean over the samples of each bin, along an axis of (C, H, W)."""
    bins, count = neighbours[0].place.shape
    shape = (*x.shape[:axis], bins, *x.shape[axis + 1 :])
    y = np.zeros(shape, x.dtype)
    column = (-1, *(1,) * (2 - axis))
    for n in neighbours:
        for sample in range(count):
            read = np.take(x, n.place[:, sample], axis)
            inside = n.inside[:, sample].reshape(column)
            weight = (n.weight[:, sample] / count).astype(x.dtype).reshape(column)
            y += np.where(inside, read * weight, 0)
    return y
