"""`Subject`: a model given on the command line, with its preprocessing, labels and input shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lucid.cli.app import warn
from lucid.errors import InputError

if TYPE_CHECKING:
    from lucid.cli.output import Report
    from lucid.compiler import CompiledModel
    from lucid.ir.types import Shapes
    from lucid.model_source import ModelSource
    from lucid.vision import Preprocess

DOWNLOADED = ("timm:", "torchvision:")
"""How the names of models begin whose packages download trained weights."""


@dataclass
class Subject:
    """A model, with what an image must go through to suit it, and the names of its classes where
    they are known.

    `model`: what `lucid.compile` takes. `trained`: whether its weights come from somewhere, so that
    its answers mean something. `own_shapes`: of its inputs for one image of the size it is made
    for, and `dtype` that of the first one. `saved`: whether it is compiled already. `weights`: a
    file whose tensors are to take the place of the model's own.
    """

    name: str
    model: Any
    preprocess: Preprocess
    trained: bool
    labels: tuple[str, ...] | None = None
    own_shapes: Shapes = ((1, 3, 224, 224),)
    dtype: str = "f32"
    saved: bool = False
    weights: Path | None = None
    _sources: dict[tuple[str, ...], ModelSource] = field(default_factory=dict)

    def source(self, disable: list[str] | None = None) -> ModelSource:
        """The model's graphs at every stage."""
        from lucid.compiler import CompileOptions
        from lucid.model_source import ModelSource

        disabled = tuple(CompileOptions(disable=disable or ()).disabled())
        if disabled not in self._sources:
            self._sources[disabled] = ModelSource(self.model, disabled, weights=self.weights)
        return self._sources[disabled]

    def compiled(
        self,
        shapes: Shapes,
        threads: int | None,
        precision: str,
        report: Report,
        target: str = "host",
    ) -> CompiledModel:
        """The model compiled for inputs of these shapes; as it was saved, unless more precision is
        asked for."""
        import lucid

        if self.saved and precision == "fast":
            name = None if target == "host" else target
            loaded = lucid.load(self.model, threads, target=name, progress=report)
            loaded.prepare(shapes)
            return self.weighted(loaded)
        options = lucid.CompileOptions(target=target)
        compiled = lucid.compile(
            self.model,
            shapes,
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
    def own_shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return self.own_shapes[0] if self.own_shapes else ()

    @property
    def layout(self) -> str:
        """How images lie in its input: `nchw`, `nhwc` or, where it takes none, an empty string."""
        return image_layout(self.own_shape)

    def shapes(self, batch: int = 1, size: str | None = None) -> Shapes:
        """The shapes of the inputs for a batch, those that have one; `size` as `shape` takes it."""
        if not self.own_shapes:
            return ()
        if batch == 1 and size is None:
            return self.own_shapes
        if len(self.own_shapes) == 1:
            return (self.shape(batch, size),)
        types = self.source().captured(self.own_shapes).input_types()
        first, *others = (kind.concrete(batch) for kind in types)
        return (first if size is None else self.shape(batch, size), *others)

    def shape(self, batch: int = 1, size: str | None = None) -> tuple[int, ...]:
        """The shape of the first input for a batch, and for a size such as `224`, `65x80` or
        `1x32x32`."""
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
            f"{text!r} is not a size: write 224, 65x80 (height x width) or 1x32x32 (with channels)"
        )
    return tuple(map(int, parts))


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


def first_layer(model: Any) -> Any:
    """The first convolution or linear layer of a model, of Lucid's or of torch's, which says what
    its input looks like; None where there is none."""
    layers: Iterator[Any] = iter(model.modules())
    return next((m for m in layers if size_of(m, "in_channels") or size_of(m, "in_features")), None)


def size_of(layer: Any, name: str) -> int:
    """A number of channels or features; 0 where the layer has none."""
    value = getattr(layer, name, 0)
    return value if isinstance(value, int) else 0


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
