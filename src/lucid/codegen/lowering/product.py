"""Lowering to matrix products: 1x1 and tap-by-tap convolution, linear layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from lucid.codegen.kernels.bf16_rows import Parted, Rounded
from lucid.codegen.kernels.byte_products import GROUP_BYTES
from lucid.codegen.kernels.integer_rows import Copied, Shifted
from lucid.codegen.kernels.loaders import Combine, Join, Loader, Mapped, Patch, Stage
from lucid.codegen.kernels.microkernels import panel_vectors, tile_target
from lucid.codegen.kernels.packing import ByteLimits
from lucid.codegen.kernels.product import Product, peaks_bytes, scratch_bytes
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.lowering.arguments import (
    bias_of,
    bind_extras,
    enough_chunks,
    geometry,
    only_declared,
    tile_codes,
    window,
)
from lucid.codegen.lowering.context import Deferred, Lowering, row_major, row_stride
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.lowering.matrices import form_of
from lucid.codegen.lowering.shapes import matrix
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.ops import Conv2d

UNEVEN = 3
"""Panels for each thread below which one more for some of them matters: rows are split as well. 49
rows times 960 x 160 in five panels take 45 us so, and 52 us as three panels and two; with nine
panels reading each of them twice costs more than it gains."""
IDLE = 0.04
"""Share of its time that a thread without a panel would wait for the others, from which on rows are
split as well where there are LEAST_ROWS of them for each: 196 rows of 408 by 408 in 17 panels, on
two threads of a busy processor, 0.47 ms for 0.64."""
MAPS_OUTWEIGH = 1.5
"""Rows are split as well where the maps are so many times as large as the weights: neighbours'
rows then stay in a thread's cache, which is worth reading the weights twice. With 14x14 maps split
so, mobile networks on two threads take 1 to 3% less; ResNet-50, whose ratio is 1, takes 5% more.
Blocks of Winograd's tiles are shared among threads by the same measure: ResNeSt-50 takes 3% less on
cores that share no cache, and what it took on those that do."""
LEAST_BLOCK = 24
"""About the rows of the least block: each block passes all panels."""
MANY_PANELS = 16
"""Panels for each thread from which on it has several chunks of them."""
LEAST_ROWS = 96
"""Rows below which blocks of them are too few for each other's tails."""
PREFETCHED = 0.5
"""Of L2: weights larger than that are prefetched, panel by panel, even where every block of rows
passes over them. FCN-ResNet-50 at 520x520 takes 447 ms so, and 478 without; a line of 399 windows
of 3 taps, 512 to 512 channels, 4.4 ms and 5.0."""


@dataclass(frozen=True)
class Split:
    """How a product's tasks are cut: blocks of rows, chunks of panels, and which runs outside."""

    blocks: int
    chunks: int
    panels_outside: bool


def split_product(
    ctx: Lowering, layer: Layer, rows: int, depth: int, panels: int, met: bool
) -> Split:
    """Rows are split where the maps are the larger side, and a block of them (a quarter of L2)
    meets all panels; each thread has as many. Else panels are split, so that each weight is read
    from memory once. Where each chunk of panels would copy the rows again, or look at what they are
    (`met`), there are no more chunks than threads need."""
    columns = ctx.shape(layer.weight)[0]
    maps_outweigh = rows * (depth + columns) >= MAPS_OUTWEIGH * depth * columns
    by_rows = layer.choice.split == "rows"
    if layer.choice.split == "auto":
        by_rows = rows >= columns or (maps_outweigh and rows >= LEAST_ROWS)
    if by_rows:
        return Split(_row_blocks(ctx, layer, rows, depth), 1, False)
    groups = getattr(layer.op, "groups", 1)
    if met or layer.choice.chunks:
        return Split(1, enough_chunks(ctx, layer, groups, panels), True)
    if _uneven(panels, rows, ctx.threads):
        return Split(ctx.threads, panels, True)
    # A thread's panels lie side by side: what it prefetches is its own. 5% on two threads. Of
    # several chunks it can leave some to others when it is slowed down: ViT-B/16 takes 3 to 6% less
    # with eight of them.
    each = 2 * ctx.target.costs.tasks if panels >= MANY_PANELS * ctx.threads else 1
    return Split(1, min(panels, each * ctx.threads), True)


