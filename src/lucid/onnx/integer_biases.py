"""Biases of 32 bits at the scale of the sums that they are added to.

Files hold a bias's scales as numbers of their own. Where each is, to the bit, the float32 product
of the scales of the layer's operand and weight, the bias is given that product instead: passes,
which never read a number, then see that its integers can be added to the sums.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Array, Cast, Constant, Dequantize, Mul
from lucid.ir.passes.recipes import mul, recipe_of
from lucid.ir.recipe import Literal, Source

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand

SUMS = 1 << 31  # of 32 bits


def at_scale_of_sums(call: Call, x: Operand, weight: Operand, bias: Operand) -> Operand:
    """The bias (C), dequantised by scale_x * scale_w where its scales (C) are these numbers; as
    a product of floats, which passes leave alone, where sums with it might leave 32 bits."""
    match _dequantize(bias):
        case Node(op=op, inputs=[Parameter(recipe=Source()) as integers, scale]) if (
            integers.type.dtype == "i32"
        ):
            if not _fits(call, integers, weight):
                return call.apply(Mul(), call.apply(Cast("f32"), integers), scale)
            product = _product(call, x, weight, scale)
            return bias if product is None else call.apply(op, integers, product)
    return bias


def _product(call: Call, x: Operand, weight: Operand, scale: Value) -> Parameter | None:
    """The product of the scales of operand and weight, where `scale` is that."""
    match _dequantize(x), _dequantize(weight):
        case Node(inputs=[_, step, *_]), Node(inputs=[_, of_weight, *_]):
            of_x = _number(step)
            if of_x is not None and _is_product(call, scale, of_x, of_weight):
                recipe = mul(recipe_of(of_weight), Literal(of_x))
                return call.reader.graph.add_parameter(f"{scale.name}.product", recipe)
    return None


def _fits(call: Call, bias: Parameter, weight: Operand) -> bool:
    """Whether sums of products of 8 bits, and the bias, are of 32 bits. Quantisers give channels
    of weights that are all but 0 a bias that hardly is."""
    numbers = np.abs(np.asarray(call.reader.payload[bias.name], np.int64))
    most = 255 * _magnitudes(call, weight, max(1, numbers.size))
    return bool((numbers + most < SUMS).all())


def _magnitudes(call: Call, weight: Operand, channels: int) -> Array:
    """For each channel of a convolution, the sum of its integers' magnitudes; of any other weight
    what that can be."""
    match _dequantize(weight):
        case Node(inputs=[Parameter(recipe=Source(), type=kind) as integers, _]) if (
            kind.rank > 2 and kind.dtype == "i8" and kind.shape[0] == channels
        ):
            rows = np.asarray(call.reader.payload[integers.name]).reshape(channels, -1)
            sums: Array = np.abs(rows.astype(np.int64)).sum(1)
            return sums
    return np.full(channels, prod(weight.type.concrete(1)) // channels * 255)


def _dequantize(operand: Operand) -> Node | None:
    node = getattr(operand, "producer", None)
    return node if node is not None and isinstance(node.op, Dequantize) else None


def _number(value: Operand) -> float | None:
    """The number that a scale of a whole tensor is."""
    match getattr(value, "producer", None):
        case Node(op=Constant(value=float() as number)):
            return number
    return None


def _is_product(call: Call, scale: Value, of_x: float, of_weight: Value) -> bool:
    """Whether scales are those of a weight, each times that of the operand, as float32 numbers."""
    tensors = []
    for value in (scale, of_weight):
        if not isinstance(value, Parameter) or not isinstance(value.recipe, Source):
            return False
        tensors.append(np.asarray(call.reader.payload[value.name]))
    its, others = tensors
    if its.dtype != np.float32 or others.dtype != np.float32 or its.shape != others.shape:
        return False
    with np.errstate(over="ignore", under="ignore"):
        return bool(np.array_equal(its, others * np.float32(of_x)))
