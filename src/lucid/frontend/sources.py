"""What can be compiled, kind by kind: `as_model` finds the kind, and the rest of Lucid asks a
`Model` for graphs and weights without knowing which it is.

A kind is one class, registered with `@kind`. Neither torch nor onnx is imported before there is a
model of theirs.
"""

from __future__ import annotations

import os
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from lucid.errors import InputError, ShapeError, kind_of
from lucid.frontend.trace import trace
from lucid.frontend.weights import match_weights
from lucid.ir.graph import Graph, State
from lucid.ir.types import BATCH, Shapes, f32, with_batch
from lucid.nn.module import Module
from lucid.onnx.tensors import StoredTensor

Weights = Mapping[str, Any]


class Model(Protocol):
    """A model as the compiler needs it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def dtypes(self) -> Sequence[str]:
        """Of its inputs, in order, in the graph's terms."""

    def input_shapes(self) -> Shapes | None:
        """The shapes of its inputs for one image, where it takes just one size."""

    def captured(self, shapes: Shapes) -> Graph:
        """Its graph for inputs of these shapes, the batch symbolic. Raises InputError where they do
        not fit, TraceError and UnsupportedError where there is no such graph."""

    def require_weights(self) -> None:
        """Raises WeightsError where it has no values for its tensors."""

    @property
    def by_name(self) -> bool:
        """Whether the names of its tensors tell what they are, as those of a module do; in files
        they may be numbers."""

    def tensors(self) -> Weights:
        """Its own tensors, by name."""

    @property
    def constants(self) -> Weights:
        """What its graphs read that is none of its weights, so far as they are known."""

    def state(self) -> State:
        """The tensors that `match` takes."""

    def match(self, weights: Weights, origin: str) -> Weights:
        """Everything that its graphs read, from tensors by name. Raises WeightsError for what is
        missing, unexpected or misshapen."""


class Kind(Protocol):
    """Makes a Model of what a user has."""

    def __call__(self, model: Any, /) -> Model: ...

    def accepts(self, model: Any, /) -> bool:
        """Whether `model` is of this kind."""


KINDS: dict[str, Kind] = {}
"""Every kind of model, by what an error message calls it."""

K = TypeVar("K", bound=Kind)


def kind(what: str) -> Callable[[K], K]:
    """Register a class as a kind of model."""

    def register(made_by: K) -> K:
        KINDS[what] = made_by
        return made_by

    return register


def as_model(model: Any) -> Model:
    """The model that `model` is. Raises InputError for what is none."""
    for made_by in KINDS.values():
        if made_by.accepts(model):
            return made_by(model)
    got = repr(model) if isinstance(model, str | os.PathLike) else kind_of(model)
    *others, last = KINDS
    raise InputError(f"a model is {', '.join(others)}, or {last}; got {got}")


def only(shapes: Shapes, model: str) -> tuple[int, ...]:
    """The shape of a model's one input. Raises InputError where there are several."""
    if len(shapes) != 1:
        raise InputError(f"{model} takes one input, not {len(shapes)}")
    return shapes[0]


@kind("a lucid.nn.Module")
class TracedModule:
    """A module of Lucid's own, traced for each image size."""

    dtypes = ("f32",)
    by_name = True
    constants: ClassVar[Weights] = {}

    def __init__(self, module: Module) -> None:
        self.module = module
        self.name = module.name

    @staticmethod
    def accepts(model: Any) -> bool:
        return isinstance(model, Module)

    def input_shapes(self) -> None:
        return None

    def captured(self, shapes: Shapes) -> Graph:
        shape = only(shapes, self.name)
        try:
            return trace(self.module, shape)
        except ShapeError as problem:
            wanted = f32(BATCH, *shape[1:])
            raise InputError(f"{self.name} takes no {wanted}: {problem}") from problem

    def require_weights(self) -> None:
        """There always are some: what was not loaded is generated."""

    def tensors(self) -> Weights:
        return self.module.state_dict()

    def state(self) -> State:
        return State({name: tensor.shape for name, tensor in self.module.state_dict().items()})

    def match(self, weights: Weights, origin: str) -> Weights:
        return match_weights(self.state().shapes, weights, origin, self.name)[0]


@kind("a lucid.ir.Graph")
class GivenGraph:
    """A graph, which has just one image size."""

    by_name = False
    constants: ClassVar[Weights] = {}

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.name = graph.name

    @staticmethod
    def accepts(model: Any) -> bool:
        return isinstance(model, Graph)

    @property
    def dtypes(self) -> Sequence[str]:
        return self.graph.input_dtypes()

    def input_shapes(self) -> Shapes:
        return self.graph.input_shapes(1)

    def captured(self, shapes: Shapes) -> Graph:
        inputs = self.graph.inputs
        if len(shapes) != len(inputs):
            names = ", ".join(v.name for v in inputs)
            raise InputError(f"{self.name} has {len(inputs)} inputs ({names}), not {len(shapes)}")
        for value, shape in zip(inputs, shapes, strict=True):
            if value.type.shape[1:] != shape[1:]:
                raise InputError(
                    f"{self.name} is a graph, whose input {value.name} has one size: {value.type}"
                )
        return self.graph

    def tensors(self) -> Weights:
        return self.graph.payload

    def require_weights(self) -> None:
        shapes, payload = self.state().shapes, self.graph.payload
        given = {name: payload[name] for name in shapes if name in payload}
        match_weights(shapes, given, "the graph's payload", self.name)

    def state(self) -> State:
        return State({n: source.type.concrete(1) for n, source in self.graph.sources().items()})

    def match(self, weights: Weights, origin: str) -> Weights:
        return match_weights(self.state().shapes, weights, origin, self.name)[0]


