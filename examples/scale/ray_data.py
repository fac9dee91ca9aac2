"""Classify a folder of images, or Parquet with the columns `path` and `bytes`, with Ray Data.

    python ray_data.py m.lucid images/ out/ [workers]

Each actor loads the model once, on as many threads as Ray gives it processors. All actors of a
machine map the same weights: they are in memory once.
"""

import sys
from pathlib import Path

import numpy as np
import ray

import lucid

Batch = dict[str, np.ndarray]


class Classify:
    def __init__(self, model: str) -> None:
        granted = ray.get_runtime_context().get_assigned_resources()
        threads = max(1, int(granted.get("CPU", 1)))
        self.classifier = lucid.vision.Classifier(lucid.load(model, threads=threads))

    def __call__(self, batch: Batch) -> Batch:
        return {"path": batch["path"], **self.classifier.predict(batch["bytes"])}


def main(model: str, source: str, out: str, workers: str = "2") -> None:
    # A slot more than actors, without which reading would wait for ever. On a cluster: ray.init().
    ray.init(num_cpus=int(workers) + 1)
    if Path(source).is_dir() and not [*Path(source).glob("*.parquet")]:
        images = ray.data.read_binary_files(source, include_paths=True)
    else:
        images = ray.data.read_parquet(source).select_columns(["path", "bytes"])
    images.map_batches(
        Classify,
        fn_constructor_args=[str(Path(model).resolve())],
        compute=ray.data.ActorPoolStrategy(size=int(workers)),
        num_cpus=1,  # for each actor
        batch_size=64,
    ).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
