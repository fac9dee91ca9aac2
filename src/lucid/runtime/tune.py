"""The tuner: measures ways to compute each layer and keeps the fastest.

A candidate is measured in its place: the whole program runs with candidate 1 of every layer, then
with candidate 2, and so on, and the clock is noted around every call. So one run measures every
layer once, on all threads, its weights as cold and its input as hot as they will be. Of the
candidates the slower half is dropped, round by round, and the last few are measured again.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lucid.codegen.lowering import Region, lower, partition, unsupported
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.candidates import call_key, candidates, layer_calls, signature
from lucid.codegen.scheduling.conv_shape import ConvShape, convolutions, scheduled_layers
from lucid.codegen.scheduling.schedule import Choice, Schedule, allowed_kernels, schedule
from lucid.codegen.target import Target
from lucid.ir.graph import Graph
from lucid.ir.ops.base import Array
from lucid.runtime.binding import BoundProgram
from lucid.runtime.cache import ObjectCache
from lucid.runtime.kernel_compiler import Progress
from lucid.runtime.timing import Stopwatch
from lucid.runtime.tuning_log import Finding, Setting, TuningLog
from lucid.runtime.weights import WeightStore

BUDGET = 60.0
"""Seconds to tune for by default: enough for ResNeSt-50 with a batch of 1."""
EXPLORING = 0.8
"""The part of the budget in which candidates are dropped; the rest is for the last few."""
HOPELESS = 2.0
"""A kernel that is this much slower than another one, both cut as the cost model would, is dropped
however it is cut: cuts make less of a difference."""
MARGIN = 0.02
"""By how much a choice must beat the cost model's to replace it: less is noise."""
FINALISTS = 3
"""Candidates of a layer in the last round: the fastest two and the cost model's."""
FIRST_VISITS, LAST_VISITS = 2, 6
"""How often a program is visited while kernels are compared, and in the last round."""
SETTLED = 0.005
"""The last round is repeated while the times of those in it still fall by more than this."""
COMPARISONS = 30
"""How often whole programs are visited to be compared."""
RUNS = 2
"""Runs of a visit: the first may find other weights in the last-level cache than a network that is
run again and again does."""


@dataclass
class Layer:
    """A layer, wherever it occurs in the graph: what can be tried, and how long it took.

    `names`: the results of its occurrences; `times`: least milliseconds by choice, an array over
    the occurrences; `tried`: the choices measured. `forced`: whether the user settled the kernel.
    """

    signature: str
    shape: ConvShape
    kernels: Sequence[str]
    model: Choice
    forced: bool
    names: list[str] = field(default_factory=list)
    finding: Finding | None = None
    alive: list[Choice] = field(default_factory=list)
    times: dict[Choice, Array] = field(default_factory=dict)
    tried: set[Choice] = field(default_factory=set)

    def candidate(self, number: int) -> Choice:
        """Candidates take turns, so that a layer with few of them measures each more often."""
        if self.finding is not None:
            return self.finding.choice
        return self.alive[number % len(self.alive)]

    def note(self, choice: Choice, ms: Array) -> None:
        self.tried.add(choice)
        self.times[choice] = np.minimum(ms, self.times.get(choice, ms))

    def mean(self, choice: Choice) -> float:
        """Milliseconds of one occurrence; infinite where the time did not suffice to measure."""
        return float(self.times[choice].mean()) if choice in self.times else np.inf

    def drop_slow_kernels(self) -> None:
        best = min(map(self.mean, self.alive))
        slow = {c.kernel for c in self.alive if self.mean(c) > HOPELESS * best}
        self.kernels = [k for k in self.kernels if k not in slow]

    def keep_fastest(self, count: int) -> None:
        """The fastest, and the cost model's choice, which they are compared with to the end."""
        self.alive = sorted(self.alive, key=self.mean)[: max(1, count)]
        if self.model not in self.alive:
            self.alive.append(self.model)

    def conclude(self) -> Finding | None:
        """The fastest choice; None where no call could be found to be the layer's."""
        best = min(self.alive, key=self.mean)
        model_ms = self.mean(self.model)
        if not model_ms:
            return None
        if self.mean(best) > (1 - MARGIN) * model_ms:
            best = self.model
        return Finding(self.signature, best, self.mean(best), self.model, model_ms, len(self.tried))


@dataclass(frozen=True)
class Tuning:
    """What tuning came to: the schedule, the cost model's, and the findings with the results that
    they apply to. `runs`: how often programs ran for it; 0 where the log knew every layer."""

    schedule: Schedule
    model: Schedule
    findings: Sequence[tuple[Finding, Sequence[str]]]
    runs: int


@dataclass(frozen=True)
class Totals:
    """Milliseconds of whole programs: the fastest run, and the sum of every call's fastest, which
    is the one to compare where something else disturbs the machine."""

    run: float
    calls: float


