"""`lucid opt`: passes on IR text."""

from __future__ import annotations

from typing import Annotated

import typer

from lucid.cli.app import INSIDE, Output, app
from lucid.cli.output import write_text
from lucid.cli.stages import check_passes
from lucid.cli.subject import parse_text


@app.command(rich_help_panel=INSIDE)
def opt(
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="IR text; - is stdin.", show_default=False)
    ] = "-",
    passes: Annotated[
        list[str] | None,
        typer.Option(
            "--passes",
            "-p",
            metavar="PASS,...",
            help="Passes to run, in this order.",
            show_default="the whole pipeline",
        ),
    ] = None,
    output: Output = None,
) -> None:
    """Read IR text, run passes on it, and write IR text.

    \b
    lucid ir resnest_14 --stage captured | lucid opt - -p fold-batch-norm,fuse-epilogue
    lucid opt net.lir

    The text is checked before the first pass and after each. An empty list (-p "") only checks it.
    """
    from lucid.ir.passes import run_passes
    from lucid.runtime.crash import CrashReporter

    names = None
    if passes is not None:
        names = check_passes([n for part in passes for n in part.split(",") if n])
    graph = parse_text(file)
    with CrashReporter(lambda shape: graph).watching(()):
        result = run_passes(graph, names)
    write_text(str(result), output)
