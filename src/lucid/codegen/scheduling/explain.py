"""Explanations of a compiled model: for each node of its graph what was fused into it, what was
not and why, which kernel it got and why, and how its work is cut."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from lucid.codegen.program.attribution import calls_by_node, doers
from lucid.codegen.program.program import KernelCall, Program
from lucid.codegen.scheduling.basis import Basis
from lucid.codegen.scheduling.candidates import describe
from lucid.codegen.scheduling.conv_shape import ConvShape, scheduled_layers
from lucid.codegen.scheduling.cost_model import cycles, tile_block
from lucid.codegen.scheduling.schedule import Choice, Schedule, exact_kernels, modelled_kernels
from lucid.codegen.target import Target
from lucid.ir.graph import Graph, Node
from lucid.ir.lineage import matches, stems_from
from lucid.ir.marked import HEADING, NOTE, PLAIN, Line, plain
from lucid.ir.ops import Fusion, Op
from lucid.ir.passes import Miss
from lucid.ir.printer import print_op
from lucid.ir.types import sizes_text


@dataclass(frozen=True)
class Choosing:
    """How a convolution came to its kernel.

    `modelled`: cycles on one core by the cost model, for every kernel that can compute it, the
    fastest first; `left_out`: those of them that the precision forbids; `cannot`: others that one
    might expect, and why they cannot.
    """

    choice: Choice
    reason: str
    modelled: Mapping[str, float]
    left_out: tuple[str, ...]
    cannot: Mapping[str, str]


@dataclass(frozen=True)
class Call:
    """One kernel call, how its tasks come about, and the floating operations it stands for.
    `region`: the number of the native call that it is part of, 0 where there is just one.
    `threads`: the most that its phase is worth."""

    region: int
    phase: int
    threads: int
    kernel: str
    origin: str
    algorithm: str
    tasks: int
    split: str
    work: int


@dataclass(frozen=True)
class Explained:
    """One node of the fused graph.

    `fused`: the ops and modules whose work it does besides its own; `body`: the ops at its end.
    `near_misses`: rewrites that nearly took it, or took a reader of it in. `done_by`: where it has
    no calls, the names of the readers that do its work as they load what they read. `on_host`:
    whether it has no kernel, and runs by its op's reference.
    """

    node: Node
    fused: tuple[str, ...]
    body: tuple[str, ...]
    near_misses: tuple[Miss, ...]
    choosing: Choosing | None
    calls: tuple[Call, ...]
    done_by: tuple[str, ...]
    on_host: bool = False

    @property
    def op(self) -> Op:
        """What the node does, without what was fused into its end."""
        return self.node.op.anchor if isinstance(self.node.op, Fusion) else self.node.op

    def about(self, pattern: str) -> bool:
        """Whether it does work of a module that matches."""
        return stems_from(self.node, pattern) or any(matches(c.origin, pattern) for c in self.calls)

    def lines(self) -> Iterator[Line]:
        types = f"{self.node.inputs[0].type} -> " if self.node.inputs else ""
        result = self.node.outputs[0]
        place = f"{self.node.origin}: " if self.node.origin else ""
        what = f"%{result.name} = {print_op(self.op)}"
        yield Line(HEADING, f"{place}{what}  {types}{result.type}")
        if self.fused:
            yield _entry("fused in", ", ".join(dict.fromkeys(self.fused)))
        if self.body:
            yield _entry("ends in", ", ".join(self.body))
        for miss in self.near_misses:
            yield _entry("not fused", f"{miss} ({miss.pass_name})", NOTE)
        if self.choosing is not None:
            yield from _choosing_lines(self.choosing)
        for call in self.calls:
            part = f" for {call.origin}" if call.origin not in ("", self.node.origin) else ""
            place = f"native call {call.region}, " if call.region else ""
            alone = " on one thread" if call.threads == 1 else ""
            place += f"phase {call.phase}{alone}: {call.split}"
            yield _entry("runs as", f"{call.kernel}{part}, {place}")
        if self.on_host:
            yield _entry("runs as", "host op, by its reference in NumPy: it has no kernel", NOTE)
        elif not self.calls:
            yield _entry("runs as", _absence(self))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.node.outputs[0].name,
            "origin": self.node.origin,
            "op": print_op(self.op),
            "fused": list(self.fused),
            "body": list(self.body),
            "near_misses": [vars(m) for m in self.near_misses],
            "kernel": _choosing_json(self.choosing) if self.choosing else None,
            "calls": [vars(c) for c in self.calls],
            "done_by": list(self.done_by),
            "on_host": self.on_host,
        }


@dataclass(frozen=True)
class Explanation:
    """All nodes of a fused graph, in order. `inputs`: their shapes, by name. `batch`: how a batch
    is run, as a line. `str` of it is for people."""

    model: str
    target: str
    inputs: Mapping[str, tuple[int, ...]]
    threads: int
    precision: str
    phases: int
    nodes: tuple[Explained, ...]
    batch: str = ""

    def about(self, pattern: str) -> Explanation:
        """Only the modules that match, such as `layer1.0`, or results, such as `%relu_3`."""
        return replace(self, nodes=tuple(n for n in self.nodes if n.about(pattern)))

    def lines(self) -> Iterator[Line]:
        sizes, calls = sizes_text(self.inputs.values()), sum(len(n.calls) for n in self.nodes)
        yield Line(
            HEADING,
            f"{self.model} for {sizes}, {self.target}, {_count(self.threads, 'thread')}, precision"
            f" {self.precision}: {_count(len(self.nodes), 'node')}, {_count(calls, 'kernel call')}",
        )
        if self.batch:
            yield Line(PLAIN, self.batch)
        for node in self.nodes:
            yield Line(PLAIN, "")
            yield from node.lines()

    def __str__(self) -> str:
        return plain(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "model": self.model,
            "target": self.target,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "threads": self.threads,
            "precision": self.precision,
            "phases": self.phases,
            "batch": self.batch,
            "nodes": [n.to_json() for n in self.nodes],
        }


def explain(
    graph: Graph,
    misses: Iterable[Miss],
    schedule: Schedule,
    regions: Sequence[tuple[Program, Graph]],
    on_host: Collection[Node],
    inputs: Mapping[str, tuple[int, ...]],
    target: Target,
    threads: int,
    basis: Basis,
    batch: str = "",
) -> Explanation:
    """The explanation of a graph, by `schedule`, chosen on this basis.

    `misses`: the near misses of the passes that made the graph. `regions`: its programs with the
    graphs that they compute, whose nodes have the names of the graph's. `on_host`: the nodes
    between them. `batch`: how a batch is run.
    """
    attributed = _Attributed(graph, regions)
    layers = set(scheduled_layers(graph))
    missed = _by_node(graph, misses)
    nodes = []
    for node in graph.nodes:
        choice = schedule.choices.get(node.output.name) if node in layers else None
        size = attributed.batch(node)
        choosing = None
        if choice is not None and size is not None:
            choosing = choose(node, choice, size, target, basis)
        own = attributed.calls(node)
        body = node.op.body.nodes if isinstance(node.op, Fusion) else ()
        nodes.append(
            Explained(
                node,
                _fused_in(node),
                tuple(print_op(n.op) for n in body),
                tuple(missed.get(node, ())),
                choosing,
                own,
                () if own else attributed.done_by(node),
                node in on_host,
            )
        )
    return Explanation(
        graph.name,
        target.name,
        inputs,
        threads,
        basis.precision,
        sum(len(program.phases) for program, _ in regions),
        tuple(nodes),
        batch,
    )


class _Attributed:
    """The calls of the programs of a graph's regions, by the graph's nodes."""

    def __init__(self, graph: Graph, regions: Sequence[tuple[Program, Graph]]) -> None:
        self._regions = regions
        self._calls = [calls_by_node(program, region) for program, region in regions]
        self._places = {
            node.outputs[0].name: (number, node)
            for number, (_, region) in enumerate(regions)
            for node in region.nodes
        }

    def batch(self, node: Node) -> int | None:
        """That of its program; None where it is in none."""
        number, _ = self._places.get(node.outputs[0].name, (None, node))
        return None if number is None else self._regions[number][0].batch

    def calls(self, node: Node) -> tuple[Call, ...]:
        number, own = self._places.get(node.outputs[0].name, (None, node))
        if number is None:
            return ()
        placed = self._calls[number].get(own, ())
        shown = number + 1 if len(self._regions) > 1 else 0
        threads = self._regions[number][0].threads
        return tuple(_call(shown, phase, threads[phase], call) for phase, call in placed)

    def done_by(self, node: Node) -> tuple[str, ...]:
        """The names of the nodes whose calls do its work."""
        number, own = self._places.get(node.outputs[0].name, (None, node))
        return () if number is None else tuple(map(_name, doers(own, self._calls[number])))


def _fused_in(node: Node) -> tuple[str, ...]:
    """What a node was fused from besides itself. One that was put before its reader in a rewrite,
    and has that one's lineage, has nothing fused in."""
    parts = node.fused_from
    if any(u.fused_from[: len(parts)] == parts for v in node.outputs for u in v.users):
        return ()
    op = node.op.anchor if isinstance(node.op, Fusion) else node.op
    own = f"{op.name} {node.origin}".strip()
    return parts[1:] if parts[:1] == (own,) else parts


