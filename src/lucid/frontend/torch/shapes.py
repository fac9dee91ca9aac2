"""PyTorch's operators that move elements. Result shapes are those that torch inferred."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.types import concrete, volume


@emits("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints")
@emits("unsqueeze.default", "squeeze.default", "squeeze.dim", "squeeze.dims", "unflatten.int")
@emits("view_as.default", "reshape_as.default", "view_copy.default", "_reshape_copy.default")
def reshape(w: Writer, x: Any, *options: Any) -> Value:
    return w.reshape(x, w.shape)


@emits("expand.default", "expand_as.default", "broadcast_to.default")
def expand(w: Writer, x: Any, *options: Any) -> Value:
    return w.expand(x, w.shape)


@emits("copy.default")
def copy(w: Writer, x: Any, source: Any, *options: Any) -> Value:
    return w.expand(source, w.shape)


@emits("fill.Scalar", "fill.Tensor")
def fill(w: Writer, x: Any, value: Any) -> Value:
    return w.expand(value, w.shape)


@emits("permute.default")
def permute(w: Writer, x: Any, dims: Sequence[int]) -> Value:
    return w.permute(x, [w.axis(d) for d in dims])


@emits("transpose.int", "swapaxes.default", "swapdims.default")
def transpose(w: Writer, x: Any, first: int, second: int) -> Value:
    axes = list(range(len(w.shape)))
    i, j = w.axis(first), w.axis(second)
    axes[i], axes[j] = axes[j], axes[i]
    return w.permute(x, axes)


@emits("t.default", "numpy_T.default")
def reversed_axes(w: Writer, x: Any) -> Value:
    return w.permute(x, range(len(w.shape))[::-1])


@emits("mT.default", "mH.default", "matrix_H.default", "adjoint.default")
def transposed(w: Writer, x: Any) -> Value:
    """Of matrices in the last two axes; of real numbers, the adjoint is just that."""
    return transpose(w, x, -2, -1)


@emits("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist")
def movedim(w: Writer, x: Any, source: Any, target: Any) -> Value:
    pairs = [[s] if isinstance(s, int) else list(s) for s in (source, target)]
    old, new = ([w.axis(d) for d in dims] for dims in pairs)
    rest = iter(a for a in range(len(w.shape)) if a not in old)
    places = dict(zip(new, old, strict=True))
    return w.permute(x, [places[a] if a in places else next(rest) for a in range(len(w.shape))])


@emits("pixel_shuffle.default")
def pixel_shuffle(w: Writer, x: Any, factor: int) -> Value:
    """(..., C r r, H, W) -> (..., C, H r, W r)."""
    *batch, _, height, width = w.shape_of(x)
    channels, n = w.shape[-3], len(batch)
    apart = w.reshape(x, (*batch, channels, factor, factor, height, width))
    axes = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return w.reshape(w.permute(apart, axes), w.shape)


@emits("channel_shuffle.default", "native_channel_shuffle.default")
def channel_shuffle(w: Writer, x: Any, groups: int) -> Value:
    """Channel i of group g becomes channel g of group i."""
    batch, channels, *size = w.shape
    apart = w.reshape(x, (batch, groups, w.size(channels) // groups, *size))
    axes = (0, 2, 1, *range(3, 3 + len(size)))
    return w.reshape(w.permute(apart, axes), w.shape)


# -- joining ------------------------------------------------------------------------------------


@emits("cat.default", "concat.default", "concatenate.default")
def concat(w: Writer, pieces: Sequence[Any], dim: int) -> Value:
    axis = w.axis(dim)
    parts = [w.alike(w.value(p)) for p in pieces if w.shape_of(p) != (0,)]  # torch skips these
    kept = [p for p in parts if p.type.shape[axis] != 0] or parts[:1]
    if not kept:
        return w.value(pieces[0])
    return kept[0] if len(kept) == 1 else w.emit(ops.Concat(axis), *kept)


@emits("stack.default")
def stack(w: Writer, pieces: Sequence[Any], dim: int) -> Value:
    axis = w.axis(dim)
    shape = (*w.shape[:axis], 1, *w.shape[axis + 1 :])
    return concat(w, [w.reshape(p, shape) for p in pieces], dim)


@emits("repeat_interleave.self_int")
def repeat_interleave(w: Writer, x: Any, times: int, dim: int | None, size: Any) -> Value:
    """Each element of an axis several times in a row: an axis (d) as (d, 1), expanded, joined."""
    if dim is None:
        w.refuse("it repeats over all axes as one")
    own, axis = w.shape_of(x), w.axis(dim)
    apart = w.reshape(x, (*own[: axis + 1], 1, *own[axis + 1 :]))
    return w.reshape(w.expand(apart, (*own[: axis + 1], times, *own[axis + 1 :])), w.shape)


@emits("repeat.default", "tile.default")
def repeat(w: Writer, x: Any, repeats: Sequence[Any]) -> Value:
    """Each axis d as (1, d), expanded to (r, d), and joined again."""
    own = w.shape_of(x)
    times = (1,) * (len(w.shape) - len(repeats)) + tuple(repeats)
    own = (1,) * (len(w.shape) - len(own)) + own
    if all(t == 1 or d == 1 for t, d in zip(times, own, strict=True)):
        return w.expand(w.reshape(x, own), w.shape)
    apart = w.reshape(x, tuple(size for d in own for size in (1, d)))
    pairs = tuple(size for t, d in zip(times, own, strict=True) for size in (t, d))
    return w.reshape(w.expand(apart, pairs), w.shape)


# -- taking apart -------------------------------------------------------------------------------


@emits("slice.Tensor")
def slice_(w: Writer, x: Any, dim: int, start: Any, stop: Any, step: int) -> Value:
    own = w.shape_of(x)
    axis = w.axis(dim)
    if own == w.shape:
        return w.value(x)
    first, last = _range(w.size(own[axis]), start, stop)
    return w.slice(x, axis, first, last, step)


def _range(size: int, start: Any, stop: Any) -> tuple[int, int]:
    """A range of torch's within 0..size."""
    sides = (0 if start is None else start, size if stop is None else stop)
    first, last = (min(max(s + size if s < 0 else s, 0), size) for s in sides)
    return first, last


