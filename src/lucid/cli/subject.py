"""What MODEL on the command line means: a registered name, the user's callable, IR text, an ONNX
file, a compiled model, or a network of timm or torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer

from lucid.cli.app import warn
from lucid.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from lucid.cli.output import Report
    from lucid.compiler import CompiledModel, ModelSource
    from lucid.ir.graph import Graph
    from lucid.nn import Module
    from lucid.vision import Preprocess

DOWNLOADED = ("timm:", "torchvision:")
"""How the names of models begin whose packages download trained weights."""


@dataclass
class Subject:
    """A model, with what an image must go through to suit it, and the names of its classes where
    they are known.

    `model`: what `lucid.compile` takes. `trained`: whether its weights come from somewhere, so that
    its answers mean something. `own_shape`: of one input of the size it is made for, and `dtype`
    that of its numbers. `saved`: whether it is compiled already. `weights`: a file whose tensors
    are to take the place of the model's own.
    """

    name: str
    model: Any
    preprocess: Preprocess
    trained: bool
    labels: tuple[str, ...] | None = None
    own_shape: tuple[int, ...] = (1, 3, 224, 224)
    dtype: str = "f32"
    saved: bool = False
    weights: Path | None = None
    _sources: dict[tuple[str, ...], ModelSource] = field(default_factory=dict)

    def source(self, disable: list[str] | None = None) -> ModelSource:
        """The model's graphs at every stage."""
        from lucid.compiler import CompileOptions, ModelSource

        disabled = tuple(CompileOptions(disable=disable or ()).disabled())
        if disabled not in self._sources:
            self._sources[disabled] = ModelSource(self.model, disabled, weights=self.weights)
        return self._sources[disabled]

    def compiled(
        self,
        shape: tuple[int, ...],
        threads: int | None,
        precision: str,
        report: Report,
        target: str = "host",
    ) -> CompiledModel:
        """The model compiled for a shape; as it was saved, unless more precision is asked for."""
        import lucid

        if self.saved and precision == "fast":
            name = None if target == "host" else target
            loaded = lucid.load(self.model, threads, target=name, progress=report)
            loaded.prepare(shape)
            return self.weighted(loaded)
        options = lucid.CompileOptions(target=target)
        compiled = lucid.compile(
            self.model,
            shape,
            threads=threads,
            precision=precision,
            options=options,
            progress=report,
        )
        return self.weighted(compiled)

    def weighted(self, compiled: CompiledModel) -> CompiledModel:
        """The compiled model, with the weights of a file where one is given. Raises
        WeightsError."""
        return compiled if self.weights is None else compiled.load_weights(self.weights)

    def warn_if_random(self, meant: bool, consequence: str) -> None:
        """Warn that the weights are random, unless the user has said so (--random-weights)."""
        if self.trained or meant:
            return
        kinds = "a file, or `pretrained`" if self.name.startswith(DOWNLOADED) else "a file"
        warn(
            f"{self.name} has random weights, so {consequence}; give --weights ({kinds}), or "
            "--random-weights if that is what you want"
        )

    @property
    def layout(self) -> str:
        """How images lie in its input: `nchw`, `nhwc` or, where it takes none, an empty string."""
        return image_layout(self.own_shape)

    def shape(self, batch: int = 1, size: str | None = None) -> tuple[int, ...]:
        """The input shape for a batch, and for a size such as `224`, `65x80` or `1x32x32`."""
        own = (batch, *self.own_shape[1:])
        if size is None:
            return own
        numbers = parse_size(size)
        wanted = (numbers * 2 if len(numbers) == 1 else numbers)[-3:]
        if len(own) == 2:
            raise InputError(f"{self.name} takes vectors f32[N,{own[1]}]: --size does not apply")
        return (*own[: len(own) - len(wanted)], *wanted)


def parse_size(text: str) -> tuple[int, ...]:
    """`224` -> (224,), `65x80` -> (65, 80), `1x32x32` -> (1, 32, 32). A usage error otherwise."""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(p.isdecimal() and int(p) for p in parts):
        raise typer.BadParameter(
            f"{text!r} is no size; write 224, 65x80 (height x width) or 1x32x32 (with channels)"
        )
    return tuple(map(int, parts))


