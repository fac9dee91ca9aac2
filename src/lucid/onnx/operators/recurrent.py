"""Recurrent layers. ONNX puts time before sequences unless `layout` is 1, and directions between
them; the ops have sequences first, and both directions side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import (
    Cast,
    Elu,
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
from lucid.onnx.known import known
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

SWAPPED = (1, 0, 2)
"""What turns steps, or directions, before sequences into sequences first, and back."""
DIRECTIONS = ("forward", "reverse", "bidirectional")

PLAIN: dict[str, type[Op]] = {
    "Relu": Relu,
    "Tanh": Tanh,
    "Sigmoid": Sigmoid,
    "Softsign": Softsign,
    "Softplus": Softplus,
}
"""Activations without numbers, by ONNX's name for them."""
SLOPED: dict[str, tuple[float, Callable[[float], Op]]] = {
    "LeakyRelu": (0.01, LeakyRelu),
    "Elu": (1.0, Elu),
}
"""Those of one number, which has this default."""
HARD_SIGMOID = (0.2, 0.5)
"""The defaults of alpha and beta."""
OTHERS = {"Affine": 2, "ScaledTanh": 2, "ThresholdedRelu": 1, "HardSigmoid": 2}
"""How many numbers the remaining ones have."""


# -- reading --------------------------------------------------------------------------------------


@reads("RNN")
def read_rnn(call: Call) -> list[Operand]:
    activations = _activations(call, 1)
    return _read(call, Rnn(_direction(call), activations or (Tanh(),), _clip(call)))


@reads("GRU")
def read_gru(call: Call) -> list[Operand]:
    activations = _activations(call, 2) or (Sigmoid(), Tanh())
    late = bool(call.integer("linear_before_reset", 0))
    return _read(call, Gru(_direction(call), activations, _clip(call), late))


@reads("LSTM")
def read_lstm(call: Call) -> list[Operand]:
    activations = _activations(call, 3) or (Sigmoid(), Tanh(), Tanh())
    coupled = bool(call.integer("input_forget", 0))
    return _read(call, Lstm(_direction(call), activations, _clip(call), coupled))


def _direction(call: Call) -> str:
    return call.choice("direction", DIRECTIONS)


def _clip(call: Call) -> float | None:
    """None where it is not given or, as runtimes have it, not above 0."""
    clip = call.number("clip", 0.0)
    return clip if clip > 0 else None


def _activations(call: Call, count: int) -> tuple[Op, ...]:
    """Those of one direction, which both have; empty where ONNX's defaults are meant."""
    names = call.texts("activations") or ()
    alphas = iter(call.floats("activation_alpha") or ())
    betas = iter(call.floats("activation_beta") or ())
    wanted = count * (2 if _direction(call) == "bidirectional" else 1)
    if names and len(names) != wanted:
        raise ModelFileError(f"has {len(names)} activations for {wanted}")
    found = tuple(_activation(name, alphas, betas) for name in names)
    if found[:count] != found[-count:]:
        raise UnsupportedError(f"with other activations in each direction: {', '.join(names)}")
    return found[:count]


def _activation(name: str, alphas: Any, betas: Any) -> Op:
    """One of them, which takes the numbers that it has from the lists of all."""
    spelled = {known.lower(): known for known in (*PLAIN, *SLOPED, *OTHERS)}
    name = spelled.get(name.lower(), name)
    if name in PLAIN:
        return PLAIN[name]()
    if name in SLOPED:
        default, op = SLOPED[name]
        return op(next(alphas, default))
    if name == "HardSigmoid":
        slope, shift = next(alphas, HARD_SIGMOID[0]), next(betas, HARD_SIGMOID[1])
        if (round(6 * slope, 6), shift) == (1.0, 0.5):
            return Hardsigmoid()
        raise UnsupportedError(f"with the activation HardSigmoid of {slope:g} x + {shift:g}")
    if name in OTHERS:
        raise UnsupportedError(f"with the activation {name}")
    raise ModelFileError(f"has the activation {name!r}, which ONNX does not know")


