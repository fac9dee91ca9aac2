"""Cases of resizing, of samples between pixels and of windows put together, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from graph_builder import sizes

from lucid.ir import BATCH, Value, f32, ops
from lucid.ir.ops.windows import extent

from .attributes import drawn
from .errors import LARGEST, TINY, Known, U, of_sum, rule, size_of, summed, terms
from .maker import Maker, drawn_window, makes
from .values import Array

# -- cases -----------------------------------------------------------------------------------------


@makes("resize")
def _resize(make: Maker) -> Value:
    draw = make.draw
    x = make.image(draw.channels(100))
    size = (draw.pick([1, 2, 5, 9, 14, 20]), draw.pick([1, 3, 6, 8, 17]))
    scales = (draw.pick([0.4, 1.05, 2.0, 2.3]), draw.pick([0.97, 1.0, 1.5]))
    scale = scales if draw.chance(0.3) else None
    mode = draw.pick(["nearest", "bilinear", "bicubic"])
    roi = draw.pick([None, (0.2, -0.3, 0.7, 1.4)])
    fields = {
        "size": size,
        "scale": scale,
        "mode": mode,
        "roi": roi,
        "cubic": draw.pick([-0.75, -0.5]),
    }
    for name in ("antialias", "exclude_outside"):
        fields[name] = mode != "nearest" and draw.chance(0.5)
    op = drawn(draw, ops.Resize, **fields)
    if op.weighted and x.type.dtype != "f32":
        x = make.apply(ops.Cast("f32"), x)
    return make.followed(make.apply(op, x))


@makes("grid_sample")
def _grid_sample(make: Maker) -> Value:
    draw = make.draw
    channels = draw.channels(100)
    size = draw.image(channels, make.batch)
    out = draw.pick([(2, 3), (1, 9), (7, 17), (5, 33)])
    mode = draw.pick(["bilinear", "bilinear", "nearest", "bicubic"])
    if mode != "bicubic" and draw.chance(0.2):
        size, out = (draw.integer(1, 4), *(min(d, 9) for d in size)), (draw.integer(1, 3), *out)
    x = make.array(channels, *size)
    grid = make.array(*out, len(size), kind=draw.pick(["normal", "normal", "integers", "wide"]))
    op = ops.GridSample(mode, draw.pick(["zeros", "border", "reflection"]), draw.chance(0.5))
    return make.followed(make.apply(op, x, grid))


@makes("deform_columns")
def _deform_columns(make: Maker) -> Value:
    draw = make.draw
    groups, parts = draw.pick([(1, 1), (1, 1), (1, 2), (2, 1), (2, 4), (3, 2)])
    channels = groups * parts * draw.pick([1, 2, 4, 9, 16])
    x = make.image(channels)
    window = drawn_window(make, x, [1, 2, 3, 3], [1, 1, 2])
    (rows,), (columns,) = (
        [extent(d, window["kernel"][a], window["stride"][a], pads, window["dilation"][a])]
        for a, d in enumerate(sizes(x)[2:])
        for pads in [(window["padding"][a], window["padding"][2 + a])]
    )
    taps = prod(window["kernel"])
    offset = make.array(2 * taps * parts, rows, columns, kind=draw.pick(["normal", "offset"]))
    mask = [make.array(taps * parts, rows, columns, kind="normal")] if draw.chance(0.5) else []
    y = make.apply(ops.DeformColumns(groups=groups, **window), x, offset, *mask)
    if draw.chance(0.5):
        y = make.build.conv(y, groups * draw.pick([1, 5, 16]), groups=groups)
    return make.followed(y)


@makes("roi_align")
def _roi_align(make: Maker) -> Value:
    """Boxes in and about the maps, some of no map; they are known, or follow from the batch."""
    draw = make.draw
    x = make.image(draw.channels(100))
    count, reach = draw.integer(1, 5), 2 * max(sizes(x)[2:])
    low = draw.arrays.uniform(-3, reach, (count, 2))
    high = low + draw.arrays.uniform(-1, reach, (count, 2))
    images = draw.arrays.integers(-1, make.batch + 1, (count, 1))
    table = np.concatenate([images, low, high], 1).round(draw.pick([0, 1, 3])).tolist()
    boxes = make.apply(ops.Constant(tuple(map(tuple, table))))
    op = ops.RoiAlign(
        (draw.integer(1, 7), draw.integer(1, 4)),
        draw.pick([1.0, 0.5, 0.25, 0.3]),
        draw.pick([0, 0, 1, 2, 3]),
        draw.chance(0.5),
        draw.pick(["avg", "avg", "max"]),
    )
    return make.apply(op, x, boxes)


@makes("fold")
def _fold(make: Maker) -> Value:
    draw = make.draw
    size = (draw.pick([1, 3, 7, 12]), draw.pick([1, 5, 9, 20]))
    image = make.build.graph.add_input(f32(BATCH, 1, *size))  # of which only the size is asked
    window = drawn_window(make, image, [1, 2, 3], [1, 1, 2])
    make.inputs.append(np.zeros((make.batch, 1, *size), np.float32))
    op = ops.Fold(size, **window)
    channels = draw.pick([1, 3, 8]) * prod(window["kernel"])
    return make.followed(make.apply(op, make.array(channels, prod(op.windows()))))


@makes("max_unpool2d")
def _max_unpool(make: Maker) -> Value:
    """By the places of maxima, which no two windows share."""
    draw = make.draw
    x = make.image(least=2)
    whole = draw.chance(0.3)
    indices = make.apply(ops.MaxPoolIndices((2, 2), (2, 2), (0,) * 4, (1, 1), whole=whole), x)
    y = make.apply(ops.MaxPool2d((2, 2), (2, 2)), x)
    size = sizes(x)[2:]
    return make.followed(make.apply(ops.MaxUnpool2d((size[0], size[1]), whole), y, indices))


# -- errors ----------------------------------------------------------------------------------------


@rule(ops.Resize)
def _resize_error(op: ops.Resize, x: Sequence[Known]) -> tuple[Array, Array]:
    value = op.evaluate(x[0].value)
    if x[0].value.dtype.kind != "f":  # integers are blended to the bit
        return value, np.zeros(value.shape)
    if op.weighted:
        return _weighed(op, x[0], value)
    if op.mode == "nearest":
        return value, op.evaluate(x[0].error)
    sizes = size_of(x[0].value) + x[0].error
    for axis in (0, 1):
        left, right, _ = op.linear_index(axis, sizes.shape[2 + axis])
        sizes = np.take(sizes, left, 2 + axis) + np.take(sizes, right, 2 + axis)
    return of_sum(value, sizes, op.evaluate(x[0].error) + 8 * U * sizes + 4 * TINY)


def _weighed(op: ops.Resize, x: Known, value: Array) -> tuple[Array, Array]:
    """Two sums, one after the other, by weights that are rounded; where the first one overflows,
    the second may be anything."""
    matrices, count = [], 0
    for axis in (0, 1):
        places, weights = op.taps(axis, x.value.shape[2 + axis])
        matrix = np.zeros((len(places), x.value.shape[2 + axis]))
        np.add.at(matrix, (np.arange(len(places))[:, None], places), np.abs(weights))
        matrices.append(matrix)
        count += places.shape[1]

    def along(axis: int, a: Array, matrix: Array) -> Array:
        return np.einsum(("nchw,oh->ncow", "nchw,ow->ncho")[axis], a, matrix)

    def both(a: Array) -> Array:
        return along(1, along(0, a, matrices[0]), matrices[1])

    sizes, lost = both(size_of(x.value)), np.zeros(value.shape, bool)
    for first, second in ((0, 1), (1, 0)):
        large = along(first, size_of(x.value), matrices[first]) > LARGEST / 4
        met = (matrices[second] > 0).astype(np.float64)
        lost |= along(second, large.astype(np.float64), met) > 0
    error = both(x.error) + terms(count + 2) * U * sizes + count * TINY
    return of_sum(value, sizes, np.where(lost, np.inf, error))


@rule(ops.GridSample)
def _grid_sample_error(op: ops.GridSample, x: Sequence[Known]) -> tuple[Array, Array]:
    """Coordinates are rounded, a sample moves with them: by no more, per pixel, than its image has
    between its least and its largest number, twice that for a cubic. The nearest pixel may be the
    other one where both are about as near."""
    data, grid = x
    value = op.evaluate(data.value, grid.value)
    off = _coordinates_off(grid, data.value.shape[2:])
    passed = GRID_ERRORS[op.mode] * _largest(data.error, value)
    if op.mode == "nearest":
        return value, np.where(
            _between_pixels(op, grid.value, off, data.value.shape[2:]), np.inf, passed
        )
    return _sampled(data, value, off.sum(-1)[:, None] * GRID_ERRORS[op.mode], passed, 16)


GRID_ERRORS = {"nearest": 1.0, "bilinear": 1.0, "bicubic": 4.0}
"""How much of the largest error of an image its samples may have, and how steep they are."""


def _coordinates_off(grid: Known, size: Sequence[int]) -> Array:
    """By how many pixels the coordinates of a grid may be off."""
    sizes = np.array(size[::-1])
    return (8 * U * (size_of(grid.value) + 2) + grid.error) * sizes


def _between_pixels(op: ops.GridSample, grid: Array, off: Array, size: Sequence[int]) -> Array:
    """Which samples lie so near the middle between two pixels that either may be taken."""
    doubtful = np.zeros(grid.shape[:-1], bool)
    for axis, count in enumerate(size[::-1]):
        place = op.source(grid[..., axis], count)
        fraction = np.abs(place - np.floor(place) - 0.5)
        doubtful |= ~(fraction > off[..., axis])
    return doubtful[:, None]


def _largest(x: Array, value: Array) -> Array:
    """The largest number of each plane, for every number of a result."""
    largest = np.max(x, tuple(range(2, x.ndim)), initial=0.0)
    return largest.reshape(*largest.shape, *(1,) * (value.ndim - 2))


def _sampled(
    data: Known, value: Array, steep: Array, passed: Array, count: int
) -> tuple[Array, Array]:
    """A sample of so many neighbours whose place is off by `steep` pixels; anything where its plane
    is not finite, since another neighbour may be read."""
    strange = _largest((~np.isfinite(data.value)).astype(np.float64), value) > 0
    sizes = 4 * _largest(size_of(data.value), value)
    error = passed + sizes * (np.minimum(steep, 1.0) + terms(count) * U) + count * TINY
    return of_sum(value, sizes, np.where(strange, np.inf, error))


@rule(ops.DeformColumns)
def _deform_columns_error(op: ops.DeformColumns, x: Sequence[Known]) -> tuple[Array, Array]:
    data, offset, *mask = x
    value = op.evaluate(*(k.value for k in x))
    channels = data.value.shape[1]
    parts = offset.value.shape[1] // (2 * prod(op.kernel))
    reach = sum(data.value.shape[2:]) + sum(op.padding)
    off = 8 * U * (size_of(offset.value) + reach) + offset.error
    taps = prod(op.kernel)
    own = off.reshape(len(off), parts, taps, 2, *off.shape[2:]).sum(3)
    factor = np.abs(mask[0].value) if mask else np.ones((1, 1, 1, 1))
    spread = _by_channel(op, own.reshape(len(off), parts * taps, *off.shape[2:]), channels)
    factors = _by_channel(
        op, np.broadcast_to(factor, (len(off), parts * taps, *off.shape[2:])), channels
    )
    largest = max(size_of(data.value).max(initial=0.0), 0.0) * 4
    error = factors * (largest * (np.minimum(spread, 1.0) + 12 * U) + data.error.max(initial=0.0))
    if mask:
        error = error + largest * _by_channel(op, mask[0].error, channels)
    strange = not all(np.isfinite(k.value).all() for k in (data, *mask))
    return of_sum(value, largest * factors, np.where(strange, np.inf, error + 4 * TINY))


def _by_channel(op: ops.DeformColumns, taps: Array, channels: int) -> Array:
    """What stands for each tap of each part, (N, G K, OH, OW), for every column."""
    n, count, *out = taps.shape
    each = prod(op.kernel)
    parts = count // each
    own = taps.reshape(n, parts, each, *out).repeat(channels // parts, axis=1)
    grouped = own.reshape(n, op.groups, channels // op.groups, each, *out).swapaxes(2, 3)
    return grouped.reshape(n, each * channels, *out)


@rule(ops.RoiAlign)
def _roi_align_error(op: ops.RoiAlign, x: Sequence[Known]) -> tuple[Array, Array]:
    """Samples move as their box is rounded. Anything may come of a box one sample of which is
    nearly as far as samples count, or whose bins have nearly a whole number of pixels."""
    data, boxes = x
    value = op.evaluate(data.value, boxes.value)
    height, width = data.value.shape[2:]
    reach = np.abs(boxes.value[:, 1:]).max(1, initial=0.0) * abs(op.scale) + height + width
    off = 32 * U * reach + boxes.error.max(1, initial=0.0) * abs(op.scale)
    doubtful = np.array(
        [_doubtful(op, b, o, (height, width)) for b, o in zip(boxes.value, off, strict=True)]
    )
    sizes = 4 * size_of(data.value).max(initial=0.0)
    error = sizes * (np.minimum(off, 1.0) + 200 * U) + data.error.max(initial=0.0) + TINY
    lost = doubtful.astype(bool) | (not np.isfinite(data.value).all())
    spread = np.where(lost, np.inf, error).reshape(-1, 1, 1, 1)
    return of_sum(value, np.full(value.shape, sizes), np.broadcast_to(spread, value.shape))


def _doubtful(op: ops.RoiAlign, box: Array, off: float, size: Sequence[int]) -> bool:
    """Whether rounding may give a box other samples."""
    for axis in (0, 1):
        first, last = box[2 - axis], box[4 - axis]
        bins, count = op.size[axis], op.samples
        half = 0.5 if op.half_pixel else 0.0
        start, length = first * op.scale - half, (last - first) * op.scale
        each = (length if op.half_pixel else max(length, 1.0)) / bins
        if not count:
            if abs(each - round(each)) <= off:
                return True
            count = int(max(0, min(np.ceil(each), 4096)))
        steps = np.arange(bins)[:, None] + (np.arange(count) + 0.5) / max(1, count)
        source = start + steps * each
        if (np.minimum(np.abs(source + 1), np.abs(source - size[axis])) <= off).any():
            return True
    return False


@rule(ops.Fold)
def _fold_error(op: ops.Fold, x: Sequence[Known]) -> tuple[Array, Array]:
    return summed(op, x[0], prod(op.kernel))


@rule(ops.MaxUnpool2d)
def _max_unpool_error(op: ops.MaxUnpool2d, x: Sequence[Known]) -> tuple[Array, Array]:
    lost = np.inf if x[1].error.any() else 0.0
    value = op.evaluate(x[0].value, x[1].value)
    return value, op.evaluate(x[0].error, x[1].value) + lost
