"""From an image file to what a registered model expects.

Grey or RGB as the model wants it, the shorter side resized to `round(size / crop_pct)`, the centre
cut out, grey levels brought to 0..1 and normalised. A file that already has the model's size and
`crop_pct` 1 goes through with its bytes untouched.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from lucid.models.registry import ModelInfo


def load_image(path: str | os.PathLike[str], info: ModelInfo) -> NDArray[np.float32]:
    """The image at `path` as `info` wants it: float32 (1, C, H, W).

    Raises ImageError, naming the file and the reason, for what is not a readable image.
    """
    return normalise(_fit(_read(path, info.channels), info), info)


def normalise(pixels: NDArray[np.uint8], info: ModelInfo) -> NDArray[np.float32]:
    """uint8 pixels (H, W) or (H, W, C), with any leading batch -> float32 (N, C, H, W)."""
    if info.channels == 1:
        pixels = pixels[..., None]
    mean, std = np.asarray(info.mean, np.float32), np.asarray(info.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(values.reshape(-1, *values.shape[-3:]), -1, 1))


def _read(path: str | os.PathLike[str], channels: int) -> Image.Image:
    """Decode the whole file, upright, as 8-bit grey (one channel) or RGB (three)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                # 16 bits a pixel; Pillow's own conversion clips at 255 instead of scaling.
                levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535) // 257
                image = Image.fromarray(levels.astype(np.uint8))
            elif "transparency" in image.info:
                image = image.convert("RGBA")
            return image.convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        raise ImageError(f"cannot read image {os.fspath(path)!r}: not an image file") from error
    except Exception as error:
        # Decoders fail with nearly anything on damaged files: OSError, SyntaxError, struct.error...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot read image {os.fspath(path)!r}: {reason}") from error


def _fit(image: Image.Image, info: ModelInfo) -> NDArray[np.uint8]:
    """Resize and centre-crop to `info.size`, as one resampling of the part that is kept.

    The part is computed from the whole resized image, so the result is that of resizing first and
    cropping then, to one grey level; but a long, thin image costs no more than any other.
    """
    from PIL import Image

    size = info.size
    width, height = image.size
    shorter, resized = min(width, height), round(size / info.crop_pct)
    resized_width, resized_height = resized * width // shorter, resized * height // shorter
    left, top = round((resized_width - size) / 2), round((resized_height - size) / 2)
    across, down = width / resized_width, height / resized_height
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    kept = image.resize((size, size), Image.Resampling[info.interpolation.upper()], box=box)
    return np.asarray(kept)
