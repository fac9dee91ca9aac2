"""cut-layers: a convolution whose result is split becomes one convolution per part.

A dual path network adds some channels of a convolution to one path and appends the others to
another; a ReXNet adds its shortcut to the first channels alone. Of a convolution of its own, each
part is added, activated and put in its place by the kernel that makes it.
"""

from __future__ import annotations

from lucid.ir.graph import Node, Value
from lucid.ir.ops import Convolution, Elementwise, Slice
from lucid.ir.passes.recipes import apply, are_parameters, recipe_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite

cut_layers = Pass(
    "cut-layers", "Cut convolutions where elementwise ops change slices of their results"
)

LEAST_CHANNELS = 8  # of a part: narrower ones leave most of a register idle


@rewrite(cut_layers, Convolution)
def by_slices(node: Node, graph: Rewriter) -> None:
    """slice(conv2d(x, w, b)) == conv2d(x, slice(w), slice(b)), along the channels

    conv2d -> slices along the channels: one convolution each, by its share of the weights.

    Fires where slices, one after the other, are all that reads the result, and one of them at least
    is read by an elementwise op alone, which can then join the convolution. Not with groups.
    """
    op, y = node.op, node.output
    assert isinstance(op, Convolution)
    readers = [n for n in y.users if isinstance(n.op, Slice) and n.op.axis == 1 and n.op.step == 1]
    if not readers or y in graph.graph.outputs or not are_parameters(*node.inputs[1:]):
        return
    joining = [n for n in readers if _joins(n, graph)]
    if not joining:
        return
    if op.groups > 1:
        graph.miss(node, "it has groups", *joining)
    elif len(readers) < len(y.users) or not _follow(readers, y):
        graph.miss(node, "not only slices that follow each other read it", *joining)
    elif any(_size(n) < LEAST_CHANNELS for n in readers):
        graph.miss(node, f"a part has less than {LEAST_CHANNELS} channels", *joining)
    else:
        for reader in readers:
            assert isinstance(reader.op, Slice)
            share = Slice(0, reader.op.start, reader.op.stop)
            weights = [
                graph.parameter(f"{v.name}.part", apply(share, recipe_of(v)))
                for v in node.inputs[1:]
            ]
            graph.substitute(reader, op, [node.inputs[0], *weights], fuses=[node, reader])


def _joins(reader: Node, graph: Rewriter) -> bool:
    """Whether an elementwise op alone reads a slice, and keeps its type."""
    user = graph.only_user(reader.output)
    if user is None or not isinstance(user.op, Elementwise):
        return False
    return user.output.type == reader.output.type


def _follow(readers: list[Node], whole: Value) -> bool:
    """Whether slices take all channels of a value, each once."""
    ranges = sorted((n.op.start, n.op.stop) for n in readers if isinstance(n.op, Slice))
    ends = [0, *(stop for _, stop in ranges)]
    return ends == [*(start for start, _ in ranges), whole.type.shape[1]]


def _size(reader: Node) -> int:
    assert isinstance(reader.op, Slice)
    return reader.op.stop - reader.op.start
