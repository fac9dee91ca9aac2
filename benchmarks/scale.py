"""Images a second of each program in examples/scale with one worker and with two, a thread each.

    pip install -e '.[scale]'
    python benchmarks/scale.py process_pool ray_data
    python benchmarks/scale.py process_pool --model resnest_14 --images 1024

Starting an engine takes seconds, which says nothing about its speed. So workers note when each
batch began and ended, and what counts is the time in which all of them work: from when each has
done one batch until the first has done its last. Decoding JPEG files and handing batches over are
part of it. Numbers of workers take turns; the fastest run of each is taken. Small networks want
more images, as few batches are shared unevenly. A program that fails has a row that says why.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
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


NOTES = """
import functools, os, time
from lucid.vision import Classifier
predict = Classifier.predict

@functools.wraps(predict)
def noted(self, images):
    images = list(images)
    start = time.monotonic()
    columns = predict(self, images)
    with open(os.path.join({folder!r}, str(os.getpid())), "a") as file:
        print(start, time.monotonic(), len(images), file=file)
    return columns

Classifier.predict = noted
"""
"""What every process of Python begins with (`sitecustomize`): notes are lines of begin, end and
number of images, in a file for each process."""


def run(program: str, workers: int, model: Path, images: Path) -> float:
    """Images a second of one run. Raises CalledProcessError, and ValueError where not as many
    processes worked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notes = folder / "notes"
        notes.mkdir()
        (folder / "sitecustomize.py").write_text(NOTES.format(folder=str(notes)))
        environment = {
            "OMP_NUM_THREADS": "1",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_SUBMIT_ARGS": f"--master local[{workers}] pyspark-shell",
            "PYTHONPATH": os.pathsep.join([name, str(Path(lucid.__file__).parents[1])]),
        }
        last = {"beam_handler": BEAM.format(workers).split(), "spark_udf": [], "spark_map": []}
        out = folder / ("out.npz" if program == "process_pool" else "out")
        command = [sys.executable, SCALE / f"{program}.py", model, images, out]
        subprocess.run(
            [*map(str, command), *last.get(program, [str(workers)])],
            env=os.environ | environment,
            check=True,
            capture_output=True,
        )
        spans = [np.loadtxt(file, ndmin=2) for file in notes.iterdir()]
    if len(spans) != workers:
        raise ValueError(f"{program}: {len(spans)} processes worked, not {workers}")
    return rate(spans)


def rate(spans: list[np.ndarray]) -> float:
    """Images a second while all workers are at work, of the begin, end and images of the batches of
    each; a batch partly in that time counts by that part. Raises ValueError for too few."""
    begin = max(batches[:, 1].min() for batches in spans)
    finish = min(batches[:, 1].max() for batches in spans)
    if finish <= begin:
        raise ValueError("a worker had one batch: give more images")
    start, end, images = np.concatenate(spans).T
    shares = (np.minimum(end, finish) - np.maximum(start, begin)).clip(0) / (end - start)
    return float((shares * images).sum() / (finish - begin))


def reason(problem: ValueError | subprocess.CalledProcessError) -> str:
    """What went wrong, in one line: of a program, the last one that it wrote to stderr."""
    if isinstance(problem, ValueError):
        return str(problem)
    lines = problem.stderr.decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"exit {problem.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", default=PROGRAMS, choices=[*PROGRAMS, []])
    parser.add_argument("--model", default="resnest_50")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(options.model, model := folder / "m.lucid")
        images = save_images(folder / "images", options.images)
        print("| Program | 1 worker, images/s | 2 workers | times |")
        print("|---|---:|---:|---:|")
        for program in options.programs:
            try:
                turns = [
                    [run(program, workers, model, images) for workers in (1, 2)]
                    for _ in range(options.rounds)
                ]
            except (ValueError, subprocess.CalledProcessError) as problem:
                print(f"| {program} | failed: {reason(problem)} | | |", flush=True)
                continue
            one, two = map(max, zip(*turns, strict=True))
            print(f"| {program} | {one:.1f} | {two:.1f} | {two / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
