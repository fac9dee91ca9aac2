"""Classify a folder of images, or a Parquet file of them, with worker processes and nothing else.

    python process_pool.py m.lucid images/ out.npz [workers]

Parquet (by pyarrow) has the columns `path` and `bytes`. Workers share the pages of the weights.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import lucid

BATCH = 64


def start(model: str, threads: int) -> None:
    global classifier
    classifier = lucid.vision.Classifier(lucid.load(model, threads=threads))


def classify(batch: tuple[list[str], list[bytes]]) -> dict[str, np.ndarray]:
    paths, images = batch
    return {"path": np.array(paths), **classifier.predict(images or paths)}


def batches(source: str) -> Iterator[tuple[list[str], list[bytes]]]:
    """Paths and bytes; of a folder the paths alone, which the workers read."""
    if Path(source).is_dir():
        paths = sorted(str(path) for path in Path(source).rglob("*.*") if path.is_file())
        for i in range(0, len(paths), BATCH):
            yield paths[i : i + BATCH], []
    else:
        from pyarrow.parquet import ParquetFile

        for part in ParquetFile(source).iter_batches(BATCH, columns=["path", "bytes"]):
            yield part["path"].to_pylist(), part["bytes"].to_pylist()


def main(model: str, source: str, out: str, workers: str = "") -> None:
    processors = lucid.load(model).threads  # by affinity, quotas and LUCID_NUM_THREADS
    count = int(workers or processors)
    parts, waiting = [], deque()
    initial = model, max(1, processors // count)
    with ProcessPoolExecutor(count, get_context("spawn"), start, initial) as pool:
        for batch in batches(source):  # few at a time: Parquet may be larger than memory
            waiting.append(pool.submit(classify, batch))
            if len(waiting) == 2 * count:
                parts.append(waiting.popleft().result())
        parts += [future.result() for future in waiting]
    np.savez(out, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


if __name__ == "__main__":
    main(*sys.argv[1:])
