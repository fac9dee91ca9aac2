"""`lucid viz`: a picture of a model's graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucid.cli.app import INSIDE, Batch, Disable, Model, Size, app, warn
from lucid.cli.output import write_bytes, write_text
from lucid.cli.stages import Stages, check_name, check_passes, check_stage
from lucid.cli.subject import load_subject
from lucid.errors import LucidError

if TYPE_CHECKING:
    from lucid.codegen.program.program import Program, View
    from lucid.ir.graph import Graph, Node
    from lucid.view import Picture
    from lucid.view.overlay import MemoryPlan, Ratio, Timing

FIGURES = (".svg", ".png", ".pdf")
"""The endings of files that hold one figure."""


class Direction(StrEnum):
    """Which way a figure flows."""

    DOWN = "down"
    RIGHT = "right"


@app.command(rich_help_panel=INSIDE)
def viz(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.svg|.png|.pdf|.html|.dot|.json",
            help="File to write.",
            show_default=False,
        ),
    ],
    stage: Annotated[
        str, typer.Option(metavar="STAGE", help="captured, canonical, a pass by name, or fused.")
    ] = "fused",
    op: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Only the modules that match, such as 'layer1.0' or '*.conv2', or '%relu_3'.",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Fold the modules that many levels deep; 1 leaves the outermost alone.",
            show_default="nothing is folded; in a page what there is no room for",
        ),
    ] = None,
    direction: Annotated[
        Direction, typer.Option(help="Which way the figure flows. Not for pages.")
    ] = Direction.DOWN,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON rows with origin and ms, as lucid profile --json writes."
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON of a quantised model, as lucid quantize --json writes it."
        ),
    ] = None,
    size: Size = None,
    batch: Batch = 1,
    disable: Disable = None,
) -> None:
    """Draw a model's graph, its modules as nested groups.

    \b
    g.svg    one figure; modules that repeat are drawn once
    g.png    the same as pixels, and g.pdf as a page; by Chromium, or by cairosvg
    g.html   a page: modules fold and unfold, search, a slider through the passes,
             physical layouts, the plan of memory, times with --profile,
             and what quantising costs with --noise
    g.dot    for Graphviz: dot -Tsvg g.dot -o g.svg
    g.json   for Google's Model Explorer

    \b
    lucid viz resnest_50 -o slide.png --depth 2 --direction right

    Figures that flow to the right are broken into lines, so that they fill a slide.
    """
    from lucid.codegen.target import Target
    from lucid.view import FORMS, to_dot, to_explorer, to_pdf, to_png, to_svg
    from lucid.view.overlay import read_noise, read_profile

    check_stage(stage, code=False)
    form, right = output.suffix.lower(), direction is Direction.RIGHT
    if form not in FORMS:
        raise typer.BadParameter(f"{output}: pictures end in {', '.join(FORMS)}")
    if depth is not None and form not in FIGURES and form != ".html":
        raise typer.BadParameter(f"{output}: --depth is for {', '.join((*FIGURES, '.html'))}")
    if right and form not in FIGURES and form != ".dot":
        raise typer.BadParameter(f"{output}: --direction is for {', '.join((*FIGURES, '.dot'))}")
    disabled = check_passes(disable or [])
    known = _Known(
        read_profile(profile.read_text(encoding="utf-8")) if profile else [],
        read_noise(noise.read_text(encoding="utf-8")) if noise else [],
    )
    subject = load_subject(model)
    stages = Stages(subject, subject.shapes(batch, size), Target.host(), disabled)
    graphs = stages.graphs()
    check_name(stage, list(graphs), "stage")
    if form == ".html":
        write_text(_page(stages, graphs, stage, op, known, depth), output)
        return
    drawn = known.on(_pictures({stage: graphs[stage]}, op)[stage], stage)
    if form in FIGURES:
        figure = to_svg(replace(drawn, name=f"{drawn.name}, {stage}"), depth, right)
    if form in (".png", ".pdf"):
        data = to_png(figure) if form == ".png" else to_pdf(figure)
        write_bytes(data, output)
        typer.echo(f"wrote {output} ({len(data):,} bytes)", err=True)
    elif form == ".svg":
        write_text(figure, output)
    else:
        write_text(to_dot(drawn, right) if form == ".dot" else to_explorer(drawn), output)


def _pictures(graphs: dict[str, Graph], pattern: str | None) -> dict[str, Picture]:
    """The picture of each graph, or the part of it that matches."""
    from lucid.ir.cut import outermost
    from lucid.view import cut, picture

    whole = {name: picture(graph) for name, graph in graphs.items()}
    if pattern is None:
        return whole
    parts = {name: cut(drawn, pattern) for name, drawn in whole.items()}
    if not any(drawn.boxes for drawn in parts.values()):
        known = ", ".join(outermost(next(iter(graphs.values())))) or "none: no node has an origin"
        raise typer.BadParameter(f"no module matches {pattern!r}; the outermost are {known}")
    return parts


@dataclass(frozen=True)
class _Known:
    """What is known of layers from files: times of kernels, and what quantising costs."""

    times: list[Timing]
    ratios: list[Ratio]

    def on(self, drawn: Picture, stage: str) -> Picture:
        """The picture with both; times are those of the kernels of the fused graph."""
        from lucid.view.overlay import with_ratios, with_times

        if self.ratios:
            drawn = with_ratios(drawn, self.ratios)
        return with_times(drawn, self.times) if self.times and stage == "fused" else drawn


def _page(
    stages: Stages,
    graphs: dict[str, Graph],
    stage: str,
    op: str | None,
    known: _Known,
    depth: int | None,
) -> str:
    """The page, with what each pass did, and what is known of the fused graph."""
    from lucid.ir.passes import PASSES
    from lucid.view import Stage, compare, page
    from lucid.view.overlay import with_host, with_layouts

    passes = [name for name in graphs if name in PASSES]
    pictures = _pictures({name: graphs[name] for name in ("captured", *passes)}, op)
    steps = [Stage("captured", pictures["captured"], "The graph as the model was traced.")]
    before = pictures["captured"]
    for name in passes:
        drawn = pictures[name]
        steps.append(Stage(name, compare(before, drawn), f"{PASSES[name].summary}."))
        before = drawn
    programs, on_host = _programs(stages)
    final = known.on(before, "fused")
    kinds = {name: kind for program in programs for name, kind in layouts(program).items()}
    final = with_host(with_layouts(final, kinds), [n.outputs[0].name for n in on_host])
    largest = max(programs, key=lambda program: program.arena, default=None)
    steps.append(Stage("fused", final, "What is scheduled and compiled."))
    opens = {"canonical": "canonicalise"}.get(stage, stage)
    names = [step.name for step in steps]
    first = names.index(opens) if opens in names else 0
    return page(steps, first, memory(largest) if largest is not None else None, depth)


def _programs(stages: Stages) -> tuple[list[Program], list[Node]]:
    """The Programs of the fused graph, and its nodes that run on the host; none, and a warning,
    where it cannot be compiled."""
    try:
        return stages.programs(), stages.on_host
    except LucidError as problem:
        warn(f"no layouts and no memory plan in the picture: {problem}")
        return [], []


def layouts(program: Program) -> dict[str, str]:
    """The physical layout of every value that has memory of its own, by name."""
    views = [view for call in program.calls() for view in call.writes]
    return {view.buffer: layout(view) for view in views if len(view.shape) == 4}


def layout(view: View) -> str:
    """The dimensions of an image from the slowest to the fastest: `NHWC`."""
    order = sorted(range(4), key=lambda axis: (-view.strides[axis], view.shape[axis] > 1))
    return "".join("NCHW"[axis] for axis in order)


def memory(program: Program) -> MemoryPlan:
    """The plan of a program's arena, in bytes."""
    from lucid.codegen.program.plan import lifetimes
    from lucid.view.overlay import Buffer, MemoryPlan

    spans = lifetimes(program)
    buffers = tuple(
        Buffer(name, offset, program.buffers[name].bytes, span.first, span.last)
        for name, offset in program.offsets.items()
        if (span := spans.get(name)) is not None
    )
    return MemoryPlan(program.arena, len(program.phases), buffers)
