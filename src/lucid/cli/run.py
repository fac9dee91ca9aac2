"""`lucid run`: run a network on images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lucid.cli.answers import answers, class_names, show, write_mask
from lucid.cli.app import (
    RUN,
    Json,
    Model,
    Precision,
    RandomWeights,
    Size,
    Threads,
    Weights,
    app,
    complain,
)
from lucid.cli.images import Refused, image_files, read_batches, spec_with
from lucid.cli.model import Subject
from lucid.cli.output import Report, print_json, progress
from lucid.cli.subject import load_subject
from lucid.errors import CompileError, InputError

TOLERANCE = 1e-4
"""The largest difference from the interpreter, by the largest output, that is still rounding."""

Array = np.ndarray[Any, np.dtype[Any]]


@app.command(rich_help_panel=RUN)
def run(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Images, arrays (.npy), or folders of them.",
            show_default=False,
        ),
    ],
    weights: Weights = None,
    random_weights: RandomWeights = False,
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
    taken as they are: float32 (C, H, W) or (N, C, H, W), or uint8 images (H, W, C). Of folders all
    images are taken, those of the folders inside too. Images that cannot be read are named at the
    end, and do not keep the others from being run; the exit code is 1 then.
    """
    if out is not None and (len(images) > 1 or out.suffix.lower() != ".png"):
        raise typer.BadParameter("--out is for one image, and a file that ends in .png")
    subject = load_subject(model, weights)
    subject.warn_if_random(random_weights, "its answers mean nothing")
    refused: list[Refused] = []
    spec = spec_with(subject.preprocess, preprocess, size)
    batches = read_batches(image_files(images, subject), subject, spec, refused)
    with progress() as report:
        ran = _run(subject, batches, refused, (threads, precision), report, compare)
    result: dict[str, Any] = {"model": subject.name, "images": []}
    if ran.results:
        told = class_names(labels, subject, ran.results)
        result["images"] = answers(ran.batches, ran.results, told, top)
    if out is not None and ran.results:
        write_mask(ran.results[0], out)
    agreement = ran.agreement() if compare and ran.results else None
    if agreement:
        result["compare"] = agreement
    if refused:
        result["refused"] = [{"image": r.name, "reason": r.reason} for r in refused]
    if json:
        print_json(result)
    elif ran.results:
        show(result)
        count, ms = sum(map(len, ran.batches)), 1e3 * ran.seconds
        typer.echo(f"{count} image(s) in {ms:.1f} ms, {ran.threads} thread(s)")
    if agreement and not agreement["relative_error"] <= TOLERANCE:
        raise CompileError(
            "the compiled model and the interpreter disagree by more than rounding explains: a "
            "defect of Lucid; please report it with this command"
        )
    for image in refused:
        complain(image.reason)
    if refused:
        raise typer.Exit(1)


@dataclass
class _Ran:
    """What came of the batches that could be run, which are `batches` of images by name. `errors`:
    the largest difference from the interpreter of each batch; `largest`: its largest output."""

    batches: list[list[str]] = field(default_factory=list)
    results: list[tuple[Array, ...]] = field(default_factory=list)
    seconds: float = 0.0
    threads: int = 0
    errors: list[float] = field(default_factory=list)
    largest: float = 0.0
    same: int = 0
    classified: int = 0

    def compare(self, outputs: tuple[Array, ...], expected: list[Array]) -> None:
        """Note how far the outputs of a batch are from those of the interpreter."""
        pairs = zip(outputs, expected, strict=True)
        self.errors += [float(np.abs(y.astype(np.float64) - e).max(initial=0.0)) for y, e in pairs]
        self.largest = max(self.largest, *(float(np.abs(e).max(initial=0.0)) for e in expected))
        if outputs and outputs[0].ndim == 2:
            self.same += int((outputs[0].argmax(1) == expected[0].argmax(1)).sum())
            self.classified += len(outputs[0])

    def agreement(self) -> dict[str, Any]:
        """How far all outputs are from those of the graph as captured, interpreted in float64."""
        worst = float(np.max(self.errors))  # NaN where any is
        told: dict[str, Any] = {
            "largest_error": worst,
            "relative_error": worst / self.largest if self.largest else worst,
        }
        return told | (
            {"same_class": self.same, "images": self.classified} if self.classified else {}
        )


def _run(
    subject: Subject,
    batches: Iterable[tuple[list[str], Array]],
    refused: list[Refused],
    settings: tuple[int | None, str],
    report: Report,
    compare: bool,
) -> _Ran:
    """Compile for the first batch, and run all. Batches that the model does not take are added to
    `refused`."""
    ran, compiled = _Ran(), None
    if len(subject.own_shapes) != 1:
        raise InputError(
            f"{subject.name} has {len(subject.own_shapes)} inputs, and `lucid run` gives images to "
            "one; call the model in Python, with an array for each (lucid.compile, lucid.load)"
        )
    for names, batch in batches:
        if compiled is None:
            compiled = subject.compiled((batch.shape,), *settings, report)
            ran.threads = compiled.threads
        start = time.perf_counter()
        try:
            outputs = _outputs(compiled(batch))
        except InputError as problem:
            refused += [Refused(name, f"{name}: {problem}") for name in names]
            continue
        ran.seconds += time.perf_counter() - start
        ran.batches.append(names)
        ran.results.append(outputs)
        if compare:
            ran.compare(outputs, _expected(subject, batch, report))
    return ran


def _outputs(output: Any) -> tuple[Array, ...]:
    """The arrays in what a model gives, in order."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return tuple(array for part in output for array in _outputs(part))
    return (output,) if isinstance(output, np.ndarray) else ()


def _expected(subject: Subject, batch: Array, report: Report) -> list[Array]:
    from lucid.ir.graph import Node
    from lucid.ir.interpret import interpret

    source = subject.source()
    graph = source.captured((batch.shape,))
    if source.rest((batch.shape,)) is not None:
        raise InputError(
            f"--compare interprets one graph, and {subject.name} goes on by what it has computed, "
            "in further stages"
        )
    done = 0

    def count(node: Node, results: tuple[Array, ...]) -> None:
        nonlocal done
        done += 1
        report("interpreting", done, len(graph.nodes))

    return interpret(graph, [batch], dtype=np.float64, observe=count)
