"""Classify a folder of images, or Parquet with the columns `path` and `bytes`, with Apache Beam.

    python beam_handler.py m.lucid images/ out/results [pipeline options]
    python beam_handler.py m.lucid images/ out/results \\
        --runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2
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

FLOATS = pa.list_(pa.float32())
KINDS = {"label": pa.int64(), "score": pa.float32(), "embedding": FLOATS, "error": pa.string()}
SCHEMA = pa.schema({"path": pa.string(), **KINDS})
Row = dict[str, Any]


class LucidModelHandler(ModelHandler[bytes, Row, Classifier]):
    """Files of images in, rows out. `threads`: of each process; Beam's runners start one process
    for each processor."""

    def __init__(self, path: str, threads: int = 1, max_batch_size: int = 64) -> None:
        super().__init__(min_batch_size=16, max_batch_size=max_batch_size)
        self.path, self.threads = path, threads

    def load_model(self) -> Classifier:
        return Classifier(lucid.load(self.path, threads=self.threads))

    def run_inference(
        self, batch: Sequence[bytes], model: Classifier, inference_args: Row | None = None
    ) -> Iterator[Row]:
        columns = {name: column.tolist() for name, column in model.predict(batch).items()}
        for row in zip(*columns.values(), strict=True):
            yield dict(zip(columns, row, strict=True))

    def get_num_bytes(self, batch: Sequence[bytes]) -> int:
        return sum(map(len, batch))

    def share_model_across_processes(self) -> bool:
        """Not by a process of its own, to which others would have to copy their batches: the
        weights, nearly all of a model, are mapped from its file and so shared already."""
        return False


def main(model: str, source: str, out: str, *options: str) -> None:
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        if Path(source).is_dir() and not [*Path(source).glob("*.parquet")]:
            found = pipeline | fileio.MatchFiles(f"{source}/**") | beam.Reshuffle()
            files = found | fileio.ReadMatches()
            images = files | beam.Map(lambda file: (file.metadata.path, file.read()))
        else:
            rows = pipeline | beam.io.ReadFromParquet(source, columns=["path", "bytes"])
            images = rows | beam.Map(lambda row: (row["path"], row["bytes"])) | beam.Reshuffle()
        handler = KeyedModelHandler(LucidModelHandler(str(Path(model).resolve())))
        results = images | RunInference(handler)
        table = results | beam.MapTuple(lambda path, row: {"path": path, **row})
        table | beam.io.WriteToParquet(out, SCHEMA, file_name_suffix=".parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
