"""`lucid viz`: a picture of a model's graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucid.cli.app import INSIDE, Disable, Model, Size, app
from lucid.cli.output import write_text
from lucid.cli.stages import Stages, check_passes, check_stage
from lucid.cli.subject import load_subject


@app.command(rich_help_panel=INSIDE)
def viz(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.dot|.json",
            help="File to write.",
            show_default=False,
        ),
    ],
    stage: Annotated[
        str, typer.Option(metavar="STAGE", help="captured, canonical, a pass by name, or fused.")
    ] = "fused",
    size: Size = None,
    disable: Disable = None,
) -> None:
    """Draw a model's graph, its modules as nested groups.

    \b
    g.dot    for Graphviz: dot -Tsvg g.dot -o g.svg
    g.json   for Google's Model Explorer, where modules fold and unfold
    """
    from lucid.codegen.target import Target
    from lucid.ir.view import FORMS

    check_stage(stage, code=False)
    draw = FORMS.get(output.suffix.lower())
    if draw is None:
        raise typer.BadParameter(f"{output}: pictures end in {' or '.join(FORMS)}")
    disabled = check_passes(disable or [])
    subject = load_subject(model)
    stages = Stages(subject, subject.shape(1, size), Target.host(), disabled)
    write_text(draw(stages.graph(stage)), output)
