"""Operators whose results have as many elements as the elements of their operands say.

They run between graphs: those that are here by NumPy and by compiled pieces, any other by torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from lucid.frontend.torch.writer import emitter_name
from lucid.ir.ops import Array, NonMaxSuppression
from lucid.ir.pieces import Pieces

ALL = 2**31 - 1
"""As many boxes as are left."""


def selects(node: Node) -> bool:
    """Whether a node takes the elements for which a tensor is true."""
    if node.target is not torch.ops.aten.index.Tensor:
        return False
    _, indices = node.args
    assert isinstance(indices, list | tuple), "they are a list by torch's schema"
    kinds = [index.meta["val"].dtype for index in indices if isinstance(index, Node)]
    return torch.bool in kinds


def selected(target: Any, args: Sequence[Any], kwargs: dict[str, Any], pieces: Pieces) -> Any:
    """The result of an operator for tensors and numbers. Raises what NumPy or torch raise where it
    refuses them."""
    by_numpy = SELECTIONS.get(emitter_name(target))
    if by_numpy is not None and not kwargs and not _holds_bfloat16(args):
        result = by_numpy(pieces, *map(_array, args))
        if result is not None:
            return torch.from_numpy(np.ascontiguousarray(result))
    with torch.no_grad():
        return target(*args, **kwargs)


def _holds_bfloat16(args: Any) -> bool:
    """Whether a tensor is of bfloat16, which NumPy lacks."""
    if isinstance(args, list | tuple):
        return any(map(_holds_bfloat16, args))
    return isinstance(args, torch.Tensor) and args.dtype is torch.bfloat16


def _array(arg: Any) -> Any:
    """An argument with arrays for tensors."""
    if isinstance(arg, list | tuple):
        return [_array(each) for each in arg]
    return arg.detach().cpu().numpy() if isinstance(arg, torch.Tensor) else arg


def _nonzero(_: Pieces, x: Array) -> Array:
    return np.argwhere(x)


def _index(_: Pieces, x: Array, indices: Sequence[Array | None]) -> Array:
    """Bytes are truth values to torch."""
    where = [
        slice(None) if i is None else i.astype(bool) if i.dtype == np.uint8 else i for i in indices
    ]
    taken: Array = x[tuple(where)]
    return taken


def _masked(_: Pieces, x: Array, mask: Array) -> Array:
    everywhere, where = np.broadcast_arrays(x, mask)
    taken: Array = everywhere[where]
    return taken


def _suppressed(pieces: Pieces, boxes: Array, scores: Array, most: float) -> Array | None:
    """Of floats of 32 bits, (S, 4) and (S): torch computes in the dtype of the boxes."""
    fits = boxes.ndim == 2 and boxes.shape == (len(scores), 4) and scores.ndim == 1
    if not fits or boxes.dtype != np.float32 or scores.dtype != np.float32:
        return None
    if not len(boxes):
        return np.empty(0, np.int64)
    op = NonMaxSuppression(ALL, most, form="sides")
    rows, count = pieces.suppressed(op, boxes[None], scores[None, None])
    kept: Array = rows[: int(count), 2]
    return kept


SELECTIONS: dict[str, Callable[..., Array | None]] = {
    "aten.nonzero.default": _nonzero,
    "aten.index.Tensor": _index,
    "aten.masked_select.default": _masked,
    "torchvision.nms.default": _suppressed,
}
"""What operators give for arrays, by torch's names for them; None where that is left to torch."""
