"""fold-pads: explicit padding becomes the padding of the convolution or pool that reads it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    AvgPool2d,
    Clip,
    Concat,
    Convolution,
    Fusion,
    MaxPool2d,
    Pad,
    Slice,
)
from lucid.ir.ops.windows import Padding
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite

fold_pads = Pass(
    "fold-pads", "Fold constant padding into the convolution or pool that reads what is padded"
)

KEEPS_SIGN = (MaxPool2d, Concat, Slice)
DEEPEST = 8  # looked at for a sign


@rewrite(fold_pads, Pad)
def pad_of_pad(node: Node, graph: Rewriter) -> None:
    """pad{a, v}(pad{b, v}(x)) == pad{a + b, v}(x)

    Two paddings with the same constant are one.
    """
    op, inner = node.op, node.inputs[0].producer
    assert isinstance(op, Pad)
    if op.mode != "constant" or inner is None or not isinstance(inner.op, Pad):
        return
    if inner.op.mode != "constant" or inner.op.value != op.value:
        graph.miss(node, "the padding before it is by another value", inner)
        return
    before = tuple(a + b for a, b in zip(op.before, inner.op.before, strict=True))
    after = tuple(a + b for a, b in zip(op.after, inner.op.after, strict=True))
    graph.substitute(node, replace(op, before=before, after=after), inner.inputs)


@rewrite(fold_pads, Convolution)
def into_convolution(node: Node, graph: Rewriter) -> None:
    """conv2d{p}(pad{q, 0}(x), w, b) == conv2d{p + q}(x, w, b)

    Zeros around an image are what a convolution pads with itself.

    Not where channels are padded, nor by another value or mode. Others that read what is padded
    keep it; it is then one convolution less that waits for it.
    """
    op = node.op
    assert isinstance(op, Convolution)
    pad = _pad(node, graph, 0.0)
    if pad is not None:
        wider = op.with_padding(_sum(op.padding, pad))
        graph.substitute(node, wider, [*_unpadded(node), *node.inputs[1:]])


@rewrite(fold_pads, MaxPool2d)
def into_max_pool(node: Node, graph: Rewriter) -> None:
    """max_pool2d{p}(pad{q, -inf}(x)) == max_pool2d{p + q}(x)

    Padding by minus infinity is what a max pool pads with itself.

    So do zeros around what is never negative, as a relu's result, where no window lies in padding
    alone: the maximum of such a window would be 0. Not with `ceil_mode`, by which a window may
    start in padding of its own, but not in an operand's.
    """
    op = node.op
    assert isinstance(op, MaxPool2d)
    pad = _pad(node, graph, -math.inf, 0.0)
    if pad is None:
        return
    (x,), padding = _unpadded(node), _sum(op.padding, pad)
    producer = node.inputs[0].producer
    zeros = producer is not None and isinstance(producer.op, Pad) and producer.op.value == 0.0
    if zeros and any(op.padding):
        graph.miss(node, "it pads by itself too, with minus infinity where there are zeros now")
    elif zeros and not _never_negative(x):
        graph.miss(node, f"%{x.name} may be negative, and zeros around it count")
    elif op.ceil_mode:
        graph.miss(node, "with ceil_mode, a window may start in an operand's padding only")
    elif zeros and not _all_reach(op, x, padding):
        graph.miss(node, "windows lie in the padding alone")
    else:
        graph.substitute(node, replace(op, padding=padding), [x])


@rewrite(fold_pads, AvgPool2d)
def into_average_pool(node: Node, graph: Rewriter) -> None:
    """avg_pool2d{p}(pad{q, 0}(x)) == avg_pool2d{p + q}(x), where padding counts

    Zeros around an image are padding that counts.

    Not where padding of its own does not count, and not with `ceil_mode`: see `into_max_pool`.
    """
    op = node.op
    assert isinstance(op, AvgPool2d)
    pad = _pad(node, graph, 0.0)
    if pad is None:
        return
    if op.ceil_mode:
        graph.miss(node, "with ceil_mode, a window may start in an operand's padding only")
    elif any(op.padding) and not op.count_include_pad and op.divisor is None:
        graph.miss(node, "its own padding does not count, and an operand's does")
    else:
        wider = replace(op, padding=_sum(op.padding, pad), count_include_pad=True)
        graph.substitute(node, wider, _unpadded(node))


# -- paddings -------------------------------------------------------------------------------------


def _pad(node: Node, graph: Rewriter, *values: float) -> tuple[int, ...] | None:
    """The padding by which `node` reads its operand padded (of an image: top, left, bottom, right),
    if with one of these values, and around the image only."""
    producer = node.inputs[0].producer
    if producer is None or not isinstance(op := producer.op, Pad):
        return None
    if op.mode != "constant" or op.value not in values:
        what = f"by {float(op.value)}" if op.mode == "constant" else f"in mode {op.mode}"
        graph.miss(node, f"%{node.inputs[0].name} is padded {what}", producer)
        return None
    if any((*op.before[:2], *op.after[:2])):
        graph.miss(node, "channels are padded, not the image alone", producer)
        return None
    return (*op.before[2:], *op.after[2:])


def _unpadded(node: Node) -> list[Value]:
    producer = node.inputs[0].producer
    assert producer is not None
    return list(producer.inputs)


def _sum(a: tuple[int, ...], b: tuple[int, ...]) -> Any:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _all_reach(op: MaxPool2d, x: Value, padding: Padding) -> bool:
    """Whether every window has a pixel of x in it, whatever the size of the image."""
    spread = [d * (k - 1) for k, d in zip(op.kernel, op.dilation, strict=True)]
    return op.dilation == (1, 1) and all(p <= spread[i % 2] for i, p in enumerate(padding))


def _never_negative(value: Value, depth: int = DEEPEST) -> bool:
    """Whether no element is below 0, as can be told from the ops before."""
    node = value.producer
    if node is None or depth == 0:
        return False
    match node.op:
        case Fusion(body=body):
            (result,) = body.outputs
            return result.producer is not None and _never_negative(result, depth - 1)
        case Clip(low=low):
            return low is not None and low >= 0
        case op if isinstance(op, KEEPS_SIGN):
            return all(_never_negative(v, depth - 1) for v in node.inputs)
        case op:
            return op.never_negative