def _row_blocks(ctx: Lowering, layer: Layer, rows: int, depth: int) -> int:
    """How many blocks of rows: as many for each thread, none beyond a quarter of L2, and
    `Costs.tasks` of them or those that rows suffice for."""
    if layer.choice.rows:
        return -(-rows // layer.choice.rows)
    row_bytes = dtype(layer.numbers).bytes * layer.parts * depth
    fitting = max(LEAST_BLOCK, min(192, ctx.target.l2 // 4 // row_bytes))
    most = -(-rows // LEAST_BLOCK)
    even = most - most % ctx.threads if most > ctx.threads else most
    blocks = max(-(-rows // fitting), min(even, ctx.target.costs.tasks * ctx.threads))
    return blocks + (-blocks % ctx.threads if blocks > ctx.threads else 0)


def _uneven(panels: int, rows: int, threads: int) -> bool:
    """Whether so many panels are shared so badly that rows are split besides."""
    idle = -panels % threads
    matters = idle > IDLE * panels and rows >= LEAST_ROWS * threads
    return idle > 0 and (matters or (rows >= 24 and panels < UNEVEN * threads))


def product(
    ctx: Lowering,
    layer: Layer,
    rows: Deferred | View,
    result: View,
    *,
    count: int,
    depth: int,
    groups: int,
    algorithm: str,
) -> None:
    """One `Product` call: `count` rows of `depth` in each of `groups`, from memory or a loader."""
    columns = ctx.shape(layer.weight)[0] // groups
    target = tile_target(columns, ctx.target, layer.numbers)
    vectors = panel_vectors(columns, target, layer.numbers)
    width = vectors * target.vector
    panels = -(-columns // width)
    rounds = layer.numbers == "bf16"
    copied = rounds or (isinstance(rows, Deferred) and isinstance(rows.loader, Patch | Shifted))
    checked = layer.arithmetic.checked(ctx.target)
    split = split_product(ctx, layer, count, depth, panels, met=copied or checked)
    body = layer.epilogue.body
    rows = _stage_where_split(ctx, layer, rows, split, result)
    rows = _rounded_rows(layer, rows, depth) if rounds else rows
    loader = rows.loader if isinstance(rows, Deferred) else None
    reads = rows.reads if isinstance(rows, Deferred) else (rows,)
    kernel = Product(loader, body.extras, layer.numbers, result.dtype)
    form = form_of(layer, target, groups, vectors, depth)
    extra_arguments, tensors = bind_extras(ctx, layer.epilogue, groups, width)
    region, inputs = ctx.region(layer.origin, [*reads, *tensors])
    own, rest = inputs[: len(reads)], inputs[len(reads) :]
    x = rows.build(region, own) if isinstance(rows, Deferred) else own[0]
    region.set_outputs([layer.append(region, x, rest)])
    shape = ctx.shape(layer.weight)
    name = layer.weight.name
    weight_bytes = dtype(layer.numbers).bytes * layer.parts * depth * columns
    arguments: dict[str, ArgumentValue] = {
        **(rows.arguments if isinstance(rows, Deferred) else _plain_rows(rows)),
        "weights": ctx.weights(layer.weight.recipe, form.packing, shape, name, layer.numbers),
        "bias": bias_of(ctx, layer, groups, width),
        **(_limits(ctx, layer, groups, width) if kernel.has_limits else {}),
        "y": result,
        **extra_arguments,
        **tile_codes(form.tile),
        "y_row": row_stride(result) or 0,
        "rows": count,
        "depth": form.steps,
        "columns": columns,
        "groups": groups,
        "panel": width,
        "panels": panels,
        "blocks": split.blocks,
        "chunks": split.chunks,
        "block_stride": 1 if split.panels_outside else groups * split.chunks,
        "chunk_stride": split.blocks if split.panels_outside else 1,
        "prefetch": int(split.panels_outside or weight_bytes > PREFETCHED * ctx.target.l2),
    }
    block_rows = -(-count // split.blocks)
    scratch = 0
    if loader is not None:
        written = block_rows + max(loader.spare_rows, form.rows_beyond)
        scratch = scratch_bytes(form.steps, written, layer.numbers)
    scratch += peaks_bytes(form.steps, block_rows, ctx.target) if checked else 0
    ctx.call(
        kernel,
        split.blocks * split.chunks * groups,
        only_declared(kernel, arguments),
        [*reads, *tensors],
        [result],
        region,
        layer.origin,
        algorithm=algorithm,
        scratch=scratch,
        work=2 * count * depth * columns * groups,
    )


def _stage_where_split(
    ctx: Lowering, layer: Layer, rows: Deferred | View, split: Split, result: View
) -> Deferred | View:
    """A combination that every chunk of panels would repeat is computed once, into a buffer."""
    if not (isinstance(rows, Deferred) and isinstance(rows.loader, Combine | Join | Mapped)):
        return rows
    form = layer.epilogue.body.extras, layer.numbers, result.dtype
    kernels = (Product(_loader(layer, loader), *form) for loader in (rows.loader, None))
    ctx.may_need(*kernels, Stage(rows.loader))
    if split.chunks == 1:
        return rows
    region, inputs = ctx.region(rows.origin, rows.reads)
    shape = rows.build(region, inputs).type.concrete(1)
    return ctx.stage(rows, shape)


def _limits(ctx: Lowering, layer: Layer, groups: int, width: int) -> dict[str, ArgumentValue]:
    packing, weight = ByteLimits(groups, width), layer.weight
    shape, name = ctx.shape(weight), f"{weight.name}.limits"
    return {"limits": ctx.weights(weight.recipe, packing, shape, name, "i32")}


def _plain_rows(x: View) -> dict[str, ArgumentValue]:
    return {"x": x, "x_row": row_stride(x) or 0}


def linear(ctx: Lowering, layer: Layer) -> None:
    """A linear layer: one row for each leading index."""
    *leading, depth = ctx.shape(layer.x)
    count, outputs = prod(leading), ctx.shape(layer.weight)[0]
    if len(leading) == 3:  # features come last here, where other values of rank 4 have the width
        x = matrix(ctx, layer.x, (count, depth), layer.origin)
        kind, shape = layer.result.type.dtype, ctx.shape(layer.result)
        result = ctx.allocate(layer.result.name, kind, (count, outputs), (outputs, 1))
        ctx.views[layer.result] = result.over(shape, row_major(shape))
    else:
        x, result = ctx.rows_view(layer.x), ctx.result(layer.result)
    layer = _of_bytes(ctx, layer, depth)
    rows = _integer_rows(layer, x, depth) if layer.is_integer else x
    algorithm = "linear" + layer.choice.kernel.removeprefix("pointwise")
    product(ctx, layer, rows, result, count=count, depth=depth, groups=1, algorithm=algorithm)


def pointwise(ctx: Lowering, layer: Layer) -> None:
    """A convolution by rows of its windows. Those of a 1x1 are the pixels as they lie, or, with a
    stride, every few of them."""
    op = layer.conv
    depth = prod(ctx.shape(layer.weight)[1:])
    layer = _of_bytes(ctx, layer, depth)
    result = ctx.result(layer.result)
    n, _, height, width = result.shape
    rows: Deferred | View
    if layer.is_integer:
        rows = _integer_rows(layer, ctx.rows_view(layer.x), depth, (height, width))
    elif layer.choice.algorithm == "pointwise":
        rows = ctx.rows(layer.x, whole=op.groups == 1)
    else:
        rows = _windows(ctx, layer, op, (height, width))
    product(
        ctx,
        layer,
        rows,
        result,
        count=n * height * width,
        depth=depth,
        groups=op.groups,
        algorithm=layer.choice.kernel,
    )


def _of_bytes(ctx: Lowering, layer: Layer, depth: int) -> Layer:
    """The layer, of bytes as they are where the target multiplies those and, if it does so in 16
    bits, they are no zero point off."""
    if not (layer.is_integer and ctx.target.byte_products) or depth % GROUP_BYTES:
        return layer
    fits = layer.x.type.dtype == "u8" and layer.weight.type.dtype == "i8"
    return replace(layer, as_bytes=fits and (ctx.target.dot or not layer.zero_point))


def _integer_rows(
    layer: Layer, x: View, channels: int, out: tuple[int, int] | None = None
) -> Deferred | View:
    """Rows of integers, less their zero point if they have one: where they lie, or the loader for
    them; `out`: size of the map of those of a convolution, which may leave out pixels."""
    strided = out is not None and layer.conv.stride != (1, 1)
    whole = (row_stride(x) or 0) % layer.arithmetic.numbers_of_element == 0
    if layer.as_bytes and whole and not strided:
        return x
    arguments = {"channels": channels, "zero_point": layer.zero_point, **_plain_rows(x)}
    if out is not None and strided:
        arguments |= {**geometry(x, out), **window((1, 1), layer.conv.stride, (0, 0, 0, 0))}
    loader = (Copied if layer.as_bytes else Shifted)(x.dtype, strided)
    return Deferred(loader, arguments, (x,), lambda region, inputs: inputs[0], layer.origin)


def _rounded_rows(layer: Layer, rows: Deferred | View, depth: int) -> Deferred:
    """The same rows as bfloat16, or as parts of it, put into scratch."""
    numbers: dict[str, ArgumentValue] = {"row_numbers": depth}
    if isinstance(rows, Deferred):
        arguments = {**rows.arguments, **numbers}
        return replace(rows, loader=_rounding(layer, rows.loader), arguments=arguments)
    arguments, loader = {**_plain_rows(rows), **numbers}, _rounding(layer, None)
    return Deferred(loader, arguments, (rows,), lambda region, inputs: inputs[0], layer.origin)


def _rounding(layer: Layer, inner: Loader | None) -> Rounded:
    """The loader that rounds the rows of another, or those that lie in memory."""
    return (Parted if layer.parts > 1 else Rounded)(inner)


def _loader(layer: Layer, inner: Loader | None) -> Loader | None:
    """What makes the layer's rows, of those of another loader or those that lie in memory."""
    return _rounding(layer, inner) if layer.numbers == "bf16" else inner


def _windows(ctx: Lowering, layer: Layer, op: Conv2d, out: tuple[int, int]) -> Deferred:
    """The loader for the windows of a map, with zeros around it."""
    x = ctx.rows_view(layer.x)
    _, inner, height, width = ctx.shape(layer.weight)
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, out),
        **window((height, width), op.stride, op.padding),
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "taps_depth": inner,
    }
    return Deferred(Patch(), arguments, (x,), lambda region, inputs: inputs[0], layer.origin)
