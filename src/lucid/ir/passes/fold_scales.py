"""fold-scales: constant factors move from activations into weights."""

from __future__ import annotations

from dataclasses import replace

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    AvgPool2d,
    Constant,
    Conv2d,
    Convolution,
    Linear,
    MatMul,
    Mul,
    Op,
    Slice,
    SplitAttention,
)
from lucid.ir.passes.recipes import (
    along,
    apply,
    are_parameters,
    expand,
    ints,
    mul,
    recipe_of,
    reshape,
    sub,
)
from lucid.ir.passes.regions import by_channel, scalar_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Literal, Recipe

fold_scales = Pass(
    "fold-scales",
    "Move constant factors, divisors of average pools and radix-2 softmaxes into weights",
)


@rewrite(fold_scales, Mul)
def factor_into_weights(node: Node, graph: Rewriter) -> None:
    """conv2d(x, w, b) * s == conv2d(x, w * s, b * s), for a scalar or s by channel

    As a layer scale is. A linear likewise.

    Fires where the multiplication alone reads the layer's result, and the weights are parameters.
    """
    for y, other in (node.inputs, node.inputs[::-1]):
        layer = y.producer
        if (
            layer is None
            or not isinstance(layer.op, Convolution | Linear)
            or y.type != node.output.type
        ):
            continue
        factor = _factor(other, y, layer.op)
        if factor is None:
            continue
        if graph.only_user(y) is not node:
            graph.miss(node, f"%{y.name} is read elsewhere too", layer)
        elif not are_parameters(*layer.inputs[1:]):
            graph.miss(node, "the weights before it are computed, not parameters", layer)
        else:
            x, weight, *biases = layer.inputs
            vector = reshape(factor, *ints(weight.type.shape[:1]))
            rows = mul(recipe_of(weight), along(vector, 0, weight.type.rank))
            operands = [x, graph.parameter(f"{weight.name}.scaled", rows)]
            for bias in biases:
                scaled = mul(recipe_of(bias), vector)
                operands.append(graph.parameter(f"{bias.name}.scaled", scaled))
            graph.substitute(node, layer.op, operands, fuses=[layer, node])
            return


def _factor(value: Value, y: Value, layer: Op) -> Recipe | None:
    """A scalar, or a parameter by channel, with one number for each channel of a layer's result."""
    scalar = scalar_of(value)
    if isinstance(scalar, Constant) and isinstance(scalar.value, int | float):
        channels = ints(y.type.shape[1:2] if isinstance(layer, Convolution) else y.type.shape[-1:])
        return expand(Literal(float(scalar.value)), *channels)
    return by_channel(value, y.type, layer)


@rewrite(fold_scales, MatMul)
def factor_after_product(node: Node, graph: Rewriter) -> None:
    """matmul(x * s, y) == matmul(x, y) * s, for a scalar s

    The kernel of a product scales it on the way.

    As the queries of an attention are. Fires where the factor is a scalar and nothing else reads
    what is scaled.
    """
    for i, value in enumerate(node.inputs):
        scaled = value.producer
        if scaled is None or not isinstance(scaled.op, Mul) or graph.only_user(value) is not node:
            continue
        x, factor = scaled.inputs
        if scalar_of(factor) is None or x.type != value.type or node.inputs.count(value) > 1:
            continue
        operands = [x if j == i else v for j, v in enumerate(node.inputs)]
        product = graph.insert_before(node, node.op, operands)
        graph.substitute(node, Mul(), [product, factor], fuses=[node, scaled])
        return