def _by_node(graph: Graph, misses: Iterable[Miss]) -> dict[Node, list[Miss]]:
    """The near misses that each node has to do with. Those on nodes that are not there any more do
    not count: a later pass had its way with them."""
    nodes = {v.name: node for node in graph.nodes for v in node.outputs}
    found: dict[Node, list[Miss]] = {}
    for miss in misses:
        concerned = [nodes[name] for name in (miss.value, *miss.others) if name in nodes]
        for node in dict.fromkeys(concerned if miss.value in nodes else ()):
            found.setdefault(node, []).append(miss)
    return found


# -- kernels ------------------------------------------------------------------------------------


def choose(node: Node, choice: Choice, batch: int, target: Target, basis: Basis) -> Choosing:
    """How a layer came to this choice."""
    shape = ConvShape.of(node, batch)
    allowed, exact = modelled_kernels(shape, target, basis.precision), exact_kernels(shape)
    shown = dict.fromkeys((*exact, *allowed, choice.kernel))
    times = {name: cycles(shape, name, target) for name in shown}
    reason = _reason(node, choice, shape, allowed, target, basis)
    if choice.algorithm == "direct" and shape.live_taps < 1:
        reason += f", with {shape.live_taps:.0%} of the products: the others meet padding"
    return Choosing(
        choice,
        reason,
        dict(sorted(times.items(), key=lambda item: item[1])),
        tuple(name for name in exact if name not in allowed),
        _cannot(shape, exact),
    )


