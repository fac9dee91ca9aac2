"""Images to batches: Pillow decodes, resizes and crops, as torchvision does with PIL images.

Images are turned upright (EXIF) and lose their alpha channel; an animation is its first frame.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lucid.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

Size = tuple[int, int]
"""Height and width."""


class Fitting(Protocol):
    """What `fit` needs to know of a `Preprocess`, whose fields and methods these are."""

    @property
    def channels(self) -> int: ...
    @property
    def cut(self) -> Size | None: ...
    @property
    def interpolation(self) -> str: ...
    def resized(self, height: int, width: int) -> Size: ...


LARGEST = 1 << 26
"""Pixels of an image after resizing. A long, thin one would become larger: of that only the part
that is kept is computed, to one grey level of the whole."""


def to_batch(images: Any, spec: Fitting) -> NDArray[np.uint8]:
    """Decoded, resized and cropped: uint8 (N, H, W, C). Raises ImageError."""
    levels, names = [], []
    for image, name in _each(images):
        levels.append(fit(read(image, spec.channels, name), spec, name))
        names.append(name)
    if not levels:
        raise ImageError("no images were given")
    for array, name in zip(levels, names, strict=True):
        if array.shape != levels[0].shape:
            (h, w, _), (height, width, _) = levels[0].shape, array.shape
            raise ImageError(
                f"{names[0]} becomes {h}x{w} and {name} {height}x{width}: a batch has one size, "
                "so give images of one proportion, one at a time, or a spec with a size to crop to"
            )
    return np.stack(levels)


def each_to_batch(images: Iterable[Any], spec: Fitting) -> tuple[NDArray[np.uint8], list[str]]:
    """`to_batch` of the images that can be read, uint8 (M, H, W, C), and for each image why it is
    not among them, or "". Where a spec has no size, the first of them decides."""
    levels: list[NDArray[np.uint8]] = []
    reasons: list[str] = []
    for image in images:
        name = _name(image, "the image")
        try:
            one = fit(read(image, spec.channels, name), spec, name)
            if levels and one.shape != levels[0].shape:
                (h, w, _), (height, width, _) = levels[0].shape, one.shape
                raise ImageError(
                    f"{name} becomes {height}x{width} and others {h}x{w}: a batch has one size"
                )
        except ImageError as problem:
            reasons.append(str(problem))
        else:
            levels.append(one)
            reasons.append("")
    if not levels:
        return np.empty((0, *(spec.cut or (0, 0)), spec.channels), np.uint8), reasons
    return np.stack(levels), reasons


def _each(images: Any) -> Iterable[tuple[Any, str]]:
    """Every image of what the user gave, with what to call it."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, list | tuple):
        images = [images]
    for number, image in enumerate(images):
        yield image, _name(image, f"image {number}")


def _name(image: Any, otherwise: str) -> str:
    path = isinstance(image, str | os.PathLike)
    return f"image {os.fspath(image)!r}" if path else otherwise


# -- reading --------------------------------------------------------------------------------


def read(source: Any, channels: int, name: str) -> Image.Image:
    """The whole image, upright, as 8-bit grey (one channel) or RGB (three). Raises ImageError."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(source)
    if not isinstance(source, str | os.PathLike | Image.Image) and not hasattr(source, "read"):
        return _in_colours(_from_array(source, name), channels, name)
    try:
        if isinstance(source, Image.Image):
            return _in_colours(source, channels, name)
        with Image.open(source) as file:
            return _in_colours(file, channels, name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"cannot read {name}: not an image file") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"cannot read {name}: it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; "
            "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if it comes from someone you trust"
        ) from error
    except Exception as error:
        # Decoders fail with nearly anything on damaged files: OSError, SyntaxError, struct.error...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot read {name}: {reason}") from error


def _in_colours(file: Image.Image, channels: int, name: str) -> Image.Image:
    """Decode what is not yet decoded, and convert to 8 bits of grey or RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(file)
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels: scale it to levels 0..255 yourself")
    if image.mode.startswith("I"):
        # 16 bits a pixel; Pillow's own conversion clips at 255 instead of scaling.
        levels = np.asarray(image)
        if levels.dtype.itemsize > 2:
            levels = levels.clip(0, 65535)
        image = Image.fromarray((levels // 257).astype(np.uint8))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


def _from_array(source: Any, name: str) -> Image.Image:
    """A uint8 array (H, W) or (H, W, C) as an image. Raises ImageError."""
    from PIL import Image

    what = type(source).__name__
    array = np.asarray(source) if hasattr(source, "__array__") else None
    if array is not None:
        what = f"{array.dtype}[{','.join(map(str, array.shape))}]"
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        coloured = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        if array.dtype == np.uint8 and coloured and array.size:
            return Image.fromarray(np.ascontiguousarray(array))
    raise ImageError(
        f"{name} is not an image: give a path, the bytes of a file, a file object, a PIL image, or "
        f"a uint8 array (H, W) or (H, W, C) of 1, 3 or 4 channels; this is {what}"
    )


# -- fitting --------------------------------------------------------------------------------


def fit(image: Image.Image, spec: Fitting, name: str = "the image") -> NDArray[np.uint8]:
    """Resize and centre-crop as `spec` says: uint8 (H, W, C). Raises ImageError for one that would
    become absurdly large."""
    high, wide = whole = spec.resized(image.height, image.width)
    if high * wide > LARGEST and spec.cut is None:
        raise ImageError(
            f"{name}, {image.height}x{image.width}, would become {high}x{wide} pixels: cut it to "
            "other proportions"
        )
    if high * wide > LARGEST and spec.cut is not None:
        whole = min(high, spec.cut[0]), min(wide, spec.cut[1])
        image = _part(image, (high, wide), whole, spec.interpolation)
    elif whole != (image.height, image.width):
        image = image.resize((wide, high), _filter(spec.interpolation))
    levels = np.asarray(image if spec.cut is None else image.crop(_box(whole, spec.cut)))
    return levels.reshape(*levels.shape[:2], spec.channels)


def _filter(interpolation: str) -> Image.Resampling:
    from PIL import Image

    return Image.Resampling[interpolation.upper()]


def _box(whole: Size, part: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the centre; beyond the image where that is smaller."""

    def start(size: int, kept: int) -> int:
        return -((kept - size) // 2) if kept > size else round((size - kept) / 2)

    top, left = map(start, whole, part)
    return left, top, left + part[1], top + part[0]


def _part(image: Image.Image, resized: Size, cut: Size, interpolation: str) -> Image.Image:
    """The centre of the resized image, by one resampling of the part of the original it is from."""
    left, top, right, bottom = _box(resized, cut)
    across, down = image.width / resized[1], image.height / resized[0]
    box = (left * across, top * down, right * across, bottom * down)
    return image.resize((cut[1], cut[0]), _filter(interpolation), box=box)
