"""PyTorch's recurrent layers: one op for each layer of a stack.

Torch's states are (layers * directions, N, H), and its gates have another order than ONNX's, which
is that of the ops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lucid.frontend.torch.writer import Writer, emits
from lucid.ir.graph import Value
from lucid.ir.ops import Concat, Gather, Gru, Lstm, Op, Recurrent, Relu, Rnn, Tanh

ORDERS: dict[type[Recurrent], tuple[int, ...]] = {
    Rnn: (0,),
    Gru: (1, 0, 2),
    Lstm: (0, 3, 1, 2),
}
"""For each gate of an op, which one of torch's it is."""
TANH, RELU = Tanh(), Relu()
SWAPPED = (1, 0, 2)
"""What turns time steps, or layers, before sequences into sequences first, and back."""


@emits("lstm.input")
def lstm(
    w: Writer,
    x: Any,
    hx: Sequence[Any],
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Value]:
    _refuse_dropout(w, dropout, train, num_layers)
    layers = _layers(w, Lstm(), params, has_biases, num_layers, bidirectional)
    return _stack(w, layers, x, hx, batch_first)


@emits("gru.input")
def gru(
    w: Writer,
    x: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Value]:
    _refuse_dropout(w, dropout, train, num_layers)
    cell = Gru(linear_before_reset=True)
    layers = _layers(w, cell, params, has_biases, num_layers, bidirectional)
    return _stack(w, layers, x, [hx], batch_first)


@emits("rnn_tanh.input")
def rnn_tanh(
    w: Writer,
    x: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    activation: Op = TANH,
) -> list[Value]:
    _refuse_dropout(w, dropout, train, num_layers)
    cell = Rnn(activations=(activation,))
    layers = _layers(w, cell, params, has_biases, num_layers, bidirectional)
    return _stack(w, layers, x, [hx], batch_first)


@emits("rnn_relu.input")
def rnn_relu(w: Writer, *operands: Any) -> list[Value]:
    return rnn_tanh(w, *(*operands, RELU))


def _refuse_dropout(w: Writer, dropout: float, train: bool, num_layers: int) -> None:
    if dropout and train and num_layers > 1:
        w.refuse("it drops elements at random, in evaluation mode too")


Layer = tuple[Recurrent, list[Value]]
"""An op, and its weights, recurrent weights and biases."""


def _layers(
    w: Writer,
    cell: Recurrent,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
) -> list[Layer]:
    """Of a stack, whose weights come layer by layer and direction by direction."""
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    if len(params) != each * directions * num_layers:
        w.refuse("its state is projected (proj_size)")
    cell = dataclasses.replace(cell, direction="bidirectional" if bidirectional else "forward")
    layers = []
    for first in range(0, len(params), each * directions):
        own = [params[first + d * each :][:each] for d in range(directions)]
        layers.append((cell, [_gates(w, cell, part) for part in zip(*own, strict=True)]))
    return [(op, _with_biases(w, op, weights)) for op, weights in layers]


def _gates(w: Writer, cell: Recurrent, directions: Sequence[Any]) -> Value:
    """A parameter (G*H, ...) of each direction, as (D, G*H, ...) in the op's order of gates."""
    columns, *rest = w.shape_of(directions[0])
    parts = w.emit(Concat(0), *directions) if len(directions) > 1 else w.value(directions[0])
    order = ORDERS[type(cell)]
    if len(order) > 1:
        size = w.size(columns) // cell.gates
        apart = w.reshape(parts, (len(directions), cell.gates, size, *rest))
        parts = w.emit(Gather(1), apart, w.constant(order, "i64"))
    return w.reshape(parts, (len(directions), columns, *rest))


def _with_biases(w: Writer, cell: Recurrent, weights: list[Value]) -> list[Value]:
    """Both biases as one; zeros where there are none."""
    weight, recurrent, *biases = weights
    if biases:
        return [weight, recurrent, w.emit(Concat(1), *biases)]
    directions, columns = recurrent.type.shape[:2]
    return [weight, recurrent, w.filled(0.0, (directions, columns * 2))]


def _stack(
    w: Writer, layers: Sequence[Layer], x: Any, states: Sequence[Any], batch_first: bool
) -> list[Value]:
    """The results of the last layer, and the last states of all."""
    y = w.value(x) if batch_first else w.permute(x, SWAPPED)
    last: list[list[Value]] = []
    for number, (cell, weights) in enumerate(layers):
        d = cell.directions
        own = [_state(w, state, number * d, d) for state in states]
        y, *after = w.emit_all(cell, y, *weights, *own)
        last.append([w.permute(s, SWAPPED) for s in after])
    ends = [w.emit(Concat(0), *s) if len(s) > 1 else s[0] for s in zip(*last, strict=True)]
    return [y if batch_first else w.permute(y, SWAPPED), *ends]


def _state(w: Writer, state: Any, first: int, count: int) -> Value:
    """Those of the states (layers * directions, N, H) that a layer begins with, (N, D, H)."""
    if not isinstance(state, Value):
        array, (_, n, size) = w.known(state)
        if array.size and (array == array.flat[0]).all():  # zeros: none were given
            return w.filled(array.flat[0], (n, count, size))
    return w.permute(w.slice(state, 0, first, first + count), SWAPPED)
