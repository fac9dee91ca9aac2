"""trim-taps: convolutions lose the taps that only ever meet the padding.

A window dilated further than the map is high or wide, as in the pyramids of DeepLab (Chen et al.,
"Rethinking atrous convolution for semantic image segmentation", 2017, section 3.1 says what becomes
of it), multiplies zeros with all but its middle taps.
"""

from __future__ import annotations

from lucid.ir.graph import Node, Parameter
from lucid.ir.ops import Conv2d, Slice
from lucid.ir.passes.recipes import ints
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Apply, Recipe

trim_taps = Pass("trim-taps", "Drop the taps of convolutions that only ever meet the padding")


@rewrite(trim_taps, Conv2d)
def beyond_the_map(node: Node, graph: Rewriter) -> None:
    """conv2d{p}(x, w) == conv2d{p - k}(x, w[k:-k]), where no pixel lies under k taps

    The first and last lines and columns of taps under which no output has a pixel of the map.

    Fires on dilated windows whose weight is a parameter; the padding shrinks as the window does.
    (Plain windows over maps smaller than they are stay whole, so that a network's packed weights
    are the same at every image size.)
    """
    op, (x, weight, *bias) = node.op, node.inputs
    assert isinstance(op, Conv2d)
    if not isinstance(weight, Parameter) or op.dilation == (1, 1):
        return
    recipe: Recipe = weight.recipe
    padding = list(op.padding)
    for axis in (0, 1):
        taps, size, out = ints(
            (weight.type.shape[2 + axis], x.type.shape[2 + axis], node.output.type.shape[2 + axis])
        )
        alive = [t for t in range(taps) if _meets(op, axis, t, size, out)]
        if not alive:
            continue
        first, last = alive[0], alive[-1] + 1  # those between that are dead stay
        if last - first == taps:
            continue
        recipe = Apply(Slice(2 + axis, first, last), (recipe,))
        padding[axis] -= first * op.dilation[axis]
        padding[2 + axis] -= (taps - last) * op.dilation[axis]
    if recipe is weight.recipe:
        return
    if min(padding) < 0:
        graph.miss(node, "the window without its dead taps would begin inside the map")
        return
    top, left, bottom, right = padding
    trimmed = Conv2d(op.stride, (top, left, bottom, right), op.dilation, op.groups)
    parameter = graph.parameter(f"{weight.name}.trimmed", recipe)
    graph.substitute(node, trimmed, [x, parameter, *bias])


def _meets(op: Conv2d, axis: int, tap: int, size: int, out: int) -> bool:
    """Whether a tap lies on the map for some output."""
    start = tap * op.dilation[axis] - op.padding[axis]
    return any(0 <= start + i * op.stride[axis] < size for i in range(out))
