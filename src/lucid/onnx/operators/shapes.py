"""Operators that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError, ShapeError, UnsupportedError
from lucid.ir.ops import Cast, Concat, Expand, Gather, Pad, Permute, Reshape, Slice
from lucid.ir.ops.shape import PAD_MODES
from lucid.ir.types import BATCH, DTYPES, Dim, Shape, TensorType, broadcast, volume
from lucid.onnx.known import Known, known
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

END = 2**31 - 1
"""What exporters write for the end of an axis, or more."""


# -- shapes -------------------------------------------------------------------------------------


@writes(Reshape)
def write_reshape(w: Writer, op: Reshape, operands: Sequence[Edge], kind: TensorType) -> str:
    """A dimension of the batch is 0 where it stays in its place, else -1 if it is the only one."""
    (x,) = operands
    stays = [i < x.type.rank and x.type.shape[i] == d for i, d in enumerate(kind.shape)]
    dims = [
        d if isinstance(d, int) else 0 if stay else -1
        for d, stay in zip(kind.shape, stays, strict=True)
    ]
    target = w.integers(*dims) if dims.count(-1) <= 1 else w.shape(kind.shape)
    return w.emit("Reshape", x, target)


@reads("Reshape")
def read_reshape(call: Call) -> Operand:
    """0 is the operand's own dimension, unless `allowzero`; -1 is what is left."""
    x, sizes = call.operand(0), call.sizes(1)
    own = x.type.shape
    if not call.integer("allowzero", 0):
        if any(d == 0 and i >= len(own) for i, d in enumerate(sizes)):
            raise ModelFileError(
                f"takes dimensions of {x.type} that it does not have: {_text(sizes)}"
            )
        sizes = tuple(own[i] if d == 0 else d for i, d in enumerate(sizes))
    if call.image_by_image and not isinstance(x, Known):
        return call.reshape(x, _for_each_image(call, own, sizes))
    return call.reshape(x, _filled(own, sizes))


