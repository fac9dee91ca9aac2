"""The rules of a legal graph, which the verifier checks after every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lucid.errors import ShapeError, VerifyError
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import Fusion
from lucid.ir.recipe import Source, sources
from lucid.ir.types import Dim, TensorType

Check = Callable[[Graph], Iterator[str]]
"""What breaks a rule, in words: nothing of a legal graph."""


@dataclass(frozen=True)
class Rule:
    """One thing that holds of every legal graph: its name, what it says, and what finds where a
    graph breaks it. A check may rely on the rules before its own."""

    name: str
    statement: str
    breaches: Check


RULES: list[Rule] = []
"""The rules, in the order in which they are checked. With the shape rules of the ops (`types`),
they are all that a graph has to keep."""


def rule(name: str, statement: str) -> Callable[[Check], Check]:
    """Make the decorated function the check of a rule."""

    def declare(check: Check) -> Check:
        RULES.append(Rule(name, statement, check))
        return check

    return declare


def verify(graph: Graph, where: str = "") -> None:
    """Raise VerifyError, with the rule, where `graph` breaks one of RULES; `where` (`after
    fuse-epilogue`) leads. The bodies of fusions are graphs that keep the rules too."""
    for each in RULES:
        for breach in each.breaches(graph):
            lead = f"{where}: " if where else ""
            raise VerifyError(f"{lead}{breach} (rule {each.name}: {each.statement})")
    for node in graph.nodes:
        if isinstance(node.op, Fusion):
            verify(node.op.body, f"{where}: in the body of {node!r}".removeprefix(": "))


# -- parameters -----------------------------------------------------------------------------------


@rule("parameters", "a parameter has its recipe's type, which no batch is in, under its own name")
def _parameters(graph: Graph) -> Iterator[str]:
    for name, parameter in graph.parameters.items():
        if name != parameter.name:
            yield f"parameter {parameter!r} is listed under the name {name!r}"
        if parameter.type != parameter.recipe.type:
            yield f"{parameter!r} has a recipe of type {parameter.recipe.type}"
        if any(isinstance(d, Dim) for d in parameter.type.shape):
            yield f"{parameter!r} depends on the batch, which no parameter may"


@rule("sources", "all recipes read a source tensor as one type")
def _sources(graph: Graph) -> Iterator[str]:
    known: dict[str, TensorType] = {}
    for parameter in graph.parameters.values():
        for source in sources(parameter.recipe):
            yield from _source(known, source)


def _source(known: dict[str, TensorType], source: Source) -> Iterator[str]:
    first = known.setdefault(source.name, source.type)
    if first != source.type:
        yield f"source @{source.name} is read both as {first} and as {source.type}"


# -- values ---------------------------------------------------------------------------------------


@rule("order", "what is read is an input, a parameter, or a result of one earlier node")
def _order(graph: Graph) -> Iterator[str]:
    defined = {*graph.inputs, *graph.parameters.values()}
    for node in graph.nodes:
        for value in node.inputs:
            if value not in defined:
                yield f"{node!r} reads {value!r}, which {_absence(graph, value)}"
        if defined.intersection(node.outputs):
            yield f"{node!r} is in the graph twice"
        defined.update(node.outputs)
    for value in graph.outputs:
        if value not in defined:
            yield f"output {value!r} {_absence(graph, value)}"


def _absence(graph: Graph, value: Value) -> str:
    if value.producer in graph.nodes:
        return f"is defined only later, by {value.producer!r}"
    return "is defined nowhere in the graph"


@rule("names", "no two inputs or results have one name")
def _names(graph: Graph) -> Iterator[str]:
    seen: set[str] = set()
    for value in [*graph.inputs, *(v for node in graph.nodes for v in node.outputs)]:
        if value.name in seen:
            yield f"two values are named %{value.name}"
        seen.add(value.name)


@rule("links", "a value knows the node that makes it and those that read it")
def _links(graph: Graph) -> Iterator[str]:
    users: dict[Value, set[Node]] = {value: set() for value in graph.values()}
    for node in graph.nodes:
        for value in node.inputs:
            users[value].add(node)
        for value in node.outputs:
            if value.producer is not node:
                yield f"{value!r}, a result of {node!r}, has another producer"
    for value, readers in users.items():
        if set(value.users) != readers:
            yield f"the users of {value!r} should be {readers}, are {value.users}"


# -- types ----------------------------------------------------------------------------------------


@rule("types", "the results of a node have the types that its op infers of its operands'")
def _types(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        stated = tuple(v.type for v in node.outputs)
        try:
            types = node.op.result_types(*(v.type for v in node.inputs))
        except ShapeError as error:
            yield f"{node!r}: {error}"
            continue
        if types != stated:
            wanted, given = ", ".join(map(str, types)), ", ".join(map(str, stated))
            yield f"{node!r} states the type {given}, but its op infers {wanted}"
