"""Lowering of what multiplies: convolution and linear layers, alone or with a fused body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from lucid.codegen.body import PLAIN
from lucid.codegen.kernels.loaders import Combine, Patch, PlanarPatch, Stage
from lucid.codegen.kernels.product import ROW_SLACK, Product
from lucid.codegen.kernels.windows import Depthwise
from lucid.codegen.kernels.winograd import Winograd, scratch_floats
from lucid.codegen.lowered_ops import PartialSums
from lucid.codegen.lowering.context import Deferred, Lowering, lowers, row_stride
from lucid.codegen.lowering.epilogue import Epilogue, kind_of, only_declared, to_body
from lucid.codegen.lowering.strided import apply_body
from lucid.codegen.microkernels import Tile
from lucid.codegen.packing import Channels, Panels, Taps, WinogradPanels
from lucid.codegen.program import ArgumentValue, Code, View
from lucid.codegen.schedule import Choice
from lucid.codegen.target import Target
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Conv2d, Fusion, Linear, Op, SplitAttention


@dataclass
class Layer:
    """A convolution or linear layer about to be lowered: anchor, parameters, epilogue, result."""

    op: Op
    x: Value
    weight: Parameter
    bias: Parameter | None
    result: Value
    origin: str
    epilogue: Epilogue = field(default_factory=Epilogue)

    def append(self, region: Graph, x: Value, tensors: Sequence[Value]) -> Value:
        """The layer in a region, from its input and the tensors its body reads."""
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        own = [region.add_parameter(p.name, p.recipe) for p in parameters]
        node = region.append(self.op, [x, *own], origin=self.origin)
        return self.epilogue.append(region, node.output, tensors)


@lowers(Conv2d, Linear)
def _plain(ctx: Lowering, node: Node) -> None:
    _lower(ctx, _layer(ctx, node.op, node.inputs, node.output, node.origin))


@lowers(Fusion)
def _fused(ctx: Lowering, node: Node) -> None:
    """Anchor and body in one kernel; a body that reads what no epilogue can runs on its own."""
    op = node.op
    assert isinstance(op, Fusion)
    own = op.anchor_operands(len(node.inputs))
    extras = node.inputs[own:]
    kinds = [kind_of(ctx, e, node.output) for e in extras]
    layer = _layer(ctx, op.anchor, node.inputs[:own], node.output, node.origin)
    if None not in kinds:
        body = to_body(op.body, [k for k in kinds if k is not None])
        layer.epilogue = Epilogue(body, tuple(extras))
        _lower(ctx, layer)
        return
    layer.result = Value(node.output.type, f"{node.output.name}.anchor", node)
    _lower(ctx, layer, ctx.schedule.choices.get(node.output.name))
    apply_body(ctx, op.body, [layer.result, *extras], node.output, node.origin)


def _layer(ctx: Lowering, op: Op, operands: Sequence[Value], result: Value, origin: str) -> Layer:
    weight, *rest = operands[1:]
    bias = rest[0] if rest else None
    assert isinstance(weight, Parameter), f"{origin}: the weight must be a parameter"
    assert bias is None or isinstance(bias, Parameter), f"{origin}: the bias must be a parameter"
    return Layer(op, operands[0], weight, bias, result, origin)


def _lower(ctx: Lowering, layer: Layer, choice: Choice | None = None) -> None:
    if isinstance(layer.op, Linear):
        _linear(ctx, layer)
        return
    chosen = choice or ctx.schedule.choices[layer.result.name]
    if chosen.kernel == "depthwise":
        _depthwise(ctx, layer)
    elif chosen.kernel.startswith("winograd"):
        _winograd(ctx, layer, chosen)
    else:
        _direct(ctx, layer, chosen.kernel)


# -- matrix products ------------------------------------------------------------------------------


def panel_vectors(columns: int, target: Target) -> int:
    """Vectors of a panel: the widest, unless a narrower one wastes clearly less on the tail."""

    def cost(vectors: int) -> float:
        panels = -(-columns // (vectors * target.vector))
        return panels * vectors * (1 + 0.05 * (target.panel_vectors - vectors))

    return min(range(target.panel_vectors, 0, -1), key=cost)


@dataclass(frozen=True)
class Split:
    """How a product's tasks are cut: blocks of rows, chunks of panels, and which runs outside."""

    blocks: int
    chunks: int
    panels_outside: bool


