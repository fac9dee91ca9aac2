"""Random graphs of what frameworks and exporters write: the idioms that passes are about."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from strategies import STEPS, Builder, Draw, sizes

from lucid.ir.graph import Graph, Value
from lucid.ir.ops import (
    Add,
    AvgPool2d,
    Clip,
    Concat,
    Constant,
    Conv2d,
    Dequantize,
    Div,
    Erf,
    Gelu,
    LayerNorm,
    MatMul,
    MaxPool2d,
    Mean,
    Mul,
    Pad,
    Permute,
    Quantize,
    Relu,
    Reshape,
    RmsNorm,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    Softplus,
    Sub,
    Sum,
    Tanh,
)
from lucid.ir.types import BATCH, TensorType


def constant(build: Builder, value: float) -> Value:
    return build.apply(Constant(value))


def channels_last(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A ConvNeXt block's end: a norm, two linears and a layer scale between permutes."""
    x = draw(st.sampled_from(values))
    channels, origin = sizes(x)[1], build.next_origin("mlp")
    y = build.apply(Permute((0, 2, 3, 1)), x)
    weights = [build.weight(f"{origin}.{k}", channels) for k in ("g", "b")]
    norm = draw(st.sampled_from([LayerNorm((3,)), RmsNorm((3,))]))
    most = 2 if isinstance(norm, LayerNorm) else 1
    y = build.apply(norm, y, *weights[: draw(st.integers(0, most))])
    y = build.apply(Gelu(), build.linear(y, 2 * channels, origin=f"{origin}.up"))
    if draw(st.booleans()):
        y = build.apply(Mul(), y, build.apply(Sum((1, 2), True), y))
    y = build.linear(y, channels, bias=draw(st.booleans()), origin=f"{origin}.down")
    y = build.apply(Mul(), y, build.weight(f"{origin}.gamma", channels))
    y = build.apply(Permute((0, 3, 1, 2)), y)
    return build.apply(Add(), x, y) if draw(st.booleans()) else y


def branches(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Parallel convolutions of one tensor, its batch norm and itself, added up."""
    x = draw(st.sampled_from(values))
    channels = sizes(x)[1]
    groups = draw(st.sampled_from([1, channels]))

    def branch(kind: str) -> Value:
        if kind == "norm":
            return build.batch_norm(x)
        if kind == "itself":
            return x
        if kind == "scaled":
            return build.apply(Mul(), x, build.weight(build.next_origin("s"), channels, 1, 1))
        size = 3 if kind == "square" else 1
        more = {"kernel": (size, size), "padding": (size // 2,) * 4, "groups": groups}
        y = build.conv(x, channels, bias=draw(st.booleans()), **more)
        return build.batch_norm(y) if draw(st.booleans()) else y

    kinds = ["square", "point", "norm", "itself", "scaled"]
    total = branch(draw(st.sampled_from(kinds)))
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        total = build.apply(draw(st.sampled_from([Add(), Add(), Sub()])), total, branch(kind))
    return total


def padded(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A pad, perhaps two, and a convolution or a pool."""
    x = draw(st.sampled_from(values))
    if draw(st.booleans()):
        x = build.apply(Relu(), x)
    value = draw(st.sampled_from([0.0, 0.0, -math.inf, 1.0]))
    finite = math.isfinite(value)  # else no window may lie in the padding alone
    width = st.integers(0, 2 if finite else 1)
    for _ in range(draw(st.integers(1, 2 if finite else 1))):
        sides = [(0, 0, *draw(st.tuples(width, width))) for _ in range(2)]
        x = build.apply(Pad(sides[0], sides[1], value), x)
    window: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 1)}
    own = draw(st.sampled_from([(0, 0, 0, 0), (1, 0, 1, 0)])) if finite else (0, 0, 0, 0)
    if not finite or draw(st.booleans()):
        return build.apply(
            MaxPool2d(**window, padding=own, ceil_mode=finite and draw(st.booleans())), x
        )
    if draw(st.booleans()):
        return build.apply(AvgPool2d(**window, padding=own, ceil_mode=draw(st.booleans())), x)
    return build.conv(x, 3, kernel=(2, 2), padding=own)


