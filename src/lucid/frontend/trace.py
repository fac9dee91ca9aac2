"""`trace`: run a model's forward once, on a symbolic tensor, and record its ops.

The result is a graph whose first dimension is the symbolic batch. Nodes carry the path of the
module that made them and the user's source line; parameters carry their state-dict keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from lucid.errors import InputError, ShapeError, TraceError, kind_of
from lucid.frontend import recording
from lucid.frontend.batch import WHY, BatchSize
from lucid.frontend.tensor import Operand, Tensor
from lucid.ir.graph import Graph, Value
from lucid.ir.ops import Constant, Op
from lucid.ir.ops.constant import nested
from lucid.ir.types import BATCH, DTYPES, Dim, TensorType
from lucid.nn.module import Module
from lucid.nn.parameter import Parameter

LARGEST_CONSTANT = 4096
"""Elements of a plain array that may be written into the graph as a constant."""


def trace(model: Module, input_shape: Sequence[int]) -> Graph:
    """The graph of `model`'s forward for inputs of `input_shape`, the first dimension any batch.

    Raises TraceError, with the source line, where the forward depends on values or on the batch
    size; ShapeError, with the module's path, where an op does not accept its operands; InputError
    for what is no model or no shape.
    """
    if not isinstance(model, Module):
        raise InputError(f"trace wants a lucid.nn.Module, got {type(model).__name__}")
    shape = checked_shape(input_shape)
    if recording.active.get() is not None:
        raise TraceError(f"trace was called{recording.where()}: a forward that is being traced")
    recorder = GraphRecorder(model)
    x = recorder.add_input(TensorType("f32", (BATCH, *shape[1:])), input_name(model.forward))
    token = recording.active.set(recorder)
    try:
        result = model(x)
    finally:
        recording.active.reset(token)
    return recorder.finish(result)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The sizes of an input, batch first. Raises InputError for what is no such shape."""
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    whole = all(isinstance(d, int | np.integer) and not isinstance(d, bool) for d in sizes)
    if not sizes or not whole or any(d < 1 for d in sizes[1:]) or sizes[0] < 0:
        example = isinstance(getattr(shape, "shape", None), tuple)
        given = f"{kind_of(shape)}: give tuple(x.shape)" if example else repr(shape)
        raise InputError(
            f"input_shape must be ints, batch first, such as (1, 3, 224, 224); got {given}"
        )
    return tuple(int(d) for d in sizes)


def input_name(forward: Callable[..., Any]) -> str:
    """What a forward calls its input."""
    names = list(inspect.signature(forward).parameters)
    return names[0] if names and names[0].isascii() else "x"


def _no_value(what: str) -> Callable[..., Any]:
    def refuse(self: TracedTensor, *operands: object, **options: object) -> NoReturn:
        if recording.active.get() is not self.recorder:
            raise recording.refusal(
                "a traced tensor is used after its trace has ended",
                "a forward must not keep its tensors in the model or elsewhere",
            )
        raise recording.refusal(
            f"the forward {what}",
            "the tensor has no value while the model is traced, so what runs cannot depend on it; "
            "compute with tensor operations, or take the decision outside the forward",
        )

    return refuse


