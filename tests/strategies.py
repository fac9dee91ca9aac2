"""Random legal graphs, for the tests of text, passes, schedules and compiled code.

`graphs()` is a hypothesis strategy of small convolutional networks as a trace gives them:
primitive ops only, every weight a plain source, and a payload of random arrays at hand
(`graph.payload`), scaled so that values stay near 1. `random_inputs` makes inputs for any graph,
and `assert_equivalent` compares two graphs by the interpreter:

    @given(graphs())
    def test_the_pass_keeps_the_meaning(graph):
        after = my_pass(graph.clone())
        verify(after)
        assert_equivalent(graph, after)

A graph grows step by step, each step reading values made before, so that residual connections
and values with several users are common. The steps are the functions listed in
`STEPS`; `graphs(only=...)` and `graphs(without=...)` choose among them, for passes and kernels
that are about some. `Builder` (graph_builder.py) also serves to write a graph by hand: each method
appends one building block and returns its result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from graph_builder import Builder, sizes
from hypothesis import strategies as st

from lucid.ir import BATCH, Graph, Op, Value, interpret
from lucid.ir.ops import (
    Abs,
    Activation,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Add,
    AvgPool2d,
    Clip,
    Concat,
    Constant,
    Elu,
    Equal,
    Erf,
    Gather,
    GroupNorm,
    Hardsigmoid,
    LayerNorm,
    LeakyRelu,
    Less,
    LessEqual,
    LocalResponseNorm,
    Maximum,
    MaxPool2d,
    Mul,
    Neg,
    Not,
    Pad,
    Permute,
    Prelu,
    Relu,
    Reshape,
    Resize,
    RmsNorm,
    Sigmoid,
    Sin,
    Slice,
    Sub,
    Where,
    declared,
)
from lucid.ir.types import DTYPES

Draw = Callable[[st.SearchStrategy[Any]], Any]

ACTIVATIONS: list[Op] = [
    *(op for cls in declared(Activation) for op in cls.examples()),
    *(Clip(0, 6), Clip(low=-0.5), LeakyRelu(0.1), Elu(0.5), Abs(), Neg(), Erf(), Sin()),
]


# -- steps: each draws what it needs, reads values made before, and returns a new one -----------


def _window(draw: Draw, x: Value, kernels: list[int]) -> dict[str, Any]:
    """A kernel, stride and padding that fit x; padding is at most half the kernel."""
    height, width = sizes(x)[2:]
    kernel = tuple(draw(st.sampled_from([k for k in kernels if k <= s])) for s in (height, width))
    stride = tuple(draw(st.integers(1, 2)) for _ in range(2))
    same = tuple(k // 2 for k in kernel) * 2
    odd = st.tuples(*(st.integers(0, k // 2) for k in kernel * 2))
    return {"kernel": kernel, "stride": stride, "padding": draw(st.just(same) | odd)}


def conv(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A convolution of any kind: pointwise, 3x3, strided, dilated, grouped, depthwise."""
    x = draw(st.sampled_from(values))
    _, channels, height, width = sizes(x)
    fields = _window(draw, x, [1, 3])
    if draw(st.booleans()) and min(height, width) >= 5:
        fields["dilation"] = (2, 2)
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    out = groups * draw(st.integers(1, max(1, 8 // groups)))
    y = build.conv(x, out, bias=draw(st.booleans()), groups=groups, **fields)
    if draw(st.booleans()):
        y = build.batch_norm(y)
    return build.apply(draw(st.sampled_from(ACTIVATIONS)), y) if draw(st.booleans()) else y


def residual(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """relu(bn(conv(x)) + x), or the plain sum of two values of one shape, in either order."""
    x = draw(st.sampled_from(values))
    like = [v for v in values if v.type == x.type and v is not x]
    if like and draw(st.booleans()):
        y = draw(st.sampled_from(like))
    else:
        origin = build.next_origin("residual")
        y = build.conv(x, sizes(x)[1], (3, 3), padding=(1, 1, 1, 1), origin=f"{origin}.conv")
        y = build.batch_norm(y, origin=f"{origin}.bn")
    y = build.apply(Add(), *draw(st.permutations([x, y])))
    return build.apply(Relu(), y) if draw(st.booleans()) else y


def activation(draw: Draw, build: Builder, values: list[Value]) -> Value:
    return build.apply(draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(values)))


def batch_norm(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A batch norm after anything, which folds only sometimes."""
    return build.batch_norm(draw(st.sampled_from(values)))


def max_pool(draw: Draw, build: Builder, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    op = MaxPool2d(**_window(draw, x, [1, 2, 3]), ceil_mode=draw(st.booleans()))
    return build.apply(op, x, origin=build.next_origin("pool"))


def avg_pool(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Any average pool, often followed by the pointwise convolution its divisor may join."""
    x = draw(st.sampled_from(values))
    op = AvgPool2d(
        **_window(draw, x, [1, 2, 3]),
        ceil_mode=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
        divisor=draw(st.sampled_from([None, None, 3])),
    )
    y = build.apply(op, x, origin=build.next_origin("pool"))
    return build.conv(y, draw(st.integers(1, 8))) if draw(st.booleans()) else y


def split_attention(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """conv, bn, relu and the split attention of a ResNeSt block."""
    x = draw(st.sampled_from(values))
    radix, cardinality = draw(st.sampled_from([(2, 1), (2, 2), (1, 1), (3, 1), (4, 2)]))
    channels = radix * cardinality * draw(st.integers(1, 2))
    origin = build.next_origin("splat")
    y = build.conv(x, channels, (3, 3), padding=(1, 1, 1, 1), origin=f"{origin}.conv")
    y = build.apply(Relu(), build.batch_norm(y, origin=f"{origin}.bn0"), origin=f"{origin}.relu")
    hidden = cardinality * draw(st.integers(1, 3))
    by_slices = draw(st.booleans())
    return build.split_attention(y, radix, cardinality, hidden, by_slices, origin=origin)


def squeeze_excitation(draw: Draw, build: Builder, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    gate = draw(st.sampled_from([Sigmoid(), Hardsigmoid()]))
    return build.squeeze_excitation(x, draw(st.integers(1, 4)), gate)


def prelu(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A slope for each channel, or one for all."""
    x = draw(st.sampled_from(values))
    slopes = draw(st.sampled_from([1, sizes(x)[1]]))
    slope = build.weight(f"{build.next_origin('prelu')}.weight", slopes, 1, 1, positive=True)
    return build.apply(Prelu(), x, slope)


def choice(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """One of two values by pixel or by image. What is compared comes from the input: it is exact,
    so that no rounding turns a comparison round."""
    x = draw(st.sampled_from(values))
    asked = build.apply(Slice(1, 0, 1), values[0])
    for axis in (2, 3):
        if sizes(asked)[axis] != sizes(x)[axis]:
            asked = build.apply(Slice(axis, 0, 1), asked)
    bound = build.apply(Constant(draw(st.sampled_from([0.25, -0.5]))))
    op = draw(st.sampled_from([Less(), LessEqual(), Equal()]))
    cond = build.apply(op, *draw(st.permutations([asked, bound])))
    if draw(st.booleans()):
        cond = build.apply(Not(), cond)
    like = [v for v in values if v.type == x.type]
    return build.apply(Where(), cond, x, draw(st.sampled_from([bound, *like])))


def adaptive_pool(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """To any size, larger ones too."""
    size = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    op = draw(st.sampled_from([AdaptiveAvgPool2d(size), AdaptiveMaxPool2d(size)]))
    return build.apply(op, draw(st.sampled_from(values)), origin=build.next_origin("pool"))


def image_norm(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A normalisation by the statistics of the image itself, of any kind."""
    x = draw(st.sampled_from(values))
    origin, channels = build.next_origin("norm"), sizes(x)[1]
    axes = draw(st.sampled_from([(1,), (3,), (2, 3)]))
    shape = [sizes(x)[a] for a in axes]
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    op, shape = draw(
        st.sampled_from(
            [
                (LayerNorm(axes, 0.1), shape),
                (RmsNorm(axes, 0.1), shape),
                (GroupNorm(groups, 0.1), [channels]),
                (LocalResponseNorm(draw(st.integers(1, 5)), 0.5), None),
            ]
        )
    )
    if shape is None:
        return build.apply(op, x, origin=origin)
    weights = [build.weight(f"{origin}.weight", *shape, positive=True)]
    if not isinstance(op, RmsNorm):
        weights.append(build.weight(f"{origin}.bias", *shape))
    return build.apply(op, x, *weights, origin=origin)


def resize(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Bilinear, or nearest as PyTorch has it: other nearest ones hit ties, which runtimes round
    apart."""
    x = draw(st.sampled_from(values))
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    mode, coordinates = draw(
        st.sampled_from(
            [
                ("nearest", "asymmetric"),
                ("bilinear", "half_pixel"),
                ("bilinear", "align_corners"),
            ]
        )
    )
    return build.apply(Resize(size, mode, coordinates), x, origin=build.next_origin("resize"))


def pad(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Of rows, columns and sometimes channels, in any mode."""
    x = draw(st.sampled_from(values))
    mode = draw(st.sampled_from(["constant", "constant", "reflect", "edge"]))
    before, after = [0], [0]
    for axis, size in enumerate(sizes(x)[1:]):
        most = 0 if axis == 0 and draw(st.booleans()) else min(2, size - 1)
        before.append(draw(st.integers(0, most)))
        after.append(draw(st.integers(0, most)))
    value = draw(st.sampled_from([0.0, -1.5]))
    return build.apply(Pad(tuple(before), tuple(after), value, mode), x)


def gather(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Channels, rows or columns in an order of their own, some of them twice."""
    x = draw(st.sampled_from(values))
    axis = draw(st.integers(1, 3))
    size = sizes(x)[axis]
    order = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=6))
    return build.apply(Gather(axis), x, build.apply(Constant(tuple(order), "i64")))


def scale(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Arithmetic with a scalar constant, or with a weight per channel."""
    x = draw(st.sampled_from(values))
    op = draw(st.sampled_from([Mul(), Add(), Sub(), Maximum()]))
    if draw(st.booleans()):
        origin = build.next_origin("scale")
        other = build.weight(f"{origin}.weight", sizes(x)[1], 1, 1, positive=True)
    else:
        other = build.apply(Constant(draw(st.sampled_from([0.0, 1.0, 0.1, -0.75]))))
    return build.apply(op, *draw(st.permutations([x, other])))


def concat(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """Two values of one image size, along the channels."""
    x = draw(st.sampled_from(values))
    like = [v for v in values if sizes(v)[2:] == sizes(x)[2:]]
    return build.apply(Concat(1), x, draw(st.sampled_from(like)))


def channels_slice(draw: Draw, build: Builder, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    start = draw(st.integers(0, sizes(x)[1] - 1))
    return build.apply(Slice(1, start, draw(st.integers(start + 1, sizes(x)[1]))), x)


def shuffle(draw: Draw, build: Builder, values: list[Value]) -> Value:
    """A channel shuffle by reshape, permute, reshape: with one group, an identity."""
    x = draw(st.sampled_from(values))
    _, channels, height, width = sizes(x)
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    y = build.apply(Reshape((BATCH, groups, channels // groups, height, width)), x)
    y = build.apply(Permute((0, 2, 1, 3, 4)), y)
    return build.apply(Reshape((BATCH, channels, height, width)), y)


STEPS: dict[str, Callable[[Draw, Builder, list[Value]], Value]] = {
    step.__name__: step
    for step in (
        conv,
        residual,
        activation,
        batch_norm,
        max_pool,
        avg_pool,
        split_attention,
        squeeze_excitation,
        prelu,
        choice,
        adaptive_pool,
        image_norm,
        resize,
        pad,
        gather,
        scale,
        concat,
        channels_slice,
        shuffle,
    )
}


@st.composite
def graphs(
    draw: Draw,
    max_steps: int = 6,
    only: Collection[str] = tuple(STEPS),
    without: Collection[str] = (),
    head: bool | None = None,
) -> Graph:
    """Random legal graphs of one input with a payload; batch N, small images, few channels.

    `only` and `without` name steps; `head`: whether a linear head ends the graph (None: either).
    Dead values are left in on purpose: a pass must cope with them. Some graphs have two outputs.
    """
    build = Builder(seed=draw(st.integers(0, 2**16)))
    size = st.integers(3, 9)
    values = [build.input(draw(st.integers(1, 8)), draw(size), draw(size))]
    names = [name for name in only if name not in without]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=max_steps)):
        # The newest value twice: chains are what most passes are about.
        values.append(STEPS[name](draw, build, [values[-1], *values]))
    outputs = [values[-1]]
    if head or (head is None and draw(st.booleans())):
        outputs = [build.head(values[-1], draw(st.integers(1, 5)))]
    if draw(st.integers(0, 4)) == 4:
        outputs.append(draw(st.sampled_from(values[1:])))
    build.graph.set_outputs(outputs)
    return build.graph


# -- comparing ----------------------------------------------------------------------------------


def random_inputs(graph: Graph, batch: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Normal float32 inputs for a graph at one size of the batch, and any integers of 8 bits."""
    rng = np.random.default_rng(seed)
    return [random_array(rng, v.type.dtype, v.type.concrete(batch)) for v in graph.inputs]


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers as float32, or integers of 8 bits of which all occur."""
    if dtype not in ("u8", "i8"):
        return rng.standard_normal(shape).astype(np.float32)
    bounds = np.iinfo(DTYPES[dtype])
    return rng.integers(bounds.min, bounds.max, shape, DTYPES[dtype], endpoint=True)


def assert_equivalent(
    before: Graph,
    after: Graph,
    batch: int = 2,
    dtype: Any = np.float64,
    tolerance: float = 1e-9,
) -> None:
    """Both graphs compute the same over `before`'s payload, relative to the largest value."""
    inputs = random_inputs(before, batch)
    wanted = interpret(before, inputs, dtype=dtype)
    given = interpret(after, inputs, payload=before.payload, dtype=dtype)
    assert len(wanted) == len(given)
    for a, b in zip(wanted, given, strict=True):
        assert a.shape == b.shape
        scale = max(1.0, float(np.max(np.abs(a), initial=0)))
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * scale)
