"""The arguments that the kernels of layers share: epilogues, biases, maps, windows, sums."""

from __future__ import annotations

from lucid.codegen.kernels.body import Extra
from lucid.codegen.kernels.matrix_tile import MatrixTile
from lucid.codegen.kernels.microkernels import Tile, WindowTile
from lucid.codegen.kernels.packing import Channels
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.kernel import MAP, KernelSpec
from lucid.codegen.lowering.context import Lowering, row_stride
from lucid.codegen.lowering.epilogue import Epilogue
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.program.program import ArgumentValue, Code, View
from lucid.ir.graph import Parameter, Value
from lucid.ir.ops import Add, Cast, Constant, Mul, Sum
from lucid.ir.recipe import Apply, Recipe


def only_declared(
    kernel: KernelSpec, arguments: dict[str, ArgumentValue]
) -> dict[str, ArgumentValue]:
    """Those of the arguments that the kernel declares."""
    return {a.name: arguments[a.name] for a in kernel.arguments()}


def bind_extras(
    ctx: Lowering, epilogue: Epilogue, groups: int, width: int
) -> tuple[dict[str, ArgumentValue], list[View]]:
    """The arguments that kernels may declare for the extras, and the tensors among them as
    views: the stride from row to row, and for maps those of images, lines and pixels."""
    arguments: dict[str, ArgumentValue] = {}
    reads = []
    for i, (extra, value) in enumerate(zip(epilogue.body.extras, epilogue.extras, strict=True)):
        name = f"extra{i}"
        if extra.kind == "channel":
            assert isinstance(value, Parameter)
            packing = Channels(groups, width)
            shape = ctx.shape(value)
            arguments[name] = ctx.weights(value.recipe, packing, shape, value.name, extra.dtype)
            arguments[f"{name}_row"] = 0
        else:
            view = ctx.rows_view(value)
            arguments[name] = view
            arguments[f"{name}_row"] = row_stride(view) or 0
            if len(view.shape) == 4:
                image, _, line, pixel = view.strides
                steps = dict(zip(MAP, (image, line, pixel), strict=True))
                arguments |= {f"{name}_{axis}": step for axis, step in steps.items()}
            reads.append(view)
    return arguments, reads


def extra_of(ctx: Lowering, extra: Value, result: Value, axis: int) -> Extra | None:
    """How a kernel can read an extra operand of a body: as a tensor, by channel, which the result
    has along this axis, or not at all."""
    kind, shape, target = extra.type.dtype, ctx.shape(extra), ctx.shape(result)
    if not isinstance(extra, Parameter):
        return Extra("tensor", kind) if shape == target else None
    if len(shape) > len(target):
        return None
    ones = tuple(d if i == axis else 1 for i, d in enumerate(target))
    varies = len(shape) + axis >= len(target)
    return Extra("channel", kind) if varies and shape == ones[-len(shape) :] else None


def tile_codes(tile: Tile | WindowTile | MatrixTile) -> dict[str, ArgumentValue]:
    """The functions of a tile, and the rows of the tallest."""
    return {**{name: Code(tile, name) for name in tile.exports}, "tile_rows": tile.rows}


def bias_of(ctx: Lowering, layer: Layer, groups: int, width: int) -> ArgumentValue:
    """The packed bias, with what products of bytes leave out; zeros where the layer has none."""
    channels = (ctx.shape(layer.weight)[0],)
    recipe = layer.bias.recipe if layer.bias is not None else None
    name = layer.bias.name if layer.bias is not None else f"zeros{channels[0]}"
    if layer.as_bytes and (excess := ctx.target.byte_offset - layer.zero_point):
        recipe, name = _with_sums(recipe, layer.weight.recipe, excess), f"{layer.weight.name}.sums"
    packing = Channels(groups, width)
    return ctx.weights(recipe, packing, channels, name, layer.arithmetic.sums)


def _with_sums(bias: Recipe | None, weight: Recipe, excess: int) -> Recipe:
    """bias + excess * the sum of each column's weights, modulo 2^32: products are of x - offset,
    wanted are those of x - zero point."""
    axes = tuple(range(1, weight.type.rank))
    sums = Apply(Sum(axes), (Apply(Cast("i32"), (weight,)),))
    missing = Apply(Mul(), (sums, Apply(Constant(excess, "i32"))))
    return missing if bias is None else Apply(Add(), (bias, missing))


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


def result_strides(y: View) -> dict[str, ArgumentValue]:
    """Where the pixels of a result lie."""
    image, _, line, pixel = y.strides
    return {"y_image": image, "y_line": line, "y_pixel": pixel}


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


def enough_chunks(ctx: Lowering, layer: Layer, tasks: int, panels: int) -> int:
    """Into how many chunks to split the panels of `tasks` tasks: none while there are tasks enough,
    since each chunk repeats what goes before its products."""
    if layer.choice.chunks:
        return min(panels, layer.choice.chunks)
    if ctx.threads == 1 or tasks >= ctx.threads:
        return 1
    return min(panels, -(-ctx.threads // tasks)) if tasks else 1


def sums_view(ctx: Lowering, layer: Layer, parts: int) -> View:
    """Where the channel sums go, [image][part of the image][channel]."""
    n, channels, *_ = ctx.shape(layer.result)
    strides = (parts * channels, channels, 1)
    sums = ctx.allocate(f"{layer.result.name}.sums", COMPUTED, (n, parts, channels), strides)
    ctx.sums[layer.result] = sums
    return sums


def slice_arguments(layer: Layer, depth: int | None = None) -> dict[str, ArgumentValue]:
    """Of which slices of volumes the input channels of a group are; and how many of these `depth`
    channels each slice has, where the kernel wants to know."""
    if layer.slices is None:
        return {}
    slices = layer.slices
    arguments: dict[str, ArgumentValue] = {
        "taps_d": slices.taps,
        "stride_d": slices.stride,
        "pad_front": slices.padding,
        "dilation_d": slices.dilation,
        "volume": slices.volume,
        "out_volume": slices.out_volume,
    }
    if depth is not None:
        arguments["slice_channels"] = depth // slices.taps
    return arguments