def mixed(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Convolutions of slices, joined, normalised and activated together."""
    x = draw(st.sampled_from(values))
    channels = sizes(x)[1]
    cut = draw(st.integers(1, channels))
    ranges = [(a, b) for a, b in ((0, cut), (cut, channels)) if a < b]
    parts = [build.apply(Slice(1, a, b), x) for a, b in ranges]
    made = [build.conv(p, draw(st.integers(1, 5))) for p in parts]
    y = build.apply(Concat(1), *made, *([x] if draw(st.integers(0, 3)) == 3 else []))
    if draw(st.booleans()):
        y = build.batch_norm(y)
    if draw(st.booleans()):
        y = build.apply(Add(), y, build.conv(x, sizes(y)[1]))
    return build.apply(Silu(), y)


def partial_residual(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A residual added to the first channels of a convolution."""
    x = build.conv(draw(st.sampled_from(values)), 8)
    y = build.conv(x, 16, bias=draw(st.booleans()))
    first, rest = build.apply(Slice(1, 0, 8), y), build.apply(Slice(1, 8, 16), y)
    total = build.apply(Add(), first, x)
    return build.apply(Concat(1), total, rest) if draw(st.booleans()) else total


def shuffled(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Two halves joined and shuffled, of which a convolution takes one half or all."""
    x = build.conv(draw(st.sampled_from(values)), 4)
    n, channels, height, width = (BATCH, 8, *sizes(x)[2:])
    y = build.apply(Concat(1), x, build.apply(Relu(), x))
    y = build.apply(Reshape((n, 2, channels // 2, height, width)), y)
    y = build.apply(Permute((0, 2, 1, 3, 4)), y)
    y = build.apply(Reshape((n, channels, height, width)), y)
    if draw(st.booleans()):
        y = build.apply(Slice(1, *draw(st.sampled_from([(0, 4), (4, 8), (1, 7)]))), y)
    if draw(st.booleans()):
        y = build.conv(y, sizes(y)[1], groups=sizes(y)[1])
    return build.conv(y, 3, bias=draw(st.booleans()))


def transition(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Batch norm, ReLU, a 1x1 convolution and an average pool."""
    x = build.apply(Relu(), build.batch_norm(draw(st.sampled_from(values))))
    y = build.conv(x, draw(st.integers(1, 4)), bias=draw(st.booleans()))
    return build.apply(AvgPool2d((2, 2), (2, 2), ceil_mode=draw(st.booleans())), y)


def written_out(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """An activation in arithmetic, perhaps with a step read elsewhere."""
    x = draw(st.sampled_from(values))
    kind = draw(st.sampled_from(["hardswish", "gelu", "mish"]))
    if kind == "hardswish":
        inner = build.apply(Clip(0, 6), build.apply(Add(), x, constant(build, 3.0)))
        y = build.apply(Div(), build.apply(Mul(), x, inner), constant(build, 6.0))
    elif kind == "gelu":
        inner = build.apply(Erf(), build.apply(Div(), x, constant(build, math.sqrt(2))))
        more = build.apply(Add(), inner, constant(build, 1.0))
        y = build.apply(Mul(), build.apply(Mul(), x, more), constant(build, 0.5))
    else:
        inner = build.apply(Tanh(), build.apply(Softplus(), x))
        y = build.apply(Mul(), x, inner)
    return build.apply(Sub(), y, inner) if draw(st.integers(0, 3)) == 3 else y


def attention(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Scaled dot products of the pixels of an image, softmax, and a weighted sum."""
    x = draw(st.sampled_from(values))
    _, channels, height, width = sizes(x)
    qkv = build.conv(x, 3 * channels)
    flat = build.apply(Reshape((BATCH, 3 * channels, height * width)), qkv)
    q, k, v = (build.apply(Slice(1, i * channels, (i + 1) * channels), flat) for i in range(3))
    q = build.apply(Mul(), build.apply(Permute((0, 2, 1)), q), constant(build, 0.5))
    weights = build.apply(Softmax(2), build.apply(MatMul(), q, k))
    y = build.apply(MatMul(), v, build.apply(Permute((0, 2, 1)), weights))
    return build.apply(Reshape((BATCH, channels, height, width)), y)


def quantised(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A few layers between quantize and dequantize, as exporters of quantised networks write them.

    Scales are drawn: numbers in the middle of two steps would round to either.
    """
    tensors: list[tuple[Value, list[Value]]] = []

    def quantise(value: Value) -> None:
        dtype = draw(st.sampled_from(["u8", "i8"]))
        zero = draw(st.integers(*((0, 200) if dtype == "u8" else (-128, 60))))
        scale = float(np.float32(build.rng.uniform(0.02, 0.05)))
        numbers = [constant(build, scale), build.apply(Constant(zero, dtype))]
        tensors.append((build.apply(Quantize(dtype), value, *numbers), numbers))

    def floats(number: int) -> Value:
        x, numbers = tensors[number]
        return build.apply(Dequantize(), x, *numbers)

    quantise(values[0])
    for _ in range(draw(st.integers(1, 4))):
        x = floats(-1)
        fitting = [i for i, (q, _) in enumerate(tensors) if q.type.shape == x.type.shape]
        y = _quantised_step(draw, build, x, floats(draw(st.sampled_from(fitting))))
        if draw(st.booleans()):
            y = build.apply(draw(st.sampled_from([Relu(), Clip(-0.5, 3.0), Silu()])), y)
        quantise(y)
    return floats(-1)


def _quantised_step(draw: Draw, build: Builder, x: Value, other: Value) -> Value:
    """A layer of a dequantised tensor, and at times of another one of its shape."""
    match draw(st.sampled_from(["conv", "conv", "add", "mul", "concat", "pool", "mean", "none"])):
        case "conv":
            out, kernel = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3]))
            name = build.next_origin("integers")
            shape = (out, sizes(x)[1], kernel, kernel)
            build.payload[name] = build.rng.integers(-128, 128, shape).astype(np.int8)
            integers = build.graph.add_source(name, TensorType("i8", shape))
            scale = build.weight(f"{name}.scale", out, positive=True)
            build.payload[f"{name}.scale"] /= 100 * np.float32(shape[1])
            weight = build.apply(Dequantize(), integers, scale)
            biases = [build.weight(f"{name}.bias", out)] if draw(st.booleans()) else []
            return build.apply(Conv2d(padding=(kernel // 2,) * 4), x, weight, *biases)
        case "add":
            return build.apply(Add(), x, other)
        case "mul":
            return build.apply(Mul(), x, other)
        case "concat":
            return build.apply(Concat(1), x, other)
        case "pool":
            pool = draw(st.sampled_from([MaxPool2d, AvgPool2d]))
            return build.apply(pool((3, 3), (1, 1), (1, 1, 1, 1)), x)
        case "mean":
            mean = build.apply(Mean((2, 3), keepdims=True), x)
            return build.apply(Mul(), x, build.apply(Sigmoid(), mean))
    return x


IDIOMS = {
    idiom.__name__: idiom
    for idiom in (
        channels_last,
        branches,
        padded,
        mixed,
        partial_residual,
        shuffled,
        transition,
        written_out,
        attention,
        quantised,
    )
}


def _large_enough(value: Value) -> bool:
    return value.type.rank == 4 and min(sizes(value)[2:]) >= 3


@st.composite
def idiomatic_graphs(draw: Draw, max_steps: int = 4) -> Graph:
    """Idioms, and steps of `strategies.graphs` among them, each mostly reading the one before."""
    build = Builder(seed=draw(st.integers(0, 2**16)))
    size = st.integers(4, 7)
    values = [build.input(draw(st.integers(1, 6)), draw(size), draw(size))]
    plain = ["conv", "activation", "batch_norm", "concat", "residual"]
    names = st.sampled_from([*IDIOMS, *IDIOMS, *plain])
    for name in draw(st.lists(names, min_size=1, max_size=max_steps)):
        step = IDIOMS.get(name) or STEPS[name]
        usable = [v for v in values if _large_enough(v)]
        values.append(step(draw, build, [usable[-1], *usable]))
    outputs = [values[-1]]
    if draw(st.integers(0, 3)) == 3:
        outputs.append(draw(st.sampled_from(values)))
    build.graph.set_outputs(outputs)
    return build.graph
