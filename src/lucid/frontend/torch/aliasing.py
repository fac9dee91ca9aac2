"""In-place operators (`relu_`, `add_`) of exported programs, which graphs do not have.

Where nothing but its result shows a change, the changed tensor simply is the result from there on.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import torch
from torch.fx import Graph, Node

PERHAPS_VIEWS = {"contiguous", "flatten", "reshape", "reshape_as", "to", "type_as"}
"""Operators that may give their operand itself, which their schemas do not say."""
DROPOUTS = {"alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout"}
"""Operators that give their operand itself, which their schemas do not say either (and which
torch's decompositions overlook)."""


def is_mutation(node: Node) -> bool:
    """Whether the node writes into its first operand, which its result then is."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def mutated(node: Node) -> Node:
    """The node whose tensor this one's is: where a chain of changes in place began."""
    while is_mutation(node) or _opname(node) in DROPOUTS:
        node = _operand(node)
    return node


def changes_show(graph: Graph) -> bool:
    """Whether a tensor is read after a change in place that was made through another view of its
    memory, or an input, a weight or a buffer is changed."""
    places = {node: i for i, node in enumerate(graph.nodes)}
    last_use = {n: max((places[user] for user in n.users), default=-1) for n in graph.nodes}
    shared: dict[Node, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        place = memory(node)
        if is_mutation(node):
            first = mutated(node)
            others = [n for n in shared[place] if mutated(n) is not first]
            if place.op != "call_function" or any(last_use[n] > places[node] for n in others):
                return True
        shared[place].append(node)
    return False


def memory(node: Node) -> Node:
    """The node that made the memory which a result lies in."""
    while is_mutation(node) or _is_view(node) or _opname(node) in DROPOUTS:
        node = _operand(node)
    return node


def _opname(node: Node) -> str:
    """What an operator of ATen is called; empty for others."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return str(target._opname)
    return ""


def _operand(node: Node) -> Node:
    first = node.args[0]
    assert isinstance(first, Node), f"{node} has a tensor as its first operand"
    return first


def _is_view(node: Node) -> bool:
    target: Any = node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if _opname(node) in PERHAPS_VIEWS:
        return True
    returns = target._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
