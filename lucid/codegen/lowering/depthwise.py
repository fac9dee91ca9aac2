"""Lowering of convolutions of single channels and of small groups."""

from __future__ import annotations

from math import prod

from lucid.codegen.kernels.depthwise import Blocks, Depthwise
from lucid.codegen.lowered_ops import PartialSums
from lucid.codegen.lowering.context import Lowering
from lucid.codegen.lowering.epilogue import only_declared
from lucid.codegen.lowering.layer import (
    Layer,
    bias_of,
    feeds_attention,
    geometry,
    result_strides,
    sums_view,
    window,
)
from lucid.codegen.packing import Taps
from lucid.codegen.program import ArgumentValue, View
from lucid.codegen.target import Target
from lucid.ir.ops import Conv2d

TASK_CYCLES = 8192
"""What a task should at least take: about 3 us."""
MOST_TASKS = 16
"""Tasks of an image, at most: a few for each thread."""


def depthwise(ctx: Lowering, layer: Layer) -> None:
    """The layer as one `Depthwise` call, with channel sums where a split attention reads it."""
    op = layer.op
    assert isinstance(op, Conv2d)
    x, y = ctx.rows_view(layer.x), ctx.result(layer.result)
    n, channels, height, width = y.shape
    _, group, *taps = ctx.shape(layer.weight)
    blocks = Blocks.of(x.shape[3], width, taps[1], op.stride[1], op.dilation[1], op.padding[1])
    sums = feeds_attention(layer)
    kernel = Depthwise(
        layer.epilogue.body,
        (taps[0], taps[1]),
        op.stride,
        op.dilation,
        group,
        blocks.pixels,
        blocks.patterns,
        sums,
    )
    lines, chunk = _cut(y, prod(taps) * group, ctx.target)
    bands, chunks = -(-height // lines), -(-channels // chunk)
    extra_arguments, tensors = layer.epilogue.bind(ctx, 1, ctx.target.vector)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    results, writes = [layer.append(region, inputs[0], inputs[1:])], [y]
    if sums:
        writes.append(sums_view(ctx, layer, bands))
        results.append(region.append(PartialSums(bands), results).output)
    region.set_outputs(results)
    shape, name = ctx.shape(layer.weight), layer.weight.name
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **window((taps[0], taps[1]), op.stride, op.padding),
        "weights": ctx.weights(layer.weight.recipe, Taps(), shape, name),
        "bias": bias_of(ctx, layer, 1, ctx.target.vector),
        **dict(zip(("y", "sums"), writes, strict=False)),
        **extra_arguments,
        "channels": channels,
        "chunk": chunk,
        "chunks": chunks,
        "lines": lines,
        "bands": bands,
        **result_strides(y),
        **{f"count{i}": count for i, count in enumerate(blocks.counts)},
    }
    ctx.call(
        kernel,
        n * bands * chunks,
        only_declared(kernel, arguments),
        [x, *tensors],
        writes,
        region,
        layer.origin,
        algorithm="depthwise",
        work=2 * n * height * width * channels * prod(taps) * group,
    )


def _cut(y: View, products: int, target: Target) -> tuple[int, int]:
    """Lines of a band and channels of a chunk; `products`: multiply-adds for one output.

    Bands are cut first, since each chunk of channels reads every pixel's cache lines by itself.
    What is summed in a band depends on the image alone, not on the batch or the team.
    """
    _, channels, height, width = y.shape
    cycles = height * width * channels * products // (2 * target.vector)
    tasks = max(1, min(MOST_TASKS, cycles // TASK_CYCLES))
    lines = max(1, -(-height // tasks))
    chunks = -(-tasks // -(-height // lines))
    vectors = -(-channels // target.vector)
    return lines, max(1, -(-vectors // chunks)) * target.vector
