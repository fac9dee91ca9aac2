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
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from lucid.errors import InputError, ShapeError, TraceError, kind_of
from lucid.frontend.trace import trace
from lucid.frontend.weights import match_weights, without_tables
from lucid.ir.arguments import in_order, takes
from lucid.ir.batch import misfit
from lucid.ir.graph import Graph, State
from lucid.ir.stage import CompileStage, Rest
from lucid.ir.structure import Structure
from lucid.ir.types import BATCH, Shapes, batch_of, f32, is_float
from lucid.nn.module import Module
from lucid.onnx.tensors import StoredTensor

if TYPE_CHECKING:
    from lucid.onnx.continuation import Runner
    from lucid.onnx.stages import Stage

Weights = Mapping[str, Any]


class Model(Protocol):
    """A model as the compiler needs it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def dtypes(self) -> Sequence[str] | None:
        """Of its inputs, in order, in the graph's terms; None where nothing is known of its inputs
        before `examples` has seen some. What is told once stays."""

    @property
    def input_names(self) -> Sequence[str] | None:
        """Of its inputs, in order, by which calls and `shapes` give them: those of its graphs. None
        where they are known only once there is a graph."""

    def input_shapes(self) -> Shapes | None:
        """The shapes of its inputs for a batch of 1, where it takes just one size."""

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        """The shapes of the inputs that these arrays or tensors are, by position and by name, as
        in a call of the model: all of its inputs, in order. A model that has any signature takes
        shapes and dtypes for its own; `dtypes` and `input_names` are known from then on. Raises
        InputError where the model takes no such inputs."""

    def captured(self, shapes: Shapes) -> Graph:
        """Its graph for inputs of exactly these shapes (the batch, where there is one, may be 0).

        A dimension of an input is an int, or a multiple of the batch N. A graph serves all shapes
        that the types of its inputs allow (`lucid.ir.batch.batch_of`), and is asked for once for
        all of them. Raises InputError where they do not fit, TraceError and UnsupportedError where
        there is no such graph."""

    @property
    def structure(self) -> Structure | None:
        """How the flat outputs of its graphs (of `Rest.finish`, where there is one) are put
        together for the caller; None: one as it is, several as a tuple. Asked for after
        `captured`."""

    def rest(self, shapes: Shapes, compile_stage: CompileStage) -> Rest | None:
        """What is to be done with the results of the graph for inputs of exactly these shapes; None
        where they are the outputs. Asked for after `captured`; a plan keeps its own."""

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


class Plain:
    """Base of models of a signature that needs no examples, whose graphs compute all of their
    outputs. `ModelSource` takes those as they are."""

    name: str
    dtypes: Sequence[str] | None
    input_names: Sequence[str] | None = None
    structure: Structure | None = None

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        count, names = len(self.dtypes or ()), self.input_names
        who = takes(self.name, count, names)
        if names is None and named:
            raise InputError(f"{who}, whose names are not known yet: give examples by position")
        positions = names or [str(i) for i in range(count)]
        return tuple(map(example_shape, in_order(who, positions, inputs, named)))

    def rest(self, shapes: Shapes, compile_stage: CompileStage) -> Rest | None:
        return None


def example_shape(example: Any) -> tuple[int, ...]:
    """The shape of an array or tensor. Raises InputError for what has none."""
    if isinstance(example, int | float):
        return ()
    if not isinstance(getattr(example, "shape", None), tuple):
        raise InputError(f"an example of an input is an array or tensor, not {kind_of(example)}")
    return tuple(int(d) for d in example.shape)


def only(shapes: Shapes, model: str) -> tuple[int, ...]:
    """The shape of a model's one input. Raises InputError where there are several."""
    if len(shapes) != 1:
        raise InputError(f"{model} takes one input, not {len(shapes)}")
    return shapes[0]


