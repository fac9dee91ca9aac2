"""Recurrent layers: one op runs all steps of a sequence, in one direction or in both.

    y, h = rnn(x, weight, recurrent, bias, h0)              G = 1
    y, h = gru(x, weight, recurrent, bias, h0)              G = 3: update, reset, candidate
    y, h, c = lstm(x, weight, recurrent, bias, h0, c0)      G = 4: input, output, forget, candidate

x: (N, T, I), N sequences of T steps; weight: (D, G*H, I), recurrent: (D, G*H, H) and bias:
(D, 2*G*H), that of the input's product before that of the state's, for each of D directions;
h0, c0: (N, D, H) -> y: (N, T, D*H), the state after each step, direction by direction, and h, c:
(N, D, H), the last states. Gates have ONNX's order. `lengths`: i64 (N); a sequence ends after so
many steps: y is 0 from there on, and the backward direction begins there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from lucid.ir.ops.activations import Sigmoid, Tanh
from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.elementwise import Unary
from lucid.ir.types import TensorType

DIRECTIONS = ("forward", "reverse", "bidirectional")


@dataclasses.dataclass(frozen=True)
class Recurrent(Op):
    """Base of the three. `activations`: of the gates and of the state, in ONNX's order. `clip`:
    the sums that the gates are activations of are kept within -clip and clip."""

    images_apart = True
    gates: ClassVar[int]
    states: ClassVar[int] = 1
    """Vectors that are kept from step to step."""

    direction: str = "forward"
    activations: tuple[Op, ...] = ()
    clip: float | None = None

    def __post_init__(self) -> None:
        known = self.direction in DIRECTIONS
        self.require(known, f"direction is {', '.join(DIRECTIONS)}, got {self.direction!r}")
        (declared,) = (f for f in dataclasses.fields(self) if f.name == "activations")
        count = len(declared.default)  # type: ignore[arg-type]  # a tuple in all that are declared
        self.require(
            len(self.activations) == count and all(isinstance(a, Unary) for a in self.activations),
            f"activations are {count} elementwise ops of one operand",
        )
        self.require(self.clip is None or self.clip > 0, f"clip must be above 0, got {self.clip}")

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def adds_late(self) -> bool:
        """Whether the bias of the candidate's recurrent product stays with that product."""
        return False

    def backward(self, direction: int) -> bool:
        """Whether a direction begins with the last step."""
        return self.direction == "reverse" or direction == 1

    # -- shapes -----------------------------------------------------------------------------

    def shapes(
        self,
        x: TensorType,
        weight: TensorType,
        recurrent: TensorType,
        bias: TensorType,
        states: Sequence[TensorType],
        lengths: TensorType | None,
    ) -> tuple[TensorType, ...]:
        """The types of y and of the last states."""
        self.require_float(x=x, weight=weight, recurrent=recurrent, bias=bias)
        self.require(x.rank == 3, f"x must be (N, T, I), got {x}")
        self.require(recurrent.rank == 3, f"recurrent must be (D, G*H, H), got {recurrent}")
        batch, time, depth = x.shape
        self.integers(time, depth, *recurrent.shape)
        d, (hidden,) = self.directions, self.integers(recurrent.shape[2])
        columns = self.gates * hidden
        wanted = {
            "weight": (weight, (d, columns, depth)),
            "recurrent": (recurrent, (d, columns, hidden)),
            "bias": (bias, (d, 2 * columns)),
        }
        for i, state in enumerate(states):
            self.require_float(state=state)
            wanted[f"state {i}"] = state, (batch, d, hidden)
        if lengths is not None:
            self.require(lengths.dtype == "i64", f"lengths must be i64, got {lengths}")
            wanted["lengths"] = lengths, (batch,)
        for name, (given, shape) in wanted.items():
            expected = ",".join(map(str, shape))
            self.require(given.shape == shape, f"{name} must be [{expected}] for {x}, got {given}")
        y, state = x.with_shape((batch, time, d * hidden)), x.with_shape((batch, d, hidden))
        return (y, *[state] * self.states)

    # -- reference --------------------------------------------------------------------------

    def run(
        self,
        x: Array,
        weight: Array,
        recurrent: Array,
        bias: Array,
        states: Sequence[Array],
        lengths: Array | None,
        peephole: Array | None = None,
    ) -> tuple[Array, ...]:
        """y and the last states."""
        of_input, of_state = np.split(bias, 2, axis=1)
        late = np.zeros_like(of_state)
        if self.adds_late:
            hidden = recurrent.shape[2]
            late[:, -hidden:] = of_state[:, -hidden:]
        columns = weight.reshape(weight.shape[0] * weight.shape[1], weight.shape[2])
        products = np.matmul(x, columns.T) + (of_input + (of_state - late)).reshape(-1)
        return self.steps(products, recurrent, late, states, lengths, peephole)

    def steps(
        self,
        products: Array,
        recurrent: Array,
        late: Array,
        states: Sequence[Array],
        lengths: Array | None,
        peephole: Array | None = None,
    ) -> tuple[Array, ...]:
        """The same from the products of the input (N, T, D*G*H), with all biases but `late`."""
        n, time, _ = products.shape
        directions, columns, hidden = recurrent.shape
        y = np.zeros((n, time, directions * hidden), products.dtype)
        last = [state.copy() for state in states]
        ends = np.full(n, time) if lengths is None else lengths
        for d in range(directions):
            own = products[:, :, d * columns : (d + 1) * columns]
            weights = recurrent[d], late[d], None if peephole is None else peephole[d]
            state = [s[:, d] for s in last]
            for t in reversed(range(time)) if self.backward(d) else range(time):
                with np.errstate(over="ignore", invalid="ignore"):
                    new = self.step(own[:, t], *weights, state)
                active = (t < ends)[:, None]
                state = [np.where(active, a, b) for a, b in zip(new, state, strict=True)]
                y[:, t, d * hidden : (d + 1) * hidden] = np.where(active, state[0], 0)
            for kept, final in zip(last, state, strict=True):
                kept[:, d] = final
        return (y, *last)

    def step(
        self,
        products: Array,
        recurrent: Array,
        late: Array,
        peephole: Array | None,
        states: Sequence[Array],
    ) -> list[Array]:
        """The states after one step of one direction."""
        raise NotImplementedError

    def activated(self, which: int, x: Array) -> Array:
        """An activation of what has been clipped."""
        result = self.activations[which].evaluate(x if self.clip is None else self.clipped(x))
        assert isinstance(result, np.ndarray)
        return result

    def clipped(self, x: Array) -> Array:
        assert self.clip is not None
        return np.clip(x, -x.dtype.type(self.clip), x.dtype.type(self.clip))


