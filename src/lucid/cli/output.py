"""Output of commands: tables for people, JSON for scripts, text to a file or stdout, progress."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lucid.cli.table import Table

if TYPE_CHECKING:
    from rich.progress import TaskID

    from lucid.ir.marked import Line

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

PATIENCE = 0.3
"""Seconds before a progress bar shows itself: what is quicker needs none."""


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(data, indent=2))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    prose: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """A table on stdout, fitted to the terminal where that is one. `right`: columns of numbers;
    `prose` and `spare` as in `Table`."""
    terminal = sys.stdout.isatty()
    table = Table(columns, list(rows), right, prose, spare)
    lines = table.lines(shutil.get_terminal_size().columns if terminal else None)
    if any(columns):
        lines[0] = typer.style(lines[0], bold=True)
    typer.echo("\n" + "\n".join(lines) + "\n", color=None if terminal else False)


def write_text(text: str, output: Path | None) -> None:
    """Write to the file, or to stdout where there is none. Raises OSError."""
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        write_bytes(text.encode(), output)
        typer.echo(f"wrote {output} ({len(text):,} characters)", err=True)


def write_bytes(data: bytes, output: Path) -> None:
    """Write the whole file, or leave it as it is. Raises OSError, which names it."""
    from lucid.artifact.container import replacing

    with replacing(output) as file:
        file.write(data)


COLOURS: dict[str, dict[str, Any]] = {
    "#": {"bold": True},
    "-": {"fg": "red"},
    "+": {"fg": "green"},
    "?": {"fg": "yellow"},
}
"""How lines of a report are shown on a terminal, by their marks."""


def write_lines(lines: Iterable[Line], output: Path | None) -> None:
    """Write a report, in colours where it goes to a terminal (unless NO_COLOR is set)."""
    from lucid.ir.marked import plain

    if output is not None or os.environ.get("NO_COLOR"):
        write_text(plain(lines), output)
        return
    for line in lines:  # echo takes the colours away where there is no terminal
        text = str(line).rstrip()
        typer.echo(typer.style(text, **COLOURS[line.mark]) if line.mark in COLOURS else text)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar on stderr, on a terminal only, and only for what takes a while."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True)
    tasks: dict[str, TaskID] = {}
    begin = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)
        if not bar.live.is_started and time.monotonic() - begin > PATIENCE:
            bar.start()

    try:
        yield report
    finally:
        bar.stop()