class Imported:
    """Base of models of other frameworks: imported once for each image size, with one payload for
    all of them, since packed weights of one size serve the others."""

    name: str
    dtypes: Sequence[str] = ("f32",)

    def __init__(self) -> None:
        self.payload: dict[str, Any] = {}
        self._graphs: dict[Shapes, Graph] = {}

    def input_shapes(self) -> Shapes | None:
        return None

    def captured(self, shapes: Shapes) -> Graph:
        size = with_batch(shapes, 1)
        if size not in self._graphs:
            self._keep(size, self._import(size))
            if len(self._graphs) > SIZES_KEPT:
                del self._graphs[next(iter(self._graphs))]
        return self._graphs[size]

    def _keep(self, size: Shapes, graph: Graph) -> None:
        """`size`: of the inputs for one image."""
        self.payload.update(graph.payload)
        graph.payload = self.payload
        self._graphs[size] = graph

    def _import(self, shapes: Shapes) -> Graph:
        raise NotImplementedError

    def require_weights(self) -> None:
        """They come with the model."""


SIZES_KEPT = 8
"""Graphs of image sizes that are kept, since an import takes seconds."""


@kind("a torch.nn.Module or what torch.export.export gives")
class TorchModule(Imported):
    """A module of PyTorch's, or a program exported from one."""

    by_name = True

    def __init__(self, model: Any) -> None:
        from lucid.frontend.torch import module_of

        super().__init__()
        self.module = module_of(model)
        self.name = type(self.module).__name__

    @staticmethod
    def accepts(model: Any) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(
            model, torch.nn.Module | torch.export.ExportedProgram
        )

    def _import(self, shapes: Shapes) -> Graph:
        from lucid.frontend.torch import import_torch

        return import_torch(self.module, only(shapes, self.name))

    @property
    def constants(self) -> Weights:
        return self.payload

    def tensors(self) -> Weights:
        state: Weights = self.module.state_dict()
        return state

    def state(self) -> State:
        from lucid.frontend.torch.weights import state_of

        return state_of(self.module)

    def match(self, weights: Weights, origin: str) -> Weights:
        from lucid.frontend.torch.weights import match_state

        return ChainMap(dict(match_state(self.module, weights, origin)), self.payload)


@kind("the path of an .onnx file or what onnx.load gives")
class OnnxModel(Imported):
    """A model in a file of ONNX's, or in memory."""

    by_name = False

    def __init__(self, model: Any) -> None:
        from lucid.frontend.onnx import input_dtypes

        super().__init__()
        self.model = model
        self.constants: dict[str, Any] = {}
        self._own = self._import_as_it_is()
        self.dtypes = input_dtypes(model) if self._own is None else self._own.input_dtypes()
        path = isinstance(model, str | os.PathLike)
        self.name = Path(model).stem if path else model.graph.name or "model"

    @staticmethod
    def accepts(model: Any) -> bool:
        if isinstance(model, str | os.PathLike):
            return str(model).endswith(".onnx")
        proto = getattr(sys.modules.get("onnx"), "ModelProto", None)
        return proto is not None and isinstance(model, proto)

    def input_shapes(self) -> Shapes | None:
        return None if self._own is None else self._own.input_shapes(1)

    def _import_as_it_is(self) -> Graph | None:
        """The graph of the size that the file says; None where it leaves that open."""
        from lucid.frontend.onnx import import_onnx

        try:
            graph = import_onnx(self.model)
        except InputError:
            return None
        self._keep(with_batch(graph.input_shapes(1), 1), graph)
        return graph

    def _import(self, shapes: Shapes) -> Graph:
        """The sizes of inputs after the first are those that the file states."""
        from lucid.frontend.onnx import import_onnx

        graph = import_onnx(self.model, shapes[0])
        for value, shape in zip(graph.inputs, shapes, strict=False):
            if value.type.concrete(1)[1:] != shape[1:]:
                raise InputError(f"input {value.name} of {self.name} is {value.type}, not {shape}")
        return graph

    def tensors(self) -> Weights:
        return {name: self.payload[name] for name in self.state().shapes}

    def _keep(self, size: Shapes, graph: Graph) -> None:
        """Tables that were computed while the file was read are none of its weights."""
        tables = {n: t for n, t in graph.payload.items() if not isinstance(t, StoredTensor)}
        self.constants.update(tables)
        super()._keep(size, graph)

    def state(self) -> State:
        return State({n: t.shape for n, t in self.payload.items() if n not in self.constants})

    def match(self, weights: Weights, origin: str) -> Weights:
        found, _ = match_weights(self.state().shapes, weights, origin, self.name)
        return ChainMap(found, self.constants)
