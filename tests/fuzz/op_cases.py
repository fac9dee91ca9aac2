"""One op at a time, of every kind there is, over shapes, attributes and numbers of all sorts.

`GENERATORS` has a function for each op of the registry. What it makes is not only the op: operands
lie in memory in unusual orders, and what follows (an activation, an added tensor) is fused into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from graph_builder import Builder, sizes

from lucid.codegen.scheduling.schedule import ConvShape, legal_kernels
from lucid.errors import LucidError
from lucid.ir import BATCH, Graph, Op, TensorType, Value, f32, ops
from lucid.ir.ops import OPS
from lucid.ir.ops.windows import extent
from lucid.ir.types import INTEGERS, NUMBERS

from .attributes import drawn
from .draw import BATCHES, Draw
from .values import KINDS, WILD, Array, fill, whole
from .views import behind

Make = Callable[["Maker"], Value | Sequence[Value]]
GENERATORS: dict[str, Make] = {}
"""By the op's name in IR text, what makes a case of it; see `generator` for elementwise ones."""


@dataclass
class OpCase:
    """A graph about one op, its inputs, and how it is compiled. `kernels`: forced, by origin."""

    name: str
    seed: int
    graph: Graph
    inputs: list[Array]
    batch: int
    kernels: dict[str, str] = field(default_factory=dict)


def makes(*names: str) -> Callable[[Make], Make]:
    def register(function: Make) -> Make:
        GENERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def generator(name: str) -> Make:
    """What makes a case of an op: a function of its own, or that of all ops of one or two operands
    that are elementwise."""
    if name in GENERATORS:
        return GENERATORS[name]
    families: dict[type[Op], Make] = {ops.Unary: _unary, ops.Binary: _binary}
    found = ops.nearest(families, ops.op_class(name))
    assert found is not None, f"nothing makes a case of {name}"
    return found


