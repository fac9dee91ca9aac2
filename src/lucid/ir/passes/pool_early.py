"""pool-early: averages are taken before 1x1 convolutions instead of after them."""

from __future__ import annotations

from lucid.ir.graph import Node
from lucid.ir.ops import AvgPool2d, Conv2d
from lucid.ir.passes.recipes import are_parameters
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite

pool_early = Pass(
    "pool-early", "Average images before 1x1 convolutions, which then have fewer pixels to compute"
)


@rewrite(pool_early, AvgPool2d)
def before_convolution(pool: Node, graph: Rewriter) -> None:
    """avg_pool2d(conv2d(x, w, b)) == conv2d(avg_pool2d(x), w, b), of 1x1

    As between the blocks of a DenseNet: the pool first.

    Both are linear and work on other axes, so their order does not matter, and a mean of values
    with a bias is the mean and the bias. Fires where the pool alone reads the convolution, leaves
    fewer pixels than there were, and divides by the number of pixels that it adds up: not with
    padding, nor with a divisor of its own.
    """
    op, layer = pool.op, pool.inputs[0].producer
    assert isinstance(op, AvgPool2d)
    if layer is None or not isinstance(layer.op, Conv2d) or op.stride == (1, 1):
        return
    plain = layer.op.stride == (1, 1) and not any(layer.op.padding)
    if not plain or layer.inputs[1].type.shape[2:] != (1, 1):
        return
    if graph.only_user(layer.output) is not pool:
        graph.miss(pool, f"%{layer.output.name} is read elsewhere too", layer)
    elif any(op.padding) or op.divisor is not None:
        graph.miss(pool, "its divisor is not the number of pixels that it adds up", layer)
    elif are_parameters(*layer.inputs[1:]):
        pooled = graph.insert_before(pool, op, layer.inputs[:1], inherits=False)
        graph.substitute(pool, layer.op, [pooled, *layer.inputs[1:]], fuses=[layer, pool])