@dataclass(frozen=True)
class Tuner:
    """Finds and compares schedules for one batch and one team, which it measures with."""

    target: Target
    batch: int
    threads: int
    precision: str = "fast"
    cache: ObjectCache | None = None
    progress: Progress | None = None

    def tune(
        self,
        graph: Graph,
        *,
        forced: Mapping[str, str] | None = None,
        budget: float = BUDGET,
        log: TuningLog | None = None,
        again: bool = False,
    ) -> Tuning:
        """The schedule that measures fastest.

        Layers that the log knows are not measured, unless `again`; the others are, for about
        `budget` seconds, and are added to the log. `forced` settles kernels as in `schedule`; what
        is found for their layers is not logged. Regions between host ops are tuned one by one.
        Raises UnknownNameError.
        """
        forced = forced or {}
        model = schedule(graph, self.target, self.batch, self.precision, forced)
        parts = partition(graph, unsupported(graph))
        regions = [part.graph for part in parts if isinstance(part, Region)]
        if regions == [graph]:
            return self._tune(graph, model, budget, forced, log, again)
        layers = sum(len(convolutions(region)) for region in regions)
        found = [
            self._tune(region, model, budget * len(own) / layers, forced, log, again)
            for region in regions
            if (own := convolutions(region))
        ]
        choices = dict(model.choices)
        for tuning in found:
            choices |= tuning.schedule.choices
        findings = [finding for tuning in found for finding in tuning.findings]
        return Tuning(Schedule(choices), model, findings, sum(tuning.runs for tuning in found))

    def _tune(
        self,
        graph: Graph,
        whole: Schedule,
        budget: float,
        forced: Mapping[str, str],
        log: TuningLog | None,
        again: bool,
    ) -> Tuning:
        """`tune` of a graph that is one Program; `whole`: the cost model's schedule for it, and
        more."""
        names = {node.output.name for node in scheduled_layers(graph)}
        model = Schedule({n: c for n, c in whole.choices.items() if n in names})
        layers = distinct_layers(graph, self.batch, model, self.precision, forced)
        setting = Setting.of(self.target, self.threads, self.precision)
        known = log.read(setting) if log and not again else {}
        for layer in layers:
            found = known.get(layer.signature)
            if found and found.choice.kernel in layer.kernels:
                layer.finding = found
        open_layers = [layer for layer in layers if layer.finding is None]
        runs = 0
        if open_layers:
            stopwatch = self._stopwatch(graph)
            contest = Contest(self, graph, model, layers, stopwatch)
            contest.run(budget)
            runs = stopwatch.runs
        if log and open_layers:
            log.add(setting, [x.finding for x in open_layers if x.finding and not x.forced])
        findings = [(x.finding, x.names) for x in layers if x.finding]
        choices = {**model.choices, **{n: f.choice for f, names in findings for n in names}}
        return Tuning(Schedule(choices), model, findings, runs)

    def compare(
        self, graph: Graph, schedules: Sequence[Schedule], runs: int = COMPARISONS
    ) -> list[Totals]:
        """How long the whole program takes by each of the schedules, their runs in turns."""
        stopwatch = self._stopwatch(graph)
        bound = [stopwatch.bind(self.lower(graph, s)) for s in schedules]
        times: list[list[Array]] = [[] for _ in bound]
        for turn in range(runs):
            if self.progress:
                self.progress("comparing", turn, runs)
            for program, kept in zip(bound, times, strict=True):
                kept += [stopwatch.run(program) for _ in range(RUNS)]
        rows = [np.array(kept) for kept in times]
        return [Totals(float(r.sum(1).min()), float(r.min(0).sum())) for r in rows]

    def lower(self, graph: Graph, choices: Schedule) -> Program:
        return lower(graph, choices, self.target, self.batch, self.threads)

    def _stopwatch(self, graph: Graph) -> Stopwatch:
        weights = WeightStore(graph.payload)
        return Stopwatch(self.target, self.threads, weights, self.cache, self.progress)


def distinct_layers(
    graph: Graph, batch: int, model: Schedule, precision: str, forced: Mapping[str, str]
) -> list[Layer]:
    """The graph's convolutions, those with one signature together."""
    layers: dict[tuple[str, str], Layer] = {}
    for node in convolutions(graph):
        choice = model.choices[node.output.name]
        fixed = any(fnmatch.fnmatchcase(node.origin, pattern) for pattern in forced)
        name, shape = signature(node, batch), ConvShape.of(node, batch)
        kernels = [choice.kernel] if fixed else allowed_kernels(shape, precision)
        layer = Layer(name, shape, kernels, choice, fixed)
        key = (name, choice.kernel if fixed else "")
        layers.setdefault(key, layer).names.append(node.output.name)
    return list(layers.values())


