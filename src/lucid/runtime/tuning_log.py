"""The log of tuning: one line of JSON for each layer measured, by machine, threads and precision.

It is read only where tuning is asked for. Lines are only ever added; the last one on a layer holds.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucid.codegen.language.llvm import versions
from lucid.codegen.scheduling.kernel_names import KERNELS
from lucid.codegen.scheduling.schedule import SPLITS, Choice
from lucid.codegen.target import Target, has_half_units
from lucid.runtime.cache import default_folder
from lucid.runtime.processors import processor_name

log = logging.getLogger("lucid.tuning")

UNTOLD: dict[str, Any] = {"half_units": None, "counted_on": None}
"""Of lines of earlier versions, which hold for no setting."""


@dataclass(frozen=True)
class Setting:
    """What a measurement holds for, besides the layer. `half_units`: whether the processor does
    vectors of AVX-512 in two halves, which its name need not tell: virtual machines call several
    processors the same. `counted_on`: whether the target counts on that, as a level that is asked
    for by its name does not; kernels are cut otherwise."""

    target: str
    cpu: str
    half_units: bool
    counted_on: bool
    l2: int
    llvm: str
    threads: int
    precision: str

    @staticmethod
    def of(target: Target, threads: int, precision: str) -> Setting:
        """The setting on this machine."""
        cpu = processor_name(), has_half_units(), target.half_units
        return Setting(target.name, *cpu, target.l2, versions(), threads, precision)


@dataclass(frozen=True)
class Finding:
    """The best choice for a layer and what the cost model chose, in milliseconds of one layer.

    `tried`: how many choices were measured.
    """

    layer: str
    choice: Choice
    ms: float
    model: Choice
    model_ms: float
    tried: int


class TuningLog:
    """Findings in a file, by default `tuning.jsonl` in the cache folder."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_folder() / "tuning.jsonl"

    def read(self, setting: Setting) -> dict[str, Finding]:
        """What is known for a setting, by layer. What cannot be read is left out, with a warning;
        so is the file as a whole."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        except OSError as problem:
            log.warning("the tuning log %s cannot be read: %s", self.path, problem)
            return {}
        found, damaged = {}, 0
        wanted = dataclasses.asdict(setting)
        for line in filter(None, map(str.strip, text.splitlines())):
            try:
                row = UNTOLD | json.loads(line)
                if {name: row[name] for name in wanted} == wanted:
                    finding = _from_row(row)
                    found[finding.layer] = finding
            except (ValueError, TypeError, KeyError):
                damaged += 1
        if damaged:
            log.warning("damaged lines in the tuning log %s, ignored: %d", self.path, damaged)
        return found

    def add(self, setting: Setting, findings: Sequence[Finding]) -> None:
        """Write findings to the end. Where that fails a warning is all: they hold without it."""
        rows = [{**dataclasses.asdict(setting), **dataclasses.asdict(f)} for f in findings]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(file).st_size
                torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
                os.write(file, (("\n" if torn else "") + text).encode())  # whole, or not at all
            finally:
                os.close(file)
        except OSError as problem:
            log.warning("the tuning log %s cannot be written to: %s", self.path, problem)


def _from_row(row: dict[str, Any]) -> Finding:
    """Raises ValueError, TypeError or KeyError for what is no finding."""
    ms, model_ms = float(row["ms"]), float(row["model_ms"])
    if not isinstance(row["layer"], str) or not (ms > 0 and model_ms > 0):
        raise ValueError(row)
    return Finding(
        row["layer"], _choice(row["choice"]), ms, _choice(row["model"]), model_ms, int(row["tried"])
    )


def _choice(row: dict[str, Any]) -> Choice:
    choice = Choice(**row)
    numbers = (choice.tiles, choice.rows, choice.chunks)
    legal = choice.kernel in KERNELS and choice.split in SPLITS
    if not legal or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(row)
    if choice.kernel.startswith("winograd") and not choice.tiles:
        raise ValueError(row)
    return choice
