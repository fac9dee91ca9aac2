"""`lucid ir`: a model at every stage, as text."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucid.cli.app import (
    INSIDE,
    Batch,
    Disable,
    Model,
    Output,
    Precision,
    Size,
    Target,
    Threads,
    Weights,
    app,
    warn,
)
from lucid.cli.output import progress, write_lines, write_text
from lucid.cli.stages import SUFFIXES, Stages, check_name, check_passes, check_stage
from lucid.cli.subject import load_subject

if TYPE_CHECKING:
    from lucid.cli.output import Report


class Format(StrEnum):
    """What is printed."""

    TEXT = "text"
    JSON = "json"


Stage = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE",
        help="captured, canonical, a pass by name, fused, scheduled, llvm or asm.",
        show_default="fused",
    ),
]
PrintAfter = Annotated[
    str | None,
    typer.Option(
        metavar="PASS|all|changed",
        help="The graph after this pass, after every pass, or after those that changed it.",
    ),
]
Diff = Annotated[
    str | None,
    typer.Option(
        metavar="A..B",
        help="Show how the graph changed between two stages. A defaults to captured, B to fused; "
        "a pass alone shows the changes that it made.",
    ),
]
Trace = Annotated[
    bool,
    typer.Option(
        "--trace-rewrites",
        help="Each rewrite: its rule and source line, nodes before and after; and near misses.",
    ),
]
DumpDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write every stage to a file of its own there, numbered."),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--op",
        metavar="PATTERN",
        help="Only the part whose modules match, such as layer1.0 or '*.conv2', or whose results "
        "do, such as '%relu_3'.",
    ),
]
Form = Annotated[Format, typer.Option("--format", help="text, or json for scripts.")]


@app.command(rich_help_panel=INSIDE)
def ir(
    model: Model,
    stage: Stage = None,
    print_after: PrintAfter = None,
    diff: Diff = None,
    trace_rewrites: Trace = False,
    dump_dir: DumpDir = None,
    op: Part = None,
    form: Form = Format.TEXT,
    size: Size = None,
    batch: Batch = 1,
    target: Target = "host",
    threads: Threads = None,
    precision: Precision = "fast",
    disable: Disable = None,
    weights: Weights = None,
    output: Output = None,
) -> None:
    """Print a model as Lucid sees it, at any stage on the way to machine code.

    \b
    captured    the graph as the model's forward was traced
    canonical   after folding constants and dropping what is dead
    PASS        after a pass; `lucid passes` lists them
    fused       after all passes
    scheduled   the Program: phases of kernel calls, and where each buffer lies
    llvm, asm   the code of its kernels, for any target

    \b
    lucid ir resnest_14 --stage captured --op layer1.0
    lucid ir resnest_14 --diff captured..fused --op layer2.0.conv3
    lucid ir resnest_14 --diff fold-scales
    lucid ir resnest_14 --trace-rewrites --op '*.conv2'
    lucid ir resnest_14 --stage asm --target aarch64 --op layer1.0.conv1

    Graphs, and parts of them, are printed in a form that `lucid opt` and every MODEL argument read
    back. What is cut off becomes an input.
    """
    from lucid.codegen.target import Target as Machine
    from lucid.runtime.processors import default_threads
    from lucid.settings import check_precision

    question = _Question(stage, print_after, diff, trace_rewrites, dump_dir)
    question.check()
    check_precision(precision)
    disabled = check_passes(disable or [])
    if stage is not None:
        check_stage(stage, code=True)
    subject = load_subject(model, weights)
    shapes, machine = subject.shapes(batch, size), Machine.named(target)
    count = threads or default_threads()
    stages = Stages(subject, shapes, machine, disabled, precision, count)
    question.answer(stages, op, form, output)


@dataclass(frozen=True)
class _Question:
    """What is to be printed: at most one of these is given, and else the fused graph is meant."""

    stage: str | None
    print_after: str | None
    diff: str | None
    trace_rewrites: bool
    dump_dir: Path | None

    def check(self) -> None:
        """A usage error where several are given."""
        options = {f"--{f.name.replace('_', '-')}": getattr(self, f.name) for f in fields(self)}
        given = [name for name, value in options.items() if value]
        if len(given) > 1:
            raise typer.BadParameter(
                f"{' and '.join(given)} are different questions: give one of them"
            )

    def answer(self, stages: Stages, op: str | None, form: Format, output: Path | None) -> None:
        """Print it, or write it to files."""
        with progress() as report:
            if self.diff is not None:
                _show_diff(stages, self.diff, op, form, output)
            elif self.trace_rewrites:
                _show_rewrites(stages, op, form, output)
            elif self.dump_dir is not None:
                _dump(stages, self.dump_dir, op, form, report)
            elif self.print_after is not None:
                write_text(_after(stages, self.print_after, op, form, report), output)
            else:
                stage, as_json = self.stage or "fused", form is Format.JSON
                write_text(stages.show(stage, report, op, as_json), output)


def _after(stages: Stages, wanted: str, op: str | None, form: Format, report: Report) -> str:
    """The graphs after the wanted passes, each under the pass's name."""
    names = _passes_wanted(stages, wanted)
    kept = [name for name in names if stages.has(name, op)]
    if form is Format.JSON:
        return json.dumps({name: stages.data(name, report, op) for name in kept}, indent=1) + "\n"
    return "\n".join(
        f"# after {name}\n{stages.text(name, report, op)}"
        if name in kept
        else f"# after {name} nothing is left of {op}\n"
        for name in names
    )


