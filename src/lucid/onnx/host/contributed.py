"""Operators that ONNX Runtime adds to ONNX's own: those of files that its tools have quantised for
floats that come in as f32.

    q, scale = quantized(x)             # x = q * scale, q: u8 less a zero point
    y = (q @ (B - zero_B)) * (scale * scale_B) + bias

The products are of integers, exact, and are turned into f32 once. A tensor is quantised as a whole,
so that what one row of a batch holds changes, a little, what becomes of the others.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lucid.errors import ModelFileError
from lucid.ir.ops import Array, Lstm
from lucid.onnx.host.rational import RationalSigmoid, RationalTanh
from lucid.onnx.operator import Operator

DOMAIN = "com.microsoft"
LEVELS = 255
"""The largest u8."""


def is_contributed(operator: Operator) -> bool:
    """Whether it is one of these."""
    return operator.domain == DOMAIN and operator.proto.op_type in RUNS


def obstacle(operator: Operator) -> str:
    """Why one of these cannot be run; empty where it can."""
    given = _attributes(operator)
    strange = sorted(given.keys() - ATTRIBUTES[operator.proto.op_type])
    if strange:
        return f"with {', '.join(strange)}"
    names = [name.decode(errors="replace") for name in given.get("activations", ())]
    if any(n.lower() != a for n, a in zip(names, itertools.cycle(ACTIVATIONS), strict=False)):
        return f"with the activations {', '.join(names)}"
    return ""


def evaluate(operator: Operator, values: Mapping[str, Any]) -> list[Any]:
    """The results of an operator for values of the names that it reads."""
    operands = [values[name] if name else None for name in operator.proto.input]
    with np.errstate(all="ignore"):
        return RUNS[operator.proto.op_type](operator, operands)


# -- products -------------------------------------------------------------------------------------


def quantized(x: Array) -> tuple[Array, np.float32]:
    """The integers, -255 to 255, and the scale whose products are nearly x: u8 less the zero point,
    which is chosen so that 0 is exact. Of no elements, and of zeros, the scale is 1."""
    least, most = x.min(initial=0), x.max(initial=0)
    scale = np.float32((most - least) / np.float32(LEVELS)) if most > least else np.float32(1)
    zero = np.rint(np.clip(-least / scale, 0, LEVELS))
    return np.clip(np.rint(x / scale) + zero, 0, LEVELS) - zero, scale


def product(a: Array, b: Array, scale: Array, bias: Array | None = None) -> Array:
    """`a @ b * scale + bias`, of integers; they add up in f64, which is exact up to 2**53."""
    y: Array = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.float32) * scale
    return y if bias is None else y + bias


def centred(weight: Array, zero: Array | None) -> Array:
    """Quantised weights less their zero point: one, or one for each column."""
    wide: Array = weight.astype(np.int32)
    return wide if zero is None else wide - zero.astype(np.int32)


def run_dynamic_product(operator: Operator, operands: Sequence[Any]) -> list[Array]:
    """DynamicQuantizeMatMul: A f32, B, B's scale, B's zero point, bias."""
    a, b, scale, zero, bias = _padded(operands, 5)
    q, step = quantized(a)
    return [product(q, centred(b, zero), step * scale, bias)]


def run_integer_product(operator: Operator, operands: Sequence[Any]) -> list[Array]:
    """MatMulIntegerToFloat: A, B, their scales, their zero points, bias."""
    a, b, scale_a, scale_b, zero_a, zero_b, bias = _padded(operands, 7)
    for name, given in (("scale", scale_a), ("zero point", zero_a)):
        if given is not None and given.size != 1:
            raise ModelFileError(f"has {given.size} numbers for the {name} of A, which has one")
    q = centred(a, None if zero_a is None else zero_a.reshape(()))
    return [product(q, centred(b, zero_b), scale_a.reshape(()) * scale_b, bias)]


# -- LSTM -----------------------------------------------------------------------------------------


class Direction(NamedTuple):
    """One direction of a layer: its cell, weights (I, 4*H) and (H, 4*H) less their zero points, the
    scales of both, the sum of both biases (4*H), peepholes (3*H) or None, and whether it begins
    with the last step."""

    cell: Lstm
    weight: Array
    recurrent: Array
    scale: Array
    recurrent_scale: Array
    bias: Array
    peephole: Array | None
    backward: bool

    def run(self, x: Array, ends: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """All states (T, N, H) and the last ones (N, H), of sequences (T, N, I) that end after so
        many steps."""
        steps = np.arange(len(x))[:, None]
        order = np.where(steps < ends, ends - 1 - steps, steps) if self.backward else steps
        order = np.broadcast_to(order, x.shape[:2])[..., None]
        q, step = quantized(np.take_along_axis(x, order, 0)[: ends.max(initial=0)])
        sums = product(q, self.weight, step * self.scale)
        y = np.zeros((*x.shape[:2], h.shape[1]), np.float32)
        last_h, last_c = np.zeros_like(h), np.zeros_like(c)
        for t in range(len(sums)):
            q, step = quantized(h)
            of_state = product(q, self.recurrent, step * self.recurrent_scale)
            new = self.cell.stepped(sums[t] + of_state + self.bias, self.peephole, [h, c])
            active = (t < ends)[:, None]
            h, c = np.where(active, new[0], 0), np.where(active, new[1], c)
            y[t] = h
            last_h, last_c = np.where(active, h, last_h), np.where(active, c, last_c)
        return np.take_along_axis(y, order, 0), last_h, last_c


def run_lstm(operator: Operator, operands: Sequence[Any]) -> list[Array]:
    """DynamicQuantizeLSTM: X f32 (T, N, I), W (D, I, 4*H), R (D, H, 4*H), B (D, 8*H), lengths (N),
    h and c (D, N, H), P (D, 3*H), and scales and zero points of W and of R, each (D) or (D, 4*H)
    -> Y (T, D, N, H), h and c (D, N, H). All steps of X are quantised at once, the state in each.

    ONNX Runtime quantises the states of some sequences apart from those of others, by how many
    threads there are; here all are together, as they are there with one thread.
    """
    x, weight, recurrent, bias, ends, h, c, peephole, *scales = _padded(operands, 12)
    count, batch, hidden = len(recurrent), x.shape[1], recurrent.shape[1]
    ends = np.full(batch, len(x)) if ends is None else np.clip(ends, 0, len(x))
    bias = np.zeros((count, 8 * hidden), np.float32) if bias is None else bias
    zeros = np.zeros((count, batch, hidden), np.float32)
    h, c = (zeros if state is None else state for state in (h, c))
    cell = _cell(operator)
    if count != cell.directions:
        raise ModelFileError(f"has weights for {count} directions, and is {cell.direction}")
    scale_w, zero_w, scale_r, zero_r = scales
    rows = []
    for d in range(count):
        direction = Direction(
            cell,
            centred(weight[d], None if zero_w is None else zero_w[d]),
            centred(recurrent[d], None if zero_r is None else zero_r[d]),
            scale_w[d],
            scale_r[d],
            np.add(*np.split(bias[d], 2)),
            None if peephole is None else peephole[d],
            cell.backward(d),
        )
        rows.append(direction.run(x, ends, h[d], c[d]))
    y, last_h, last_c = zip(*rows, strict=True)
    return [np.stack(y, 1), np.stack(last_h), np.stack(last_c)]


def _cell(operator: Operator) -> Lstm:
    given = _attributes(operator)
    clip = given.get("clip", 0.0)
    direction = given.get("direction", b"forward").decode(errors="replace")
    return Lstm(
        direction,
        (RationalSigmoid(), RationalTanh(), RationalTanh()),
        clip=clip if clip > 0 else None,
        input_forget=bool(given.get("input_forget", 0)),
    )


ACTIVATIONS = ("sigmoid", "tanh", "tanh")
"""Those that the layer may have."""

RUNS: dict[str, Callable[[Operator, Sequence[Any]], list[Array]]] = {
    "DynamicQuantizeLSTM": run_lstm,
    "DynamicQuantizeMatMul": run_dynamic_product,
    "MatMulIntegerToFloat": run_integer_product,
}

ATTRIBUTES = {
    "DynamicQuantizeLSTM": {"activations", "clip", "direction", "hidden_size", "input_forget"},
    "DynamicQuantizeMatMul": set(),
    "MatMulIntegerToFloat": set(),
}
"""The attributes that are taken."""


def _attributes(operator: Operator) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {a.name: get_attribute_value(a) for a in operator.proto.attribute}


def _padded(operands: Sequence[Any], count: int) -> list[Any]:
    """The operands, None for those that are left out at the end."""
    return [*operands, *[None] * (count - len(operands))]