class TracedTensor(Tensor):
    """A tensor of a forward being traced: a value of the graph, with a type and no elements."""

    __slots__ = ("recorder", "value")
    __hash__ = object.__hash__

    def __init__(self, value: Value, recorder: GraphRecorder) -> None:
        self.value = value
        self.recorder = recorder

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions; the batch as a `BatchSize`, which plays an int as far as it can."""
        dims = self.value.type.shape
        return tuple(
            BatchSize(d) if isinstance(d, Dim) else d  # type: ignore[misc]  # see the docstring
            for d in dims
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.value.type.dtype]

    def __repr__(self) -> str:
        return f"TracedTensor({self.value.type})"

    numpy = __array__ = _no_value("needs the elements of a traced tensor (numpy())")
    __dlpack__ = _no_value("needs the elements of a traced tensor (DLPack)")
    item = tolist = _no_value("needs the elements of a traced tensor (item())")
    __float__ = _no_value("calls float() on a traced tensor")
    __int__ = __index__ = _no_value("calls int() on a traced tensor")
    __bool__ = _no_value("branches on a traced tensor (bool())")
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _no_value("compares a traced tensor")


class GraphRecorder:
    """Writes what a forward does into a graph."""

    def __init__(self, model: Module) -> None:
        tensors = model.named_tensors()
        self.names = {id(tensor): name for name, tensor in tensors}
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.graph = Graph(model.name, {name: tensor.stored for name, tensor in tensors})
        self._scopes = [""]
        self._model = model  # keeps the ids above alive

    def add_input(self, type: TensorType, name: str) -> TracedTensor:
        return TracedTensor(self.graph.add_input(type, name), self)

    @property
    def path(self) -> str:
        return self._scopes[-1]

    @contextmanager
    def scope(self, module: object) -> Iterator[None]:
        """A module that is not part of the model (made in a forward) counts as its caller."""
        self._scopes.append(self.paths.get(id(module), self.path))
        try:
            yield
        finally:
            self._scopes.pop()

    def records(self, operand: object) -> bool:
        """Traced tensors and the model's parameters; plain arrays alone are computed at once."""
        return isinstance(operand, TracedTensor | Parameter)

    def record(self, op: Op, operands: Sequence[Operand]) -> tuple[Tensor, ...]:
        floating = any(isinstance(o, Tensor) and o.type.dtype == "f32" for o in operands)
        values = [self._value(o, floating) for o in operands]
        try:
            node = self.graph.append(
                op, values, origin=self.path, location=recording.user_location()
            )
        except ShapeError as error:
            raise ShapeError(f"{error}{recording.where()}") from error
        return tuple(TracedTensor(v, self) for v in node.outputs)

    def _value(self, operand: Operand, floating: bool) -> Value:
        """The graph's value for an operand: traced, a parameter, or a constant."""
        match operand:
            case TracedTensor():
                if operand.recorder is not self:
                    operand.numpy()  # raises: the tensor of another trace
                return operand.value
            case Parameter():
                name = self.names.get(id(operand))
                if name is None:
                    raise recording.refusal(
                        f"the forward uses a parameter {list(operand.shape)} of no module",
                        "make it an attribute of a module that belongs to the model (modules in "
                        "a list belong into nn.ModuleList), so that it has a name",
                    )
                return self.graph.add_source(name, operand.type)
            case float() | int():
                number = float(operand) if floating else operand
                return self._constant(number, "f32" if isinstance(number, float) else "i64")
            case BatchSize():
                raise recording.refusal("the forward computes with the batch size", WHY)
        array = np.asarray(operand)
        if array.dtype.kind not in "fi" or array.size > LARGEST_CONSTANT:
            raise recording.refusal(
                f"the forward uses a plain array {array.dtype}{list(array.shape)}",
                f"arrays of bool or of more than {LARGEST_CONSTANT} elements are not written into "
                "a graph; keep it in the model with register_buffer, so that it has a name",
            )
        return self._constant(nested(array), "f32" if array.dtype.kind == "f" else "i64")

    def _constant(self, value: Any, dtype: str) -> Value:
        node = self.graph.append(
            Constant(value, dtype), [], origin=self.path, location=recording.user_location()
        )
        return node.output

    def finish(self, result: object) -> Graph:
        """The graph, with what the forward returned as its outputs, and only what it used."""
        results = list(result) if isinstance(result, tuple | list) else [result]
        for r in results:
            if not isinstance(r, TracedTensor) or r.recorder is not self:
                kind = "a tensor that is not computed from the input"
                kind = kind if isinstance(r, Tensor) else kind_of(r)
                raise TraceError(
                    f"the forward of {type(self._model).__name__} returns {kind}: it must return "
                    "a tensor computed from its input, or a tuple of them"
                )
        self.graph.set_outputs(r.value for r in results if isinstance(r, TracedTensor))
        return self.graph
