"""Encoded images as an input: decoded and preprocessed as the model's metadata says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ImageError
from lucid.serve.errors import RequestError
from lucid.serve.tensors import Array, Tensor
from lucid.vision import Preprocess

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP")
"""Of Pillow's, those that are decoded. Others have decoders that nobody looks after, or call
programs (EPS)."""
LARGEST = 1 << 26
"""Pixels of all images of a request, as their headers say: some 200 MB once decoded."""


@dataclass(frozen=True)
class ImageInput:
    """How the images for a model become its input."""

    preprocess: Preprocess
    channels_last: bool
    levels: bool

    @staticmethod
    def of(tensor: Tensor, preprocess: Preprocess) -> ImageInput | None:
        """None where the input takes no images of this preprocessing."""
        if len(tensor.shape) != 4 or preprocess.cut is None:
            return None
        size, channels = preprocess.cut, preprocess.channels
        if tensor.datatype == "FP32" and tensor.shape[1:] == (channels, *size):
            return ImageInput(preprocess, False, False)
        if tensor.datatype in ("FP32", "UINT8") and tensor.shape[1:] == (*size, channels):
            return ImageInput(preprocess, True, tensor.datatype == "UINT8")
        return None

    def decode(self, encoded: Sequence[memoryview]) -> Array:
        """The batch of these images. Raises RequestError where one of them cannot be read."""
        try:
            images = [_opened(data, number) for number, data in enumerate(encoded)]
            if sum(image.width * image.height for image in images) > LARGEST:
                raise RequestError(413, f"the images have more than {LARGEST} pixels together")
            levels = self.preprocess.to_uint8_nhwc(images)
        except ImageError as error:
            raise RequestError(400, str(error)) from error
        if self.levels:
            return levels
        batch = self.preprocess.normalise(levels)
        return np.ascontiguousarray(np.moveaxis(batch, 1, 3)) if self.channels_last else batch


def _opened(data: memoryview, number: int) -> Image.Image:
    """An image of which only the header has been read."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise RequestError(413, f"image {number} has too many pixels") from error
    except Exception as error:  # whatever a decoder fails with
        raise RequestError(
            400, f"image {number} cannot be read: it is none of {', '.join(FORMATS)}, or damaged"
        ) from error
