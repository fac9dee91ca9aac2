"""`Preprocess`: how images are preprocessed for a network, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import InputError
from lucid.vision.imagenet import CROP_FRACTION, IMAGENET_MEAN, IMAGENET_STD
from lucid.vision.images import Size, each_to_batch, to_batch
from lucid.vision.sources import read_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ORDERS = ("rgb", "bgr", "grey")


@dataclass(frozen=True)
class Preprocess:
    """Resize, cut out the centre, normalise. An int for a size means a square.

    `size`: height and width of what is cut out, and so of the network's input; None: all is kept.
    `resize`: an int for the shorter side, or an exact (height, width); by default the size over
    `crop_fraction`, rounded down. `order`: of the network's channels, "rgb", "bgr" or "grey";
    images are always RGB. A level becomes (level / divisor - mean) / std, `mean` and `std` one
    number a channel, or one for all. Raises InputError for what makes no sense.
    """

    size: Size | int | None = 224
    resize: Size | int | None = None
    crop_fraction: float = CROP_FRACTION
    interpolation: str = "bilinear"
    mean: tuple[float, ...] | float = IMAGENET_MEAN
    std: tuple[float, ...] | float = IMAGENET_STD
    divisor: float = 255.0
    order: str = "rgb"

    def __post_init__(self) -> None:
        _require(
            self.interpolation in INTERPOLATIONS,
            f"interpolation is one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}",
        )
        _require(self.order in ORDERS, f"order is one of {', '.join(ORDERS)}, not {self.order!r}")
        fraction = self.crop_fraction
        _require(_positive(fraction) and fraction <= 1, f"crop_fraction {fraction} is not in 0..1")
        _require(_positive(self.divisor), f"the divisor must be positive, not {self.divisor}")
        if self.size is not None:
            self._set("size", _pair(self.size, "size"))
        if isinstance(self.resize, int | np.integer):
            _require(self.resize > 0, f"resize must be positive, not {self.resize}")
        elif self.resize is not None:
            self._set("resize", _pair(self.resize, "resize"))
        self._set("mean", self._by_channel(self.mean, "mean"))
        self._set("std", self._by_channel(self.std, "std"))
        _require(0.0 not in self.stds, "no std may be 0: levels are divided by it")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _by_channel(self, given: Any, name: str) -> tuple[float, ...]:
        try:
            numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(given, np.float64)))
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} must be numbers, got {given!r}") from error
        numbers = numbers * self.channels if len(numbers) == 1 else numbers
        _require(
            len(numbers) == self.channels and all(map(math.isfinite, numbers)),
            f"{name} takes {self.channels} number(s) for order {self.order!r}, got {given!r}",
        )
        return numbers

    # -- reading ----------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """3, or 1 for grey."""
        return 1 if self.order == "grey" else 3

    @property
    def cut(self) -> Size | None:
        """`size` as height and width."""
        assert not isinstance(self.size, int), "made a pair at the beginning"
        return self.size

    @property
    def means(self) -> tuple[float, ...]:
        """`mean`, one number a channel."""
        assert isinstance(self.mean, tuple), "made a tuple at the beginning"
        return self.mean

    @property
    def stds(self) -> tuple[float, ...]:
        """`std`, one number a channel."""
        assert isinstance(self.std, tuple), "made a tuple at the beginning"
        return self.std

    def resized(self, height: int, width: int) -> Size:
        """What an image of this height and width is resized to, before it is cut."""
        target = self.resize
        if isinstance(target, tuple):
            return target
        if target is None:
            if self.cut is None:
                return height, width
            high, wide = (math.floor(d / self.crop_fraction) for d in self.cut)
            if high != wide:  # large enough for both, at the image's own proportions
                ratio = min(height / high, width / wide)
                return round(height / ratio), round(width / ratio)
            target = high
        shorter, longer = min(height, width), max(height, width)
        longer = target * longer // shorter
        return (target, longer) if height <= width else (longer, target)

    # -- other specs ------------------------------------------------------------------------

    def at(self, height: int, width: int) -> Preprocess:
        """The same for a network at another input size: what is resized to is scaled with it."""
        if self.cut is None:
            return replace(self, resize=(height, width))
        by = height / self.cut[0], width / self.cut[1]
        match self.resize:
            case int(shorter):
                resize: Size | int | None = round(shorter * max(by))
            case (high, wide):
                resize = round(high * by[0]), round(wide * by[1])
            case _:
                resize = None
        return replace(self, size=(height, width), resize=resize)

    @staticmethod
    def find(source: Any) -> Preprocess | None:
        """`of`, but None where `source` says nothing about its images."""
        own = source if isinstance(source, Preprocess) else getattr(source, "preprocess", None)
        if isinstance(own, Preprocess):
            return own
        said = read_fields(source)
        if said is None:
            return None
        unknown = set(said) - {f.name for f in fields(Preprocess)}
        if unknown:
            raise InputError(
                f"this version of Lucid knows no preprocessing by {', '.join(sorted(unknown))}"
            )
        return Preprocess(**said)

    @staticmethod
    def of(source: Any) -> Preprocess:
        """What a model says about its images: a registered or compiled model, a timm model, a
        torchvision weight entry or its transforms, or the configuration or metadata of one of them.
        Raises InputError where it says nothing, or what cannot be followed.

        Read are the attributes `preprocess` (of a registered model), `metadata` (of a compiled
        one), `pretrained_cfg` and `default_cfg` (timm), `transforms` (torchvision's weights), or
        the entries of a configuration or of metadata itself; neither library is needed.
        """
        found = Preprocess.find(source)
        if found is None:
            raise InputError(
                f"{type(source).__name__} says nothing about its images: give a Preprocess, a timm "
                "model or its pretrained_cfg, torchvision's weights.transforms(), or a compiled "
                "model whose metadata has an entry `preprocess`"
            )
        return found

    # -- doing it ---------------------------------------------------------------------------

    def to_uint8_nhwc(self, images: Any) -> NDArray[np.uint8]:
        """Resized and cut, not normalised: uint8 (N, H, W, C), RGB or grey; what a model compiled
        with `input="uint8_nhwc"` takes. `images` as in `preprocess`. Raises ImageError."""
        return to_batch(images, self)

    def read_each(self, images: Iterable[Any]) -> tuple[NDArray[np.uint8], list[str]]:
        """`to_uint8_nhwc` of the images that can be read, (M, H, W, C) in their order, and for each
        of all N images why it is not among them, or "" where it is: one broken file does not lose
        its batch. `images`: each of a kind that `preprocess` takes; a None cannot be read."""
        return each_to_batch(images, self)

    def normalise(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, H, W, C), RGB or grey -> float32 (N, C, H, W). Raises InputError."""
        levels = np.asarray(levels)
        if levels.dtype != np.uint8 or levels.ndim != 4 or levels.shape[3] != self.channels:
            shape = ",".join(map(str, levels.shape))
            raise InputError(
                f"normalise wants uint8[N,H,W,{self.channels}], got {levels.dtype}[{shape}]"
            )
        if self.order == "bgr":
            levels = levels[..., ::-1]
        mean, std = np.asarray(self.means, np.float32), np.asarray(self.stds, np.float32)
        values = (levels.astype(np.float32) / np.float32(self.divisor) - mean) / std
        return np.ascontiguousarray(np.moveaxis(values, 3, 1))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(0 < value < math.inf)


def _pair(value: Any, name: str) -> Size:
    """Height and width of a size. Raises InputError."""
    pair = isinstance(value, Sequence) and not isinstance(value, str)
    numbers = tuple(value) if pair else (value, value)
    whole = all(isinstance(d, int | np.integer) and d > 0 for d in numbers)
    _require(len(numbers) == 2 and whole, f"{name} is an int or (height, width), not {value!r}")
    return int(numbers[0]), int(numbers[1])


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InputError(problem)


IMAGENET = Preprocess()
"""What most classifiers of ImageNet want: 224 x 224 of a shorter side of 256, bilinear."""


def preprocess(images: Any, spec: Any = IMAGENET) -> NDArray[np.float32]:
    """Images as a network takes them: float32 (N, C, H, W).

    `images`: a path, the bytes of an image file, a file object open for reading in binary, a PIL
    image, a uint8 array (H, W), (H, W, C) or (N, H, W, C), RGB or grey, or a list of these. `spec`:
    a Preprocess, or what `Preprocess.of` reads one from: a compiled model, say. Raises ImageError
    naming the image and the reason, and InputError for a spec that makes no sense.
    """
    wanted = Preprocess.of(spec)
    return wanted.normalise(to_batch(images, wanted))
