"""The interface of emitters: the graph, seen from one of torch's nodes.

    @emits("relu.default", "relu6.default")
    def relu(w: Writer, x: Any) -> Value:
        return w.emit(ops.Relu(), x)

The function gets the operands in the order of torch's schema, defaults filled in: values of the
graph, tensors that the importer knows, numbers, lists of them. It also serves the form that works
in place (`relu_`). Where it cannot write what is asked for, it says so with `w.refuse`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from lucid.frontend.torch.calling import DTYPES as GRAPH_DTYPES
from lucid.frontend.torch.refused import Refused
from lucid.frontend.torch.tables import Tables
from lucid.ir import ops
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import OPS, Array, Op
from lucid.ir.ops.constant import nested
from lucid.ir.types import DTYPES, INTEGERS, Dim, Shape, TensorType

Emitter = Callable[..., Any]
EMITTERS: dict[str, Emitter] = {}
"""What writes each operator, by torch's name for its overload: `aten.relu.default`."""

KEEPING: set[str] = set()
"""The operators among them that are written even where all their operands are known: tables of
integers that stand for weights, which stay integers."""

F = TypeVar("F", bound=Emitter)
LARGEST_CONSTANT = 4096
"""Elements of a floating table that is written into the graph; larger ones join the payload."""


def emits(*names: str, namespace: str = "aten", keeps: bool = False) -> Callable[[F], F]:
    """Register a function as what writes the overloads of these names, ATen's or another
    library's. That library need not be there. `keeps`: see KEEPING."""

    def register(function: F) -> F:
        for name in names:
            assert f"{namespace}.{name}" not in EMITTERS, f"two functions emit {name}"
            EMITTERS[f"{namespace}.{name}"] = function
            if keeps:
                KEEPING.add(f"{namespace}.{name}")
        return function

    return register


def emitter_name(target: Any) -> str:
    """The name under which an operator is registered: that of its form which changes nothing."""
    namespace, _, rest = str(target).partition(".")
    packet, _, overload = rest.partition(".")
    if packet.endswith("_") and not packet.endswith("__"):
        packet = packet[:-1]
    return f"{namespace}.{packet}.{overload}"


def emitter_of(name: str) -> Emitter | None:
    """What writes an operator: a function of its own, or the op that names it (`Op.torch`)."""
    if name in EMITTERS:
        return EMITTERS[name]
    packet, _, overload = name.removeprefix("aten.").partition(".")
    plain = overload in ("default", "Tensor", "Scalar")
    named = (cls for cls in OPS.values() if plain and cls.torch == packet)
    return next(map(_namesake, named), None)


def _namesake(op_class: type[Op]) -> Emitter:
    return lambda w, *operands: w.emit(op_class(), *operands)


def has_emitter(target: Any) -> bool:
    return emitter_of(emitter_name(target)) is not None


@dataclass
class Notes:
    """What the writers of one module share.

    `payload`: the graph's. `truths`: values that are truth values to torch.
    """

    graph: Graph
    tables: Tables
    payload: dict[str, Any]
    truths: set[Value] = field(default_factory=set)


