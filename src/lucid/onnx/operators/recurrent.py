"""Recurrent layers. ONNX puts time before sequences unless `layout` is 1, and directions between
them; the ops have sequences first, and both directions side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import (
    Cast,
    Elu,
    Expand,
    Gru,
    Hardsigmoid,
    LeakyRelu,
    Lstm,
    Op,
    Permute,
    Recurrent,
    Relu,
    Reshape,
    Rnn,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
)
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

SWAPPED = (1, 0, 2)

ACTIVATIONS: dict[str, Callable[[float | None, float | None], Op | None]] = {
    "relu": lambda alpha, beta: Relu(),
    "tanh": lambda alpha, beta: Tanh(),
    "sigmoid": lambda alpha, beta: Sigmoid(),
    "softsign": lambda alpha, beta: Softsign(),
    "softplus": lambda alpha, beta: Softplus(),
    "leakyrelu": lambda alpha, beta: LeakyRelu(0.01 if alpha is None else alpha),
    "elu": lambda alpha, beta: Elu(1.0 if alpha is None else alpha),
}
