"""Biases of 32 bits at the scale of the sums that they are added to.

Files hold a bias's scales as numbers of their own. Where each is, to the bit, the float32 product
of the scales of the layer's operand and weight, the bias is given that product instead: passes,
which never read a number, then see that its integers can be added to the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lucid.ir.graph import Node, Parameter
from lucid.ir.ops import Constant, Dequantize
from lucid.ir.passes.recipes import mul
from lucid.ir.recipe import Literal, Source

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand


def at_scale_of_sums(call: Call, x: Operand, weight: Operand, bias: Operand) -> Operand:
    """The bias (C), dequantised by scale_x * scale_w where its scales (C) are these numbers."""
    match [_dequantize(operand) for operand in (x, weight, bias)]:
        case [
            Node(inputs=[_, step, *_]),
            Node(inputs=[_, Parameter(recipe=Source()) as of_weight, *_]),
            Node(op=op, inputs=[integers, Parameter(recipe=Source()) as of_bias]),
        ] if integers.type.dtype == "i32":
            of_x = _number(step)
            if of_x is not None and _is_product(call, of_bias, of_x, of_weight):
                recipe = mul(of_weight.recipe, Literal(of_x))
                scale = call.reader.graph.add_parameter(f"{of_bias.name}.product", recipe)
                return call.apply(op, integers, scale)
    return bias


def _dequantize(operand: Operand) -> Node | None:
    node = getattr(operand, "producer", None)
    return node if node is not None and isinstance(node.op, Dequantize) else None


def _number(value: Operand) -> float | None:
    """The number that a scale of a whole tensor is."""
    match getattr(value, "producer", None):
        case Node(op=Constant(value=float() as number)):
            return number
    return None


def _is_product(call: Call, scale: Parameter, of_x: float, of_weight: Parameter) -> bool:
    """Whether scales are those of a weight, each times that of the operand, as float32 numbers."""
    its, others = (np.asarray(call.reader.payload[p.name]) for p in (scale, of_weight))
    if its.dtype != np.float32 or others.dtype != np.float32 or its.shape != others.shape:
        return False
    with np.errstate(over="ignore", under="ignore"):
        return bool(np.array_equal(its, others * np.float32(of_x)))
