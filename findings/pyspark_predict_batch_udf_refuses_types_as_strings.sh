#!/usr/bin/env bash
# pyspark: predict_batch_udf refuses a return type written as a string, which its documentation allows.
#
# pyspark.ml.functions.predict_batch_udf(make_predict_fn, *, return_type, batch_size) documents "return_type :
# pyspark.sql.types.DataType or str", as pandas_udf takes it. With "float" the UDF is made and planned, but
# its tasks fail in the Python workers: "ValueError: Unsupported return type". The string is compared with
# DataType classes there and never parsed. Structs ("label long, score float") fail in the same way. With
# FloatType(), or StructType.fromDDL("..."), the same UDF works.
#
# Seen with pyspark 4.3.0 (Java 17), Python 3.11:
# FloatType(): [0.0, 2.0, 4.0]
# 'float': Unsupported return type
#
# Exit status 0: still so. 1: it has changed, and examples/scale/spark_udf.py may pass its schema as it is.
# Needs a JRE.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pyspark==4.3.0 pandas==2.3.3 pyarrow==25.0.1 numpy==2.4.6
PYSPARK_PYTHON="$folder/venv/bin/python" "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import FloatType

spark = SparkSession.builder.master("local[1]").getOrCreate()


def doubled(return_type):
    predict = predict_batch_udf(lambda: lambda x: 2 * x, return_type=return_type, batch_size=8)
    return [row[0] for row in spark.range(3).select(predict("id")).collect()]


print("FloatType():", right := doubled(FloatType()))
try:
    told = doubled("float")
except Exception as error:
    told = "Unsupported return type" if "Unsupported return type" in str(error) else error
print("'float':", told)
raise SystemExit(not (right == [0.0, 2.0, 4.0] and told == "Unsupported return type"))
PYTHON
