"""quantise-layers: layers of dequantised tensors become exact sums of integers, times a scale.

What the integers stand for is computed as floats from there on, step by step: the cast of the sum,
its product with one number for each channel, the bias. `fold-quantize` has the scale of a quantize
that comes next join these, and `fuse-epilogue` the layer.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    Add,
    AvgPool2d,
    Cast,
    Clip,
    Constant,
    Conv2d,
    Dequantize,
    Div,
    Expand,
    IntegerConv2d,
    IntegerLinear,
    IntegerMatMul,
    IntegerSumPool2d,
    Linear,
    MatMul,
    Mean,
    Mul,
    Op,
    Pad,
    Resize,
    Sub,
)
from lucid.ir.passes.fold_batch_norm import bias_name
from lucid.ir.passes.quantised import Step, Weights, dequantised, is_quantised, weights_of
from lucid.ir.passes.recipes import apply, expand, ints, mul, recipe_of, reshape
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Apply, Literal, Recipe, Source
from lucid.ir.types import TensorType

quantise_layers = Pass(
    "quantise-layers", "Turn layers of dequantised tensors into exact sums of integers"
)

SPATIAL = (2, 3)
SUMS = 1 << 31  # of 32 bits
LARGEST_WINDOW = 1 << 23


# -- products -------------------------------------------------------------------------------------


@rewrite(quantise_layers, Conv2d, Linear)
def of_integers(layer: Node, graph: Rewriter) -> None:
    """conv2d(dequantize(x), dequantize(w), b) == cast(integer_conv2d(x, w)) * s + b

    With s the product of both scales, one number for each output channel. A linear likewise.

    Fires where x is of 8 bits, with a scale and a zero point known for the whole tensor, and the
    weights are 8-bit integers with a scale for all or one for each output channel, and no sum can
    leave 32 bits. A bias of 32 bits whose scale is s, by its recipe or as a number, is added to the
    sums; any other as floats.
    """
    x, weight, *biases = layer.inputs
    recipe = weight.recipe if isinstance(weight, Parameter) else None
    weights = weights_of(recipe) if recipe is not None else None
    found = dequantised(x)
    if found is None:
        if weights is not None:
            graph.miss(layer, f"its weights are integers, but %{x.name} is {_no_step(x)}")
        return
    source, step = found
    if weights is None:
        graph.miss(layer, f"its weights are {_no_weights(weight)}", source)
    elif not all(isinstance(b, Parameter) for b in biases):
        graph.miss(layer, "its bias is computed, no parameter", source)
    elif not _fits(weights, step):
        graph.miss(layer, f"sums of {_depth(weights)} products may need more than 32 bits", source)
    else:
        _replace(layer, source.inputs[0], step, weights, graph)


def _no_step(x: Value) -> str:
    """Why a value is not taken for a quantised tensor."""
    node = x.producer
    if node is None or not isinstance(node.op, Dequantize):
        return "not dequantised"
    return "dequantised by what is no number known for the whole tensor, or from other than 8 bits"


def _no_weights(weight: Value) -> str:
    if not isinstance(weight, Parameter):
        return "computed, no parameter"
    return "not dequantised from 8 bits, with one scale or one for each output channel"


def _depth(weights: Weights) -> int:
    """How many products each sum has."""
    return math.prod(ints(weights.integers.type.shape)[1:])


def _fits(weights: Weights, step: Step) -> bool:
    return _depth(weights) * weights.reach * step.reach < SUMS


def _replace(layer: Node, x: Value, step: Step, weights: Weights, graph: Rewriter) -> None:
    """Put the product of integers, and what makes floats of it, in the place of the layer."""
    weight, *biases = layer.inputs[1:]
    name = weight.name.removesuffix(".folded")
    operands = [x, _parameter(graph, f"{name}.integers", weights.integers)]
    scale = mul(weights.scale, Literal(step.scale))
    integers = _integer_bias(biases[0], weights, step) if biases else None
    if integers is not None:
        operands.append(_parameter(graph, f"{biases[0].name}.integers", integers))
        biases = []
    sums = graph.insert_before(layer, _integer_op(layer.op, step), operands)
    y = graph.insert_before(layer, Cast("f32"), [sums])
    factor = graph.parameter(f"{name}.scale", _by_channel(scale, layer))
    if not biases:
        graph.substitute(layer, Mul(), [y, factor], fuses=[layer])
        return
    scaled = graph.insert_before(layer, Mul(), [y, factor])
    bias = _by_channel(recipe_of(biases[0]), layer)
    shift = biases[0]
    if bias != recipe_of(shift):
        shift = graph.parameter(f"{bias_name(weight)}.reshaped", bias)
    graph.substitute(layer, Add(), [scaled, shift], fuses=[layer])


def _parameter(graph: Rewriter, name: str, recipe: Recipe) -> Value:
    """A parameter given by a recipe, under its own name where it is a tensor of the model."""
    if isinstance(recipe, Source):
        return graph.graph.add_parameter(recipe.name, recipe)
    return graph.parameter(name, recipe)


def _integer_op(op: Op, step: Step) -> Op:
    if isinstance(op, Conv2d):
        return IntegerConv2d(op.stride, op.padding, op.dilation, op.groups, step.zero_point)
    return IntegerLinear(step.zero_point)


def _by_channel(vector: Recipe, layer: Node) -> Recipe:
    """A vector so that it broadcasts with the layer's result."""
    if isinstance(layer.op, Conv2d):
        return reshape(vector, 1, *ints(vector.type.shape), 1, 1)
    return vector


