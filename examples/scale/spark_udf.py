"""Classify a folder of images, or Parquet with the columns `path` and `bytes`, with a Spark UDF.

    python spark_udf.py m.lucid images/ out/        # or spark-submit, with --master

Spark keeps one model in each of its Python processes, of which an executor has one for each task
that it runs at a time. They map the same weights. A model takes as many threads as its task has
processors.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pyspark import TaskContext
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

import lucid

SCHEMA = "label long, score float, embedding array<float>, error string"


def loader(model: str) -> Callable[[], Callable[[np.ndarray], dict[str, np.ndarray]]]:
    def load() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        threads = TaskContext.get().cpus()  # spark.task.cpus
        return lucid.vision.Classifier(lucid.load(model, threads=threads)).predict

    return load


def main(model: str, source: str, out: str) -> None:
    spark = SparkSession.builder.getOrCreate()
    if Path(source).is_dir() and not [*Path(source).glob("*.parquet")]:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", True)
        images = files.load(source).withColumnRenamed("content", "bytes")
    else:
        images = spark.read.parquet(source)
    path = str(Path(model).resolve())
    predict = predict_batch_udf(loader(path), return_type=StructType.fromDDL(SCHEMA), batch_size=64)
    found = images.select("path", predict("bytes").alias("found"))
    found.select("path", "found.*").write.parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
