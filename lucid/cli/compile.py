"""`lucid compile`: a compiled model as a file, for `lucid.load` and as MODEL of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucid.cli.app import RUN, Batch, Model, Precision, Size, Target, Threads, Weights, app
from lucid.cli.output import progress
from lucid.cli.saved import metadata_of
from lucid.cli.subject import load_subject


@app.command(rich_help_panel=RUN)
def compile(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE.lucid", help="File to write.", show_default=False
        ),
    ],
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Instruction sets to put code in for, such as x86-64-v3,x86-64-v4.",
            show_default="that of --target",
        ),
    ] = None,
    batch: Batch = 1,
    size: Size = None,
    uint8: Annotated[
        bool,
        typer.Option("--uint8", help="Take uint8 images (N, H, W, C), and normalise them."),
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure what each layer is fastest with.")
    ] = False,
    threads: Threads = None,
    precision: Precision = "fast",
    target: Target = "host",
    weights: Weights = None,
) -> None:
    """Compile a network into a file: weights, and code for one instruction set or several.

    \b
    lucid compile resnest_50 -o m.lucid --weights resnest50.safetensors
    lucid compile net.onnx -o m.lucid --targets x86-64-v3,x86-64-v4
    lucid run m.lucid cat.jpg

    In Python, lucid.load("m.lucid") gives the compiled model. Other batches and, where the network
    takes them, other image sizes work as well; a machine for which there is no code makes its own.
    """
    import lucid
    from lucid.artifact.contents import SUFFIX

    if output.suffix.lower() != SUFFIX:
        raise typer.BadParameter(f"{output}: compiled models end in {SUFFIX}")
    subject = load_subject(model, weights)
    shape = subject.shape(batch, size)
    if uint8 and subject.layout != "nchw":
        raise typer.BadParameter("--uint8 is for networks of images, (N, C, H, W)")
    with progress() as report:
        compiled = lucid.compile(
            subject.model,
            (shape[0], *shape[2:], shape[1]) if uint8 else shape,
            input="uint8_nhwc" if uint8 else "float32_nchw",
            preprocess=subject.preprocess if uint8 else None,
            threads=threads,
            precision=precision,
            tune=tune,
            options=lucid.CompileOptions(target=target),
            progress=report,
        )
        subject.weighted(compiled).metadata = metadata_of(subject)
        compiled.save(output, targets.split(",") if targets else None)
    typer.echo(f"wrote {output} ({output.stat().st_size:,} bytes)", err=True)