@kind("a lucid.nn.Module")
class TracedModule(Plain):
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
class GivenGraph(Plain):
    """A graph, which has just one size but for its batch."""

    by_name = False

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.name = graph.name
        self.dtypes = graph.input_dtypes()
        self.input_names = [value.name for value in graph.inputs]

    @staticmethod
    def accepts(model: Any) -> bool:
        return isinstance(model, Graph)

    def input_shapes(self) -> Shapes:
        return self.graph.input_shapes(1)

    def captured(self, shapes: Shapes) -> Graph:
        inputs = self.graph.inputs
        if len(shapes) != len(inputs):
            names = ", ".join(v.name for v in inputs)
            raise InputError(f"{self.name} has {len(inputs)} inputs ({names}), not {len(shapes)}")
        for value, shape in zip(inputs, shapes, strict=True):
            if batch_of([value.type], (shape,)) is None:
                raise InputError(
                    f"{self.name} is a graph, whose input {value.name} has one size: {value.type}"
                )
        if batch_of(self.graph.input_types(), shapes) is None:
            raise InputError(misfit(self.graph, shapes))
        return self.graph

    @property
    def constants(self) -> Weights:
        return self.state().tables

    def tensors(self) -> Weights:
        return self.graph.payload

    def require_weights(self) -> None:
        shapes, payload = self.state().shapes, self.graph.payload
        given = {name: payload[name] for name in shapes if name in payload}
        match_weights(shapes, given, "the graph's payload", self.name)

    def state(self) -> State:
        shapes: dict[str, tuple[int, ...]] = {}
        tables: dict[str, Any] = {}
        for name, source in self.graph.sources().items():
            if is_float(source.type.dtype):
                shapes[name] = source.type.concrete(1)
            elif name in self.graph.payload:
                tables[name] = self.graph.payload[name]
        return State(shapes, tables)

    def match(self, weights: Weights, origin: str) -> Weights:
        state = self.state()
        found = without_tables(weights, state.tables, origin, self.name)
        return {**state.tables, **match_weights(state.shapes, found, origin, self.name)[0]}


