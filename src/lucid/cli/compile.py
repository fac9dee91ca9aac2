"""`lucid compile`: a compiled model as a file, for `lucid.load` and as MODEL of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from lucid.compiler import CompiledModel
    from lucid.ir.types import ShapeArgument


@app.command(rich_help_panel=RUN)
def compile(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.lucid|FOLDER",
            help="File to write; with --emit a folder.",
            show_default=False,
        ),
    ],
    stored_weights: Annotated[
        str | None,
        typer.Option(
            metavar="compact|packed|plain|both",
            help="How the file holds weights: packed for its targets in little room (the rest is "
            "made once on a host), all of them packed, as the model has them (any machine packs "
            "them as it loads them), or packed and as the model has them.",
        ),
    ] = None,
    emit: Annotated[
        str | None,
        typer.Option(
            metavar="c|so",
            help="Write a library in C instead: sources and a static library, or a shared one too.",
        ),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="With --emit: weights in the library, not in a file.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="With --emit: what files and functions are called.",
            show_default="that of MODEL",
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="With --emit: batches to plan besides --batch; others are made up of these.",
        ),
    ] = None,
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
    lucid compile net.onnx --emit c -o out/

    In Python, lucid.load("m.lucid") gives the compiled model. Other batches and, where the network
    takes them, other image sizes work as well; a machine for which there is no code makes its own.

    With --emit, the folder has a library that needs neither Python nor Lucid (docs/c.md).
    """
    import lucid
    from lucid.artifact.container import require_writable
    from lucid.artifact.contents import SUFFIX, WEIGHTS

    if emit not in (None, "c", "so"):
        raise typer.BadParameter(f"--emit is c or so, not {emit!r}")
    if emit is None and (embed or name or batches):
        raise typer.BadParameter("--embed, --name and --batches go with --emit")
    if emit is None and output.suffix.lower() != SUFFIX:
        raise typer.BadParameter(f"{output}: compiled models end in {SUFFIX}")
    if stored_weights not in (None, *WEIGHTS):
        raise typer.BadParameter(f"--stored-weights is one of {', '.join(WEIGHTS)}")
    others = _numbers(batches)
    if emit is None:
        require_writable(output)  # before minutes of tuning
    subject = load_subject(model, weights)
    subject.warn_if_random(random_weights, f"what {output} answers will mean nothing")
    shape = subject.shape(batch, size)
    if uint8 and subject.layout != "nchw":
        raise typer.BadParameter("--uint8 is for networks of images, (N, C, H, W)")

    def shapes(rows: int) -> ShapeArgument:
        return (rows, *shape[2:], shape[1]) if uint8 else subject.shapes(rows, size)

    with progress() as report:
        compiled = lucid.compile(
            subject.model,
            shapes(batch),
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
        if emit is not None:
            for rows in others:
                compiled.prepare(shapes(rows))
            _emit(compiled, output, name or _name_of(model), names, embed, emit == "so")
            return
        compiled.save(output, names, weights=stored_weights)
    typer.echo(f"wrote {output} ({output.stat().st_size:,} bytes)", err=True)


def _numbers(text: str | None) -> list[int]:
    """Batches, from an option."""
    parts = text.split(",") if text else []
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(f"--batches is a list of numbers, such as 1,8,16, not {text!r}")
    return list(map(int, parts))


def _name_of(model: str) -> str:
    """What a library is called, by MODEL: its last part, as a name in C."""
    from lucid.emit.names import identifier

    last = Path(model.rpartition(":")[2])
    return identifier(last.stem if last.suffix in (".onnx", ".lucid", ".lir") else last.name)


def _emit(
    compiled: CompiledModel,
    output: Path,
    name: str,
    targets: list[str] | None,
    embed: bool,
    shared: bool,
) -> None:
    """Write a library in C, and list its files."""
    import lucid

    lucid.emit_c(compiled, output, name=name, targets=targets, embed=embed, shared=shared)
    for path in sorted(output.iterdir()):
        typer.echo(f"  {path} ({path.stat().st_size:,} bytes)", err=True)
