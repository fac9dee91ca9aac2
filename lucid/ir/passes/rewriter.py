"""What passes are made of: rules on nodes, the graph as a rule sees it, and the driver.

A pass is a list of rules. A rule looks at one node, or at the whole graph, and either does nothing
or rewrites it through the `Rewriter`; the driver applies the rules in topological order until none
of them fires. Rules never erase nodes: what nobody reads any more goes away by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from lucid.errors import CompileError
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Op
from lucid.ir.recipe import Recipe
from lucid.ir.text import print_node


@dataclass(frozen=True)
class Firing:
    """One rewrite that happened: which rule, where it is declared, and the nodes as text."""

    pass_name: str
    rule: str
    line: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class Rewriter:
    """The graph as a rule sees it. The mutators keep users, names, work list and log right."""

    def __init__(self, graph: Graph, keep_text: bool = False) -> None:
        self.graph = graph
        self.changes = 0
        self.pending: set[Node] = set(graph.nodes)
        self.erased: set[Node] = set()
        self._sources = frozenset(graph.sources())
        self._keep_text = keep_text
        self._before: list[str] = []
        self._created: list[Node] = []

    # -- looking ----------------------------------------------------------------------------

    def only_user(self, value: Value) -> Node | None:
        """The node that reads `value`, where just one does and the graph does not return it."""
        return value.users[0] if self.graph.has_one_user(value) else None

    def in_order(self, nodes: set[Node]) -> list[Node]:
        """The nodes in the graph's order."""
        return [n for n in self.graph.nodes if n in nodes]

    # -- rewriting --------------------------------------------------------------------------

    def parameter(self, name: str, recipe: Recipe) -> Parameter:
        """A parameter given by `recipe`, called `name` or, where that is taken, much like it."""
        while name in self._sources:
            name += "_"
        return self.graph.add_parameter(name, recipe)

    def insert_before(self, node: Node, op: Op, inputs: Sequence[Value]) -> Value:
        """The result of a new node just before `node`, with the origin of `node`."""
        new = self.graph.insert_before(
            node, op, inputs, origin=node.origin, fused_from=node.fused_from, location=node.location
        )
        self._note(new)
        return new.output

    def substitute(
        self, node: Node, op: Op, inputs: Sequence[Value], fuses: Sequence[Node] = ()
    ) -> Node:
        """A new node in the place of `node`, under its result's name.

        `fuses`: the nodes it does the work of, `node` among them: it stands for all of them, and
        has the origin of the first. Without them it is `node` in another form.
        """
        first = fuses[0] if fuses else node
        lineage = tuple(line for n in fuses for line in _lineage(n)) or node.fused_from
        operands, types = list(node.inputs), [v.type for v in node.outputs]
        self._forget(node)
        new = self.graph.substitute(
            node, op, inputs, origin=first.origin, fused_from=lineage, location=first.location
        )
        assert [v.type for v in new.outputs] == types, f"{new} has another type than {types}"
        self._note(new)
        self._sweep_up(operands)
        return new

    def replace(self, node: Node, values: Sequence[Value]) -> None:
        """Let the users of `node`'s results read `values`; `node` goes away."""
        assert [v.type for v in node.outputs] == [v.type for v in values], f"{node} changes type"
        operands = list(node.inputs)
        self._forget(node)
        self.graph.replace(node, values)
        self._revisit(values)
        self._sweep_up(operands)

    def erase(self, node: Node) -> None:
        """Remove a node that nobody reads, and what only it read."""
        operands = list(node.inputs)
        self._forget(node)
        self.graph.erase(node)
        self._sweep_up(operands)

    def drop_parameter(self, parameter: Parameter) -> None:
        """Remove a parameter that nobody reads."""
        self.changes += 1
        self.graph.drop_parameter(parameter)

    def _sweep_up(self, values: Sequence[Value]) -> None:
        """Erase what made these values where nobody reads them any more, and so on upwards."""
        left = list(values)
        while left:
            value = left.pop()
            node = value.producer
            if self.graph.is_used(value):
                self._revisit([value])
            elif isinstance(value, Parameter):
                if self.graph.parameters.get(value.name) is value:
                    self.graph.drop_parameter(value)
            elif node is not None and node not in self.erased and self._is_unread(node):
                left.extend(node.inputs)
                self._forget(node)
                self.graph.erase(node)

    def _is_unread(self, node: Node) -> bool:
        return not any(self.graph.is_used(v) for v in node.outputs)

    def _revisit(self, values: Sequence[Value]) -> None:
        """Put what makes and what reads these values on the work list."""
        for value in values:
            self.pending.update(value.users)
            if value.producer is not None:
                self.pending.add(value.producer)

    def _note(self, new: Node) -> None:
        self.changes += 1
        self._created.append(new)
        self.pending.add(new)
        self._revisit(new.outputs)

    def _forget(self, node: Node) -> None:
        self.changes += 1
        self.erased.add(node)
        self.pending.discard(node)
        if self._keep_text and node not in self._created:
            self._before.append(print_node(node))

    def take_record(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts of the nodes erased and made since the last call."""
        alive = [n for n in self._created if n not in self.erased]
        after = tuple(map(print_node, alive)) if self._keep_text else ()
        before = tuple(reversed(self._before))
        self._before, self._created = [], []
        return before, after


def _lineage(node: Node) -> tuple[str, ...]:
    """What a node was fused from, or itself: `conv2d layer1.0.conv1`."""
    return node.fused_from or (f"{node.op.name} {node.origin}".strip(),)


# -- passes and rules -----------------------------------------------------------------------

NodeRule = Callable[[Node, Rewriter], None]
GraphRule = Callable[[Rewriter], None]


@dataclass
class Pass:
    """A named list of rules; declaring one registers it. Rules join by decorator."""

    name: str
    summary: str
    node_rules: list[tuple[tuple[type[Op], ...], NodeRule]] = field(default_factory=list)
    graph_rules: list[GraphRule] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.name not in PASSES, f"two passes are named {self.name}"
        PASSES[self.name] = self

    def rules_for(self, op: Op) -> list[NodeRule]:
        return [rule for classes, rule in self.node_rules if isinstance(op, classes)]


PASSES: dict[str, Pass] = {}
"""Every pass by its name."""

R = TypeVar("R", bound=NodeRule)
G = TypeVar("G", bound=GraphRule)


def rewrite(owner: Pass, *classes: type[Op]) -> Callable[[R], R]:
    """Decorator: a rule of the pass, called with each node whose op is of one of the classes."""

    def declare(rule: R) -> R:
        owner.node_rules.append((classes, rule))
        return rule

    return declare


def rewrite_graph(owner: Pass) -> Callable[[G], G]:
    """Decorator: a rule of the pass that looks at the graph as a whole, before each sweep."""

    def declare(rule: G) -> G:
        owner.graph_rules.append(rule)
        return rule

    return declare


def apply_pass(owner: Pass, graph: Graph, log: list[Firing] | None = None) -> None:
    """Rewrite `graph` in place until no rule of the pass fires.

    What fires is added to `log`. Raises CompileError, naming pass, rule and node, where a rule
    fails or the rules undo each other without end.
    """
    rewriter = Rewriter(graph, keep_text=log is not None)
    most = 1000 + 100 * len(graph.nodes)
    while True:
        seen = rewriter.changes
        for graph_rule in owner.graph_rules:
            _fire(owner, graph_rule, partial(graph_rule, rewriter), rewriter, log)
        sweep, rewriter.pending = rewriter.pending, set()
        for node in rewriter.in_order(sweep):
            _visit(owner, node, rewriter, log)
        if rewriter.changes == seen:
            return
        if rewriter.changes > most:
            raise CompileError(
                f"pass {owner.name} does not come to an end on graph {graph.name}: more than {most}"
                f" changes. Its rules undo each other, a defect; disable it by name to go on"
            )


def _visit(owner: Pass, node: Node, rewriter: Rewriter, log: list[Firing] | None) -> None:
    """Offer one node to each rule of its op."""
    for rule in owner.rules_for(node.op):
        if node in rewriter.erased:
            return
        if _fire(owner, rule, partial(rule, node, rewriter), rewriter, log, node):
            rewriter.pending.update({node} - rewriter.erased)


def _fire(
    owner: Pass,
    rule: NodeRule | GraphRule,
    call: Callable[[], None],
    rewriter: Rewriter,
    log: list[Firing] | None,
    node: Node | None = None,
) -> bool:
    """Call a rule; whether it changed anything. Failures name pass, rule and node."""
    seen = rewriter.changes
    try:
        call()
    except Exception as error:
        place = f" at {node!r}" if node is not None else ""
        raise CompileError(
            f"pass {owner.name}, rule {rule.__name__}{place}, failed: {error}. This is a defect of"
            f" the pass; disable it by name to go on"
        ) from error
    if rewriter.changes == seen:
        return False
    before, after = rewriter.take_record()
    if log is not None:
        log.append(Firing(owner.name, rule.__name__, _line(rule), before, after))
    return True


def _line(rule: NodeRule | GraphRule) -> str:
    """Where a rule is declared: `lucid/ir/passes/fold_batch_norm.py:31`."""
    code = rule.__code__
    return f"{rule.__module__.replace('.', '/')}.py:{code.co_firstlineno}"
