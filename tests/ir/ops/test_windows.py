"""Convolution and pooling against their definitions, over odd sizes, strides and borders."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lucid.ir import BATCH, f32
from lucid.ir.ops import AvgPool2d, Conv2d, MaxPool2d
from lucid.ir.ops.windows import extent


def pair(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


PADDING = st.tuples(*[st.integers(0, 2)] * 4)
IMAGES = st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))


def image(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def positions(out, kernel, stride, dilation, pads, size):
    """For one output index, the (tap, pixel) pairs that lie inside the input, along one axis."""
    start = out * stride - pads[0]
    return [(t, start + t * dilation) for t in range(kernel) if 0 <= start + t * dilation < size]


def fits(size, kernel, dilation, pads):
    return size + sum(pads) >= dilation * (kernel - 1) + 1


def assume_window(shape, kernel, dilation, padding):
    for a in (0, 1):
        assume(fits(shape[2 + a], kernel[a], dilation[a], (padding[a], padding[2 + a])))


@given(IMAGES, pair(1, 4), pair(1, 3), PADDING, pair(1, 3), st.data())
def test_convolution_is_its_definition(shape, kernel, stride, padding, dilation, data):
    assume_window(shape, kernel, dilation, padding)
    n, channels, height, width = shape
    groups = data.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    out = groups * data.draw(st.integers(1, 3))
    x, weight, bias = image(shape), image((out, channels // groups, *kernel), 1), image(out, 2)
    op = Conv2d(stride, padding, dilation, groups)
    y = op.evaluate(x, weight, bias)
    kind = op.infer(f32(BATCH, *shape[1:]), f32(*weight.shape), f32(out))
    assert y.shape == kind.concrete(n)

    inner, outer = channels // groups, out // groups
    wanted = np.zeros(y.shape) + bias[:, None, None]
    for i in range(y.shape[2]):
        rows = positions(i, kernel[0], stride[0], dilation[0], padding[0::2], height)
        for j in range(y.shape[3]):
            columns = positions(j, kernel[1], stride[1], dilation[1], padding[1::2], width)
            for o in range(out):
                first = o // outer * inner
                for u, h in rows:
                    for v, w in columns:
                        pixels = x[:, first : first + inner, h, w]
                        wanted[:, o, i, j] += pixels @ weight[o, :, u, v]
    np.testing.assert_allclose(y, wanted, rtol=1e-10, atol=1e-10)
    single = op.evaluate(*(a.astype(np.float32) for a in (x, weight, bias)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, rtol=1e-4, atol=1e-4)


def expected_extent(size, kernel, stride, dilation, pads, ceil_mode):
    """Count windows one by one, by PyTorch's rule."""
    reach = dilation * (kernel - 1) + 1
    count = 0
    while True:
        start = count * stride
        whole = start + reach <= size + sum(pads)
        # Rounding up adds one window at most: there was something left after the one before.
        left = start - stride + reach < size + sum(pads)
        legal = (whole or left) and start < size + pads[0] if ceil_mode else whole
        if not legal:
            return count
        count += 1


@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    pair(0, 2),
    st.booleans(),
)
def test_extent_counts_windows(size, kernel, stride, dilation, pads, ceil_mode):
    assume(fits(size, kernel, dilation, pads))
    wanted = expected_extent(size, kernel, stride, dilation, pads, ceil_mode)
    assert extent(size, kernel, stride, pads, dilation, ceil_mode) == wanted


@given(IMAGES, pair(1, 4), pair(1, 4), PADDING, pair(1, 3), st.booleans())
def test_max_pool_is_its_definition(shape, kernel, stride, padding, dilation, ceil_mode):
    assume_window(shape, kernel, dilation, padding)
    n, _, height, width = shape
    x = image(shape)
    x[x > 1.5] = np.nan
    op = MaxPool2d(kernel, stride, padding, dilation, ceil_mode)
    y = op.evaluate(x)
    assert y.shape == op.infer(f32(BATCH, *shape[1:])).concrete(n)
    wanted = np.full(y.shape, -np.inf)
    for i in range(y.shape[2]):
        rows = positions(i, kernel[0], stride[0], dilation[0], padding[0::2], height)
        for j in range(y.shape[3]):
            columns = positions(j, kernel[1], stride[1], dilation[1], padding[1::2], width)
            for _, h in rows:
                for _, w in columns:
                    wanted[:, :, i, j] = np.maximum(wanted[:, :, i, j], x[:, :, h, w])
    np.testing.assert_array_equal(y, wanted)


@given(
    IMAGES,
    pair(1, 4),
    pair(1, 4),
    PADDING,
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, None, 5, -2]),
)
def test_avg_pool_is_its_definition(shape, kernel, stride, padding, ceil_mode, include, divisor):
    assume_window(shape, kernel, (1, 1), padding)
    n, _, height, width = shape
    x = image(shape)
    op = AvgPool2d(kernel, stride, padding, ceil_mode, include, divisor)
    y = op.evaluate(x)
    assert y.shape == op.infer(f32(BATCH, *shape[1:])).concrete(n)
    wanted, divisors = np.zeros(y.shape), np.zeros(y.shape[2:])
    for i in range(y.shape[2]):
        rows = positions(i, kernel[0], stride[0], 1, padding[0::2], height)
        for j in range(y.shape[3]):
            columns = positions(j, kernel[1], stride[1], 1, padding[1::2], width)
            for _, h in rows:
                for _, w in columns:
                    wanted[:, :, i, j] += x[:, :, h, w]
            counted = len(rows) * len(columns)
            if include:
                tall = min(i * stride[0] + kernel[0], height + padding[0] + padding[2])
                wide = min(j * stride[1] + kernel[1], width + padding[1] + padding[3])
                counted = (tall - i * stride[0]) * (wide - j * stride[1])
            divisors[i, j] = divisor or max(counted, 1)
    np.testing.assert_array_equal(op.divisors(height, width), divisors)
    np.testing.assert_allclose(y, wanted / divisors, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("op", "size", "divisor"),
    [
        (AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1)), (56, 56), 9),
        (AvgPool2d((2, 2), (2, 2), ceil_mode=True, count_include_pad=False), (56, 56), 4),
        (AvgPool2d((2, 2), (2, 2), ceil_mode=True, count_include_pad=False), (7, 56), None),
        (AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=False), (56, 56), None),
        (AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1), divisor=5, count_include_pad=False), (4, 4), 5),
    ],
)
def test_uniform_divisors(op, size, divisor):
    assert op.uniform_divisor(*size) == divisor


def test_pools_of_resnest():
    """The values of PyTorch for the two average pools of a ResNeSt block, on odd images."""
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    avd = AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1)).evaluate(x)
    np.testing.assert_allclose(avd[0, 0] * 9, [[8, 12], [20, 24]])
    shortcut = AvgPool2d((2, 2), (2, 2), ceil_mode=True, count_include_pad=False).evaluate(x)
    np.testing.assert_allclose(shortcut[0, 0], [[2, 3.5], [6.5, 8]])