@reads("Flatten")
def read_flatten(call: Call) -> Operand:
    shape = call.shape()
    axis = call.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise ModelFileError(f"axis {axis} is not one of {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return call.reshape(call.operand(0), (_merged(call, shape[:axis]), _merged(call, shape[axis:])))


def _filled(own: Shape, sizes: Shape) -> Shape:
    """The sizes with -1 replaced by what is left. Raises ShapeError."""
    return Reshape(sizes).infer(TensorType("f32", own)).shape


def _for_each_image(call: Call, own: Shape, sizes: Shape) -> Shape:
    """The shape that a batch has where the file says the shape that one image has.

    Images stay one after the other: the batch, in front before, is in front of the result.
    """
    alone = tuple(d.coefficient if isinstance(d, Dim) else d for d in own)
    sizes = tuple(d.coefficient if isinstance(d, Dim) else d for d in sizes)
    shape = _filled(alone, sizes)
    dims = [d for d in own if isinstance(d, Dim)]
    if not dims:
        return shape
    if len(dims) > 1 or not isinstance(own[0], Dim) or not shape:
        raise UnsupportedError("mixes the images of a batch")
    first, *rest = shape
    return (Dim(first, dims[0].symbol), *rest) if isinstance(first, int) else shape


def _merged(call: Call, shape: Shape) -> int | Dim:
    count, symbols = volume(shape)
    if len(symbols) > 1:
        raise UnsupportedError("merges two axes that depend on the batch")
    return Dim(count, symbols[0]) if symbols else count


@reads("Squeeze")
def read_squeeze(call: Call) -> Operand:
    """Axes were an attribute before opset 13; none of them means all that are 1."""
    x, axes = call.operand(0), call.axes()
    shape = x.type.shape
    if axes is None:
        axes = tuple(a for a, d in enumerate(shape) if d == 1)
        if call.image_by_image and isinstance(shape[0], Dim):
            raise UnsupportedError("drops the batch")
    if any(shape[a] != 1 for a in axes):
        raise ShapeError(f"drops the axes {list(axes)} of {x.type}, which are not all 1")
    return call.reshape(x, tuple(d for a, d in enumerate(shape) if a not in axes))


@reads("Unsqueeze")
def read_unsqueeze(call: Call) -> Operand:
    x = call.operand(0)
    given = call.integer_list("axes") or (call.integers(1) if call.has(1) else ())
    rank = x.type.rank + len(given)
    axes = {call.counted(a, rank) for a in given}
    if len(axes) < len(given):
        raise ModelFileError(f"names an axis twice: {list(given)}")
    rest = iter(x.type.shape)
    return call.reshape(x, tuple(1 if a in axes else next(rest) for a in range(rank)))


@writes(Permute)
def write_permute(w: Writer, op: Permute, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Transpose", operands[0], perm=op.axes)


@reads("Transpose")
def read_transpose(call: Call) -> Operand:
    axes = call.integer_list("perm") or tuple(reversed(range(call.rank())))
    return call.apply(Permute(axes), call.operand(0))


@writes(Expand)
def write_expand(w: Writer, op: Expand, operands: Sequence[Edge], kind: TensorType) -> str:
    """A dimension that is the operand's own may be 1: both are broadcast."""
    (x,) = operands
    own = (1,) * (kind.rank - x.type.rank) + x.type.shape
    dims = tuple(1 if a == d else d for a, d in zip(own, kind.shape, strict=True))
    return w.emit("Expand", x, w.shape(dims))


@reads("Expand")
def read_expand(call: Call) -> Operand:
    """Both the operand and the shape are broadcast."""
    x = call.operand(0)
    return call.expand(x, broadcast(x.type.shape, call.sizes(1)))


@reads("Tile")
def read_tile(call: Call) -> Operand:
    """Axes of 1 are broadcast; others are copies, one after the other."""
    x, repeats = call.operand(0), call.sizes(1)
    if len(repeats) != x.type.rank:
        raise ModelFileError(f"repeats {x.type} {_text(repeats)} times")
    for axis, times in enumerate(repeats):
        shape = x.type.shape
        if shape[axis] == 1:
            x = call.expand(x, (*shape[:axis], times, *shape[axis + 1 :]))
        elif isinstance(times, Dim):
            raise UnsupportedError("repeats an axis as often as there are images")
        elif times != 1:
            if times < 1:
                raise UnsupportedError(f"repeats an axis {times} times")
            apart = call.reshape(x, (*shape[:axis], 1, *shape[axis:]))
            copied = call.expand(apart, (*shape[:axis], times, *shape[axis:]))
            size = shape[axis] * times
            x = call.reshape(copied, (*shape[:axis], size, *shape[axis + 1 :]))
    return x


# -- parts --------------------------------------------------------------------------------------


@writes(Concat)
def write_concat(w: Writer, op: Concat, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Concat", *operands, axis=op.axis)


@reads("Concat")
def read_concat(call: Call) -> Operand:
    """What is made of constants for the one image of a file is there for each of a batch."""
    axis, operands = call.axis(), call.operands()
    filled = [o for o in operands if o.type.shape[axis : axis + 1] != (0,)] or operands[:1]
    batched = any(BATCH in o.type.shape[:1] for o in filled)
    if call.image_by_image and batched and axis > 0:
        filled = [
            call.expand(o, (BATCH, *o.type.shape[1:])) if o.type.shape[:1] == (1,) else o
            for o in filled
        ]
    return filled[0] if len(filled) == 1 else call.apply(Concat(axis), *filled)


@writes(Slice)
def write_slice(w: Writer, op: Slice, operands: Sequence[Edge], kind: TensorType) -> str:
    bounds = [w.integers(n) for n in (op.start, op.stop, op.axis, op.step)]
    return w.emit("Slice", operands[0], *bounds)


@reads("Slice")
def read_slice(call: Call) -> Operand:
    """Bounds were attributes before opset 10. They may lie outside the axis, or count from its end.

    The whole of a symbolic axis is the axis.
    """
    x = call.operand(0)
    if call.opset < 10:
        starts = call.integer_list("starts") or ()
        ends: Shape = call.integer_list("ends") or ()
        axes, steps = call.integer_list("axes"), None
    else:
        starts, ends = call.integers(1), call.sizes(2)
        axes = call.integers(3) if call.has(3) else None
        steps = call.integers(4) if call.has(4) else None
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelFileError("has starts, ends, axes and steps of unlike lengths")
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = _sliced(call, x, call.counted(axis, x.type.rank), start, end, step)
    return x


def _sliced(call: Call, x: Operand, axis: int, start: int, end: int | Dim, step: int) -> Operand:
    size = x.type.shape[axis]
    if step == 0:
        raise ModelFileError("has a step of 0")
    if isinstance(size, Dim) or isinstance(end, Dim):
        if start == 0 and step == 1 and (end == size or (isinstance(end, int) and end >= END)):
            return x
        raise UnsupportedError(
            f"takes {start}:{end} of an axis of {size}: that depends on the batch"
        )
    start, stop, step = slice(start, end, step).indices(size)
    if (start, stop, step) == (0, size, 1):
        return x
    indices = np.arange(start, stop, step)
    if isinstance(x, Known):
        return known(np.take(x.array, indices, axis=axis))
    if not indices.size:
        return _nothing(x.type.with_shape((*x.type.shape[:axis], 0, *x.type.shape[axis + 1 :])))
    if step < 0:
        return call.apply(Gather(axis), x, known(indices))
    return call.apply(Slice(axis, start, stop, step), x)


def _nothing(kind: TensorType) -> Known:
    """A tensor without elements."""
    if kind.batch_axes():
        raise UnsupportedError(f"takes nothing of a batch: {kind}")
    return known(np.zeros(kind.concrete(1), DTYPES[kind.dtype]))


@reads("Split")
def read_split(call: Call) -> list[Operand]:
    """Sizes were an attribute before opset 13; without any, parts alike, the last one smaller."""
    x, axis = call.operand(0), call.axis(0)
    (size,) = call.integer_dims(x.type.shape[axis])
    count = call.integer("num_outputs", call.outputs)
    sizes = call.integer_list("split") or (call.integers(1) if call.has(1) else None)
    if sizes is None:
        each = -(-size // max(1, count))
        sizes = tuple(min(each, size - i * each) for i in range(count))
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise ModelFileError(f"splits {size} into {list(sizes)}")
    ends = list(accumulate(sizes))
    return [
        _sliced(call, x, axis, end - part, end, 1) for part, end in zip(sizes, ends, strict=True)
    ]


@writes(Gather)
def write_gather(w: Writer, op: Gather, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Gather", *operands, axis=op.axis)


@reads("Gather")
def read_gather(call: Call) -> Operand:
    """One element, or several evenly apart, are a slice."""
    x, axis, where = call.operand(0), call.axis(0), call.operand(1)
    size = x.type.shape[axis]
    if isinstance(size, Dim) and isinstance(where, Known):
        return _image_by_image(call, x, axis, where)
    if not isinstance(where, Known) or isinstance(x, Known) or not isinstance(size, int):
        where = where if where.type.dtype == "i64" else call.apply(Cast("i64"), where)
        return call.apply(Gather(axis), x, where)
    indices = where.array.reshape(-1)
    if ((indices < -size) | (indices >= size)).any():
        raise ShapeError(f"takes {indices.tolist()[:8]} of axis {axis} of {x.type}")
    indices = indices % size
    steps = np.unique(np.diff(indices))
    if steps.size > 1 or (steps.size == 1 and steps[0] < 1) or not indices.size:
        return call.apply(Gather(axis), x, where)
    step = int(steps[0]) if steps.size else 1
    part = _sliced(call, x, axis, int(indices[0]), int(indices[-1]) + 1, step)
    shape = x.type.shape
    return call.reshape(part, (*shape[:axis], *where.array.shape, *shape[axis + 1 :]))


def _image_by_image(call: Call, x: Operand, axis: int, where: Known) -> Operand:
    """Indices into all images in one row, the same places of each: those that count images, or
    those of the one image that the file speaks of."""
    size, offsets = x.type.shape[0], where.array
    each = size.coefficient if isinstance(size, Dim) else 0
    alike = where.step == each or (call.image_by_image and not where.step and offsets.ndim > 0)
    if axis != 0 or not alike or not ((offsets >= 0) & (offsets < each)).all():
        raise UnsupportedError("takes single images of a batch")
    rows = call.reshape(x, (BATCH, each, *x.type.shape[1:]))
    places = offsets.reshape(-1)
    if not np.array_equal(places, np.arange(each)):
        rows = call.apply(Gather(1), rows, known(places))
    return call.reshape(rows, (BATCH * len(offsets), *offsets.shape[1:], *x.type.shape[1:]))


# -- borders ------------------------------------------------------------------------------------


@writes(Pad)
def write_pad(w: Writer, op: Pad, operands: Sequence[Edge], kind: TensorType) -> str:
    if op.mode == "wrap":  # a mode of later versions than Lucid writes
        return _gathered(w, op, operands[0])
    ends = w.integers(*op.before, *op.after)
    value = [w.constant(float(op.value), kind.dtype)] if op.mode == "constant" else []
    return w.emit("Pad", operands[0], ends, *value, mode=op.mode)


def _gathered(w: Writer, op: Pad, x: Edge) -> str:
    """A pad as its elements gathered, axis by axis."""
    y = x.name
    for axis, size in enumerate(x.type.shape):
        if op.before[axis] or op.after[axis]:
            assert isinstance(size, int), "an axis of the batch is not padded"
            y = w.emit("Gather", y, w.constant(op.sources(axis, size), "i64"), axis=axis)
    return y


@reads("Pad")
def read_pad(call: Call) -> Operand:
    """Pads and value were attributes before opset 11; a negative pad cuts."""
    x, mode = call.operand(0), call.text("mode", "constant")
    rank = x.type.rank
    if call.opset < 11:
        pads, value = call.integer_list("pads") or (), call.number("value", 0.0)
        axes: Sequence[int] = range(rank)
    else:
        pads = call.integers(1)
        value = call.scalar(2) if call.has(2) else 0.0
        given = call.integers(3) if call.has(3) else range(rank)
        axes = [call.counted(axis, rank) for axis in given]
    if len(pads) != 2 * len(axes):
        raise ModelFileError(f"has {len(pads)} pads for {len(axes)} axes")
    if mode not in PAD_MODES:
        raise UnsupportedError(f"with mode {mode}")
    before, after = [0] * rank, [0] * rank
    for axis, start, end in zip(axes, pads, pads[len(axes) :], strict=False):
        before[axis], after[axis] = max(0, start), max(0, end)
        if min(start, end) < 0:
            (size,) = call.integer_dims(x.type.shape[axis])
            x = _sliced(call, x, axis, max(0, -start), size - max(0, -end), 1)
    if not any(before) and not any(after):
        return x
    return call.apply(Pad(tuple(before), tuple(after), value, mode), x)


# -- blocks of pixels ---------------------------------------------------------------------------

BLOCKS = ("DCR", "CRD")
"""Orders in which channels become pixels: the place in the block first, or the channel."""


@reads("DepthToSpace")
def read_depth_to_space(call: Call) -> Operand:
    """(N, C b b, H, W) -> (N, C, H b, W b): channels become the pixels of a block."""
    x, block = call.operand(0), call.integer("blocksize", 0)
    n, channels, height, width = _image(call, block)
    if channels % (block * block):
        raise ModelFileError(f"makes blocks of {block}x{block} of {channels} channels")
    inner = channels // (block * block)
    if call.choice("mode", BLOCKS) == "DCR":
        x = call.reshape(x, (n, block, block, inner, height, width))
        x = call.apply(Permute((0, 3, 4, 1, 5, 2)), x)
    else:
        x = call.reshape(x, (n, inner, block, block, height, width))
        x = call.apply(Permute((0, 1, 4, 2, 5, 3)), x)
    return call.reshape(x, (n, inner, height * block, width * block))


@reads("SpaceToDepth")
def read_space_to_depth(call: Call) -> Operand:
    """(N, C, H b, W b) -> (N, C b b, H, W): the pixels of a block become channels."""
    x, block = call.operand(0), call.integer("blocksize", 0)
    n, channels, height, width = _image(call, block)
    if height % block or width % block:
        raise ModelFileError(f"makes blocks of {block}x{block} of an image of {height}x{width}")
    rows, columns = height // block, width // block
    x = call.reshape(x, (n, channels, rows, block, columns, block))
    by_block = call.choice("mode", BLOCKS) == "DCR"
    x = call.apply(Permute((0, 3, 5, 1, 2, 4) if by_block else (0, 1, 3, 5, 2, 4)), x)
    return call.reshape(x, (n, channels * block * block, rows, columns))


def _image(call: Call, block: int) -> tuple[int | Dim, int, int, int]:
    """The shape of the first operand, an image of blocks."""
    if call.rank() != 4 or block < 1:
        raise ModelFileError(
            f"takes images (N, C, H, W), and blocks of 1x1 at least: {call.shape()}"
        )
    channels, height, width = call.integer_dims(*call.shape()[1:])
    return call.shape()[0], channels, height, width


def _text(sizes: Shape) -> str:
    return "x".join(map(str, sizes))
