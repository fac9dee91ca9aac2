"""Reports of a profile: rows by kernel call and by module, text, JSON, and a trace for
Perfetto."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lucid.ir.types import sizes_text


@dataclass(frozen=True)
class CallProfile:
    """One kernel call. `ms`: by the clock, until the last thread is done, where calls of one phase
    share its time by their work; `busy_ms`: in the kernel, the mean over the threads. `work`:
    operations of a direct evaluation; `done`: those left after the algorithm. `moved`: bytes of
    the arrays and packed weights that it reads and writes, each once. `bound`: `compute` or
    `memory`, whichever takes longer at the measured rates."""

    origin: str
    kernel: str
    algorithm: str
    ms: float
    busy_ms: float
    share: float
    work: int
    done: float
    moved: int
    gflops: float
    share_of_peak: float
    bound: str


@dataclass(frozen=True)
class ThreadProfile:
    """One thread's milliseconds: in kernels, at barriers, and before its first call and after its
    last, while the others are at work already or still."""

    kernels: float
    barriers: float
    ends: float

    @property
    def total(self) -> float:
        return self.kernels + self.barriers + self.ends


@dataclass(frozen=True)
class Event:
    """One kernel call or wait of one thread in the fastest run, in milliseconds from its start."""

    thread: int
    call: int
    start: float
    ms: float
    waiting: bool


@dataclass(frozen=True)
class Profile:
    """Where a run of a compiled model spends its time; means over the faster half of the runs.

    `inputs`: the shapes of the inputs by name.
    `latency_ms` is what the caller sees of the measured runs and `ordinary_ms` of ordinary ones in
    between; `overhead` is what the measuring adds to the fastest of them. `calls` are in the order
    in which they run.
    """

    model: str
    inputs: Mapping[str, tuple[int, ...]]
    target: str
    runs: int
    latency_ms: float
    ordinary_ms: float
    overhead: float
    peak_gflops: float
    bandwidth_gbs: float
    calls: tuple[CallProfile, ...]
    threads: tuple[ThreadProfile, ...]
    events: tuple[Event, ...]

    def __str__(self) -> str:
        return text(self)


Row = tuple[str, ...]

KERNEL_COLUMNS: Row = (
    "layer",
    "kernel",
    "algorithm",
    "ms",
    "busy",
    "share",
    "GFLOP/s",
    "of peak",
    "MB",
    "bound by",
)
MODULE_COLUMNS: Row = ("module", "calls", "ms", "busy", "share", "GFLOP/s", "of peak", "MB")
THREAD_COLUMNS: Row = ("thread", "kernels ms", "barriers ms", "ends ms", "sum ms", "of latency")
NUMBERS = frozenset(
    {"calls", "ms", "busy", "share", "GFLOP/s", "of peak", "MB", *THREAD_COLUMNS},
)
"""The columns of numbers, which stand on the right."""
SPARE: Row = ("MB", "busy", "kernel", "of peak", "calls", "barriers ms", "ends ms", "GFLOP/s")
"""The columns that a narrow terminal goes without, the first of them first."""


def kernel_rows(profile: Profile) -> list[Row]:
    """Every kernel call, in the order of the run."""
    return [
        (
            call.origin,
            call.kernel,
            call.algorithm,
            f"{call.ms:.3f}",
            _percent(call.busy_ms, call.ms),
            f"{call.share:.1%}",
            f"{call.gflops:.1f}" if call.work else "",
            f"{call.share_of_peak:.0%}" if call.work else "",
            f"{call.moved / 1e6:.2f}",
            call.bound,
        )
        for call in profile.calls
    ]


def modules(profile: Profile) -> dict[str, list[CallProfile]]:
    """The calls below every module path, the whole model ("") first; in order of appearance."""
    found: dict[str, list[CallProfile]] = {"": []}
    for call in profile.calls:
        parts = call.origin.split(".") if call.origin else []
        for depth in range(len(parts) + 1):
            found.setdefault(".".join(parts[:depth]), []).append(call)
    return found


def module_totals(profile: Profile) -> list[dict[str, Any]]:
    """What each module and all below it take; modules after those they belong to."""
    totals = []
    for path, calls in sorted(modules(profile).items(), key=_in_tree(profile)):
        ms, work = sum(c.ms for c in calls), sum(c.work for c in calls)
        gflops = work / ms / 1e6 if ms else 0.0
        totals.append(
            {
                "module": path,
                "calls": len(calls),
                "ms": ms,
                "busy_ms": sum(c.busy_ms for c in calls),
                "share": ms / profile.latency_ms,
                "work": work,
                "gflops": gflops,
                "share_of_peak": gflops / profile.peak_gflops,
                "moved": sum(c.moved for c in calls),
            }
        )
    return totals


def _in_tree(profile: Profile) -> Callable[[tuple[str, Any]], list[int]]:
    """A sort key that puts a module's parts right after it, in order of first appearance."""
    order = {path: number for number, path in enumerate(modules(profile))}

    def key(item: tuple[str, Any]) -> list[int]:
        parts = item[0].split(".") if item[0] else []
        return [order[".".join(parts[: d + 1])] for d in range(len(parts))]

    return key