def _integer_bias(bias: Value, weights: Weights, step: Step) -> Recipe | None:
    """The bias as an operand of the sums, where it is of 32 bits at just their scale."""
    match recipe_of(bias):
        case Apply(Dequantize(block=0), (integers, scale)) if integers.type.dtype == "i32":
            sums = mul(weights.scale, Literal(step.scale))
            turned = mul(Literal(step.scale), weights.scale)
            given = expand(scale, *ints(integers.type.shape))
            if given in (sums, turned) or _same_number(scale, weights.scale, step):
                return integers
    return None


def _same_number(scale: Recipe, of_weights: Recipe, step: Step) -> bool:
    """Whether a bias's scale is the float32 number that both others' product is rounded to."""
    match scale, of_weights:
        case Literal(value=its), Apply(Expand(), (Literal(value=number),)):
            product = np.float32(number) * np.float32(step.scale)
            return bool(np.float32(its) == product)
    return False


@rewrite(quantise_layers, MatMul)
def product_of_integers(node: Node, graph: Rewriter) -> None:
    """matmul(dequantize(a), dequantize(b)) == cast(integer_matmul(a, b)) * s

    With s the product of both scales. Fires where both are of 8 bits, with scales and zero points
    known for the whole tensors, and no sum can leave 32 bits.
    """
    left, right = map(dequantised, node.inputs)
    if left is None or right is None:
        other = next(v for v in node.inputs if not is_quantised(v))
        if known := left or right:
            graph.miss(node, f"%{other.name} is {_no_step(other)}", known[0])
        return
    (a, a_step), (b, b_step) = left, right
    depth = node.inputs[0].type.shape[-1]
    if not isinstance(depth, int) or depth * a_step.reach * b_step.reach >= SUMS:
        graph.miss(node, f"sums of {depth} products may need more than 32 bits", a, b)
        return
    op = IntegerMatMul(a_step.zero_point, b_step.zero_point)
    sums = graph.insert_before(node, op, [a.inputs[0], b.inputs[0]])
    _scaled(node, sums, a_step.scale * b_step.scale, graph)


def _scaled(node: Node, integers: Value, scale: float, graph: Rewriter) -> None:
    """Integers times a number in the place of a node."""
    y = graph.insert_before(node, Cast("f32"), [integers])
    factor = graph.insert_before(node, Constant(scale), [])
    graph.substitute(node, Mul(), [y, factor], fuses=[node])


# -- pools and resizes ----------------------------------------------------------------------------


@rewrite(quantise_layers, Mean)
def mean_of_integers(node: Node, graph: Rewriter) -> None:
    """mean(dequantize(x)) == cast(integer_sum_pool2d(x)) * s / (h * w), over height and width

    Fires where x is of 8 bits, with a scale and a zero point known for the whole tensor.
    """
    op, found = node.op, dequantised(node.inputs[0])
    assert isinstance(op, Mean)
    if found is None:
        return
    source, step = found
    if op.axes != SPATIAL or not op.keepdims or source.output.type.rank != 4:
        graph.miss(node, f"a mean over {op.axes} is none over height and width", source)
        return
    height, width = ints(source.output.type.shape[2:])
    if height * width >= LARGEST_WINDOW:
        graph.miss(node, f"sums of {height * width} numbers may need more than 32 bits", source)
        return
    pool = IntegerSumPool2d((height, width), (1, 1), zero_point=step.zero_point)
    sums = graph.insert_before(node, pool, source.inputs[:1])
    _scaled(node, sums, step.scale / (height * width), graph)


