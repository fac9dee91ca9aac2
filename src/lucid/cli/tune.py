"""`lucid tune`: measure the fastest kernel for each layer, and log it for `tune=True`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucid.cli.app import RUN, Batch, Json, Model, Precision, Size, Target, Threads, Weights, app
from lucid.cli.output import Report, print_json, print_table, progress, write_text
from lucid.cli.subject import load_subject

if TYPE_CHECKING:
    from lucid.ir.graph import Graph
    from lucid.runtime.tune import Totals, Tuner, Tuning

AIM = 0.05
"""How much slower than tuned the cost model's choices may be, by the project's own aim."""


@app.command(rich_help_panel=RUN)
def tune(
    model: Model,
    batch: Batch = 1,
    size: Size = None,
    threads: Threads = None,
    budget: Annotated[float, typer.Option(min=0, help="Seconds to measure for, about.")] = 60,
    log: Annotated[
        Path | None, typer.Option(help="The log file.", show_default="tuning.jsonl in the cache")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what the log knows already.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option("--report", help="Also compare the cost model's choices with the tuned ones."),
    ] = False,
    precision: Precision = "fast",
    target: Target = "host",
    weights: Weights = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the schedule there, as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure which kernel and blocks each layer is fastest with, on all threads.

    Each distinct layer is measured inside the whole network. What is found goes to a log, which
    [bold]lucid.compile(..., tune=True)[/] reads; layers that it knows are not measured again.
    With --report whole networks are run in turns, which tells how far the cost model alone is off.
    """
    from lucid.runtime.tuning_log import TuningLog

    subject = load_subject(model, weights)
    shapes = subject.shapes(batch, size)
    graph = subject.source().graph(shapes)
    with progress() as bar:
        tuner = _tuner(target, batch, threads, precision, bar)
        tuning = tuner.tune(graph, budget=budget, log=TuningLog(log), again=again)
        totals = tuner.compare(graph, [tuning.model, tuning.schedule]) if report else None
    result: dict[str, Any] = {
        "model": subject.name,
        "inputs": {v.name: list(v.type.concrete(batch)) for v in graph.inputs},
        "threads": tuner.threads,
        "target": tuner.target.name,
        "precision": precision,
        "runs": tuning.runs,
        "layers": _layers(graph, tuning),
    }
    if totals is not None:
        result["report"] = _report(*totals)
    if output is not None:
        write_text(tuning.schedule.to_json(), output)
    if json:
        print_json(result)
    else:
        _show(result)


def _tuner(target: str, batch: int, threads: int | None, precision: str, bar: Report) -> Tuner:
    """The tuner, its settings checked as `compile` checks them."""
    from lucid.runtime.cache import ObjectCache
    from lucid.runtime.planner import MAX_BATCH
    from lucid.runtime.processors import default_threads
    from lucid.runtime.tune import Tuner
    from lucid.settings import check_precision, runnable_target

    check_precision(precision)
    count = threads or default_threads()
    planned = min(batch, MAX_BATCH)
    return Tuner(runnable_target(target), planned, count, precision, ObjectCache(), bar)


def _layers(graph: Graph, tuning: Tuning) -> list[dict[str, Any]]:
    """A row for each distinct layer, in the graph's order; milliseconds are of one of them."""
    from lucid.codegen.scheduling.candidates import describe

    origins = {v.name: n.origin or v.name for n in graph.nodes for v in n.outputs}
    return [
        {
            "layer": origins[names[0]],
            "count": len(names),
            "signature": finding.layer,
            "model": describe(finding.model),
            "model_ms": finding.model_ms,
            "tuned": describe(finding.choice),
            "tuned_ms": finding.ms,
            "gain": 1 - finding.ms / finding.model_ms,
            "tried": finding.tried,
        }
        for finding, names in tuning.findings
    ]


def _report(model: Totals, tuned: Totals) -> dict[str, Any]:
    """By how much the cost model alone is slower than the tuned schedule, in total."""
    slower = model.calls / tuned.calls - 1
    return {
        "model_ms": model.calls,
        "tuned_ms": tuned.calls,
        "model_run_ms": model.run,
        "tuned_run_ms": tuned.run,
        "model_slower_by": slower,
        "aim": AIM,
        "within_aim": slower <= AIM,
    }


def _show(result: dict[str, Any]) -> None:
    from lucid.ir.types import sizes_text

    sizes = sizes_text(result["inputs"].values())
    source = f"{result['runs']} runs" if result["runs"] else "all layers known from the log"
    typer.echo(
        f"{result['model']} for {sizes}, {result['threads']} thread(s), {result['target']}, "
        f"{result['precision']}; {source}"
    )
    columns = ("layer", "x", "cost model", "ms", "tuned", "tuned ms", "gain", "tried")
    rows = [
        (
            r["layer"],
            str(r["count"]),
            r["model"],
            f"{r['count'] * r['model_ms']:.3f}",
            r["tuned"] if r["tuned"] != r["model"] else "the same",
            f"{r['count'] * r['tuned_ms']:.3f}",
            f"{r['gain']:.0%}" if r["gain"] else "",
            str(r["tried"]),
        )
        for r in result["layers"]
    ]
    before, after = (
        sum(r["count"] * r[k] for r in result["layers"]) for k in ("model_ms", "tuned_ms")
    )
    gain = f"{1 - after / before:.0%}" if before else ""
    rows.append(("total", "", "", f"{before:.3f}", "", f"{after:.3f}", gain, ""))
    numbers = ("x", "ms", "tuned ms", "gain", "tried")
    print_table(columns, rows, right=numbers, spare=("tried", "x"))
    if "report" in result:
        _show_report(result["report"])


def _show_report(report: dict[str, Any]) -> None:
    print_table(
        ("whole network", "sum of fastest calls, ms", "fastest run, ms"),
        [
            (name, f"{report[f'{key}_ms']:.2f}", f"{report[f'{key}_run_ms']:.2f}")
            for name, key in (("by the cost model alone", "model"), ("tuned", "tuned"))
        ],
        right=("sum of fastest calls, ms", "fastest run, ms"),
    )
    slower = report["model_slower_by"]
    typer.echo(
        f"the cost model alone is {abs(slower):.1%} {'slower' if slower >= 0 else 'faster'} than "
        f"the tuned schedule; at most {report['aim']:.0%} slower is the aim"
    )
