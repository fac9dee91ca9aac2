"""Tensors that depend on no input and no weight: index tables, masks, encodings of positions.

They are computed while a module is imported, by torch itself. Where their shape depends on the
batch, they are computed for two sizes of it, and must hold the same for every image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from torch.fx.node import map_arg

from lucid.frontend.torch.refused import Refused
from lucid.frontend.torch.sizes import Sizes
from lucid.ir.ops import Array
from lucid.ir.types import Dim, Shape

BATCHES = (2, 3)
"""The sizes of the batch that a table is computed for."""


@dataclass(frozen=True)
class Known:
    """A tensor, or several, that the importer computes: the results of a node."""

    node: Node


class Tables:
    """Computes known tensors. `given`: those that nodes without operands stand for. `sizes`: what
    the program's symbols stand for."""

    def __init__(self, given: Mapping[Node, torch.Tensor], sizes: Sizes) -> None:
        self.given = given
        self.sizes = sizes
        self._results: dict[tuple[Node, int], Any] = {}
        self._batched: dict[Node, bool] = {}

    def array(self, known: Known) -> tuple[Array, Shape]:
        """The elements, with 1 for each dimension that depends on the batch, and the whole shape.

        float64, int64 or bool. Raises Refused where elements depend on the batch.
        """
        shape = self.shape(known)
        if not self._depends_on_batch(known.node):
            return _as_numpy(self._at(known.node, BATCHES[0])), shape
        first, second = (self._first_image(known.node, shape, b) for b in BATCHES)
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise Refused("a table's elements depend on the size of the batch")
        return first, shape

    def tensor(self, known: Known) -> Any:
        """What torch computes, for the first of BATCHES where the batch is symbolic."""
        return self._at(known.node, BATCHES[0])

    def shape(self, known: Known) -> Shape:
        """The shape of a known tensor."""
        return self.sizes.shape_of(known.node.meta["val"])

    def _first_image(self, node: Node, shape: Shape, batch: int) -> Array:
        array = _as_numpy(self._at(node, batch))
        for axis, dim in enumerate(shape):
            if isinstance(dim, Dim):
                first = array.take([0], axis)
                if not np.array_equal(np.broadcast_to(first, array.shape), array):
                    raise Refused("a table differs from image to image of the batch")
                array = first
        return array

    def _at(self, node: Node, batch: int) -> Any:
        """The node's result for one size of the batch."""
        key = (node, batch)
        if key not in self._results:
            with torch.no_grad():
                self._results[key] = self._computed(node, batch)
        return self._results[key]

    def _computed(self, node: Node, batch: int) -> Any:
        if node in self.given:
            return self.given[node].detach()
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor | tuple | list):
            return self.sizes.at(value, batch)
        operand = partial(self._at, batch=batch)
        if depends_on_shape_only(node):
            operand = partial(self._anything, batch=batch)
        args, kwargs = map_arg((node.args, node.kwargs), operand)
        assert callable(node.target), "only calls are computed"
        return node.target(*args, **kwargs)

    def _anything(self, node: Node, batch: int) -> Any:
        """Some tensor of a node's shape and dtype."""
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor):
            return self.sizes.at(value, batch)
        return torch.empty([self.sizes.at(d, batch) for d in value.shape], dtype=value.dtype)

    def _depends_on_batch(self, node: Node) -> bool:
        if node not in self._batched:
            value = node.meta.get("val")
            is_size = isinstance(value, torch.SymInt)
            symbolic = is_size and isinstance(self.sizes.dimension(value), Dim)
            sizes = value.shape if isinstance(value, torch.Tensor) else ()
            self._batched[node] = (
                symbolic
                or any(isinstance(self.sizes.dimension(d), Dim) for d in sizes)
                or any(map(self._depends_on_batch, node.all_input_nodes))
            )
        return self._batched[node]


def depends_on_shape_only(node: Node) -> bool:
    """Whether an operator reads no elements of its operands."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._opname in (
        "full_like",
        "zeros_like",
        "ones_like",
        "new_full",
        "new_zeros",
        "new_ones",
    )


def _as_numpy(tensor: torch.Tensor) -> Array:
    """float64, int64 or bool."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        return np.asarray(tensor.double())
    return np.asarray(tensor if tensor.dtype is torch.bool else tensor.long())
