"""One op at a time, of every kind there is, over shapes, attributes and numbers of all sorts.

A case is not only the op: operands lie in memory in unusual orders, and what follows (an
activation, an added tensor) is fused into it. Families of ops that have further rules of their own
are in modules beside this one, each with its cases and errors.
"""

from __future__ import annotations

from math import prod

from graph_builder import sizes

from lucid.codegen.scheduling.conv_shape import ConvShape, matrices
from lucid.codegen.scheduling.schedule import legal_kernels
from lucid.errors import LucidError
from lucid.ir import BATCH, Op, Value, ops
from lucid.ir.ops import OPS
from lucid.ir.types import INTEGERS, NUMBERS

from .attributes import drawn
from .draw import Draw
from .maker import GENERATORS, Make, Maker, OpCase, drawn_window, makes
from .values import fill


def generator(name: str) -> Make:
    """What makes a case of an op: a function of its own, or that of all ops of one or two operands
    that are elementwise."""
    if name in GENERATORS:
        return GENERATORS[name]
    families: dict[type[Op], Make] = {ops.Unary: _unary, ops.Binary: _binary}
    found = ops.nearest(families, ops.op_class(name))
    assert found is not None, f"nothing makes a case of {name}"
    return found


# -- elementwise ----------------------------------------------------------------------------------


def _example(make: Maker) -> Op:
    """The elementwise op wanted, with some of its attributes."""
    cls = ops.op_class(make.op)
    assert issubclass(cls, ops.Elementwise)
    return make.draw.pick(cls.examples())


def _unary(make: Maker) -> Value:
    x = make.array(*make.draw.shape(0, 5))
    return make.followed(make.apply(_example(make), x))


