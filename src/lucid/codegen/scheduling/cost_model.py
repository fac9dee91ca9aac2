"""What a layer takes by each kernel, a cost model over `Target` alone; and into what blocks it is
cut."""

from __future__ import annotations

import dataclasses
import math

from lucid.codegen.costs import Transforms
from lucid.codegen.kernels.accumulation import SHORT
from lucid.codegen.kernels.matrix_tile import PARTS
from lucid.codegen.kernels.microkernels import tile_target
from lucid.codegen.kernels.strassen import factor_vectors
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.scheduling.conv_shape import PAIRED, ConvShape
from lucid.codegen.scheduling.kernel_names import (
    BF16_SUFFIX,
    PARTS_SUFFIX,
    algorithm_of,
    winograd_m,
)
from lucid.codegen.target import Target

LEAST_TILES = 12
"""Tiles below which a block's products are too few for the weights it reads."""
STREAMED = 4
"""Weights so many times as large as L2 are read anew for every block, and larger blocks are worth
more than that theirs fit: 2048 to 512 channels at 65x65, with L2 of 2 MB, take 141 ms in blocks of
12 tiles, 94 of 25, 66 of 49 and 59 of 145, which need 50 MB of scratch a thread."""
FEW_TASKS = 4
"""Tasks a layer should have where its weights are small enough to be read once more for each."""


GROUP_SHARE = {"depthwise": 0.38, "direct": 0.34}
"""Shares of the peak that groups reach which fill a vector of AVX2: 256 channels in groups of 8 at
28x28 take 0.77 ms as vectors, each of which is broadcast lane by lane, and 0.87 over windows, by
tiles of one vector; with stride 2 0.63 and 0.80."""
LARGE_MAP, LARGE_SHARE = 8 << 20, 0.3
"""Bytes of a map from which on vectors of such groups with a stride wait for memory, and a share
that is less than windows': with stride 2, 256 channels at 112x112 take 7.1 ms as vectors and 5.6
over windows, 384 9.7 and 6.6; but 128 take 1.8 and 1.7, 512 at 56x56 2.8 and 3.2, 256 1.0 and
1.1."""


PAIRS_RATE = 1.5
"""Multiply-adds of pairs of integers in the time of one of floats: register tiles of 6 by 16 with
operands in cache do 74 thousand million a second, and 48 of floats (AVX2, Zen 3)."""


INTEGER_TRANSFORMS = {4: Transforms(72, 165), 2: Transforms(35, 35)}
"""Those of integers, twice as many of which are a vector of input channels: 64 to 64 channels at
56x56 take 0.65 ms by F(4x4), 0.11 of it for transforms."""


def cycles(shape: ConvShape, kernel: str, target: Target) -> float:
    """Modelled time on one core, in cycles: products at peak, transforms, weights from memory."""
    costs = target.costs
    if kernel.endswith(BF16_SUFFIX):
        halved = dataclasses.replace(shape, itemsize=BF16_BYTES)
        return _cycles(halved, algorithm_of(kernel), target, costs.bf16) + _rounding(shape, target)
    if kernel.endswith(PARTS_SUFFIX):
        parted = dataclasses.replace(shape, itemsize=PARTS * BF16_BYTES)
        faster = costs.parts or 1.0
        return _cycles(parted, algorithm_of(kernel), target, faster) + PARTS * _rounding(
            shape, target
        )
    return _cycles(shape, kernel, target, PAIRS_RATE if shape.integer else 1.0)