@rewrite(quantise_layers, Mean)
def mean_of_sum(node: Node, graph: Rewriter) -> None:
    """mean(dequantize(x) + dequantize(y)) == mean(dequantize(x)) + mean(dequantize(y))

    Over height and width, as of the splits of a split attention, which are of one size.

    Fires where the mean alone reads the sum, and all terms of it are of 8 bits, with scales and
    zero points known for the whole tensors.
    """
    op, (total,) = node.op, node.inputs
    assert isinstance(op, Mean)
    terms = _terms(total, graph)
    if len(terms) == 1 or op.axes != SPATIAL or not op.keepdims or total.type.rank != 4:
        return
    if not all(is_quantised(v) and v.type == total.type for v in terms):
        return
    means = [graph.insert_before(node, op, [v]) for v in terms]
    for mean in means[1:-1]:
        means[0] = graph.insert_before(node, Add(), [means[0], mean])
    graph.substitute(node, Add(), [means[0], means[-1]], fuses=[node])


def _terms(value: Value, graph: Rewriter) -> list[Value]:
    """What is added up for one reader alone, from first to last."""
    match value.producer:
        case Node(op=Add(), inputs=[x, y]) if graph.only_user(value) is not None:
            return [*_terms(x, graph), *_terms(y, graph)]
    return [value]


@rewrite(quantise_layers, AvgPool2d)
def pool_of_integers(node: Node, graph: Rewriter) -> None:
    """avg_pool2d(dequantize(x)) == cast(integer_sum_pool2d(x)) * s / divisor

    Where windows that hang over the border count fewer pixels, the quotient is one for each place.

    Fires where x is of 8 bits, with a scale and a zero point known for the whole tensor.
    """
    op, found = node.op, dequantised(node.inputs[0])
    assert isinstance(op, AvgPool2d)
    if found is None:
        return
    source, step = found
    area = math.prod(op.kernel)
    if area >= LARGEST_WINDOW:
        graph.miss(node, f"sums of {area} numbers may need more than 32 bits", source)
        return
    sums = graph.insert_before(
        node,
        IntegerSumPool2d(
            op.kernel, op.stride, op.padding, op.ceil_mode, op.dilation, step.zero_point
        ),
        source.inputs[:1],
    )
    divisor = op.uniform_divisor(*ints(source.output.type.shape[2:]))
    if divisor is not None:
        _scaled(node, sums, step.scale / divisor, graph)
        return
    quotient = apply(Div(), Literal(step.scale), _divisors(op, source.output.type))
    y = graph.insert_before(node, Cast("f32"), [sums])
    factor = graph.parameter(f"{node.output.name}.scale", quotient)
    graph.substitute(node, Mul(), [y, factor], fuses=[node])


def _divisors(op: AvgPool2d, image: TensorType) -> Recipe:
    """How many pixels each window counts, (1, 1, OH, OW): the pool of an image of ones."""
    ones = expand(Literal(1.0), 1, 1, *ints(image.shape[2:]))
    padding = op.padding
    if op.count_include_pad:  # what lies behind the padding does not count
        top, left, bottom, right = padding
        ones = apply(Pad((0, 0, top, left), (0, 0, bottom, right), 1.0), ones)
        padding = (0, 0, 0, 0)
    counts = apply(replace(op, padding=padding, divisor=1), ones)
    return apply(Clip(low=1.0), counts)


@rewrite(quantise_layers, Resize)
def resize_of_integers(node: Node, graph: Rewriter) -> None:
    """resize{bilinear}(dequantize(x)) == (resize{bilinear}(x) - zero_point) * s

    For the weights of each pixel add up to 1: not where pixels beyond the image are 0. Fires where
    x is of 8 bits, with a scale and a zero point known for the whole tensor.
    """
    op, found = node.op, dequantised(node.inputs[0])
    assert isinstance(op, Resize)
    if found is None or op.mode == "nearest":
        return
    source, step = found
    if op.weighted or op.coordinates == "tf_crop_and_resize":
        graph.miss(node, "it weighs more than two neighbours, or pixels beyond the image", source)
        return
    y = graph.insert_before(node, op, source.inputs[:1])
    zero = graph.insert_before(node, Constant(float(step.zero_point)), [])
    centred = graph.insert_before(node, Sub(), [y, zero]) if step.zero_point else y
    factor = graph.insert_before(node, Constant(step.scale), [])
    graph.substitute(node, Mul(), [centred, factor], fuses=[node])