def _thin(make: Maker, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Some dimensions of the shape as 1."""
    return tuple(1 if make.draw.chance(0.4) else d for d in shape)


def _beside(make: Maker, shape: tuple[int, ...]) -> Value:
    """What broadcasts with (N, *shape): computed, a parameter, or a number."""
    if make.dtype != "f32" and make.draw.chance(0.5):
        return make.number(make.dtype)
    if make.dtype != "f32":
        return make.array(*_thin(make, shape))
    match make.draw.integer(0, 3):
        case 0 | 1:
            return make.array(*_thin(make, shape))
        case 2:
            thin = _thin(make, shape)
            return make.weight(*thin[make.draw.integer(0, max(0, len(thin) - 1)) :])
    return make.apply(ops.Constant(make.draw.pick([0.0, 1.0, -0.5, 2.0, 3.3, -0.0])))


def _binary(make: Maker) -> Value:
    shape = make.draw.shape(0, 4)
    pair = [make.array(*shape), _beside(make, shape)]
    if make.draw.chance(0.1):
        pair[1] = pair[0]
    return make.followed(make.apply(_example(make), *make.draw.shuffled(pair)))


@makes("where")
def _where(make: Maker) -> Value:
    shape = make.draw.shape(0, 4)
    kind = make.draw.pick(["integers", make.kind])
    condition = make.array(*_thin(make, shape), kind=kind, dtype="f32")
    if make.draw.chance(0.4):
        bound = make.apply(ops.Constant(0.25))
        condition = make.apply(make.draw.pick([ops.Less(), ops.LessEqual()]), condition, bound)
    return make.followed(
        make.apply(ops.Where(), condition, make.array(*shape), _beside(make, shape))
    )


@makes("cast")
def _cast(make: Maker) -> Value:
    """Integers to floats and to others, and floats (finite ones of moderate size) to integers."""
    draw = make.draw
    shape = draw.shape(1, 4)
    if draw.chance(0.6):
        x = make.array(*shape, dtype=draw.pick(INTEGERS))
        return make.followed(make.apply(ops.Cast(draw.pick([*NUMBERS, "f32", "bool"])), x))
    x = make.array(*shape, kind=draw.pick(["normal", "offset", "integers"]))
    return make.followed(make.apply(ops.Cast(draw.pick([*INTEGERS, "bool", "f16", "f64"])), x))


@makes("constant")
def _constant(make: Maker) -> Value:
    """A table beside an operand."""
    shape = make.draw.shape(1, 2, most=40)
    table = fill(make.draw, shape, "normal")
    x = make.array(*shape)
    rows = table.tolist()
    value = tuple(map(tuple, rows)) if len(shape) == 2 else tuple(rows)
    return make.followed(make.apply(ops.Mul(), x, make.apply(ops.Constant(value))))


# -- convolutions and products --------------------------------------------------------------------


@makes("conv2d", "fusion")
def _conv(make: Maker) -> Value:
    draw = make.draw
    styles = ["pointwise", "3x3", "3x3", "dilated", "any", "depthwise", "grouped", "strided"]
    style = draw.pick(styles)
    groups = 1
    if style == "depthwise":
        inner = draw.pick([1, 1, 1, 2, 4, 8])
        groups = max(2, draw.channels(100 // inner))
        channels, out = groups * inner, groups * (inner if draw.chance(0.8) else 2 * inner)
    elif style == "grouped":
        groups = draw.pick([2, 2, 3, 4, 8])
        channels, out = groups * draw.pick([3, 5, 8, 16, 17]), groups * draw.pick([1, 3, 16, 20])
    else:
        channels, out = draw.channels(), draw.channels()
    x = make.image(channels)
    if prod(sizes(x)) * out * max(1, make.batch) // groups > 4_000_000:
        out = groups * draw.integer(1, 3)
    window = drawn_window(
        make,
        x,
        *{
            "pointwise": ([1], [1]),
            "3x3": ([3], [1]),
            "dilated": ([3], [2, 3, 6]),
            "strided": ([1], [1]),
        }.get(style, ([1, 2, 3, 3, 5, 7], [1, 1, 1, 2, 3])),
    )
    if style == "pointwise":
        window |= {"stride": (1, 1), "padding": (0, 0, 0, 0)}
    if style in ("3x3", "dilated") and draw.chance(0.8):  # what Winograd takes
        window["stride"] = (1, 1)
        if style == "dilated":
            window["padding"] = tuple(d * draw.integer(1, 2) for d in window["dilation"] * 2)
    y = make.build.conv(x, out, bias=draw.chance(0.5), groups=groups, **window)
    node = y.producer
    assert node is not None
    legal = legal_kernels(ConvShape.of(node, make.batch))
    make.kernels[node.origin] = draw.pick(legal)
    return make.followed(y)


@makes("linear")
def _linear(make: Maker) -> Value:
    inner, outer = make.draw.channels(), make.draw.channels()
    x = make.array(*make.draw.shape(0, 2, most=40), inner)
    y = make.build.linear(x, outer, make.draw.chance(0.6))
    if y.producer in matrices(make.build.graph):
        make.kernels[y.producer.origin] = make.draw.pick(
            legal_kernels(ConvShape.of(y.producer, make.batch))
        )
    return make.followed(y)


@makes("matmul")
def _matmul(make: Maker) -> Value:
    draw = make.draw
    outer = draw.shape(0, 2, most=6)
    rows, depth, columns = (draw.pick([1, 2, 3, 5, 7, 16, 17, 33, 64, 70]) for _ in range(3))
    a = make.array(*outer, rows, depth)
    b = make.array(*_thin(make, outer), depth, columns)
    return make.followed(make.apply(ops.MatMul(), a, b))


# -- reductions and norms -------------------------------------------------------------------------


def _axes(make: Maker, rank: int) -> tuple[int, ...]:
    """Some axes, at least one, seldom the batch among them."""
    first = 0 if make.draw.chance(0.05) and make.batch else 1
    axes = make.draw.some(range(first, rank)) or [rank - 1]
    return tuple(make.draw.shuffled(axes))


@makes("sum", "mean", "sum_squares", "prod", "max", "min")
def _reduction(make: Maker) -> Value:
    draw = make.draw
    if draw.chance(0.3):  # few results of much: cut into parts that are put together
        make.batch = min(make.batch, 3)
        x = make.array(
            draw.pick([64, 96, 130]), draw.pick([60, 128, 201]), draw.pick([1, 3, 8, 17])
        )
        axes = draw.pick([(1, 2), (1, 2), (1, 2, 3), (1,)])
    else:
        x = make.array(*draw.shape(1, 4, most=draw.pick([6000, 90_000])))
        axes = _axes(make, x.type.rank)
    return make.followed(make.apply(drawn(draw, OPS[make.op], axes=axes), x))


@makes("arg_max", "arg_min")
def _arg_max(make: Maker) -> Value:
    x = make.array(*make.draw.shape(1, 4))
    axis = make.draw.integer(1, x.type.rank - 1)
    return make.apply(drawn(make.draw, OPS[make.op], axis=axis), x)


@makes("softmax")
def _softmax(make: Maker) -> Value:
    x = make.array(*make.draw.shape(1, 4))
    return make.followed(make.apply(ops.Softmax(make.draw.integer(1, x.type.rank - 1)), x))


@makes("batch_norm")
def _batch_norm(make: Maker) -> Value:
    x = make.array(make.draw.channels(), *make.draw.shape(0, 2, most=100))
    y = make.build.batch_norm(x)
    norm = y.producer
    assert norm is not None
    return make.followed(make.apply(drawn(make.draw, ops.BatchNorm), *norm.inputs))


@makes("layer_norm", "rms_norm")
def _layer_norm(make: Maker) -> Value:
    x = make.array(*make.draw.shape(1, 4))
    axes = tuple(a for a in _axes(make, x.type.rank) if a) or (x.type.rank - 1,)
    if make.draw.chance(0.35):
        return make.followed(_written_out(make, x, make.op == "layer_norm"))
    shape = [sizes(x)[a] for a in axes]
    count = make.draw.integer(0, 2 if make.op == "layer_norm" else 1)
    op = drawn(make.draw, OPS[make.op], axes=axes)
    return make.followed(make.apply(op, x, *(make.weight(*shape) for _ in range(count))))


def _written_out(make: Maker, x: Value, centred: bool) -> Value:
    """A norm in primitive ops, at times of the whole batch, which is no norm then."""
    axes = _axes(make, x.type.rank)
    if make.batch and make.draw.chance(0.4):
        axes = tuple(sorted({0, *axes}))
    average = ops.Mean(axes, keepdims=True)
    y = make.apply(ops.Sub(), x, make.apply(average, x)) if centred else x
    squares = make.apply(average, make.apply(ops.Mul(), y, y))
    epsilon = make.apply(ops.Constant(make.draw.pick([1e-5, 0.1])))
    root = make.apply(ops.Rsqrt(), make.apply(ops.Add(), squares, epsilon))
    return make.apply(ops.Mul(), *make.draw.shuffled([y, root]))


@makes("group_norm")
def _group_norm(make: Maker) -> Value:
    channels = make.draw.channels()
    if make.draw.chance(0.6):
        x = make.image(channels)
    else:
        x = make.array(channels, *make.draw.shape(0, 2, most=100))
    op = drawn(make.draw, ops.GroupNorm, groups=make.draw.divisor(channels))
    return make.followed(make.apply(op, x, make.weight(channels), make.weight(channels)))


@makes("local_response_norm")
def _local_response(make: Maker) -> Value:
    x = make.array(make.draw.channels(), *make.draw.shape(0, 2, most=100))
    op = drawn(make.draw, ops.LocalResponseNorm, size=make.draw.integer(1, 7))
    return make.followed(make.apply(op, x))


# -- windows --------------------------------------------------------------------------------------


@makes("conv1d", "conv3d")
def _over_axes(make: Maker) -> Value:
    """Over lines and volumes: of any groups, with windows that are flat, deep, or of one pixel."""
    draw, axes = make.draw, 1 if make.op == "conv1d" else 3
    groups = draw.pick([1, 1, 1, 2, 3, 8])
    inner = draw.pick([1, 1, 2, 3, 8, 16, 17] if groups > 1 else [1, 2, 3, 4, 8, 16, 17, 40])
    own = draw.pick([1, 2, 8, 16, 19])
    pool = [1, 2, 5, 16, 33, 150] if axes == 1 else [1, 2, 3, 4, 5, 7, 9]
    x = make.array(groups * inner, *(draw.pick(pool) for _ in range(axes)))
    kernels = draw.pick([[1, 3], [3], [1, 2, 3, 5], [1]])
    window = drawn_window(make, x, kernels, [1, 1, 1, 2])
    taps = window.pop("kernel")
    if kernels == [3] and draw.chance(0.7):  # what Winograd takes
        window |= {"stride": (draw.pick([1, 2]), 1, 1)[-axes:], "dilation": (1,) * axes}
    weight = make.weight(groups * own, inner, *taps)
    bias = [make.weight(groups * own)] if draw.chance(0.5) else []
    op = ops.op_class(make.op)(**window, groups=groups)
    y = make.apply(op, x, weight, *bias)
    assert y.producer is not None
    legal = legal_kernels(ConvShape.of(y.producer, make.batch))
    make.kernels[y.producer.origin] = draw.pick(legal)
    return make.followed(y)


@makes("max_pool_indices")
def _max_pool_indices(make: Maker) -> Value:
    draw = make.draw
    axes = draw.integer(1, 3)
    x = make.array(draw.pick([1, 3, 8, 17]), *(draw.pick([1, 2, 4, 7, 9]) for _ in range(axes)))
    window = drawn_window(make, x, [1, 2, 3, 3], [1, 1, 2])
    return make.apply(drawn(draw, ops.MaxPoolIndices, **window), x)


@makes("max_pool2d", "avg_pool2d")
def _pool(make: Maker) -> Value:
    draw = make.draw
    x = make.image()
    largest = make.op == "max_pool2d"
    window = drawn_window(make, x, [1, 2, 3, 3, 5, 7], [1, 1, 2] if largest else [1, 1, 1, 2])
    if largest:  # as torch: no window lies in the padding alone
        return make.followed(make.apply(drawn(draw, ops.MaxPool2d, **window), x))
    y = make.apply(drawn(draw, ops.AvgPool2d, **window), x)
    if draw.chance(0.4):  # its divisor may go into the weights
        y = make.build.conv(y, draw.channels(64), bias=draw.chance(0.5))
    return make.followed(y)


@makes("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive(make: Maker) -> Value:
    x = make.image()
    size = (make.draw.integer(1, 9), make.draw.integer(1, 9))
    average = make.op == "adaptive_avg_pool2d"
    op = ops.AdaptiveAvgPool2d(size) if average else ops.AdaptiveMaxPool2d(size)
    return make.followed(make.apply(op, x))


# -- attention ------------------------------------------------------------------------------------


@makes("radix_mean")
def _radix_mean(make: Maker) -> Value:
    radix = make.draw.integer(1, 4)
    x = make.image(radix * make.draw.channels(64))
    return make.followed(make.apply(ops.RadixMean(radix), x))


@makes("radix_softmax")
def _radix_softmax(make: Maker) -> Value:
    radix, cardinality = make.draw.integer(1, 4), make.draw.integer(1, 3)
    z = make.array(radix * cardinality * make.draw.channels(64), 1, 1)
    return make.apply(ops.RadixSoftmax(radix, cardinality), z)


@makes("radix_combine")
def _radix_combine(make: Maker) -> Value:
    radix = make.draw.integer(1, 4)
    channels = make.draw.channels(64)
    folded = radix == 2 and make.draw.chance(0.5)
    x = make.image(radix * channels)
    gate = make.array(channels if folded else radix * channels, 1, 1)
    return make.followed(make.apply(ops.RadixCombine(radix, folded), x, gate))


@makes("split_attention")
def _split_attention(make: Maker) -> Value:
    draw = make.draw
    radix, cardinality = draw.pick([(1, 1), (2, 1), (2, 1), (2, 2), (3, 1), (4, 2), (1, 2)])
    channels = cardinality * draw.channels(48)
    hidden = cardinality * draw.pick([1, 3, 8, 17])
    gate = "softmax" if radix > 1 else draw.pick(["sigmoid", "hardsigmoid"])
    folded = radix == 2 and draw.chance(0.3)
    out = channels if folded else radix * channels
    x = make.image(radix * channels)
    weights = [
        make.weight(hidden, channels // cardinality, 1, 1),
        make.weight(hidden),
        make.weight(out, hidden // cardinality, 1, 1),
        make.weight(out),
    ]
    activation = draw.pick([ops.Relu(), ops.Relu(), ops.Silu()])
    op = ops.SplitAttention(radix, cardinality, activation, gate, folded)
    return make.followed(make.apply(op, x, *weights))


# -- what moves numbers ---------------------------------------------------------------------------


@makes("reshape")
def _reshape(make: Maker) -> Value:
    shape = make.draw.shape(1, 4)
    x = make.array(*shape)
    left, parts = prod(shape), []
    while left > 1 and len(parts) < 3:
        parts.append(make.draw.divisor(left))
        left //= parts[-1]
    return make.followed(make.apply(ops.Reshape((BATCH, *make.draw.shuffled([*parts, left]))), x))


@makes("permute")
def _permute(make: Maker) -> Value:
    shape = make.draw.shape(1, 4)
    x = make.array(*shape)
    axes = (0, *make.draw.shuffled(range(1, len(shape) + 1)))
    return make.followed(make.apply(ops.Permute(axes), x))


@makes("concat")
def _concat(make: Maker) -> Value:
    shape = list(make.draw.shape(1, 4, most=2000))
    axis = make.draw.integer(1, len(shape))
    parts = []
    for _ in range(make.draw.integer(1, 4)):
        shape[axis - 1] = make.draw.pick([1, 2, 3, 8, 16, 17])
        part = make.array(*shape)
        parts.append(make.apply(ops.Abs(), part) if make.draw.chance(0.4) else part)
    return make.followed(make.apply(ops.Concat(axis), *parts))


@makes("slice")
def _slice(make: Maker) -> Value:
    shape = make.draw.shape(1, 4)
    x = make.array(*shape)
    axis = make.draw.integer(1, len(shape))
    start = make.draw.integer(0, shape[axis - 1] - 1)
    stop = make.draw.integer(start + 1, shape[axis - 1])
    return make.followed(make.apply(ops.Slice(axis, start, stop, make.draw.integer(1, 3)), x))


@makes("expand")
def _expand(make: Maker) -> Value:
    shape = make.draw.shape(1, 4, most=3000)
    x = make.array(*_thin(make, shape))
    return make.followed(make.apply(ops.Expand((BATCH, *shape)), x))


@makes("pad")
def _pad(make: Maker) -> Value:
    draw = make.draw
    shape = draw.shape(1, 4, most=2000)
    mode = draw.pick(["constant", "constant", "reflect", "edge", "wrap"])
    most = [min(3, d - 1) if mode == "reflect" else 3 for d in shape]
    before = tuple(draw.integer(0, m) if draw.chance(0.6) else 0 for m in most)
    after = tuple(draw.integer(0, m) if draw.chance(0.6) else 0 for m in most)
    border = draw.pick([0.0, -1.5, 1e30] if make.dtype == "f32" else [0.0, 1.0, 100.0])
    op = ops.Pad((0, *before), (0, *after), border, mode)
    return make.followed(make.apply(op, make.array(*shape)))


@makes("gather")
def _gather(make: Maker) -> Value:
    shape = make.draw.shape(1, 4, most=2000)
    axis = make.draw.integer(1, len(shape))
    size = shape[axis - 1]
    order = tuple(make.draw.integer(-size, size - 1) for _ in range(make.draw.integer(1, 6)))
    indices = make.apply(ops.Constant(order, "i64"))
    return make.followed(make.apply(ops.Gather(axis), make.array(*shape), indices))


# -- any of them ----------------------------------------------------------------------------------

HEAVY = (
    ["conv2d"] * 12
    + ["conv3d"] * 4
    + ["conv1d"] * 2
    + ["matmul", "max_pool2d", "avg_pool2d", "split_attention"] * 3
)
HEAVY += ["linear", "sum", "mean", "max", "resize", *["softmax", "group_norm"] * 4]
HEAVY += ["layer_norm", "rms_norm"] * 2
"""Ops that take more cases than others: they have several kernels."""


def op_case(seed: int, name: str | None = None) -> OpCase:
    """The case of this seed; of the op `name`, where one is asked for."""
    draw = Draw(seed)
    chosen = name or draw.pick([*OPS, *HEAVY])
    draw.empty = draw.chance(0.04)
    try:
        make = Maker(draw, chosen)
        return make.finish(generator(chosen)(make))
    except (ValueError, IndexError, LucidError):  # not every op takes arrays without numbers
        if not draw.empty:
            raise
    make = Maker(Draw(seed), chosen)
    return make.finish(generator(chosen)(make))
