"""`lucid ir`: a model at every stage, as text."""

from __future__ import annotations

from typing import Annotated

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
)
from lucid.cli.output import progress, write_text
from lucid.cli.stages import Stages, check_passes, check_stage
from lucid.cli.subject import load_subject


@app.command(rich_help_panel=INSIDE)
def ir(
    model: Model,
    stage: Annotated[
        str,
        typer.Option(
            metavar="STAGE",
            help="captured, canonical, a pass by name, fused, scheduled, llvm or asm.",
        ),
    ] = "fused",
    print_after: Annotated[
        str | None,
        typer.Option(metavar="PASS|all", help="The graph after this pass, or after every pass."),
    ] = None,
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

    Graphs are printed in a form that `lucid opt` and every MODEL argument read back.
    """
    from lucid.codegen.target import Target as Machine

    check_stage(stage, code=True)
    after = check_passes([print_after]) if print_after not in (None, "all") else print_after
    disabled = check_passes(disable or [])
    subject = load_subject(model, weights)
    stages = Stages(
        subject,
        subject.shape(batch, size),
        Machine.named(target),
        disabled,
        precision,
        threads or 1,
    )
    with progress() as report:
        text = _after(stages, after) if after else stages.text(stage, report)
    write_text(text, output)


def _after(stages: Stages, wanted: str | list[str]) -> str:
    """The graphs after the wanted passes, each under the pass's name."""
    from lucid.ir.passes import PASSES

    graphs = stages.graphs()
    names = [n for n in graphs if n in PASSES] if wanted == "all" else list(wanted)
    return "\n".join(f"# after {name}\n{stages.graph(name)}" for name in names)
