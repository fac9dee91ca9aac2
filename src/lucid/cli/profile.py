"""`lucid profile`: where a compiled model spends its time."""

from __future__ import annotations

import json as plain_json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucid.cli.app import INSIDE, Batch, Json, Model, Precision, Size, Target, Threads, Weights, app
from lucid.cli.output import print_json, print_table, progress, write_text
from lucid.cli.subject import load_subject

if TYPE_CHECKING:
    from lucid.runtime.profile_report import Profile


class By(StrEnum):
    """What a row of the table is."""

    KERNEL = "kernel"
    MODULE = "module"


@app.command(rich_help_panel=INSIDE)
def profile(
    model: Model,
    by: Annotated[By, typer.Option(help="A row for each kernel call, or for each module.")] = (
        By.KERNEL
    ),
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write the fastest run there, for ui.perfetto.dev or chrome://tracing.",
        ),
    ] = None,
    batch: Batch = 1,
    size: Size = None,
    threads: Threads = None,
    runs: Annotated[int, typer.Option(min=1, help="Measured runs.")] = 20,
    precision: Precision = "fast",
    target: Target = "host",
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Show where a compiled model spends its time, kernel by kernel.

    \b
    lucid profile resnest_50 --by module
    lucid profile resnest_14 --size 64 --trace t.json

    Times are taken inside the generated code, on every thread. A call takes until its last thread
    is done; "busy" is the part of that time that threads spend in it. GFLOP/s count the work of
    direct convolution, whatever the algorithm, so Winograd can pass 100% of the peak. Peak and
    bandwidth are measured, and "bound by" says which of them a kernel would wait for at full speed.
    """
    from lucid.ir.samples import sample_inputs
    from lucid.runtime.profile_report import to_json, trace_events

    subject = load_subject(model, weights)
    shapes = subject.shapes(batch, size)
    with progress() as report:
        compiled = subject.compiled(shapes, threads, precision, report, target)
        inputs = sample_inputs(compiled.graph(shapes), batch)
        measured = compiled.profile(inputs, runs)
    if trace is not None:
        write_text(plain_json.dumps(trace_events(measured)), trace)
    if json:
        print_json(to_json(measured))
    else:
        _show(measured, by)


def _show(profile: Profile, by: By) -> None:
    from lucid.runtime import profile_report as report

    typer.echo(report.summary(profile))
    if by is By.KERNEL:
        columns, rows = report.KERNEL_COLUMNS, report.kernel_rows(profile)
    else:
        columns, rows = report.MODULE_COLUMNS, report.module_rows(profile)
    for names, lines in ((columns, rows), (report.THREAD_COLUMNS, report.thread_rows(profile))):
        numbers = [n for n in names if n in report.NUMBERS]
        print_table(names, lines, right=numbers, spare=report.SPARE)
