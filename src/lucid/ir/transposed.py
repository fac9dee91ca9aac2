"""Transposed convolutions, which importers express in existing ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from math import prod

from lucid.ir.graph import Value
from lucid.ir.ops import (
    Constant,
    Conv1d,
    Conv2d,
    Conv3d,
    Convolution,
    Expand,
    Gather,
    Pad,
    Permute,
    Reshape,
    Slice,
)
from lucid.ir.types import Shape

Apply = Callable[..., Value]
"""Adds an op to a graph: `apply(op, *operands)` is its result."""

CONVOLUTIONS: dict[int, Callable[..., Convolution]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
"""The convolution over so many axes, from its stride, padding, dilation and groups."""


def transposed_convolution(
    apply: Apply,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    cut: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int = 1,
) -> Value:
    """The gradient of a convolution: each pixel of x adds a window of weights to the result.

    x: (N, C, *sizes), weight: (C, O/groups, *kernel), bias: (O) -> (N, O, *sizes), over one to
    three axes. The windows are `stride` apart; `cut`: how many pixels are cut off before and after
    each axis, negative ones are added. Where windows do not overlap, each pixel becomes a block of
    pixels by a convolution of single pixels; else it is the convolution of x, zeros between its
    pixels, by the weights turned around. Raises ShapeError where the operands do not fit.
    """
    taps = _ints(weight.type.shape[2:])
    weight = _by_output(apply, weight, groups)
    apart = tuple(stride) == taps and set(dilation) == {1} and not any(chain(*cut))
    if apart and (groups == 1 or len(taps) < 3):
        return _blocks(apply, x, weight, bias, taps, groups)
    reach = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)]
    x = _with_gaps(apply, x, stride)
    # The gaps behind the last pixels are stride - 1 zeros that the padding need not hold.
    sides = [
        (r - first, r - last - (s - 1))
        for r, (first, last), s in zip(reach, cut, stride, strict=True)
    ]
    for axis, (before, after) in enumerate(sides, start=2):
        (size,) = _ints(x.type.shape[axis : axis + 1])
        if min(before, after) < 0:
            x = apply(Slice(axis, max(0, -before), size - max(0, -after)), x)
    for axis, count in enumerate(taps, start=2):
        if count > 1:
            turned = apply(Constant(tuple(range(count))[::-1], "i64"))
            weight = apply(Gather(axis), weight, turned)
    befores, afters = (tuple(max(0, s) for s in side) for side in zip(*sides, strict=True))
    ones = (1,) * len(taps)
    op = CONVOLUTIONS[len(taps)](ones, befores + afters, tuple(dilation), groups)
    return apply(op, x, weight, *([] if bias is None else [bias]))


def _by_output(apply: Apply, weight: Value, groups: int) -> Value:
    """(C, O/groups, *kernel) as (O, C/groups, *kernel)."""
    channels, out, *taps = _ints(weight.type.shape)
    inner = channels // max(1, groups)
    weight = apply(Reshape((groups, inner, out, *taps)), weight)
    turned = apply(Permute((0, 2, 1, *range(3, 3 + len(taps)))), weight)
    return apply(Reshape((groups * out, inner, *taps)), turned)


def _blocks(
    apply: Apply, x: Value, weight: Value, bias: Value | None, block: Sequence[int], groups: int
) -> Value:
    """Each pixel as a `block` of pixels. weight: (O, C/groups, *block).

    The products of a group are pixel by pixel of the block, so that its channels stay side by side
    when the pixels part.
    """
    out, inner, *_ = _ints(weight.type.shape)
    axes, each, own = len(block), prod(block), out // groups
    weight = apply(Reshape((groups, own, inner, each)), weight)
    by_pixel = apply(Permute((0, 3, 1, 2)), weight)
    operands = [x, apply(Reshape((out * each, inner, *(1,) * axes)), by_pixel)]
    if bias is not None:
        shared = apply(Reshape((groups, 1, own)), bias)
        spread = apply(Expand((groups, each, own)), shared)
        operands.append(apply(Reshape((out * each,)), spread))
    y = apply(CONVOLUTIONS[axes](groups=groups), *operands)
    batch, _, *dims = y.type.shape
    sizes = _ints(tuple(dims))
    group = (groups,) if groups > 1 else ()
    first = 1 + len(group)
    split = apply(Reshape((batch, *group, *block, own, *sizes)), y)
    order = chain.from_iterable((first + 1 + axes + i, first + i) for i in range(axes))
    blocks = apply(Permute((*range(first), first + axes, *order)), split)
    whole = (size * b for size, b in zip(sizes, block, strict=True))
    return apply(Reshape((batch, out, *whole)), blocks)


def _with_gaps(apply: Apply, x: Value, stride: Sequence[int]) -> Value:
    """x with stride - 1 zeros after each of its pixels, along all axes."""
    if set(stride) == {1}:
        return x
    batch, channels, *dims = x.type.shape
    sizes = _ints(tuple(dims))
    apart = apply(Reshape((batch, channels, *chain(*((d, 1) for d in sizes)))), x)
    after = (0, 0, *chain(*((0, s - 1) for s in stride)))
    padded = apply(Pad((0,) * len(after), after), apart)
    whole = (size * s for size, s in zip(sizes, stride, strict=True))
    return apply(Reshape((batch, channels, *whole)), padded)


def _ints(shape: Shape) -> tuple[int, ...]:
    """Dimensions that do not depend on the batch. Raises ShapeError."""
    return Conv2d().integers(*shape)
