"""The infrastructure of passes: rules on nodes, the `Rewriter` that rules use, and the driver.

A pass is a list of rules. A rule looks at one node, or at the whole graph, and either does nothing
or rewrites it through the `Rewriter`; the driver applies the rules in topological order until none
of them fires. Rules never erase nodes: what nobody reads any more goes away by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from lucid.errors import CompileError
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.lineage import lineage
from lucid.ir.lineage import origins as origins_of
from lucid.ir.ops import Op
from lucid.ir.passes.rewrite_log import Firing, Miss
from lucid.ir.recipe import Recipe
from lucid.ir.text import print_node

Told = tuple[Node, str, str, tuple[str, ...]]
"""What a rule says of a near miss: node, reason, its own source line, other nodes' names."""


class Rewriter:
    """The graph as a rule sees it. The mutators keep users, names, work list and log right."""

    def __init__(self, graph: Graph, keep_text: bool = False, keep_misses: bool = False) -> None:
        self.graph = graph
        self.changes = 0
        self.pending: set[Node] = set(graph.nodes)
        self.erased: set[Node] = set()
        self._sources = frozenset(graph.sources())
        self._keep_text = keep_text
        self._keep_misses = keep_misses
        self._before: list[Node] = []
        self._before_text: list[str] = []
        self._created: list[Node] = []
        self._missed: list[Told] = []

    # -- looking ----------------------------------------------------------------------------

    def only_user(self, value: Value) -> Node | None:
        """The node that reads `value`, where just one does and the graph does not return it."""
        return value.users[0] if self.graph.has_one_user(value) else None

    def in_order(self, nodes: set[Node]) -> list[Node]:
        """The nodes in the graph's order."""
        return [n for n in self.graph.nodes if n in nodes]

    def miss(self, node: Node, reason: str, *others: Node | None) -> None:
        """Note why a rule that nearly fired on `node` did not, for those who read the log.

        `others`: nodes that it is about as well, such as the layer that `node` would have joined.
        For what a reader would wonder about, not for every node that is something else. The last
        thing a rule says about a node counts; where it fires in the end, nothing does.
        """
        if self._keep_misses:
            caller = sys._getframe(1)
            module = str(caller.f_globals["__name__"])
            names = tuple(n.outputs[0].name for n in others if n is not None)
            self._missed.append((node, reason, _place(module, caller.f_lineno), names))

    # -- rewriting --------------------------------------------------------------------------

    def parameter(self, name: str, recipe: Recipe) -> Parameter:
        """A parameter given by `recipe`, called `name` or, where that is taken, much like it."""
        while name in self._sources:
            name += "_"
        return self.graph.add_parameter(name, recipe)

    def insert_before(
        self, node: Node, op: Op, inputs: Sequence[Value], inherits: bool = True
    ) -> Value:
        """The result of a new node just before `node`, with the origin of `node`, and (where it
        `inherits`, doing part of its work) with its lineage."""
        lineage = node.fused_from if inherits else ()
        new = self.graph.insert_before(
            node, op, inputs, origin=node.origin, fused_from=lineage, location=node.location
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
        parts = tuple(line for n in fuses for line in lineage(n)) or node.fused_from
        operands, types = list(node.inputs), [v.type for v in node.outputs]
        self._forget(node)
        new = self.graph.substitute(
            node, op, inputs, origin=first.origin, fused_from=parts, location=first.location
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
            self._before.append(node)
            self._before_text.append(print_node(node))

    def take_record(self) -> tuple[tuple[str, ...], tuple[str, ...], list[Node]]:
        """The texts of the nodes erased and made since the last call, and all these nodes."""
        alive = [n for n in self._created if n not in self.erased] if self._keep_text else []
        after = tuple(map(print_node, alive))
        before = tuple(reversed(self._before_text))
        nodes = [*self._before, *alive]
        self._before, self._before_text, self._created = [], [], []
        return before, after, nodes

    def take_misses(self) -> list[Told]:
        """What `miss` was told since the last call."""
        told, self._missed = self._missed, []
        return told


# -- passes and rules -----------------------------------------------------------------------

NodeRule = Callable[[Node, Rewriter], None]
GraphRule = Callable[[Rewriter], None]


def equation(rule: NodeRule | GraphRule) -> str:
    """What a rule takes for equal, as its docstring begins: the left side becomes the right one."""
    return (rule.__doc__ or "").partition("\n")[0]


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

    def rules(self) -> list[NodeRule | GraphRule]:
        """All of them: those that look at the whole graph come first."""
        return [*self.graph_rules, *(rule for _, rule in self.node_rules)]

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


def apply_pass(
    owner: Pass,
    graph: Graph,
    log: list[Firing] | None = None,
    misses: list[Miss] | None = None,
) -> None:
    """Rewrite `graph` in place until no rule of the pass fires.

    What fires is added to `log`, and to `misses` what nearly did: where a rule said why not, and
    neither fired there later nor saw the node go in another rewrite. Raises CompileError, naming
    pass, rule and node, where a rule fails or the rules undo each other without end.
    """
    rewriter = Rewriter(graph, log is not None, misses is not None)
    run = _Application(owner, rewriter, log)
    most = 1000 + 100 * len(graph.nodes)
    while True:
        seen = rewriter.changes
        for graph_rule in owner.graph_rules:
            run.fire(graph_rule, partial(graph_rule, rewriter))
        sweep, rewriter.pending = rewriter.pending, set()
        for node in rewriter.in_order(sweep):
            run.visit(node)
        if rewriter.changes == seen:
            break
        if rewriter.changes > most:
            raise CompileError(
                f"pass {owner.name} does not come to an end on graph {graph.name}: more than {most}"
                f" changes. Its rules undo each other, a defect; disable it by name to go on"
            )
    if misses is not None:
        misses += run.misses()


@dataclass
class _Application:
    """A pass at work. `told`: what each rule last said about each node; `rewritten`: the nodes on
    which a rule fired."""

    owner: Pass
    rewriter: Rewriter
    log: list[Firing] | None
    told: dict[tuple[str, Node | None], list[tuple[Node, Miss]]] = field(default_factory=dict)
    rewritten: set[Node] = field(default_factory=set)

    def visit(self, node: Node) -> None:
        """Offer one node to each rule of its op, unless its results have no elements: nothing is
        to be gained there, and not every op takes such operands."""
        if all(v.type.empty for v in node.outputs):
            return
        for rule in self.owner.rules_for(node.op):
            if node in self.rewriter.erased:
                return
            if self.fire(rule, partial(rule, node, self.rewriter), node):
                self.rewritten.add(node)
                self.rewriter.pending.update({node} - self.rewriter.erased)

    def fire(
        self, rule: NodeRule | GraphRule, call: Callable[[], None], node: Node | None = None
    ) -> bool:
        """Call a rule; whether it changed anything. Failures name pass, rule and node."""
        seen = self.rewriter.changes
        try:
            call()
        except Exception as error:
            place = f" at {node!r}" if node is not None else ""
            raise CompileError(
                f"pass {self.owner.name}, rule {rule.__name__}{place}, failed: {error}. This is a"
                f" defect of the pass; disable it by name to go on"
            ) from error
        told = self.rewriter.take_misses()
        self.told.pop((rule.__name__, node), None)
        if self.rewriter.changes == seen:
            if told:
                misses = [(one[0], self._miss(rule, one)) for one in told]
                self.told[rule.__name__, node] = misses
            return False
        before, after, nodes = self.rewriter.take_record()
        if self.log is not None:
            line = _place(rule.__module__, rule.__code__.co_firstlineno)
            origins = tuple(dict.fromkeys(o for n in nodes for o in origins_of(n)))
            values = tuple(dict.fromkeys(v.name for n in nodes for v in n.outputs))
            found = Firing(
                self.owner.name, rule.__name__, line, before, after, origins, values, equation(rule)
            )
            self.log.append(found)
        return True

    def _miss(self, rule: NodeRule | GraphRule, told: Told) -> Miss:
        node, reason, line, others = told
        value, text = node.outputs[0].name, print_node(node)
        owner, op = self.owner.name, node.op.name
        return Miss(owner, rule.__name__, line, value, op, node.origin, text, reason, others)

    def misses(self) -> list[Miss]:
        """What was last said of nodes that are there still, or that another rule took."""
        gone = self.rewriter.erased - self.rewritten
        return [miss for told in self.told.values() for node, miss in told if node not in gone]


def _place(module: str, line: int) -> str:
    """A line of a pass: `lucid/ir/passes/fold_batch_norm.py:31`."""
    return f"{module.replace('.', '/')}.py:{line}"
