"""Classify a folder of images, or Parquet with the columns `path` and `bytes`, with Dask.

    python dask_distributed.py m.lucid images/ out/ [workers]

Each worker loads the model once. On a cluster: Client("scheduler:8786")."""

import sys
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from distributed import Client, Worker, WorkerPlugin, get_worker

import lucid

KINDS = {"path": pa.string(), "label": pa.int64(), "score": pa.float32()}
SCHEMA = pa.schema({**KINDS, "embedding": pa.list_(pa.float32()), "error": pa.string()})
BATCH = 64
QUIET = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
dask.config.set(QUIET | {"dataframe.convert-string": False})  # else images are read as text


class Model(WorkerPlugin):
    name = "model"

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, worker: Worker) -> None:
        model = lucid.load(self.path, threads=worker.state.nthreads)
        self.classifier = lucid.vision.Classifier(model)


def classify(images: pd.DataFrame) -> pd.DataFrame:
    columns = get_worker().plugins["model"].classifier.predict(images["bytes"])
    columns["embedding"] = list(columns["embedding"])
    return pd.DataFrame({"path": images["path"], **columns})


def read_files(paths: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"path": paths, "bytes": [Path(path).read_bytes() for path in paths]})


def main(model: str, source: str, out: str, workers: str = "2") -> None:
    with Client(n_workers=int(workers), threads_per_worker=1) as client:
        client.register_plugin(Model(str(Path(model).resolve())))
        if Path(source).is_dir() and not [*Path(source).glob("*.parquet")]:
            paths = sorted(str(path) for path in Path(source).rglob("*.*") if path.is_file())
            parts = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
            images = dd.from_map(read_files, parts)
        else:
            images = dd.read_parquet(source, columns=["path", "bytes"], split_row_groups=True)
        table = images.map_partitions(classify, meta=SCHEMA.empty_table().to_pandas())
        table.to_parquet(out, schema=SCHEMA)


if __name__ == "__main__":
    main(*sys.argv[1:])
