"""The nodes of a model in topological order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError

if TYPE_CHECKING:
    import onnx


def in_order(nodes: Sequence[onnx.NodeProto], defined: Set[str]) -> list[onnx.NodeProto]:
    """The nodes, each after those whose results it reads; as they are where they are so already.

    `defined`: the names that are known before. Names that nobody gives are left to the reader of
    the node. Raises ModelFileError for a cycle, naming nodes on it.
    """
    makers: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for name in node.output:
            if name and (name in makers or name in defined):
                raise ModelFileError(f"two values of the model are named {name!r}")
            if name:
                makers[name] = position
    needs = [{makers[name] for name in _read(node) if name in makers} for node in nodes]
    users: list[list[int]] = [[] for _ in nodes]
    for position, needed in enumerate(needs):
        for maker in needed:
            users[maker].append(position)
    if all(maker < position for position, needed in enumerate(needs) for maker in needed):
        return list(nodes)
    waiting = [len(needed) for needed in needs]
    ready = deque(position for position, count in enumerate(waiting) if count == 0)
    order = []
    while ready:
        position = ready.popleft()
        order.append(position)
        for user in users[position]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    if len(order) < len(nodes):
        raise ModelFileError(
            f"the model's nodes read each other in a circle: {_circle(nodes, needs)}"
        )
    return [nodes[position] for position in order]


def _read(node: onnx.NodeProto) -> set[str]:
    """The names a node reads, those of its subgraphs included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _read(inner)
        names.update(output.name for output in attribute.g.output)
    return names


def _circle(nodes: Sequence[onnx.NodeProto], needs: Sequence[set[int]]) -> str:
    """One circle: from any node that is left, back along what it needs, until one is met again."""
    left = set(range(len(nodes)))
    while True:
        free = {p for p in left if not needs[p] & left}
        if not free:
            break
        left -= free
    path = [min(left)]
    while True:
        following = min(needs[path[-1]] & left)
        if following in path:
            circle = path[path.index(following) :]
            return " <- ".join(
                f"{nodes[p].op_type} {nodes[p].name or next(iter(nodes[p].output), '')!r}"
                for p in [*circle, following]
            )
        path.append(following)
