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
import zlib
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("hide_avx512.c")
PROBE = "from llvmlite import binding as b; print(b.get_host_cpu_features().get('avx512f'))"
PACKAGES = ("llvmlite", "onnxruntime", "openvino", "ncnn", "_mnncengine")
"""Whose copies are changed; PyTorch has settings of its own (`engines/torch.py`)."""
CPUID, STAND_IN = b"\x0f\xa2", b"\x06\x07"
MAGIC = b"\x7fELF"
LOADED = 1
"""The type of an ELF segment that is mapped (PT_LOAD)."""


def hiding(folder: Path) -> dict[str, str]:
    """Environment variables under which a process sees no AVX-512; none where that is impossible:
    then only engines that have a setting of their own are limited. `folder` keeps the copies."""
    library = handler(folder)
    if library is None:
        return {}
    settings = {"LD_PRELOAD": str(library)}
    if _hides(settings):
        return settings
    if shutil.which("objdump") is None:
        return {}
    copies = _copies(folder)
    path = os.pathsep.join(filter(None, (str(copies), os.environ.get("PYTHONPATH", ""))))
    settings["PYTHONPATH"] = path
    return settings if _hides(settings) else {}


def handler(folder: Path) -> Path | None:
    """The library that answers for CPUID, built there; None where it cannot be."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "hide_avx512.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    return None if subprocess.run(command).returncode else library


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
    """The folder in there which has the packages as they are installed now, copied and changed."""
    found = [spec for name in PACKAGES if (spec := importlib.util.find_spec(name)) and spec.origin]
    origins = [Path(spec.origin or "") for spec in found]
    state = "".join(f"{origin} {origin.stat().st_mtime_ns}\n" for origin in origins)
    whole = folder / f"without-avx512-{zlib.crc32(state.encode()):08x}"
    if whole.exists():
        return whole
    partial = folder / "partial-without-avx512"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    sources = [
        origin.parent if spec.submodule_search_locations else origin
        for spec, origin in zip(found, origins, strict=True)
    ]
    for source in sources:
        (shutil.copytree if source.is_dir() else shutil.copy)(source, partial / source.name)
    for library in partial.rglob("*.so*"):
        _replace_cpuid(library)
    # What wheels bring beside a package their libraries find by relative paths.
    for brought in {shared for source in sources for shared in source.parent.glob("*.libs")}:
        (partial / brought.name).symlink_to(brought)
    return partial.rename(whole)


def _replace_cpuid(library: Path) -> None:
    """Write `STAND_IN` over every CPUID of an ELF file."""
    with library.open("r+b") as file:
        head = file.read(1 << 16)
        if not head.startswith(MAGIC):
            return
        segments = list(_segments(head))
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