@dataclass
class Contest:
    """The candidates of all layers that nothing is known of, side by side."""

    tuner: Tuner
    graph: Graph
    model: Schedule
    layers: list[Layer]
    stopwatch: Stopwatch

    def __post_init__(self) -> None:
        self.open = [layer for layer in self.layers if layer.finding is None]

    def run(self, budget: float) -> None:
        """Give every open layer its finding, within these seconds or soon after.

        Where the time does not suffice for all candidates, each layer has those measured that the
        cost model and experience put first: the budget is spread over the layers by the time they
        take, since every run takes all of them.
        """
        start = time.perf_counter()
        exploring, deadline = start + EXPLORING * budget, start + budget
        for layer in self.open:
            every = candidates(layer.shape, self.tuner.target, layer.kernels)
            own = {c.kernel: c for c in reversed(every)} | {layer.model.kernel: layer.model}
            layer.alive = [layer.model, *(c for k, c in own.items() if c != layer.model)]
        self._heat("kernels compared", FIRST_VISITS, exploring)
        for layer in self.open:
            layer.drop_slow_kernels()
            every = candidates(layer.shape, self.tuner.target, layer.kernels)
            layer.alive = list(dict.fromkeys([layer.model, *every]))
        self._drop_duplicates(exploring - (exploring - time.perf_counter()) / 2)
        visits = 1
        while max(len(layer.alive) for layer in self.open) > FINALISTS:
            self._heat(f"round {visits}", visits, exploring)
            late = time.perf_counter() > exploring
            for layer in self.open:
                layer.keep_fastest(2 if late else max(2, len(layer.alive) // 2))
            visits += 1
        for layer in self.open:
            layer.times.clear()  # the lucky runs of so many candidates prove nothing
        self._last_round(deadline)
        for layer in self.open:
            layer.finding = layer.conclude()

    def _last_round(self, deadline: float) -> None:
        """Measure those that are left until their times settle, or the deadline."""
        before = np.inf
        while True:
            self._heat("last round", LAST_VISITS, deadline, sure=before == np.inf)
            total = sum(layer.mean(choice) for layer in self.open for choice in layer.alive)
            if total > (1 - SETTLED) * before or time.perf_counter() > deadline:
                return
            before = total

    def _drop_duplicates(self, deadline: float) -> None:
        """Keep one of the candidates that come to the same calls; what the deadline leaves no time
        to look at is dropped as well."""
        seen: list[dict[str, Choice]] = [{} for _ in self.open]
        count = max(len(layer.alive) for layer in self.open)
        for number in range(count):
            if number and time.perf_counter() > deadline:
                break
            self._report("candidates lowered", number, count)
            candidate = self._compose(number)
            for layer, keys in zip(self.open, seen, strict=True):
                if number < len(layer.alive) and layer.names[0] in candidate.layers:
                    keys.setdefault(candidate.key(layer.names[0]), layer.alive[number])
        for layer, keys in zip(self.open, seen, strict=True):
            layer.alive = list(keys.values()) or [layer.model]

    def _heat(self, what: str, visits: int, deadline: float, sure: bool = False) -> None:
        """Measure all that is alive, in turns: every layer's first candidate at least, all of them
        where it is `sure`."""
        count = max(len(layer.alive) for layer in self.open)
        composed: list[Composed] = []
        for visit in range(visits):
            for number in range(count):
                due = visit == 0 and (number == 0 or sure)
                if not due and time.perf_counter() > deadline:
                    return
                self._report(what, visit * count + number, visits * count)
                if not visit:
                    composed.append(self._compose(number))
                    composed[number].bound = self.stopwatch.bind(composed[number].program)
                self._measure(composed[number], number)

    def _compose(self, number: int) -> Composed:
        """The program in which every layer is computed by its candidate of this number."""
        chosen = {n: x.candidate(number) for x in self.layers for n in x.names}
        choices = Schedule({**self.model.choices, **chosen})
        program = self.tuner.lower(self.graph, choices)
        return Composed(program, layer_calls(program, self.graph, choices.choices.keys()))

    def _measure(self, composed: Composed, number: int) -> None:
        assert composed.bound is not None
        for _ in range(RUNS):
            times = self.stopwatch.run(composed.bound)
            for layer in self.open:
                occurrences = [composed.layers.get(name, []) for name in layer.names]
                ms = np.array([times[calls].sum() for calls in occurrences])
                layer.note(layer.candidate(number), ms)

    def _report(self, what: str, done: int, total: int) -> None:
        if self.tuner.progress:
            self.tuner.progress(f"tuning: {what}", done, total)


@dataclass
class Composed:
    """A program to measure, and which of its calls are each layer's."""

    program: Program
    layers: Mapping[str, Sequence[int]]
    bound: BoundProgram | None = None

    def key(self, layer: str) -> str:
        """Equal for choices of the layer that come to the same calls."""
        calls = list(self.program.calls())
        return "\n".join(call_key(calls[number]) for number in self.layers[layer])
