"""Branches and loops whose course is known while reading, written out; sequences and optionals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import Concat
from lucid.ir.types import Dim
from lucid.onnx.known import Held, Items, Nothing, Opaque, known
from lucid.onnx.operator import Expansion
from lucid.onnx.table import reads

if TYPE_CHECKING:
    import onnx

    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand

MOST_UNROLLED = 5_000
"""Operators that a loop may become: reading one takes 0.1 ms, compiling one a few."""


# -- control ------------------------------------------------------------------------------------


@reads("If")
def read_if(call: Call) -> Expansion:
    """The branch that the condition, which must be known, leads to."""
    call.ignore("then_branch", "else_branch")
    branch = call.subgraph("then_branch" if call.scalar(0) else "else_branch")
    expansion, proto = Expansion(), call.operator.proto
    prefix = call.reader.fresh_prefix(call.operator)
    expansion.add_graph(branch, [], proto.output, call.operator.opsets, prefix)
    return expansion


@reads("Loop")
def read_loop(call: Call) -> Expansion:
    """A loop that goes round a known number of times, and ends for no other reason."""
    body, proto = call.subgraph("body"), call.operator.proto
    if len(body.input) < 2 or len(body.output) < len(body.input) - 1:
        raise ModelFileError("has a body that takes no condition, or gives none")
    if not call.has(0) or not _goes_on(body):
        raise UnsupportedError("how often it goes round depends on what it computes")
    going = not call.has(1) or bool(call.scalar(1))
    rounds = max(0, int(call.scalar(0))) if going else 0
    states = len(body.input) - 2
    scans = len(body.output) - 1 - states
    _check_rounds(rounds, body, scans)
    expansion, opsets = Expansion(), call.operator.opsets
    prefix = call.reader.fresh_prefix(call.operator)
    condition = f"{prefix}true"
    expansion.add("Constant", [], [condition], opsets, value=_scalar(np.array(True)))
    current = list(proto.input[2:])
    rows: list[list[str]] = [[] for _ in range(scans)]
    for i in range(rounds):
        step = f"{prefix}{i}/"
        expansion.add("Constant", [], [f"{step}#"], opsets, value=_scalar(np.array(i, np.int64)))
        outputs = [f"{step}>{k}" for k in range(1 + states + scans)]
        inputs = [f"{step}#", condition, *current]
        expansion.add_graph(body, inputs, outputs, opsets, step)
        current = outputs[1 : 1 + states]
        for row, name in zip(rows, outputs[1 + states :], strict=True):
            row.append(name)
    for name, result in zip(current, proto.output, strict=False):
        if result:
            expansion.add("Identity", [name], [result], opsets)
    _add_stacks(expansion, rows, proto.output[states:], [0] * scans, [0] * scans, opsets)
    call.ignore(*range(len(proto.input)))
    return expansion


@reads("Scan")
def read_scan(call: Call) -> Expansion:
    """One round for each slice of its operands."""
    if call.opset < 9:
        call.ignore("body", "directions", "num_scan_inputs")
        raise UnsupportedError("with a batch of sequences (opset 8)")
    body, proto = call.subgraph("body"), call.operator.proto
    count = call.integer("num_scan_inputs", 0)
    states = len(proto.input) - count
    scans = len(body.output) - states
    axes_in, axes_out = (call.integer_list(f"scan_{n}_axes") for n in ("input", "output"))
    ways_in, ways_out = (call.integer_list(f"scan_{n}_directions") for n in ("input", "output"))
    axes = [
        call.counted(axis, call.rank(states + i)) for i, axis in enumerate(axes_in or (0,) * count)
    ]
    lengths = {call.shape(states + i)[axis] for i, axis in enumerate(axes)}
    rounds = next(iter(lengths), 0)
    if len(lengths) > 1 or isinstance(rounds, Dim):
        raise ModelFileError(f"goes over axes of unlike lengths: {sorted(map(str, lengths))}")
    _check_rounds(rounds, body, scans)
    expansion, opsets = Expansion(), call.operator.opsets
    prefix = call.reader.fresh_prefix(call.operator)
    current = list(proto.input[:states])
    rows: list[list[str]] = [[] for _ in range(scans)]
    for i in range(rounds):
        step = f"{prefix}{i}/"
        slices = []
        for k, axis in enumerate(axes):
            at = rounds - 1 - i if ways_in and ways_in[k] else i
            slices.append(f"{step}<{k}")
            index = f"{step}#{k}"
            expansion.add("Constant", [], [index], opsets, value=_scalar(np.array(at, np.int64)))
            expansion.add(
                "Gather", [proto.input[states + k], index], [slices[-1]], opsets, axis=axis
            )
        outputs = [f"{step}>{k}" for k in range(states + scans)]
        expansion.add_graph(body, [*current, *slices], outputs, opsets, step)
        current = outputs[:states]
        for row, name in zip(rows, outputs[states:], strict=True):
            row.append(name)
    for name, result in zip(current, proto.output, strict=False):
        if result:
            expansion.add("Identity", [name], [result], opsets)
    _add_stacks(
        expansion,
        rows,
        proto.output[states:],
        axes_out or (0,) * scans,
        ways_out or (0,) * scans,
        opsets,
    )
    call.ignore("body", *range(len(proto.input)))
    return expansion


def _check_rounds(rounds: int, body: onnx.GraphProto, scans: int) -> None:
    if rounds * max(1, len(body.node)) > MOST_UNROLLED:
        raise UnsupportedError(f"goes round {rounds} times, {len(body.node)} operators each")
    if scans and not rounds:
        raise UnsupportedError("gives rows of no round")


def _add_stacks(
    expansion: Expansion,
    rows: Sequence[Sequence[str]],
    results: Sequence[str],
    axes: Sequence[int],
    backwards: Sequence[int],
    opsets: Mapping[str, int],
) -> None:
    """What each round gives, along a new axis."""
    for row, result, axis, backward in zip(rows, results, axes, backwards, strict=False):
        if result:
            parts = [f"{name}@" for name in row]
            for name, part in zip(row, parts, strict=True):
                _add_axis(expansion, name, part, axis, opsets)
            expansion.add("Concat", parts[::-1] if backward else parts, [result], opsets, axis=axis)


def _add_axis(
    expansion: Expansion, name: str, result: str, axis: int, opsets: Mapping[str, int]
) -> None:
    if opsets.get("", 1) < 13:
        expansion.add("Unsqueeze", [name], [result], opsets, axes=[axis])
        return
    expansion.add("Constant", [], [f"{result}axis"], opsets, value=_scalar(np.array([axis])))
    expansion.add("Unsqueeze", [name, f"{result}axis"], [result], opsets)


def _goes_on(body: onnx.GraphProto) -> bool:
    """Whether the condition that a body gives is the one that it is given, or always true."""
    from onnx.numpy_helper import to_array

    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    stored = {tensor.name: tensor for tensor in body.initializer}
    if name in makers and makers[name].op_type == "Constant":
        tensor = next((a.t for a in makers[name].attribute if a.name == "value"), None)
        return tensor is not None and bool(to_array(tensor).all())
    return name in stored and bool(to_array(stored[name]).all())


def _scalar(array: np.ndarray) -> onnx.TensorProto:
    from onnx.numpy_helper import from_array

    return from_array(array)


# -- sequences ----------------------------------------------------------------------------------


@reads("SequenceEmpty")
def read_sequence_empty(call: Call) -> Held:
    call.ignore("dtype")
    return Items(())


@reads("SequenceConstruct")
def read_sequence_construct(call: Call) -> Held:
    return Items(tuple(call.all_held()))


def _items(call: Call, index: int = 0) -> tuple[Held, ...]:
    held = call.held(index)
    if not isinstance(held, Items):
        raise UnsupportedError("of a sequence that is made when the model runs")
    return held.elements


@reads("SequenceLength")
def read_sequence_length(call: Call) -> Operand:
    return known(np.array(len(_items(call)), np.int64))


@reads("SequenceAt")
def read_sequence_at(call: Call) -> Held:
    items = _items(call)
    return items[call.counted(int(call.scalar(1)), len(items))]


@reads("SequenceInsert")
def read_sequence_insert(call: Call) -> Held:
    items, new = _items(call), call.held(1)
    position = int(call.scalar(2)) if call.has(2) else len(items)
    if not -len(items) <= position <= len(items):
        raise ModelFileError(f"inserts at {position} of {len(items)} elements")
    position += len(items) if position < 0 else 0
    return Items((*items[:position], new, *items[position:]))


@reads("SequenceErase")
def read_sequence_erase(call: Call) -> Held:
    items = _items(call)
    position = call.counted(int(call.scalar(1)) if call.has(1) else -1, len(items))
    return Items(items[:position] + items[position + 1 :])


@reads("ConcatFromSequence")
def read_concat_from_sequence(call: Call) -> Operand:
    new = call.integer("new_axis", 0)
    call.ignore("axis")
    operands = [call.as_operand(item) for item in _items(call)]
    if not operands:
        raise UnsupportedError("of no elements")
    rank = operands[0].type.rank + new
    axis = call.axis(rank=rank)
    if new:
        operands = [
            call.reshape(o, (*o.type.shape[:axis], 1, *o.type.shape[axis:])) for o in operands
        ]
    return operands[0] if len(operands) == 1 else call.apply(Concat(axis), *operands)


# -- optionals ----------------------------------------------------------------------------------


@reads("Optional")
def read_optional(call: Call) -> Held:
    """What has a value is the value."""
    call.ignore("type")
    return call.held(0) if call.has(0) else Nothing()


@reads("OptionalHasElement")
def read_optional_has_element(call: Call) -> Operand:
    held = call.held(0) if call.has(0) else Nothing()
    if isinstance(held, Opaque):
        raise UnsupportedError("of an optional that is given when the model runs")
    return known(np.array(not isinstance(held, Nothing)))


@reads("OptionalGetElement")
def read_optional_get_element(call: Call) -> Held:
    held = call.held(0)
    if isinstance(held, Nothing):
        raise ModelFileError("takes the value of an optional that has none")
    return held