def _cycles(shape: ConvShape, kernel: str, target: Target, faster: float) -> float:
    """Those of a kernel that does so many multiply-adds in the time of one of floats."""
    costs = target.costs
    rate = costs.multiply_adds * target.vector * faster  # multiply-adds a cycle
    filled = shape.group_columns == shape.depth == target.vector == PAIRED and shape.op.groups > 1
    if filled and kernel in GROUP_SHARE and not shape.integer:
        large = shape.op.stride != (1, 1) and shape.map_bytes > LARGE_MAP
        waits = kernel == "depthwise" and large
        return shape.products / ((LARGE_SHARE if waits else GROUP_SHARE[kernel]) * rate)
    if kernel == "depthwise":
        return shape.products / (costs.products * rate)
    shape = shape.together(target) if kernel.startswith("winograd") else shape
    if kernel == "strassen":
        return _strassen_cycles(shape, target)
    if not kernel.startswith("winograd"):
        return _products_cycles(shape, kernel, target, rate)
    inputs, outputs = (-(-n // target.vector) for n in (shape.depth, shape.group_columns))
    m = winograd_m(kernel)
    points = (m + 2) ** 2
    tiles, lanes = shape.batch * shape.tiles(m), _lanes(shape, target)
    products = tiles * points * shape.columns * shape.depth * lanes / (costs.winograd * rate)
    each = INTEGER_TRANSFORMS[m] if shape.integer else costs.transforms(m)
    transforms = tiles * shape.op.groups * (inputs * each.input + outputs * each.output)
    weights = shape.itemsize * points * shape.columns * shape.depth / costs.streamed
    return max(products, weights) + transforms


def _lanes(shape: ConvShape, target: Target) -> float:
    """What register tiles compute for each column of a group."""
    vectors = -(-shape.group_columns // target.vector)
    return vectors * target.vector / max(1, shape.group_columns)


def _products_cycles(shape: ConvShape, kernel: str, target: Target, rate: float) -> float:
    """Of `cycles`: products of rows or windows, at most so many a cycle, by weights that come from
    memory once."""
    costs = target.costs
    size = shape.columns * shape.depth * shape.kernel[0] * shape.kernel[1]
    share = costs.products
    if kernel == "direct":
        short = shape.depth * shape.kernel[1] <= SHORT
        share = (costs.short if short else costs.direct) / shape.live_taps
    tiles = tile_target(shape.group_columns, target, "i16" if shape.integer else COMPUTED)
    products = shape.products * _lanes(shape, tiles) / (share * rate)
    return max(products, shape.itemsize * size / costs.streamed)


BF16_BYTES = dtype("bf16").bytes
ROUNDED = 3.0
"""Cycles to round a vector of floats to bfloat16 and write it down."""


def _rounding(shape: ConvShape, target: Target) -> float:
    """Cycles to round what a convolution reads of its map."""
    pixels = shape.batch * shape.out_height * shape.out_width
    if shape.kernel != (1, 1):
        pixels *= math.prod(shape.op.stride)
    return ROUNDED * pixels * shape.channels / target.vector


STRASSEN_MARGIN = 1.02
"""What it should gain, as it takes memory for the sums of rows, and rounds more."""
STRASSEN_PAIRS = 48
"""Pairs below which the sums of weights, which the first of their row groups makes, are too large a
part: 49 rows, 2048 to 512 channels, take 1.24 ms as a plain product and 1.45 so."""


def _strassen_cycles(shape: ConvShape, target: Target) -> float:
    """Of `cycles`: seven products in place of eight, and the sums."""
    inputs, columns = -(-shape.channels // 2 // target.vector), -(-shape.columns // 2)
    vectors = factor_vectors(-(-shape.channels // 2), columns, target)
    panels = -(-columns // (vectors * target.vector))
    outputs = vectors * (panels + panels % 2)  # two threads take as long for one more
    costs = target.costs
    rate = costs.products * costs.multiply_adds * target.vector
    products = 7 * shape.pairs * shape.channels / 2 * outputs * target.vector / rate
    weights = shape.itemsize * shape.columns * shape.channels / costs.streamed
    sums = shape.pairs * (costs.strassen.input * inputs + costs.strassen.output * outputs)
    return STRASSEN_MARGIN * (max(products, weights) + sums)


def tile_block(shape: ConvShape, kernel: str, target: Target) -> int:
    """Tiles in a Winograd block: even blocks of an image, or several whole images."""
    if not kernel.startswith("winograd"):
        return 0
    m, shape = winograd_m(kernel), shape.together(target)
    tiles = shape.tiles(m)
    panel = target.panel_vectors * target.vector
    bytes_per_tile = shape.itemsize * (m + 2) ** 2 * (shape.depth + panel)
    most = max(LEAST_TILES, min(target.costs.tiles, target.l2 // bytes_per_tile))
    weights = shape.itemsize * (m + 2) ** 2 * shape.columns * shape.depth
    if weights > STREAMED * target.l2:
        most = target.costs.tiles
    several = -(-FEW_TASKS // shape.op.groups) if weights <= target.l2 // 2 else 1
    several = min(several, tiles // LEAST_TILES)
    if tiles < most and several < 2:
        return tiles * max(1, most // max(1, tiles))
    blocks = max(-(-tiles // most), several)
    if blocks == 2 > several and tiles * bytes_per_tile <= 2 * target.l2:
        blocks = 1  # to read the weights once is worth a working set of twice L2
    elif blocks > 2:
        blocks += blocks % 2  # as much for one of two threads as for the other
    return -(-tiles // blocks)
