"""Cases of quantised tensors, and how far their results may be off.

Integers are exact: a sum, a table's entry or a rounded number is right or wrong. Only a number that
lies so near to the middle of two steps that float32 may see it on the other side may be either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from graph_builder import sizes

from lucid.codegen.scheduling.conv_shape import ConvShape
from lucid.codegen.scheduling.schedule import legal_kernels
from lucid.ir import TensorType, Value, ops
from lucid.ir.ops.integer_products import WEIGHTS, IntegerProduct
from lucid.ir.ops.quantisation import EIGHT_BITS, QUANTISED

from .attributes import drawn
from .errors import Known, Pair, U, rule
from .maker import Maker, drawn_window, makes
from .values import whole

OPS = [
    *["integer_conv2d"] * 6,
    *["integer_linear", "integer_sum_pool2d", "quantize", "dequantize", "saturate", "lookup"] * 2,
    "integer_matmul",
]
"""Those of the kind `quantised`, which takes only these, more often those with more kernels."""


# -- cases ----------------------------------------------------------------------------------------


def _table(make: Maker, dtype: str, *shape: int, least: int = -(2**31), most: int = 2**31) -> Value:
    """A parameter of integers between bounds."""
    name = make.build.next_origin("table")
    make.build.payload[name] = np.clip(whole(make.draw, shape, dtype), least, most)
    return make.build.graph.add_source(name, TensorType(dtype, shape))


def _scaled(make: Maker, dtype: str) -> tuple[Value, Value, int, int]:
    """A tensor with scales of each granularity: of all numbers, by an axis, by blocks; the axis,
    and how many numbers are in a block."""
    draw = make.draw
    if draw.chance(0.2):
        rows, columns, block = draw.integer(1, 9), draw.integer(1, 40), draw.integer(1, 9)
        x = make.array(rows, columns, batched=False, dtype=dtype)
        return x, make.weight(rows, -(-columns // block), positive=True), 1, block
    shape = draw.shape(1, 4)
    axis = draw.integer(1, len(shape))
    if draw.chance(0.6):  # a number, as files have it
        scale = make.apply(ops.Constant(draw.pick([0.1, 0.5, 0.037, 3.0])))
    else:
        scale = make.weight(*draw.pick([(), shape[axis - 1 : axis]]), positive=True)
    return make.array(*shape, dtype=dtype), scale, axis, 0


def _zero_points(make: Maker, dtype: str, scale: Value) -> list[Value]:
    """None, or what the numbers of a scale go with."""
    if make.draw.chance(0.3):
        return []
    if scale.producer is None:
        return [_table(make, dtype, *sizes(scale))]
    return [make.apply(ops.Constant(whole(make.draw, (), dtype).item(), dtype))]


@makes("quantize")
def _quantize(make: Maker) -> Value:
    dtype = make.draw.pick([*EIGHT_BITS, *QUANTISED])
    x, scale, axis, block = _scaled(make, "f32")
    zero_points = _zero_points(make, dtype, scale)
    return make.apply(ops.Quantize(dtype, axis, block), x, scale, *zero_points)


@makes("dequantize")
def _dequantize(make: Maker) -> Value:
    dtype = make.draw.pick([*EIGHT_BITS, *QUANTISED])
    x, scale, axis, block = _scaled(make, dtype)
    zero_points = _zero_points(make, dtype, scale)
    return make.followed(make.apply(ops.Dequantize(axis, block), x, scale, *zero_points))


@makes("saturate")
def _saturate(make: Maker) -> Value:
    draw = make.draw
    dtype = draw.pick([*EIGHT_BITS, *QUANTISED])
    x = make.array(*draw.shape(0, 5), dtype="f32")
    return make.apply(ops.Saturate(dtype, whole(draw, (), dtype).item()), x)


@makes("lookup")
def _lookup(make: Maker) -> Value:
    draw = make.draw
    x = make.array(*draw.shape(0, 5), dtype=draw.pick(EIGHT_BITS))
    if draw.chance(0.3):
        return make.followed(make.apply(ops.Lookup(), x, make.weight(256)))
    table = _table(make, draw.pick([*EIGHT_BITS, "i32"]), 256)
    return make.apply(ops.Lookup(), x, table)


def _weight(make: Maker, *shape: int) -> Value:
    """8-bit weights, or those of 16 bits that 8-bit ones less a zero point are."""
    return _table(make, make.draw.pick([WEIGHTS[0], *WEIGHTS]), *shape, least=-255, most=255)


def _product(make: Maker, op: IntegerProduct, x: Value, weight: Value) -> Value:
    """The sums, with a bias or without, and at times as an 8-bit tensor again."""
    draw = make.draw
    operands = [x, weight]
    if draw.chance(0.7):
        operands.append(_table(make, "i32", sizes(weight)[0], least=-(2**24), most=2**24))
    y = make.apply(op, *operands)
    if isinstance(op, ops.IntegerConv2d):
        assert y.producer is not None
        make.kernels[y.producer.origin] = draw.pick(
            legal_kernels(ConvShape.of(y.producer, make.batch))
        )
    return y if draw.chance(0.4) else _requantised(make, y)


def _requantised(make: Maker, y: Value) -> Value:
    """What stands behind sums of products: a multiplier, a residual, an activation, 8 bits."""
    draw = make.draw
    y = make.apply(ops.Cast("f32"), y)
    by_channel = (sizes(y)[1], 1, 1) if len(y.type.shape) == 4 else (sizes(y)[-1],)
    y = make.apply(ops.Mul(), y, make.weight(*by_channel, positive=True))
    y = make.apply(ops.Mul(), y, make.apply(ops.Constant(draw.pick([1.0, 0.01, 0.0009765625]))))
    if draw.chance(0.4):
        y = make.apply(ops.Add(), y, make.weight(*by_channel))
    if draw.chance(0.4) and len(y.type.shape) > 1:
        residual = make.array(*sizes(y)[1:], dtype=draw.pick(EIGHT_BITS))
        y = make.apply(ops.Add(), make.apply(ops.Cast("f32"), residual), y)
    if draw.chance(0.5):
        y = make.apply(draw.pick([ops.Relu(), ops.Clip(0.0, 6.0)]), y)
    if draw.chance(0.8):
        dtype = draw.pick(EIGHT_BITS)
        y = make.apply(ops.Saturate(dtype, whole(draw, (), dtype).item()), y)
    return y


def _bytes_as_they_are(make: Maker) -> Value:
    """What x86 multiplies without making 16-bit integers of it: no zero point, and channels in
    groups of eight."""
    draw = make.draw
    make.dtype = "u8"
    groups, depth = draw.pick([1, 1, 2]), draw.pick([8, 8, 16, 24, 40])
    out = groups * draw.pick([1, 3, 8, 17, 33])
    x = make.image(groups * depth)
    weight = _table(make, "i8", out, depth, 1, 1)
    stride = draw.pick([(1, 1), (1, 1), (2, 1)])
    return _product(make, ops.IntegerConv2d(stride, groups=groups), x, weight)


@makes("integer_conv2d")
def _integer_conv(make: Maker) -> Value:
    draw = make.draw
    if draw.chance(0.2):
        return _bytes_as_they_are(make)
    dtype = draw.pick(EIGHT_BITS)
    make.dtype = dtype
    groups = draw.pick([1, 1, 1, 2, 5])
    depthwise = draw.chance(0.25)
    channels = groups = draw.channels(40) if depthwise else groups * draw.pick([1, 3, 4, 8, 17])
    if not depthwise:
        groups = draw.pick([g for g in (1, 1, groups) if channels % g == 0])
    out = groups * draw.pick([1, 1, 2] if depthwise else [1, 3, 8, 16, 20])
    x = make.image(channels)
    window = drawn_window(make, x, [1, 1, 3, 3, 5], [1, 1, 1, 2])
    kernel = window.pop("kernel")
    if kernel == (3, 3) and draw.chance(0.7):  # what Winograd takes
        window |= {"stride": (1, 1), "dilation": (1, 1)}
    op = ops.IntegerConv2d(**window, groups=groups, zero_point=whole(draw, (), dtype).item())
    return _product(make, op, x, _weight(make, out, channels // groups, *kernel))


@makes("integer_linear")
def _integer_linear(make: Maker) -> Value:
    draw = make.draw
    dtype = draw.pick(EIGHT_BITS)
    shape = (*draw.shape(0, 2, most=12), draw.channels())
    op = ops.IntegerLinear(whole(draw, (), dtype).item())
    return _product(
        make, op, make.array(*shape, dtype=dtype), _weight(make, draw.channels(), shape[-1])
    )


@makes("integer_matmul")
def _integer_matmul(make: Maker) -> Value:
    draw = make.draw
    left, right = draw.pick(EIGHT_BITS), draw.pick(EIGHT_BITS)
    rows, depth, columns = (draw.pick([1, 3, 8, 17, 40]) for _ in range(3))
    a = make.array(rows, depth, dtype=left)
    b = make.array(depth, columns, dtype=right, batched=draw.chance(0.6))
    op = ops.IntegerMatMul(whole(draw, (), left).item(), whole(draw, (), right).item())
    return make.apply(op, a, b)


@makes("integer_sum_pool2d")
def _integer_sum_pool(make: Maker) -> Value:
    """As an average pool has it: divided by what each window counts, and 8 bits again."""
    draw = make.draw
    x = make.image()
    window = drawn_window(make, x, [1, 2, 3, 3, 5, 7], [1, 1, 1, 2])
    if draw.chance(0.3):  # of the whole image
        window |= {"kernel": sizes(x)[2:], "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    zero_point = whole(draw, (), x.type.dtype).item()
    y = make.apply(drawn(draw, ops.IntegerSumPool2d, **window, zero_point=zero_point), x)
    return y if draw.chance(0.4) else _requantised(make, y)


# -- errors ---------------------------------------------------------------------------------------


def _either(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What rounds to another integer if it is off by as much as it may be may be anything."""
    return np.where(low == high, 0.0, np.inf)


