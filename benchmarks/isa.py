"""A machine without AVX-512, made of one with it, for every engine alike.

Few engines can be told which instructions to use. So CPUID is made to fault (Linux, on processors
that can), and `hide_avx512.c`, loaded before everything else, answers for it. Where it cannot fault
(AMD, most virtual machines), the engines run from copies of their packages in which another
instruction that faults stands in the place of every CPUID; `objdump` finds them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("hide_avx512.c")
PROBE = "from llvmlite import binding as b; print(b.get_host_cpu_features().get('avx512f'))"
PACKAGES = ("llvmlite", "onnxruntime", "openvino", "ncnn", "_mnncengine")
"""Whose copies are changed; PyTorch has settings of its own (`engines/torch.py`)."""
CPUID, STAND_IN = b"\x0f\xa2", b"\x06\x07"
LOADED = 1
"""The type of an ELF segment that is mapped (PT_LOAD)."""


def hiding(folder: Path) -> dict[str, str]:
    """Environment variables under which a process sees no AVX-512; none where that is impossible:
    then only engines that have a setting of their own are limited. `folder` keeps the copies."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return {}
    library = folder / "hide_avx512.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    if subprocess.run(command).returncode:
        return {}
    settings = {"LD_PRELOAD": str(library)}
    if _hides(settings):
        return settings
    if shutil.which("objdump") is None:
        return {}
    copies = _copies(folder / "without-avx512")
    path = os.pathsep.join(filter(None, (str(copies), os.environ.get("PYTHONPATH", ""))))
    settings["PYTHONPATH"] = path
    return settings if _hides(settings) else {}


def _hides(settings: dict[str, str]) -> bool:
    seen = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return seen.stdout.strip() in ("False", "None")


def _copies(folder: Path) -> Path:
    """The folder, in which the packages that are installed have been copied and changed."""
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin)
        source = origin.parent if found.submodule_search_locations else origin
        copy = folder / source.name
        if copy.exists():
            continue
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, partial / source.name)
        else:
            shutil.copy(source, partial)
        for library in partial.rglob("*.so*"):
            _replace_cpuid(library)
        for shared in source.parent.glob("*.libs"):  # what wheels bring: found by relative paths
            if not (folder / shared.name).exists():
                (folder / shared.name).symlink_to(shared)
        (partial / source.name).rename(copy)
    return folder


def _replace_cpuid(library: Path) -> None:
    """Write `STAND_IN` over every CPUID of an ELF library."""
    with library.open("r+b") as file:
        segments = list(_segments(file.read(1 << 16)))
        for address in _cpuid_addresses(library):
            start, offset = next((s, o) for s, o, size in segments if s <= address < s + size)
            file.seek(address - start + offset)
            if file.read(len(CPUID)) != CPUID:
                raise ValueError(f"{library}: no CPUID at {address:#x}")
            file.seek(-len(CPUID), os.SEEK_CUR)
            file.write(STAND_IN)


def _cpuid_addresses(library: Path) -> Iterator[int]:
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.rstrip().endswith("\tcpuid"):
                yield int(line.partition(":")[0], 16)


def _segments(head: bytes) -> Iterator[tuple[int, int, int]]:
    """Address, offset in the file and size there of what is mapped of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for place in range(table, table + size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", head, place)
        if kind == LOADED:
            yield address, offset, length
