#!/usr/bin/env bash
# ONNX Runtime: whether a maximum over an axis is NaN depends on where the NaN stands.
#
# ReduceMax and ReduceMin over a row give NaN only where it is the row's first number; MaxPool over a
# window, where it is the last. Elsewhere the NaN is dropped. torch and NumPy give NaN wherever it
# stands, and so does Lucid: a network that has gone wrong upstream should look it.
#
# Seen with onnx 1.23.2, ONNX Runtime 1.32.0, NumPy 2.4.6, Python 3.11:
# ReduceMax of (nan, 1, 3): nan; of (1, nan, 3): 3; of (1, 3, nan): 3
# MaxPool 2 x 2 of (nan, 1, 3, 4): 4; of (1, nan, 3, 4): 4; of (1, 2, 3, nan): nan
#
# Exit status 0: still so. 1: it has changed, and what Lucid does about it may go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def run(op, array, **attributes):
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        op,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return float(session.run(None, {"x": array})[0].ravel()[0])


nan = float("nan")
rows = {(nan, 1, 3): nan, (1, nan, 3): 3.0, (1, 3, nan): 3.0}
windows = {(nan, 1, 3, 4): 4.0, (1, nan, 3, 4): 4.0, (1, 2, 3, nan): nan}
changed = False
for row, seen in rows.items():
    got = run("ReduceMax", np.array([row], np.float32), keepdims=0)
    print(f"ReduceMax of {row}: {got}")
    changed |= not np.array_equal(got, seen, equal_nan=True)
for window, seen in windows.items():
    got = run("MaxPool", np.array(window, np.float32).reshape(1, 1, 2, 2), kernel_shape=[2, 2])
    print(f"MaxPool of {window}: {got}")
    changed |= not np.array_equal(got, seen, equal_nan=True)
raise SystemExit(changed)
PYTHON
