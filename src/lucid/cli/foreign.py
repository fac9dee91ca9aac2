"""Foreign models on the command line: ONNX files, modules of torch, timm and torchvision."""

from __future__ import annotations

import ast
import importlib
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucid.cli.model import Subject, first_layer, spec_for, user_code
from lucid.cli.saved import from_properties, preprocess_of
from lucid.errors import InputError, MissingPackageError, UnknownNameError

if TYPE_CHECKING:
    import onnx

    from lucid.vision import Preprocess

SIZE = 224
"""Height and width where nobody says any."""
UINT8 = 2
"""What ONNX files call uint8."""
PRETRAINED = Path("pretrained")
"""What --weights is given to ask timm or torchvision for their own."""


# -- ONNX -----------------------------------------------------------------------------------


def from_onnx(spec: str, weights: Path | None) -> Subject:
    """The model in a file. Its sizes that are open are those of an image of 224 x 224."""
    from lucid.frontend.onnx import open_model

    _, proto, _ = open_model(spec)
    shape, dtype = _input(proto)
    told = {entry.key: entry.value for entry in proto.metadata_props}
    subject = Subject(
        spec,
        spec,
        preprocess_of(from_properties(told, "preprocess")) or spec_for(shape),
        weights is not None or from_properties(told, "trained") is not False,
        _labels(proto),
        (shape,),
        dtype,
        weights=weights,
    )
    if len(proto.graph.input) > 1:  # which tell the sizes of one another
        subject.own_shapes = subject.source().captured((shape,)).input_shapes(1)
    return subject


def _input(proto: onnx.ModelProto) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of one input: (1, 3, 224, 224) where the file leaves that open."""
    known = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        if value.name not in known and tensor.HasField("shape"):
            stated = [d.dim_value for d in tensor.shape.dim]
            last = stated[3:] in ([1], [3]) and stated[1] not in (1, 3)
            likely = [1, SIZE, SIZE, 3] if last else [1, 3, SIZE, SIZE]
            likely = likely if len(stated) == 4 else [1] * len(stated)
            shape = tuple(s or d for s, d in zip(stated, likely, strict=True))
            return shape, "u8" if tensor.elem_type == UINT8 else "f32"
    return (1, 3, SIZE, SIZE), "f32"


def _labels(proto: onnx.ModelProto) -> tuple[str, ...] | None:
    """The names of the classes, where the file's metadata has a list or a numbered mapping."""
    for entry in proto.metadata_props:
        if entry.key in ("names", "labels", "classes", "class_names"):
            try:
                names = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                continue
            if isinstance(names, dict) and sorted(names) == list(range(len(names))):
                names = [names[i] for i in range(len(names))]
            if isinstance(names, list | tuple):
                return tuple(map(str, names))
    return None


# -- timm and torchvision ---------------------------------------------------------------------


def from_timm(spec: str, weights: Path | None) -> Subject:
    """`timm:NAME`, with generated weights unless some are given or asked for."""
    timm = _package("timm")
    name = _known(spec, timm.list_models(), timm.is_model)
    model = _made(spec, lambda: timm.create_model(name, pretrained=weights == PRETRAINED))
    return from_torch(spec, model, weights, _said(model))


def from_torchvision(spec: str, weights: Path | None) -> Subject:
    """`torchvision:NAME`, with generated weights unless some are given or asked for."""
    models = _package("torchvision.models")
    name = _known(spec, models.list_models(), models.list_models().__contains__)
    entry = models.get_model_weights(name).DEFAULT
    pretrained = weights == PRETRAINED
    options: dict[str, Any] = {"weights": entry if pretrained else None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    model = _made(spec, lambda: models.get_model(name, **options))
    subject = from_torch(spec, model, weights, _said(entry))
    if pretrained:
        subject.labels = tuple(entry.meta.get("categories", ())) or None
    return subject


def from_torch(
    spec: str, model: Any, weights: Path | None, said: Preprocess | None = None
) -> Subject:
    """A torch module, with the weights of a file where one is given."""
    if weights is not None and weights != PRETRAINED:
        _load(model, weights)
    first = first_layer(model)
    channels = getattr(first, "in_channels", 3)
    size = (said.cut if said else None) or (SIZE, SIZE)
    features = getattr(first, "in_features", None)
    shape = (1, features) if features else (1, channels, *size)
    preprocess = said if said is not None and said.channels == channels else spec_for(shape)
    return Subject(spec, model, preprocess, trained=weights is not None, own_shapes=(shape,))


def is_torch_module(value: Any) -> bool:
    """Whether this is a torch.nn.Module; torch is not imported to find out."""
    return any(
        c.__module__.partition(".")[0] == "torch" and c.__name__ == "Module"
        for c in type(value).__mro__
    )


def _package(name: str) -> Any:
    """A package of networks. Raises MissingPackageError where it is not installed, or does not fit
    the torch that is."""
    top = name.partition(".")[0]
    install = f"`pip install torch {top}`"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        needed = f"{top}:NAME needs the packages torch and {top}"
        raise MissingPackageError(f"{needed}: {install}") from error
    except Exception as error:  # its extensions were built for another torch
        raise MissingPackageError(
            f"{top}:NAME needs the package {top}, which fails to import ({_short(error)}): its "
            f"version may not fit that of torch; {install} in an environment of its own brings two "
            "that fit"
        ) from error


def _short(error: Exception) -> str:
    """The kind of an error and its first line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _known(spec: str, names: list[str], is_known: Callable[[str], bool]) -> str:
    """The name in a spec. Raises UnknownNameError, with the closest of those there are."""
    from lucid.models.registry import suggestion

    package, _, name = spec.partition(":")
    if not is_known(name):
        raise UnknownNameError(f"{package} has no model {name!r}{suggestion(name, names)}")
    return name


def _made(spec: str, make: Callable[[], Any]) -> Any:
    """The model, with weights that are the same each time where they are generated."""
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how weights are generated, which is all the same
        return user_code(spec, make)


def _said(source: Any) -> Preprocess | None:
    """What a model or a weight entry says of its images; None where that cannot be followed."""
    from lucid.vision import Preprocess

    try:
        return Preprocess.find(source)
    except InputError:
        return None


def _load(model: Any, weights: Path) -> None:
    """Fill a torch module with a file's tensors. Raises WeightsError."""
    import numpy as np
    import torch

    from lucid.frontend.weights import load_weights, match_weights

    own = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    name = type(model).__name__
    matched, _ = match_weights(shapes, load_weights(weights), str(weights), name)
    with torch.no_grad():
        for key, values in matched.items():
            own[key].copy_(torch.from_numpy(np.array(values)))
