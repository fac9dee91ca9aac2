"""`lucid compile`: a compiled model as a file, for `lucid.load` and as MODEL of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucid.cli.app import (
    RUN,
    Batch,
    Model,
    Precision,
    RandomWeights,
    Size,
    Target,
    Threads,
    Weights,
    app,
)
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
    stored_weights: Annotated[
        str,
        typer.Option(
            metavar="packed|plain|both",
            help="How the file holds weights: packed for its targets, as the model has them (any "
            "machine packs them as it loads them), or both.",
        ),
    ] = "packed",
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
    random_weights: RandomWeights = False,
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
    from lucid.artifact.container import require_writable
    from lucid.artifact.contents import SUFFIX, WEIGHTS

    if output.suffix.lower() != SUFFIX:
        raise typer.BadParameter(f"{output}: compiled models end in {SUFFIX}")
    if stored_weights not in WEIGHTS:
        raise typer.BadParameter(f"--stored-weights is one of {', '.join(WEIGHTS)}")
    require_writable(output)  # before minutes of tuning
    subject = load_subject(model, weights)
    subject.warn_if_random(random_weights, f"what {output} answers will mean nothing")
    shape = subject.shape(batch, size)
    if uint8 and subject.layout != "nchw":
        raise typer.BadParameter("--uint8 is for networks of images, (N, C, H, W)")
    with progress() as report:
        compiled = lucid.compile(
            subject.model,
            (shape[0], *shape[2:], shape[1]) if uint8 else subject.shapes(batch, size),
            input="uint8_nhwc" if uint8 else "float32_nchw",
            preprocess=subject.preprocess if uint8 else None,
            threads=threads,
            precision=precision,
            tune=tune,
            options=lucid.CompileOptions(target=target),
            progress=report,
        )
        subject.weighted(compiled).metadata = metadata_of(subject)
        names = targets.split(",") if targets else None
        compiled.save(output, names, weights=stored_weights)
    typer.echo(f"wrote {output} ({output.stat().st_size:,} bytes)", err=True)