class Maker:
    """A case being made: `op` is the name of the op wanted, `dtype` that of its operands."""

    def __init__(self, draw: Draw, op: str) -> None:
        self.draw, self.op = draw, op
        self.dtype = dtype_of(draw, ops.op_class(op))
        self.build = Builder(draw.seed)
        self.batch = draw.pick(BATCHES)
        self.kind = draw.pick(WILD if draw.chance(0.25) else KINDS)
        self.inputs: list[Array] = []
        self.kernels: dict[str, str] = {}

    # -- operands ---------------------------------------------------------------------------

    def array(
        self,
        *shape: int,
        batched: bool = True,
        kind: str | None = None,
        dtype: str | None = None,
    ) -> Value:
        """An operand (N, *shape), behind any chain of views."""
        place, steps = behind(self.draw, (*([BATCH] if batched else []), *shape))
        dtype = dtype or self.dtype
        x = self.build.graph.add_input(TensorType(dtype, place))
        sizes = x.type.concrete(self.batch)
        is_float = dtype == "f32"
        numbers = fill(self.draw, sizes, kind or self.kind) if is_float else None
        self.inputs.append(whole(self.draw, sizes, dtype) if numbers is None else numbers)
        for step in steps:
            x = step(self.build.apply, x)
        return x

    def image(self, channels: int | None = None, least: int = 1, kind: str | None = None) -> Value:
        """A map (N, C, H, W)."""
        channels = channels or self.draw.channels()
        return self.array(channels, *self.draw.image(channels, self.batch, least), kind=kind)

    def weight(self, *shape: int, positive: bool = False) -> Value:
        name = self.build.next_origin("weight")
        value = self.build.weight(name, *shape, positive=positive)
        if self.draw.chance(0.1):
            kind = self.draw.pick(["integers", "zeros", "wide"]) if not positive else "positive"
            self.build.payload[name] = fill(self.draw, shape, kind)
        return value

    def indices(self, size: int, *shape: int, batched: bool = True) -> Value:
        """An operand i64 (N, *shape) of indices along an axis."""
        kind = TensorType("i64", (*([BATCH] if batched else []), *shape))
        self.inputs.append(self.draw.arrays.integers(-size, size, kind.concrete(self.batch)))
        return self.build.graph.add_input(kind)

    def apply(self, op: Op, *operands: Value) -> Value:
        return self.build.apply(op, *operands, origin=self.build.next_origin(self.op))

    def apply_all(self, op: Op, *operands: Value) -> list[Value]:
        """The results of an op that has several."""
        origin = self.build.next_origin(self.op)
        return self.build.graph.append(op, operands, origin=origin).outputs

    # -- what follows -----------------------------------------------------------------------

    def followed(self, y: Value) -> Value:
        """What may be fused into the op: activations, an added or multiplied tensor."""
        draw = self.draw
        while y.type.dtype in INTEGERS and draw.chance(0.35):
            y = self._followed_by_whole(y)
        while y.type.dtype == "f32" and draw.chance(0.35):
            match draw.integer(0, 4):
                case 0 | 1:
                    y = self.apply(draw.pick(FOLLOWING), y)
                case 2 if len(y.type.shape) > 1:
                    other = self.array(*sizes(y)[1:], dtype="f32")
                    pair = draw.shuffled([y, other])
                    y = self.apply(draw.pick([ops.Add(), ops.Add(), ops.Mul(), ops.Sub()]), *pair)
                case 3 if len(y.type.shape) == 4:
                    scale = self.weight(sizes(y)[1], 1, 1, positive=True)
                    y = self.apply(draw.pick([ops.Mul(), ops.Add()]), y, scale)
                case 4:
                    number = self.apply(ops.Constant(draw.pick([0.5, -1.25, 3.0])))
                    y = self.apply(draw.pick([ops.Mul(), ops.Add(), ops.Maximum()]), y, number)
        return y

    def _followed_by_whole(self, y: Value) -> Value:
        """What may be fused into an op of integers, a cast to floats at times."""
        draw, dtype = self.draw, y.type.dtype
        match draw.integer(0, 4):
            case 0 if draw.chance(0.5):
                return self.apply(ops.Cast("f32"), y)
            case 1:
                return self.apply(draw.pick(FOLLOWING_WHOLE), y)
            case 2 if len(y.type.shape) > 1:
                other = self.array(*sizes(y)[1:], dtype=dtype)
                return self.apply(draw.pick(PAIRS), *draw.shuffled([y, other]))
        return self.apply(draw.pick(PAIRS), *draw.shuffled([y, self.number(dtype)]))

    def number(self, dtype: str) -> Value:
        """An integer as a constant."""
        return self.apply(ops.Constant(whole(self.draw, (), dtype).item(), dtype))

    def finish(self, made: Value | Sequence[Value]) -> OpCase:
        outputs = [made] if isinstance(made, Value) else list(made)
        producer = outputs[0].producer
        if self.draw.chance(0.1) and producer is not None and producer.inputs:
            first = producer.inputs[0]
            if first.producer is not None and first.type.dtype in NUMBERS:
                outputs.append(first)
        self.build.graph.set_outputs(outputs)
        if all(BATCH not in v.type.shape for v in self.build.graph.inputs):  # nobody says how large
            self.build.graph.add_input(f32(BATCH))
            self.inputs.append(np.zeros(self.batch, np.float32))
        case = OpCase(self.op, self.draw.seed, self.build.graph, self.inputs, self.batch)
        case.kernels = self.kernels
        return case


FOLLOWING: list[Op] = [
    *(ops.Relu(), ops.Clip(0, 6), ops.Silu(), ops.Sigmoid(), ops.Hardswish(), ops.Gelu()),
    *(ops.Tanh(), ops.LeakyRelu(0.1), ops.Abs(), ops.Neg()),
]

FOLLOWING_WHOLE: list[Op] = [ops.Neg(), ops.Abs(), ops.Sign(), ops.BitwiseNot()]
PAIRS: list[Op] = [
    *(ops.Add(), ops.Sub(), ops.Mul(), ops.Maximum(), ops.BitwiseXor(), ops.Div(), ops.Mod()),
    *(ops.ShiftLeft(), ops.ShiftRight(), ops.Pow()),
]
MOVING = (ops.Reshape, ops.Permute, ops.Concat, ops.Slice, ops.Expand, ops.Pad, ops.Gather)


