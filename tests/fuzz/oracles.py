"""What is run, and what must hold: each oracle takes a case and gives a `Failure`, or None.

Code runs between guards in memory that is filled with NaNs (`tests/harness.py`), so that a
stray read or write shows as well as a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from harness import TARGETS, Run, object_cache, set_apart

import lucid
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.conv_shape import ConvShape, scheduled_layers
from lucid.codegen.scheduling.schedule import Schedule, legal_kernels, schedule
from lucid.codegen.target import LEVELS, Target
from lucid.compiler import CompiledModel, CompileOptions
from lucid.errors import UnsupportedError
from lucid.ir import Graph, interpret
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph, print_graph
from lucid.runtime.library import library

from . import errors
from .draw import Draw
from .networks import OPTIONAL, NetworkCase, choices
from .op_cases import OpCase
from .values import Array


@dataclass(frozen=True)
class Failure:
    """What went wrong with the case of a seed, and the graph with its inputs, for shrinking."""

    kind: str
    seed: int
    detail: str
    graph: Graph | None = None
    inputs: Sequence[Array] = ()
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Tally:
    """What has been tried: cases, those of them that ran between unreadable pages, refusals (ops
    that have no kernel so), and how near errors came to what is allowed, by op."""

    cases: int = 0
    guarded: int = 0
    refused: int = 0
    shares: dict[str, float] = field(default_factory=dict)

    def saw(self, name: str, share: float) -> None:
        self.shares[name] = max(self.shares.get(name, 0.0), share)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.guarded += other.guarded
        self.refused += other.refused
        for name, share in other.shares.items():
            self.saw(name, share)


class WrongError(AssertionError):
    """Something that must hold does not."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise WrongError(message)


_held: dict[tuple[str, KernelSpec], Any] = {}
"""The code of every kernel used so far, which is unloaded where nobody holds it."""


def native(
    program: Program,
    target: Target,
    payload: Any,
    inputs: Sequence[Array],
    threads: int = 1,
    skew: int = 0,
) -> list[Array]:
    """A program's outputs, all memory guarded. Kernels come from the cache, and stay."""
    target = LEVELS[target.name]
    wanted = [k for k in (*program.kernels(), Driver()) if (target.name, k) not in _held]
    if wanted:
        code = library(target).load(wanted, object_cache())
        _held.update(((target.name, kernel), code) for kernel in wanted)
    return Run(program, target, threads, skew).outputs(payload, inputs)


def with_caches(target: Target, draw: Draw) -> Target:
    """The target as it is, or with a small L2 cache: work is cut by it, code is the same."""
    small = draw.pick([0, 0, 4 << 10, 16 << 10, 64 << 10])
    return replace(target, l2=small) if small else target


def same_bits(a: Sequence[Array], b: Sequence[Array]) -> bool:
    """Whether all numbers are the same; any NaN is."""
    return all(
        np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(a, b, strict=True)
    )


def attempt(check: Callable[[], None], failure: Callable[[str], Failure]) -> Failure | None:
    """Run a check; whatever it raises is a failure, but that there is no kernel."""
    try:
        with np.errstate(all="ignore"):
            check()
    except UnsupportedError:
        raise
    except Exception as problem:  # a crash of the compiler is what is looked for
        text = str(problem).strip()
        name = "" if isinstance(problem, WrongError) else f"{type(problem).__name__}: "
        return failure(f"{name}{text[:2000]}")
    return None


# -- ops ------------------------------------------------------------------------------------------


def check_op(case: OpCase, tally: Tally | None = None) -> Failure | None:
    """On every level of the target that runs here: within the bound of `errors`, bitwise the same
    with two threads, guards unbroken."""
    tally = tally or Tally()
    draw = Draw(case.seed ^ 0x5EED)
    tally.cases += 1

    def check() -> None:
        known = errors.analyse(case.graph, case.inputs, case.kernels)
        fused = run_passes(case.graph)
        for level in TARGETS:
            target = with_caches(level, draw)
            choices = _forced(fused, target, case)
            program = lower(fused, choices, target, case.batch, threads=1)
            if draw.chance(0.7):
                set_apart(program)
            payload = case.graph.payload
            values = native(program, target, payload, case.inputs, skew=draw.pick([0, 3]))
            for number, (value, wanted) in enumerate(zip(values, known, strict=True)):
                where = f"output {number} on {target.name}"
                shape = wanted.value.shape
                require(value.shape == shape, f"{where}: shape {value.shape}, not {shape}")
                shares = errors.excess(value, wanted)
                tally.saw(case.name, float(shares.max(initial=0.0)))
                if (shares > 1).any():
                    raise WrongError(f"{where}: {_complaint(value, wanted, shares)}")
            if draw.chance(0.25):
                program = lower(fused, choices, target, case.batch, threads=2)
                again = native(program, target, payload, case.inputs, threads=2)
                require(same_bits(values, again), f"{target.name}: two threads change the result")

    try:
        return attempt(
            check,
            lambda detail: Failure(
                "op",
                case.seed,
                f"{case.name}: {detail}",
                case.graph,
                case.inputs,
                {"kernels": case.kernels},
            ),
        )
    except UnsupportedError:
        tally.refused += 1
        return None


