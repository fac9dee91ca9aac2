"""Lowering of convolutions of single channels and of small groups, alone or after a 1x1
convolution whose result nobody else reads."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod

from lucid.codegen.kernels.depthwise import Blocks, Depthwise
from lucid.codegen.kernels.expand import ExpandDepthwise, scratch_bytes
from lucid.codegen.kernels.integer_depthwise import IntegerDepthwise
from lucid.codegen.kernels.microkernels import Tile, panel_vectors
from lucid.codegen.kernels.packing import Panels, TapPairs, Taps
from lucid.codegen.kernels.slices import DepthwiseSlices
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.lowering.arguments import (
    bias_of,
    bind_extras,
    geometry,
    only_declared,
    result_strides,
    slice_arguments,
    sums_view,
    tile_codes,
    window,
)
from lucid.codegen.lowering.context import Lowering, itemsize, row_stride
from lucid.codegen.lowering.layer import Layer, feeds_attention
from lucid.codegen.program.lowered_ops import PartialSums
from lucid.codegen.program.program import ArgumentValue, View
from lucid.codegen.target import Target
from lucid.ir.graph import Node
from lucid.ir.ops import Conv2d, Fusion, IntegerConv2d

TASK_CYCLES = 4096
"""What a task should at least take: about 1 us."""
MOST_TASKS = 16
"""Tasks of an image, at most: a few for each thread."""
CHUNKS = 4
"""Chunks of channels, at most: each reads every pixel's cache lines by itself."""


MOST_TAPS = 5
"""Of a line, up to which there are instructions to spare for asking for what comes next. Beside
the multiply-adds of a Zen 3, one thread: 3x3, 384 channels at 56x56 take 3.7 ms so and 4.9 without,
128 at 150x150 12.5 and 16.6, 728 at 19x19 0.35 and 0.38; but 576 at 14x14, which L2 holds, 0.18 and
0.15, and 7x7, 96 at 56x56, 1.23 and 1.13. 3x3 in groups of 8 with stride 2, 128 channels at
112x112, take 1.8 and 2.9, 512 at 56x56 2.8 and 3.4; in groups of 4, 128 at 112x112 3.1 and 5.1."""


