"""`lucid quantize`: a network in 8-bit integers, by images like those that it will see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lucid.cli.app import (
    RUN,
    Json,
    Model,
    RandomWeights,
    Size,
    Threads,
    Weights,
    app,
    complain,
    warn,
)
from lucid.cli.images import Refused, image_files, read_batches, spec_with
from lucid.cli.model import Subject
from lucid.cli.output import Report, print_json, print_table, progress, write_bytes, write_text
from lucid.cli.saved import metadata_of, properties_of
from lucid.cli.subject import load_subject
from lucid.errors import InputError

if TYPE_CHECKING:
    from lucid.quantisation.model import QuantisedModel
    from lucid.vision import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]

ENDINGS = (".onnx", ".lucid")


@dataclass
class _Images:
    """The calibration images, read again in each pass; `refused` are those of the last one."""

    files: list[Path]
    subject: Subject
    spec: Preprocess
    refused: list[Refused]

    def __iter__(self) -> Iterator[Array]:
        self.refused.clear()
        for _, batch in read_batches(self.files, self.subject, self.spec, self.refused):
            yield batch


@app.command(rich_help_panel=RUN)
def quantize(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Images like those that the model will see, arrays (.npy), or folders of them; "
            "100 or so.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.onnx|.lucid",
            help="File to write: ONNX in its QDQ form, or compiled.",
            show_default="none, only the report",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Ranges of activations: mse, minmax, percentile or entropy."
        ),
    ] = "mse",
    percentile: Annotated[
        float, typer.Option(help="With --method percentile: how many percent are not clipped.")
    ] = 99.99,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="BOUND",
            help="Leave the fewest layers in float32 that keep 'agreement>=0.99' (of classes) or "
            "'snr>=25' (dB).",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers to leave in float32, such as 'fc' or '*.conv1'; may be given several "
            "times.",
        ),
    ] = None,
    equalise: Annotated[
        bool, typer.Option("--equalise", help="Scale channels between layers (Nagel et al. 2019).")
    ] = False,
    bias_correction: Annotated[
        bool, typer.Option(help="Take each channel's mean error off its bias.")
    ] = True,
    report: Annotated[
        bool, typer.Option("--report", help="Print what each layer costs, the worst first.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write the graph as a page, coloured by the cost."),
    ] = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    preprocess: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="How images are prepared, as for `lucid run`.",
            show_default="the model's own, else ImageNet's",
        ),
    ] = None,
    size: Size = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Quantise a network to 8 bits, and say what each layer costs.

    \b
    lucid quantize net.onnx images/ -o net.int8.onnx
    lucid quantize resnest_digits examples/digits --report
    lucid quantize net.onnx images/ -o net.int8.onnx --budget 'agreement>=0.99'

    Weights become int8 with a scale for each output channel, activations uint8. The file is
    standard ONNX (QuantizeLinear, DequantizeLinear), which `lucid run`, `lucid compile` and other
    runtimes take. The signal-to-noise ratio of a layer "alone" is of its result where it alone
    multiplies integers; "network" has the noise of all layers before it too.
    """
    import lucid

    if output is not None and output.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(f"{output}: quantised models end in {' or '.join(ENDINGS)}")
    if page is not None and page.suffix.lower() != ".html":
        raise typer.BadParameter(f"{page}: pages end in .html")
    subject = load_subject(model, weights)
    subject.warn_if_random(random_weights, "what the report says means nothing")
    if len(subject.own_shapes) != 1:
        raise InputError(
            f"{subject.name} has {len(subject.own_shapes)} inputs, and images are for one; "
            "quantise it in Python, with an array for each (lucid.quantize)"
        )
    subject.preprocess = spec_with(subject.preprocess, preprocess, size)
    refused: list[Refused] = []
    data = _Images(image_files(images, subject), subject, subject.preprocess, refused)
    with progress() as told:
        try:
            result = lucid.quantize(
                _weighted(subject, size),
                data,
                method=method,
                percentile=percentile,
                budget=budget,
                ignore=ignore or (),
                bias_correction=bias_correction,
                equalise=equalise,
                threads=threads,
                progress=told,
            )
        except InputError:
            for image in refused:
                complain(image.reason)
            raise
        if output is not None:
            _write(result, subject, output, threads, told)
    if page is not None:
        write_text(_page(result), page)
    for image in refused:
        warn(f"left out: {image.reason}")
    if json:
        from lucid.quantisation.report import to_json

        print_json(to_json(result.report))
    else:
        _show(result, report)


def _weighted(subject: Subject, size: str | None) -> Any:
    """What is quantised: the model, or its graph with the weights of a file in it."""
    if subject.weights is None:
        return subject.model
    return subject.source().captured(subject.shapes(1, size))


def _write(
    result: QuantisedModel, subject: Subject, output: Path, threads: int | None, told: Report
) -> None:
    """The model as a file, with what it says of its images and classes."""
    import lucid

    if output.suffix.lower() == ".lucid":
        compiled = lucid.compile(result, threads=threads, progress=told)
        compiled.metadata.update(metadata_of(subject))
        compiled.save(output)
        return
    proto = result.to_onnx()
    for key, value in properties_of(subject).items():
        proto.metadata_props.add(key=key, value=value)
    data = proto.SerializeToString()
    write_bytes(data, output)
    typer.echo(f"wrote {output} ({len(data):,} bytes)", err=True)


def _show(result: QuantisedModel, whole: bool) -> None:
    from lucid.quantisation import report

    typer.echo(report.summary(result.report))
    if whole:
        rows = report.rows(result.report)
        print_table(report.COLUMNS, rows, right=report.NUMBERS, spare=report.SPARE)


def _page(result: QuantisedModel) -> str:
    """The graph as a page, each layer in the colour of what it costs."""
    from lucid.view import Stage, page, picture
    from lucid.view.overlay import Ratio, with_ratios

    ratios = [Ratio(layer.origin, layer.snr) for layer in result.report.layers]
    drawn = with_ratios(picture(result.graph), ratios)
    return page([Stage("quantised", drawn, "Signal to noise of each layer, in decibels.")])
