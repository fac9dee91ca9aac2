"""What the passes over quantised networks look for: dequantised values, and weights in recipes.

Scales and zero points of whole tensors are scalar constants. Those of channels are parameters, and
by the time that layers are looked at, `dequantize` of an integer parameter is part of a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    Cast,
    Concat,
    Constant,
    Dequantize,
    Mul,
    Op,
    Permute,
    Quantize,
    Reshape,
    Sub,
)
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.passes.recipes import apply, expand, ints, mul, reshape
from lucid.ir.recipe import Apply, Literal, Recipe
from lucid.ir.types import DTYPES, Exact

LARGEST_SCALE = 1e30
"""Scales between this and its inverse: no product or quotient of two of them, nor 255 times it,
leaves float32's range."""


@dataclass(frozen=True)
class Step:
    """The scale and zero point of a whole tensor, as numbers. Compared bit by bit."""

    scale: Exact
    zero_point: int
    dtype: str

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the largest integer."""
        info = np.iinfo(DTYPES[self.dtype])
        return int(info.min), int(info.max)

    @property
    def reach(self) -> int:
        """The largest |x - zero_point|."""
        least, most = self.bounds
        return max(self.zero_point - least, most - self.zero_point)

    def nearest(self, number: float) -> int:
        """What `quantize` makes of a number."""
        op = Quantize(self.dtype)
        scale, zero = np.float32(self.scale), np.asarray(self.zero_point, DTYPES[self.dtype])
        return int(op.evaluate(np.asarray(number, np.float32), np.asarray(scale), zero))

    def number(self, integer: int) -> float:
        """What `dequantize` makes of an integer."""
        return float(np.float32(integer - self.zero_point) * np.float32(self.scale))


def step_of(node: Node | None) -> Step | None:
    """Scale and zero point of a quantize or dequantize to or from 8 bits, where both are numbers
    known for the whole tensor; None for any other node."""
    if node is None or not isinstance(node.op, Quantize | Dequantize):
        return None
    integers = node.output if isinstance(node.op, Quantize) else node.inputs[0]
    scale, *zero_points = map(number_of, node.inputs[1:])
    zero_point = zero_points[0] if zero_points else 0
    if scale is None or zero_point is None or integers.type.dtype not in EIGHT_BITS:
        return None
    rounded = float(np.float32(scale))
    if not 1 / LARGEST_SCALE < rounded < LARGEST_SCALE:
        return None
    return Step(Exact(rounded), int(zero_point), integers.type.dtype)


def number_of(value: Value) -> float | None:
    """The number that a scalar constant is."""
    match value.producer:
        case Node(op=Constant(value=float() | int() as number)):
            return number
    return None


def dequantised(value: Value) -> tuple[Node, Step] | None:
    """The dequantize that makes a value, and its step, where that is of 8 bits and known."""
    match value.producer:
        case Node(op=Dequantize()) as node if (step := step_of(node)) is not None:
            return node, step
    return None


def is_quantised(value: Value) -> bool:
    """Whether a value is a dequantised tensor of 8 bits, of known scale and zero point."""
    return dequantised(value) is not None


def as_float32(scale: Recipe) -> Recipe:
    """A number rounded as a float32 constant is: recipes are evaluated in float64."""
    return Literal(float(np.float32(scale.value))) if isinstance(scale, Literal) else scale


# -- weights ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Weights as integers (i8 or i16) times a scale for each output channel (a vector)."""

    integers: Recipe
    scale: Recipe

    @property
    def reach(self) -> int:
        """The largest size of one."""
        return 255 if self.integers.type.dtype == "i16" else 128


def weights_of(recipe: Recipe, axis: int = 0) -> Weights | None:
    """Weights that are 8-bit integers, dequantised with one scale or one for each output channel,
    which lies along `axis`; None for others. They may have been moved about since, and scaled by
    channel, as a batch norm does."""
    match recipe:
        case Apply(Dequantize() as op, (integers, scale, *zero_points)):
            return _dequantised(op, axis, integers, scale, *zero_points)
        case Apply(Mul(), (inner, factor)):
            found, vector = weights_of(inner, axis), _along(factor, axis, recipe)
            if found is None or vector is None:
                return None
            return Weights(found.integers, mul(found.scale, vector))
        case Apply(Permute(axes=axes) as op, (inner,)):
            return _moved(op, weights_of(inner, axes[axis]))
        case Apply(Reshape() as op, (inner,)) if axis == 0:
            same = inner.type.shape[:1] == recipe.type.shape[:1]
            return _moved(op, weights_of(inner, 0)) if same else None
        case Apply(Concat(axis=along) as op, parts) if along == axis:
            found_parts = [weights_of(part, axis) for part in parts]
            known = [part for part in found_parts if part is not None]
            if len(known) < len(parts) or len({part.integers.type.dtype for part in known}) > 1:
                return None
            scales = apply(Concat(0), *(part.scale for part in known))
            return Weights(apply(op, *(part.integers for part in known)), scales)
    return None


def _dequantised(
    op: Dequantize, axis: int, integers: Recipe, scale: Recipe, zero_point: Recipe | None = None
) -> Weights | None:
    (channels,) = ints(integers.type.shape[axis : axis + 1])
    if integers.type.dtype not in EIGHT_BITS or (op.block and scale.type.rank):
        return None
    if scale.type.rank and op.axis != axis:
        return None
    return Weights(_centred(integers, zero_point, axis), expand(as_float32(scale), channels))


def _centred(integers: Recipe, zero_point: Recipe | None, axis: int) -> Recipe:
    """The integers less their zero point, in 8 bits where it is known that they fit."""
    known = 0 if zero_point is None else _constant(zero_point)
    if known == 0 and integers.type.dtype == "i8":
        return integers
    wide = apply(Cast("i16"), integers)
    if zero_point is None or known == 0:
        return wide
    shift = apply(Cast("i16"), zero_point)
    if shift.type.rank:
        (channels,) = ints(shift.type.shape)
        ranks = range(integers.type.rank)
        shift = reshape(shift, *(channels if a == axis else 1 for a in ranks))
    centred = apply(Sub(), wide, shift)
    return apply(Cast("i8"), centred) if known == 128 else centred


def _constant(recipe: Recipe) -> int | None:
    match recipe:
        case Apply(Constant(value=int() as number)):
            return number
    return None


def _along(factor: Recipe, axis: int, whole: Recipe) -> Recipe | None:
    """A factor as a vector along an axis of what it is multiplied with, if it is one."""
    shape = ints((1,) * (whole.type.rank - factor.type.rank) + factor.type.shape)
    (channels,) = ints(whole.type.shape[axis : axis + 1])
    if len(shape) > whole.type.rank or any(d != 1 for a, d in enumerate(shape) if a != axis):
        return None
    if isinstance(factor, Literal) or shape[axis] == 1:
        return expand(reshape(factor), channels)
    return reshape(factor, channels)


def _moved(op: Op, weights: Weights | None) -> Weights | None:
    return weights and Weights(apply(op, weights.integers), weights.scale)