class Imported(Plain):
    """Base of models of other frameworks: imported once for all the shapes that one graph serves,
    with one payload for all graphs, since packed weights of one size serve the others."""

    dtypes: Sequence[str] | None = ("f32",)

    def __init__(self) -> None:
        self.payload: dict[str, Any] = {}
        self._graphs: list[Graph] = []

    def input_shapes(self) -> Shapes | None:
        return None

    def captured(self, shapes: Shapes) -> Graph:
        for graph in self._graphs:
            if batch_of(graph.input_types(), shapes) is not None:
                return graph
        graph = self._import(shapes)
        self._keep(graph)
        return graph

    def _keep(self, graph: Graph) -> None:
        self.payload.update(graph.payload)
        graph.payload = self.payload
        self._graphs = [*self._graphs, graph][-SIZES_KEPT:]

    def _import(self, shapes: Shapes) -> Graph:
        """The graph for inputs of these shapes, as `Model.captured` has it."""
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
        self._calling: Any = None
        self._unfinished: list[Any] = []

    @staticmethod
    def accepts(model: Any) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(
            model, torch.nn.Module | torch.export.ExportedProgram
        )

    @property
    def dtypes(self) -> Sequence[str] | None:  # type: ignore[override]
        """Those of the examples, or f32 for all."""
        return None if self._calling is None else [i.dtype for i in self._calling.inputs]

    @property
    def input_names(self) -> Sequence[str] | None:  # type: ignore[override]
        """Those of the forward's parameters; of what these hold, with its place in them."""
        return None if self._calling is None else [i.name for i in self._calling.inputs]

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        """Arguments of the forward, with tensors or arrays in lists, tuples and dicts; numbers and
        strings among them are constants of the graph."""
        from lucid.frontend.torch.calling import Calling

        calling, shapes = Calling.of_examples(self.module, inputs, named)
        self._calling = self._calling or calling
        return shapes

    def _import(self, shapes: Shapes) -> Graph:
        from lucid.frontend.torch.calling import Calling
        from lucid.frontend.torch.importer import imported

        if self._calling is None:
            self._calling = Calling.of_shapes(self.module, len(shapes))
        if len(self._calling.inputs) != len(shapes):
            who = takes(self.name, len(self._calling.inputs), self.input_names)
            raise InputError(f"{who}, not {len(shapes)}")
        try:
            made = imported(self.module, self._calling, shapes)
        except Exception:
            if not self._graphs:  # another example may do better
                self._calling = None
            raise
        if self._graphs and self.structure not in (None, made.structure):
            raise TraceError(
                f"the forward of {self.name} returns numbers, or parts, that depend on the sizes of"
                " its inputs, so that one compiled model cannot put its results together: let it"
                " return tensors alone, or compile a model for each size"
            )
        self.structure = made.structure
        if made.later:
            self._unfinished = [*self._unfinished, made][-SIZES_KEPT:]
        return made.graph

    def rest(self, shapes: Shapes, compile_stage: CompileStage) -> Rest | None:
        from lucid.frontend.torch.later import Following

        for made in self._unfinished:
            if batch_of(made.graph.input_types(), shapes) is not None:
                return Following(made, lambda graph: compile_stage(GivenGraph(graph)))
        return None

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
        from lucid.frontend.onnx import OnnxFile

        super().__init__()
        self.file = OnnxFile(model)
        self.name = self.file.name
        self.dtypes = [spec.dtype for spec in self.file.inputs]
        self.input_names = [spec.name for spec in self.file.inputs]
        self.constants: dict[str, Any] = {}
        self._stages: list[Stage] = []
        self._runner: Runner | None = None
        self._own = self._import_as_it_is()

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
        try:
            stage = self.file.stage()
        except InputError:
            return None
        self._keep(self._graph_of(stage))
        return stage.graph

    def _import(self, shapes: Shapes) -> Graph:
        return self._graph_of(self.file.stage(shapes))

    def _graph_of(self, stage: Stage) -> Graph:
        self._stages = [*self._stages, stage][-SIZES_KEPT:]
        return stage.graph

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        specs = self.file.inputs
        names = [spec.name for spec in specs]
        given = in_order(takes(self.name, len(names), names), names, inputs, named)
        return tuple(
            example_shape(x) for x, spec in zip(given, specs, strict=True) if spec.is_tensor
        )

    @property
    def hosted(self) -> Mapping[str, str]:
        """The operators that have run in NumPy behind its graphs so far, and why."""
        return {} if self._runner is None else self._runner.hosted

    @property
    def interpreted(self) -> bool:
        """Whether a graph behind sizes that its data tell has been interpreted so far."""
        return self._runner is not None and self._runner.interpreted

    def rest(self, shapes: Shapes, compile_stage: CompileStage) -> Rest | None:
        """Later stages are kept for all sizes together."""
        from lucid.frontend.onnx_rest import OnnxRest, compiler
        from lucid.onnx.continuation import Runner

        graph = self.captured(shapes)
        stage = next(stage for stage in self._stages if stage.graph is graph)
        if stage.is_whole:
            return None
        if self._runner is None:
            self._runner = Runner(compiler(compile_stage, GivenGraph), self.file.files)
        return OnnxRest(self.file, stage, self._runner)

    def tensors(self) -> Weights:
        return {name: self.payload[name] for name in self.state().shapes}

    def _keep(self, graph: Graph) -> None:
        """Tables that were computed while the file was read are none of its weights, nor are
        integers."""
        tables = {
            name: tensor
            for name, tensor in graph.payload.items()
            if not isinstance(tensor, StoredTensor) or not tensor.is_floating
        }
        self.constants.update(tables)
        super()._keep(graph)

    def state(self) -> State:
        floats = {n: t.shape for n, t in self.payload.items() if n not in self.constants}
        stored: dict[str, Any] = {
            name: tensor
            for name, tensor in self.constants.items()
            if isinstance(tensor, StoredTensor)
        }
        return State(floats, stored)

    def match(self, weights: Weights, origin: str) -> Weights:
        state = self.state()
        weights = without_tables(weights, state.tables, origin, self.name)
        found, _ = match_weights(state.shapes, weights, origin, self.name)
        return ChainMap(found, self.constants)