def _passes_wanted(stages: Stages, wanted: str) -> list[str]:
    from lucid.ir.passes import PASSES

    if wanted not in ("all", "changed"):
        return [check_name(wanted, [*PASSES, "all", "changed"], "pass")]
    names = [name for name in stages.graphs() if name in PASSES]
    if wanted == "all":
        return names
    texts = {name: str(stages.graph(name)) for name in ("captured", *names)}
    before = ["captured", *names]
    return [n for n, last in zip(names, before, strict=False) if texts[n] != texts[last]]


def _show_diff(
    stages: Stages, wanted: str, op: str | None, form: Format, output: Path | None
) -> None:
    """What became of the graph from one stage to another."""
    from lucid.ir.diff import diff

    first, last = _ends(stages, wanted)
    found = diff(stages.graph(first), stages.graph(last), (first, last))
    if op is not None:
        stages.has(first, op)  # a usage error where nothing has such a name
        found = found.about(op)
    if form is Format.JSON:
        write_text(json.dumps(found.to_json(), indent=1) + "\n", output)
    else:
        write_lines(found.lines(), output)


def _ends(stages: Stages, wanted: str) -> tuple[str, str]:
    """`A..B` as two stages of graphs; a pass alone is from the stage before it."""
    known = list(stages.graphs())
    first, dots, last = wanted.partition("..")
    if dots:
        ends = (first or "captured", last or "fused")
        return check_name(ends[0], known, "stage"), check_name(ends[1], known, "stage")
    check_name(wanted, known, "stage")
    passes = [name for name in known if name not in ("canonical", "fused")]
    if wanted not in passes[1:]:
        raise typer.BadParameter(f"{wanted} is no pass: give two stages, such as captured..fused")
    return passes[passes.index(wanted) - 1], wanted


def _show_rewrites(stages: Stages, op: str | None, form: Format, output: Path | None) -> None:
    """What the passes did, rewrite by rewrite."""
    log = stages.rewrites()
    if op is not None:
        stages.has("captured", op)
        log = log.about(op)
    if form is Format.JSON:
        write_text(json.dumps(log.to_json(), indent=1) + "\n", output)
    else:
        write_lines(log.lines(), output)


def _dump(stages: Stages, folder: Path, op: str | None, form: Format, report: Report) -> None:
    """One file for each stage: `00-captured.lir`, ..., `11-asm.s`."""
    stages.has("captured", op)
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for number, name in enumerate(stages.names()):
        if not stages.has(name, op):
            warn(f"at stage {name} nothing is left of {op}")
            continue
        suffix = "json" if form is Format.JSON else SUFFIXES.get(name, "lir")
        text = stages.show(name, report, op, form is Format.JSON)
        (folder / f"{number:02}-{name}.{suffix}").write_text(text, encoding="utf-8")
        written += 1
    typer.echo(f"wrote {written} stages to {folder}", err=True)
