"""The one table of operators: how each op is written, and how each operator is read.

    @writes(Softmax)
    def write_softmax(w: Writer, op: Softmax, operands: Sequence[Edge], kind: TensorType) -> str:
        return w.emit("Softmax", operands[0], axis=op.axis)

    @reads("Softmax")
    def read_softmax(call: Call) -> Operand:
        return call.apply(Softmax(call.axis(-1)), call.operand(0))

A writing function takes the writer, the op, its operands and the type of its result, emits
operators, and returns the name of the result. A reading function takes one operator of the file,
adds ops to the graph through it, and returns its results; what it cannot say in Lucid's ops it
refuses (UnsupportedError). What it has not looked at is refused for it: attributes that differ from
ONNX's default, operands that are given. `Call.ignore` names those that change no result. An op that
names its operator (`Op.onnx`) needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lucid.ir.ops import OPS, Op
from lucid.ir.types import TensorType

Write = Callable[[Any, Any, Sequence[Any], TensorType], str | Sequence[str]]
"""From a `Writer`, an op, an `Edge` for each operand and the type of the (first) result to its
name; where an op has several results, to the names of all."""
Read = Callable[[Any], Any]
"""From a `Call` to its results: one operand, or a sequence of them."""

WRITERS: dict[type[Op], Write] = {}
READERS: dict[str, Read] = {}


def writes(*op_classes: type[Op]) -> Callable[[Write], Write]:
    """Register the decorated function as the way these ops are written."""

    def register(function: Write) -> Write:
        for op_class in op_classes:
            assert op_class not in WRITERS, f"{op_class.name} is written by two functions"
            WRITERS[op_class] = function
        return function

    return register


def reads(*operators: str) -> Callable[[Read], Read]:
    """Register the decorated function as the way these operators are read."""

    def register(function: Read) -> Read:
        for operator in operators:
            assert operator not in READERS, f"{operator} is read by two functions"
            READERS[operator] = function
        return function

    return register


def operators() -> list[str]:
    """Every operator that is read, by name."""
    return sorted(READERS.keys() | {cls.onnx for cls in OPS.values() if cls.onnx})
