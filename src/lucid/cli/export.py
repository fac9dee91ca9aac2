"""`lucid export`: a model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucid.cli.app import RUN, Disable, Model, RandomWeights, Size, Weights, app
from lucid.cli.images import spec_with
from lucid.cli.output import write_bytes
from lucid.cli.saved import properties_of
from lucid.cli.stages import Stages, check_passes, check_stage
from lucid.cli.subject import load_subject


@app.command(rich_help_panel=RUN)
def export(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE.onnx", help="File to write.", show_default=False
        ),
    ],
    stage: Annotated[
        str, typer.Option(metavar="STAGE", help="captured, canonical, a pass by name, or fused.")
    ] = "captured",
    size: Size = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    disable: Disable = None,
) -> None:
    """Write a model as an ONNX file, weights included, for batches of any size.

    \b
    lucid export resnest_50 -o m.onnx --weights resnest50.safetensors
    lucid export resnest_50 -o m.onnx --stage fold-batch-norm

    As captured, it is the network as its forward says, under the names of its state dict; after a
    pass, what Lucid has made of it: fusions are written as the ops they are made of. The file's
    metadata says how images are preprocessed and what the classes are called, so that `lucid run`
    treats it as it does the model.
    """
    from lucid.codegen.target import Target
    from lucid.onnx.writer import to_onnx

    check_stage(stage, code=False)
    if output.suffix.lower() != ".onnx":
        raise typer.BadParameter(f"{output}: ONNX files end in .onnx")
    disabled = check_passes(disable or [])
    subject = load_subject(model, weights)
    subject.warn_if_random(random_weights, f"what {output} answers will mean nothing")
    stages = Stages(subject, subject.shapes(1, size), Target.host(), disabled)
    proto = to_onnx(stages.graph(stage))
    subject.preprocess = spec_with(subject.preprocess, None, size)
    for key, value in properties_of(subject).items():
        proto.metadata_props.add(key=key, value=value)
    data = proto.SerializeToString()
    write_bytes(data, output)
    typer.echo(f"wrote {output} ({len(data):,} bytes)", err=True)
