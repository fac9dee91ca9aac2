"""`lucid run`: classify images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lucid.cli.app import RUN, Json, Model, Precision, Size, Threads, Weights, app, warn
from lucid.cli.output import Report, print_json, print_table, progress
from lucid.cli.subject import Subject, load_subject, parse_size
from lucid.errors import CompileError, InputError

if TYPE_CHECKING:
    from lucid.vision import Preprocess

TOLERANCE = 1e-4
"""The largest difference from the interpreter, by the largest output, that is still rounding."""

Array = np.ndarray[Any, np.dtype[Any]]


@app.command(rich_help_panel=RUN)
def run(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)
    ],
    weights: Weights = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with the name of a class on each line.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare with the float64 interpreter.")
    ] = False,
    size: Size = None,
    threads: Threads = None,
    precision: Precision = "fast",
    json: Json = False,
) -> None:
    """Classify images: compile the network, run it, and show the likeliest classes.

    \b
    lucid run resnest_digits examples/digits/*.png --compare
    lucid run resnest_50 cat.jpg --weights resnest50.pth --labels names.txt

    Images are resized, cropped and normalised as the model wants them.
    """
    import lucid

    subject = load_subject(model, weights)
    batch = _read(images, _sized(subject.preprocess, size))
    if not subject.trained:
        warn(f"{subject.name} runs with generated weights, so its answers mean nothing: --weights")
    with progress() as report:
        compiled = lucid.compile(
            subject.model, batch.shape, threads=threads, precision=precision, progress=report
        )
        start = time.perf_counter()
        output = compiled(batch)
        seconds = time.perf_counter() - start
        outputs = output if isinstance(output, tuple) else (output,)
        agreement = _compare(subject, batch, outputs, report) if compare else None
    answers = _answers(outputs, images, _names(labels, subject, outputs[0]), top)
    result: dict[str, Any] = {"model": subject.name, "images": answers}
    if agreement:
        result["compare"] = agreement
    if json:
        print_json(result)
    else:
        _show(result)
        typer.echo(
            f"{len(images)} image(s) in {1e3 * seconds:.1f} ms, {compiled.threads} thread(s)"
        )
    if agreement and not agreement["relative_error"] <= TOLERANCE:
        raise CompileError(
            "the compiled model and the interpreter disagree by more than rounding explains: a "
            "defect of Lucid; please report it with this command"
        )


def _sized(spec: Preprocess, size: str | None) -> Preprocess:
    """The spec for images of another size."""
    if size is None:
        return spec
    numbers = parse_size(size)
    return spec.at(*(numbers * 2 if len(numbers) == 1 else numbers)[-2:])


def _read(images: list[Path], spec: Preprocess) -> Array:
    """All images as one batch (N, C, H, W). Raises ImageError."""
    from lucid.vision import preprocess

    return preprocess(images, spec)


def _compare(
    subject: Subject, batch: Array, outputs: tuple[Array, ...], report: Report
) -> dict[str, Any]:
    """How far the outputs are from those of the traced graph, interpreted in float64."""
    from lucid.ir.graph import Node
    from lucid.ir.interpret import interpret

    graph = subject.source().captured(batch.shape)
    done = 0

    def count(node: Node, results: tuple[Array, ...]) -> None:
        nonlocal done
        done += 1
        report("interpreting", done, len(graph.nodes))

    expected = interpret(graph, [batch], dtype=np.float64, observe=count)
    errors = [float(np.abs(y - e).max()) for y, e in zip(outputs, expected, strict=True)]
    largest = max(float(np.abs(e).max()) for e in expected)
    agreement: dict[str, Any] = {
        "largest_error": max(errors),
        "relative_error": max(errors) / largest if largest else max(errors),
    }
    if outputs[0].ndim == 2:
        same = outputs[0].argmax(1) == expected[0].argmax(1)
        agreement |= {"same_class": int(same.sum()), "images": len(same)}
    return agreement


def _names(labels: Path | None, subject: Subject, logits: Array) -> list[str]:
    """The names of the classes. Raises InputError where the file has another number of them."""
    classes = logits.shape[1] if logits.ndim == 2 else 0
    if labels is None:
        known = (subject.labels or ())[:classes]
        return [*known, *(f"class {i}" for i in range(len(known), classes))]
    try:
        names = labels.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{labels}: not text ({error.reason})") from error
    if len(names) != classes:
        raise InputError(f"{labels} names {len(names)} classes, the model has {classes}")
    return names


def _answers(
    outputs: tuple[Array, ...], images: list[Path], names: list[str], top: int
) -> list[dict[str, Any]]:
    """For each image its likeliest classes; for what is no classifier the shapes it gives."""
    if len(outputs) != 1 or outputs[0].ndim != 2:
        shapes = [list(y.shape[1:]) for y in outputs]
        return [{"image": str(path), "outputs": shapes} for path in images]
    answers = []
    for path, logits in zip(images, outputs[0], strict=True):
        powers = np.exp(logits - logits.max())
        likely = powers / powers.sum()
        best = np.argsort(-likely, kind="stable")[:top]
        classes = [
            {"class": int(i), "label": names[i], "probability": float(likely[i])} for i in best
        ]
        answers.append({"image": str(path), "top": classes})
    return answers


def _show(result: dict[str, Any]) -> None:
    if "top" in result["images"][0]:
        rows = [
            (answer["image"] if rank == 0 else "", c["label"], f"{c['probability']:.2%}")
            for answer in result["images"]
            for rank, c in enumerate(answer["top"])
        ]
        print_table(("image", "class", "probability"), rows, right=("probability",))
    else:
        shapes = [
            (a["image"], ", ".join("x".join(map(str, s)) for s in a["outputs"]))
            for a in result["images"]
        ]
        print_table(("image", "output"), shapes)
    if "compare" in result:
        agreement = result["compare"]
        typer.echo(
            f"largest difference from the float64 interpreter: {agreement['relative_error']:.1e} "
            "of the largest output"
        )
        if "same_class" in agreement:
            typer.echo(f"same class: {agreement['same_class']} of {agreement['images']}")
