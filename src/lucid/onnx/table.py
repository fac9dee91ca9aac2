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
from typing import TYPE_CHECKING, Any

from lucid.ir.ops import OPS, Op
from lucid.ir.types import TensorType

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

    Write = Callable[[Writer, Any, Sequence[Edge], TensorType], str]
    Read = Callable[[Call], Operand | Sequence[Operand]]

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


def writer_of(op_class: type[Op]) -> Write | None:
    """The function that writes an op: one of its own, or that of all that name an operator."""
    return WRITERS.get(op_class) or (_write_namesake if op_class.onnx else None)


def reader_of(operator: str) -> Read | None:
    """The function that reads an operator: one of its own, or that of the op that names it."""
    if operator in READERS:
        return READERS[operator]
    named = (cls for cls in OPS.values() if cls.onnx == operator)
    return next(map(_namesake_reader, named), None)


def operators() -> list[str]:
    """Every operator that is read, by name."""
    return sorted(READERS.keys() | {cls.onnx for cls in OPS.values() if cls.onnx})


def _write_namesake(w: Writer, op: Op, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit(op.onnx, *operands)


def _namesake_reader(op_class: type[Op]) -> Read:
    def read(call: Call) -> Operand:
        return call.apply(op_class(), *call.operands())

    return read
