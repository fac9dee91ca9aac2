"""Classify a folder of images, or Parquet with the columns `path` and `bytes`, with Apache Beam.

python beam_handler.py m.lucid images/ out/results [pipeline options, such as
    --runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2]
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.io import fileio
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

import lucid
from lucid.vision import Classifier

KINDS = {"path": pa.string(), "label": pa.int64(), "score": pa.float32()}
SCHEMA = pa.schema({**KINDS, "embedding": pa.list_(pa.float32()), "error": pa.string()})


class LucidModelHandler(ModelHandler[bytes, dict[str, Any], Classifier]):
    def __init__(self, path: str, threads: int = 1) -> None:  # Beam: a process a processor
        super().__init__(min_batch_size=16, max_batch_size=64)
        self.path, self.threads = path, threads

    def load_model(self) -> Classifier:
        return Classifier(lucid.load(self.path, threads=self.threads))

    def run_inference(
        self, batch: Sequence[bytes], model: Classifier, inference_args: Any = None
    ) -> Iterator[dict[str, Any]]:
        columns = {name: column.tolist() for name, column in model.predict(batch).items()}
        return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))

    def get_num_bytes(self, batch: Sequence[bytes]) -> int:
        return sum(map(len, batch))

    def share_model_across_processes(self) -> bool:
        return False  # mapped weights are shared; a process that serves others would copy batches


def main(model: str, source: str, out: str, *options: str) -> None:
    handler = KeyedModelHandler(LucidModelHandler(str(Path(model).resolve())))
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        if Path(source).is_dir() and not [*Path(source).glob("*.parquet")]:
            found = pipeline | fileio.MatchFiles(f"{source}/**") | beam.Reshuffle()
            images = found | fileio.ReadMatches() | beam.Map(lambda f: (f.metadata.path, f.read()))
        else:
            rows = pipeline | beam.io.ReadFromParquet(source, columns=["path", "bytes"])
            images = rows | beam.Map(lambda row: (row["path"], row["bytes"])) | beam.Reshuffle()
        table = images | RunInference(handler) | beam.MapTuple(lambda k, row: {"path": k, **row})
        table | beam.io.WriteToParquet(out, SCHEMA, file_name_suffix=".parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
