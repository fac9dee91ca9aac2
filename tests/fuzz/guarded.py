"""Cases between unreadable pages, each in a process of its own, which ends where its code strays.

Every array then ends at such a page, or begins after one (`tests/fences.py`), so that what
reads a number beside it is a SIGSEGV and not only a NaN in the result, if it gets there.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import fences

from .oracles import Failure, Tally

Try = Callable[[int, Tally], Failure | None]
GUARDED = ("ops", "quantised", "networks")
"""Kinds of cases that run in the harness."""
MODES = ("end", "start")


def guard_mode(number: int, share: float) -> str:
    """Where case `number` of a campaign has its pages, if it has any: a share of all, spread."""
    before, after = int(number * share), int((number + 1) * share)
    return MODES[after % 2] if before < after else ""


def between_pages(mode: str, kind: str, seed: int, attempt: Try, tally: Tally) -> Failure | None:
    """The outcome of the case of a seed with every array at a page, at its `end` or its `start`. A
    process that dies is a failure that names the kernel it was in."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_enter, args=(mode, note, seed, attempt, there))
        child.start()
        there.close()
        try:
            failure, own = here.recv()
        except EOFError:
            failure, own = None, Tally(cases=1)
        child.join()
        own.guarded = 1
        tally.add(own)
        if child.exitcode:
            name = signal.Signals(-child.exitcode).name if child.exitcode < 0 else "an error"
            last = note.read_text() if note.exists() else "no kernel"
            detail = f"{name} between unreadable pages ({mode}) in {last}"
            return Failure(kind.removesuffix("s"), seed, detail)
    return failure


def _enter(mode: str, note: Path, seed: int, attempt: Try, there: Connection) -> None:
    """The child: try the case, and send what came of it. Its graph stays here."""
    faulthandler.disable()  # what the process died of is told by the other one
    fences.MODE, fences.NOTE = mode, str(note)
    tally = Tally()
    failure = attempt(seed, tally)
    if failure is not None:
        where = f"{failure.detail} (between unreadable pages, {mode})"
        failure = replace(failure, detail=where, graph=None, inputs=())
    there.send((failure, tally))
    there.close()
    os._exit(0)
