"""`lucid check`: compare compiled with interpreted results, and locate what differs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucid.cli.app import (
    INSIDE,
    Batch,
    Disable,
    Json,
    Model,
    Precision,
    RandomWeights,
    Size,
    Target,
    Threads,
    Weights,
    app,
    complain,
)
from lucid.cli.output import print_json, print_table, progress
from lucid.cli.stages import check_passes
from lucid.cli.subject import load_subject

if TYPE_CHECKING:
    from lucid.cli.model import Subject
    from lucid.runtime.check import Blame, Case, CheckReport

WORST = 10
"""Kernel calls that the table shows where all are right: those that are off most."""


@app.command(rich_help_panel=INSIDE)
def check(
    model: Model,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Name the stage and the kernel that go wrong first.")
    ] = False,
    reduce: Annotated[
        bool, typer.Option("--reduce", help="Find the smallest part of the graph that fails.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="REPRO", help="Folder or .zip to keep what was checked in."
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Inputs.", show_default="generated"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which inputs to generate.")] = 0,
    batch: Batch = 1,
    size: Size = None,
    threads: Threads = None,
    precision: Precision = "fast",
    target: Target = "host",
    disable: Disable = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    json: Json = False,
) -> None:
    """Compare a compiled model with the interpreter, kernel call by kernel call.

    \b
    lucid check resnest_50
    lucid check net.lir --bisect
    lucid check resnest_14 --reduce -o repro.zip
    lucid check repro.zip --bisect

    MODEL may also be a repro, a folder or a .zip that an earlier check (or a crash) wrote; it
    brings its own inputs, weights and settings. With --bisect each stage is compared with the one
    before it: every pass, the schedule, the memory plan, the kernels and the whole native run. The
    exit code is 1 where anything is wrong.
    """
    from lucid.runtime.check import is_repro, load_case, save_case

    if is_repro(Path(model)):
        case = load_case(Path(model))
    else:
        settings = _settings(target, precision, threads, disable)
        subject = load_subject(model, weights)
        subject.warn_if_random(random_weights, "rounding errors with trained ones may differ")
        case = _case(subject, settings, inputs, (batch, size, seed))
    case, blame, report = _examine(case, bisect, reduce)
    if output is not None:
        save_case(case, output)
        typer.echo(f"wrote {output}", err=True)
    if report is not None:
        _tell_report(report, json)
    else:
        _tell_blame(case, blame, reduce, json)
    if blame is not None or (report is not None and not report.ok):
        raise typer.Exit(1)


def _examine(
    case: Case, bisect: bool, reduce: bool
) -> tuple[Case, Blame | None, CheckReport | None]:
    """The case (the smallest that fails, with `reduce`) and who is to blame for it, if anyone; or,
    with neither question asked, the report on all kernel calls."""
    from lucid.runtime import check
    from lucid.runtime.cache import ObjectCache
    from lucid.runtime.crash import CrashReporter

    chosen = case.settings
    reporter = CrashReporter(
        lambda shapes: case.graph, chosen.target, chosen.precision, chosen.threads, chosen.disable
    )
    with progress() as bar, reporter.watching(case.graph.input_shapes(case.batch)):
        tools = check.Tools(ObjectCache(), bar)
        if reduce:
            smallest, blame = check.reduce(case, tools) or (case, None)
            return smallest, blame, None
        if bisect:
            return case, check.bisect(case, tools), None
        return case, None, check.check(case, tools)


def _settings(
    target: str, precision: str, threads: int | None, disable: list[str] | None
) -> dict[str, Any]:
    from lucid.compiler import CompileOptions
    from lucid.runtime.processors import default_threads
    from lucid.settings import check_precision, runnable_target

    check_precision(precision)
    disabled = CompileOptions(disable=check_passes(disable or [])).disabled()
    return {
        "target": runnable_target(target).name,
        "precision": precision,
        "threads": threads or default_threads(),
        "disable": tuple(disabled),
    }


def _case(
    subject: Subject,
    settings: dict[str, Any],
    inputs: Path | None,
    wanted: tuple[int, str | None, int],
) -> Case:
    """The case of a model; `wanted`: batch, size, and the seed of generated inputs."""
    from lucid.ir.samples import sample_inputs
    from lucid.runtime.check import Case, Settings, read_inputs

    batch, size, seed = wanted
    graph = subject.source().captured(subject.shapes(batch, size))
    if inputs is not None:
        arrays, batch = read_inputs(inputs, graph)
    else:
        arrays = tuple(sample_inputs(graph, batch, seed))
    return Case(graph, arrays, batch, Settings(**settings))


def _tell_report(report: CheckReport, json: bool) -> None:
    if json:
        print_json(report.to_json())
        return
    wrong = [c for c in report.calls if not c.ok]
    shown = wrong or sorted(report.calls, key=lambda c: -c.error)[:WORST]
    rows = [(c.origin, c.kernel, c.algorithm, f"{c.error:.1e}", f"{c.allowed:.0e}") for c in shown]
    columns = ("layer", "kernel", "algorithm", "off by", "allowed")
    print_table(columns, rows, right=("off by", "allowed"))
    typer.echo(
        f"{len(report.calls) - len(wrong)} of {len(report.calls)} kernel calls of {report.model} "
        f"are right by themselves; its outputs are off by {report.error:.1e} of the largest value, "
        f"allowed {report.allowed:.0e}"
    )
    if not report.ok:
        complain(
            "the compiled model is wrong, a defect of Lucid: --bisect names the stage, and "
            "--reduce -o repro.zip makes a small case of it to report"
        )


def _tell_blame(case: Case, blame: Blame | None, reduced: bool, json: bool) -> None:
    graph = str(case.graph) if blame is not None and reduced else None
    if json:
        print_json({"blame": asdict(blame) if blame is not None else None, "graph": graph})
        return
    if blame is None:
        typer.echo(
            "nothing is wrong: every pass, the schedule, the memory plan, each kernel and the "
            f"whole run of {case.graph.name} agree"
        )
        return
    if graph is not None:
        typer.echo(graph)
    complain(str(blame))