@op("rnn")
class Rnn(Recurrent):
    """h = f(W x + R h + b). Shapes: see the module.

    Source: https://onnx.ai/onnx/operators/onnx__RNN.html
    """

    gates = 1
    activations: tuple[Op, ...] = (Tanh(),)

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        recurrent: TensorType,
        bias: TensorType,
        hidden: TensorType,
        lengths: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        return self.shapes(x, weight, recurrent, bias, [hidden], lengths)

    def evaluate(
        self,
        x: Array,
        weight: Array,
        recurrent: Array,
        bias: Array,
        hidden: Array,
        lengths: Array | None = None,
    ) -> tuple[Array, ...]:
        return self.run(x, weight, recurrent, bias, [hidden], lengths)

    def step(
        self,
        products: Array,
        recurrent: Array,
        late: Array,
        peephole: Array | None,
        states: Sequence[Array],
    ) -> list[Array]:
        (h,) = states
        return [self.activated(0, products + np.matmul(h, recurrent.T))]


@op("gru")
class Gru(Recurrent):
    """z, r = f(W x + R h + b); n = g(W x + b + r * (R h + b')) or, unless `linear_before_reset`,
    g(W x + R (r * h) + b + b'); h = (1 - z) * n + z * h. Shapes: see the module.

    Source: https://onnx.ai/onnx/operators/onnx__GRU.html
    """

    gates = 3
    activations: tuple[Op, ...] = (Sigmoid(), Tanh())
    linear_before_reset: bool = False

    infer = Rnn.infer
    evaluate = Rnn.evaluate

    @property
    def adds_late(self) -> bool:
        return self.linear_before_reset

    def step(
        self,
        products: Array,
        recurrent: Array,
        late: Array,
        peephole: Array | None,
        states: Sequence[Array],
    ) -> list[Array]:
        (h,) = states
        size = h.shape[1]
        both = products[:, : 2 * size] + np.matmul(h, recurrent[: 2 * size].T)
        z, r = np.split(self.activated(0, both), 2, axis=1)
        candidate = recurrent[2 * size :].T
        if self.linear_before_reset:
            inner = r * (np.matmul(h, candidate) + late[2 * size :])
        else:
            inner = np.matmul(r * h, candidate)
        n = self.activated(1, products[:, 2 * size :] + inner)
        return [(1 - z) * n + z * h]


@op("lstm")
class Lstm(Recurrent):
    """i, o, f = s(W x + R h + P c + b); n = g(W x + R h + b); c = f * c + i * n; h = o * t(c).

    `peephole`: (D, 3*H), P for i, o and f; o sees the new c. `input_forget`: f = 1 - i. The new c
    itself is not clipped, as ONNX Runtime has it. Other shapes: see the module.

    Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
    """

    gates = 4
    states = 2
    activations: tuple[Op, ...] = (Sigmoid(), Tanh(), Tanh())
    input_forget: bool = False

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        recurrent: TensorType,
        bias: TensorType,
        hidden: TensorType,
        cell: TensorType,
        lengths: TensorType | None = None,
        peephole: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        results = self.shapes(x, weight, recurrent, bias, [hidden, cell], lengths)
        self.require_float(peephole=peephole)
        shape = (recurrent.shape[0], 3 * self.integers(recurrent.shape[2])[0])
        given = peephole is None or peephole.shape == shape
        self.require(given, f"peephole must be f32[{shape[0]},{shape[1]}], got {peephole}")
        return results

    def evaluate(
        self,
        x: Array,
        weight: Array,
        recurrent: Array,
        bias: Array,
        hidden: Array,
        cell: Array,
        lengths: Array | None = None,
        peephole: Array | None = None,
    ) -> tuple[Array, ...]:
        return self.run(x, weight, recurrent, bias, [hidden, cell], lengths, peephole)

    def step(
        self,
        products: Array,
        recurrent: Array,
        late: Array,
        peephole: Array | None,
        states: Sequence[Array],
    ) -> list[Array]:
        return self.stepped(products + np.matmul(states[0], recurrent.T), peephole, states)

    def stepped(self, sums: Array, peephole: Array | None, states: Sequence[Array]) -> list[Array]:
        """The states after one step, from W x + R h + b (N, 4*H)."""
        h, c = states
        i, o, f, n = np.split(sums, 4, axis=1)
        seen = np.zeros((3, h.shape[1]), h.dtype) if peephole is None else np.split(peephole, 3)
        i = self.activated(0, i + seen[0] * c)
        f = 1 - i if self.input_forget else self.activated(0, f + seen[2] * c)
        c = f * c + i * self.activated(1, n)
        return [self.activated(0, o + seen[1] * c) * self.activations[2].evaluate(c), c]