def _read(call: Call, cell: Recurrent) -> list[Operand]:
    """All results, of any layout; `hidden_size` has to be what the weights say."""
    batch_first, size = bool(call.integer("layout", 0)), call.integer("hidden_size", 0)
    x = _sequences_first(call, call.operand(0), batch_first)
    weight, recurrent = call.operand(1), call.operand(2)
    if x.type.rank != 3 or recurrent.type.rank != 3:
        raise ModelFileError(f"takes operands of three axes, got {x.type} and {recurrent.type}")
    directions, columns, hidden = call.integer_dims(*recurrent.type.shape)
    if size not in (0, hidden):
        raise ModelFileError(f"has a hidden_size other than its weight {recurrent.type}")
    n, steps = x.type.shape[:2]
    zeros = known(0.0)
    bias = call.operand(3) if call.has(3) else call.expand(zeros, (directions, 2 * columns))
    operands: list[Operand] = [x, weight, recurrent, bias]
    for index in range(5, 5 + cell.states):
        if call.has(index):
            operands.append(_sequences_first(call, call.operand(index), batch_first))
        else:
            operands.append(call.expand(zeros, (n, directions, hidden)))
    peephole = [call.operand(7)] if isinstance(cell, Lstm) and call.has(7) else []
    if call.has(4) or peephole:
        ends = call.operand(4) if call.has(4) else call.expand(known(steps), (n,))
        operands.append(ends if ends.type.dtype == "i64" else call.apply(Cast("i64"), ends))
    y, *states = call.apply_all(cell, *operands, *peephole)
    y = call.apply(Reshape((n, steps, directions, hidden)), y)
    if batch_first:
        return [y, *states]
    return [call.apply(Permute((1, 2, 0, 3)), y), *(_turned(call, s) for s in states)]


def _sequences_first(call: Call, operand: Operand, batch_first: bool) -> Operand:
    return operand if batch_first else _turned(call, operand)


def _turned(call: Call, operand: Operand) -> Operand:
    return call.apply(Permute(SWAPPED), operand)


# -- writing --------------------------------------------------------------------------------------


@writes(Rnn, Gru, Lstm)
def write_recurrent(
    w: Writer, op: Recurrent, operands: Sequence[Edge], kind: TensorType
) -> list[str]:
    """In the layout that every runtime knows, time first."""
    x, weight, recurrent, bias, *rest = operands
    states, rest = [_swapped(w, s) for s in rest[: op.states]], rest[op.states :]
    ends = w.emit("Cast", rest[0], to=INT32) if rest else ""
    count, hidden = 1 + op.states, recurrent.type.shape[2]
    given: list[Edge | str] = [_swapped(w, x), weight, recurrent, bias, ends, *states, *rest[1:]]
    y, *last = w.emit_all(
        OPERATORS[type(op)],
        count,
        *given,
        hidden_size=hidden,
        direction=op.direction,
        **_numbers(op),
    )
    y = w.emit("Transpose", y, perm=(2, 0, 1, 3))
    return [w.emit("Reshape", y, w.shape(kind.shape)), *(_swapped(w, s) for s in last)]


INT32 = 6
"""ONNX's number for that dtype."""
OPERATORS: dict[type[Recurrent], str] = {Rnn: "RNN", Gru: "GRU", Lstm: "LSTM"}


def _swapped(w: Writer, operand: Edge | str) -> str:
    return w.emit("Transpose", operand, perm=SWAPPED)


def _numbers(op: Recurrent) -> dict[str, Any]:
    """The attributes beside the direction."""
    names, alphas, betas = [], [], []
    for activation in op.activations:
        if isinstance(activation, LeakyRelu | Elu):
            alphas.append(
                activation.slope if isinstance(activation, LeakyRelu) else activation.alpha
            )
        if isinstance(activation, Hardsigmoid):
            alphas.append(1 / 6)
            betas.append(0.5)
        names.append(_written(activation))
    given: dict[str, Any] = {"activations": names * op.directions}
    if alphas:
        given["activation_alpha"] = alphas * op.directions
    if betas:
        given["activation_beta"] = betas * op.directions
    if op.clip is not None:
        given["clip"] = op.clip
    if isinstance(op, Gru):
        given["linear_before_reset"] = int(op.linear_before_reset)
    if isinstance(op, Lstm):
        given["input_forget"] = int(op.input_forget)
    return given


def _written(activation: Op) -> str:
    """ONNX's name for an activation. Raises UnsupportedError where it has none."""
    classes = {**PLAIN, "LeakyRelu": LeakyRelu, "Elu": Elu, "HardSigmoid": Hardsigmoid}
    for name, op_class in classes.items():
        if type(activation) is op_class:
            return name
    raise UnsupportedError(f"ONNX has no recurrent layers with the activation {activation.name}")
