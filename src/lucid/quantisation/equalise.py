"""Cross-layer equalisation: channels between two layers are scaled so that both layers' weights use
the range that they share.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization
and bias correction", ICCV 2019, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucid.ir.graph import Graph, Node, Parameter
from lucid.ir.ops import Conv2d, MaxPool2d, Relu
from lucid.ir.ops.base import Array
from lucid.quantisation.places import layers_of

HOMOGENEOUS = (Relu, MaxPool2d)
"""Ops f with f(s x) = s f(x) for s > 0, by channel, that may stand between two layers. A clip at 6
is none."""
SWEEPS = 40
CLOSE = 1e-3
"""Sweeps end when no channel is scaled by more than this."""


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads the first, as (O, ...) and (O, C/groups, ...)."""

    first: Node
    second: Node


def pairs(graph: Graph) -> list[Pair]:
    """The layers that can be equalised with the one after them, in order. Weights that several
    nodes share belong to none."""
    layers = layers_of(graph)
    alone = [n for n in layers if all(len(v.users) == 1 for v in n.inputs[1:])]
    found = []
    for first in alone:
        value = first.output
        while graph.has_one_user(value) and isinstance(value.users[0].op, HOMOGENEOUS):
            value = value.users[0].output
        if not graph.has_one_user(value):
            continue
        second = value.users[0]
        if second in alone and second.inputs[0] is value and _share_channels(first, second):
            found.append(Pair(first, second))
    return found


def _share_channels(first: Node, second: Node) -> bool:
    """Whether the rows of one weight are the columns of the next."""
    if isinstance(first.op, Conv2d) != isinstance(second.op, Conv2d):
        return False
    groups = second.op.groups if isinstance(second.op, Conv2d) else 1
    (rows, *_), (_, columns, *_) = first.inputs[1].type.shape, second.inputs[1].type.shape
    return isinstance(columns, int) and rows == columns * groups


def equalised(graph: Graph) -> dict[str, Array]:
    """The tensors of a graph whose parameters are tensors of its own, by their names, with the
    weights and biases of all `pairs` equalised: what the network computes stays the same."""
    tensors = {name: np.asarray(array) for name, array in graph.payload.items()}
    chain = pairs(graph)
    for _ in range(SWEEPS):
        moved = [_equalise(pair, tensors) for pair in chain]
        if max(moved, default=0.0) < CLOSE:
            break
    return tensors


def _equalise(pair: Pair, tensors: dict[str, Array]) -> float:
    """Scale the channels between two layers by sqrt(r1 * r2) / r2, of the largest weights r1 and r2
    that make and read each. Gives by how much the most is scaled, as a logarithm."""
    first, second = pair.first.inputs[1], pair.second.inputs[1]
    groups = pair.second.op.groups if isinstance(pair.second.op, Conv2d) else 1
    before, after = tensors[first.name], tensors[second.name]
    own = np.abs(before.reshape(len(before), -1)).max(axis=1).astype(np.float64)
    by_group = after.reshape(groups, len(after) // groups, after.shape[1], -1)
    read = np.abs(by_group).max(axis=(1, 3)).reshape(-1).astype(np.float64)
    usable = (own > 0) & (read > 0)
    scale = np.ones(len(own))
    scale[usable] = np.sqrt(own[usable] / read[usable])
    tensors[first.name] = (before / _along(scale, before.ndim)).astype(before.dtype)
    for bias in pair.first.inputs[2:]:
        assert isinstance(bias, Parameter)
        tensors[bias.name] = (tensors[bias.name] / scale).astype(tensors[bias.name].dtype)
    columns = by_group * scale.reshape(groups, 1, -1, 1)
    tensors[second.name] = columns.reshape(after.shape).astype(after.dtype)
    return float(np.abs(np.log(scale)).max(initial=0.0))


def _along(scale: Array, rank: int) -> Array:
    return scale.reshape(-1, *(1,) * (rank - 1))