@emits("narrow.default")
def narrow(w: Writer, x: Any, dim: int, start: int, length: int) -> Value:
    own = w.shape_of(x)
    return slice_(w, x, dim, start, start % w.size(own[w.axis(dim)]) + length, 1)


@emits("select.int")
def select(w: Writer, x: Any, dim: int, index: int) -> Value:
    own = w.shape_of(x)
    axis = w.axis(dim, len(own))
    place = index % w.size(own[axis])
    return w.reshape(w.slice(x, axis, place, place + 1), w.shape)


@emits("unbind.int")
def unbind(w: Writer, x: Any, dim: int) -> list[Value]:
    own = w.shape_of(x)
    return [select(w, x, dim, i) for i in range(w.size(own[w.axis(dim, len(own))]))]


@emits("split_with_sizes.default", "split.sizes", "split_with_sizes_copy.default")
def split_by(w: Writer, x: Any, sizes: Sequence[int], dim: int) -> list[Value]:
    axis, starts = w.axis(dim), np.cumsum([0, *sizes]).tolist()
    return [w.slice(x, axis, s, s + n) for s, n in zip(starts, sizes, strict=False)]


@emits("split.Tensor")
def split(w: Writer, x: Any, size: int, dim: int) -> list[Value]:
    total = w.size(w.shape_of(x)[w.axis(dim)])
    return split_by(w, x, [min(size, total - s) for s in range(0, total, size)], dim)


