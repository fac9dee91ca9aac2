"""fold-batch-norm: batch norms become part of the weights before or after them."""

from __future__ import annotations

import math

from lucid.ir.graph import Node, Value
from lucid.ir.ops import Add, BatchNorm, Convolution, Linear, Mul, Sum
from lucid.ir.passes.recipes import (
    add,
    along,
    apply,
    are_parameters,
    ints,
    mul,
    recipe_of,
    reshape,
    rsqrt,
    sub,
)
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Literal, Recipe

fold_batch_norm = Pass(
    "fold-batch-norm", "Fold batch norms into the weights of the convolution or linear beside them"
)


@rewrite(fold_batch_norm, BatchNorm)
def into_weights(norm: Node, graph: Rewriter) -> None:
    """batch_norm(conv2d(x, w, b)) == conv2d(x, w * s, b * s + t)

    With s = weight / sqrt(var + eps) and t = bias - mean * s, by the row of w, in float64; a linear
    likewise.

    Fires where the batch norm alone reads the convolution and all their tensors are parameters.
    Not where the convolution is read elsewhere too (it would be computed twice), and not after a
    linear of more than (N, features): there axis 1, which is normalised, is not the features.
    """
    x, *statistics = norm.inputs
    layer = x.producer
    if layer is None or not isinstance(layer.op, (Convolution, Linear)):
        graph.miss(norm, f"%{x.name}, which it normalises, is made by no conv2d or linear")
    elif graph.only_user(x) is not norm:
        graph.miss(norm, f"%{x.name} is read elsewhere too", layer)
    elif not are_parameters(*layer.inputs[1:], *statistics):
        graph.miss(norm, "not all weights and statistics are parameters", layer)
    elif isinstance(layer.op, Linear) and x.type.rank != 2:
        why = f"axis 1 of {x.type}, which is normalised, is not the linear's features"
        graph.miss(norm, why, layer)
    else:
        _fold(norm, layer, graph)


def _fold(norm: Node, layer: Node, graph: Rewriter) -> None:
    """Put the layer with other weights in the place of the norm."""
    scale, shift = scale_and_shift(norm)
    operand, weight, *biases = layer.inputs
    rows = mul(recipe_of(weight), along(scale, 0, weight.type.rank))
    if biases:
        shift = add(mul(recipe_of(biases[0]), scale), shift)
    new_weight = graph.parameter(f"{weight.name}.folded", rows)
    new_bias = graph.parameter(f"{biases[0].name if biases else bias_name(weight)}.folded", shift)
    graph.substitute(norm, layer.op, [operand, new_weight, new_bias], fuses=[layer, norm])


@rewrite(fold_batch_norm, BatchNorm)
def into_next_weights(norm: Node, graph: Rewriter) -> None:
    """conv2d(batch_norm(x), w, b) == conv2d(x, w * s, b + sum(w * t))

    With s and t of the norm, by the column of w; a linear likewise.

    Fires where convolutions without padding, or linears of (N, features), by parameters are all
    that reads the norm. What a convolution pads with is zero after the norm, and would be its shift
    before.
    """
    y, readers = norm.output, norm.output.users
    if not readers or y in graph.graph.outputs or not are_parameters(*norm.inputs[1:]):
        return
    if not all(_takes(reader, y) for reader in readers):
        return
    padded = next((n for n in readers if isinstance(n.op, Convolution) and any(n.op.padding)), None)
    if padded is not None:
        graph.miss(norm, "the convolution after it pads with zeros, not with the shift", padded)
        return
    scale, shift = scale_and_shift(norm)
    for reader in readers:
        operands = _taken_in(reader, scale, shift, graph)
        graph.substitute(reader, reader.op, [norm.inputs[0], *operands], fuses=[norm, reader])


def _takes(layer: Node, x: Value) -> bool:
    """Whether a layer by parameters reads x, along whose axis 1 its features lie."""
    fits = isinstance(layer.op, Convolution) or (isinstance(layer.op, Linear) and x.type.rank == 2)
    return fits and layer.inputs[0] is x and are_parameters(*layer.inputs[1:])


def _taken_in(layer: Node, scale: Recipe, shift: Recipe, graph: Rewriter) -> list[Value]:
    """Weight and bias of `layer` for an input of which it read `scale` * x + `shift`."""
    weight, *biases = layer.inputs[1:]
    groups = layer.op.groups if isinstance(layer.op, Convolution) else 1
    shape = ints(weight.type.shape)
    out, depth = shape[:2]
    by_group = reshape(recipe_of(weight), groups, out // groups, depth, math.prod(shape[2:]))
    columns, offsets = (reshape(v, groups, 1, depth, 1) for v in (scale, shift))
    scaled = reshape(mul(by_group, columns), *shape)
    added = reshape(apply(Sum((2, 3)), mul(by_group, offsets)), out)
    bias = add(recipe_of(biases[0]), added) if biases else added
    return [
        graph.parameter(f"{weight.name}.folded", scaled),
        graph.parameter(f"{biases[0].name if biases else bias_name(weight)}.folded", bias),
    ]


@rewrite(fold_batch_norm, BatchNorm)
def into_scale_and_shift(norm: Node, graph: Rewriter) -> None:
    """batch_norm(x) == x * s + t, by channel

    Of any batch norm over parameters that is left.
    """
    x, *statistics = norm.inputs
    if not are_parameters(*statistics):
        graph.miss(norm, "its statistics are computed, not parameters")
        return
    scale, shift = (along(r, 0, x.type.rank - 1) for r in scale_and_shift(norm))
    stem = statistics[0].name
    scaled = graph.insert_before(norm, Mul(), [x, graph.parameter(f"{stem}.folded", scale)])
    bias = graph.parameter(f"{statistics[1].name}.folded", shift)
    graph.substitute(norm, Add(), [scaled, bias], fuses=[norm])


def scale_and_shift(norm: Node) -> tuple[Recipe, Recipe]:
    """The batch norm as y = x * scale + shift, both (C)."""
    assert isinstance(norm.op, BatchNorm)
    weight, bias, mean, variance = (recipe_of(v) for v in norm.inputs[1:])
    scale = mul(weight, rsqrt(add(variance, Literal(norm.op.eps))))
    return scale, sub(bias, mul(mean, scale))


def bias_name(weight: Value) -> str:
    """What the bias beside a weight is called: `conv1.bias` beside `conv1.weight`."""
    stem = weight.name.removesuffix(".folded")
    return f"{stem.removesuffix('weight')}bias" if stem.endswith("weight") else f"{stem}.bias"
