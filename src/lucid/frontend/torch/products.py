"""PyTorch's matrix products, and attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lucid.frontend.torch.reductions import safe_softmax
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.ops import Permute


@emits("linear.default")
def linear(w: Writer, x: Any, weight: Any, bias: Any) -> Value:
    """x @ weight.T + bias."""
    if w.is_weight(weight) and len(w.shape_of(weight)) == 2:
        if bias is None or w.is_weight(bias):
            return w.emit(ops.Linear(), x, weight, *([] if bias is None else [bias]))
        return w.emit(ops.Add(), w.emit(ops.Linear(), x, weight), bias)
    y = w.emit(ops.MatMul(), x, w.permute(weight, (1, 0)))
    return y if bias is None else w.emit(ops.Add(), y, bias)


@emits("addmm.default")
def addmm(w: Writer, bias: Any, a: Any, b: Any, beta: float, alpha: float) -> Value:
    if (beta, alpha) == (1, 1) and w.is_weight(bias) and len(w.shape_of(bias)) == 1:
        return product(w, a, b, bias)
    return _sum(w, bias, product(w, a, b), beta, alpha)


@emits("baddbmm.default")
def baddbmm(w: Writer, x: Any, a: Any, b: Any, beta: float, alpha: float) -> Value:
    return _sum(w, x, product(w, a, b), beta, alpha)


def _sum(w: Writer, x: Any, y: Value, beta: float, alpha: float) -> Value:
    y = y if alpha == 1 else w.emit(ops.Mul(), y, alpha)
    if beta == 0:
        return y
    return w.emit(ops.Add(), y, x if beta == 1 else w.emit(ops.Mul(), x, beta))


@emits("mm.default", "bmm.default")
def product(w: Writer, a: Any, b: Any, bias: Any = None) -> Value:
    """a @ b + bias: a Linear where b is a matrix of weights."""
    if w.is_weight(b) and len(w.shape_of(b)) == 2 and not w.is_weight(a):
        return w.emit(ops.Linear(), a, _transposed(w, b), *([] if bias is None else [bias]))
    y = w.emit(ops.MatMul(), a, b)
    return y if bias is None else w.emit(ops.Add(), y, bias)


def _transposed(w: Writer, b: Value) -> Value:
    """The matrix that b is the transposed of, where it is one."""
    node = b.producer
    if node is not None and node.op == Permute((1, 0)):
        return node.inputs[0]
    return w.permute(b, (1, 0))


@emits("matmul.default")
def matmul(w: Writer, a: Any, b: Any) -> Value:
    """A vector is a row on the left, a column on the right."""
    left, right = w.value(a), w.value(b)
    if left.type.rank == 1:
        left = w.reshape(left, (1, *left.type.shape))
    if right.type.rank == 1:
        right = w.reshape(right, (*right.type.shape, 1))
    return w.reshape(product(w, left, right), w.shape)


@emits("mv.default", "dot.default")
def vectors(w: Writer, a: Any, b: Any) -> Value:
    return matmul(w, a, b)


@emits("scaled_dot_product_attention.default")
def attention(
    w: Writer,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> Value:
    """softmax(query @ key^T * scale + mask) @ value. A mask of truth values says what is read."""
    if grouped:
        w.refuse("it shares keys between groups of queries")
    if dropout:
        w.refuse("it drops weights at random, in evaluation mode too (dropout_p)")
    shape, keys = w.shape_of(query), w.shape_of(key)
    swapped = (*range(len(keys) - 2), len(keys) - 1, len(keys) - 2)
    factor = 1 / math.sqrt(w.size(shape[-1])) if scale is None else scale
    scores = w.emit(ops.MatMul(), w.emit(ops.Mul(), query, factor), w.permute(key, swapped))
    last = len(scores.type.shape) - 1
    if causal:
        seen = np.tril(np.ones((w.size(shape[-2]), w.size(keys[-2])), bool))
        scores = w.emit(ops.Add(), scores, w.constant(np.where(seen, 0.0, -np.inf)))
    if mask is not None:
        scores = _masked(w, scores, mask)
    if mask is not None and _may_hide_all(w, mask):
        return w.emit(ops.MatMul(), safe_softmax(w, scores, last), value)
    return w.emit(ops.MatMul(), w.emit(ops.Softmax(last), scores), value)


def _masked(w: Writer, scores: Value, mask: Any) -> Value:
    if w.is_truth(mask):
        return w.emit(ops.Where(), mask, scores, -math.inf)
    return w.emit(ops.Add(), scores, mask)


def _may_hide_all(w: Writer, mask: Any) -> bool:
    """Whether a mask may leave a query without any key: torch's result is then 0."""
    if isinstance(mask, Value):
        return not w.is_weight(mask)
    array, _ = w.known(mask)
    hidden = ~array if array.dtype == bool else array == -np.inf
    return bool(hidden.all(-1).any())
