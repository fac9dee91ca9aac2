"""How long `lucid.load` takes of packed and of compact files, in processes of their own, in turns.

    python benchmarks/loading.py resnet_50 --threads 2 --processes 9

Milliseconds from the call to a model that is ready, least and median; `import lucid` and the first
call are not in it. The files are in the page cache. A compact file is loaded for the first time
with an empty cache folder, then with what that left there, and without a cache folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import lucid
from lucid.cli.subject import load_subject

LOAD = """
import sys, time, numpy, lucid
lucid.load
start = time.perf_counter()
model = lucid.load(sys.argv[1], int(sys.argv[2]), cache=sys.argv[3] != "none")
print(1000 * (time.perf_counter() - start))
"""
WAYS = {
    "packed": ("packed", "left"),
    "compact, first time": ("compact", "empty"),
    "compact, later": ("compact", "left"),
    "compact, no cache": ("compact", "none"),
}
"""The file, and the cache folder that a process finds."""


def loaded(path: Path, threads: int, folder: Path, cache: str) -> float:
    """Milliseconds that a process takes to load the file."""
    if cache == "empty":
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-c", LOAD, str(path), str(threads), cache]
    environment = {**os.environ, "LUCID_CACHE_DIR": str(folder)}
    return float(
        subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a registered name, or an ONNX file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=9, help="of each way")
    chosen = parser.parse_args()
    subject = load_subject(chosen.model, None)
    compiled = lucid.compile(subject.model, subject.shapes(1, None), threads=chosen.threads)
    with tempfile.TemporaryDirectory(prefix="lucid-loading-") as temporary:
        folder = Path(temporary)
        files = {weights: folder / f"{weights}.lucid" for weights in ("packed", "compact")}
        for weights, path in files.items():
            compiled.save(path, weights=weights)
            print(f"{weights}: {path.stat().st_size / 1e6:.0f} MB")
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(chosen.processes):
            for way, (weights, cache) in WAYS.items():
                times[way].append(loaded(files[weights], chosen.threads, folder / "cache", cache))
    for way, found in times.items():
        print(f"{way:20} {min(found):5.0f} ms, median {statistics.median(found):.0f}")


if __name__ == "__main__":
    main()
