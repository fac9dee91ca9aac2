"""Lowering of depthwise convolutions."""

from __future__ import annotations

from lucid.codegen.kernels.windows import Depthwise
from lucid.codegen.lowering.context import Lowering
from lucid.codegen.lowering.epilogue import only_declared
from lucid.codegen.lowering.layer import Layer, bias_of, geometry, result_strides, window
from lucid.codegen.packing import Taps
from lucid.codegen.program import ArgumentValue
from lucid.ir.ops import Conv2d


def depthwise(ctx: Lowering, layer: Layer) -> None:
    """The layer as one `Depthwise` call."""
    op = layer.op
    assert isinstance(op, Conv2d)
    x, y = ctx.rows_view(layer.x), ctx.result(layer.result)
    n, channels, height, width = y.shape
    _, _, *taps = ctx.shape(layer.weight)
    kernel = Depthwise(layer.epilogue.body)
    extra_arguments, tensors = layer.epilogue.bind(ctx, 1, ctx.target.vector, beside=y)
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
        **result_strides(y),
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