@rule(ops.Quantize)
def _quantized(op: ops.Quantize, x: Sequence[Known]) -> Pair:
    values = [k.value for k in x]
    off = x[0].error + 2 * U * np.abs(np.where(np.isfinite(values[0]), values[0], 0.0))
    low, high = (op.evaluate(values[0] + sign * off, *values[1:]) for sign in (-1, 1))
    return op.evaluate(*values), _either(low, high)


@rule(ops.Saturate)
def _saturated(op: ops.Saturate, x: Sequence[Known]) -> Pair:
    low, high = (op.evaluate(x[0].value + sign * x[0].error) for sign in (-1, 1))
    return op.evaluate(x[0].value), _either(low, high)


@rule(ops.Dequantize)
def _dequantized(op: ops.Dequantize, x: Sequence[Known]) -> Pair:
    value = op.evaluate(*(k.value for k in x))
    return value, 4 * U * np.abs(value)


@rule(ops.Lookup)
def _looked_up(op: ops.Lookup, x: Sequence[Known]) -> Pair:
    value = op.evaluate(x[0].value, x[1].value)
    return value, np.zeros(value.shape)


@rule(IntegerProduct, ops.IntegerMatMul, ops.IntegerSumPool2d)
def _summed(op: IntegerProduct | ops.IntegerMatMul, x: Sequence[Known]) -> Pair:
    off = any(k.error.any() for k in x)
    value = op.evaluate(*(k.value for k in x))
    return value, np.full(value.shape, np.inf if off else 0.0)
