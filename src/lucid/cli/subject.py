"""Resolves MODEL on the command line: a registered name, the user's callable, IR text, an ONNX
file, a compiled model, or a network of timm or torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lucid.cli import foreign
from lucid.cli.model import Subject, first_layer, size_of, spec_for, user_code
from lucid.cli.saved import from_artifact
from lucid.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from lucid.ir.graph import Graph
    from lucid.ir.types import Shapes
    from lucid.nn import Module
    from lucid.vision import Preprocess

WEIGHT_FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".npz")
"""How the names of files end that hold tensors, and not what is computed with them."""


def load_subject(spec: str, weights: Path | None = None) -> Subject:
    """The model that `spec` names, with weights from a file where one is given.

    Raises UnknownNameError, InputError, ParseError, WeightsError, ModelFileError,
    MissingPackageError.
    """
    if spec.lower().endswith(".lucid"):
        return from_artifact(spec, weights)
    if spec == "-" or spec.endswith(".lir"):
        return _from_text(spec, weights)
    if spec.lower().endswith(".onnx"):
        return foreign.from_onnx(spec, weights)
    if spec.lower().endswith(WEIGHT_FILES):
        raise InputError(
            f"{spec} holds weights, not a model: `lucid run MODEL ... --weights {spec}`, where "
            "MODEL is the network that they are for (`lucid models`, torchvision:NAME, timm:NAME, "
            "file.py:callable)"
        )
    if spec.startswith("timm:"):
        return foreign.from_timm(spec, weights)
    if spec.startswith("torchvision:"):
        return foreign.from_torchvision(spec, weights)
    if ":" in spec:
        return _from_callable(spec, weights)
    return _registered(spec, weights)


def _registered(name: str, weights: Path | None) -> Subject:
    from lucid.models import create_model, model_info

    if name.endswith(".py"):
        raise InputError(f"{name}: write {name}:NAME, with the callable in it that makes the model")
    info = model_info(name)
    model = create_model(name, weights=str(weights)) if weights else create_model(name)
    trained = weights is not None or info.weights is not None
    return Subject(name, model, info.preprocess, trained, info.labels, (info.input_shape,))


def _from_callable(spec: str, weights: Path | None) -> Subject:
    """`package.module:callable` or `file.py:callable`; a model instead of a callable will do."""
    from lucid.ir.graph import Graph
    from lucid.nn import Module
    from lucid.vision import Preprocess

    place, _, attribute = spec.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, attribute, None)
    if found is None:
        names = ", ".join(n for n, v in vars(module).items() if callable(v) and n[0] != "_")
        raise UnknownNameError(f"{place} has no {attribute!r}; it has {names or 'no callables'}")
    model = found
    if (
        not isinstance(found, Module | Graph)
        and not foreign.is_torch_module(found)
        and callable(found)
    ):
        model = user_code(f"{spec}()", found)
    if foreign.is_torch_module(model):
        subject = foreign.from_torch(spec, model, weights, Preprocess.find(model))
        subject.trained = True
        return subject
    if not isinstance(model, Module | Graph):
        raise InputError(
            f"{spec} returns {type(model).__name__}, which is neither a module of lucid.nn or "
            "torch.nn nor a graph"
        )
    if weights and isinstance(model, Module):
        model.load_weights(weights)
    elif weights and isinstance(model, Graph):
        model = _with_weights(model, weights)
    shapes = _shapes_of(model)
    return Subject(spec, model, _spec(model, shapes), True, own_shapes=shapes)


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
    user_code(str(path), lambda: loader.exec_module(module))
    return module


def _import_module(name: str) -> ModuleType:
    from lucid.models.registry import suggestion

    sys.path.insert(0, "")  # as `python -m` has it: the folder the user stands in
    top = name.partition(".")[0]
    if top not in sys.modules and not importlib.util.find_spec(top):
        raise UnknownNameError(
            f"there is no module {top!r} to import{suggestion(top, ('torchvision', 'timm'))}"
        )
    module: ModuleType = user_code(f"import {name}", lambda: importlib.import_module(name))
    return module


def _from_text(spec: str, weights: Path | None) -> Subject:
    """A graph from IR text. Its text holds no weights: they come from a file, or are generated."""
    from lucid.ir.samples import sample_payload

    graph = parse_text(spec)
    if weights:
        graph = _with_weights(graph, weights)
    else:
        graph.payload = sample_payload(graph)
    name = graph.name if spec == "-" else spec
    shapes, (dtype, *_) = _shapes_of(graph), (*graph.input_dtypes(), "f32")
    return Subject(name, graph, _spec(graph, shapes), weights is not None, None, shapes, dtype)


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
    from lucid.model_source import ModelSource

    graph.payload = ModelSource(graph, ()).match(weights)
    return graph


def _shapes_of(model: Module | Graph) -> Shapes:
    """The shapes of the inputs of a model nobody registered, for one image."""
    from lucid.ir.graph import Graph

    if isinstance(model, Graph):
        return model.input_shapes(1)
    first = first_layer(model)
    features, channels = size_of(first, "in_features"), size_of(first, "in_channels")
    if features:
        return ((1, features),)
    cut = model.preprocess.cut if model.preprocess else None
    return ((1, channels or 3, *(cut or (224, 224))),)


def _spec(model: Module | Graph, shapes: Shapes) -> Preprocess:
    from lucid.vision import Preprocess

    return Preprocess.find(model) or spec_for(shapes[0] if shapes else ())