def _reason(
    node: Node,
    choice: Choice,
    shape: ConvShape,
    allowed: list[str],
    target: Target,
    basis: Basis,
) -> str:
    """Why it is this kernel, in the order in which the compiler decides."""
    if basis.source == "given":
        return "the given schedule says so"
    pattern = next((p for p in basis.forced if fnmatchcase(node.origin, p)), None)
    if pattern is not None:
        return f"forced by the pattern {pattern!r}"
    best = min(allowed, key=lambda name: cycles(shape, name, target))
    model = Choice(best, tile_block(shape, best, target))
    if basis.source == "tuned":
        if choice == model:
            return "the cost model's choice, and tuning found none that is faster"
        return f"measured faster than the cost model's choice ({describe(model)})"
    return "no other can" if len(allowed) == 1 else "the fastest by the cost model"


def _cannot(shape: ConvShape, exact: list[str]) -> dict[str, str]:
    """Kernels that one might expect for a window of this size, and why they cannot compute it."""
    if shape.kernel == (3, 3) and exact == ["direct"]:
        return {"winograd": "it takes stride 1 only, and padding by multiples of the dilation"}
    if shape.kernel == (1, 1) and exact == ["direct"] and not shape.slices:
        return {"pointwise": "it takes stride 1 and no padding only"}
    return {}


def _choosing_lines(choosing: Choosing) -> Iterator[Line]:
    yield _entry("kernel", f"{describe(choosing.choice)}: {choosing.reason}")
    times = ", ".join(f"{name} {time / 1e3:,.1f}" for name, time in choosing.modelled.items())
    yield _entry("", f"modelled, in thousands of cycles of one core: {times}")
    if choosing.left_out:
        yield _entry("", f"left out by the precision: {', '.join(choosing.left_out)}")
    for name, why in choosing.cannot.items():
        yield _entry("", f"not {name}: {why}")


def _choosing_json(choosing: Choosing) -> dict[str, Any]:
    return {
        **vars(choosing),
        "choice": vars(choosing.choice),
        "modelled": dict(choosing.modelled),
        "left_out": list(choosing.left_out),
        "cannot": dict(choosing.cannot),
    }


# -- calls --------------------------------------------------------------------------------------


def _call(region: int, phase: int, threads: int, call: KernelCall) -> Call:
    return Call(
        region,
        phase,
        threads,
        str(call.kernel),
        call.origin,
        call.algorithm,
        call.tasks,
        split_of(call),
        call.work,
    )


def split_of(call: KernelCall) -> str:
    """`8 tasks: 2 groups x 2 blocks of 49 tiles x 2 chunks of 4 panels`"""
    sizes = {n: v for n, v in call.arguments.items() if isinstance(v, int)}
    blocks, chunks = sizes.get("blocks", 1), sizes.get("chunks", 1)
    factors = []
    if sizes.get("groups", 1) > 1:
        factors.append(f"{sizes['groups']} groups")
    if "block_tiles" in sizes:
        factors.append(f"{_count(blocks, 'block')} of {_count(sizes['block_tiles'], 'tile')}")
    elif "rows" in sizes and "blocks" in sizes:
        each = -(-sizes["rows"] // max(1, blocks))
        factors.append(f"{_count(blocks, 'block')} of {_count(each, 'row')}")
    if chunks > 1 and "panels" not in sizes:  # of channels, as a pool's
        factors.append(_count(chunks, "chunk"))
    elif chunks > 1:
        each = -(-sizes["panels"] // chunks)
        factors.append(f"{_count(chunks, 'chunk')} of {_count(each, 'panel')}")
    tasks = _count(call.tasks, "task")
    return f"{tasks}: {' x '.join(factors)}" if factors else tasks


def _absence(node: Explained) -> str:
    if node.done_by:
        return f"no call: {', '.join(node.done_by)} does it while loading what it reads"
    return "no call: there is nothing to compute"


def _name(node: Node) -> str:
    return node.origin or f"%{node.outputs[0].name}"


def _entry(label: str, text: str, mark: str = PLAIN) -> Line:
    return Line(mark, f"{label:10}{text}")


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}{'' if number == 1 else 's'}"
