"""The verifier: the rules every graph keeps, checked after every pass."""

from __future__ import annotations

from lucid.errors import ShapeError, VerifyError
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import Fusion
from lucid.ir.recipe import Source, sources
from lucid.ir.types import Dim, TensorType


def verify(graph: Graph, where: str = "") -> None:
    """Raise VerifyError where `graph` breaks a rule; `where` (`after fuse-epilogue`) leads.

    - Names are unique, and so are values and nodes.
    - A node reads inputs, parameters and results of earlier nodes of this graph, and outputs are
      among these (dominance).
    - The results of a node have the types that its op infers (types and arity).
    - A parameter has its recipe's type, which does not depend on the batch, and recipes agree on
      the types of their sources.
    - Producers and users are what the nodes say.
    - The bodies of fusions keep these rules too.
    """
    try:
        _check_parameters(graph)
        _check_order(graph)
        _check_names(graph)
        _check_links(graph)
        for node in graph.nodes:
            _check_types(node)
    except VerifyError as error:
        raise VerifyError(f"{where}: {error}" if where else str(error)) from None
    for node in graph.nodes:
        if isinstance(node.op, Fusion):
            verify(node.op.body, f"{where}: in the body of {node!r}".removeprefix(": "))


def _check_parameters(graph: Graph) -> None:
    known: dict[str, TensorType] = {}
    for name, parameter in graph.parameters.items():
        if name != parameter.name:
            raise VerifyError(f"parameter {parameter!r} is listed under the name {name!r}")
        if parameter.type != parameter.recipe.type:
            raise VerifyError(f"{parameter!r} has a recipe of type {parameter.recipe.type}")
        if any(isinstance(d, Dim) for d in parameter.type.shape):
            raise VerifyError(f"{parameter!r} depends on the batch, which no parameter may")
        for source in sources(parameter.recipe):
            _check_source(known, source)


def _check_source(known: dict[str, TensorType], source: Source) -> None:
    first = known.setdefault(source.name, source.type)
    if first != source.type:
        raise VerifyError(f"source @{source.name} is read both as {first} and as {source.type}")


def _check_order(graph: Graph) -> None:
    """Every value is defined before it is read."""
    defined = {*graph.inputs, *graph.parameters.values()}
    for node in graph.nodes:
        for value in node.inputs:
            if value not in defined:
                raise VerifyError(f"{node!r} reads {value!r}, which {_absence(graph, value)}")
        if defined.intersection(node.outputs):
            raise VerifyError(f"{node!r} is in the graph twice")
        defined.update(node.outputs)
    for value in graph.outputs:
        if value not in defined:
            raise VerifyError(f"output {value!r} {_absence(graph, value)}")


def _absence(graph: Graph, value: Value) -> str:
    if value.producer in graph.nodes:
        return f"is defined only later, by {value.producer!r}"
    return "is defined nowhere in the graph"


def _check_names(graph: Graph) -> None:
    seen: set[str] = set()
    for value in [*graph.inputs, *(v for node in graph.nodes for v in node.outputs)]:
        if value.name in seen:
            raise VerifyError(f"two values are named %{value.name}")
        seen.add(value.name)


def _check_links(graph: Graph) -> None:
    """Producers and users agree with the nodes."""
    users: dict[Value, set[Node]] = {value: set() for value in graph.values()}
    for node in graph.nodes:
        for value in node.inputs:
            users[value].add(node)
        for value in node.outputs:
            if value.producer is not node:
                raise VerifyError(f"{value!r}, a result of {node!r}, has another producer")
    for value, readers in users.items():
        if set(value.users) != readers:
            raise VerifyError(f"the users of {value!r} should be {readers}, are {value.users}")


def _check_types(node: Node) -> None:
    try:
        types = node.op.result_types(*(v.type for v in node.inputs))
    except ShapeError as error:
        raise VerifyError(f"{node!r}: {error}") from None
    stated = tuple(v.type for v in node.outputs)
    if types != stated:
        wanted, given = ", ".join(map(str, types)), ", ".join(map(str, stated))
        raise VerifyError(f"{node!r} states the type {given}, but its op infers {wanted}")