class Writer:
    """Writes nodes for one node of torch's.

    `shape`: that of the node's first result. `kind`: its dtype, in torch's name for it. `name`:
    what torch calls the node. `origin` and `location` as in `lucid.ir.graph.Node`.
    """

    def __init__(
        self, notes: Notes, shape: Shape, kind: str, name: str, origin: str, location: str | None
    ) -> None:
        self.shape = shape
        self.kind = kind
        self._notes = notes
        self._name = f"{origin}.{name}" if origin else name
        self._place: dict[str, Any] = {"origin": origin, "location": location}

    def refuse(self, reason: str) -> NoReturn:
        """Give up on the node. `reason`: what of it cannot be expressed."""
        raise Refused(reason)

    # -- writing ----------------------------------------------------------------------------

    def emit(self, op: Op, *operands: Any) -> Value:
        """The one result of a new node."""
        (result,) = self.emit_all(op, *operands)
        return result

    def emit_all(self, op: Op, *operands: Any) -> list[Value]:
        """The results of a new node."""
        alike = isinstance(op, ops.Elementwise)
        values = self._alike(op, operands) if alike else list(map(self.value, operands))
        return self._notes.graph.append(op, values, **self._place).outputs

    def _alike(self, op: Op, operands: Sequence[Any]) -> list[Value]:
        """The operands of an elementwise op in one dtype, the condition of a Where in its own."""
        apart = 1 if isinstance(op, ops.Where) else 0
        dtype = self._common(op, operands[apart:])
        values = [self.converted(x, "f32") for x in operands[:apart]]
        return values + [self.converted(x, dtype) for x in operands[apart:]]

    def _common(self, op: Op, operands: Sequence[Any]) -> str:
        """What an elementwise op computes in: the dtype of the node's integers, where it makes such
        of integers; what it compares, in the dtype of integers that holds all of them; else f32."""
        if isinstance(op, ops.Comparison):
            return self._holding(operands)
        takes = INTEGERS if isinstance(op, ops.Where) else getattr(op, "takes", ())
        if self.integer is None or self.integer not in takes:
            return "f32"
        return "f32" if "f32" in map(self._kind, operands) else self.integer

    def _holding(self, operands: Sequence[Any]) -> str:
        """The dtype of integers that holds all operands, where none of them is a float; else f32.
        Truth values and whole numbers take that of the others, in which a number that is too large
        wraps around, as torch has it."""
        kinds = [self._kind(x) for x in operands]
        whole = [DTYPES[k] for k in kinds if k in INTEGERS]
        if not whole or "f32" in kinds:
            return "f32"
        common = np.result_type(*whole)
        return next((name for name in INTEGERS if DTYPES[name] == common), "f32")

    def _kind(self, x: Any) -> str | None:
        """The dtype of an operand; None for truth values and whole numbers."""
        if isinstance(x, Value):
            return None if x in self._notes.truths else x.type.dtype
        if isinstance(x, int):
            return None
        return {"f": "f32", "b": None}.get(self.known(x)[0].dtype.kind, "i64")

    @property
    def integer(self) -> str | None:
        """The dtype of the node's first result, where it is one of integers."""
        match = re.fullmatch(r"(u?)int(\d+)", self.kind)
        return f"{match[1] or 'i'}{match[2]}" if match else None

    def converted(self, x: Any, dtype: str) -> Value:
        """An operand in a dtype, f32 or one of integers; where it holds one number, perhaps as a
        scalar."""
        value = self.value(x, scalar=True, dtype=dtype)
        if value.type.dtype == dtype:
            return value
        return self._notes.graph.append(ops.Cast(dtype), [value], **self._place).output

    def alike(self, x: Any) -> Value:
        """An operand in the dtype of the node's result."""
        return self.converted(x, self.integer or "f32")

    def truth(self, x: Any) -> Value:
        """An operand as truth values: numbers are true unless they are 0."""
        if self.is_truth(x):
            return self.value(x)
        value = self.value(x)
        if value.type.dtype == "f32":
            return self.chain(value, ops.Not(), ops.Not())
        return self.emit(ops.Not(), self.emit(ops.Equal(), value, 0))

    def as_kind(self, value: Value, kind: Any) -> Value:
        """A result as what stands for torch's dtype `kind`: f32 for floats and truth values."""
        if kind == torch.bool:
            return value if value.type.dtype == "f32" else self.truth(value)
        wanted = "f32" if kind.is_floating_point else GRAPH_DTYPES.get(kind, "f32")
        return self.converted(value, wanted)

    def chain(self, x: Any, *steps: Op) -> Value:
        """Unary ops, one after the other."""
        value = self.value(x)
        for op in steps:
            value = self.emit(op, value)
        return value

    def reshape(self, x: Any, shape: Shape) -> Value:
        """x in another shape; x itself where it has that shape."""
        value = self.value(x)
        return value if value.type.shape == shape else self.emit(ops.Reshape(shape), value)

    def permute(self, x: Any, axes: Sequence[int]) -> Value:
        return self.emit(ops.Permute(tuple(axes)), x)

    def expand(self, x: Any, shape: Shape) -> Value:
        """x broadcast to a shape; x itself where it has that shape."""
        value = self.value(x, scalar=True)
        return value if value.type.shape == shape else self.emit(ops.Expand(shape), value)

    def slice(self, x: Any, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """A range along one axis; x itself where it is all of it, perhaps nothing of it."""
        value = self.value(x)
        if stop <= start:
            shape, dtype = value.type.shape, value.type.dtype
            empty = (*shape[:axis], 0, *shape[axis + 1 :])
            return self.expand(self.constant(0, dtype), empty)
        if (start, stop, step) == (0, value.type.shape[axis], 1):
            return value
        return self.emit(ops.Slice(axis, start, stop, step), value)

    def filled(self, number: float, shape: Shape) -> Value:
        """A tensor of one number, of the node's dtype."""
        return self.expand(self.constant(number, self._own(number)), shape)

    def _own(self, data: Any) -> str:
        """The dtype that numbers have in this node's graph: integers only among integers."""
        floating = np.asarray(data).dtype.kind == "f"
        return "f32" if self.integer is None or floating else self.integer

    def constant(self, data: Any, dtype: str = "f32") -> Value:
        """A number or an array as a constant of the graph."""
        array = np.asarray(data)
        array = array.astype(np.float64) if dtype == "f32" else array.astype(DTYPES[dtype])
        return self._notes.graph.append(
            ops.Constant(nested(array), dtype), [], **self._place
        ).output

    def table(self, array: Array) -> Value:
        """A table of floats: a constant of the graph, or of the payload where it is large."""
        if array.size > LARGEST_CONSTANT:
            return self._table(np.asarray(array, np.float32))
        return self.constant(array)

    # -- operands ---------------------------------------------------------------------------

    def value(self, x: Any, scalar: bool = False, dtype: str | None = None) -> Value:
        """An operand as a value of the graph; with `scalar` one that holds the same number
        everywhere may have rank 0. `dtype`: of what becomes a constant."""
        match x:
            case Value():
                return x
            case bool() | int() | float():
                return self.constant(x, dtype or self._own(x))
            case Dim():
                self.refuse("it computes with the size of the batch")
            case None:
                self.refuse("it lacks an operand")
        array, shape = self.known(x)
        dtype = dtype or self._own(array)
        if array.size and scalar and (array == array.flat[0]).all():
            return self.constant(array.flat[0], dtype)
        if array.size and array.ndim and (array == array.flat[0]).all():
            return self.expand(self.constant(array.flat[0], dtype), shape)
        if array.size > LARGEST_CONSTANT and dtype == "f32":
            return self.expand(self._table(array.astype(np.float32)), shape)
        return self.expand(self.constant(array, dtype), shape)

    def known(self, x: Any) -> tuple[Array, Shape]:
        """The elements of a tensor that the importer knows (see `Tables.array`).

        Raises Refused for those that depend on the input or on weights.
        """
        if isinstance(x, Value):
            self.refuse("it depends on the elements of a tensor that are only known when it runs")
        if isinstance(x, int | float):
            return np.asarray(x), ()
        return self._notes.tables.array(x)

    def shape_of(self, x: Any) -> Shape:
        """The shape of an operand."""
        if isinstance(x, Value):
            return x.type.shape
        return () if isinstance(x, int | float) else self._notes.tables.shape(x)

    def axis(self, dim: int, rank: int | None = None) -> int:
        """An axis counted from 0, of the first result or among `rank`."""
        count = len(self.shape) if rank is None else rank
        return dim % count if count else 0

    def size(self, dim: int | Dim) -> int:
        """A dimension that must not depend on the batch."""
        if isinstance(dim, Dim):
            self.refuse("it takes the batch apart")
        return dim

    def is_weight(self, x: Any) -> bool:
        """Whether a value is computed from weights alone."""
        if not isinstance(x, Value) or isinstance(x, Parameter):
            return isinstance(x, Parameter)
        node = x.producer
        return node is not None and all(map(self.is_weight, node.inputs))

    def is_truth(self, x: Any) -> bool:
        """Whether an operand holds truth values."""
        if isinstance(x, Value):
            return x in self._notes.truths
        return self.known(x)[0].dtype == bool

    def integers(self, x: Any, dtype: str) -> Value:
        """Integers that stand for weights: a known table as a tensor of the payload."""
        if isinstance(x, Value):
            return x
        array, _ = self.known(x)
        return self._table(np.ascontiguousarray(array, DTYPES[dtype]), dtype)

    def _table(self, array: Array, dtype: str = "f32") -> Value:
        """A table as a tensor of the payload. Its name tells it from those of other image sizes."""
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:8]
        name = f"{self._name}.{digest}"
        self._notes.payload[name] = array
        return self._notes.graph.add_source(name, TensorType(dtype, array.shape))
