"""Loops, scans and branches whose course is not known while reading: their bodies are models of
their own, read for the shapes that each round has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.onnx.operator import Operator, captured, subgraphs
from lucid.onnx.order import in_order
from lucid.onnx.stages import Output, Program

if TYPE_CHECKING:
    import onnx

    from lucid.ir.ops import Array


class Runs(Protocol):
    """Runs programs (`Runner` in `continuation.py`)."""

    loop_limit: int

    def run_body(self, program: Program, values: Mapping[str, Any]) -> list[Any]:
        """The outputs of a program for values in the file's types."""


def run_loop(operator: Operator, values: Mapping[str, Any], runner: Runs) -> list[Any]:
    """Rounds while the condition holds, up to the number that is given."""
    (body,) = subgraphs(operator.proto)
    program, outside = _program(operator, 0), _outside(body, values)
    names = [value.name for value in body.input]
    limit, going, *state = _operands(operator, values, 2)
    most = None if limit is None else int(np.asarray(limit).reshape(()))
    going = going is None or bool(np.asarray(going).reshape(()))
    states = len(names) - 2
    rows: list[list[Any]] = [[] for _ in range(len(body.output) - 1 - states)]
    done = 0
    while going and (most is None or done < most):
        if done >= runner.loop_limit:
            raise UnsupportedError(
                f"{operator.kind} {operator.where} still goes on after {done} rounds, the limit;"
                " the environment variable LUCID_LOOP_LIMIT sets another"
            )
        given = [np.array(done, np.int64), np.array(True), *state]
        results = runner.run_body(program, {**outside, **dict(zip(names, given, strict=True))})
        going, done = bool(np.asarray(results[0]).reshape(())), done + 1
        state = results[1 : 1 + states]
        for row, result in zip(rows, results[1 + states :], strict=True):
            row.append(result)
    return [
        *state,
        *(_stacked(row, value) for row, value in zip(rows, body.output[1 + states :], strict=True)),
    ]


def run_scan(operator: Operator, values: Mapping[str, Any], runner: Runs) -> list[Any]:
    """One round for each slice of the operands (version 9 and later)."""
    if operator.opset < 9:
        raise UnsupportedError(f"{operator.kind} {operator.where} is of opset 8: not run")
    (body,) = subgraphs(operator.proto)
    program, outside = _program(operator, 0), _outside(body, values)
    names = [value.name for value in body.input]
    attributes = {a.name: a for a in operator.proto.attribute}
    count = attributes["num_scan_inputs"].i

    def numbers(name: str, size: int) -> Sequence[int]:
        return list(attributes[name].ints) if name in attributes else [0] * size

    operands = _operands(operator, values, len(names))
    states = len(operands) - count
    state, scanned = list(operands[:states]), [np.asarray(o) for o in operands[states:]]
    axes, ways = numbers("scan_input_axes", count), numbers("scan_input_directions", count)
    scanned = [np.moveaxis(x, axis, 0) for x, axis in zip(scanned, axes, strict=True)]
    scanned = [x[::-1] if way else x for x, way in zip(scanned, ways, strict=True)]
    if len({len(x) for x in scanned}) != 1:
        raise ModelFileError(f"{operator.kind} {operator.where} goes over axes of unlike lengths")
    rows: list[list[Any]] = [[] for _ in range(len(body.output) - states)]
    for i in range(len(scanned[0])):
        given = [*state, *(x[i] for x in scanned)]
        results = runner.run_body(program, {**outside, **dict(zip(names, given, strict=True))})
        state = results[:states]
        for row, result in zip(rows, results[states:], strict=True):
            row.append(result)
    axes = numbers("scan_output_axes", len(rows))
    ways = numbers("scan_output_directions", len(rows))
    stacked = []
    for row, value, axis, way in zip(rows, body.output[states:], axes, ways, strict=True):
        whole = _stacked(row[::-1] if way else row, value)
        stacked.append(np.moveaxis(whole, 0, axis))
    return [*state, *stacked]


def run_sequence_map(operator: Operator, values: Mapping[str, Any], runner: Runs) -> list[Any]:
    """The body for each element of the sequences; tensors are the same for all."""
    (body,) = subgraphs(operator.proto)
    program, outside = _program(operator, 0), _outside(body, values)
    names = [value.name for value in body.input]
    operands = _operands(operator, values, len(names))
    results = [
        runner.run_body(
            program,
            {
                **outside,
                **{
                    name: x[i] if isinstance(x, list) else x
                    for name, x in zip(names, operands, strict=True)
                },
            },
        )
        for i in range(len(operands[0]))
    ]
    return [[result[k] for result in results] for k in range(len(body.output))]


def run_has_element(operator: Operator, values: Mapping[str, Any], runner: Runs) -> list[Any]:
    """Whether an optional has a value."""
    return [np.array(any(value is not None for value in values.values()))]


RUNS: dict[str, Callable[[Operator, Mapping[str, Any], Runs], list[Any]]] = {
    "Loop": run_loop,
    "Scan": run_scan,
    "SequenceMap": run_sequence_map,
    "OptionalHasElement": run_has_element,
}


def _operands(operator: Operator, values: Mapping[str, Any], least: int) -> list[Any]:
    """The operands in order, None for those that are left out."""
    operands = [values[name] if name else None for name in operator.proto.input]
    return operands + [None] * (least - len(operands))


def _outside(body: onnx.GraphProto, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in captured(body)}


@lru_cache(maxsize=256)
def _program(operator: Operator, index: int) -> Program:
    """A subgraph as a program."""
    graph = subgraphs(operator.proto)[index]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    given = {*tensors, *captured(graph), *(value.name for value in graph.input)}
    operators = [Operator(node, operator.opsets) for node in in_order(graph.node, given)]
    outputs = [Output(o.name, _element(o)) for o in graph.output]
    return Program(graph.name, operators, tensors, outputs)


def _element(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type) if value.type.HasField("tensor_type") else 0


def _stacked(row: Sequence[Any], value: onnx.ValueInfoProto) -> Array:
    """What the rounds gave, along a new first axis. Of no rounds, as far as the file says."""
    from onnx.helper import tensor_dtype_to_np_dtype

    if row:
        return np.stack([np.asarray(r) for r in row])
    tensor = value.type.tensor_type
    sizes = [d.dim_value for d in tensor.shape.dim]
    return np.zeros((0, *sizes), tensor_dtype_to_np_dtype(tensor.elem_type or 1))
