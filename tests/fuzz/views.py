"""Ways in which an operand comes to lie in memory: views, and what becomes one, one after another.

Each way goes backwards, from the shape that an op wants to one that something else may have, and
the ops that lead from there. `behind` follows a chain of them down to an input.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from lucid.ir import Op, Value, ops
from lucid.ir.types import Shape

from .draw import Draw

Apply = Callable[..., Value]
"""An op and its operands, appended to the graph of a case."""
Step = Callable[[Apply, Value], Value]
Found = tuple[Shape, Step] | None
"""The shape that is wanted now, and what makes the one of before from it; None where a way cannot
lead to a shape. The batch, where there is one, is the first dimension."""
WAYS: dict[str, Callable[[Draw, Shape], Found]] = {}
OFTEN = ["expanded", "expanded", "repeated", "permuted", "sliced", "sliced", *["pixels"] * 4]
"""Ways that more models go than others, and that a kernel sees in its strides."""
LARGEST = 200_000
"""Numbers that an input may have for one image."""


def way(function: Callable[[Draw, Shape], Found]) -> Callable[[Draw, Shape], Found]:
    WAYS[function.__name__] = function
    return function


def behind(draw: Draw, shape: Shape, most: int = 4) -> tuple[Shape, list[Step]]:
    """The shape of an input, and the steps from there to a value of `shape`: none or a few."""
    steps: list[Step] = []
    while len(steps) < most and draw.chance(0.45):
        found = WAYS[draw.pick([*WAYS, *OFTEN])](draw, shape)
        if found is None or prod(d for d in found[0] if isinstance(d, int)) > LARGEST:
            continue
        if len(found[0]) <= 6:
            shape, step = found
            steps.append(step)
    return shape, steps[::-1]


def one(op: Op) -> Step:
    return lambda apply, x: apply(op, x)


def several(*chain: Op) -> Step:
    def step(apply: Apply, x: Value) -> Value:
        for op in chain:
            x = apply(op, x)
        return x

    return step


def plain(shape: Shape) -> list[int]:
    """The dimensions that are not the batch."""
    return [i for i, d in enumerate(shape) if isinstance(d, int)]


def changed(shape: Shape, axis: int, *sizes: Any) -> Shape:
    """The shape with these dimensions in place of one."""
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


def axis_of(draw: Draw, shape: Shape) -> tuple[int, int] | None:
    """Some dimension that is not the batch, and its size."""
    axes = plain(shape)
    if not axes:
        return None
    axis = draw.pick(axes)
    size = shape[axis]
    assert isinstance(size, int)
    return axis, size


# -- views of the same elements -------------------------------------------------------------------


@way
def permuted(draw: Draw, shape: Shape) -> Found:
    axes = plain(shape)
    if len(axes) < 2:
        return None
    order = list(range(len(shape) - len(axes))) + draw.shuffled(axes)
    before = tuple(shape[i] for i in order)
    return before, one(ops.Permute(tuple(np.argsort(order).tolist())))


@way
def batch_inside(draw: Draw, shape: Shape) -> Found:
    """Computed with the batch at another place than the first."""
    if len(shape) < 2 or not all(plain(shape)):
        return None
    order = draw.shuffled(range(len(shape)))
    back = tuple(np.argsort(order).tolist())
    return shape, several(ops.Permute(tuple(order)), ops.Neg(), ops.Permute(back))


@way
def squeezed(draw: Draw, shape: Shape) -> Found:
    axis = draw.integer(len(shape) - len(plain(shape)), len(shape))
    return (*shape[:axis], 1, *shape[axis:]), one(ops.Reshape(shape))


@way
def unsqueezed(draw: Draw, shape: Shape) -> Found:
    single = [i for i in plain(shape) if shape[i] == 1]
    return (changed(shape, draw.pick(single)), one(ops.Reshape(shape))) if single else None


@way
def merged(draw: Draw, shape: Shape) -> Found:
    found = axis_of(draw, shape)
    if found is None or found[1] < 1:
        return None
    axis, size = found
    outer = draw.divisor(size)
    return changed(shape, axis, outer, size // outer), one(ops.Reshape(shape))


@way
def split(draw: Draw, shape: Shape) -> Found:
    axes = plain(shape)
    if len(axes) < 2:
        return None
    axis = draw.pick(axes[:-1])
    both = prod(d for d in shape[axis : axis + 2] if isinstance(d, int))
    return (*shape[:axis], both, *shape[axis + 2 :]), one(ops.Reshape(shape))


# -- some of the elements -------------------------------------------------------------------------


@way
def sliced(draw: Draw, shape: Shape) -> Found:
    found = axis_of(draw, shape)
    return sliced_along(draw, shape, found[0]) if found is not None else None


def sliced_along(draw: Draw, shape: Shape, axis: int) -> Found:
    size = shape[axis]
    if not isinstance(size, int) or size < 1:
        return None
    before, after, step = draw.integer(0, 2), draw.integer(0, 2), draw.pick([1, 2, 3])
    stop = before + (size - 1) * step + 1
    return changed(shape, axis, stop + after), one(ops.Slice(axis, before, stop, step))


@way
def pixels(draw: Draw, shape: Shape) -> Found:
    """Of a map that lies channels last, with lines or columns left out or repeated."""
    if len(shape) != 4 or len(plain(shape)) < 3 or not all(plain(shape)):
        return None
    axis = draw.pick([1, 2])
    last = (shape[0], shape[2], shape[3], shape[1])
    if draw.chance(0.5):
        found = expanded_along(last, axis)
    else:
        found = sliced_along(draw, last, axis)
    if found is None:
        return None
    return found[0], lambda apply, x: apply(ops.Permute((0, 3, 1, 2)), found[1](apply, x))


@way
def one_of_several(draw: Draw, shape: Shape) -> Found:
    """One of the parts along an axis that goes away."""
    axis, count = draw.integer(len(shape) - len(plain(shape)), len(shape)), draw.integer(1, 3)
    place = draw.integer(-count, count - 1)

    def step(apply: Apply, x: Value) -> Value:
        return apply(ops.Gather(axis), x, apply(ops.Constant(place, "i64")))

    return (*shape[:axis], count, *shape[axis:]), step


@way
def gathered(draw: Draw, shape: Shape) -> Found:
    """By indices: turned round, evenly spaced, or any."""
    found = axis_of(draw, shape)
    if found is None or not 1 <= found[1] <= 40:
        return None
    axis, size = found
    whole = size + draw.integer(0, 2)
    order = draw.pick(
        [
            list(range(size))[::-1],
            list(range(whole - size, whole)),
            [draw.integer(-whole, whole - 1) for _ in range(size)],
        ]
    )

    def step(apply: Apply, x: Value) -> Value:
        return apply(ops.Gather(axis), x, apply(ops.Constant(tuple(order), "i64")))

    return changed(shape, axis, whole), step


@way
def part_of_a_whole(draw: Draw, shape: Shape) -> Found:
    """Written into a concatenation, and cut out of it."""
    found = axis_of(draw, shape)
    if found is None or found[1] < 1:
        return None
    axis, size = found
    first = size * draw.integer(0, 1)

    def step(apply: Apply, x: Value) -> Value:
        both = apply(ops.Concat(axis), *draw.shuffled([x, apply(ops.Abs(), x)]))
        return apply(ops.Slice(axis, first, first + size), both)

    return shape, step


# -- elements more than once ----------------------------------------------------------------------


@way
def expanded(draw: Draw, shape: Shape) -> Found:
    axes = draw.some(plain(shape), 0.4)
    return expanded_along(shape, *axes) if axes else None


def expanded_along(shape: Shape, *axes: int) -> Found:
    before = tuple(1 if i in axes else d for i, d in enumerate(shape))
    return before, one(ops.Expand(shape))


@way
def widened(draw: Draw, shape: Shape) -> Found:
    """With fewer dimensions, the batch mostly among those that are missing."""
    if not shape:
        return None
    return shape[draw.integer(1, len(shape)) :], one(ops.Expand(shape))


@way
def repeated(draw: Draw, shape: Shape) -> Found:
    """Several times one after the other, or each number several times."""
    found = axis_of(draw, shape)
    if found is None or found[1] < 1:
        return None
    axis, size = found
    times = draw.divisor(size)
    own = size // times
    thin, wide = ((1, own), (times, own)) if draw.chance(0.5) else ((own, 1), (own, times))
    chain = [changed(shape, axis, *thin), changed(shape, axis, *wide)]
    made = several(ops.Reshape(chain[0]), ops.Expand(chain[1]), ops.Reshape(shape))
    return changed(shape, axis, own), made


# -- computed -------------------------------------------------------------------------------------


@way
def computed(draw: Draw, shape: Shape) -> Found:
    """By a kernel, which says how it lies: exact, so that no error is passed on."""
    return shape, one(draw.pick([ops.Neg(), ops.Abs(), ops.Sign()]))
