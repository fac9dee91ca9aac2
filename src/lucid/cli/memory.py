"""`lucid memory`: the memory plan of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucid.cli.app import (
    INSIDE,
    Batch,
    Disable,
    Json,
    Model,
    Precision,
    Size,
    Target,
    Threads,
    app,
)
from lucid.cli.output import print_json, print_table, write_text
from lucid.cli.stages import Stages, check_passes
from lucid.cli.subject import load_subject


@app.command(rich_help_panel=INSIDE)
def memory(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.svg", help="Draw the plan there."),
    ] = None,
    batch: Batch = 1,
    size: Size = None,
    threads: Threads = None,
    target: Target = "host",
    precision: Precision = "fast",
    disable: Disable = None,
    json: Json = False,
) -> None:
    """Show what memory a compiled model takes, and where each buffer lies for how long.

    \b
    lucid memory resnest_50 --batch 8
    lucid memory resnest_50 -o plan.svg

    All intermediate results lie in one arena, planned when the model is compiled. The lower bound
    is the most that is alive in one phase. No code is generated, so any target can be asked about.
    """
    from lucid.codegen.target import Target as Machine
    from lucid.runtime import memory_map as report
    from lucid.runtime.memory_picture import picture
    from lucid.runtime.processors import default_threads
    from lucid.settings import check_precision

    if output is not None and output.suffix.lower() != ".svg":
        raise typer.BadParameter(f"{output}: the picture's name ends in .svg")
    disabled = check_passes(disable or [])
    check_precision(precision)
    subject = load_subject(model)
    count = threads or default_threads()
    shapes, machine = subject.shapes(batch, size), Machine.named(target)
    programs = Stages(subject, shapes, machine, disabled, precision, count).programs()
    program = max(programs, key=lambda program: program.arena)  # one, but for host ops
    found = report.memory_map(program, count)
    if output is not None:
        write_text(picture(found), output)
    if json:
        print_json(found.to_json())
    else:
        typer.echo(report.summary(found))
        columns = report.PLACE_COLUMNS
        print_table(columns, report.place_rows(found), right=("KiB", "at KiB"))
