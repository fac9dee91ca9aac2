"""`lucid opt`: passes on IR text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from lucid.cli.app import INSIDE, Output, app
from lucid.cli.ir import Form, Format, Trace
from lucid.cli.output import write_lines, write_text
from lucid.cli.stages import check_passes
from lucid.cli.subject import parse_text

if TYPE_CHECKING:
    from lucid.ir.diff import GraphDiff
    from lucid.ir.passes import RewriteLog


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
    diff: Annotated[
        bool, typer.Option("--diff", help="Show how the graph changed, node by node.")
    ] = False,
    trace_rewrites: Trace = False,
    form: Form = Format.TEXT,
    output: Output = None,
) -> None:
    """Read IR text, run passes on it, and write IR text.

    \b
    lucid ir resnest_14 --stage captured | lucid opt -p fold-batch-norm
    lucid opt net.lir -p fuse-epilogue --trace-rewrites
    lucid opt net.lir --diff -o optimised.lir

    The graph is verified before the first pass and after each; an empty list (-p "") only verifies
    it. With --diff or --trace-rewrites, these are printed, and the text only goes to --output.
    """
    from lucid.ir.diff import diff as compare
    from lucid.ir.json_form import graph_json
    from lucid.ir.passes import PIPELINE, RewriteLog, run_passes
    from lucid.runtime.crash import CrashReporter

    if diff and trace_rewrites:
        raise typer.BadParameter("--diff and --trace-rewrites exclude each other: give one")
    names = PIPELINE
    if passes is not None:
        names = check_passes([n for part in passes for n in part.split(",") if n])
    graph = parse_text(file)
    log = RewriteLog(names)
    kept = (log.firings, log.misses) if trace_rewrites else (None, None)
    with CrashReporter(lambda shape: graph).watching(()):
        result = run_passes(graph, names, log=kept[0], misses=kept[1])
    report = log if trace_rewrites else compare(graph, result) if diff else None
    as_json = form is Format.JSON
    if report is None or output is not None:
        text = json.dumps(graph_json(result), indent=1) + "\n" if as_json else str(result)
        write_text(text, output)
    if report is not None:
        _show(report, as_json)


def _show(report: RewriteLog | GraphDiff, as_json: bool) -> None:
    if as_json:
        write_text(json.dumps(report.to_json(), indent=1) + "\n", None)
    else:
        write_lines(report.lines(), None)