def depthwise(ctx: Lowering, layer: Layer) -> None:
    """The layer as one call, with channel sums where a split attention reads it."""
    before = ctx.expansions.get(layer.x)
    if before is not None:
        _expanded(ctx, before, layer)
        return
    x, y = ctx.rows_view(layer.x), ctx.result(layer.result)
    kernel = replace(_kernel(ctx, layer), ahead=_asks_ahead(ctx, layer))
    slices = 1 if layer.slices is None else layer.slices.taps
    products = slices * prod(kernel.taps) * kernel.group
    lines, chunk = _cut(y, products, ctx.target, ctx.target.vector if layer.is_integer else 1)
    chunks = -(-y.shape[1] // chunk)
    cut: dict[str, ArgumentValue] = {"lines": lines, "chunk": chunk, "chunks": chunks}
    _call(ctx, layer, None, kernel, x, y, cut | geometry(x, (y.shape[2], y.shape[3])))


def _asks_ahead(ctx: Lowering, layer: Layer) -> bool:
    """Whether to ask for what comes next: channels and small groups of maps that leave L2."""
    columns, _, _, taps = ctx.shape(layer.weight)
    alike = columns == ctx.shape(layer.x)[1] and layer.slices is None
    if layer.is_integer or not (alike and ctx.target.asks_to_write and taps <= MOST_TAPS):
        return False
    return itemsize(layer.x) * prod(ctx.shape(layer.x)[1:]) > ctx.target.l2


def _kernel(ctx: Lowering, layer: Layer) -> Depthwise:
    op = layer.conv
    columns, group, height, width = ctx.shape(layer.weight)
    blocks, spec = _blocks(ctx, layer), Depthwise
    if layer.slices is not None:
        group, spec = group // layer.slices.taps, DepthwiseSlices
    kernel = spec(
        layer.epilogue.body,
        (height, width),
        op.stride,
        op.dilation,
        group,
        columns // op.groups if group == 1 else 1,
        blocks.pixels,
        blocks.patterns,
        feeds_attention(layer) and not layer.is_integer,
    )
    if not layer.is_integer:
        return kernel
    x, y = layer.x.type.dtype, layer.result.type.dtype
    narrow, shifted = columns < ctx.target.vector, layer.zero_point != 0
    return IntegerDepthwise(**vars(kernel), x=x, y=y, narrow=narrow, shifted=shifted)


def _blocks(ctx: Lowering, layer: Layer) -> Blocks:
    op, (*_, taps) = layer.conv, ctx.shape(layer.weight)
    width, out_width = ctx.shape(layer.x)[3], ctx.shape(layer.result)[3]
    return Blocks.of(width, out_width, taps, op.stride[1], op.dilation[1], op.padding[1])


def _call(
    ctx: Lowering,
    layer: Layer,
    before: Layer | None,
    kernel: Depthwise,
    x: View,
    y: View,
    given: dict[str, ArgumentValue],
) -> None:
    """The call that computes the layer from x, over the layer `before` it if there is one; `given`:
    the arguments that say how x is read and the work cut."""
    op = layer.conv
    n, channels, height, width = y.shape
    lines = given["lines"]
    assert isinstance(lines, int)
    bands = -(-height // lines)
    extra_arguments, tensors = bind_extras(ctx, layer.epilogue, 1, ctx.target.vector)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    source = before.append(region, inputs[0], []) if before is not None else inputs[0]
    results, writes = [layer.append(region, source, inputs[1:])], [y]
    if kernel.sums:
        writes.append(sums_view(ctx, layer, bands))
        results.append(region.append(PartialSums(bands), results).output)
    region.set_outputs(results)
    weight, shape = layer.by_tap(ctx.shape(layer.weight))
    packing = TapPairs() if layer.is_integer else Taps()
    counts = enumerate(_blocks(ctx, layer).counts)
    arguments: dict[str, ArgumentValue] = {
        **given,
        **slice_arguments(layer),
        "zero_point": layer.zero_point,
        **window(kernel.taps, op.stride, op.padding),
        "weights": ctx.weights(weight.recipe, packing, shape, weight.name, layer.numbers),
        "bias": bias_of(ctx, layer, 1, ctx.target.vector),
        **dict(zip(("y", "sums"), writes, strict=False)),
        **extra_arguments,
        "channels": channels,
        "out_height": height,
        "bands": bands,
        **result_strides(y),
        **{f"count{i}": count for i, count in counts},
    }
    spec: KernelSpec = kernel if before is None else ExpandDepthwise(kernel)
    chunks = given.get("chunks", 1)
    assert isinstance(chunks, int)
    work = 2 * n * height * width * channels * prod(ctx.shape(layer.weight)[1:])
    if before is not None:
        work += 2 * prod(ctx.shape(before.result)) * ctx.shape(before.weight)[1]
    ctx.call(
        spec,
        n * bands * chunks,
        only_declared(spec, arguments),
        [x, *tensors],
        writes,
        region,
        layer.origin,
        algorithm="depthwise",
        scratch=_scratch(kernel, given) if before is not None else 0,
        work=work,
    )


def _cut(y: View, products: int, target: Target, narrowest: int) -> tuple[int, int]:
    """Lines of a band and channels of a chunk; `products`: multiply-adds for one output,
    `narrowest`: channels that the last of several chunks has at least.

    As many tasks as the work is worth, so that two threads and four have equal shares of it. What
    is summed in a band depends on the image alone, not on the batch or the team.
    """
    _, channels, height, width = y.shape
    cycles = height * width * channels * products // (2 * target.vector)
    most = max(1, min(MOST_TASKS, cycles // TASK_CYCLES))
    vectors = max(1, -(-channels // target.vector))

    def cost(cut: tuple[int, int]) -> float:
        bands, chunks = (_parts(n, size) for n, size in zip((height, vectors), cut, strict=True))
        tasks = [band * chunk for band in bands for chunk in chunks]
        two, four = (_largest_share(tasks, threads) * threads for threads in (2, 4))
        return (2 * two + four) / 3 + (0.02 * len(chunks) + 0.004 * len(tasks)) * sum(tasks)

    def enough(size: int) -> bool:
        """Whether the last chunk of `size` vectors has as many channels as it must."""
        return (channels - 1) % (size * target.vector) + 1 >= narrowest

    lines = sorted({-(-height // bands) for bands in range(1, min(height, most) + 1)})
    parts = [p for p in range(1, min(vectors, CHUNKS) + 1) if p == 1 or enough(-(-vectors // p))]
    cuts = [
        (n, -(-vectors // chunks))
        for n in lines
        for chunks in parts
        if -(-height // n) * chunks <= most
    ]
    best = min(cuts, key=cost, default=(height, vectors))
    return best[0], best[1] * target.vector


def _parts(count: int, size: int) -> list[int]:
    """`count` in parts of `size`, the last of which may be smaller."""
    return [min(size, count - start) for start in range(0, count, size)]


def _largest_share(tasks: list[int], threads: int) -> int:
    """The work of the thread that has most, each with a stretch of the tasks."""
    ends = [len(tasks) * t // threads for t in range(threads + 1)]
    return max(sum(tasks[a:b]) for a, b in pairwise(ends))


# -- an inverted bottleneck's first two layers in one kernel ----------------------------------


EXPANDED_SHARE = 0.5
"""Of L2: an expanded map from this size on is made band by band, and never stored, unless it is
made panel by panel (`Costs.expanded`). MobileNetV2's first three bottlenecks take 0.40 ms this way
and 0.56 ms in two steps, on two threads with 2 MB of L2 each; with all of them the network takes
2.7 ms, with these three 2.4 ms, with none 2.6 ms."""
SLID_SHARE = 0.8
"""Of L1, that the panels of all lines may fill over which a task's windows slide: each line of each
window has its own cost, which several panels share."""
BANDS = 8
"""Bands of an image, at least: their borders are computed twice."""
REPEATED_CYCLES = 1.0
"""What computing borders twice may cost for each element of the expanded map: storing and loading
it costs about two. Xception's 728 channels over bands of three lines would cost fifteen."""


def expands(ctx: Lowering, layer: Layer) -> bool:
    """Leave a 1x1 convolution to the depthwise one that reads it, if nobody else does and the map
    between them is large, or a task can make a panel of all of it."""
    result = layer.result
    if layer.is_integer or layer.epilogue.extras:
        return False
    if result in ctx.placements or ctx.output_view(result) is not None:
        return False
    if len(result.users) != 1 or layer.x in ctx.deferred or row_stride(ctx.view(layer.x)) is None:
        return False
    whole = _fits_whole(ctx, layer)
    large = itemsize(result) * prod(ctx.shape(result)[1:]) >= EXPANDED_SHARE * ctx.target.l2
    if not (whole or large):
        return False
    user = result.users[0]
    op = user.op.anchor if isinstance(user.op, Fusion) else user.op
    choice = ctx.schedule.choices.get(user.output.name)
    channels = ctx.shape(result)[1]
    single = isinstance(op, Conv2d) and op.groups == channels == ctx.shape(user.output)[1]
    if not single or choice is None or choice.kernel != "depthwise":
        return False
    places = [v is result for v in user.inputs]
    if not places[0] or any(places[1:]):
        return False
    if not whole and _repeated(ctx, layer, user) > REPEATED_CYCLES:
        return False
    ctx.expansions[result] = layer
    return True


def _fits_whole(ctx: Lowering, before: Layer) -> bool:
    """Whether a task can make a panel of all lines of the expanded map: it and the source, which
    each panel passes, are to stay in L2."""
    share = ctx.target.costs.expanded * ctx.target.l2
    _, depth, height, width = ctx.shape(before.x)
    pixels = itemsize(before.result) * height * width
    panel = panel_vectors(ctx.shape(before.result)[1], ctx.target) * ctx.target.vector
    return pixels * depth <= share and pixels * panel <= share / 2


def _at_once(ctx: Lowering, panels: int, panel_bytes: int) -> int:
    """How many panels are made before the windows slide over them: as many as stay in L1, in an
    even number of parts where there are several, and one for each thread."""
    most = min(int(SLID_SHARE * ctx.target.l1) // panel_bytes, panels // ctx.threads)
    return next((n for n in range(most, 1, -1) if panels % (2 * n) == 0), 1)


def _repeated(ctx: Lowering, layer: Layer, user: Node) -> float:
    """Cycles for each element of the expanded map that go into lines which two bands share."""
    op = user.op.anchor if isinstance(user.op, Fusion) else user.op
    assert isinstance(op, Conv2d | IntegerConv2d)
    columns, depth, *_ = ctx.shape(layer.weight)
    taps = (ctx.shape(user.inputs[1])[2] - 1) * op.dilation[0] + 1
    panel = panel_vectors(columns, ctx.target) * ctx.target.vector
    pixels = itemsize(layer.result) * ctx.shape(layer.x)[3]
    height = ctx.shape(user.output)[2]
    lines = _band(taps, op.stride[0], height, pixels * panel, pixels * depth, ctx.target)
    shared = max(0, taps - op.stride[0]) / (lines * op.stride[0])
    return shared * depth / (2 * ctx.target.vector)


def _expanded(ctx: Lowering, before: Layer, layer: Layer) -> None:
    """Both layers as one call."""
    x, y = ctx.rows_view(before.x), ctx.result(layer.result)
    kernel = _kernel(ctx, layer)
    columns, depth, *_ = ctx.shape(before.weight)
    vectors = panel_vectors(columns, ctx.target)
    panel = vectors * ctx.target.vector
    tile = Tile(vectors, before.epilogue.body, rows=ctx.target.tile_rows(vectors))
    _, _, height, width = x.shape
    panels, pixels = -(-columns // panel), itemsize(before.result) * width
    whole = _fits_whole(ctx, before)
    if whole:
        lines = y.shape[2]
        wide = chunk = panel * _at_once(ctx, panels, pixels * height * panel)
    else:
        reach, stride = _reach(kernel), kernel.stride[0]
        lines = _band(reach, stride, y.shape[2], pixels * panel, pixels * depth, ctx.target)
        wide, chunk = panel, panels * panel
    given: dict[str, ArgumentValue] = {
        "source": x,
        "source_row": row_stride(x) or 0,
        "panel_weights": ctx.weights(
            before.weight.recipe, Panels(1, panel), ctx.shape(before.weight), before.weight.name
        ),
        "panel_bias": bias_of(ctx, before, 1, panel),
        **tile_codes(tile),
        "depth": depth,
        "panel": panel,
        "panels": panels,
        "wide": wide,
        "prefetch": int(whole),
        "height": height,
        "width": width,
        "lines": lines,
        "chunk": chunk,
        "chunks": -(-columns // chunk),
    }
    _call(ctx, layer, before, kernel, x, y, given)


def _band(
    reach: int, stride: int, height: int, line_bytes: int, source_bytes: int, target: Target
) -> int:
    """Lines of a band: as many as leave their expanded lines in a quarter of L2, and the lines of
    the source, which each panel passes, in half of it; `reach`: lines that the window of one output
    meets."""
    fitting = min(target.l2 // 4 // line_bytes, target.l2 // 2 // source_bytes) - reach
    return max(1, min(-(-height // BANDS), fitting // stride + 1))


def _reach(kernel: Depthwise) -> int:
    """Lines that the window of one output meets."""
    return (kernel.taps[0] - 1) * kernel.dilation[0] + 1


def _scratch(kernel: Depthwise, given: dict[str, ArgumentValue]) -> int:
    """Bytes of the expanded lines of a band."""
    lines, width, wide = given["lines"], given["width"], given["wide"]
    assert isinstance(lines, int)
    assert isinstance(width, int)
    assert isinstance(wide, int)
    return scratch_bytes((lines - 1) * kernel.stride[0] + _reach(kernel), width, wide)