@rewrite(fold_scales, AvgPool2d)
def divisor_into_weights(pool: Node, graph: Rewriter) -> None:
    """conv2d(avg_pool2d(x), w, b) == conv2d(avg_pool2d{divisor=1}(x), w / n, b)

    As in ResNeSt: the pool sums, 1/9 goes into the weights. A linear likewise.

    Fires where the divisor of every window is one number whatever the size of the image: padding
    counts (or the divisor is given) and no window hangs over. Packed weights are shared by all
    image sizes, so it must not depend on one: not with `ceil_mode`, not where padding does not
    count, and not without padding, where a pool may be global at one size (canonicalise makes that
    a mean). The convolution must be the only reader. Its own padding may be anything, for the zeros
    it adds stay zeros, and its bias stays as it is.
    """
    op, readers = pool.op, pool.output.users
    assert isinstance(op, AvgPool2d)
    layer = next((n for n in readers if isinstance(n.op, (Conv2d, Linear))), None)
    if op.divisor == 1 or layer is None:
        return
    obstacle = _depends_on_size(op)
    if obstacle:
        graph.miss(pool, obstacle, layer)
    elif graph.only_user(pool.output) is not layer or layer.inputs.count(pool.output) > 1:
        graph.miss(pool, f"%{pool.output.name} is read more than once", layer)
    elif not are_parameters(layer.inputs[1]):
        graph.miss(pool, "the weight after it is computed, not a parameter", layer)
    else:
        _scale(pool, op, layer, graph)


def _depends_on_size(op: AvgPool2d) -> str:
    """Why the divisor is not one number for all windows of all image sizes; empty where it is."""
    if op.ceil_mode:
        return "with ceil_mode, windows that hang over have another divisor"
    if not any(op.padding):
        return "without padding it may be a global pool at another image size"
    if not op.count_include_pad and op.divisor is None:
        return "padding does not count, so windows at the rim have another divisor"
    return ""


def _scale(pool: Node, op: AvgPool2d, layer: Node, graph: Rewriter) -> None:
    """Let the pool sum, and the weights of the layer after it divide."""
    weight = layer.inputs[1]
    divisor = op.divisor or op.kernel[0] * op.kernel[1]
    scaled = graph.parameter(
        f"{weight.name}.scaled", mul(recipe_of(weight), Literal(1.0 / divisor))
    )
    summed = graph.substitute(pool, replace(op, divisor=1), pool.inputs)
    graph.substitute(layer, layer.op, [summed.output, scaled, *layer.inputs[2:]])


@rewrite(fold_scales, SplitAttention)
def softmax_of_two(attention: Node, graph: Rewriter) -> None:
    """split_attention(x, w) == split_attention{folded=true}(x, w[0] - w[1]), of radix 2

    Softmax over two logits is the sigmoid of their difference.

    fc2 keeps the differences of its rows, half of them, in the order of the output channels:
    softmax(z0, z1) = (s, 1 - s) with s = sigmoid(z0 - z1), so y = x1 + s * (x0 - x1). Fires where
    fc2 is given by parameters; not for other radices, which have no such form.
    """
    op = attention.op
    assert isinstance(op, SplitAttention)
    *others, weight, bias = attention.inputs
    if op.folded or op.gate != "softmax":
        return
    if op.radix != 2:
        graph.miss(attention, f"only a softmax over 2 splits is a sigmoid, this is over {op.radix}")
        return
    if not are_parameters(weight, bias):
        graph.miss(attention, "fc2 is computed, not a parameter")
        return
    new_weight = graph.parameter(f"{weight.name}.difference", _difference(op, recipe_of(weight)))
    new_bias = graph.parameter(f"{bias.name}.difference", _difference(op, recipe_of(bias)))
    graph.substitute(attention, replace(op, folded=True), [*others, new_weight, new_bias])


def _difference(op: SplitAttention, rows: Recipe) -> Recipe:
    """Rows (cardinality, 2, C/cardinality) of fc2 -> row of split 0 minus row of split 1, (C)."""
    count, *rest = ints(rows.type.shape)
    pairs = reshape(rows, op.cardinality, 2, count // (2 * op.cardinality), *rest)
    first, second = (apply(Slice(1, k, k + 1), pairs) for k in (0, 1))
    return reshape(sub(first, second), count // 2, *rest)
