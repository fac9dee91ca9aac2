"""Arrays in and out: anything with `__array__` or DLPack is accepted, and its kind is returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lucid.errors import InputError, kind_of
from lucid.ir.ops.base import Array

CONVERTERS: dict[type, Callable[[Array], Any]] = {}
"""How to wrap a result for callers who gave an object of this type; the front registers its own."""


FLOAT = np.dtype(np.float32)


def register_converter(kind: type, convert: Callable[[Array], Any]) -> None:
    """Let results be `convert(array)` for callers who gave a `kind`."""
    CONVERTERS[kind] = convert


def describe(array: Array) -> str:
    """`float64[1,3,224,224]`"""
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def as_array(x: Any, dtype: np.dtype[Any] = FLOAT) -> Array:
    """`x` as an aligned, C-contiguous array of `dtype`, without a copy where it is one.

    Raises InputError, which says what `x` is: `got float64[1,3,224,224]; ...`.
    """
    array = x if isinstance(x, np.ndarray) else _foreign(x)
    if array.dtype != dtype:
        raise InputError(f"got {describe(array)}; {_conversion(x, array.dtype, dtype)}")
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")


def _conversion(x: Any, given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """What to do about an array of another dtype."""
    if wanted == np.uint8:
        return (
            "give images as levels 0..255 (lucid.vision's Preprocess.to_uint8_nhwc makes them), or "
            "compile without input='uint8_nhwc'"
        )
    call = "x.float()" if is_torch(x) and wanted == FLOAT else f"x.astype(np.{wanted})"
    advice = f"convert it with {call}"
    return f"{advice}, or compile with input='uint8_nhwc'" if given == np.uint8 else advice


CHANNELS = (1, 3, 4)
"""Numbers of channels by which the axis of channels is known: grey, colour, colour with alpha."""
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (2, 0, 1), (1, 2, 0)
"""How the axes of one image are reordered."""


def axes_advice(x: Any, given: Sequence[int], wanted: Sequence[int | str]) -> str:
    """What to do about an array `x` of the shape `given` that a model does not take, where it looks
    like one without a batch, or with the other order of axes; else an empty string.

    `wanted`: the shape that the model was compiled for.
    """
    unbatched = len(given) == len(wanted) - 1
    if not unbatched and len(given) != len(wanted):
        return ""
    image = tuple(given if unbatched else given[1:])
    order = _reordering(image, tuple(wanted[1:]))
    if order is None:
        return "the batch is missing: give x[None]" if unbatched else ""
    axes = order if unbatched else (0, *(1 + axis for axis in order))
    call = f"x.{'permute' if is_torch(x) else 'transpose'}({', '.join(map(str, axes))})"
    call += "[None]" if unbatched else ""
    if order == TO_CHANNELS_LAST:
        return f"its channels come first, and the model takes them last: give {call}"
    return (
        f"its channels come last, and the model takes them first: give {call}, or compile with "
        "input='uint8_nhwc' for images as they are decoded"
    )


def _reordering(
    image: tuple[int, ...], wanted: tuple[int | str, ...]
) -> tuple[int, int, int] | None:
    if len(image) != 3 or image == wanted:
        return None
    for order in (TO_CHANNELS_FIRST, TO_CHANNELS_LAST):
        if tuple(image[axis] for axis in order) == wanted:
            return order
    if wanted[0] in CHANNELS and image[2] == wanted[0] != image[0]:  # of another size
        return TO_CHANNELS_FIRST
    if wanted[2] in CHANNELS and image[0] == wanted[2] != image[2]:
        return TO_CHANNELS_LAST
    return None


def likely_shape(shape: Sequence[int], channels_last: bool) -> tuple[int, ...] | None:
    """What may be meant by a shape that a model cannot be compiled for: one image with the batch in
    front, and its channels where they belong; None where nothing else seems to be meant."""
    if len(shape) not in (3, 4):
        return None
    image = tuple(shape[-3:])
    first, last = image[0] in CHANNELS, image[2] in CHANNELS
    if not first and not last:
        return None
    if first != last and channels_last == first:
        order = TO_CHANNELS_LAST if channels_last else TO_CHANNELS_FIRST
        image = tuple(image[axis] for axis in order)
    likely = (shape[0] if len(shape) == 4 else 1, *image)
    return None if likely == tuple(shape) else likely


def _foreign(x: Any) -> Array:
    """An array of another library, or what becomes one, as NumPy's."""
    try:
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        if hasattr(x, "__array__"):
            return np.asarray(x)
    except (BufferError, TypeError, RuntimeError, ValueError) as problem:
        raise InputError(f"got {kind_of(x)} that cannot be read: {problem}") from problem
    raise InputError(
        f"got {type(x).__name__}; give an array: NumPy's, or one with __array__ or DLPack"
    )


def is_torch(x: Any) -> bool:
    """Whether this is a tensor of torch's; torch is not imported to find out."""
    return type(x).__module__.partition(".")[0] == "torch"


def like(x: Any, result: Array) -> Any:
    """The result as the kind of array that `x` is."""
    if isinstance(x, np.ndarray):
        return result
    for kind, convert in CONVERTERS.items():
        if isinstance(x, kind):
            return convert(result)
    if is_torch(x):
        import torch

        return torch.from_numpy(result)
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    return result
