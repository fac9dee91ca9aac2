"""Reducing: from a graph that fails to the smallest part of it that still does.

Every value of the graph is interpreted once. After that any part of the graph can be cut out, what
it reads becoming inputs that hold these values; the part is kept where it fails in the same stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from lucid.errors import LucidError
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.interpret import interpret
from lucid.ir.ops.base import Array
from lucid.ir.types import DTYPES, Dim
from lucid.runtime.check.blame import Blame, search
from lucid.runtime.check.case import Case
from lucid.runtime.check.report import Tools


def reduce(case: Case, tools: Tools | None = None) -> tuple[Case, Blame] | None:
    """The smallest case found to fail as this one does, and who is to blame for it; None where
    this one does not fail."""
    tools = tools or Tools()
    found = search(case, tools)
    if found is None:
        return None
    find, blame = found

    def failing(candidate: Case) -> Blame | None:
        try:
            again = find(candidate, tools)
        except LucidError:  # a part that cannot be compiled fails in another way
            return None
        return again if again and again.stage == blame.stage else None

    return smallest(case, blame, failing, tools)


def smallest(
    case: Case, blame: Blame, failing: Callable[[Case], Blame | None], tools: Tools | None = None
) -> tuple[Case, Blame]:
    """The smallest part found of a case that `failing` finds something wrong with, as with the
    whole (`blame`); None is what it gives for a part that is right, or wrong in another way."""
    reducer = _Reducer(case, blame, failing, _all_values(case), tools or Tools())
    reducer.shrink()
    return reducer.case, reducer.blame


@dataclass
class _Reducer:
    """The smallest failing case so far. `values`: every value of the whole graph by name."""

    case: Case
    blame: Blame
    failing: Callable[[Case], Blame | None]
    values: dict[str, Array]
    tools: Tools
    tries: int = 0

    def shrink(self) -> None:
        """Cut off the end, then the beginning, then output by output and node by node."""
        self.smaller_batch()
        self.end()
        self.beginning()
        while self.outputs() or self.nodes():
            pass

    def accept(self, candidate: Case) -> bool:
        """Whether the candidate fails too; it is then the smallest so far."""
        self.tries += 1
        self.tools.report("parts tried", self.tries, self.tries + len(self.case.graph.nodes))
        blame = self.failing(candidate)
        if blame is not None:
            self.case, self.blame = candidate, blame
        return blame is not None

    def part(self, outputs: Sequence[Value], inputs: Set[Value]) -> Case:
        graph = cut(self.case.graph, outputs, inputs)
        return self.case.with_graph(graph, tuple(self.values[v.name] for v in graph.inputs))

    def smaller_batch(self) -> None:
        """One image, where that will do."""
        if self.case.batch <= 1:
            return
        inputs = [
            _first_image(v, a)
            for v, a in zip(self.case.graph.inputs, self.case.inputs, strict=True)
        ]
        if self.accept(replace(self.case, inputs=tuple(inputs), batch=1)):
            self.values = _all_values(self.case)

    def end(self) -> None:
        """The shortest beginning of the graph that fails, found by halving."""
        nodes = list(self.case.graph.nodes)
        whole = self.case
        low, high = 0, len(nodes)  # the first `high` nodes fail
        while high - low > 1:
            middle = (low + high) // 2
            outputs = _crossing(whole.graph, nodes[:middle], nodes[middle:])
            before, self.case = self.case, whole
            if outputs and self.accept(self.part(outputs, set())):
                high = middle
            else:
                low, self.case = middle, before

    def beginning(self) -> None:
        """The shortest end of what is left that fails, found by halving."""
        whole, nodes = self.case, list(self.case.graph.nodes)
        low, high = 0, len(nodes)  # what is left without the first `low` nodes fails
        while high - low > 1:
            middle = (low + high) // 2
            inputs = set(_crossing(whole.graph, nodes[:middle], nodes[middle:]))
            before, self.case = self.case, whole
            outputs = [v for v in whole.graph.outputs if v not in inputs]
            if outputs and self.accept(self.part(outputs, inputs)):
                low = middle
            else:
                high, self.case = middle, before

    def outputs(self) -> bool:
        """Leave out outputs, one by one; whether any could be."""
        changed = False
        for number in reversed(range(len(self.case.graph.outputs))):
            outputs = list(self.case.graph.outputs)
            del outputs[number]
            changed |= bool(outputs) and self.accept(self.part(outputs, set()))
        return changed

    def nodes(self) -> bool:
        """Leave out nodes, one by one: what a node computes becomes an input, or what it reads an
        output; whether any could be."""
        for node in self.case.graph.nodes:
            outputs = [v for v in self.case.graph.outputs if v not in node.outputs]
            if _is_data(node.outputs) and outputs:
                if self.accept(self.part(outputs, set(node.outputs))):
                    return True
            elif len(self.case.graph.nodes) > 1:
                operands = [v for v in node.inputs if v.producer is not None]
                if operands and self.accept(self.part([*outputs, *operands], set())):
                    return True
        return False


def cut(graph: Graph, outputs: Sequence[Value], inputs: Set[Value]) -> Graph:
    """The part of a graph that makes `outputs` from the values `inputs`, which become inputs, and
    from what it needs of the graph's own inputs and parameters. Names stay."""
    needed: set[Value] = set()
    waiting = list(outputs)
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            if value.producer is not None and value not in inputs:
                waiting += value.producer.inputs
    part = Graph(graph.name, graph.payload)
    mapped: dict[Value, Value] = {}
    own = [v for v in graph.inputs if v in needed]
    for value in (*own, *(v for n in graph.nodes for v in n.outputs if v in needed & inputs)):
        mapped[value] = part.add_input(value.type, value.name)
    for name, parameter in graph.parameters.items():
        if parameter in needed:
            mapped[parameter] = part.add_parameter(name, parameter.recipe)
    for node in graph.nodes:
        made = [v for v in node.outputs if v in needed and v not in inputs]
        if made:
            new = part.append(
                node.op,
                [mapped[v] for v in node.inputs],
                names=[v.name for v in node.outputs],
                origin=node.origin,
                fused_from=node.fused_from,
                location=node.location,
            )
            mapped.update(zip(node.outputs, new.outputs, strict=True))
    part.set_outputs([mapped[v] for v in outputs])
    return part


def _crossing(graph: Graph, before: Sequence[Node], after: Sequence[Node]) -> list[Value]:
    """What nodes compute that later ones read, or that the graph returns."""
    read = {v for n in after for v in n.inputs} | set(graph.outputs)
    return [v for n in before for v in n.outputs if v in read and _is_data([v])]


def _is_data(values: Iterable[Value]) -> bool:
    """Whether values may be inputs of a graph."""
    return not any(isinstance(v, Parameter) for v in values)


def _all_values(case: Case) -> dict[str, Array]:
    """All inputs and results of a case's graph by name, floats in float32."""
    inputs = zip(case.graph.inputs, case.inputs, strict=True)
    values = {v.name: np.asarray(a, DTYPES[v.type.dtype]) for v, a in inputs}

    def keep(node: Node, results: tuple[Array, ...]) -> None:
        values.update((v.name, a) for v, a in zip(node.outputs, results, strict=True))

    interpret(case.graph, case.inputs, observe=keep)
    return values


def _first_image(value: Value, array: Array) -> Array:
    """The part of an input that belongs to the first image of the batch."""
    first = value.type.shape[0] if value.type.rank else 1
    return array[: first.coefficient] if isinstance(first, Dim) else array
