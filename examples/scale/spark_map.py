"""Classify a folder of images, or Parquet with the columns `path` and `bytes`, with mapInPandas.

    python spark_map.py m.lucid images/ out/        # or spark-submit, with --master

As spark_udf.py, but the function has whole rows and decides which it returns: some may be left out
or become several, as the boxes of a detector. Spark keeps no model for it, so a cache does.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from pyspark import TaskContext
from pyspark.sql import SparkSession

import lucid

SCHEMA = "path string, label long, score float, embedding array<float>, error string"
Frames = Iterator[pd.DataFrame]


@functools.cache
def loaded(model: str, threads: int) -> lucid.vision.Classifier:
    return lucid.vision.Classifier(lucid.load(model, threads=threads))


def classify_with(model: str) -> Callable[[Frames], Frames]:
    def classify(batches: Frames) -> Frames:
        from spark_map import loaded  # the file itself, whose cache lives as long as the process

        classifier = loaded(model, TaskContext.get().cpus())  # spark.task.cpus
        for images in batches:
            columns = classifier.predict(images["bytes"])
            columns["embedding"] = list(columns["embedding"])
            yield pd.DataFrame({"path": images["path"], **columns})

    return classify


def main(model: str, source: str, out: str) -> None:
    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.addPyFile(__file__)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 64)  # else 10,000 images at once
    if Path(source).is_dir() and not [*Path(source).glob("*.parquet")]:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", True)
        images = files.load(source).withColumnRenamed("content", "bytes")
    else:
        images = spark.read.parquet(source)
    path = str(Path(model).resolve())
    images.select("path", "bytes").mapInPandas(classify_with(path), SCHEMA).write.parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
