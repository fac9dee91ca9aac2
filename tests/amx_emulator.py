"""Intel's AMX in this process, where the processor lacks it by an emulator (`amx_emulator.c`).

`tiles_here` is what tests ask before they let code with tiles run; `as_a_machine_with_tiles` has
Lucid take this machine for one whose level is x86-64-v4-amx.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from c_library import COMPILER

from lucid.codegen import amx
from lucid.codegen import target as target_module
from lucid.codegen.target import LEVELS, NEEDS, Target, processor_features
from lucid.runtime.team import _teams as teams

SOURCE = Path(__file__).with_name("amx_emulator.c")
LEVEL = LEVELS["x86-64-v4-amx"]


@dataclass(frozen=True)
class Tiles:
    """AMX as this process has it. `emulator`: what stands in for the processor, if anything."""

    emulator: Any = None

    @property
    def configured(self) -> int:
        """Threads with tiles configured; none where nobody counts them."""
        return int(self.emulator.amx_configured()) if self.emulator else 0

    @property
    def executed(self) -> int | None:
        """Instructions so far, where they are counted."""
        return int(self.emulator.amx_executed()) if self.emulator else None


@functools.cache
def tiles_here() -> Tiles:
    """From now on AMX's instructions run in this process. Skips the test where they cannot."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("AMX is of x86-64, and emulated on Linux")
    if "amx-tile" in processor_features():
        if not amx.tiles_granted():
            pytest.skip("the system refuses tiles")
        return Tiles()
    if COMPILER is None:
        pytest.skip("there is no C compiler for the emulator of AMX")
    with tempfile.TemporaryDirectory() as folder:
        emulator = ctypes.CDLL(str(shared_library(SOURCE, Path(folder), "-lm")))
    emulator.amx_configured.restype = emulator.amx_executed.restype = ctypes.c_long
    assert emulator.amx_install() == 0
    return Tiles(emulator)


def shared_library(source: Path, folder: Path, *more: str) -> Path:
    """A library of this file, C or assembly, in the folder."""
    assert COMPILER is not None
    made = folder / "library.so"
    options = ("-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    subprocess.run([COMPILER, *options, source, "-o", made, *more], check=True)
    return made


@contextmanager
def as_a_machine_with_tiles() -> Iterator[Tiles]:
    """Meanwhile Lucid takes this machine for one of the level with tiles. Skips the test where it
    lacks anything else that the level needs."""
    tiles, features = tiles_here(), frozenset(NEEDS[LEVEL.name])
    lacks = [f for f in features - processor_features() if not f.startswith("amx")]
    if lacks:
        pytest.skip(f"this processor lacks {', '.join(lacks)}")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LUCID_TARGET", raising=False)
        patch.setattr(target_module, "processor_features", lambda: features)
        patch.setattr(amx, "tiles_granted", lambda: True)
        Target.host.cache_clear()
        try:
            assert LEVEL.runs_here()
            yield tiles
        finally:
            patch.undo()
            Target.host.cache_clear()
            stop_teams()


def stop_teams() -> None:
    """End the threads that need the emulator: as Python ends, its handler goes before they do."""
    for key in [key for key in teams if key[0].tiles]:
        teams.pop(key).stop()
