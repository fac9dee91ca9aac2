#!/usr/bin/env bash
# LpPool with ceil_mode: torch scales windows that reach beyond the edge, ONNX Runtime does not.
#
# torch computes lp_pool2d as an average pool times the number of pixels of a whole window, so that a
# window of which only 4 of 9 pixels exist counts each of them 9/4 times; onnx's reference evaluator
# does likewise. ONNX Runtime adds up the pixels that exist. A network exported from torch computes
# something else there, without a word, at its right and bottom edges.
#
# Seen with torch 2.13.0, onnx 1.23.2, ONNX Runtime 1.32.0, NumPy 2.4.6, Python 3.11:
# 3 x 3 windows at stride 2 over 8 x 8, the last of them 2 x 2 pixels of 1:
# torch 3.0, onnx's reference 3.0, ONNX Runtime 2.0
#
# Exit status 0: still so. 1: it has changed, and what Lucid does about it may go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

x = np.ones((1, 1, 8, 8), np.float32)
node = helper.make_node("LpPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], p=2, ceil_mode=1)
graph = helper.make_graph(
    [node],
    "pool",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
by_torch = torch.nn.functional.lp_pool2d(torch.from_numpy(x), 2, 3, 2, ceil_mode=True).numpy()
reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
corners = [round(float(y[0, 0, -1, -1]), 4) for y in (by_torch, reference, runtime)]
print("torch, onnx's reference, ONNX Runtime:", *corners)
raise SystemExit(corners != [3.0, 3.0, 2.0])
PYTHON
