"""What Lucid's passes make, written as the parts that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lucid.ir.ops import (
    Add,
    Fusion,
    Mean,
    Mul,
    Permute,
    RadixCombine,
    RadixMean,
    RadixSoftmax,
    Reshape,
    Slice,
    Softmax,
    SplitAttention,
    Sub,
)
from lucid.ir.types import Dim, TensorType
from lucid.onnx.table import writes

if TYPE_CHECKING:
    from lucid.onnx.writer import Edge, Writer


@writes(RadixMean)
def write_radix_mean(w: Writer, op: RadixMean, operands: Sequence[Edge], kind: TensorType) -> str:
    """The sum of the splits' means: no sum of whole images."""
    (x,) = operands
    mean = w.apply(Mean((2, 3), keepdims=True), x)
    return _total(w, [w.apply(part, mean) for part in _splits(op.radix, kind)])


@writes(RadixSoftmax)
def write_radix_softmax(
    w: Writer, op: RadixSoftmax, operands: Sequence[Edge], kind: TensorType
) -> str:
    n, channels, *_ = kind.shape
    inner = _int(channels) // (op.cardinality * op.radix)
    if op.cardinality == 1:  # one cardinality: in the order of x already
        by_radix = w.apply(Reshape((n, op.radix, 1, inner)), operands[0])
    else:
        logits = w.apply(Reshape((n, op.cardinality, op.radix, inner)), operands[0])
        by_radix = w.apply(Permute((0, 2, 1, 3)), logits)
    return w.apply(Reshape(kind.shape), w.apply(Softmax(1), by_radix)).name


@writes(RadixCombine)
def write_radix_combine(
    w: Writer, op: RadixCombine, operands: Sequence[Edge], kind: TensorType
) -> str:
    x, gate = operands
    if op.radix == 1:
        return w.apply(Mul(), x, gate).name
    parts = _splits(op.radix, kind)
    splits = [w.apply(part, x) for part in parts]
    if op.folded:
        difference = w.apply(Sub(), splits[0], splits[1])
        return w.apply(Add(), splits[1], w.apply(Mul(), gate, difference)).name
    gates = [w.apply(part, gate) for part in parts]
    return _total(w, [w.apply(Mul(), s, g) for s, g in zip(splits, gates, strict=True)])


@writes(SplitAttention)
def write_split_attention(
    w: Writer, op: SplitAttention, operands: Sequence[Edge], kind: TensorType
) -> str:
    x, fc1_weight, fc1_bias, fc2_weight, fc2_bias = operands
    parts = op.parts()
    hidden = w.apply(parts.fc1, w.apply(parts.mean, x), fc1_weight, fc1_bias)
    logits = w.apply(parts.fc2, w.apply(parts.activation, hidden), fc2_weight, fc2_bias)
    return w.apply(parts.combine, x, w.apply(parts.gate, logits)).name


@writes(Fusion)
def write_fusion(w: Writer, op: Fusion, operands: Sequence[Edge], kind: TensorType) -> str:
    own = op.anchor_operands(len(operands))
    return w.inline(op.body, w.apply(op.anchor, *operands[:own]), *operands[own:]).name


def _splits(radix: int, kind: TensorType) -> list[Slice]:
    """What cuts (N, radix*C, ...) into its splits; `kind`: the type of one."""
    channels = _int(kind.shape[1])
    return [Slice(1, r * channels, (r + 1) * channels) for r in range(radix)]


def _total(w: Writer, terms: Sequence[Edge]) -> str:
    total = terms[0]
    for term in terms[1:]:
        total = w.apply(Add(), total, term)
    return total.name


def _int(dim: int | Dim) -> int:
    assert isinstance(dim, int), "channels do not depend on the batch"
    return dim
