"""Arrays in and out: anything with `__array__` or DLPack is accepted, and its kind is returned.

Numbers that NumPy lacks (bfloat16) are taken as arrays of `ml_dtypes.bfloat16`, as torch's tensors,
or as their bits in a uint16 array. They are returned as torch's tensors to who gave such, else as
arrays of `ml_dtypes.bfloat16`, or of float32 where that package is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.errors import InputError, kind_of

if TYPE_CHECKING:
    from lucid.codegen.language.dtypes import DType
    from lucid.ir.ops.base import Array

CONVERTERS: dict[type, Callable[[Array], Any]] = {}
"""How to wrap a result for callers who gave an object of this type; the front registers its own."""


FLOAT = dtype(COMPUTED)


def register_converter(kind: type, convert: Callable[[Array], Any]) -> None:
    """Let results be `convert(array)` for callers who gave a `kind`."""
    CONVERTERS[kind] = convert


def describe(array: Array) -> str:
    """`float64[1,3,224,224]`"""
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def is_tensor_proto(x: Any) -> bool:
    """Whether this is an `onnx.TensorProto`, as the files of test data hold arrays."""
    return type(x).__name__ == "TensorProto" and type(x).__module__.startswith("onnx")


def from_proto(x: Any) -> Array:
    """The array in an `onnx.TensorProto`. Raises InputError."""
    from onnx.numpy_helper import to_array

    try:
        return np.asarray(to_array(x))
    except Exception as problem:  # whatever the package raises
        raise InputError(f"got a TensorProto that cannot be read: {problem}") from problem


def as_proto(array: Array, name: str) -> Any:
    """An array as an `onnx.TensorProto`."""
    from onnx.numpy_helper import from_array

    return from_array(array, name)


def as_array(x: Any, kind: DType = FLOAT) -> Array:
    """`x` as an aligned, C-contiguous array of a dtype as it is stored, without a copy where it is
    one.

    Raises InputError, which says what `x` is: `got float64[1,3,224,224]; ...`.
    """
    array = x if isinstance(x, np.ndarray) else _foreign(x, kind)
    if array.dtype != kind.storage:
        if not kind.is_bits or array.dtype.name != kind.numbers:
            raise InputError(f"got {describe(array)}; {_conversion(x, array, kind)}")
        array = array.view(kind.storage)
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")


def as_scalar(x: float, kind: DType) -> Array:
    """A number of Python's as an array of rank 0. Raises InputError where the dtype has no such
    number: a fraction as an integer, or one out of range."""
    try:
        array = np.asarray(x, np.float32) if kind.is_bits else np.asarray(x, kind.storage)
    except (OverflowError, ValueError):
        array = np.zeros((), kind.storage)
    if kind.kind != "float" and array != x:
        raise InputError(f"got {x!r}, which is no {kind.numbers}")
    return kind.encode(array)


def _conversion(x: Any, given: Array, wanted: DType) -> str:
    """What to do about an array of another dtype."""
    if wanted.name == "u8" and given.ndim in (3, 4):
        return (
            "give images as levels 0..255 (lucid.vision's Preprocess.to_uint8_nhwc makes them), or "
            "compile without input='uint8_nhwc'"
        )
    module = "ml_dtypes" if wanted.is_bits else "np"
    call = f"x.astype({module}.{wanted.numbers})"
    if is_torch(x):
        call = "x.float()" if wanted is FLOAT else f"x.to(torch.{wanted.numbers})"
    advice = f"convert it with {call}"
    images = given.dtype == np.uint8 and wanted is FLOAT and given.ndim in (3, 4)
    return f"{advice}, or compile with input='uint8_nhwc'" if images else advice


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


def _foreign(x: Any, kind: DType) -> Array:
    """An array of another library, or what becomes one, as NumPy's."""
    if is_tensor_proto(x):
        return from_proto(x)
    try:
        if kind.is_bits and is_torch(x) and str(x.dtype) == f"torch.{kind.numbers}":
            return np.from_dlpack(x.view(_torch_bits()))
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        if hasattr(x, "__array__"):
            return np.asarray(x)
    except (BufferError, TypeError, RuntimeError, ValueError) as problem:
        raise InputError(f"got {kind_of(x)} that cannot be read: {problem}") from problem
    raise InputError(
        f"got {type(x).__name__}; give an array: NumPy's, or one with __array__ or DLPack"
    )


def _torch_bits() -> Any:
    """Torch's dtype for the bits of a bfloat16."""
    import torch

    return torch.uint16


def is_torch(x: Any) -> bool:
    """Whether this is a tensor of torch's; torch is not imported to find out."""
    return type(x).__module__.partition(".")[0] == "torch"


def like(x: Any, result: Array, kind: DType = FLOAT, name: str = "") -> Any:
    """The result of this name, which is stored as `kind`, as the kind of array that `x` is."""
    if isinstance(x, np.ndarray):
        return as_numbers(result, kind) if kind.is_bits else result
    if is_tensor_proto(x):
        return as_proto(as_numbers(result, kind), name)
    for known, convert in CONVERTERS.items():
        if isinstance(x, known):
            return convert(as_numbers(result, kind))
    if is_torch(x):
        import torch

        tensor = torch.from_numpy(result)
        return tensor.view(torch.bfloat16) if kind.is_bits else tensor
    result = as_numbers(result, kind)
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    return result


def as_numbers(array: Array, kind: DType) -> Array:
    """What is stored, as the user's array of numbers; ml_dtypes' for those that NumPy lacks, and
    float32 without that package."""
    if not kind.is_bits:
        return array
    try:
        import ml_dtypes
    except ImportError:
        return kind.decode(array)
    return array.view(ml_dtypes.bfloat16)