def dtype_of(draw: Draw, cls: type[Op]) -> str:
    """One that an op takes: float32, where it does, more often than all others together."""
    taken = NUMBERS if issubclass(cls, (*MOVING, ops.Where)) else cls.takes
    if "f32" in taken and (len(taken) == 1 or draw.chance(0.65)):
        return "f32"
    return draw.pick([name for name in taken if name != "f32"])


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


def _window(make: Maker, x: Value, kernels: list[int], dilations: list[int]) -> dict[str, Any]:
    """Kernel, stride, dilation and paddings that leave at least one window."""
    draw = make.draw
    fields: dict[str, list[int]] = {"kernel": [], "stride": [], "dilation": []}
    before, after = [], []
    for size in sizes(x)[2:]:
        kernel, dilation = draw.pick(kernels), draw.pick(dilations)
        reach = dilation * (kernel - 1) + 1
        same = draw.chance(0.4)
        pads = [reach // 2] * 2 if same else [draw.integer(0, reach - 1) for _ in range(2)]
        lacking = reach - size - sum(pads)
        pads[1] += max(0, lacking)
        before.append(pads[0])
        after.append(pads[1])
        fields["kernel"].append(kernel)
        fields["stride"].append(draw.pick([1, 1, 1, 2, 2, 3, 5]))
        fields["dilation"].append(dilation)
    window: dict[str, Any] = {name: tuple(value) for name, value in fields.items()}
    return window | {"padding": (*before, *after)}


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
    window = _window(
        make,
        x,
        *{
            "pointwise": ([1], [1]),
            "3x3": ([3], [1]),
            "dilated": ([3], [2, 3]),
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
    return make.followed(make.build.linear(x, outer, make.draw.chance(0.6)))


@makes("rnn", "gru", "lstm")
def _recurrent(make: Maker) -> Value:
    """With states of zeros or given, and with sequences of all lengths or of their own."""
    draw, cell = make.draw, drawn(make.draw, OPS[make.op])
    assert isinstance(cell, ops.Recurrent)
    steps, depth, size = draw.integer(1, 5), draw.channels(), draw.pick([1, 2, 7, 8, 16, 19, 40])
    d, columns = cell.directions, cell.gates * size
    operands = [
        make.array(steps, depth),
        make.weight(d, columns, depth),
        make.weight(d, columns, size),
        make.weight(d, 2 * columns),
    ]
    for _ in range(cell.states):
        zeros = make.apply(ops.Constant(0.0))
        expanded = make.apply(ops.Expand((BATCH, d, size)), zeros)
        operands.append(expanded if draw.chance(0.5) else make.array(d, size))
    seen = isinstance(cell, ops.Lstm) and draw.chance(0.3)
    if seen or draw.chance(0.4):
        operands.append(make.apply(ops.ArgMax(1), make.array(steps + 1, kind="normal")))
    if seen:
        operands.append(make.weight(d, 3 * size))
    node = make.build.graph.append(cell, operands, origin=make.build.next_origin(make.op))
    return make.followed(draw.pick(node.outputs))


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
    window = _window(make, x, kernels, [1, 1, 1, 2])
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
    window = _window(make, x, [1, 2, 3, 3], [1, 1, 2])
    return make.apply(drawn(draw, ops.MaxPoolIndices, **window), x)


@makes("max_pool2d", "avg_pool2d")
def _pool(make: Maker) -> Value:
    draw = make.draw
    x = make.image()
    largest = make.op == "max_pool2d"
    window = _window(make, x, [1, 2, 3, 3, 5, 7], [1, 1, 2] if largest else [1, 1, 1, 2])
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
    return make.followed(make.apply(drawn(draw, ops.Resize, **fields), x))


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
    window = _window(make, x, [1, 2, 3, 3], [1, 1, 2])
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
    window = _window(make, image, [1, 2, 3], [1, 1, 2])
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