WEIGHT_FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".npz")
"""How the names of files end that hold tensors, and not what is computed with them."""


def load_subject(spec: str, weights: Path | None = None) -> Subject:
    """The model that `spec` names, with weights from a file where one is given.

    Raises UnknownNameError, InputError, ParseError, WeightsError, ModelFileError,
    MissingPackageError.
    """
    from lucid.cli import foreign
    from lucid.cli.saved import from_artifact

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

    info = model_info(name)
    model = create_model(name, weights=str(weights)) if weights else create_model(name)
    trained = weights is not None or info.weights is not None
    return Subject(name, model, info.preprocess, trained, info.labels, info.input_shape)


def _from_callable(spec: str, weights: Path | None) -> Subject:
    """`package.module:callable` or `file.py:callable`; a model instead of a callable will do."""
    from lucid.cli.foreign import from_torch, is_torch_module
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
    if not isinstance(found, Module | Graph) and not is_torch_module(found) and callable(found):
        model = user_code(f"{spec}()", found)
    if is_torch_module(model):
        subject = from_torch(spec, model, weights, Preprocess.find(model))
        subject.trained = True
        return subject
    if not isinstance(model, Module | Graph):
        raise InputError(
            f"{spec} gives a {type(model).__name__}; wanted is a module of lucid.nn or "
            "torch.nn, or a graph"
        )
    if weights and isinstance(model, Module):
        model.load_weights(weights)
    elif weights and isinstance(model, Graph):
        model = _with_weights(model, weights)
    shape = _shape_of(model)
    return Subject(spec, model, _spec(model, shape), True, own_shape=shape)


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


def user_code(what: str, call: Any) -> Any:
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
    shape = _shape_of(graph)
    dtype = graph.inputs[0].type.dtype if graph.inputs else "f32"
    return Subject(name, graph, spec_for(shape), weights is not None, None, shape, dtype)


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


def first_layer(model: Any) -> Any:
    """The first convolution or linear layer of a model, of Lucid's or of torch's, which says what
    its input looks like; None where there is none."""
    layers: Iterator[Any] = iter(model.modules())
    return next((m for m in layers if _size(m, "in_channels") or _size(m, "in_features")), None)


def _size(layer: Any, name: str) -> int:
    value = getattr(layer, name, 0)
    return value if isinstance(value, int) else 0


def _shape_of(model: Module | Graph) -> tuple[int, ...]:
    """The shape of one input of a model nobody registered."""
    from lucid.ir.graph import Graph

    if isinstance(model, Graph):
        return model.inputs[0].type.concrete(1) if model.inputs else ()
    first = first_layer(model)
    features, channels = _size(first, "in_features"), _size(first, "in_channels")
    if features:
        return (1, features)
    cut = model.preprocess.cut if model.preprocess else None
    return (1, channels or 3, *(cut or (224, 224)))


def _spec(model: Module | Graph, shape: tuple[int, ...]) -> Preprocess:
    from lucid.vision import Preprocess

    return Preprocess.find(model) or spec_for(shape)


def image_layout(shape: tuple[int, ...]) -> str:
    """`nchw` or `nhwc` where inputs are images of one channel or of three, else an empty string."""
    if len(shape) != 4:
        return ""
    return "nchw" if shape[1] in (1, 3) else "nhwc" if shape[3] in (1, 3) else ""


def spec_for(shape: tuple[int, ...]) -> Preprocess:
    """Preprocessing for a model that says nothing: ImageNet's for colour, plain grey levels."""
    from lucid.vision import IMAGENET, Preprocess

    layout = image_layout(shape)
    if not layout:
        return IMAGENET
    size = shape[2:] if layout == "nchw" else shape[1:3]
    if shape[layout.index("c")] == 1:
        return Preprocess((size[0], size[1]), order="grey", mean=0, std=1)
    return IMAGENET.at(*size)