@emits("chunk.default")
def chunk(w: Writer, x: Any, chunks: int, dim: int) -> list[Value]:
    total = w.size(w.shape_of(x)[w.axis(dim)])
    return split(w, x, -(-total // chunks), dim)


@emits("slice_scatter.default")
def slice_scatter(
    w: Writer, x: Any, source: Any, dim: int, start: Any, stop: Any, step: int
) -> Value:
    """x with a range along an axis replaced; with gaps, gathered from both side by side."""
    axis = w.axis(dim)
    if w.shape_of(source) == w.shape:
        return w.value(source)
    size = w.size(w.shape[axis])
    first, last = _range(size, start, stop)
    if step == 1:
        return _replaced(w, x, w.value(source), axis, first, last)
    table = np.arange(size)
    table[first:last:step] = size + np.arange(len(range(first, last, step)))
    both = w.emit(ops.Concat(axis), x, source)
    return w.emit(ops.Gather(axis), both, w.constant(table, "i64"))


@emits("select_scatter.default")
def select_scatter(w: Writer, x: Any, source: Any, dim: int, index: int) -> Value:
    """x with one place of an axis replaced."""
    axis = w.axis(dim)
    place = index % w.size(w.shape[axis])
    piece = w.reshape(source, (*w.shape[:axis], 1, *w.shape[axis + 1 :]))
    return _replaced(w, x, piece, axis, place, place + 1)


def _replaced(w: Writer, x: Any, piece: Value, axis: int, first: int, last: int) -> Value:
    size, pieces = w.size(w.shape[axis]), [piece]
    if first > 0:
        pieces.insert(0, w.slice(x, axis, 0, first))
    if last < size:
        pieces.append(w.slice(x, axis, last, size))
    return concat(w, pieces, axis)


@emits("as_strided.default", "as_strided_copy.default")
def as_strided(w: Writer, x: Any, size: Any, stride: Any, offset: Any) -> Value:
    """The elements of x in another shape: other uses look into memory, which the graph has not.

    What is read where is worked out for two images.
    """
    own = w.shape_of(x)
    places = np.arange(prod(concrete(own, 2)))
    wanted, steps = concrete(w.shape, 2), [s if isinstance(s, int) else s * 2 for s in stride]
    index = np.full(wanted, 0 if offset is None else offset)
    for axis, (n, step) in enumerate(zip(wanted, steps, strict=True)):
        along = np.arange(n).reshape((-1,) + (1,) * (len(wanted) - axis - 1))
        index = index + along * int(step)
    if volume(own) != volume(w.shape) or not np.array_equal(index.ravel(), places):
        w.refuse("it looks at the memory of its operand in another order")
    return w.reshape(x, w.shape)


# -- borders ------------------------------------------------------------------------------------

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@emits("pad.default")
def pad(w: Writer, x: Any, sizes: Sequence[int], mode: str, value: float | None) -> Value:
    """`sizes`: before and after, from the last axis on. What is negative is cut off."""
    own = w.shape_of(x)
    if mode not in MODES:
        w.refuse(f"it pads by the mode {mode}")
    sides = [(0, 0)] * len(own)
    for i in range(len(sizes) // 2):
        sides[-1 - i] = (sizes[2 * i], sizes[2 * i + 1])
    for axis, (before, after) in enumerate(sides):
        if before < 0 or after < 0:
            size = w.size(own[axis])
            x = w.slice(x, axis, max(0, -before), size - max(0, -after))
    heads, tails = (tuple(max(0, s[i]) for s in sides) for i in (0, 1))
    if not any((*heads, *tails)):
        return w.value(x)
    return w.emit(ops.Pad(heads, tails, float(value or 0), MODES[mode]), x)


@emits("constant_pad_nd.default")
def constant_pad(w: Writer, x: Any, sizes: Sequence[int], value: float) -> Value:
    return pad(w, x, sizes, "constant", value)


@emits("reflection_pad1d.default", "reflection_pad2d.default", "reflection_pad3d.default")
def reflection_pad(w: Writer, x: Any, sizes: Sequence[int]) -> Value:
    return pad(w, x, sizes, "reflect", None)


@emits("replication_pad1d.default", "replication_pad2d.default", "replication_pad3d.default")
def replication_pad(w: Writer, x: Any, sizes: Sequence[int]) -> Value:
    return pad(w, x, sizes, "replicate", None)