def split_product(
    ctx: Lowering, rows: int, depth: int, columns: int, groups: int, panels: int, copied: bool
) -> Split:
    """Rows are split where x is the larger side, and a block of them (a quarter of L2) meets all
    panels; else panels are split, so that each weight is read from memory once. Where each chunk of
    panels would copy the rows again (`copied`) there are no more chunks than threads need."""
    if rows >= columns * groups:
        fitting = max(24, min(192, ctx.target.l2 // 4 // (4 * depth)))
        blocks = max(-(-rows // fitting), min(-(-rows // 24), 4 * ctx.threads))
        return Split(blocks, 1, False)
    return Split(1, _chunks(ctx, groups, panels) if copied else panels, True)


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
    vectors = panel_vectors(columns, ctx.target)
    width = vectors * ctx.target.vector
    panels = -(-columns // width)
    planar = isinstance(rows, Deferred) and isinstance(rows.loader, PlanarPatch)
    copied = planar or (isinstance(rows, Deferred) and isinstance(rows.loader, Patch))
    split = split_product(ctx, count, depth, columns, groups, panels, copied)
    body = layer.epilogue.body
    rows = _stage_where_split(ctx, rows, split, body.extras)
    loader = rows.loader if isinstance(rows, Deferred) else None
    reads = rows.reads if isinstance(rows, Deferred) else (rows,)
    kernel = Product(loader, body.extras)
    tile = Tile(vectors, body)
    extra_arguments, tensors = layer.epilogue.bind(ctx, groups, width)
    region, inputs = ctx.region(layer.origin, [*reads, *tensors])
    own, rest = inputs[: len(reads)], inputs[len(reads) :]
    x = rows.build(region, own) if isinstance(rows, Deferred) else own[0]
    region.set_outputs([layer.append(region, x, rest)])
    shape = ctx.shape(layer.weight)
    name = layer.weight.name
    arguments: dict[str, ArgumentValue] = {
        **(rows.arguments if isinstance(rows, Deferred) else _plain_rows(rows)),
        "weights": ctx.weights(layer.weight.recipe, Panels(groups, width, planar), shape, name),
        "bias": bias_of(ctx, layer, groups, width),
        "y": result,
        **extra_arguments,
        **{export: Code(tile, export) for export in Tile.exports},
        "y_row": row_stride(result) or 0,
        "rows": count,
        "depth": depth,
        "columns": columns,
        "groups": groups,
        "panel": width,
        "panels": panels,
        "blocks": split.blocks,
        "chunks": split.chunks,
        "block_stride": 1 if split.panels_outside else groups * split.chunks,
        "chunk_stride": split.blocks if split.panels_outside else 1,
        "prefetch": int(split.panels_outside),
    }
    ctx.call(
        kernel,
        split.blocks * split.chunks * groups,
        arguments,
        [*reads, *tensors],
        [result],
        region,
        layer.origin,
        algorithm=algorithm,
        scratch=0 if loader is None else (depth + ROW_SLACK) * -(-count // split.blocks),
        work=2 * count * depth * columns * groups,
    )


def bias_of(ctx: Lowering, layer: Layer, groups: int, width: int) -> ArgumentValue:
    """The packed bias; zeros where the layer has none."""
    channels = (ctx.shape(layer.weight)[0],)
    recipe = layer.bias.recipe if layer.bias is not None else None
    name = layer.bias.name if layer.bias is not None else f"zeros{channels[0]}"
    return ctx.weights(recipe, Channels(groups, width), channels, name)


def _stage_where_split(
    ctx: Lowering, rows: Deferred | View, split: Split, extras: tuple[str, ...]
) -> Deferred | View:
    """A combination that every chunk of panels would repeat is computed once, into a buffer."""
    if not (isinstance(rows, Deferred) and isinstance(rows.loader, Combine)):
        return rows
    ctx.may_need(Product(rows.loader, extras), Stage(rows.loader), Product(None, extras))
    if split.chunks == 1:
        return rows
    region, inputs = ctx.region(rows.origin, rows.reads)
    shape = rows.build(region, inputs).type.concrete(1)
    return ctx.stage(rows, shape)


def _plain_rows(x: View) -> dict[str, ArgumentValue]:
    return {"x": x, "x_row": row_stride(x) or 0}


def _linear(ctx: Lowering, layer: Layer) -> None:
    x = ctx.rows_view(layer.x)
    *leading, depth = x.shape
    result = ctx.result(layer.result)
    product(
        ctx,
        layer,
        x,
        result,
        count=prod(leading),
        depth=depth,
        groups=1,
        algorithm="linear",
    )


def _direct(ctx: Lowering, layer: Layer, kernel: str) -> None:
    """The taps of a convolution as rows; a 1x1 convolution's rows are its pixels as they lie."""
    op = layer.op
    assert isinstance(op, Conv2d)
    _, inner, *taps = ctx.shape(layer.weight)
    result = ctx.result(layer.result)
    n, _, height, width = result.shape
    rows: Deferred | View
    if kernel == "pointwise":
        rows = ctx.deferred.get(layer.x) or ctx.rows_view(layer.x)
        if layer.x in ctx.views:
            rows = ctx.rows_view(layer.x)
    else:
        rows = patch_rows(ctx, layer, op, (height, width))
    product(
        ctx,
        layer,
        rows,
        result,
        count=n * height * width,
        depth=inner * taps[0] * taps[1],
        groups=op.groups,
        algorithm=kernel,
    )


def patch_rows(ctx: Lowering, layer: Layer, op: Conv2d, out: tuple[int, int]) -> Deferred:
    """The loader for a convolution's taps: few channels are read from NCHW images as they lie."""
    _, inner, *taps = ctx.shape(layer.weight)
    x = ctx.view(layer.x)
    planar = x.shape[1] > 1 and x.strides[3] == 1 and inner <= MOST_PLANES
    if not planar:
        x = ctx.rows_view(layer.x)
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, out),
        **window((taps[0], taps[1]), op.stride, op.padding),
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "taps_depth": inner,
    }
    if planar:
        arguments["plane"] = x.strides[1]
    loader = PlanarPatch() if planar else Patch()
    return Deferred(loader, arguments, (x,), lambda region, inputs: inputs[0], layer.origin)


MOST_PLANES = 16
"""Channels up to which a planar image is read as it is; more are worth a copy to channels last."""


def geometry(x: View, out: tuple[int, int]) -> dict[str, ArgumentValue]:
    """A map's strides and size, and the size of what is made of it."""
    _, _, height, width = x.shape
    image, _, line, pixel = x.strides
    return {
        "x": x,
        "image": image,
        "line": line,
        "pixel": pixel,
        "height": height,
        "width": width,
        "out_height": out[0],
        "out_width": out[1],
    }


def window(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> dict[str, ArgumentValue]:
    return {
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": stride[0],
        "stride_w": stride[1],
        "pad_top": padding[0],
        "pad_left": padding[1],
    }


# -- Winograd and depthwise -----------------------------------------------------------------------


def _winograd(ctx: Lowering, layer: Layer, choice: Choice) -> None:
    op = layer.op
    assert isinstance(op, Conv2d)
    m = int(choice.kernel[-1])
    x = ctx.rows_view(layer.x)
    y = ctx.result(layer.result)
    if row_stride(y) is None:
        raise AssertionError("results of convolutions are channels last")
    n, channels, height, width = y.shape
    columns, depth = channels // op.groups, x.shape[1] // op.groups
    vectors = panel_vectors(columns, ctx.target)
    panel = vectors * ctx.target.vector
    panels = -(-columns // panel)
    tiles_w = -(-width // m)
    tiles = -(-height // m) * tiles_w
    image_blocks, block_images = (-(-tiles // choice.tiles), 1)
    if tiles <= choice.tiles:
        image_blocks, block_images = 1, max(1, choice.tiles // tiles)
    blocks = image_blocks * -(-n // block_images)
    block_tiles = -(-tiles // image_blocks) * min(block_images, max(1, n))
    chunks = _chunks(ctx, op.groups * blocks, panels)
    wants_sums = any(
        isinstance(u.op, SplitAttention) and u.inputs[0] is layer.result for u in layer.result.users
    )
    kernel = Winograd(m, layer.epilogue.body, wants_sums)
    tile = Tile(vectors, PLAIN, raw=True)
    extra_arguments, tensors = layer.epilogue.bind(ctx, op.groups, panel)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    outputs = [layer.append(region, inputs[0], inputs[1:])]
    writes = [y]
    if wants_sums:
        shape = (n, image_blocks, channels)
        sums = ctx.allocate(
            f"{layer.result.name}.sums", shape, (image_blocks * channels, channels, 1)
        )
        ctx.sums[layer.result] = sums
        writes.append(sums)
        outputs.append(region.append(PartialSums(image_blocks), [outputs[0]]).output)
    region.set_outputs(outputs)
    packing = WinogradPanels(m, op.groups, panel)
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **window((3, 3), (1, 1), op.padding),
        "weights": ctx.weights(
            layer.weight.recipe, packing, ctx.shape(layer.weight), layer.weight.name
        ),
        "bias": bias_of(ctx, layer, op.groups, panel),
        "y": y,
        "sums": writes[-1],
        **extra_arguments,
        **{export: Code(tile, export) for export in Tile.exports},
        "y_image": y.strides[0],
        "y_line": y.strides[2],
        "y_pixel": y.strides[3],
        "images": n,
        "groups": op.groups,
        "depth": depth,
        "columns": columns,
        "panel": panel,
        "panels": panels,
        "tiles_w": tiles_w,
        "tiles": tiles,
        "block_tiles": block_tiles,
        "image_blocks": image_blocks,
        "block_images": block_images,
        "blocks": blocks,
        "chunks": chunks,
        "block_stride": 1,
        "chunk_stride": blocks,
        "prefetch": 1,
    }
    ctx.call(
        kernel,
        op.groups * blocks * chunks,
        only_declared(kernel, arguments),
        [x, *tensors],
        writes,
        region,
        layer.origin,
        algorithm=choice.kernel,
        scratch=scratch_floats(m, block_tiles, depth, panel, ctx.target.vector),
        work=2 * n * height * width * channels * depth * 9,
    )


def _chunks(ctx: Lowering, tasks: int, panels: int) -> int:
    """Chunks of panels: none while there are tasks enough, since each chunk repeats the input
    transform."""
    if ctx.threads == 1 or tasks >= ctx.threads:
        return 1
    return min(panels, -(-ctx.threads // tasks)) if tasks else 1


def _depthwise(ctx: Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Conv2d)
    x, y = ctx.rows_view(layer.x), ctx.result(layer.result)
    n, channels, height, width = y.shape
    _, _, *taps = ctx.shape(layer.weight)
    kernel = Depthwise(layer.epilogue.body)
    extra_arguments, tensors = layer.epilogue.bind(ctx, 1, ctx.target.vector)
    region, inputs = ctx.region(layer.origin, [x, *tensors])
    region.set_outputs([layer.append(region, inputs[0], inputs[1:])])
    shape, name = ctx.shape(layer.weight), layer.weight.name
    arguments: dict[str, ArgumentValue] = {
        **geometry(x, (height, width)),
        **window((taps[0], taps[1]), op.stride, op.padding),
        "weights": ctx.weights(layer.weight.recipe, Taps(), shape, name),
        "bias": bias_of(ctx, layer, 1, ctx.target.vector),
        "y": y,
        **extra_arguments,
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
        "channels": channels,
        "y_image": y.strides[0],
        "y_line": y.strides[2],
        "y_pixel": y.strides[3],
        "weight_tap": channels,
    }
    ctx.call(
        kernel,
        n * height,
        only_declared(kernel, arguments),
        [x, *tensors],
        [y],
        region,
        layer.origin,
        algorithm="depthwise",
        work=2 * n * height * width * channels * taps[0] * taps[1],
    )
