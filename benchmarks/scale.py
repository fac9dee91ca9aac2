"""Images a second of each program in examples/scale with one worker and with two, a thread each.

    pip install -e '.[scale]'
    python benchmarks/scale.py process_pool ray_data

Starting an engine takes seconds, which says nothing about its speed: each program runs on a few
images and on many, and what counts is the difference. Programs and numbers of workers take turns;
the fastest run of each is taken. Decoding JPEG files and writing the results are part of it.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import lucid
from lucid.models import create_model

SCALE = Path(__file__).parents[1] / "examples" / "scale"
PROGRAMS = ["process_pool", "dask_distributed", "ray_data", "spark_udf", "spark_map"]
PROGRAMS += ["beam_handler"]
BEAM = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers={}"


def save_model(name: str, path: Path) -> None:
    """The network with its own preprocessing, at its own size, random weights."""
    network = create_model(name, weights=None)
    wrapped = runpy.run_path(str(SCALE / "save_model.py"))["WithEmbedding"](network)
    lucid.compile(wrapped, (16, 224, 224, 3), input="uint8_nhwc").save(path)


def save_images(folder: Path, count: int) -> Path:
    """JPEG files of 320 x 256 pixels: smooth colours with some noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
        coarse.resize((320, 256), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg")
    return folder


def seconds(program: str, workers: int, model: Path, images: Path) -> float:
    """Of one run, from start to end. Raises CalledProcessError."""
    environment = {
        "OMP_NUM_THREADS": "1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"--master local[{workers}] pyspark-shell",
        "PYTHONPATH": str(Path(lucid.__file__).parents[1]),
    }
    last = {"beam_handler": BEAM.format(workers).split(), "spark_udf": [], "spark_map": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / ("out.npz" if program == "process_pool" else "out")
        command = [sys.executable, SCALE / f"{program}.py", model, images, out]
        start = time.perf_counter()
        subprocess.run(
            [*map(str, command), *last.get(program, [str(workers)])],
            env=os.environ | environment,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", default=PROGRAMS, choices=[*PROGRAMS, []])
    parser.add_argument("--model", default="resnest_50")
    parser.add_argument("--few", type=int, default=128, help="images of a short run")
    parser.add_argument("--many", type=int, default=512, help="images of a long run")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    best: dict[tuple[str, int, int], float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(options.model, model := folder / "m.lucid")
        sizes = options.few, options.many
        images = {n: save_images(folder / f"images{n}", n) for n in sizes}
        for _ in range(options.rounds):
            for program in options.programs:
                for n in sizes:
                    for workers in (1, 2):
                        taken = seconds(program, workers, model, images[n])
                        key = program, workers, n
                        best[key] = min(taken, best.get(key, taken))
    print("| Program | 1 worker, images/s | 2 workers | times | start, s |")
    print("|---|---:|---:|---:|---:|")
    for program in options.programs:
        short, long = ([best[program, w, n] for w in (1, 2)] for n in sizes)
        rates = [(sizes[1] - sizes[0]) / (b - a) for a, b in zip(short, long, strict=True)]
        start = short[0] - sizes[0] / rates[0]
        times = rates[1] / rates[0]
        print(f"| {program} | {rates[0]:.1f} | {rates[1]:.1f} | {times:.2f} | {start:.1f} |")


if __name__ == "__main__":
    main()
