"""Linking a folder's library to one shared object, with whatever C compiler there is."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from lucid.codegen.target import Target
from lucid.errors import CompileError, MissingPackageError

FLAGS = ("-std=c99", "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden")


def architecture(target: Target) -> str:
    """What compilers call the instruction set: x86_64 or aarch64."""
    return target.triple.partition("-")[0]


def compiler_for(target: Target) -> list[str]:
    """The command of a C compiler that links for a target: what the environment variable CC says,
    the system's own, a cross compiler, or that of PyPI's ziglang. Raises MissingPackageError."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    machine = architecture(target)
    own = platform.machine() == machine
    for name in ("cc", "gcc", "clang") if own else (f"{machine}-linux-gnu-gcc",):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu"]
    raise MissingPackageError(
        f"no C compiler that links for {machine} was found: set CC, or "
        "pip install 'lucid-compiler[native]'"
    )


def link(folder: Path, name: str, target: Target) -> Path:
    """Make `name.so` of a folder with `name.c` and `name.a`. Raises MissingPackageError, and
    CompileError where the compiler fails."""
    made = folder / f"{name}.so"
    unfinished = f".{name}.so.unfinished"
    command = [*compiler_for(target), *FLAGS, f"{name}.c", f"{name}.a", "-o", unfinished]
    command += ["-lpthread", "-Wl,--build-id=none"]  # which would depend on paths
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr or done.stdout).strip()
            raise CompileError(f"{shlex.join(command)} failed in {folder}: {told}")
        os.replace(folder / unfinished, made)
    except OSError as problem:
        raise CompileError(f"{shlex.join(command)} cannot be run: {problem}") from problem
    finally:
        (folder / unfinished).unlink(missing_ok=True)
    return made