def _forced(fused: Graph, target: Target, case: OpCase) -> Schedule:
    """Forced kernels where they are still possible: passes may have made another layer."""
    batch = max(1, case.batch)
    kept = {
        node.origin: case.kernels[node.origin]
        for node in scheduled_layers(fused)
        if case.kernels.get(node.origin) in legal_kernels(ConvShape.of(node, batch))
    }
    return schedule(fused, target, batch, "strict", kept)


def _complaint(value: Array, known: errors.Known, shares: Array) -> str:
    """Where a result is the furthest off."""
    at = tuple(map(int, np.unravel_index(int(np.argmax(shares)), shares.shape)))
    share = float(shares[at])
    times = "beyond any" if math.isinf(share) else f"{share:.3g} times the"
    return (
        f"{value[at]} at {at}, exactly {known.value[at]}, {times} error allowed"
        f" ({known.error[at]:.3g}); {int((shares > 1).sum())} of {shares.size} are wrong"
    )


# -- networks -------------------------------------------------------------------------------------

BASE = 1e-6
"""What a network's outputs may be off by, of the largest, where NumPy's float32 is not off at
all."""
ROUNDS = {"strict": 1.0, "fast": 6.0, "bf16": 2.0**16}
"""How much more than a sum of float32 the algorithms of a precision round: F(4x4), and operands of
eight bits for 24."""
AMPLIFIED = 4.0
"""How many times as far off as the interpreter in float32 they may be: how a network amplifies
rounding errors differs from one to the next, and shows there."""


SAMPLES = 8
"""How often the interpreter is run anew on inputs that differ in their last bits, where an output
is further off than that: of an output of a single number one run may be right by luck."""


@dataclass(frozen=True)
class Expected:
    """A network's outputs in float64, and how far each may be off."""

    case: NetworkCase
    outputs: list[Array]
    limits: list[float]

    @staticmethod
    def of(case: NetworkCase, batch: int | None = None) -> Expected:
        exact, limits = _rounding(case, case.inputs)
        return Expected(case, exact, limits)

    def require(self, values: Sequence[Array], where: str, tally: Tally) -> None:
        require(len(values) == len(self.outputs), f"{where}: {len(values)} outputs")
        for number, (value, wanted, limit) in enumerate(
            zip(values, self.outputs, self.limits, strict=True)
        ):
            at = f"{where}: output {number}"
            require(value.shape == wanted.shape, f"{at}: shape {value.shape}, not {wanted.shape}")
            require(bool(np.isfinite(value).all()), f"{at}: {np.isnan(value).sum()} NaNs")
            off = float(np.abs(value.astype(np.float64) - wanted).max(initial=0.0))
            allowed = limit if off <= limit else max(limit, *self._sampled(number))
            tally.saw("network", off / allowed)
            require(off <= allowed, f"{at}: off by {off:.3g}, allowed {allowed:.3g}")

    def _sampled(self, number: int) -> list[float]:
        """Limits of an output by other inputs, as near as float32 has them."""
        random = np.random.default_rng(self.case.seed)
        found = []
        for _ in range(SAMPLES):
            near = [
                np.nextafter(a, random.choice([-np.inf, np.inf], a.shape).astype(a.dtype))
                if a.dtype == np.float32
                else a
                for a in self.case.inputs
            ]
            found.append(_rounding(self.case, near)[1][number])
        return found


def _rounding(case: NetworkCase, inputs: Sequence[Array]) -> tuple[list[Array], list[float]]:
    """The outputs in float64, and how far they may be off by what float32 does to them."""
    exact = interpret(case.graph, inputs, dtype=np.float64)
    single = interpret(case.graph, inputs, dtype=np.float32)
    rounds = ROUNDS[case.precision]
    limits = []
    for wanted, rounded in zip(exact, single, strict=True):
        wanted = wanted.astype(np.float64)
        size = max(float(np.abs(wanted).max(initial=0.0)), 1e-3)
        off = float(np.abs(rounded.astype(np.float64) - wanted).max(initial=0.0))
        limits.append(rounds * (BASE * size + AMPLIFIED * off))
    return [wanted.astype(np.float64) for wanted in exact], limits


