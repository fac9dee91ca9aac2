"""Two graphs of one network: which tensor of the one stands where a tensor of the other does.

Names do not count: another export numbers values and tensors in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.printer import print_node, print_parameter
from lucid.ir.recipe import Apply, Recipe, Source


@dataclass
class Matching:
    """What two graphs have in common, as their outputs tell it.

    `sources`: the tensor of the other for each of the first, both as recipes name them.
    `differences`: where the graphs are not the same, as both say it, in the order of the first.
    """

    sources: dict[Source, Source] = field(default_factory=dict)
    differences: list[tuple[str, str]] = field(default_factory=list)


def match(graph: Graph, other: Graph, inputs: dict[Value, Value]) -> Matching:
    """Match two graphs from their outputs back to `inputs`, values of the one by those of the
    other; where something differs, what lies before it is not looked at."""
    found = Matching()
    if len(graph.outputs) != len(other.outputs):
        counts = (f"{len(g.outputs)} outputs" for g in (graph, other))
        found.differences.append((next(counts), next(counts)))
        return found
    order = {node: place for place, node in enumerate(graph.nodes)}
    differences: list[tuple[int, str, str]] = []
    matched: dict[Value, Value] = dict(inputs)
    waiting = list(zip(graph.outputs, other.outputs, strict=True))
    while waiting:
        a, b = waiting.pop()
        if a in matched:
            same = matched[a] is b
        else:
            matched[a] = b
            same = _same_value(a, b, found.sources)
            if same and a.producer is not None and b.producer is not None:
                waiting += zip(a.producer.inputs, b.producer.inputs, strict=True)
        if not same:
            place = order.get(a.producer, -1) if a.producer is not None else -1
            differences.append((place, _text(a), _text(b)))
    found.differences = [(mine, its) for _, mine, its in sorted(differences)]
    return found


def _same_value(a: Value, b: Value, sources: dict[Source, Source]) -> bool:
    """Whether two values are made alike, of operands that are still to be compared."""
    if isinstance(a, Parameter) and isinstance(b, Parameter):
        return _same_recipe(a.recipe, b.recipe, sources)
    if a.producer is None or b.producer is None:
        return False
    return _same_node(a.producer, b.producer) and (
        a.producer.outputs.index(a) == b.producer.outputs.index(b)
    )


def _same_node(a: Node, b: Node) -> bool:
    return a.op == b.op and len(a.inputs) == len(b.inputs)


def _same_recipe(a: Recipe, b: Recipe, sources: dict[Source, Source]) -> bool:
    """Whether two recipes differ in names and shapes of tensors only, which are noted."""
    if isinstance(a, Source) and isinstance(b, Source):
        return sources.setdefault(a, b) == b
    if isinstance(a, Apply) and isinstance(b, Apply):
        pairs = zip(a.arguments, b.arguments, strict=False)
        alike = a.op == b.op and len(a.arguments) == len(b.arguments)
        return alike and all(_same_recipe(x, y, sources) for x, y in pairs)
    return a == b


def _text(value: Value) -> str:
    """A value as a message shows it, with what makes it."""
    if isinstance(value, Parameter):
        return print_parameter(value)
    if value.producer is None:
        return repr(value)
    return print_node(value.producer, lineage=False)
