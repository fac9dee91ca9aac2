"""`lucid run`: what a network makes of images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lucid.cli.answers import answers, class_names, show, write_mask
from lucid.cli.app import RUN, Json, Model, Precision, Size, Threads, Weights, app, warn
from lucid.cli.images import read_batches, spec_with
from lucid.cli.output import Report, print_json, progress
from lucid.cli.subject import Subject, load_subject
from lucid.errors import CompileError

TOLERANCE = 1e-4
"""The largest difference from the interpreter, by the largest output, that is still rounding."""

Array = np.ndarray[Any, np.dtype[Any]]


@app.command(rich_help_panel=RUN)
def run(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Images, or arrays (.npy).", show_default=False),
    ],
    weights: Weights = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with the name of a class on each line.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    preprocess: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="How images are prepared, where the model's way is not known: resize=256, "
            "crop_fraction=0.9, interpolation=bicubic, mean=0.5,0.5,0.5, std=0.5, divisor=1, "
            "order=bgr. May be given several times.",
            show_default="the model's own, else ImageNet's",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="MASK.png", help="Write the likeliest class of each pixel there."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare with the float64 interpreter.")
    ] = False,
    size: Size = None,
    threads: Threads = None,
    precision: Precision = "fast",
    json: Json = False,
) -> None:
    """Classify or segment images: compile the network, run it, and show the likeliest classes.

    \b
    lucid run resnest_digits examples/digits/*.png --compare
    lucid run resnest_50 cat.jpg --weights resnest50.pth --labels names.txt
    lucid run net.onnx cat.jpg --preprocess mean=0.5 --preprocess std=0.5
    lucid run torchvision:fcn_resnet50 a.jpg --weights pretrained --out mask.png

    Images are resized, cropped and normalised as the model wants them. Arrays in .npy files are
    taken as they are: float32 (C, H, W) or (N, C, H, W), or uint8 images (H, W, C).
    """
    if out is not None and (len(images) > 1 or out.suffix.lower() != ".png"):
        raise typer.BadParameter("--out is for one image, and a file that ends in .png")
    subject = load_subject(model, weights)
    names, batches = read_batches(images, subject, spec_with(subject.preprocess, preprocess, size))
    if not subject.trained:
        warn(f"{subject.name} runs with generated weights, so its answers mean nothing: --weights")
    with progress() as report:
        compiled = subject.compiled(batches[0].shape, threads, precision, report)
        start = time.perf_counter()
        results = [_outputs(compiled(batch)) for batch in batches]
        seconds = time.perf_counter() - start
        agreement = _compare(subject, batches, results, report) if compare else None
    told = class_names(labels, subject, results)
    images_told = answers(names, results, told, top)
    result: dict[str, Any] = {"model": subject.name, "images": images_told}
    if out is not None:
        write_mask(results[0], out)
    if agreement:
        result["compare"] = agreement
    if json:
        print_json(result)
    else:
        show(result)
        typer.echo(f"{len(names)} image(s) in {1e3 * seconds:.1f} ms, {compiled.threads} thread(s)")
    if agreement and not agreement["relative_error"] <= TOLERANCE:
        raise CompileError(
            "the compiled model and the interpreter disagree by more than rounding explains: a "
            "defect of Lucid; please report it with this command"
        )


def _outputs(output: Any) -> tuple[Array, ...]:
    return output if isinstance(output, tuple) else (output,)


def _compare(
    subject: Subject, batches: list[Array], results: list[tuple[Array, ...]], report: Report
) -> dict[str, Any]:
    """How far the outputs are from those of the graph as captured, interpreted in float64."""
    errors, largest, same, count = [0.0], 0.0, 0, 0
    for batch, outputs in zip(batches, results, strict=True):
        expected = _expected(subject, batch, report)
        pairs = zip(outputs, expected, strict=True)
        errors += [float(np.abs(y - e).max(initial=0.0)) for y, e in pairs]
        largest = max(largest, *(float(np.abs(e).max(initial=0.0)) for e in expected))
        if outputs[0].ndim == 2:
            same += int((outputs[0].argmax(1) == expected[0].argmax(1)).sum())
            count += len(batch)
    worst = float(np.max(errors))  # NaN where any is
    agreement: dict[str, Any] = {
        "largest_error": worst,
        "relative_error": worst / largest if largest else worst,
    }
    return agreement | ({"same_class": same, "images": count} if count else {})


def _expected(subject: Subject, batch: Array, report: Report) -> list[Array]:
    from lucid.ir.graph import Node
    from lucid.ir.interpret import interpret

    graph = subject.source().captured(batch.shape)
    done = 0

    def count(node: Node, results: tuple[Array, ...]) -> None:
        nonlocal done
        done += 1
        report("interpreting", done, len(graph.nodes))

    return interpret(graph, [batch], dtype=np.float64, observe=count)