def of_network(case: NetworkCase, kind: str) -> Callable[[str], Failure]:
    """How a failure of a network is told."""
    settings = {
        "disable": list(case.disable),
        "precision": case.precision,
        "threads": case.threads,
        "forced": case.forced,
        "seed": case.seed,
    }
    return lambda detail: Failure(kind, case.seed, detail, case.graph, case.inputs, settings)


def check_network(case: NetworkCase, tally: Tally | None = None) -> Failure | None:
    """On one level of the target: near the interpreter, guards unbroken, bitwise the same for any
    number of threads; its text gives the same graph again; ONNX Runtime agrees."""
    tally = tally or Tally()
    draw = Draw(case.seed ^ 0xC0DE)
    tally.cases += 1

    def check() -> None:
        require(parse_graph(print_graph(case.graph)) == case.graph, "its text is another graph")
        expected = Expected.of(case)
        fused = run_passes(case.graph, disable=case.disable)
        require(parse_graph(print_graph(fused)) == fused, "its text after passes is another graph")
        target = with_caches(draw.pick([*TARGETS, TARGETS[-1]]), draw)
        chosen = choices(case, fused, target, case.batch)
        require(Schedule.from_json(chosen.to_json()) == chosen, "its schedule's JSON is another")
        results = []
        for threads in (1, case.threads):
            program = lower(fused, chosen, target, case.batch, threads)
            payload = case.graph.payload
            results.append(native(program, target, payload, case.inputs, threads))
        where = f"{target.name}, {len(case.graph.nodes)} nodes of {'+'.join(case.blocks)}"
        expected.require(results[0], where, tally)
        require(same_bits(*results), f"{where}: {case.threads} threads change the result")
        if draw.chance(0.3):
            _check_onnx(case, expected, tally)

    return attempt(check, of_network(case, "network"))


def _check_onnx(case: NetworkCase, expected: Expected, tally: Tally) -> None:
    """The graph written as an ONNX model, run by ONNX Runtime, where both are installed."""
    try:
        import onnxruntime

        from lucid.onnx.writer import to_onnx
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    model = to_onnx(case.graph).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [v.name for v in case.graph.inputs]
    values = session.run(None, dict(zip(names, case.inputs, strict=True)))
    loose = replace(expected, limits=[40 * limit for limit in expected.limits])
    loose.require(values, "ONNX Runtime", Tally())


def check_metamorphic(case: NetworkCase, tally: Tally | None = None) -> Failure | None:
    """What changes no bit of a compiled model's results: threads, cutting the batch, the order of
    its images, how the input lies, other calls in between; and what changes only the rounding."""
    tally = tally or Tally()
    draw = Draw(case.seed ^ 0xBEEF)
    tally.cases += 1

    def check() -> None:
        (x,) = case.inputs
        target = draw.pick([*TARGETS, TARGETS[-1]])
        expected = Expected.of(case)

        def compiled(threads: int, disable: Sequence[str] = ()) -> CompiledModel:
            options = CompileOptions(target=target.name, disable=disable)
            return lucid.compile(
                case.graph, x.shape, threads=threads, precision=case.precision, options=options
            )

        def run(model: CompiledModel, data: Array) -> list[Array]:
            result = model(data)
            return list(result) if isinstance(result, tuple) else [result]

        model = compiled(case.threads)
        whole = run(model, x)
        expected.require(whole, f"compiled for {target.name}", tally)
        require(same_bits(whole, run(compiled(1), x)), "threads change the result")
        cut = draw.integer(0, case.batch)
        parts = [run(model, part) for part in (x[:cut], x[cut:]) if len(part)]
        joined = [np.concatenate(p) for p in zip(*parts, strict=True)]
        require(same_bits(whole, joined), f"a batch cut at {cut} of {case.batch} gives another")
        order = draw.arrays.permutation(case.batch)
        turned = run(model, np.asfortranarray(x[order]))
        require(same_bits([w[order] for w in whole], turned), "the order of images matters")
        for _ in range(3):
            require(same_bits(whole, run(model, x)), "a later call gives another result")
        many = np.concatenate([x] * (40 // case.batch))[: draw.pick([17, 32, 40])]
        if draw.chance(0.2) and x.size * 40 // case.batch < 200_000:
            wanted = [np.concatenate([w] * (40 // case.batch))[: len(many)] for w in whole]
            require(same_bits(wanted, run(model, many)), f"a batch of {len(many)} gives another")
        expected.require(run(compiled(1, OPTIONAL), x), "without passes", tally)
        other = {n: np.asarray(a) * np.float32(0.5) for n, a in case.graph.payload.items()}
        model.load_weights(other)
        fresh = interpret(case.graph, case.inputs, other, np.float64)
        limits = [max(limit, 1e-4) for limit in expected.limits]
        swapped = replace(expected, outputs=fresh, limits=limits)
        swapped.require(run(model, x), "with other weights", Tally())

    return attempt(check, of_network(case, "metamorphic"))
