"""The registry of models: factories by name, with their preprocessing.

Decorating a factory registers it:

    @register_model(size=256)
    def resnest_101(**overrides): ...
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lucid.errors import UnknownNameError, WeightsError
from lucid.nn import Module
from lucid.vision.spec import IMAGENET, Preprocess

M = TypeVar("M", bound=Module)

DATA = Path(__file__).parent / "data"
PRETRAINED = "pretrained"


@dataclass(frozen=True)
class ModelInfo:
    """A registered model: its factory, and what an image goes through to suit it."""

    name: str
    description: str
    factory: Callable[..., Module]
    preprocess: Preprocess = IMAGENET
    labels: tuple[str, ...] | None = None
    weights: Path | None = None

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """One image of the native size: (1, C, H, W)."""
        height, width = self.preprocess.cut or (224, 224)
        return (1, self.preprocess.channels, height, width)

    def label(self, index: int) -> str:
        """The name of a class, or its number where no names are known."""
        if self.labels is not None and index < len(self.labels):
            return self.labels[index]
        return f"class {index}"


_models: dict[str, ModelInfo] = {}


def register_model(
    *, weights: str | None = None, labels: tuple[str, ...] | None = None, **facts: Any
) -> Callable[[Callable[..., M]], Callable[..., M]]:
    """Class a factory among the registered models, under its own name.

    `facts`: fields of `Preprocess`. `labels`: the names of its classes. `weights`: a file in
    `lucid/models/data`, which the factory then loads unless it is called with another. Factories
    take overrides by name, and besides `weights`: a path, None for generated values, or
    "pretrained" for the package's own.
    """

    def register(build: Callable[..., M]) -> Callable[..., M]:
        name = build.__name__
        own = DATA / weights if weights else None
        preprocess = Preprocess(**facts)

        @functools.wraps(build)
        def factory(
            *,
            weights: str | os.PathLike[str] | None = PRETRAINED if own else None,
            **overrides: Any,
        ) -> M:
            model = build(**overrides)
            model.name = name
            model.preprocess = preprocess
            path = own if weights == PRETRAINED else weights
            if weights is not None:
                if path is None:
                    raise WeightsError(
                        f"no weights of {name} come with Lucid: give the path of a weight file"
                    )
                model.load_weights(path)
            return model

        description = (inspect.getdoc(build) or name).splitlines()[0]
        assert name not in _models, f"two models are named {name}"
        _models[name] = ModelInfo(name, description, factory, preprocess, labels, own)
        return factory

    return register


def list_models(pattern: str = "*") -> list[str]:
    """The names of registered models that match a shell-style pattern, sorted."""
    return sorted(fnmatch.filter(_models, pattern))


def model_info(name: str) -> ModelInfo:
    """The registered model of this name. Raises UnknownNameError, with the closest names."""
    if name not in _models:
        raise UnknownNameError(
            f"no model is named {name!r}{suggestion(name, _models) or ';'} "
            "lucid.models.list_models() (`lucid models`) lists all"
        )
    return _models[name]


def create_model(name: str, **overrides: Any) -> Module:
    """The registered model of this name. `overrides`: parameters of its class, and `weights`."""
    return model_info(name).factory(**overrides)


def configured(cls: type[M], overrides: dict[str, Any], **defaults: Any) -> M:
    """`cls(**defaults)` with overrides. Raises UnknownNameError for one it does not take."""
    accepted = inspect.signature(cls).parameters
    for key in overrides:
        if key not in accepted:
            raise UnknownNameError(
                f"{cls.__name__} takes no parameter {key!r}{suggestion(key, accepted) or ';'} "
                f"it takes {', '.join(accepted)} and weights"
            )
    return cls(**{**defaults, **overrides})


def suggestion(name: str, known: Iterable[str]) -> str:
    """`: did you mean a, b or c?` with the closest of the known names, or nothing."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 3, 0.5)
    close = close or [n for n in names if name.lower().replace("-", "_") in n][:3]
    *others, last = close or [""]
    return f": did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if last else ""
