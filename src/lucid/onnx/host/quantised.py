"""ONNX Runtime's operators of dynamic quantisation that ONNX has not, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lucid.errors import UnsupportedError
from lucid.ir.ops import Array
from lucid.onnx.operator import Operator


def quantised(x: Array) -> tuple[Array, np.float32, int]:
    """x in 8 bits as ONNX's DynamicQuantizeLinear has it: elements, scale and zero point."""
    low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    scale = (high - low) / np.float32(255) if high > low else np.float32(1)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return np.clip(np.rint(x / scale) + np.float32(zero), 0, 255), scale, zero


def product(x: Array, weights: Array, scale: np.float32) -> Array:
    """x in 8 bits times weights, whole numbers whose zero point is 0, in steps of `scale`: exact
    but for the last rounding to float32."""
    elements, step, zero = quantised(x)
    whole = (elements - zero).astype(np.float64) @ weights
    return np.asarray(whole.astype(np.float32) * (step * scale))


def lstm(operator: Operator, values: Mapping[str, Any]) -> list[Any]:
    """com.microsoft.DynamicQuantizeLSTM: input and states are rounded to 8 bits before each
    product. Raises UnsupportedError for what few files hold."""
    given: list[Any] = [values[name] if name else None for name in operator.proto.input]
    x, w, r, bias, lengths, h0, c0, peepholes = (given + [None] * 8)[:8]
    w_scale, w_zero, r_scale, r_zero = (given + [None] * 4)[8:12]
    attributes = {a.name: a for a in operator.proto.attribute}
    stated = set(attributes) - {"direction", "hidden_size", "input_forget"}
    if stated or lengths is not None or peepholes is not None or np.ndim(w_scale) != 1:
        raise UnsupportedError("with other activations, lengths, peepholes or scales than usual")
    if "input_forget" in attributes and attributes["input_forget"].i:
        raise UnsupportedError("with coupled gates")
    steps, batch, _ = x.shape
    directions, size = r.shape[:2]
    first = attributes["direction"].s if "direction" in attributes else b"forward"
    y = np.empty((steps, directions, batch, size), np.float32)
    last_h, last_c = (np.zeros((directions, batch, size), np.float32) for _ in range(2))
    for d in range(directions):
        weights = w[d].astype(np.float64) - (0 if w_zero is None else int(w_zero[d]))
        again = r[d].astype(np.float64) - (0 if r_zero is None else int(r_zero[d]))
        gates = product(x.reshape(steps * batch, -1), weights, w_scale[d])
        gates = gates.reshape(steps, batch, -1)
        added = np.float32(0) if bias is None else bias[d, : 4 * size] + bias[d, 4 * size :]
        h = last_h[d] if h0 is None else h0[d]
        c = last_c[d] if c0 is None else c0[d]
        backwards = d == 1 or first == b"reverse"
        for t in reversed(range(steps)) if backwards else range(steps):
            i, o, f, g = np.split(gates[t] + product(h, again, r_scale[d]) + added, 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            y[t, d] = h
        last_h[d], last_c[d] = h, c
    return [y, last_h, last_c]


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


RUNS: dict[str, Callable[[Operator, Mapping[str, Any]], list[Any]]] = {
    "com.microsoft.DynamicQuantizeLSTM": lstm
}
"""What runs each operator, by its name with its domain."""
