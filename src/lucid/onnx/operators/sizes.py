"""Constants, and what exporters compute shapes of. Nothing of it is left in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import Array
from lucid.ir.types import BATCH, Dim, volume
from lucid.onnx.call import DemandError
from lucid.onnx.known import MOST_ELEMENTS, Held, Known, known, known_shape
from lucid.onnx.table import reads
from lucid.onnx.tensors import StoredTensor

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand


@reads("Constant")
def read_constant(call: Call) -> Held:
    tensor = call.tensor("value")
    if tensor is not None:
        return call.stored(tensor)
    for name, elements in (
        ("value_float", call.number("value_float", np.nan)),
        ("value_int", call.integer("value_int", 0)),
        ("value_floats", call.floats("value_floats")),
        ("value_ints", call.integer_list("value_ints")),
    ):
        if call.states(name):
            dtype = np.float32 if "float" in name else np.int64
            return known(np.array(elements, dtype))
    raise UnsupportedError("of strings or of a sparse tensor")


@reads("ConstantOfShape")
def read_constant_of_shape(call: Call) -> Operand:
    tensor = call.tensor("value")
    value = np.asarray(StoredTensor(tensor, call.reader.external)) if tensor else np.zeros(1)
    if value.size != 1:
        raise ModelFileError(f"has a value of the shape {value.shape}")
    one = known(value.reshape(()) if tensor else value.astype(np.float32).reshape(()))
    shape = call.sizes(0)
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise ModelFileError(f"has a negative size: {'x'.join(map(str, shape))}")
    return call.expand(one, shape)


@reads("Shape")
def read_shape(call: Call) -> Operand:
    shape = call.shape()
    start, end = call.integer("start", 0), call.integer("end", len(shape))
    return known_shape(shape[slice(start, end)])


@reads("Size")
def read_size(call: Call) -> Operand:
    count, symbols = volume(call.shape())
    if len(symbols) > 1:
        raise UnsupportedError("of a tensor two axes of which depend on the batch")
    vector = known_shape((Dim(count, symbols[0]) if symbols else count,))
    return known(vector.array.reshape(()))


@reads("Range")
def read_range(call: Call) -> Operand:
    """The numbers of the images in a batch are known but for how many they are."""
    call.ignore("stash_type")  # how its numbers are rounded meanwhile
    start, limit, delta = (call.elements(i).reshape(()) for i in range(3))
    if limit.item() == BATCH and start == 0 and delta == 1:
        return Known(np.zeros(1, np.int64), step=1)
    if any(a.dtype == object for a in (start, limit, delta)):
        raise UnsupportedError("counts to the batch size")
    if delta == 0:
        raise ModelFileError("counts in steps of 0")
    if abs((limit - start) / delta) > MOST_ELEMENTS:
        raise UnsupportedError("counts too far")
    return known(np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype))


@reads("NonZero")
def read_non_zero(call: Call) -> Operand:
    """Of sizes, and of what else is known. Whatever depends on the batch is not 0."""
    return known(np.array(np.nonzero(known_elements(call, 0)), np.int64))


def known_elements(call: Call, index: int) -> Array:
    """The elements of an operand that tell how large the result is. Others than known ones differ
    from call to call, so that no stage is read for them: the host has the result sooner."""
    try:
        return call.elements(index)
    except DemandError:
        raise UnsupportedError("the size of its result is known only when it has run") from None


@reads("Identity", "Dropout")
def read_identity(call: Call) -> Sequence[Held]:
    """Dropout does nothing when a model is used; its mask, where somebody reads it, is all true."""
    if call.kind == "Identity":
        return [call.held(0)]
    x = call.operand(0)
    if call.kind == "Dropout":
        call.ignore("ratio", "seed", 1)
        if call.has(2) and call.scalar(2):
            raise UnsupportedError("in training mode: export the model after `model.eval()`")
    if call.results < 2:
        return [x]
    return [x, call.expand(known(np.ones((), np.float32)), x.type.shape)]
