"""`lucid explain`: which ops were fused, which were not, which kernel each layer got, and why."""

from __future__ import annotations

import json as plain_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucid.cli.app import (
    INSIDE,
    Batch,
    Disable,
    Json,
    Model,
    Output,
    Precision,
    Size,
    Target,
    Threads,
    app,
)
from lucid.cli.ir import Part
from lucid.cli.output import write_lines, write_text
from lucid.cli.stages import Stages, check_passes
from lucid.cli.subject import load_subject

if TYPE_CHECKING:
    from lucid.codegen.scheduling.schedule import Schedule


@app.command(rich_help_panel=INSIDE)
def explain(
    model: Model,
    op: Part = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=NAME",
            help="Force a kernel, such as '*.conv2.conv=direct'; may be given several times.",
        ),
    ] = None,
    schedule: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="A schedule to take, as lucid tune -o writes it."),
    ] = None,
    batch: Batch = 1,
    size: Size = None,
    threads: Threads = None,
    target: Target = "host",
    precision: Precision = "fast",
    disable: Disable = None,
    json: Json = False,
    output: Output = None,
) -> None:
    """Explain each layer: what was fused into it, what was not, which kernel it got, and why.

    \b
    lucid explain resnest_14 --op layer1.0
    lucid explain resnest_50 --op '*.conv2.conv' --threads 2
    lucid explain resnest_50 --precision strict --kernel 'layer4.*=direct'

    \b
    fused in    ops and modules whose work the layer does as well
    ends in     the ops after it that its kernel does before it stores
    not fused   a rewrite that nearly happened, and why it did not
    kernel      how it is computed, why, and what each way should cost
    runs as     the kernel call, and how its work is cut for the threads

    No code is generated, so any target can be asked about. `lucid ir --trace-rewrites` shows the
    rewrites themselves.
    """
    from lucid.codegen.scheduling.basis import Basis
    from lucid.codegen.scheduling.explain import explain as explained
    from lucid.codegen.target import Target as Machine
    from lucid.ir.batch import described, obstacle
    from lucid.runtime.planner import MAX_BATCH
    from lucid.runtime.processors import default_threads
    from lucid.settings import check_precision

    check_precision(precision)
    disabled = check_passes(disable or [])
    forced = dict(_parse_forced(text) for text in kernel or [])
    given = _read_schedule(schedule) if schedule else None
    subject = load_subject(model)
    shapes, machine = subject.shapes(batch, size), Machine.named(target)
    count = threads or default_threads()
    stages = Stages(subject, shapes, machine, disabled, precision, count, forced, given)
    stages.has("captured", op)
    found = explained(
        stages.graph("fused"),
        stages.rewrites().misses,
        stages.schedule(),
        stages.regions,
        stages.on_host,
        stages.inputs,
        machine,
        count,
        Basis(precision, forced, "given" if given is not None else "model"),
        described(obstacle(stages.graph("fused")), MAX_BATCH),
    )
    found = found if op is None else found.about(op)
    if json:
        write_text(plain_json.dumps(found.to_json(), indent=1) + "\n", output)
    else:
        write_lines(found.lines(), output)


def _parse_forced(text: str) -> tuple[str, str]:
    """`PATTERN=NAME` as a pair."""
    from lucid.cli.stages import check_name
    from lucid.codegen.scheduling.kernel_names import KERNELS

    pattern, equals, name = text.rpartition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is no PATTERN=NAME, such as '*.conv2.conv=direct'")
    return pattern, check_name(name, list(KERNELS), "kernel")


def _read_schedule(path: Path) -> Schedule:
    from lucid.codegen.scheduling.schedule import Schedule

    return Schedule.from_json(path.read_text(encoding="utf-8"))
