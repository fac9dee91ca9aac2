"""Cases of recurrent layers, and how far their results may be off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.ir import BATCH, Op, Value, ops
from lucid.ir.ops import OPS

from .attributes import drawn
from .errors import TINY, Known, Pair, U, elementwise, products, rule
from .maker import Maker, makes
from .values import Array

# -- cases -----------------------------------------------------------------------------------------


@makes("rnn", "gru", "lstm")
def _recurrent(make: Maker) -> Value:
    """With states of zeros or given, and with sequences of all lengths or of their own."""
    draw, cell = make.draw, drawn(make.draw, OPS[make.op])
    assert isinstance(cell, ops.Recurrent)
    steps, depth, size = draw.integer(1, 5), draw.channels(), draw.pick([1, 2, 7, 8, 16, 19, 40])
    d, columns = cell.directions, cell.gates * size
    operands = [
        make.array(steps, depth),
        make.weight(d, columns, depth),
        make.weight(d, columns, size),
        make.weight(d, 2 * columns),
    ]
    for _ in range(cell.states):
        zeros = make.apply(ops.Constant(0.0))
        expanded = make.apply(ops.Expand((BATCH, d, size)), zeros)
        operands.append(expanded if draw.chance(0.5) else make.array(d, size))
    seen = isinstance(cell, ops.Lstm) and draw.chance(0.3)
    if seen or draw.chance(0.4):
        operands.append(make.apply(ops.ArgMax(1), make.array(steps + 1, kind="normal")))
    if seen:
        operands.append(make.weight(d, 3 * size))
    node = make.build.graph.append(cell, operands, origin=make.build.next_origin(make.op))
    return make.followed(draw.pick(node.outputs))


# -- errors ----------------------------------------------------------------------------------------


def _total(*parts: Known) -> Known:
    value, error = sum(p.value for p in parts), sum(p.error for p in parts)
    return Known(value, error + len(parts) * U * sum(np.abs(p.value) for p in parts) + TINY)


def _times(a: Known, b: Known) -> Known:
    value, sizes = a.value * b.value, np.abs(a.value) + a.error
    off = sizes * b.error + np.abs(b.value) * a.error
    return Known(value, off + U * np.abs(value) + TINY)


def _of(op: Op, x: Known) -> Known:
    return Known(*elementwise(op, [x]))  # type: ignore[arg-type]


@rule(ops.Recurrent)
def _recurrent_error(op: ops.Recurrent, x: Sequence[Known]) -> list[Pair]:
    """Step by step. What is huge or not finite may make anything of its sequence."""
    data, weight, recurrent, bias, *rest = x
    states, rest = rest[: op.states], rest[op.states :]
    n, steps, depth = data.value.shape
    directions, columns, size = recurrent.value.shape
    ends = rest[0].value if rest else np.full(n, steps)
    y, last = np.zeros((n, steps, directions * size)), [s.error.copy() for s in states]
    count = depth + size + 2
    for d in range(directions):
        w, r = weight.value[d], recurrent.value[d]
        b = Known.exactly(bias.value[d])
        seen = rest[1].value[d].reshape(3, size) if len(rest) > 1 else np.zeros((3, size))
        now = [Known(s.value[:, d], s.error[:, d]) for s in states]
        for t in reversed(range(steps)) if op.backward(d) else range(steps):
            at = Known(data.value[:, t], data.error[:, t])
            given = _linear_in(at, w, Known.exactly(b.value[:columns]), count)
            own = Known.exactly(b.value[columns:])
            new = _recurrent_step(op, given, r, own, Known.exactly(seen), now, count)
            active = (t < ends)[:, None]
            now = [
                Known(np.where(active, a.value, b.value), np.where(active, a.error, b.error))
                for a, b in zip(new, now, strict=True)
            ]
            y[:, t, d * size : (d + 1) * size] = np.where(active, now[0].error, 0.0)
        for kept, state in zip(last, now, strict=True):
            kept[:, d] = state.error
    wild = np.zeros(n, bool)
    for known in (data, *states):
        wild |= ~(np.abs(known.value) < 1e15).all((1, 2))
    wild |= any(not (np.abs(k.value) < 1e15).all() for k in (weight, recurrent, bias))
    errors = [np.where(wild[:, None, None], np.inf, error) for error in (y, *last)]
    return [(np.zeros_like(error), error) for error in errors]  # values are the interpreter's


def _linear_in(x: Known, w: Array, bias: Known, count: int) -> Known:
    return Known(*products(lambda a, b: a @ b.T, x, Known.exactly(w), bias, count))


def _recurrent_step(
    op: ops.Recurrent,
    given: Known,
    weights: Array,
    bias: Known,
    seen: Known,
    states: Sequence[Known],
    count: int,
) -> list[Known]:
    """The states after one step; `given`: the products of the input."""
    h, size = states[0], weights.shape[1]

    def part(whole: Known, gate: int) -> Known:
        columns = slice(gate * size, (gate + 1) * size)
        return Known(whole.value[..., columns], whole.error[..., columns])

    def product(x: Known) -> Known:
        return _linear_in(x, weights, bias, count)

    def gate(which: int, *parts: Known) -> Known:
        total = _total(*parts)
        if op.clip is not None:
            total = Known(np.clip(total.value, -op.clip, op.clip), total.error + U * op.clip)
        return _of(op.activations[which], total)

    def rest(x: Known) -> Known:
        return Known(1 - x.value, x.error + U)

    own = product(h)
    if isinstance(op, ops.Rnn):
        return [gate(0, given, own)]
    if isinstance(op, ops.Gru):
        z, r = (gate(0, part(given, g), part(own, g)) for g in range(2))
        inner = _times(r, part(own, 2))
        if not op.linear_before_reset:
            inner = part(product(_times(r, h)), 2)
        return [_total(_times(rest(z), gate(1, part(given, 2), inner)), _times(z, h))]
    c = states[1]

    def lstm_gate(number: int, cell: Known) -> Known:
        look = Known(seen.value[number], seen.error[number])
        return gate(0, part(given, number), part(own, number), _times(look, cell))

    i = lstm_gate(0, c)
    assert isinstance(op, ops.Lstm)
    f = rest(i) if op.input_forget else lstm_gate(2, c)
    c = _total(_times(f, c), _times(i, gate(1, part(given, 3), part(own, 3))))
    return [_times(lstm_gate(1, c), _of(op.activations[2], c)), c]
