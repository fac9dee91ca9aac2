"""`lucid bench`: the speed of a compiled model, and how its work divides among algorithms."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lucid.cli.app import RUN, Batch, Json, Model, Precision, Size, Target, Threads, Weights, app
from lucid.cli.output import Report, print_json, print_table, progress
from lucid.cli.subject import load_subject

if TYPE_CHECKING:
    from lucid.runtime.profile_report import Profile

PROFILED = 10
"""Runs with a clock in every kernel, besides the timed ones."""
WARM = 3
"""Untimed runs before the timed ones: they touch the arena and wake the team."""


@app.command(rich_help_panel=RUN)
def bench(
    model: Model,
    batch: Batch = 1,
    size: Size = None,
    threads: Threads = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 30,
    precision: Precision = "fast",
    target: Target = "host",
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Measure a compiled model: milliseconds, GFLOP/s, and the share of this machine's peak.

    GFLOP/s count the work of direct convolution, 2 operations a multiply-add, whatever the
    algorithm: Winograd does a layer with fewer, and can pass 100% of the peak. The peak is
    measured too, as the rate of nothing but multiply-adds on as many threads.
    """
    from lucid.ir.samples import sample_inputs

    subject = load_subject(model, weights)
    shapes = subject.shapes(batch, size)
    with progress() as report:
        start = time.perf_counter()
        compiled = subject.compiled(shapes, threads, precision, report, target)
        compile_seconds = time.perf_counter() - start
        inputs = sample_inputs(compiled.graph(shapes), batch)
        times = measure(lambda: compiled(*inputs), runs, report)
    profile = compiled.profile(inputs, min(runs, PROFILED))
    result = {
        "model": subject.name,
        "inputs": {name: list(shape) for name, shape in profile.inputs.items()},
        "threads": compiled.threads,
        "target": compiled.target.name,
        "precision": precision,
        "compile_seconds": compile_seconds,
        **figures(times, sum(c.work for c in profile.calls), profile.peak_gflops),
        "algorithms": by_algorithm(profile),
    }
    if json:
        print_json(result | {"times_ms": [1e3 * t for t in times]})
    else:
        _show(result)


def measure(call: Callable[[], Any], runs: int, report: Report) -> list[float]:
    """Seconds of each of `runs` calls, after a few untimed ones."""
    seconds = []
    for number in range(WARM + runs):
        report("runs", number, WARM + runs)
        start = time.perf_counter()
        call()
        if number >= WARM:
            seconds.append(time.perf_counter() - start)
    return seconds


def figures(seconds: list[float], work: int, peak: float) -> dict[str, float]:
    """Milliseconds, GFLOP/s of the fastest run, and its share of the peak."""
    low, middle, high = (1e3 * float(v) for v in np.percentile(seconds, [0, 50, 90]))
    rate = work / low / 1e6
    return {
        "min_ms": low,
        "median_ms": middle,
        "p90_ms": high,
        "gflop": work / 1e9,
        "gflops": rate,
        "peak_gflops": peak,
        "share_of_peak": rate / peak,
    }


def by_algorithm(profile: Profile) -> list[dict[str, Any]]:
    """Kernel calls, milliseconds and direct-equivalent work of each algorithm, longest first."""
    rows: dict[str, dict[str, Any]] = {}
    for call in profile.calls:
        empty = {"algorithm": call.algorithm, "calls": 0, "ms": 0.0, "gflop": 0.0}
        row = rows.setdefault(call.algorithm, empty)
        row["calls"] += 1
        row["ms"] += call.ms
        row["gflop"] += call.work / 1e9
    return sorted(rows.values(), key=lambda row: -row["ms"])


def _show(result: dict[str, Any]) -> None:
    from lucid.ir.types import sizes_text

    sizes = sizes_text(result["inputs"].values())
    typer.echo(
        f"{result['model']} for {sizes}, {result['threads']} thread(s), {result['target']}, "
        f"{result['precision']}; compiled in {result['compile_seconds']:.2f} s"
    )
    columns = ("min ms", "median ms", "p90 ms", "GFLOP/s", "of peak")
    row = [f"{result[k]:.2f}" for k in ("min_ms", "median_ms", "p90_ms")]
    row += [f"{result['gflops']:.0f}", f"{result['share_of_peak']:.0%}"]
    print_table(columns, [row], right=columns)
    rows = [
        (a["algorithm"], str(a["calls"]), f"{a['ms']:.2f}", f"{a['gflop']:.3f}", _rate(a, result))
        for a in result["algorithms"]
    ]
    numbers = ("calls", "ms", "GFLOP", "of peak")
    print_table(("algorithm", *numbers), rows, numbers)
    typer.echo(
        f"{result['gflop']:.2f} GFLOP of direct convolution; measured peak "
        f"{result['peak_gflops']:.0f} GFLOP/s. `lucid profile` shows every kernel."
    )


def _rate(row: dict[str, Any], result: dict[str, Any]) -> str:
    """The share of the peak that an algorithm's kernels reach, counted as direct convolution."""
    if not row["gflop"] or not row["ms"]:
        return ""
    return f"{1e3 * row['gflop'] / row['ms'] / result['peak_gflops']:.0%}"
