"""A machine without AVX-512, made of one with it, for every engine alike.

Few engines can be told which instructions to use. So CPUID is made to fault (Linux, on processors
that can), and `hide_avx512.c`, loaded before everything else, answers for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("hide_avx512.c")
PROBE = "from llvmlite import binding as b; print(b.get_host_cpu_features().get('avx512f'))"


def hiding(folder: Path) -> dict[str, str]:
    """Environment variables under which a process sees no AVX-512; none where that is impossible:
    then only engines that have a setting of their own are limited."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return {}
    library = folder / "hide_avx512.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    if subprocess.run(command).returncode:
        return {}
    settings = {"LD_PRELOAD": str(library)}
    seen = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return settings if seen.stdout.strip() in ("False", "None") else {}
