"""What MODEL on the command line means: a registered name, the user's callable, or IR text."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer

from lucid.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from lucid.compiler import ModelSource
    from lucid.ir.graph import Graph
    from lucid.nn import Module
    from lucid.vision import Preprocess


@dataclass
class Subject:
    """A model, with what an image must go through to suit it, and the names of its classes where
    they are known. `trained`: whether its weights come from somewhere, so that its answers mean
    something."""

    name: str
    model: Module | Graph
    preprocess: Preprocess
    trained: bool
    labels: tuple[str, ...] | None = None

    def source(self, disable: list[str] | None = None) -> ModelSource:
        """The model's graphs at every stage."""
        from lucid.compiler import CompileOptions, ModelSource

        return ModelSource(self.model, CompileOptions(disable=disable or ()).disabled())

    def shape(self, batch: int = 1, size: str | None = None) -> tuple[int, ...]:
        """The input shape for a batch, and for a size such as `224`, `65x80` or `1x32x32`."""
        own = self._own_shape(batch)
        if size is None:
            return own
        numbers = parse_size(size)
        wanted = (numbers * 2 if len(numbers) == 1 else numbers)[-3:]
        if len(own) == 2:
            raise InputError(f"{self.name} takes vectors f32[N,{own[1]}]: --size does not apply")
        return (*own[: len(own) - len(wanted)], *wanted)

    def _own_shape(self, batch: int) -> tuple[int, ...]:
        from lucid.ir.graph import Graph
        from lucid.nn import Linear

        if isinstance(self.model, Graph):
            return self.model.inputs[0].type.concrete(batch)
        first = first_layer(self.model)
        if isinstance(first, Linear):
            return (batch, first.in_features)
        return (batch, self.preprocess.channels, *(self.preprocess.cut or (224, 224)))


def parse_size(text: str) -> tuple[int, ...]:
    """`224` -> (224,), `65x80` -> (65, 80), `1x32x32` -> (1, 32, 32). A usage error otherwise."""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(p.isdecimal() and int(p) for p in parts):
        raise typer.BadParameter(
            f"{text!r} is no size; write 224, 65x80 (height x width) or 1x32x32 (with channels)"
        )
    return tuple(map(int, parts))


def load_subject(spec: str, weights: Path | None = None) -> Subject:
    """The model that `spec` names, with weights from a file where one is given.

    Raises UnknownNameError, InputError, ParseError, WeightsError.
    """
    if spec == "-" or spec.endswith(".lir"):
        return _from_text(spec, weights)
    if ":" in spec:
        return _from_callable(spec, weights)
    return _registered(spec, weights)


def _registered(name: str, weights: Path | None) -> Subject:
    from lucid.models import create_model, model_info

    info = model_info(name)
    model = create_model(name, weights=weights) if weights else create_model(name)
    trained = weights is not None or info.weights is not None
    return Subject(name, model, info.preprocess, trained, info.labels)


def _from_callable(spec: str, weights: Path | None) -> Subject:
    """`package.module:callable` or `file.py:callable`; a Module instead of a callable will do."""
    from lucid.ir.graph import Graph
    from lucid.nn import Module

    place, _, attribute = spec.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, attribute, None)
    if found is None:
        names = ", ".join(n for n, v in vars(module).items() if callable(v) and n[0] != "_")
        raise UnknownNameError(f"{place} has no {attribute!r}; it has {names or 'no callables'}")
    model = found
    if not isinstance(found, Module | Graph) and callable(found):
        model = _user_code(f"{spec}()", found)
    if not isinstance(model, Module | Graph):
        raise InputError(
            f"{spec} gives a {type(model).__name__}; wanted is a lucid.nn.Module, or a graph"
        )
    if weights and isinstance(model, Module):
        model.load_weights(weights)
    elif weights and isinstance(model, Graph):
        model = _with_weights(model, weights)
    return Subject(spec, model, _unregistered(model), True)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "the name ends in .py"
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    _user_code(str(path), lambda: loader.exec_module(module))
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, "")  # as `python -m` has it: the folder the user stands in
    module: ModuleType = _user_code(f"import {name}", lambda: importlib.import_module(name))
    return module


def _user_code(what: str, call: Any) -> Any:
    """Run the user's own code. Raises InputError for whatever it raises."""
    from lucid.errors import LucidError

    try:
        return call()
    except LucidError:
        raise
    except Exception as error:
        raise InputError(
            f"{what} failed: {type(error).__name__}: {error} (LUCID_DEBUG=1 shows where)"
        ) from error


def _from_text(spec: str, weights: Path | None) -> Subject:
    """A graph from IR text. Its text holds no weights: they come from a file, or are generated."""
    from lucid.ir.samples import sample_payload

    graph = parse_text(spec)
    if weights:
        graph = _with_weights(graph, weights)
    else:
        graph.payload = sample_payload(graph)
    name = graph.name if spec == "-" else spec
    return Subject(name, graph, _unregistered(graph), weights is not None)


def parse_text(path: str) -> Graph:
    """The graph in a file, or on stdin for `-`, checked. Raises InputError, ParseError,
    VerifyError."""
    from lucid.ir.text import parse_graph
    from lucid.ir.verify import verify

    if path != "-" and not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text ({error.reason})") from error
    graph = parse_graph(text)
    verify(graph, f"in {path}")
    return graph


def _with_weights(graph: Graph, weights: Path) -> Graph:
    from lucid.compiler import ModelSource

    graph.payload = ModelSource(graph, ()).match(weights)
    return graph


def first_layer(model: Module) -> Module | None:
    """The first convolution or linear layer of a model, which says what its input looks like."""
    from lucid.nn import Conv2d, Linear

    return next((m for m in model.modules() if isinstance(m, Conv2d | Linear)), None)


def _unregistered(model: Module | Graph) -> Preprocess:
    """Preprocessing for a model nobody registered: ImageNet's for colour, plain grey levels."""
    from lucid.ir.graph import Graph
    from lucid.nn import Conv2d
    from lucid.vision import IMAGENET, Preprocess

    channels, size = 3, (224, 224)
    if isinstance(model, Graph):
        shape = model.inputs[0].type.concrete(1)
        if len(shape) == 4:
            channels, size = shape[1], shape[2:]
    elif isinstance(first := first_layer(model), Conv2d):
        channels = first.in_channels
    if channels == 3:
        return IMAGENET.at(*size)
    return Preprocess(size, order="grey", mean=0, std=1)