def module_rows(profile: Profile) -> list[Row]:
    """`module_totals` as text, indented by depth."""
    return [
        (
            "  " * (t["module"].count(".") + 1) + t["module"] if t["module"] else profile.model,
            str(t["calls"]),
            f"{t['ms']:.3f}",
            _percent(t["busy_ms"], t["ms"]),
            f"{t['share']:.1%}",
            f"{t['gflops']:.1f}" if t["work"] else "",
            f"{t['share_of_peak']:.0%}" if t["work"] else "",
            f"{t['moved'] / 1e6:.2f}",
        )
        for t in module_totals(profile)
    ]


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else ""


def thread_rows(profile: Profile) -> list[Row]:
    """What each thread did."""
    return [
        (
            str(number),
            *(f"{v:.3f}" for v in (t.kernels, t.barriers, t.ends, t.total)),
            f"{t.total / profile.latency_ms:.1%}",
        )
        for number, t in enumerate(profile.threads)
    ]


def summary(profile: Profile) -> str:
    """What is measured, and what it is compared with."""
    sizes = sizes_text(profile.inputs.values())
    return (
        f"{profile.model} for {sizes}, {len(profile.threads)} thread(s), {profile.target}: "
        f"{profile.latency_ms:.3f} ms a run (fastest half of {profile.runs}), "
        f"{profile.ordinary_ms:.3f} ms without measuring (which costs {profile.overhead:+.1%})\n"
        f"measured peak {profile.peak_gflops:.0f} GFLOP/s; measured bandwidth "
        f"{profile.bandwidth_gbs:.0f} GB/s for what a run touches"
    )


def text(profile: Profile) -> str:
    """The whole profile for people."""
    parts = [
        summary(profile),
        "\n".join(_aligned(KERNEL_COLUMNS, kernel_rows(profile))),
        "\n".join(_aligned(THREAD_COLUMNS, thread_rows(profile))),
    ]
    return "\n\n".join(parts)


def _aligned(columns: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Columns as wide as what is in them, numbers on the right."""
    lines = [tuple(columns), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def to_json(profile: Profile) -> dict[str, Any]:
    """Everything but the single events, as plain data."""
    data = asdict(profile)
    del data["events"]
    data["inputs"] = {name: list(shape) for name, shape in profile.inputs.items()}
    data["threads"] = [asdict(t) | {"total": t.total} for t in profile.threads]
    data["modules"] = module_totals(profile)
    return data


def trace_events(profile: Profile) -> dict[str, Any]:
    """The fastest run in Chrome's trace event format, one track a thread; chrome://tracing and
    ui.perfetto.dev show it. Times are in microseconds."""
    events: list[dict[str, Any]] = [_named("process_name", 0, profile.model)]
    events += [_named("thread_name", t, f"thread {t}") for t in range(len(profile.threads))]
    for event in profile.events:
        call = profile.calls[event.call]
        events.append(
            {
                "ph": "X",
                "pid": 0,
                "tid": event.thread,
                "ts": 1000 * event.start,
                "dur": 1000 * event.ms,
                "cat": "wait" if event.waiting else call.algorithm,
                "name": "barrier" if event.waiting else call.origin or call.kernel,
                "args": {}
                if event.waiting
                else {
                    "kernel": call.kernel,
                    "algorithm": call.algorithm,
                    "work": call.work,
                    "bytes": call.moved,
                },
            }
        )
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": 0, "tid": thread, "name": what, "args": {"name": name}}
