"""The steps of a plan: native calls, and nodes that run on the host between them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lucid.codegen.language.dtypes import dtype
from lucid.errors import CompileError, HostOpsWarning, LucidError

if TYPE_CHECKING:
    from lucid.codegen.lowering.partition import Region
    from lucid.ir.graph import Graph, Node, Parameter, Value
    from lucid.ir.interpret import Tensors
    from lucid.ir.ops.base import Array
    from lucid.runtime.binding import BoundProgram
    from lucid.runtime.weights import WeightStore


class HostOp(NamedTuple):
    """A node that has no kernel: its op, the name of its (first) result, its module's path, and the
    user's source line."""

    op: str
    result: str
    origin: str
    location: str | None

    def __str__(self) -> str:
        return f"{self.op} in {self.place}"

    @property
    def place(self) -> str:
        where = self.origin or "the model"
        return where + (f" ({self.location})" if self.location else "")


@dataclass(frozen=True, eq=False)
class NativeStep:
    """A region in one native call."""

    region: Region
    bound: BoundProgram

    @property
    def reads(self) -> Sequence[Value]:
        return self.region.inputs

    @property
    def writes(self) -> Sequence[Value]:
        return self.region.outputs


@dataclass(frozen=True, eq=False)
class HostStep:
    """A node by its op's reference, in float32. `known`: those operands that are parameters, as
    numbers."""

    node: Node
    known: Mapping[Value, Array]

    @staticmethod
    def of(node: Node, graph: Graph, weights: WeightStore) -> HostStep:
        """Raises WeightsError, ModelFileError where a parameter's tensors are missing."""
        from lucid.ir.graph import Parameter
        from lucid.ir.interpret import Tensors

        read = Tensors(weights.payload, graph)
        parameters = [value for value in node.inputs if isinstance(value, Parameter)]
        return HostStep(node, {p: parameter_array(p, read) for p in parameters})

    @property
    def reads(self) -> Sequence[Value]:
        return [value for value in self.node.inputs if value not in self.known]

    @property
    def writes(self) -> Sequence[Value]:
        return self.node.outputs

    @property
    def op(self) -> HostOp:
        from lucid.ir.ops import Fusion

        op = self.node.op.anchor if isinstance(self.node.op, Fusion) else self.node.op
        result = self.node.outputs[0].name
        return HostOp(op.name, result, self.node.origin, self.node.location)

    def run(self, arrays: Mapping[Value, Array], batch: int) -> list[Array]:
        """The node's results from arrays, both as they are stored. Raises the LucidErrors of the
        reference, and CompileError where it fails otherwise, both of which say where."""
        from lucid.ir.interpret import run_node

        operands = [
            self.known[v] if v in self.known else dtype(v.type.dtype).decode(arrays[v])
            for v in self.node.inputs
        ]
        try:
            with np.errstate(all="ignore"):  # native code warns of no overflow either
                results = run_node(self.node, operands, batch, np.dtype(np.float32))
        except MemoryError:
            raise
        except LucidError as problem:
            raise type(problem)(f"{self.op}: {problem}") from problem
        except Exception as error:
            given = ", ".join(
                f"{v.type.dtype}{list(x.shape)}"
                for v, x in zip(self.node.inputs, operands, strict=True)
            )
            raise CompileError(
                f"{self.op} failed on the host, for ({given}): {type(error).__name__}: {error}"
            ) from error
        pairs = zip(results, self.node.outputs, strict=True)
        return [np.ascontiguousarray(dtype(v.type.dtype).encode(r)) for r, v in pairs]


Step = NativeStep | HostStep


def parameter_array(parameter: Parameter, read: Tensors) -> Array:
    """A parameter as numbers, as the interpreter has it."""
    from lucid.ir.recipe import evaluate

    kind = dtype(parameter.type.dtype)
    numbers = np.dtype(np.float32) if kind.kind == "float" else kind.storage
    return np.asarray(evaluate(parameter.recipe, read), numbers)


def run_steps(
    graph: Graph,
    steps: Sequence[Step],
    batch: int,
    weights: WeightStore,
    native: Callable[[BoundProgram, Sequence[Array]], None],
    arrays: Sequence[Array],
    results: Sequence[Array],
    host: Callable[[HostStep, Mapping[Value, Array], int], list[Array]] = HostStep.run,
) -> None:
    """Write the outputs of a graph to `results`, all arrays as they are stored.

    `native` runs a program on its inputs and outputs, `host` a node on arrays by value. An
    intermediate array goes with the last step that reads it; what is an output is written in its
    place at once.
    """
    from lucid.ir.graph import Parameter
    from lucid.ir.interpret import Tensors

    held = dict(zip(graph.inputs, arrays, strict=True))
    places: dict[Value, Array] = {}
    for value, result in zip(graph.outputs, results, strict=True):
        places.setdefault(value, result)
    last = {value: number for number, step in enumerate(steps) for value in step.reads}
    for number, step in enumerate(steps):
        if isinstance(step, NativeStep):
            written = [_place(value, places, batch) for value in step.writes]
            native(step.bound, [*(held[value] for value in step.reads), *written])
        else:
            written = host(step, held, batch)
        held.update(zip(step.writes, written, strict=True))
        for value in {*step.reads, *step.writes}:
            if last.get(value, -1) <= number and value not in places:
                del held[value]
    for value, result in zip(graph.outputs, results, strict=True):
        if isinstance(value, Parameter):
            array = parameter_array(value, Tensors(weights.payload, graph))
            result[...] = dtype(value.type.dtype).encode(array)
        elif held[value] is not result:
            result[...] = held[value]


def _place(value: Value, places: Mapping[Value, Array], batch: int) -> Array:
    """Where a region writes a value."""
    if value in places:
        return places[value]
    return np.empty(value.type.concrete(batch), dtype(value.type.dtype).storage)


def listed(ops: Sequence[HostOp]) -> str:
    """A line for each kind of op: how many there are, and where the first is."""
    kinds: dict[str, list[HostOp]] = {}
    for op in ops:
        kinds.setdefault(op.op, []).append(op)
    return "".join(
        f"\n  {kind}{f', {len(those)} times, first' if len(those) > 1 else ''} in {those[0].place}"
        for kind, those in kinds.items()
    )


def warn_of_host_ops(model: str, ops: Sequence[HostOp]) -> None:
    """One HostOpsWarning that names them, at the line of the user's that led here."""
    noun, verb, them = ("ops", "run", "them") if len(ops) > 1 else ("op", "runs", "it")
    message = (
        f"{len(ops)} {noun} of {model} without a kernel {verb} in NumPy, between native calls:"
        f"{listed(ops)}\nlucid.CompileOptions(host_ops='refuse') refuses {them}"
    )
    import inspect

    package = str(Path(__file__).parents[1])
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(HostOpsWarning(message), stacklevel=level + 1)
